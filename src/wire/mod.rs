//! What is said, without anybody saying it: bytes in, values out.
//!
//! PURE: no descriptor, no clock, no thread. Everything here that a stranger can reach has a bound
//! and a property test. Every contract between two processes or machines is here, once.
//!
//! | file | contract |
//! |---|---|
//! | `request` `line` | a client's request (RFC 1078), and the lines of a dialogue |
//! | `builtins` | what a request can name that is no service, and where |
//! | `reply` `answer` | what fived says, and how five reads it |
//! | `pubkey` `sshsig` `labels` | what PUBKEY signs and how; the labels of TLS and of signatures |
//! | `yamux` | MULTIPLEX |
//! | `authorized_keys` `agent` `ssh` | OpenSSH's file of keys, its agent, and what both are made of |
//! | `roles` `internal` `lookups` | what fived hands to its own roles, the names of the internal services, and what look-ups answer |
//! | `orders` `signing` | the parent with net, with sessions and with keys: what may be said when |
//! | `login` | a login child with its session and with the parent |
//! | `archive` | a configuration, as net is handed it |
//! | `proxy` | what a server behind fived is told of its client (PROXY protocol) |
//! | `handover` | five's callers and the holder of its session |

pub mod agent;
pub mod answer;
pub mod archive;
pub mod authorized_keys;
pub mod builtins;
pub mod handover;
pub mod internal;
pub mod labels;
pub mod line;
pub mod login;
pub mod lookups;
pub mod orders;
pub mod proxy;
pub mod pubkey;
pub mod reply;
pub mod request;
pub mod roles;
pub mod signing;
mod ssh;
pub mod sshsig;
pub mod yamux;
