//! Closes descriptors that other processes have handed over. That may take as long as they like,
//! and no signal ends it: whoever serves a file of FUSE is told of each close and need not answer;
//! and what lies in the queue of a Unix socket is closed with its last descriptor, thousands of
//! sockets perhaps, whose close takes some milliseconds each (packet(7)). So a process beside this
//! one closes them (`side_process`), and nobody waits for it. A close that waits for the other end
//! (SO_LINGER, socket(7)) is interrupted there.

use super::interrupt::Interrupt;
use super::message::{self, Failed};
use super::shared::{self, Shared};
use super::{process, side_process, socket};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// What ps(1) calls the processes.
const NAME: &str = "fived-foreign";
/// When one has not closed all that it got for so long, another one gets what is to be closed next.
const BUSY_MAX: Duration = Duration::from_millis(100);
/// Processes that close sockets, at most, those included that may never end.
const MOST: usize = 64;
/// Sockets that wait for one, before nothing is taken that would have to wait, too; and an eighth
/// of the descriptors that this process may have, where that is less.
const WAITING_MAX: usize = 4096;

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

/// The one that gets the next socket, and what none has taken.
struct All {
    closer: Option<Closer>,
    waiting: Vec<OwnedFd>,
}

static ALL: Mutex<All> = Mutex::new(All { closer: None, waiting: Vec::new() });
/// How many there are.
static ALIVE: AtomicUsize = AtomicUsize::new(0);
/// How many sockets wait for one.
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// From now on what is [`Shared::from_others`](super::shared::Shared::from_others) is closed so.
pub fn close_elsewhere() {
    shared::close_foreign_with(close);
}

/// Closes it elsewhere, but for a socket of the internet.
fn close(fd: OwnedFd) -> Option<OwnedFd> {
    match socket::domain(fd.as_fd()) {
        Some(libc::AF_INET | libc::AF_INET6) => return Some(fd),
        Some(_) => close_socket(fd),
        None => close_alone(fd),
    }
    None
}

fn close_socket(fd: OwnedFd) {
    let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    all.waiting.push(fd);
    all.give_waiting();
}

/// Do so many wait for a process that no more are to come?
pub fn is_full() -> bool {
    WAITING.load(Ordering::Acquire) >= waiting_max()
}

/// Tries again to give away those that wait. True: some still do, and it has to be tried again.
pub fn retry() -> bool {
    if WAITING.load(Ordering::Acquire) == 0 {
        return false;
    }
    let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    all.give_waiting();
    !all.waiting.is_empty()
}

fn waiting_max() -> usize {
    static MOST: OnceLock<usize> = OnceLock::new();
    let eighth = || usize::try_from(process::nofile() / 8).unwrap_or(usize::MAX);
    *MOST.get_or_init(|| WAITING_MAX.min(eighth()))
}

impl All {
    /// As many as processes take.
    fn give_waiting(&mut self) {
        while let Some(fd) = self.waiting.pop() {
            if let Err(fd) = self.give(fd) {
                self.waiting.push(fd);
                break;
            }
        }
        WAITING.store(self.waiting.len(), Ordering::Release);
    }

    /// Err: no process takes it now.
    fn give(&mut self, fd: OwnedFd) -> Result<(), OwnedFd> {
        if self.closer.as_mut().is_none_or(Closer::is_busy) {
            self.start_another();
        }
        let mut given = self.send(&fd);
        if matches!(given, Err(Failed::Full)) {
            self.start_another();
            given = self.send(&fd);
        }
        match given {
            // Its close is the last one.
            Ok(count) => {
                drop(fd);
                count.got.fetch_add(1, Ordering::AcqRel);
            }
            Err(Failed::Full) => return Err(fd),
            // Too many may be under way (ETOOMANYREFS, unix(7)).
            Err(_) => close_alone(fd),
        }
        Ok(())
    }

    /// The one before ends when it has closed what it got.
    fn start_another(&mut self) {
        match Closer::start() {
            Ok(closer) => self.closer = Some(closer),
            Err(e) => ::log::debug!("{NAME}: {e}"),
        }
    }

    /// To the process that gets the next one: where it counts.
    fn send(&self, fd: &OwnedFd) -> Result<Arc<Count>, Failed> {
        let Closer { channel, count, .. } = self.closer.as_ref().ok_or(Failed::Full)?;
        match message::send(channel.as_fd(), &[0], &[fd.as_fd()]) {
            Ok(()) => Ok(count.clone()),
            Err(e) => Err(Failed::of(&e)),
        }
    }
}

/// In a process for this one alone, which needs no message.
fn close_alone(fd: OwnedFd) {
    // An error: there can be no thread, and it stays open.
    if let Err(e) = side_process::close(NAME, fd) {
        ::log::debug!("{NAME}: {e}");
    }
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
}

/// Until nothing can come any more.
fn close_all(channel: BorrowedFd, count: &Count) {
    let mut interrupt = Interrupt::new().ok();
    for n in 1.. {
        let Ok((1.., mut fds)) = message::receive_waiting(channel, &mut [0; 1]) else { return };
        let until = Instant::now() + COPY_MAX;
        while count.got.load(Ordering::Acquire) < n && Instant::now() < until {
            std::thread::sleep(PAUSE);
        }
        interrupt.iter_mut().for_each(Interrupt::want);
        drop(fds.take().map(Shared::our_own));
        interrupt.iter_mut().for_each(Interrupt::stop);
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
        no_more_wait_than_may();
    }

    /// While there can be no process.
    fn no_more_wait_than_may() {
        ALL.lock().unwrap().closer = None;
        ALIVE.fetch_add(MOST, Ordering::AcqRel);
        let mut ours = Vec::new();
        while !is_full() {
            assert!(ours.len() < waiting_max());
            let (end, theirs) = socket::pair().unwrap();
            close(theirs);
            ours.push(end);
        }
        ALIVE.fetch_sub(MOST, Ordering::AcqRel);
        // A process's channel takes some hundreds at a time.
        while retry() {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(!is_full());
    }
}
