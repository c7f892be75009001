//! The formats of everything that processes and machines send to each other: bytes in, values out.
//!
//! PURE: no descriptor, no clock, no thread. Everything here that a stranger can reach has a bound
//! and a property test. Every contract between two processes or machines is here, once.
//!
//! | file | contract |
//! |---|---|
//! | `request` `line` | a client's request (RFC 1078), and the lines of a dialogue |
//! | `builtins` | names in a request that are not services, and where each may be used |
//! | `reply` `answer` | the lines that fived writes, and how five reads them |
//! | `pubkey` `sshsig` `labels` | what PUBKEY signs and how; the labels of TLS and of signatures |
//! | `yamux` | MULTIPLEX |
//! | `resume` | RESUME: its records and its lines |
//! | `run` | RUN: a service's output, its standard error and its end as records |
//! | `authorized_keys` `agent` `ssh` | OpenSSH's file of keys, its agent, and the encoding of both |
//! | `from_list` | a key's `from=` |
//! | `pattern` | names with `*` and `?`, in five's configuration and in a key's `from=` |
//! | `roles` `internal` `lookups` | what fived hands to its own roles, the names of the internal services, and what look-ups answer |
//! | `orders` `signing` | the parent with net, with sessions and with keys: which order may be sent when |
//! | `login` | a login child with its session and with the parent |
//! | `exposition` | the text of the service `metrics` |
//! | `archive` | a configuration, as net is handed it |
//! | `offer` | what a server says of a client of a service that is offered |
//! | `peer` | who is at the other end of a connection, in orders, variables and the log |
//! | `proxy` | who the client is, as fived tells an upstream and a load balancer tells fived (PROXY protocol) |
//! | `handover` | five's callers and the holder of its session |
//! | `word` | values as words of a line, in the log and in what `five -O` prints |

pub mod agent;
pub mod answer;
pub mod archive;
pub mod authorized_keys;
pub mod builtins;
pub mod exposition;
pub mod from_list;
pub mod handover;
pub mod internal;
pub mod labels;
pub mod line;
pub mod login;
pub mod lookups;
pub mod offer;
pub mod orders;
pub mod pattern;
pub mod peer;
pub mod proxy;
pub mod pubkey;
pub mod reply;
pub mod request;
pub mod resume;
pub mod roles;
pub mod run;
pub mod signing;
mod ssh;
pub mod sshsig;
pub mod word;
pub mod yamux;
