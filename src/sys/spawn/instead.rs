//! Children that do one thing instead of becoming a program. As everything between clone and exec,
//! this makes raw system calls and nothing else (see `child`).
//!
//! Only the file system of a socket's path can make them wait: then that process alone waits, and
//! is killed after a while.

use super::child::{become_identity, greet};
use super::failure::{Fault, Stage, Step, step};
use super::order::Order;
use super::places;
use crate::sys::local::Address;
use std::ffi::c_int;
use std::os::fd::RawFd;
use std::ptr;
use syscalls::{Errno, Sysno, syscall};

/// The result that is set before the child does anything: it stays if the child is killed.
pub(super) const NOT_DONE: Fault = Fault { stage: Stage::Stopped, errno: libc::EINTR };

/// Bytes of the control message: its head and one descriptor, both aligned (cmsg(3)).
const CONTROL: usize = 24;

/// Connects a socket as the identity. No signal but those that end it reaches the child.
pub(super) fn connect(o: &Order, to: &Address) -> Step {
    // Before it is that user's, who might get at its descriptors: of ours it has this one alone.
    places::take_places(o)?;
    places::be_alone(o)?;
    become_identity(o)?;
    connect_to(0, to)
}

/// As the identity, connects to a process, greets the client, and gives its connection away.
pub(super) fn hand_over(o: &Order, to: &Address, message: &[u8]) -> Step {
    // After this the child's descriptor table is its own, so that the socket that is made below is
    // closed whatever ends the child.
    places::take_places(o)?;
    become_identity(o)?;
    // The server may listen with a stream, or with a socket that keeps messages apart.
    let receiver = match connected(libc::SOCK_STREAM, to) {
        Err(f) if f.errno == libc::EPROTOTYPE => connected(libc::SOCK_SEQPACKET, to)?,
        other => other?,
    };
    places::be_alone(o)?;
    greet(o)?;
    send(receiver, message)
}

fn connected(kind: c_int, to: &Address) -> Result<RawFd, Fault> {
    // Where the server's queue of connections is full this fails (EAGAIN); it must not wait.
    let kind = kind | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no memory is handed over.
    let fd = unsafe { syscall!(Sysno::socket, libc::AF_UNIX, kind, 0) };
    let fd = fd.map_err(|e| Fault::new(Stage::Connect, e))? as RawFd;
    connect_to(fd, to).map(|()| fd)
}

fn connect_to(fd: RawFd, to: &Address) -> Step {
    let (address, length) = to.raw();
    // SAFETY: the address is read for its length.
    step(Stage::Connect, unsafe { syscall!(Sysno::connect, fd, address, length) })
}

/// The message, with descriptor 0, which is the connection.
fn send(to: RawFd, message: &[u8]) -> Step {
    let mut control = [0u64; CONTROL / 8];
    // SAFETY: all zeros is a valid head (which has more fields on some systems).
    let mut first: libc::cmsghdr = unsafe { std::mem::zeroed() };
    (first.cmsg_level, first.cmsg_type) = (libc::SOL_SOCKET, libc::SCM_RIGHTS);
    // SAFETY: such a head fits, and so does one descriptor after it, which is zero already.
    // CMSG_LEN only computes.
    unsafe {
        first.cmsg_len = libc::CMSG_LEN(size_of::<c_int>() as u32) as _;
        control.as_mut_ptr().cast::<libc::cmsghdr>().write(first);
    }
    let mut text =
        libc::iovec { iov_base: message.as_ptr().cast_mut().cast(), iov_len: message.len() };
    // SAFETY: all zeros is a valid msghdr.
    let mut head: libc::msghdr = unsafe { std::mem::zeroed() };
    (head.msg_name, head.msg_iov, head.msg_iovlen) = (ptr::null_mut(), &raw mut text, 1);
    (head.msg_control, head.msg_controllen) = (control.as_mut_ptr().cast(), CONTROL as _);
    let (call, flags) = (Sysno::sendmsg, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT);
    // SAFETY: the head, and what it leads to, is read.
    match unsafe { syscall!(call, to, &raw const head, flags) } {
        Ok(n) if n == message.len() => Ok(()),
        Ok(_) => Err(Fault::new(Stage::Handover, Errno::EMSGSIZE)),
        Err(e) => Err(Fault::new(Stage::Handover, e)),
    }
}
