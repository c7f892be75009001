//! Where the log goes: descriptor 2, a file, or syslog's socket. Never blocks. Syslog and the
//! journal of systemd are told that the lines that begin with `WARN ` are warnings.
//!
//! | file | noun |
//! |---|---|
//! | `beside` | what is written by a process beside this one |
//! | `path` | the file's name |
//! | `syslog` | syslog's socket |
//! | `stderr` | descriptor 2, and how much is written there at once |

mod beside;
mod path;
mod stderr;
mod syslog;

pub use path::may_append;
pub use syslog::SYSLOG;

use super::socket;
use beside::Beside;
use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::sync::atomic::{AtomicBool, Ordering};
use stderr::{descriptor_2, piece};
use syslog::{Syslog, WARN, WARNING};

#[derive(Debug)]
enum Kind {
    /// Other processes share it, so it is never made nonblocking.
    Shared {
        file: ManuallyDrop<File>,
        how: How,
        /// It leads to systemd's journal, which takes the priority of a line from `<N>` before it.
        journal: bool,
    },
    /// Services have it, too, and it is no socket.
    Beside(Beside),
    Own(File),
    Syslog(Syslog),
}

/// How descriptor 2 is written to without waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// A regular file never blocks.
    AtOnce,
    /// A pipe or a terminal takes something where poll(2) says so.
    Polled,
    /// What a socket takes it takes without waiting (send(2), MSG_DONTWAIT). Others who have it may
    /// fill it, or make it smaller, between a poll and a write.
    Socket,
}

/// Where the log goes.
#[derive(Debug)]
pub struct Output(Kind);

impl Output {
    /// Descriptor 2. `services`: some of them get it, too; one that ran before may still have it.
    pub fn stderr(services: bool) -> Output {
        static HAVE_IT: AtomicBool = AtomicBool::new(false);
        let have_it = HAVE_IT.fetch_or(services, Ordering::Relaxed) || services;
        let file = descriptor_2();
        let found = file.metadata();
        let how = found.as_ref().map_or(How::Polled, |m| match m.file_type() {
            t if t.is_socket() => How::Socket,
            t if t.is_fifo() || t.is_char_device() => How::Polled,
            _ => How::AtOnce,
        });
        if have_it && how != How::Socket {
            return Output(Kind::Beside(Beside::default()));
        }
        let journal = found.is_ok_and(|m| is_journal(&m));
        Output(Kind::Shared { file, how, journal })
    }

    /// Appends to a file, which is created with mode 0640 if it does not exist. A named pipe is
    /// opened without waiting for a reader.
    pub fn file(path: &str) -> io::Result<Output> {
        path::open(path).map(|file| Output(Kind::Own(file)))
    }

    /// syslog(3)'s datagrams to /dev/log; `facility` and `level` as RFC 5424, 6.2.1 numbers them.
    /// One that is not there yet is looked for again when something is logged.
    pub fn syslog(facility: u8, level: u8) -> Output {
        Output(Kind::Syslog(Syslog::new(facility, level)))
    }

    /// Does each line need the time? A file does; syslog, and whoever reads a terminal or a pipe,
    /// knows it.
    pub fn wants_time(&self) -> bool {
        matches!(self.0, Kind::Own(_))
    }

    /// Writes as much as it can without waiting, in whole lines where possible; returns how many
    /// bytes.
    pub fn write(&mut self, lines: &[u8]) -> usize {
        match &mut self.0 {
            Kind::Shared { file, how, journal: true } => journal(file, *how, lines),
            Kind::Shared { file, how, .. } => shared(file, *how, lines),
            Kind::Beside(beside) => beside.write(lines),
            Kind::Own(file) => file.write(lines).unwrap_or(0),
            Kind::Syslog(syslog) => syslog.write(lines),
        }
    }

    /// Is all where it goes that was taken?
    pub fn is_done(&self) -> bool {
        match &self.0 {
            Kind::Beside(beside) => beside.is_done(),
            Kind::Shared { .. } | Kind::Own(_) | Kind::Syslog(_) => true,
        }
    }
}

fn shared(file: &mut File, how: How, lines: &[u8]) -> usize {
    let mut done = 0;
    while done < lines.len() {
        let written = match how {
            How::AtOnce => file.write(&lines[done..]),
            How::Polled if !writable(file.as_fd()) => break,
            How::Polled => file.write(piece(&lines[done..])),
            How::Socket => socket::send(file.as_fd(), piece(&lines[done..])),
        };
        match written {
            Ok(n) if n > 0 => done += n,
            _ => break,
        }
    }
    done
}

/// Is this what JOURNAL_STREAM names (systemd.exec(5))?
fn is_journal(found: &Metadata) -> bool {
    let named = std::env::var("JOURNAL_STREAM");
    named.is_ok_and(|n| n == format!("{}:{}", found.dev(), found.ino()))
}

/// Each warning by itself, with its priority, and the lines between them together.
fn journal(file: &mut File, how: How, lines: &[u8]) -> usize {
    let mut done = 0;
    while done < lines.len() {
        let rest = &lines[done..];
        let line = rest.iter().position(|&b| b == b'\n').map_or(rest.len(), |i| i + 1);
        let (size, taken) = if rest.starts_with(WARN) {
            let marked = [format!("<{WARNING}>").as_bytes(), &rest[..line]].concat();
            // What is left of a line goes on without the mark.
            (line, shared(file, how, &marked).saturating_sub(marked.len() - line))
        } else {
            let next = rest.windows(WARN.len() + 1).position(|w| w[0] == b'\n' && &w[1..] == WARN);
            let size = next.map_or(rest.len(), |i| i + 1);
            (size, shared(file, how, &rest[..size]))
        };
        done += taken;
        if taken < size {
            break;
        }
    }
    done
}

fn writable(fd: BorrowedFd) -> bool {
    let mut p = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: one valid pollfd; a timeout of 0 never waits.
    unsafe { libc::poll(&mut p, 1, 0) == 1 && p.revents & libc::POLLOUT != 0 }
}
