//! The exit statuses of `fived` (fived(8)).

/// Wrong or missing configuration, wrong use.
pub const WRONG: i32 = 1;
/// Refused by the system.
pub const REFUSED: i32 = 111;
