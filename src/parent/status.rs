//! The exit statuses of `fived` (fived(8)), and the lines that say why.

use std::io::{self, Write};

/// A mistake in the configuration or the command line.
pub const USAGE: i32 = 1;
/// The system refused something.
pub const SYSTEM: i32 = 111;

/// Prints a line, or several, on standard error, with escapes for control characters, which a
/// terminal would obey. Where nobody reads that, or nothing can be written, the exit status alone
/// says what became of the task.
pub fn print_error(text: &str) {
    let mut shown = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        match c {
            '\n' => shown.push(c),
            c if c.is_control() => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
    }
    shown.push('\n');
    let _ = io::stderr().write_all(shown.as_bytes());
}
