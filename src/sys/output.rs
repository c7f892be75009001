//! Where the log goes: descriptor 2, a file, or syslog's socket. Never blocks. Syslog and the
//! journal of systemd are told that the lines that begin with `WARN ` are warnings.
//!
//! | file | noun |
//! |---|---|
//! | `beside` | what is written by a process beside this one |
//! | `stderr` | descriptor 2, and how much is written there at once |

mod beside;
mod stderr;

use beside::Beside;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering};
use stderr::{descriptor_2, piece};

pub const SYSLOG: &str = "/dev/log";
const WARN: &[u8] = b"WARN ";
/// The priority of warnings, as RFC 5424, 6.2.1 numbers it.
const WARNING: u8 = 4;

#[derive(Debug)]
enum Kind {
    /// Other processes share it, so it is never made nonblocking: a pipe, a socket or a terminal is
    /// polled before each write; a regular file never blocks.
    Shared {
        file: ManuallyDrop<File>,
        regular: bool,
        /// It leads to systemd's journal, which takes the priority of a line from `<N>` before it.
        journal: bool,
    },
    /// Services have it, too, and it is no socket.
    Beside(Beside),
    Own(File),
    Syslog {
        socket: UnixDatagram,
        facility: u8,
        level: u8,
    },
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
        let may_wait = |m: &Metadata| {
            m.file_type().is_fifo() || m.file_type().is_socket() || m.file_type().is_char_device()
        };
        let found = file.metadata();
        if have_it && !found.as_ref().is_ok_and(|m| m.file_type().is_socket()) {
            return Output(Kind::Beside(Beside::default()));
        }
        let regular = found.as_ref().is_ok_and(|m| !may_wait(m));
        let journal = found.is_ok_and(|m| is_journal(&m));
        Output(Kind::Shared { file, regular, journal })
    }

    /// Appends to a file, which is created with mode 0640 if it does not exist. A named pipe is
    /// opened without waiting for a reader.
    pub fn file(path: &str) -> io::Result<Output> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o640)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)?;
        if file.metadata()?.file_type().is_dir() {
            return Err(io::Error::from_raw_os_error(libc::EISDIR));
        }
        Ok(Output(Kind::Own(file)))
    }

    /// syslog(3)'s datagrams to /dev/log; `facility` and `level` as RFC 5424, 6.2.1 numbers them.
    pub fn syslog(facility: u8, level: u8) -> io::Result<Output> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        // A syslog that is not there yet is tried again with each line.
        let _ = socket.connect(SYSLOG);
        Ok(Output(Kind::Syslog { socket, facility, level }))
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
            Kind::Shared { file, journal: true, .. } => journal(file, lines),
            Kind::Shared { file, regular, .. } => shared(file, *regular, lines),
            Kind::Beside(beside) => beside.write(lines),
            Kind::Own(file) => file.write(lines).unwrap_or(0),
            Kind::Syslog { socket, facility, level } => syslog(socket, *facility, *level, lines),
        }
    }

    /// Is all where it goes that was taken?
    pub fn is_done(&self) -> bool {
        match &self.0 {
            Kind::Beside(beside) => beside.is_done(),
            Kind::Shared { .. } | Kind::Own(_) | Kind::Syslog { .. } => true,
        }
    }
}

fn shared(file: &mut File, regular: bool, lines: &[u8]) -> usize {
    let mut done = 0;
    while done < lines.len() {
        let piece = if regular { &lines[done..] } else { piece(&lines[done..]) };
        if !regular && !writable(file.as_fd()) {
            break;
        }
        match file.write(piece) {
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
fn journal(file: &mut File, lines: &[u8]) -> usize {
    let mut done = 0;
    while done < lines.len() {
        let rest = &lines[done..];
        let line = rest.iter().position(|&b| b == b'\n').map_or(rest.len(), |i| i + 1);
        let (size, taken) = if rest.starts_with(WARN) {
            let marked = [format!("<{WARNING}>").as_bytes(), &rest[..line]].concat();
            // What is left of a line goes on without the mark.
            (line, shared(file, false, &marked).saturating_sub(marked.len() - line))
        } else {
            let next = rest.windows(WARN.len() + 1).position(|w| w[0] == b'\n' && &w[1..] == WARN);
            let size = next.map_or(rest.len(), |i| i + 1);
            (size, shared(file, false, &rest[..size]))
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

fn syslog(socket: &UnixDatagram, facility: u8, level: u8, lines: &[u8]) -> usize {
    let mut done = 0;
    for line in lines.split_inclusive(|&b| b == b'\n') {
        let level = if line.starts_with(WARN) { level.min(WARNING) } else { level };
        let priority = u32::from(facility) * 8 + u32::from(level);
        let prefix = format!("<{priority}>fived[{}]: ", std::process::id());
        let packet = [prefix.as_bytes(), line.strip_suffix(b"\n").unwrap_or(line)].concat();
        let sent = socket.send(&packet).or_else(|e| match e.kind() {
            io::ErrorKind::WouldBlock => Err(e),
            _ => socket.connect(SYSLOG).and_then(|()| socket.send(&packet)),
        });
        if sent.is_err() {
            break;
        }
        done += line.len();
    }
    done
}
