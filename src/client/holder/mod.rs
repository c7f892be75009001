//! The holder of a session: a process that belongs to no terminal and copies between the session's
//! streams and the descriptors that callers hand over. One thread polls all of them and never waits
//! in a write.
//!
//! | file | noun |
//! |---|---|
//! | `state.rs` | what the holder knows, and how much it may take |
//! | `run.rs` | the loop, and what ends it |
//! | `session_socket.rs` | where new callers find the session |
//! | `callers.rs`, `requests.rs` | who asks, what they ask, what they are told |
//! | `call.rs`, `streams.rs` | a call; its request, its answer, how its stream ends |
//! | `forwards.rs`, `applications.rs` | the forwards of the configuration, and who connects there |
//! | `liveness.rs` | does the server still answer? |
//!
//! It goes when nothing was open for `persist`, when the server says go-away and the last stream
//! has ended, when the session breaks, and when it is told to (`-O exit`, SIGTERM). Its socket goes
//! first, so that no caller is stranded. Memory: what a call's output does not take, at most its
//! window (256 KiB to 4 MiB, 16 MiB in all); input that was sent before the answer, at most 64 KiB
//! a call; 512 KiB of frames.

mod applications;
mod call;
mod callers;
mod forwards;
mod liveness;
mod requests;
mod run;
mod session_socket;
mod state;
mod streams;

pub use forwards::Forwards;
pub use session_socket::SessionSocket;
pub use state::Holder;
