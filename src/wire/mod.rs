//! What is said, without anybody saying it: bytes in, values out.
//!
//! PURE: no descriptor, no clock, no thread. Everything here that a stranger can reach has a bound
//! and a property test.

pub mod agent;
pub mod answer;
pub mod archive;
pub mod authorized_keys;
pub mod builtins;
pub mod handover;
pub mod labels;
pub mod line;
pub mod login;
pub mod lookups;
pub mod orders;
pub mod pubkey;
pub mod reply;
pub mod request;
pub mod roles;
pub mod signing;
mod ssh;
pub mod sshsig;
pub mod yamux;
