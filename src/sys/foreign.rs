//! Closes descriptors that other processes have handed over. That may take as long as they like,
//! and no signal ends it: whoever serves a file of FUSE is told of each close and need not answer;
//! and what lies in the queue of a Unix socket is closed with its last descriptor, thousands of
//! sockets perhaps, whose close takes some milliseconds each (packet(7)). So a process beside this
//! one closes them (`side_process`), and nobody waits for it.

use super::message;
use super::shared::{self, Shared};
use super::{side_process, socket};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What ps(1) calls the processes.
const NAME: &str = "fived-foreign";
/// When one has not closed all that it got for so long, another one gets what is to be closed next.
const BUSY_MAX: Duration = Duration::from_millis(100);
/// Processes that close one socket after the other, at most, those included that may never end.
/// What none of them takes has a process for itself alone.
const MOST: usize = 64;

/// How long such a process waits until this one has closed its copy, on a computer that is busy,
/// and how often it looks.
const COPY_MAX: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_micros(50);

/// A process that closes sockets.
struct Closer {
    channel: OwnedFd,
    count: Arc<Count>,
    /// When it had closed all.
    idle: Instant,
}

#[derive(Default)]
struct Count {
    /// How many it has got, and nobody else has a copy of.
    got: AtomicUsize,
    closed: AtomicUsize,
}

/// The one that gets the next socket.
static CLOSER: Mutex<Option<Closer>> = Mutex::new(None);
/// How many there are.
static ALIVE: AtomicUsize = AtomicUsize::new(0);

/// From now on what is [`Shared::from_others`](super::shared::Shared::from_others) is closed so.
pub fn close_elsewhere() {
    shared::close_foreign_with(close);
}

/// Closes it elsewhere, but for a socket of the internet.
fn close(fd: OwnedFd) -> Option<OwnedFd> {
    let left = match socket::domain(fd.as_fd()) {
        Some(libc::AF_INET | libc::AF_INET6) => return Some(fd),
        Some(_) => give(fd),
        None => Err(fd),
    };
    // An error: there can be no thread, and it stays open.
    if let Err(fd) = left
        && let Err(e) = side_process::close(NAME, fd)
    {
        ::log::debug!("{NAME}: {e}");
    }
    None
}

/// Err: nobody takes it now, for there are too many, or too many descriptors are under way.
fn give(fd: OwnedFd) -> Result<(), OwnedFd> {
    let mut closer = CLOSER.lock().unwrap_or_else(PoisonError::into_inner);
    let idle = closer.take_if(|closer| !closer.is_busy());
    let mut to = match idle.map_or_else(Closer::start, Ok) {
        Ok(to) => to,
        Err(e) => {
            ::log::debug!("{NAME}: {e}");
            return Err(fd);
        }
    };
    to.give(fd)?;
    // The one before ends when it has closed what it got.
    *closer = Some(to);
    Ok(())
}

impl Closer {
    fn start() -> io::Result<Closer> {
        if ALIVE.load(Ordering::Acquire) >= MOST {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let (channel, theirs) = socket::seqpacket()?;
        let count = Arc::new(Count::default());
        let its = count.clone();
        ALIVE.fetch_add(1, Ordering::AcqRel);
        let over = || {
            ALIVE.fetch_sub(1, Ordering::AcqRel);
        };
        side_process::run_counted(NAME, theirs, over, move |channel| close_all(channel, &its))
            .inspect_err(|_| over())?;
        Ok(Closer { channel, count, idle: Instant::now() })
    }

    /// Has it had something to close for longer than most take?
    fn is_busy(&mut self) -> bool {
        let Count { got, closed } = &*self.count;
        if closed.load(Ordering::Acquire) == got.load(Ordering::Acquire) {
            self.idle = Instant::now();
        }
        self.idle.elapsed() > BUSY_MAX
    }

    fn give(&mut self, fd: OwnedFd) -> Result<(), OwnedFd> {
        if message::send(self.channel.as_fd(), &[0], &[fd.as_fd()]).is_err() {
            return Err(fd);
        }
        // Its close is the last one.
        drop(fd);
        self.count.got.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }
}

/// Until nothing can come any more.
fn close_all(channel: BorrowedFd, count: &Count) {
    for n in 1.. {
        let Ok((1.., mut fds)) = message::receive_waiting(channel, &mut [0; 1]) else { return };
        let until = Instant::now() + COPY_MAX;
        while count.got.load(Ordering::Acquire) < n && Instant::now() < until {
            std::thread::sleep(PAUSE);
        }
        drop(fds.take().map(Shared::our_own));
        count.closed.store(n, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn what_is_closed_elsewhere_is_closed() {
        for _ in 0..100 {
            let (ours, theirs) = socket::pair().unwrap();
            close(theirs);
            assert_eq!(std::os::unix::net::UnixStream::from(ours).read(&mut [0]).unwrap(), 0);
        }
        let (mut reads, writes) = std::io::pipe().unwrap();
        close(writes.into());
        assert_eq!(reads.read(&mut [0]).unwrap(), 0);
        assert!(ALIVE.load(Ordering::Acquire) < MOST);
    }
}
