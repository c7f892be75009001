//! The exit statuses of `fived` (fived(8)), and the lines that say why.

use std::io::{self, Write};

/// A mistake in the configuration or the command line.
pub const USAGE: i32 = 1;
/// The system refused something.
pub const SYSTEM: i32 = 111;

/// Prints a line on standard error. Where nobody reads that, or nothing can be written, the exit
/// status alone says what became of the task.
pub fn print_error(line: &str) {
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}
