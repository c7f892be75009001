//! What a process counts while it works, for another to look at: a page of memory that both have.
//! Counting is one addition to a number in memory, without a lock or a system call, and whoever
//! looks disturbs nobody.
//!
//! The one that counts may write anything there: the other takes the numbers for what they are, and
//! the size of the page cannot change.

use super::check;
use std::cell::Cell;
use std::ffi::c_void;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Threads count in these by turns, so that hardly two write to one line of the processor's cache.
const STRIPES: usize = 31;
/// Places for the numbers of sessions that have closed their client's socket. One that has is taken
/// for another one only if its socket stays open while so many others begin.
const SESSIONS: usize = 1024;

/// Bytes to services, and from them.
#[derive(Debug)]
#[repr(C, align(64))]
struct Stripe {
    to: AtomicU64,
    from: AtomicU64,
}

#[derive(Debug)]
#[repr(C, align(64))]
struct Page {
    stripes: [Stripe; STRIPES],
    waiting: AtomicU64,
    multiplexed: AtomicU64,
    unreported: AtomicU64,
    empty: AtomicU64,
    closed: AtomicU64,
    sessions: [AtomicU64; SESSIONS],
}

const SIZE: usize = size_of::<Page>();

/// The numbers of this process, if another one asked for them.
static OWN: OnceLock<&'static Page> = OnceLock::new();

/// The numbers of another process.
#[derive(Debug)]
pub struct Gauges {
    page: *mut c_void,
    /// That process has ended.
    ended: AtomicBool,
}

/// A client's socket that the process has handed over and closes then.
#[derive(Debug, Clone, Copy)]
pub enum HandedOver {
    /// The loop's: so many had been before this one.
    Loop(u64),
    /// That of the session of this number.
    Session(u64),
}

/// What tells whether the process has closed its copy of one that it has handed over. Until then
/// no service may have it: the process that serves all clients could have to wait for that service
/// when it closes the last copy.
#[derive(Debug)]
pub struct OtherCopy {
    gauges: Rc<Gauges>,
    of: HandedOver,
}

/// What they are now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Now {
    /// Bytes relayed to services, and from them, since the process began.
    pub to: u64,
    pub from: u64,
    /// Clients that have not said yet what they want.
    pub waiting: u64,
    /// Sessions that carry streams.
    pub multiplexed: u64,
    /// Refusals that the other process has not been told of yet.
    pub unreported: u64,
    /// Connections that clients ended before they asked for anything, since the process began.
    pub empty: u64,
}

impl Gauges {
    /// New ones, and the descriptor for the process that counts ([`count_in`]).
    pub fn new() -> io::Result<(Gauges, OwnedFd)> {
        let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
        // SAFETY: the name is a C string.
        let fd = check(unsafe { libc::memfd_create(c"fived".as_ptr(), flags) })?;
        // SAFETY: the descriptor was just made and is nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let seals = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW;
        // SAFETY: no memory is handed over.
        check(unsafe { libc::ftruncate(fd.as_raw_fd(), SIZE as libc::off_t) })?;
        // SAFETY: F_ADD_SEALS takes an int.
        check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals) })?;
        let page = map(fd.as_raw_fd(), libc::PROT_READ)?;
        Ok((Gauges { page, ended: AtomicBool::new(false) }, fd))
    }

    fn page(&self) -> &Page {
        // SAFETY: it is mapped for as long as this exists, and has this size, which is sealed.
        unsafe { &*self.page.cast::<Page>() }
    }

    /// The process has ended, and has nothing open any more.
    pub fn note_end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    pub fn now(&self) -> Now {
        let page = self.page();
        let read = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let sum = |of: fn(&Stripe) -> &AtomicU64| {
            page.stripes.iter().fold(0u64, |sum, stripe| sum.saturating_add(read(of(stripe))))
        };
        Now {
            to: sum(|s| &s.to),
            from: sum(|s| &s.from),
            waiting: read(&page.waiting),
            multiplexed: read(&page.multiplexed),
            unreported: read(&page.unreported),
            empty: read(&page.empty),
        }
    }
}

impl Drop for Gauges {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this size, and nothing refers to it any more.
        unsafe { libc::munmap(self.page, SIZE) };
    }
}

impl OtherCopy {
    pub fn new(gauges: Rc<Gauges>, of: HandedOver) -> OtherCopy {
        OtherCopy { gauges, of }
    }

    /// Is it closed? This makes no system call.
    pub fn is_closed(&self) -> bool {
        let page = self.gauges.page();
        let closed = match self.of {
            HandedOver::Loop(before) => page.closed.load(Ordering::Acquire) > before,
            HandedOver::Session(n) => place(page, n).load(Ordering::Acquire) >= n,
        };
        closed || self.gauges.ended.load(Ordering::Acquire)
    }
}

