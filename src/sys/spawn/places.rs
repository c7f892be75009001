//! The descriptors of a child. It receives what it is given from its slot's queue (see `slot`) and
//! puts it into its place; and before a program can have it the child takes care that nobody else
//! has. As everything between clone and exec, this makes raw system calls and nothing else (see
//! `child`).

use super::failure::{Fault, Stage, Step, step};
use super::given::{Each, Given, PLACES};
use super::launch::Stderr;
use super::order::Order;
use crate::sys::gauges::OtherCopy;
use crate::sys::message::FDS_MAX;
use std::ffi::c_int;
use std::os::fd::RawFd;
use std::sync::atomic::Ordering;
use std::{mem, ptr};
use syscalls::{Errno, Sysno, syscall};

/// Bytes of the control message: its head and the descriptors (cmsg(3)).
const HEAD: usize = 16;
const CONTROL: usize = HEAD + FDS_MAX * size_of::<c_int>();

/// Leaves the shared table, then puts everything into its place.
pub(super) fn take_places(o: &Order) -> Step {
    let (call, flags) = (Sysno::close_range, libc::CLOSE_RANGE_UNSHARE);
    // SAFETY: no memory is handed over. From here on the table is the child's own.
    step(Stage::Descriptors, unsafe { syscall!(call, o.above, u32::MAX, flags) })?;
    o.has_own_table.store(true, Ordering::Release);
    let [connection, errors, extra, second] = receive(o)?;
    let connection = connection.unwrap_or(o.null);
    duplicate(connection, 0)?;
    duplicate(connection, 1)?;
    match o.launch.stderr {
        Stderr::Connection => duplicate(errors.unwrap_or(connection), 2)?,
        Stderr::Null => duplicate(o.null, 2)?,
        Stderr::Ours => {}
    }
    extra.map_or(Ok(()), |fd| duplicate(fd, 3))?;
    second.map_or(Ok(()), |fd| duplicate(fd, 4))?;
    // Other starts' queues have lower numbers than its own; and what is not in a queue has other
    // starts' connections beside it. All that must be gone before the child is another user's.
    let last = match o.given {
        Given::Queued(_) => o.queue as u32 - 1,
        Given::Here(_) => u32::MAX,
    };
    if last < PLACES {
        return Ok(());
    }
    let first = match (extra, second) {
        (_, Some(_)) => 5u32,
        (Some(_), None) => 4,
        (None, None) => 3,
    };
    // SAFETY: no memory is handed over.
    step(Stage::Descriptors, unsafe { syscall!(Sysno::close_range, first, last, 0) })
}

/// How often, and after which pauses, the child looks whether another copy is closed, for some 2 s
/// in all. Mostly it is within some microseconds, for which others may run; to sleep and be woken
/// would take longer.
const LOOKS: u32 = 20_000;
const YIELDS: u32 = 300;
static PAUSE: libc::timespec = libc::timespec { tv_sec: 0, tv_nsec: 50_000 };

/// How often more the child tries to receive where memory is scarce, after the same pause.
const TRIES: u32 = 10;

/// From here on nobody but the child has what it was given.
pub(super) fn be_alone(o: &Order) -> Step {
    o.launch.other_copy.map_or(Ok(()), wait_until_closed)?;
    let mut byte = 0u8;
    let (call, queue, flags) = (Sysno::recvfrom, o.queue, libc::MSG_DONTWAIT);
    let (at, none) = (&raw mut byte, ptr::null::<u8>());
    match is_queued(o) {
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

fn is_queued(o: &Order) -> bool {
    matches!(o.given, Given::Queued(each) if each.contains(&true))
}

fn duplicate(from: RawFd, to: RawFd) -> Step {
    // SAFETY: no memory is handed over.
    step(Stage::Descriptors, unsafe { syscall!(Sysno::dup3, from, to, 0) })
}

/// What is given. It stays in the queue.
fn receive(o: &Order) -> Result<Each<Option<RawFd>>, Fault> {
    let given = match o.given {
        Given::Here(each) => return high_all(each),
        Given::Queued(each) => each,
    };
    let mut all = [None; FDS_MAX];
    if !is_queued(o) {
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
    let mut received = unsafe { syscall!(call, from, &raw mut head, flags) };
    for _ in 0..TRIES {
        if !matches!(received, Err(Errno::ENOMEM | Errno::ENOBUFS)) {
            break;
        }
        let none = ptr::null::<libc::timespec>();
        // SAFETY: one timespec is read; then as above.
        received = unsafe {
            let _ = syscall!(Sysno::nanosleep, &raw const PAUSE, none);
            syscall!(call, from, &raw mut head, flags)
        };
    }
    step(Stage::Descriptors, received)?;
    if head.msg_flags & libc::MSG_CTRUNC != 0 {
        return Err(Fault::new(Stage::Descriptors, Errno::EMFILE));
    }
    let (first, mut at) = (control.as_ptr().cast::<c_int>(), HEAD / size_of::<c_int>());
    for (place, _) in all.iter_mut().zip(given).filter(|(_, given)| *given) {
        // SAFETY: the kernel has written as many as were sent, after the head; there is room for
        // FDS_MAX.
        *place = Some(unsafe { first.add(at).read() });
        at += 1;
    }
    high_all(all)
}

/// The descriptors, or copies of them that are out of the places' way. They have high numbers
/// already, but where somebody has closed what this process had from its beginning.
fn high_all(mut all: Each<Option<RawFd>>) -> Result<Each<Option<RawFd>>, Fault> {
    let call = Sysno::fcntl;
    for fd in all.iter_mut().flatten().filter(|fd| (**fd as u32) < PLACES) {
        // SAFETY: no memory is handed over.
        let copy = unsafe { syscall!(call, *fd, libc::F_DUPFD_CLOEXEC, PLACES) };
        *fd = copy.map_err(|e| Fault::new(Stage::Descriptors, e))? as RawFd;
    }
    Ok(all)
}
