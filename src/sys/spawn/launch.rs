//! What is to be started, and all that it is to find.

use super::super::gauges::OtherCopy;
use super::super::identity::Identity;
use super::super::local::Address;
use super::super::message::Fds;
use super::super::shared::Shared;
use super::CList;
use super::tried::Tried;
use std::ffi::CStr;
use std::os::fd::BorrowedFd;

/// Where descriptor 2 goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stderr {
    /// The connection, or [`Launch::errors`] where there is one.
    Connection,
    /// This process's own descriptor 2.
    Ours,
    Null,
}

/// A resource that a service can be limited in (setrlimit(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rlimit {
    /// Bytes of address space.
    As,
    /// Seconds of processor time.
    Cpu,
    /// Bytes of data.
    Data,
    /// Open descriptors.
    Files,
    /// Bytes of stack.
    Stack,
}

/// The variable PATH of a program that is given no other.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program and all that it is to find.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a> {
    /// An absolute path, inside `chroot` where there is one.
    pub program: &'a CStr,
    pub argv: &'a CList,
    pub env: &'a CList,
    /// None: who we are.
    pub identity: Option<&'a Identity>,
    pub chroot: Option<&'a CStr>,
    /// Entered as that identity, inside `chroot`: without `or_root`, a directory which the user may
    /// not enter means no exec.
    pub directory: &'a CStr,
    /// If that is missing, no directory, or not for this identity, `/` is taken instead.
    pub or_root: bool,
    pub umask: u32,
    /// Added to our own; below 0 needs rights.
    pub nice: i32,
    /// Soft and hard alike.
    pub rlimits: &'a [(Rlimit, u64)],
    pub no_new_privs: bool,
    pub stderr: Stderr,
    /// Whether exec will take the program and what runs it is tried, as the identity, before the
    /// greeting is sent, unless this is what was tried last. None: a failing exec tells.
    pub check: Option<&'a Tried>,
    /// Sent right before exec, when all that can be checked was; may be empty.
    pub greeting: &'a [u8],
    /// Becomes 0 and 1, and is made blocking; None: /dev/null does. With a greeting it must be a
    /// socket.
    pub connection: Option<BorrowedFd<'a>>,
    /// Another process's copy of the connection, which must be closed before the program can have
    /// it.
    pub other_copy: Option<&'a OtherCopy>,
    /// Before the greeting the connection begins to take descriptors (`local::take_rights`). The
    /// child itself sees to that: it takes the socket's lock, which others may keep.
    pub takes_rights: bool,
    /// It is marked (`given_mark`): also by the child itself, for the same reason.
    pub marks: bool,
    /// Becomes 2, with [`Stderr::Connection`].
    pub errors: Option<BorrowedFd<'a>>,
    /// The connection is a terminal, which becomes the controlling one of the new session.
    pub terminal: bool,
    /// Becomes 3.
    pub extra: Option<BorrowedFd<'a>>,
    /// Becomes 4.
    pub second: Option<BorrowedFd<'a>>,
    pub new_session: bool,
    /// What the child does instead of becoming a program; it ends then, and neither the program nor
    /// what it would find matters.
    pub instead: Option<Instead<'a>>,
}

impl<'a> Launch<'a> {
    /// A program with arguments and an environment, and nothing else: it runs as our user, in a
    /// session of its own, and its standard error is ours.
    pub fn new(program: &'a CStr, argv: &'a CList, env: &'a CList) -> Launch<'a> {
        Launch {
            program,
            argv,
            env,
            identity: None,
            chroot: None,
            directory: c"/",
            or_root: false,
            umask: 0o022,
            nice: 0,
            rlimits: &[],
            no_new_privs: false,
            stderr: Stderr::Ours,
            check: None,
            greeting: b"",
            connection: None,
            other_copy: None,
            takes_rights: false,
            marks: false,
            errors: None,
            terminal: false,
            extra: None,
            second: None,
            new_session: true,
            instead: None,
        }
    }
}

/// Descriptors that this process gives up for a program.
#[derive(Debug)]
pub struct Passed {
    /// See [`Launch::connection`].
    pub connection: Shared,
    /// See [`Launch::errors`].
    pub errors: Option<Shared>,
}

impl From<Passed> for Fds {
    fn from(Passed { connection, errors }: Passed) -> Fds {
        Fds::from([Some(connection), errors, None, None])
    }
}

/// What a child does, as the identity of its launch, that becomes no program.
#[derive(Debug, Clone, Copy)]
pub enum Instead<'a> {
    /// Connects `connection` to this socket, which lets it in or refuses it as that user. The
    /// descriptor then stays as it is.
    Connect(&'a Address),
    /// Gives `connection` to the process that listens at a socket: connects to it, sends the
    /// greeting to the client, and then the message with the descriptor.
    HandOver {
        to: &'a Address,
        /// Small enough for one message: 4 KiB at most.
        message: &'a [u8],
    },
}
