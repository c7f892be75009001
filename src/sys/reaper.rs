//! Reaps children that have ended: their numbers are nobody's from then on.
//!
//! When a process is reaped the system removes what is mounted below its directory in /proc, in
//! every mount namespace, and whoever reaps it waits for that: for whoever serves such a file
//! system (FUSE), for as long as that likes, and no signal ends it. A service can mount there, in a
//! user namespace of its own, and so can any user of this computer. So threads do it, and nobody
//! waits for them: how a child has ended was asked before ([`ended`](super::process::ended)). It is
//! one thread mostly, which others replace while it hangs. None of them has a descriptor of this
//! process, so that nothing stays open when this process ends and one hangs.
//!
//! What this process has started ([`own`]) is noticed by its loop, which hands it over. Whatever
//! else becomes its child (as an orphan, where this is the first process of a container, or because
//! a service made it so) is nobody's, and reaped as soon as it is found.

pub mod own;

use super::{process, signal};
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

const NAME: &str = "fived-reaps";
const STACK: usize = 64 * 1024;
/// A thread that has reaped one child for so long is replaced.
const LATE: Duration = Duration::from_millis(20);
/// Such threads at most: what ends then stays a zombie until one goes on.
const LATE_MAX: usize = 64;
/// Where so many threads have hung for so long with one user's, no more of that user's are to
/// begin.
const OF_A_USER: usize = 8;
const HANGS: Duration = Duration::from_secs(3);
/// A look for children that nobody knows is the last one for a while where it took so long: they
/// are many.
const LONG: Duration = Duration::from_millis(1);
/// So many are worth it to wake a thread.
const MANY: usize = 16;
/// A thread ends when it has had nothing to do for so long.
const IDLE: Duration = Duration::from_millis(500);

/// A child that is to be reaped, and the user that it ran as, where that is known.
#[derive(Debug, Clone, Copy)]
struct Ended {
    pid: i32,
    uid: Option<u32>,
}

/// One that is being reaped.
#[derive(Debug)]
struct Reaping {
    child: Ended,
    since: Instant,
    /// The number of its thread.
    by: u64,
}

#[derive(Debug)]
struct All {
    waiting: VecDeque<Ended>,
    /// By the thread that is not late.
    now: Option<Reaping>,
    /// By threads that are.
    late: Vec<Reaping>,
    /// The number of the thread that is not late, if there is one.
    thread: Option<u64>,
    threads: u64,
    /// Is it to look for what has ended, and to reap what nobody knows?
    looks: Looks,
}

/// What a thread looks for when nothing waits to be reaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Looks {
    No,
    /// For what the loop is to hear of.
    Tells,
    /// For what nobody knows, too.
    Reaps,
}

/// What a child is that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// The loop's, which has not noticed it yet.
    Own,
    /// It was handed over, or nothing of that number has ended any more.
    HandedOver,
    Nobodys,
}

static ALL: Mutex<All> = Mutex::new(All {
    waiting: VecDeque::new(),
    now: None,
    late: Vec::new(),
    thread: None,
    threads: 0,
    looks: Looks::No,
});
/// Handed over, and not taken into `ALL` yet. The threads that reap take this lock for one look
/// only, so that the loop does not wait until one of them has a processor again. Whoever takes
/// several takes `ALL` first, and that of `own` last.
static NEW: Mutex<VecDeque<Ended>> = Mutex::new(VecDeque::new());
static MORE: Condvar = Condvar::new();
/// How many are late.
static LATE_NOW: AtomicUsize = AtomicUsize::new(0);
/// Is a thread to look for what nobody knows?
static LOOKS: AtomicBool = AtomicBool::new(false);
/// Do threads reap?
static BEGUN: AtomicBool = AtomicBool::new(false);

/// From now on threads reap. Before that whoever asks does it: a process that is to go on in the
/// background (fork(2)) leaves its threads behind, and the locks that they have.
pub fn begin() {
    BEGUN.store(true, Ordering::Release);
}

fn all() -> MutexGuard<'static, All> {
    ALL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// None: a thread has it, which may wait for a processor.
