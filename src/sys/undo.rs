//! What this process undoes before a signal ends it: the settings of its terminal, its files.
//!
//! five waits in many places, some of them in the C library (names of computers), so it cannot read
//! all signals from a descriptor: the signals that would end it ([`Signal::ending`]) get a handler
//! with the first value that is made here. The handler undoes all that there is and lets the signal
//! take its default effect. A fork undoes nothing of the process that made it. What is undone when
//! its value is dropped is the same.

use super::signal::Signal;
use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError, TryLockError};

/// In the order in which they were made. Locked only while all signals are blocked, so that no
/// handler finds it locked by its own thread.
static STEPS: Mutex<Vec<Step>> = Mutex::new(Vec::new());

#[derive(Debug)]
struct Step {
    /// No other step of this process has it.
    id: u64,
    /// The process that undoes it.
    owner: libc::pid_t,
    what: What,
}

#[derive(Debug)]
enum What {
    Terminal(RawFd, Box<libc::termios>),
    Socket(CString, Identity),
}

/// A file's device and number. No other file has them as long as a socket is bound to it.
type Identity = (libc::dev_t, libc::ino_t);

impl Step {
    /// Makes system calls that a signal handler may make (signal-safety(7)), and no others.
    fn undo(&self) {
        // SAFETY: a question without memory.
        if self.owner != unsafe { libc::getpid() } {
            return;
        }
        match &self.what {
            What::Terminal(fd, before) => {
                if is_ours(*fd) {
                    // SAFETY: one termios is read. A terminal that is gone has no settings.
                    unsafe { libc::tcsetattr(*fd, libc::TCSANOW, &raw const **before) };
                }
            }
            What::Socket(path, file) => {
                // Somebody may have put another file there.
                if identity(path).as_ref() == Some(file) {
                    // SAFETY: the path ends with a NUL.
                    unsafe { libc::unlink(path.as_ptr()) };
                }
            }
        }
    }
}

/// None: there is no file, or it may not be seen.
fn identity(path: &CStr) -> Option<Identity> {
    let mut found = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the path ends with a NUL; a call that succeeds fills `found`.
    unsafe {
        (libc::lstat(path.as_ptr(), found.as_mut_ptr()) == 0).then(|| {
            let found = found.assume_init();
            (found.st_dev, found.st_ino)
        })
    }
}

/// Has this process's job that terminal, and not another job of its shell, whose settings must
/// stay? It has a terminal that is not its controlling one.
pub(super) fn is_ours(fd: RawFd) -> bool {
    // SAFETY: two questions without memory.
    unsafe { matches!(libc::tcgetpgrp(fd), job if job == -1 || job == libc::getpgrp()) }
}

/// The step of the list that has this id; it is undone when this is dropped.
#[derive(Debug)]
struct Undo(u64);

impl Undo {
    fn new(what: What) -> Undo {
        static HANDLER: Once = Once::new();
        HANDLER.call_once(|| Signal::ending().for_each(handle));
        without_signals(|| {
            static IDS: AtomicU64 = AtomicU64::new(0);
            let id = IDS.fetch_add(1, Ordering::Relaxed);
            // SAFETY: a question without memory.
            lock().push(Step { id, owner: unsafe { libc::getpid() }, what });
            Undo(id)
        })
    }

    /// It is not undone.
    fn forget(self) {
        without_signals(|| drop(self.take(&mut lock())));
        mem::forget(self);
    }

    /// The step leaves the list. Some: it was there.
    fn take(&self, steps: &mut Vec<Step>) -> Option<Step> {
        let at = steps.iter().position(|step| step.id == self.0)?;
        Some(steps.remove(at))
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        without_signals(|| {
            // A signal that another thread gets meanwhile ends this process after that.
            let mut steps = lock();
            self.take(&mut steps).iter().for_each(Step::undo);
        });
    }
}

/// Ends this process, whatever other threads of it still do.
pub fn exit(status: i32) -> ! {
    all();
    std::process::exit(status)
}

/// Ends this process by SIGPIPE. Rust's runtime ignores that signal, so its default effect is
/// restored first.
pub fn end_by_broken_pipe() {
    all();
    // SAFETY: no memory is handed over; the default effect runs none of this program's code.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        libc::raise(libc::SIGPIPE);
    }
}

/// Undoes all that there is, for a process that is about to end with values that nobody will drop.
fn all() {
    without_signals(|| mem::take(&mut *lock()).iter().rev().for_each(Step::undo));
}

fn lock() -> MutexGuard<'static, Vec<Step>> {
    STEPS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// No signal comes to this thread meanwhile.
fn without_signals<T>(work: impl FnOnce() -> T) -> T {
    let (mut all, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    // SAFETY: the first call fills one set, the second one the other; neither fails.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
    }
    let done = work();
    // SAFETY: `before` was filled.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut()) };
    done
}

