//! What a service's connection is handed to. One file for each kind.
//!
//! | file | noun |
//! |---|---|
//! | `exec` | a program for each connection |
//! | `connect` `targets` | a server that runs already; which of several, in which order |
//! | `pending` | connections to such servers that are not accepted yet |

pub mod connect;
pub mod exec;
mod pending;
pub mod targets;