fn try_all() -> Option<MutexGuard<'static, All>> {
    match ALL.try_lock() {
        Ok(all) => Some(all),
        Err(TryLockError::Poisoned(e)) => Some(e.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

fn new() -> MutexGuard<'static, VecDeque<Ended>> {
    NEW.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has this child, which has ended, reaped. Not for the loop: it may wait for a moment.
pub fn reap(pid: i32, uid: Option<u32>) {
    reap_soon(pid, uid);
    go_on_with(all());
}

/// The same, from the next [`go_on`] on, which is to follow soon.
pub fn reap_soon(pid: i32, uid: Option<u32>) {
    if !BEGUN.load(Ordering::Acquire) {
        own::remove(pid);
        return process::reap(pid);
    }
    let mut new = new();
    new.push_back(Ended { pid, uid });
    own::remove(pid);
}

/// Sees to it that a thread reaps what was handed over. To be called in a moment again, as long as
/// that is false: there is something left to reap.
pub fn go_on() -> bool {
    try_all().is_some_and(go_on_with)
}

fn go_on_with(mut all: MutexGuard<All>) -> bool {
    all.waiting.append(&mut new());
    if LOOKS.swap(false, Ordering::Relaxed) {
        all.looks = Looks::Reaps;
    }
    let wakes = all.go_on();
    LATE_NOW.store(all.late.len(), Ordering::Relaxed);
    let is_free = all.is_free();
    // It would wait for the lock.
    drop(all);
    if wakes {
        MORE.notify_one();
    }
    is_free
}

/// The same, where that is much.
pub fn go_on_with_many() {
    if new().len() >= MANY {
        go_on();
    }
}

/// From the next [`go_on`] on a thread looks for children that nobody knows, and reaps those that
/// have ended.
pub fn look_soon() {
    LOOKS.store(true, Ordering::Relaxed);
}

/// Do so many of this user's children hang that no more are to begin?
pub fn is_held_up(uid: u32) -> bool {
    LATE_NOW.load(Ordering::Relaxed) >= OF_A_USER && all().holds_up(uid)
}

impl All {
    /// Sees to it that a thread reaps what waits for that. True: there is one, to be woken.
    fn go_on(&mut self) -> bool {
        if let Some(late) = self.now.take_if(|now| now.since.elapsed() > LATE) {
            self.late.push(late);
            self.thread = None;
        }
        let has_work = !self.waiting.is_empty() || self.looks != Looks::No;
        if !has_work || self.thread.is_some() {
            return has_work;
        }
        if self.late.len() >= LATE_MAX {
            return false;
        }
        self.threads += 1;
        let number = self.threads;
        let thread = std::thread::Builder::new().name(NAME.into()).stack_size(STACK);
        match signal::without(|| thread.spawn(move || work(number))) {
            Ok(_) => self.thread = Some(number),
            Err(e) => log::debug!("{NAME}: {e}"),
        }
        false
    }

    fn handed_over(&self) -> impl Iterator<Item = &Ended> {
        self.waiting.iter().chain(self.now.iter().chain(&self.late).map(|r| &r.child))
    }

    fn is_free(&self) -> bool {
        self.now.is_none() && self.waiting.is_empty() && self.looks == Looks::No
    }

    /// Whose is this child, which has ended? One that nobody knows was not reaped, and will be by
    /// whoever asks alone.
    fn whose(&self, pid: i32) -> Whose {
        let new = new();
        let is = |child: &Ended| child.pid == pid;
        // A thread may have reaped it, or more, since it was seen.
        if self.handed_over().any(is) || new.iter().any(is) || process::ended(Some(pid)).is_none() {
            return Whose::HandedOver;
        }
        if own::has(pid) { Whose::Own } else { Whose::Nobodys }
    }

    fn holds_up(&self, uid: u32) -> bool {
        let hangs = |r: &&Reaping| r.child.uid == Some(uid) && r.since.elapsed() > HANGS;
        self.late.iter().filter(hangs).count() >= OF_A_USER
    }

    fn is_of(&self, thread: u64) -> bool {
        self.thread == Some(thread)
    }

    fn takes(&mut self, child: Ended, thread: u64) -> Option<Ended> {
        self.now = Some(Reaping { child, since: Instant::now(), by: thread });
        Some(child)
    }

    /// What this thread reaps next. None: it ends.
    fn next(mut all: MutexGuard<'static, All>, thread: u64) -> Option<Ended> {
        let until = Instant::now() + IDLE;
        while all.is_of(thread) {
            if let Some(child) = all.waiting.pop_front() {
                return all.takes(child, thread);
            }
            if all.looks != Looks::No {
                drop(all);
                let (found, took) = look();
                all = self::all();
                match found.map(|pid| (pid, all.whose(pid))) {
                    _ if !all.is_of(thread) => break,
                    Some((pid, Whose::Nobodys)) if all.looks == Looks::Reaps => {
                        if took > LONG {
                            all.looks = Looks::No;
                        }
                        return all.takes(Ended { pid, uid: None }, thread);
                    }
                    // The loop asks for one at a time, or does not know that there are others.
                    Some((_, Whose::Own | Whose::Nobodys)) => process::child_signal(),
                    Some((_, Whose::HandedOver)) | None => {}
                }
                all.looks = Looks::No;
                continue;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                all.thread = None;
                break;
            }
            let waited = MORE.wait_timeout(all, left);
            all = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        None
    }

    /// This thread has reaped its child.
    fn is_over(&mut self, thread: u64) {
        self.now.take_if(|now| now.by == thread);
        self.late.retain(|late| late.by != thread);
        if self.is_of(thread) && self.looks == Looks::No {
            self.looks = Looks::Tells;
        }
    }
}

/// The next child that has ended, and how long it took to find that.
fn look() -> (Option<i32>, Duration) {
    let began = Instant::now();
    let found = process::ended(None).map(|(pid, _)| pid);
    (found, began.elapsed())
}

fn work(thread: u64) {
    if let Err(e) = no_descriptors() {
        log::debug!("{NAME}: {e}");
    }
    // Nobody waits for it: whoever serves has the processor first.
    process::give_way();
    while let Some(child) = All::next(all(), thread) {
        process::reap(child.pid);
        let mut all = all();
        all.is_over(thread);
        LATE_NOW.store(all.late.len(), Ordering::Relaxed);
    }
}

/// Leaves the table of descriptors that all threads share, and has none.
fn no_descriptors() -> io::Result<()> {
    let all = (0u32, u32::MAX, libc::CLOSE_RANGE_UNSHARE);
    // SAFETY: no memory is handed over; the table that is closed is this thread's own by then.
    match unsafe { libc::syscall(libc::SYS_close_range, all.0, all.1, all.2) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn what_has_ended_is_a_zombie_until_it_is_reaped() {
        begin();
        let start = || Command::new("/bin/true").spawn();
        let mut child = own::start(start, |child| child.id().cast_signed()).unwrap();
        let pid = child.id().cast_signed();
        let until = |what: &dyn Fn() -> bool| {
            let is = (0..4000).any(|_| {
                std::thread::sleep(Duration::from_millis(5));
                what()
            });
            assert!(is);
        };
        until(&|| process::ended(Some(pid)).is_some());
        assert_eq!(process::ended(Some(pid)), Some((pid, process::Exit::Status(0))));
        assert!(own::has(pid) && own::all().contains(&pid));
        reap(pid, Some(1));
        assert!(!own::has(pid));
        until(&go_on);
        assert!(child.wait().is_err() && !is_held_up(1));
    }

    #[test]
    fn whoever_hangs_is_replaced_and_a_user_has_no_more_than_some() {
        let reaping = |by, uid, age| Reaping {
            child: Ended { pid: -1, uid },
            since: Instant::now().checked_sub(age).unwrap(),
            by,
        };
        let mut all = All {
            waiting: VecDeque::new(),
            now: Some(reaping(7, Some(2), 2 * LATE)),
            late: Vec::new(),
            thread: Some(7),
            threads: 7,
            looks: Looks::No,
        };
        all.go_on();
        assert!(all.now.is_none() && all.thread.is_none() && all.late.len() == 1);
        assert!(!all.holds_up(2));
        all.late.extend((0..OF_A_USER as u64).map(|n| reaping(n, Some(2), 2 * HANGS)));
        assert!(all.holds_up(2) && !all.holds_up(3));
        all.is_over(0);
        assert!(!all.holds_up(2));
    }
}
