//! The exit statuses of `fived` (fived(8)).

/// A mistake in the configuration or the command line.
pub const USAGE: i32 = 1;
/// The system refused something.
pub const SYSTEM: i32 = 111;
