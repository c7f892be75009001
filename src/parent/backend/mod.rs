//! What a service's connection is handed to. One file for each kind.
//!
//! | file | noun |
//! |---|---|
//! | `environment` | the environment of a service |
//! | `exec` | a program for each connection |
//! | `connect` `targets` | a server that runs already; which of several, in which order |
//! | `tried` | an arrival that is being connected, and how a try went |
//! | `as_user` | Unix sockets, each connected as a user |
//! | `pending` | connections to such servers that are not accepted yet |
//! | `socket_pairs` | the two ends of a connection that net relays |

mod as_user;
pub mod connect;
pub mod environment;
pub mod exec;
mod pending;
pub mod socket_pairs;
pub mod targets;
pub mod tried;
