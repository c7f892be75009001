//! The system: the only place with `unsafe`, libc and nix. It gives the other sides safe functions
//! for what they need and decides nothing; it knows nothing of requests, services or sessions.
//!
//! Descriptors are owned (`OwnedFd`) and close-on-exec from the beginning. Nothing here waits for
//! another process, unless its name or its documentation says so. Errors are `io::Error` with the
//! system's number.
//!
//! | file | noun |
//! |---|---|
//! | `spawn` `program` | programs are started; which of them can run |
//! | `process` `processes` `reaper` `signal` `interrupt` `undo` | this process and its children; all processes; children that have ended; signals; interrupted waits; what is undone before a signal ends this process |
//! | `confine` `rights` `namespace` | rights given up; rights that are missing; network namespaces |
//! | `origin_mark` `given_mark` | which sockets fived itself has connected; which ones a service has got |
//! | `identity` `crypt` `pam` `library` `resolve` `libwrap` | users and groups, hashes, PAM, names of addresses, hosts_access(5) |
//! | `socket` `port` `shared_port` `options` `dial` | sockets, services' own ports, a port that several sockets have, options, connecting |
//! | `queue_head` `unix_queue` `leftover` | a socket that a program gets whole: what is first in its queue; what the program has left on it |
//! | `bounded_calls` `directory_calls` `side_process` `stack` | calls that another process can make wait, those that concern a directory among them; work in a process beside this one, which shares its memory, and a stack for one |
//! | `inet_diag` | between which addresses a connection is, asked without its socket's lock |
//! | `datagram` | datagrams that are answered from the address that they were sent to |
//! | `local` `unix_listener` `message` `shared` `foreign` `passed_rights` | Unix sockets, the files of those that listen, messages with descriptors, descriptors that others hold too, and how those are closed that others handed over; reading what may have come with some |
//! | `reserve` `retransmit` `network` | how few descriptors are left; when TCP sends again what was lost; changes of the network |
//! | `flow` `pipe` `poll` `clock` | bytes from one descriptor to another, waiting, time |
//! | `file` `strict` `memfd` `output` | files read whole, files that only their owner can write, files in memory, the log's output |
//! | `allocator` | where buffers begin in memory |
//! | `gauges` | numbers that another process looks at |
//! | `start` | how a program begins |
//! | `terminal` `pty` | passwords and keys typed at a terminal; terminals for services |
//! | `inherit` `notify` `outcome` | what this process was started with; the service manager; the answer to `--reload` |
//! | `sanitizer` | what the address sanitizer is told, in its build alone |

mod allocator;
pub mod bounded_calls;
pub mod clock;
pub mod confine;
pub mod crypt;
pub mod datagram;
pub mod dial;
pub mod directory_calls;
pub mod file;
pub mod flow;
pub mod foreign;
pub mod gauges;
pub mod given_mark;
pub mod identity;
pub mod inet_diag;
pub mod inherit;
pub mod interrupt;
pub mod leftover;
mod library;
pub mod libwrap;
pub mod local;
pub mod memfd;
pub mod message;
pub mod namespace;
pub mod network;
pub mod notify;
pub mod options;
pub mod origin_mark;
pub mod outcome;
pub mod output;
pub mod pam;
pub mod passed_rights;
pub mod pipe;
pub mod poll;
pub mod port;
pub mod process;
pub mod processes;
pub mod program;
pub mod pty;
pub mod queue_head;
pub mod reaper;
pub mod reserve;
pub mod resolve;
pub mod retransmit;
pub mod rights;
#[cfg(asan)]
mod sanitizer;
pub mod shared;
pub mod shared_port;
pub mod side_process;
pub mod signal;
pub mod socket;
pub mod spawn;
mod stack;
pub mod start;
pub mod strict;
pub mod terminal;
pub mod undo;
pub mod unix_listener;
pub mod unix_queue;

use std::io;

/// A system call's answer: -1 is the error in errno.
fn check(answer: libc::c_int) -> io::Result<libc::c_int> {
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(answer)
}

/// The same for calls that answer with a number of bytes.
fn count(answer: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(answer).map_err(|_| io::Error::last_os_error())
}

/// prctl(2) with one number.
fn prctl(what: libc::c_int, value: libc::c_ulong) -> io::Result<()> {
    let none: libc::c_ulong = 0;
    // SAFETY: no call is made with it that takes memory.
    check(unsafe { libc::prctl(what, value, none, none, none) }).map(drop)
}
