//! Signals as a descriptor (signalfd(2)): no handler has anything to do, but for what a process
//! undoes before a signal ends it (`undo`).
//!
//! A program inherits blocked signals through exec, so `spawn` clears the mask.

use super::{check, count};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

/// A signal: the system's number of it. Those that fived or five does something about have names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal(libc::c_int);

/// The standard signals that end a process by default (signal(7)) and can be caught: whoever sends
/// them, a person, a timer or a limit. Not those of a program's own errors (SIGSEGV and the like):
/// after one of them nothing in its memory is certain.
const ENDING: [libc::c_int; 15] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGPIPE,
    libc::SIGALRM,
    libc::SIGTERM,
    libc::SIGSTKFLT,
    libc::SIGXCPU,
    libc::SIGXFSZ,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGIO,
    libc::SIGPWR,
];

impl Signal {
    pub const HUP: Signal = Signal(libc::SIGHUP);
    pub const INT: Signal = Signal(libc::SIGINT);
    pub const QUIT: Signal = Signal(libc::SIGQUIT);
    pub const PIPE: Signal = Signal(libc::SIGPIPE);
    pub const USR1: Signal = Signal(libc::SIGUSR1);
    pub const USR2: Signal = Signal(libc::SIGUSR2);
    pub const TERM: Signal = Signal(libc::SIGTERM);
    pub const KILL: Signal = Signal(libc::SIGKILL);
    pub const CHLD: Signal = Signal(libc::SIGCHLD);
    /// Control-Z.
    pub const TSTP: Signal = Signal(libc::SIGTSTP);
    pub const WINCH: Signal = Signal(libc::SIGWINCH);
    pub const CONT: Signal = Signal(libc::SIGCONT);
    /// A job in the background writes to its terminal, or changes its settings.
    pub const TTOU: Signal = Signal(libc::SIGTTOU);

    /// Those that would end this process: of `ENDING` and the real-time signals, without those that
    /// the C library keeps for itself, all that are not ignored. One that was ignored when
    /// this process started (nohup) stays so: if it were blocked, it would be received.
    pub fn ending() -> impl Iterator<Item = Signal> {
        let real_time = libc::SIGRTMIN()..=libc::SIGRTMAX();
        ENDING.into_iter().chain(real_time).map(Signal).filter(|s| !s.is_ignored())
    }

    /// Those that would end this process, or stop it as Control-Z does.
    pub fn ending_or_stopping() -> Vec<Signal> {
        Signal::ending().chain(Signal::stopping()).collect()
    }

    /// The one of Control-Z, unless it is ignored.
    pub fn stopping() -> Option<Signal> {
        Some(Signal::TSTP).filter(|s| !s.is_ignored())
    }

    /// The system's number of it.
    pub fn number(self) -> i32 {
        self.0
    }

    /// Does this process ignore it? nohup(1) or a shell may have arranged that. If the system does
    /// not say: no.
    pub fn is_ignored(self) -> bool {
        let mut now = MaybeUninit::<libc::sigaction>::uninit();
        // SAFETY: without a new action nothing is changed, and a call that succeeds fills `now`.
        unsafe {
            libc::sigaction(self.number(), std::ptr::null(), now.as_mut_ptr()) == 0
                && now.assume_init().sa_sigaction == libc::SIG_IGN
        }
    }
}

/// Makes a thread, to which no signal is to be given that is for the whole process: it may be made
/// before [`Signals`] are, and would end by one. Only SIGALRM is not blocked (`interrupt`).
pub(super) fn without<T>(make: impl FnOnce() -> T) -> T {
    let mut before = MaybeUninit::uninit();
    // SAFETY: both sets are filled before they are read.
    let before = unsafe {
        let mut all = MaybeUninit::uninit();
        libc::sigfillset(all.as_mut_ptr());
        libc::sigdelset(all.as_mut_ptr(), libc::SIGALRM);
        libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), before.as_mut_ptr());
        before.assume_init()
    };
    let made = make();
    // SAFETY: the set was filled.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut()) };
    made
}

/// A signal that was received. Several of one kind that are pending together are received as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    pub signal: Signal,
    /// Who sent it; for SIGCHLD, the child.
    pub pid: i32,
    /// The number that its sender gave it, if any (sigqueue(3)).
    pub value: Option<u64>,
}

/// How many signals one call of the system hands out at most.
const AT_ONCE: usize = 4;

/// Signals that are blocked for this thread (and those that it makes), and are read from a
/// descriptor, which does not block.
#[derive(Debug)]
pub struct Signals {
    fd: OwnedFd,
    before: libc::sigset_t,
}

impl Signals {
    /// Blocks them. To be called before the first thread is made. For SIGCHLD it calls
    /// [`reset_child_signal`], too.
    pub fn new(signals: &[Signal]) -> io::Result<Signals> {
        let set = set(signals);
        if signals.contains(&Signal::CHLD) {
            reset_child_signal();
        }
        let mut before = MaybeUninit::uninit();
        // SAFETY: both sets are valid for the call, which fills `before`.
        let before = unsafe {
            check(libc::sigprocmask(libc::SIG_BLOCK, &set, before.as_mut_ptr()))?;
            before.assume_init()
        };
        let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
        // SAFETY: the set is valid; -1 asks for a new descriptor, which is nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(check(libc::signalfd(-1, &set, flags))?) };
        Ok(Signals { fd, before })
    }

