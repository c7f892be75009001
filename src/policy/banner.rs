//! A file that is sent after a reply.

use std::sync::Arc;

/// Bytes of a banner's file at most.
pub const BANNER_MAX: usize = 16 * 1024;

/// A banner: its file, read when the configuration was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Banner {
    pub path: String,
    pub text: Arc<[u8]>,
}
