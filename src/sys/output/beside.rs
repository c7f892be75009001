//! Descriptor 2, where services have it too (`stderr = log`), written by a process beside this one
//! (`sys::side_process`). Whoever writes to a pipe or a file keeps its lock meanwhile, for as long
//! as it likes where the bytes come from memory that somebody else provides (userfaultfd(2), FUSE);
//! and who writes there then waits in the kernel, whatever poll(2) has said.

use super::stderr::{PIPE_TAKES, descriptor_2, piece};
use crate::sys::message::{self, Failed};
use crate::sys::poll::{self, Poll};
use crate::sys::{side_process, socket};
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What ps(1) calls the process.
const NAME: &str = "fived-log";

/// See the module. The process is there from the first line on.
#[derive(Debug, Default)]
pub struct Beside(Option<Writer>);

#[derive(Debug)]
struct Writer {
    channel: OwnedFd,
    /// How many messages it was sent, and how many it has done with.
    sent: usize,
    done: Arc<AtomicUsize>,
}

impl Beside {
    /// Hands over as much as its channel takes; returns how many bytes.
    pub fn write(&mut self, lines: &[u8]) -> usize {
        let mut taken = 0;
        while taken < lines.len() {
            let piece = piece(&lines[taken..]);
            let Ok(writer) = self.writer() else { break };
            match message::send(writer.channel.as_fd(), piece, &[]) {
                Ok(()) => {
                    writer.sent += 1;
                    taken += piece.len();
                }
                // Somebody has ended it.
                Err(e) if Failed::of(&e) == Failed::Gone => self.0 = None,
                Err(_) => break,
            }
        }
        taken
    }

    /// Is all written that was handed over?
    pub fn is_done(&self) -> bool {
        self.0.as_ref().is_none_or(|w| w.done.load(Ordering::Acquire) == w.sent)
    }

    fn writer(&mut self) -> io::Result<&mut Writer> {
        match &mut self.0 {
            Some(writer) => Ok(writer),
            none => Ok(none.insert(Writer::start()?)),
        }
    }
}

impl Writer {
    fn start() -> io::Result<Writer> {
        let (channel, theirs) = socket::seqpacket()?;
        let done = Arc::new(AtomicUsize::new(0));
        let its = done.clone();
        side_process::run(NAME, theirs, move |channel| write_all(channel, &its))?;
        Ok(Writer { channel, sent: 0, done })
    }
}

/// Until nothing can come any more.
fn write_all(channel: BorrowedFd, done: &AtomicUsize) {
    let (mut file, mut bytes) = (descriptor_2(), [0; PIPE_TAKES]);
    while let Ok((n @ 1.., _)) = message::receive_waiting(channel, &mut bytes) {
        let mut left = &bytes[..n];
        while !left.is_empty() {
            match file.write(left) {
                Ok(n) if n > 0 => left = &left[n..],
                // Another program made it nonblocking.
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    let _ = poll::wait(&mut [Poll::new(file.as_fd(), false, true)], None);
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                _ => break,
            }
        }
        done.fetch_add(1, Ordering::AcqRel);
    }
}