    /// Starts a program for which no signal is blocked, so that it gets those of the terminal's
    /// keys.
    pub fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        let none = set(&[]);
        let unblock = move || {
            // SAFETY: the set was filled; nothing is written.
            check(unsafe { libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut()) })
                .map(drop)
        };
        // SAFETY: between fork and exec it makes this one call, which may be made there
        // (signal-safety(7)).
        unsafe { command.pre_exec(unblock) };
        command.spawn()
    }

    /// The next signal that has come.
    pub fn next(&self) -> Option<Received> {
        let (records, read) = self.read::<1>()?;
        records[..read].first().map(received)
    }

    /// All signals that have come so far. The system is asked once for several of them. Those that
    /// come while these are served are for the next turn: sent without end, they keep nobody else
    /// waiting.
    pub fn receive(&self) -> Vec<Received> {
        let mut all = Vec::new();
        while let Some((records, read)) = self.read::<AT_ONCE>() {
            all.extend(records[..read].iter().map(received));
            if read < AT_ONCE {
                break;
            }
        }
        all
    }

    /// Records of signals that have come, and how many. None: there is none.
    fn read<const MOST: usize>(&self) -> Option<([libc::signalfd_siginfo; MOST], usize)> {
        // SAFETY: all zeros are a record.
        let mut records: [libc::signalfd_siginfo; MOST] = unsafe { std::mem::zeroed() };
        let size = size_of_val(&records);
        loop {
            // SAFETY: the buffer has room for this many bytes; a signalfd hands out whole records.
            let n = unsafe { libc::read(self.fd.as_raw_fd(), records.as_mut_ptr().cast(), size) };
            match count(n) {
                Ok(n) => return Some((records, n / size_of::<libc::signalfd_siginfo>())),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
    }
}

fn received(info: &libc::signalfd_siginfo) -> Received {
    let value = (info.ssi_code == libc::SI_QUEUE && info.ssi_ptr != 0).then_some(info.ssi_ptr);
    Received { signal: Signal(info.ssi_signo as i32), pid: info.ssi_pid as i32, value }
}

/// Restores the mask; signals that are still pending are delivered.
impl Drop for Signals {
    fn drop(&mut self) {
        // SAFETY: `before` was filled by the kernel.
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &self.before, std::ptr::null_mut()) };
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// Gives SIGCHLD its default effect. Whoever started this process may have had it ignored; then
/// neither this process nor its children would be told that a child of theirs has ended (wait(2)).
pub fn reset_child_signal() {
    // SAFETY: no handler is set.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// Writing a file beyond the limit of its size (RLIMIT_FSIZE, which whoever started this process
/// may have set) fails from now on, as on a full disk, and does not end this process (SIGXFSZ).
pub fn ignore_file_size() {
    // SAFETY: no handler is set.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Ignores the signals that are orders for the parent (fived(8)): whoever sends one to all
/// processes of fived by their name (pkill) wants the parent to obey it, and no other process to
/// end. For processes that start no programs, which would inherit that.
pub fn ignore_orders() {
    for signal in [Signal::HUP, Signal::USR1, Signal::USR2] {
        // SAFETY: no handler is set.
        unsafe { libc::signal(signal.number(), libc::SIG_IGN) };
    }
}

/// Gives a handler that does nothing to each signal that is ignored and not blocked: exec(2) leaves
/// an ignored signal ignored, but gives one that has a handler its default effect back. For this
/// process nothing changes. SIGPIPE is ignored (`start`); who started this process may have had
/// others ignored.
pub fn catch_ignored() {
    extern "C" fn nothing(_: libc::c_int) {}
    let nothing = nothing as extern "C" fn(libc::c_int);
    for n in 1..=libc::SIGRTMAX() {
        let (mut now, mut blocked) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        // SAFETY: nothing is changed by the first two calls, and one that succeeds fills what it
        // was given. The handler calls nothing, so it may run at any time.
        unsafe {
            if libc::sigaction(n, std::ptr::null(), now.as_mut_ptr()) != 0
                || libc::sigprocmask(libc::SIG_BLOCK, std::ptr::null(), blocked.as_mut_ptr()) != 0
                || libc::sigismember(blocked.as_ptr(), n) == 1
            {
                continue;
            }
            let mut action: libc::sigaction = now.assume_init();
            if action.sa_sigaction == libc::SIG_IGN {
                action.sa_sigaction = nothing as libc::sighandler_t;
                action.sa_flags = libc::SA_RESTART;
                // It succeeds: this signal's action could be read.
                libc::sigaction(n, &action, std::ptr::null_mut());
            }
        }
    }
}

/// Sends a signal to a child that was not reaped yet, so that its pid is still its own.
pub fn send(child: &Child, signal: Signal) {
    // SAFETY: no memory is handed over. A child that has ended takes no signal.
    unsafe { libc::kill(child.id() as libc::pid_t, signal.number()) };
}

/// Sends a signal to this process itself, to take its default effect where nothing blocks it.
pub fn raise(signal: Signal) {
    // SAFETY: no memory is handed over.
    unsafe { libc::raise(signal.number()) };
}

/// Sends a signal to all processes of this one's job (its process group), as a terminal's keys do.
pub fn raise_in_job(signal: Signal) {
    // SAFETY: no memory is handed over. A signal to itself is delivered before the call returns.
    unsafe { libc::kill(0, signal.number()) };
}

fn set(signals: &[Signal]) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset fills the set, the others add to a filled one; the numbers are signals.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for s in signals {
            libc::sigaddset(set.as_mut_ptr(), s.number());
        }
        set.assume_init()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_read_not_suffered() {
        let s = Signals::new(&[Signal::USR1, Signal::HUP]).unwrap();
        assert_eq!(s.receive(), []);
        raise(Signal::USR1);
        let me = std::process::id() as i32;
        assert_eq!(s.receive(), [Received { signal: Signal::USR1, pid: me, value: None }]);
        assert_eq!(s.receive(), []);
    }
}
