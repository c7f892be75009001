//! Work in a process beside this one, which shares its memory, but neither its descriptors nor its
//! end.
//!
//! It is for what may sleep in the kernel where no signal reaches it. A thread that sleeps so keeps
//! its whole process from ending, and all descriptors open. Nobody waits for such a process: it
//! ends when its work does, if need be after this one.
//!
//! The work may be any code, because it has the thread-local memory of a thread that is there for
//! it alone, and that makes no use of it meanwhile: that thread waits in a raw system call. But
//! memory is all that the work shares. What it opens or receives is its own: no descriptor goes in
//! or out but through its channel, and no [`Shared`](super::shared::Shared) is dropped in it, for
//! this process might close it. ([`close`] is the exception.)

use super::stack::Stack;
use super::{process, reaper, signal};
use std::ffi::{CStr, c_int, c_void};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};
use syscalls::{Errno, Sysno, syscall};

/// Bytes of the thread's own stack.
const THREAD_STACK: usize = 64 * 1024;

/// How long a descriptor that is to be closed may take to leave the table, on a computer that is
/// busy, and how often that is looked at.
const LEAVES_WITHIN: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_micros(100);

/// What ps(1) calls the process that closes everything after this one: as those beside which it is.
const HEIR: &CStr = c"fived-foreign";

struct Work<F> {
    name: &'static str,
    /// None: the table of descriptors is shared, too.
    channel: Option<OwnedFd>,
    /// Then: who closes the rest of the table, if this process ends meanwhile.
    heir: Option<Arc<Heir>>,
    work: Option<F>,
}

