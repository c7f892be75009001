//! What a service's connection is handed to. One file for each kind.

pub mod exec;
