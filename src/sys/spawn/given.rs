//! What a child is given of this process's descriptors. It receives them from its slot's queue (see
//! `slot`) and puts them into their places; and before a program can have them it takes care that
//! nobody else has. As everything between clone and exec, this makes raw system calls and nothing
//! else (see `child`).

use super::child::Order;
use super::failure::{Fault, Stage, Step, step};
use super::launch::{Launch, Stderr};
use crate::sys::gauges::OtherCopy;
use crate::sys::message::FDS_MAX;
use std::ffi::c_int;
use std::mem;
use std::os::fd::{BorrowedFd, RawFd};
use std::ptr;
use std::sync::atomic::Ordering;
use syscalls::{Errno, Sysno, syscall};

/// All of a program's descriptors, and the queue, have lower numbers than this. What is received
/// has a higher one, so that nothing is overwritten before it is in its place.
pub(super) const PLACES: u32 = 6;

/// Bytes of the control message: its head and the descriptors (cmsg(3)).
const HEAD: usize = 16;
const CONTROL: usize = HEAD + FDS_MAX * size_of::<c_int>();

/// Which ones: the connection, the standard error, the extra and the second one.
pub(super) type Given = [bool; FDS_MAX];

/// Takes them out of a launch.
pub(super) fn of<'a>(l: &mut Launch<'a>) -> (Given, Vec<BorrowedFd<'a>>) {
    let all = [l.connection.take(), l.errors.take(), l.extra.take(), l.second.take()];
    (all.map(|fd| fd.is_some()), all.into_iter().flatten().collect())
}

/// Leaves the shared table, then puts everything into its place.
pub(super) fn take_places(o: &Order) -> Step {
    let (call, flags) = (Sysno::close_range, libc::CLOSE_RANGE_UNSHARE);
    // SAFETY: no memory is handed over. From here on the table is the child's own.
    step(Stage::Descriptors, unsafe { syscall!(call, o.above, u32::MAX, flags) })?;
    o.has_own_table.store(true, Ordering::Release);
    let [connection, errors, extra, second] = receive(o)?;
    let connection = connection.unwrap_or(o.null);
    duplicate(connection, 0, 0)?;
    duplicate(connection, 1, 0)?;
    match o.launch.stderr {
        Stderr::Connection => duplicate(errors.unwrap_or(connection), 2, 0)?,
        Stderr::Null => duplicate(o.null, 2, 0)?,
        Stderr::Ours => {}
    }
    let mut first = first(o);
    if o.queue != first && is_any(o) {
        duplicate(o.queue, first, libc::O_CLOEXEC)?;
    }
    extra.map_or(Ok(()), |fd| duplicate(fd, 3, 0))?;
    second.map_or(Ok(()), |fd| duplicate(fd, 4, 0))?;
    first += RawFd::from(is_any(o));
    // SAFETY: no memory is handed over.
    step(Stage::Descriptors, unsafe { syscall!(Sysno::close_range, first, u32::MAX, 0) })
}

/// How often, and after which pauses, the child looks whether another copy is closed: it is at the
/// first look mostly, and within some microseconds where others let its owner run.
const LOOKS: u32 = 2000;
const YIELDS: u32 = 20;
static PAUSE: libc::timespec = libc::timespec { tv_sec: 0, tv_nsec: 1_000_000 };

/// From here on nobody but the child has what it was given.
pub(super) fn be_alone(o: &Order) -> Step {
    o.launch.other_copy.map_or(Ok(()), wait_until_closed)?;
    let mut byte = 0u8;
    let (call, queue, flags) = (Sysno::recvfrom, first(o), libc::MSG_DONTWAIT);
    let (at, none) = (&raw mut byte, ptr::null::<u8>());
    match is_any(o) {
        // SAFETY: one byte is written.
        true => {
            step(Stage::Descriptors, unsafe { syscall!(call, queue, at, 1, flags, none, none) })
        }
        false => Ok(()),
    }
}

fn wait_until_closed(copy: &OtherCopy) -> Step {
    for look in 0..LOOKS {
        if copy.is_closed() {
            return Ok(());
        }
        let none = ptr::null::<libc::timespec>();
        // SAFETY: one timespec is read. Whatever the calls answer, the child looks again.
        let _ = unsafe {
            match look < YIELDS {
                true => syscall!(Sysno::sched_yield),
                false => syscall!(Sysno::nanosleep, &raw const PAUSE, none),
            }
        };
    }
    Err(Fault::new(Stage::OtherCopy, Errno::ETIMEDOUT))
}

fn is_any(o: &Order) -> bool {
    o.given.contains(&true)
}

/// The lowest number that no place has: the queue's, until exec closes it.
fn first(o: &Order) -> RawFd {
    match o.given {
        [_, _, _, true] => 5,
        [_, _, true, _] => 4,
        _ => 3,
    }
}

fn duplicate(from: RawFd, to: RawFd, flags: c_int) -> Step {
    // SAFETY: no memory is handed over.
    step(Stage::Descriptors, unsafe { syscall!(Sysno::dup3, from, to, flags) })
}

/// Receives what is given, and leaves it in the queue.
fn receive(o: &Order) -> Result<[Option<RawFd>; FDS_MAX], Fault> {
    let mut all = [None; FDS_MAX];
    if !is_any(o) {
        return Ok(all);
    }
    let (mut byte, mut control) = (0u8, [0u64; CONTROL / 8]);
    let mut text = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    // SAFETY: all zeros is a valid msghdr (which has padding on some systems).
    let mut head: libc::msghdr = unsafe { mem::zeroed() };
    (head.msg_iov, head.msg_iovlen) = (&raw mut text, 1);
    (head.msg_control, head.msg_controllen) = (control.as_mut_ptr().cast(), CONTROL as _);
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    let (call, from) = (Sysno::recvmsg, o.queue);
    // SAFETY: one byte and the control message are written, and the lengths in the head.
    let received = unsafe { syscall!(call, from, &raw mut head, flags) };
    step(Stage::Descriptors, received)?;
    if head.msg_flags & libc::MSG_CTRUNC != 0 {
        return Err(Fault::new(Stage::Descriptors, Errno::EMFILE));
    }
    let (first, mut at) = (control.as_ptr().cast::<c_int>(), HEAD / size_of::<c_int>());
    for (place, _) in all.iter_mut().zip(o.given).filter(|(_, given)| *given) {
        // SAFETY: the kernel has written as many as were sent, after the head; there is room for
        // FDS_MAX.
        *place = Some(high(unsafe { first.add(at).read() })?);
        at += 1;
    }
    Ok(all)
}

/// The descriptor, or a copy of it that is out of the places' way. It has a high number already,
/// but where somebody has closed what this process had from its beginning.
fn high(fd: RawFd) -> Result<RawFd, Fault> {
    if fd as u32 >= PLACES {
        return Ok(fd);
    }
    let call = Sysno::fcntl;
    // SAFETY: no memory is handed over.
    unsafe { syscall!(call, fd, libc::F_DUPFD_CLOEXEC, PLACES) }
        .map(|copy| copy as RawFd)
        .map_err(|e| Fault::new(Stage::Descriptors, e))
}
