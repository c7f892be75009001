//! Why nothing was started.

use crate::sys::socket;
use std::{fmt, io};
use syscalls::Errno;

/// Where a start failed, in the order of the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Clone,
    Descriptors,
    Session,
    Terminal,
    Keyring,
    Signals,
    Limits,
    Nice,
    Chroot,
    Groups,
    Gid,
    Uid,
    IdentityCheck,
    Directory,
    NoNewPrivs,
    Check,
    /// The process that has handed over the connection keeps its own copy of it.
    OtherCopy,
    /// What runs the program: a script's interpreter, a loader.
    Interpreter,
    Greeting,
    Exec,
    /// To the socket of a process that runs already.
    Connect,
    /// The client was greeted, and the process that was to be given the connection did not take it.
    Handover,
    /// It was stopped, killed or held up before it had done what it was for.
    Stopped,
}

impl Stage {
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Clone => "clone",
            Stage::Descriptors => "descriptors",
            Stage::Session => "session",
            Stage::Terminal => "terminal",
            Stage::Keyring => "session keyring",
            Stage::Signals => "signals",
            Stage::Limits => "limits",
            Stage::Nice => "nice",
            Stage::Chroot => "chroot",
            Stage::Groups => "groups",
            Stage::Gid => "gid",
            Stage::Uid => "uid",
            Stage::IdentityCheck => "identity-check",
            Stage::Directory => "directory",
            Stage::NoNewPrivs => "no-new-privs",
            Stage::Check => "program",
            Stage::OtherCopy => "other copy",
            Stage::Interpreter => "interpreter or loader",
            Stage::Greeting => "greeting",
            Stage::Exec => "exec",
            Stage::Connect => "connect",
            Stage::Handover => "handover",
            Stage::Stopped => "stopped",
        }
    }
}

/// Why nothing was started. There is no child that would have to be reaped by its number; one that
/// was killed may still end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    pub stage: Stage,
    pub errno: i32,
    /// Some of the greeting may have reached the client: no other answer can follow.
    pub greeted: bool,
}

impl Failure {
    /// The system has no room now ("busy"); otherwise the program, its user or its limits are wrong
    /// ("failed").
    pub fn is_scarcity(&self) -> bool {
        let processes = matches!(self.stage, Stage::Clone | Stage::Uid | Stage::Exec);
        socket::is_scarce(self.errno)
            || self.errno == libc::EDQUOT
            || (self.errno == libc::EAGAIN && processes)
    }

    /// Do too many connections wait until whoever listens accepts them?
    pub fn is_full(&self) -> bool {
        self.stage == Stage::Connect && self.errno == libc::EAGAIN
    }

    /// Is it this process's or the system's descriptors that have run out?
    pub fn lacks_descriptors(&self) -> bool {
        self.stage == Stage::Descriptors || matches!(self.errno, libc::EMFILE | libc::ENFILE)
    }

    /// The client went away before it was greeted: nobody's fault.
    pub fn is_peer_gone(&self) -> bool {
        self.stage == Stage::Greeting && matches!(self.errno, libc::EPIPE | libc::ECONNRESET)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let why = io::Error::from_raw_os_error(self.errno);
        write!(f, "{}: {why}", self.stage.as_str())
    }
}

impl std::error::Error for Failure {}

/// The step of a start that failed, as the child writes it down.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fault {
    pub stage: Stage,
    pub errno: i32,
}

impl Fault {
    pub fn new(stage: Stage, errno: Errno) -> Fault {
        Fault { stage, errno: errno.into_raw() }
    }

    /// A step that the parent itself takes has failed.
    pub fn at(stage: Stage) -> impl Fn(io::Error) -> Fault {
        move |e| Fault { stage, errno: e.raw_os_error().unwrap_or(0) }
    }

    /// There is no child, which could have greeted somebody.
    pub fn before_the_child(self) -> Failure {
        Failure { stage: self.stage, errno: self.errno, greeted: false }
    }
}

/// A step between clone and exec.
pub(super) type Step = Result<(), Fault>;

/// What a step's system call answered.
pub(super) fn step(stage: Stage, answer: Result<usize, Errno>) -> Step {
    answer.map(drop).map_err(|e| Fault::new(stage, e))
}
