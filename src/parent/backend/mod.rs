//! What a service's connection is handed to. One file for each kind.
//!
//! | file | noun |
//! |---|---|
//! | `exec` | a program for each connection |
//! | `connect` `targets` | a server that runs already; which of several, in which order |

pub mod connect;
pub mod exec;
pub mod targets;
