//! Closes descriptors that other processes have, or have had. That may take as long as they like,
//! and no signal ends it: who watches a file by epoll(7) keeps its last close waiting by a wait for
//! events with memory that somebody else provides (userfaultfd(2), FUSE); whoever serves a file of
//! FUSE is told of each close and need not answer; and what lies in the queue of a Unix socket is
//! closed with its last descriptor, thousands of sockets perhaps, whose close takes some
//! milliseconds each (packet(7)). So processes beside this one close them (`side_process`), and
//! nobody waits for them: some for each user whose services had them, so that a user keeps only
//! that user's own from being closed, and some for each channel that they came through. Whoever
//! asks for more of that user's, or reads that channel, asks first whether it
//! [is held up](is_held_up).

use super::interrupt::Interrupt;
use super::message::{self, FDS_MAX, Failed};
use super::shared::{self, Whose};
use super::{poll, process, side_process, socket};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What ps(1) calls the processes.
const NAME: &str = "fived-foreign";
/// Such processes at a time, at most, those included that may never end: another one begins only
/// where something is to be closed while all others have something to close.
const OF_A_USER: usize = 8;
const OF_A_CHANNEL: usize = 2;
const OF_ANYBODY: usize = 64;
/// For each this process must be allowed so many descriptors, but for the first.
const DESCRIPTORS_EACH: u64 = 256;
/// When somebody's are the first of so many, all others' end as soon as they have nothing to close.
const IDLE_MAX: usize = 64;
/// One that has closed nothing for so long waits for somebody; a computer that is busy may leave
/// it without a processor for some tenths of a second.
const HELD_UP: Duration = Duration::from_secs(3);
/// They end at a [`tidy`] when they have got nothing for so long. Where nothing happens any more
/// the last such call is 3 s after the last thing that did: it must not leave them for good.
const UNUSED: Duration = Duration::from_secs(2);
/// So many of one channel, and of nobody knows whom, may be left to be closed: of the latter an
/// eighth of the descriptors that this process may have, too, where that is less.
const LEFT_MAX: usize = 256;
const LEFT_OF_ANYBODY_MAX: usize = 4096;

/// So many files that are no sockets may be left to be closed, each of which takes a process of its
/// own. Nobody but a net process that somebody else controls sends one: then
/// [no other begins](is_full_of_files).
const FILES_MAX: usize = 256;

/// How long such a process waits until this one has closed its copy, on a computer that is busy,
/// and how often it looks. It is a microsecond mostly, for which others may run.
const COPY_MAX: Duration = Duration::from_secs(3);
const YIELD_TIME: Duration = Duration::from_micros(50);
const PAUSE: Duration = Duration::from_micros(50);

/// A process that closes.
struct Closer {
    channel: OwnedFd,
    count: Arc<Count>,
    /// How many it had closed when that was looked at last, and since when it is so many.
    closed: usize,
    since: Instant,
}

#[derive(Default)]
struct Count {
    /// How many it has got, and this process has no copy of.
    got: AtomicUsize,
    closed: AtomicUsize,
}

/// What is to be closed of somebody's.
#[derive(Default)]
struct Closing {
    closers: Vec<Closer>,
    /// What no process has taken yet.
    waiting: VecDeque<OwnedFd>,
    /// When it got something last.
    used: Option<Instant>,
}

static ALL: LazyLock<Mutex<HashMap<Whose, Closing>>> = LazyLock::new(Mutex::default);
/// Does something wait that no process has got yet?
static WAITS: AtomicBool = AtomicBool::new(false);
/// Files that are no sockets and are not closed yet.
static FILES: AtomicUsize = AtomicUsize::new(0);

