//! The holder of a session: a process that belongs to no terminal and copies between the session's
//! streams and the descriptors that callers hand over. One thread polls all of them and never waits
//! in a write.
//!
//! | file | noun |
//! |---|---|
//! | `state.rs` | what the holder knows, and how much it may take |
//! | `run.rs`, `wait.rs` | the loop, and what ends it; what it waits for |
//! | `session_socket.rs` | where new callers find the session |
//! | `callers.rs`, `requests.rs` | who makes calls or asks about the session; their messages |
//! | `orders.rs` | what -O asks for |
//! | `call.rs`, `start.rs`, `streams.rs` | a call; its stream and its request; its answer, and how its stream ends |
//! | `forwards.rs`, `applications.rs` | the session's forwards, and who connects there |
//! | `successor.rs`, `outliving.rs` | the next session, whose holder gets the forwards that -O has added; what this one does until then |
//! | `offers.rs` | services that this computer serves, and their clients |
//! | `liveness.rs` | whether the server still answers |
//! | `over.rs` | why the connection, or the session, is over |
//! | `resuming.rs` | what it does while the session has no connection |
//! | `away.rs`, `attempt.rs` | a session that has none; an attempt to resume it |
//!
//! It ends when no call was open for `persist` and nothing was added by -O, when the server has
//! sent go-away and the last stream has ended, when the session breaks, and on `-O exit` or
//! SIGTERM; but while it has forwards that -O has added, it goes on until the next session's holder
//! has them, and until the output of services that had ended before the session is written. It
//! removes its socket first, so that no caller connects in vain. Memory: output that a caller does
//! not read, at most the stream's window (256 KiB to 4 MiB, 16 MiB in all); input that was sent
//! before the answer, at most 64 KiB a call; 512 KiB of frames.

mod applications;
mod attempt;
mod away;
mod call;
mod callers;
mod forwards;
mod liveness;
mod offers;
mod orders;
mod outliving;
mod over;
mod requests;
mod resuming;
mod run;
mod session_socket;
mod start;
mod state;
mod streams;
mod successor;
mod wait;

pub use forwards::Forwards;
pub use session_socket::SessionSocket;
pub use state::Holder;