/// Begins such work. `name`: as ps(1) shows the process, 15 bytes at most. `channel`: the only
/// descriptor, besides the three standard ones, that the process has at its beginning. Where there
/// can be no such process the thread does the work. Err: there can be no thread.
pub fn run<F>(name: &'static str, channel: OwnedFd, work: F) -> io::Result<()>
where
    F: FnOnce(BorrowedFd) + Send + 'static,
{
    begin(name, (Some(channel), None), |channel: Option<BorrowedFd>| {
        if let Some(channel) = channel {
            work(channel);
        }
    })
}

/// Begins to close a descriptor there. A close is the one thing for which that process shares the
/// table: a file is told of each close of it (as of FUSE), and not only of the last one, so no copy
/// helps. (If this process ends meanwhile, a second process closes what else is in the table.)
/// Returns when it has left the table, as it does before the file is told: a child that is made
/// before would have a copy to close. `closed` is called when the file has been told. Err: there
/// can be no thread, and it stays open.
pub fn close(
    name: &'static str,
    fd: OwnedFd,
    closed: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    let (raw, until) = (fd.into_raw_fd(), Instant::now() + LEAVES_WITHIN);
    let heir = Heir::of_all().inspect_err(|e| log::debug!("a process beside {name}: {e}")).ok();
    begin(name, (None, heir), move |_| {
        // SAFETY: it is nobody else's: its owner has given it up.
        drop(unsafe { OwnedFd::from_raw_fd(raw) });
        closed();
    })?;
    // SAFETY: no memory is handed over.
    while unsafe { libc::fcntl(raw, libc::F_GETFD) } >= 0 && Instant::now() < until {
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

fn begin<F>(
    name: &'static str,
    (channel, heir): (Option<OwnedFd>, Option<Arc<Heir>>),
    work: F,
) -> io::Result<()>
where
    F: FnOnce(Option<BorrowedFd>) + Send + 'static,
{
    let work = Work { name, channel, heir, work: Some(work) };
    let thread = std::thread::Builder::new().name(name.into()).stack_size(THREAD_STACK);
    signal::without(|| thread.spawn(move || wait_for(work))).map(drop)
}

fn wait_for<F: FnOnce(Option<BorrowedFd>)>(mut work: Work<F>) {
    let made = Stack::new().and_then(|stack| {
        // No signal tells of its end: the parent's loop knows nothing of it.
        let flags = libc::CLONE_VM | libc::CLONE_FILES;
        let at = (&raw mut work).cast::<c_void>();
        // SAFETY: the stack and `work` live, and this thread leaves them alone, until the process
        // has ended. Until then it makes one system call, which touches no thread-local memory.
        let pid = super::check(unsafe { libc::clone(process_of::<F>, stack.top(), flags, at) })?;
        let (call, none) = (Sysno::waitid, ptr::null::<c_void>());
        let (which, how) = (libc::P_PID, libc::WEXITED | libc::WNOWAIT | libc::__WALL);
        // SAFETY: nothing is written.
        while unsafe { syscall!(call, which, pid, none, how, none) } == Err(Errno::EINTR) {}
        reaper::reap(pid, None);
        #[cfg(asan)]
        stack.unpoison();
        Ok(())
    });
    drop(work.heir.take());
    if let Err(e) = made {
        log::debug!("a process for {}: {e}", work.name);
    }
    // There was no process, or it could not leave the table, or somebody has ended it before.
    if let Some(f) = work.work.take() {
        f(work.channel.as_ref().map(AsFd::as_fd));
    }
}

extern "C" fn process_of<F: FnOnce(Option<BorrowedFd>)>(work: *mut c_void) -> c_int {
    // SAFETY: whoever made this process handed over such a value, which is now its alone.
    let work = unsafe { &mut *work.cast::<Work<F>>() };
    process::set_name(work.name);
    let channel = work.channel.as_ref().map(AsFd::as_fd);
    if channel.map_or(Ok(()), own_table).is_ok()
        && let Some(f) = work.work.take()
    {
        // A panic has said so, and must not go on from here.
        let _ = catch_unwind(AssertUnwindSafe(|| f(channel)));
    }
    0
}

/// Leaves the shared table by a copy of its lowest part, and closes there what is not needed.
fn own_table(channel: BorrowedFd) -> Result<(), Errno> {
    let (call, channel) = (Sysno::close_range, channel.as_raw_fd() as u32);
    // SAFETY: no memory is handed over. From here on the table is this process's own.
    unsafe { syscall!(call, channel + 1, u32::MAX, libc::CLOSE_RANGE_UNSHARE) }?;
    if channel > 3 {
        // SAFETY: likewise.
        unsafe { syscall!(call, 3, channel - 1, 0) }?;
    }
    Ok(())
}

/// A process that shares the table while others close something there. Whoever holds up such a
/// close would keep all that is open, ports included, when this process has ended: then this one
/// closes everything. It ends with the last of these closes: one is enough, however many there are.
struct Heir {
    pid: c_int,
    _of: OwnedFd,
    #[cfg_attr(not(asan), expect(dead_code, reason = "the process is on it"))]
    stack: Stack,
}

impl Heir {
    /// The one that there is, or a new one. To be called by a thread that does not end.
    fn of_all() -> io::Result<Arc<Heir>> {
        static ONE: Mutex<Weak<Heir>> = Mutex::new(Weak::new());
        let mut heir = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(heir) = heir.upgrade() {
            return Ok(heir);
        }
        let new = Arc::new(Heir::start()?);
        *heir = Arc::downgrade(&new);
        Ok(new)
    }

    fn start() -> io::Result<Heir> {
        let (stack, of) = (Stack::new()?, own_pidfd()?);
        let flags = libc::CLONE_VM | libc::CLONE_FILES;
        let number = ptr::without_provenance_mut(of.as_raw_fd() as usize);
        // SAFETY: the stack lives until the process has ended, which makes raw system calls alone:
        // the thread-local memory is that of this thread, which goes on.
        let pid = super::check(unsafe { libc::clone(inherit, stack.top(), flags, number) })?;
        Ok(Heir { pid, _of: of, stack })
    }
}

impl Drop for Heir {
    fn drop(&mut self) {
        let (pid, none) = (self.pid, ptr::null_mut());
        let how = libc::WEXITED | libc::WNOWAIT | libc::__WALL;
        // SAFETY: it is a child that nobody else waits for; nothing is written.
        unsafe {
            libc::kill(pid, libc::SIGKILL);
            while libc::waitid(libc::P_PID, pid as libc::id_t, none, how) < 0
                && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
            {}
        }
        reaper::reap(pid, None);
        #[cfg(asan)]
        self.stack.unpoison();
    }
}

/// Waits for the end of the process with this pidfd, and closes all descriptors.
extern "C" fn inherit(of: *mut c_void) -> c_int {
    let mut of = libc::pollfd { fd: of.addr() as c_int, events: libc::POLLIN, revents: 0 };
    let none = ptr::null::<c_void>();
    // SAFETY: the kernel reads the name, and keeps a copy.
    let _ = unsafe { syscall!(Sysno::prctl, libc::PR_SET_NAME, HEIR.as_ptr()) };
    while of.revents == 0 {
        // SAFETY: one pollfd, which is written.
        match unsafe { syscall!(Sysno::ppoll, &raw mut of, 1, none, none, 0) } {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return 1,
        }
    }
    if of.revents & libc::POLLIN != 0 {
        // SAFETY: no memory is handed over, and nobody else uses the table any more.
        let _ = unsafe { syscall!(Sysno::close_range, 0, u32::MAX, 0) };
    }
    0
}

/// This process's own pidfd.
fn own_pidfd() -> io::Result<OwnedFd> {
    // SAFETY: no memory is handed over.
    let made = unsafe { libc::syscall(libc::SYS_pidfd_open, std::process::id(), 0) };
    // SAFETY: it was just made and is nobody else's.
    super::check(made as c_int).map(|made| unsafe { OwnedFd::from_raw_fd(made) })
}

#[cfg(test)]
mod tests {
    use super::super::{confine, message, socket};
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn where_it_gets_no_table_of_its_own_the_thread_does_the_work() {
        let (ours, theirs) = socket::seqpacket().unwrap();
        let begin = move || {
            // As where memory is scarce.
            confine::refuse(libc::SYS_close_range, libc::ENOMEM);
            run("test-side", theirs, |channel| {
                let pid = std::process::id().to_ne_bytes();
                message::send_waiting(channel, &pid, &[]).unwrap();
            })
        };
        std::thread::spawn(begin).join().unwrap().unwrap();
        let mut pid = [0; 4];
        assert_eq!(message::receive_waiting(ours.as_fd(), &mut pid).unwrap().0, pid.len());
        assert_eq!(u32::from_ne_bytes(pid), std::process::id());
    }

    #[test]
    fn it_shares_memory_and_nothing_else() {
        let (ours, theirs) = socket::seqpacket().unwrap();
        let (other, _end) = socket::pair().unwrap();
        let (told, all) = mpsc::channel();
        let raw = other.as_raw_fd();
        run("test-side", theirs, move |channel| {
            // SAFETY: no memory is handed over.
            let is_open = unsafe { libc::fcntl(raw, libc::F_GETFD) } >= 0;
            told.send((std::process::id(), is_open, vec![7; 100_000])).unwrap();
            let mut bytes = [0; 8];
            let (n, _) = message::receive_waiting(channel, &mut bytes).unwrap();
            message::send_waiting(channel, &bytes[..n], &[]).unwrap();
        })
        .unwrap();
        let (pid, is_open, sent) = all.recv().unwrap();
        assert!(pid != std::process::id() && !is_open && sent == vec![7; 100_000]);
        message::send_waiting(ours.as_fd(), b"hello", &[]).unwrap();
        let mut bytes = [0; 8];
        let (n, _) = message::receive_waiting(ours.as_fd(), &mut bytes).unwrap();
        assert_eq!(&bytes[..n], b"hello");
        // Its end is seen, although nobody reaps it here.
        assert_eq!(message::receive_waiting(ours.as_fd(), &mut bytes).unwrap().0, 0);
    }
}