fn place(page: &Page, session: u64) -> &AtomicU64 {
    &page.sessions[session as usize % SESSIONS]
}

fn map(fd: RawFd, rights: libc::c_int) -> io::Result<*mut c_void> {
    // SAFETY: the kernel chooses an address where nothing is.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), SIZE, rights, libc::MAP_SHARED, fd, 0) };
    if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(at) }
}

/// From now on this process counts in what the descriptor is of. The first one counts. Errors: it
/// is too small, or cannot be mapped.
pub fn count_in(fd: OwnedFd) -> io::Result<()> {
    let size = std::fs::File::from(fd.try_clone()?).metadata()?.len();
    if size < SIZE as u64 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let at = map(fd.as_raw_fd(), libc::PROT_READ | libc::PROT_WRITE)?;
    // SAFETY: it is mapped until the process ends, its size was checked, and all of its fields may
    // have any value and be written by others at any time.
    let page = unsafe { &*at.cast::<Page>() };
    let _ = OWN.set(page);
    Ok(())
}

/// This many bytes were relayed, to a service and from one. Nothing where nobody looks.
pub fn relayed(to: usize, from: usize) {
    let Some(page) = OWN.get() else { return };
    let stripe = &page.stripes[stripe()];
    for (n, at) in [(to, &stripe.to), (from, &stripe.from)] {
        if n > 0 {
            at.fetch_add(n as u64, Ordering::Relaxed);
        }
    }
}

/// This many clients have not said yet what they want.
pub fn waiting(n: usize) {
    if let Some(page) = OWN.get() {
        page.waiting.store(n as u64, Ordering::Relaxed);
    }
}

/// Of this many refusals the other process has not been told yet.
pub fn unreported(n: u64) {
    if let Some(page) = OWN.get() {
        page.unreported.store(n, Ordering::Relaxed);
    }
}

/// A client has ended its connection before it asked for anything.
pub fn asked_nothing() {
    if let Some(page) = OWN.get() {
        page.empty.fetch_add(1, Ordering::Relaxed);
    }
}

/// The loop has closed its copy of the next socket that it has handed over.
pub fn closed() {
    if let Some(page) = OWN.get() {
        page.closed.fetch_add(1, Ordering::Release);
    }
}

/// The session of this number has closed its copy of the socket that it has handed over.
pub fn session_closed(number: u64) {
    if let Some(page) = OWN.get() {
        place(page, number).fetch_max(number, Ordering::Release);
    }
}

/// A session that carries streams, for as long as this exists.
#[derive(Debug)]
pub struct Multiplexed(Option<&'static Page>);

impl Multiplexed {
    pub fn begin() -> Multiplexed {
        let page = OWN.get().copied();
        if let Some(page) = page {
            page.multiplexed.fetch_add(1, Ordering::Relaxed);
        }
        Multiplexed(page)
    }
}

impl Drop for Multiplexed {
    fn drop(&mut self) {
        if let Some(page) = self.0 {
            page.multiplexed.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The one of this thread.
fn stripe() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static OF_THREAD: Cell<usize> = const { Cell::new(usize::MAX) });
    OF_THREAD.with(|own| {
        if own.get() == usize::MAX {
            own.set(NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES);
        }
        own.get()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_threads_count_is_seen_at_once() {
        let (gauges, fd) = Gauges::new().expect("memory");
        assert_eq!(gauges.now(), Now::default());
        relayed(7, 7);
        count_in(fd).expect("mapped");
        let count = || (0..1000).for_each(|_| relayed(2, 3));
        std::thread::scope(|s| (0..40).for_each(|_| drop(s.spawn(count))));
        let session = Multiplexed::begin();
        waiting(5);
        unreported(6);
        asked_nothing();
        let (to, from, empty) = (80_000, 120_000, 1);
        let now = Now { to, from, waiting: 5, multiplexed: 1, unreported: 6, empty };
        assert_eq!(gauges.now(), now);
        drop(session);
        assert_eq!(gauges.now().multiplexed, 0);
        let gauges = Rc::new(gauges);
        let of = |of| OtherCopy::new(gauges.clone(), of);
        let loops = [0, 1, 2].map(|n| of(HandedOver::Loop(n)));
        let sessions = [5, 6].map(|n| of(HandedOver::Session(n)));
        closed();
        closed();
        session_closed(5);
        assert_eq!(loops.each_ref().map(OtherCopy::is_closed), [true, true, false]);
        assert_eq!(sessions.each_ref().map(OtherCopy::is_closed), [true, false]);
        gauges.note_end();
        assert!(loops[2].is_closed() && sessions[1].is_closed());
        let (_, other) = super::super::pipe::ends().expect("a pipe");
        assert!(count_in(other).is_err(), "too small");
    }
}
