//! Descriptor 2, and how much is written there at once.

use std::fs::File;
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd;

/// A pipe that poll(2) reports writable takes this much without blocking (pipe(7): PIPE_BUF).
pub const PIPE_TAKES: usize = 4096;

pub fn descriptor_2() -> ManuallyDrop<File> {
    // SAFETY: descriptor 2 stays open as long as the process runs; ManuallyDrop never closes it.
    ManuallyDrop::new(unsafe { File::from_raw_fd(2) })
}

/// As many whole lines as a pipe takes at once.
pub fn piece(lines: &[u8]) -> &[u8] {
    if lines.len() <= PIPE_TAKES {
        return lines;
    }
    let end = lines[..PIPE_TAKES].iter().rposition(|&b| b == b'\n').map_or(PIPE_TAKES, |i| i + 1);
    &lines[..end]
}
