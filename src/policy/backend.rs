//! What a client of a service is given: a program of its own, or one of fived's own services.

use crate::wire::internal::Internal;

/// What serves the clients of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    /// A program, started for each client.
    Exec {
        /// Its absolute path.
        program: String,
        /// The first is `argv[0]`.
        arguments: Vec<String>,
    },
    /// One of fived's own services.
    Internal(Internal),
}
