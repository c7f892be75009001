//! What a service's connection is handed to. One file for each kind.
//!
//! | file | noun |
//! |---|---|
//! | `exec` | a program for each connection |
//! | `connect` `targets` | a server that runs already; which of several, in which order |
//! | `tried` | an arrival that is being connected, and how a try went |
//! | `as_user` | Unix sockets, each connected as a user |
//! | `pending` | connections to such servers that are not accepted yet |

mod as_user;
pub mod connect;
pub mod exec;
mod pending;
pub mod targets;
pub mod tried;
