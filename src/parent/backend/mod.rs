//! What a service's connection is handed to. One file for each kind.
//!
//! | file | noun |
//! |---|---|
//! | `environment` | the environment of a service |
//! | `exec` | a program for each connection |
//! | `connect` `targets` | a server that runs already; which of several, in which order |
//! | `pending` | connections to such servers that are not accepted yet |
//! | `socket_pairs` | the two ends of a connection that net relays |

pub mod connect;
pub mod environment;
pub mod exec;
mod pending;
pub mod socket_pairs;
pub mod targets;