fn handle(signal: Signal) {
    // SAFETY: all zeros and a full mask are an action. The handler makes only calls that a handler
    // may make, and returns to nobody.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = end as extern "C" fn(libc::c_int) as libc::sighandler_t;
        libc::sigfillset(&mut action.sa_mask);
        libc::sigaction(signal.number(), &action, std::ptr::null_mut());
    }
}

/// The handler: all signals are blocked for this thread.
extern "C" fn end(number: libc::c_int) {
    // Trying takes one atomic instruction. Another thread has it for a few system calls at most, or
    // is ending the process by another signal.
    let steps = loop {
        match STEPS.try_lock() {
            Ok(steps) => break steps,
            Err(TryLockError::Poisoned(e)) => break e.into_inner(),
            // SAFETY: no memory is handed over.
            Err(TryLockError::WouldBlock) => unsafe { libc::sched_yield() },
        };
    };
    steps.iter().rev().for_each(Step::undo);
    // It stays locked: no other thread undoes, or makes, anything any more.
    mem::forget(steps);
    // SAFETY: all zeros is the default action; the set is filled before it is read. No code of this
    // process runs after that, unless it is the first of a container: such a one has no default.
    unsafe {
        let action: libc::sigaction = mem::zeroed();
        libc::sigaction(number, &action, std::ptr::null_mut());
        libc::raise(number);
        let mut this = MaybeUninit::uninit();
        libc::sigemptyset(this.as_mut_ptr());
        libc::sigaddset(this.as_mut_ptr(), number);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, this.as_ptr(), std::ptr::null_mut());
        libc::_exit(128 + number)
    }
}

/// The settings of a terminal. Errors: ENOTTY, if it is none.
pub(super) fn termios(fd: RawFd) -> io::Result<libc::termios> {
    let mut settings = MaybeUninit::<libc::termios>::uninit();
    // SAFETY: a call that succeeds fills the termios.
    unsafe {
        super::check(libc::tcgetattr(fd, settings.as_mut_ptr()))?;
        Ok(settings.assume_init())
    }
}

/// The settings that a terminal had when this was made; it gets them back when this is dropped.
#[derive(Debug)]
pub struct Settings {
    undo: Undo,
    pub(super) before: libc::termios,
}

impl Settings {
    /// The descriptor must stay open as long as this lives. Errors: ENOTTY, if it is no terminal.
    pub(super) fn of(fd: RawFd) -> io::Result<Settings> {
        let before = termios(fd)?;
        Ok(Settings { undo: Undo::new(What::Terminal(fd, Box::new(before))), before })
    }

    /// The terminal stays as it is.
    pub fn leave(self) {
        self.undo.forget();
    }
}

/// The file of a socket, at a path. As long as this process owns it, the file is removed when this
/// is dropped, unless somebody has put another one there.
#[derive(Debug)]
pub struct SocketPath {
    path: PathBuf,
    /// None: nobody knows the file that was there.
    file: Option<Identity>,
    /// None: this process does not own it.
    undo: Option<Undo>,
}

impl SocketPath {
    /// Binds a socket to the path, by `bind`. No signal ends this process between that and the
    /// moment from which on it would remove the file.
    pub fn bind<T>(
        path: &Path,
        bind: impl FnOnce(&Path) -> io::Result<T>,
    ) -> io::Result<(T, SocketPath)> {
        let path = std::path::absolute(path)?;
        without_signals(|| bind(&path).map(|socket| (socket, SocketPath::adopt(&path))))
    }

    /// A socket that another process has bound. `path` is absolute.
    pub fn adopt(path: &Path) -> SocketPath {
        let mut this = SocketPath { path: path.into(), file: None, undo: None };
        this.file = this.found();
        this.claim();
        this
    }

    /// From now on this process owns it.
    pub fn claim(&mut self) {
        self.disown();
        let what = self.text().zip(self.file).map(|(path, file)| What::Socket(path, file));
        self.undo = what.map(Undo::new);
    }

    /// Another process will own it.
    pub fn disown(&mut self) {
        self.undo.take().into_iter().for_each(Undo::forget);
    }

    /// Gives the file another name.
    pub fn rename(&mut self, to: &Path) -> io::Result<()> {
        without_signals(|| {
            fs::rename(&self.path, to)?;
            self.path = to.into();
            self.claim();
            Ok(())
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Is the file still there, and not another one?
    pub fn is_there(&self) -> bool {
        self.file.is_some() && self.found() == self.file
    }

    fn found(&self) -> Option<Identity> {
        identity(&self.text()?)
    }

    /// None: a path with a NUL, which is no file's.
    fn text(&self) -> Option<CString> {
        CString::new(self.path.as_os_str().as_bytes()).ok()
    }
}