fn all() -> MutexGuard<'static, HashMap<Whose, Closing>> {
    ALL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on what is [somebody's](super::shared::Shared::of) is closed so.
pub fn close_elsewhere() {
    shared::close_foreign_with(|whose, fd| {
        close(whose, fd);
        None
    });
}

/// Does the process that closes what is theirs wait for somebody, or have too much to close?
pub fn is_held_up(whose: Whose) -> bool {
    all().get_mut(&whose).is_some_and(|of| of.is_held_up(whose))
}

/// Are so many files of net processes not closed yet that no such process may begin?
pub fn is_full_of_files() -> bool {
    FILES.load(Ordering::Acquire) >= FILES_MAX
}

/// Does something wait until it is handed over? Then [`settle`] is to be called in a moment.
pub fn waits() -> bool {
    WAITS.load(Ordering::Relaxed)
}

/// Is something not closed yet?
pub fn is_closing() -> bool {
    all().values().any(|of| of.left() > 0)
}

/// Is a process there that has nothing to close? Then [`tidy`] is to be called some time.
pub fn has_idle() -> bool {
    all().values().any(|of| of.left() == 0 && !of.closers.is_empty())
}

/// Hands over what waits for that, several at a time: whoever closes is woken once for them.
pub fn settle() {
    if WAITS.swap(false, Ordering::Relaxed) {
        all().iter_mut().for_each(|(whose, of)| of.give_all(*whose));
    }
}

/// Lets those processes end that have got nothing for a while.
pub fn tidy() {
    let is_used = |of: &Closing| of.used.is_some_and(|when| when.elapsed() < UNUSED);
    all().retain(|_, of| {
        of.forget_ended();
        of.left() > 0 || is_used(of)
    });
}

/// Waits until all is closed, for so long at most: for the end of this process.
pub fn finish(most: Duration) {
    let until = Instant::now() + most;
    while all().values().any(|of| of.left() > 0) && Instant::now() < until {
        settle();
        std::thread::sleep(PAUSE);
    }
}

/// Whatever a user's services have had this process has made, or knows for a socket.
fn close(whose: Whose, fd: OwnedFd) {
    if matches!(whose, Whose::User(_)) || socket::domain(fd.as_fd()).is_some() {
        let mut all = all();
        if all.len() >= IDLE_MAX && !all.contains_key(&whose) {
            all.retain(|_, of| of.left() > 0);
        }
        let of = all.entry(whose).or_default();
        of.waiting.push_back(fd);
        of.used = Some(Instant::now());
        WAITS.store(true, Ordering::Relaxed);
    } else {
        FILES.fetch_add(1, Ordering::AcqRel);
        close_alone(fd, || _ = FILES.fetch_sub(1, Ordering::AcqRel));
    }
}

/// In a process for this one alone, which needs no message.
fn close_alone(fd: OwnedFd, closed: impl FnOnce() + Send + 'static) {
    // An error: there can be no thread, and it stays open.
    if let Err(e) = side_process::close(NAME, fd, closed) {
        ::log::debug!("{NAME}: {e}");
    }
}

impl Closing {
    fn give_all(&mut self, whose: Whose) {
        while !self.waiting.is_empty() {
            let n = self.waiting.len().min(at_once(whose));
            let some = self.waiting.drain(..n).collect();
            if let Err(left) = self.give(whose, some) {
                left.into_iter().rev().for_each(|fd| self.waiting.push_front(fd));
                return WAITS.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Err: no process takes them now.
    fn give(&mut self, whose: Whose, some: Vec<OwnedFd>) -> Result<(), Vec<OwnedFd>> {
        loop {
            let idle = self.closers.iter().any(|c| c.left() == 0);
            if !idle && self.closers.len() < most(whose) {
                match Closer::start() {
                    Ok(closer) => self.closers.push(closer),
                    Err(e) => ::log::debug!("{NAME}: {e}"),
                }
            }
            let least = self.closers.iter_mut().enumerate().min_by_key(|(_, c)| c.left());
            let Some((at, closer)) = least else { return Err(some) };
            match closer.send(&some).map_err(|e| Failed::of(&e)) {
                Ok(()) => {
                    // Its closes are the last ones.
                    let n = some.len();
                    drop(some);
                    closer.count.got.fetch_add(n, Ordering::AcqRel);
                    return Ok(());
                }
                // Somebody has ended it.
                Err(Failed::Gone) => drop(self.closers.remove(at)),
                Err(Failed::Full) => return Err(some),
                // Too many may be under way (ETOOMANYREFS, unix(7)).
                Err(Failed::Scarce | Failed::Broken) => {
                    some.into_iter().for_each(|fd| close_alone(fd, || ()));
                    return Ok(());
                }
            }
        }
    }

    /// Somebody may have ended some. What such a one had to close was closed with it.
    fn forget_ended(&mut self) {
        self.closers.retain(|closer| closer.left() == 0 || !poll::has_hung(closer.channel.as_fd()));
    }

    /// How many are not closed yet.
    fn left(&self) -> usize {
        self.waiting.len() + self.closers.iter().map(Closer::left).sum::<usize>()
    }

    fn is_held_up(&mut self, whose: Whose) -> bool {
        // Each is looked at, for it is busy since it was seen to have closed something.
        let busy = self.closers.iter_mut().map(|c| c.is_busy_for(HELD_UP));
        let go_on = busy.filter(|is| !is).count();
        let is_held_up = |of: &Closing| {
            go_on == 0 && of.closers.len() >= most(whose) || of.left() > left_max(whose)
        };
        if is_held_up(self) {
            self.forget_ended();
        }
        is_held_up(self)
    }
}

/// So many go in one message. One whose close waits keeps the others of it waiting, too: those that
/// may be different people's go alone.
fn at_once(whose: Whose) -> usize {
    match whose {
        Whose::Anybody => 1,
        Whose::Channel(_) | Whose::User(_) => FDS_MAX,
    }
}

fn left_max(whose: Whose) -> usize {
    match whose {
        Whose::Anybody => LEFT_OF_ANYBODY_MAX.min((process::nofile() / 8) as usize),
        Whose::Channel(_) => LEFT_MAX,
        // They are as many as that user's services, which have limits.
        Whose::User(_) => usize::MAX,
    }
}

fn most(whose: Whose) -> usize {
    let most = match whose {
        Whose::Anybody => OF_ANYBODY,
        Whose::Channel(_) => OF_A_CHANNEL,
        Whose::User(_) => OF_A_USER,
    };
    most.min((process::nofile() / DESCRIPTORS_EACH) as usize).max(1)
}

impl Closer {
    fn start() -> io::Result<Closer> {
        let (channel, theirs) = socket::seqpacket()?;
        let count = Arc::new(Count::default());
        let its = count.clone();
        side_process::run(NAME, theirs, move |channel| close_all(channel, &its))?;
        Ok(Closer { channel, count, closed: 0, since: Instant::now() })
    }

    fn left(&self) -> usize {
        let closed = self.count.closed.load(Ordering::Acquire);
        self.count.got.load(Ordering::Acquire).saturating_sub(closed)
    }

    /// Has it closed nothing for so long, although it has something to close?
    fn is_busy_for(&mut self, most: Duration) -> bool {
        let closed = self.count.closed.load(Ordering::Acquire);
        if self.left() == 0 || closed != self.closed {
            (self.closed, self.since) = (closed, Instant::now());
        }
        self.since.elapsed() > most
    }

    /// [`FDS_MAX`] at most.
    fn send(&mut self, some: &[OwnedFd]) -> io::Result<()> {
        self.is_busy_for(HELD_UP);
        let with: Vec<BorrowedFd> = some.iter().map(AsFd::as_fd).collect();
        // Their number, for a descriptor can be lost where this computer lacks some.
        message::send(self.channel.as_fd(), &[some.len() as u8], &with)
    }
}

/// Until nothing can come any more.
fn close_all(channel: BorrowedFd, count: &Count) {
    let mut interrupt = Interrupt::new().ok();
    let (mut closed, mut number) = (0, [0; 1]);
    while let Ok((1.., mut fds)) = message::receive_waiting(channel, &mut number) {
        let all = closed + usize::from(number[0]);
        let since = Instant::now();
        while count.got.load(Ordering::Acquire) < all && since.elapsed() < COPY_MAX {
            match since.elapsed() < YIELD_TIME {
                true => std::thread::yield_now(),
                false => std::thread::sleep(PAUSE),
            }
        }
        // A close that waits for the other end (SO_LINGER, socket(7)) is interrupted.
        interrupt.iter_mut().for_each(Interrupt::want);
        while let Some(fd) = fds.take() {
            drop(fd.our_own());
            closed += 1;
            count.closed.store(closed, Ordering::Release);
        }
        interrupt.iter_mut().for_each(Interrupt::stop);
        closed = all;
        count.closed.store(closed, Ordering::Release);
    }
}

#[cfg(test)]
mod tests;
