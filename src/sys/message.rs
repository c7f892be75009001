//! Messages with descriptors, between fived's own processes (unix(7), SCM_RIGHTS).
//!
//! A message carries at most [`FDS_MAX`] descriptors. A received message that is longer than the
//! buffer, or has more descriptors, is refused as a whole, and all its descriptors are closed: as
//! what others have handed over ([`Shared::of`]), for they may be anything.

use super::shared::{Shared, Whose};
use super::{clock, count};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Descriptors that a message carries at most. It is even, so that the control message, which is
/// padded to words, has no room for another one.
pub const FDS_MAX: usize = 4;

/// What the error of a failed call means for the channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failed {
    /// The other end has too many unread messages, or has sent none: poll(2) reports when that
    /// changes.
    Full,
    /// The system lacks memory or descriptors for the moment, or a signal interrupted the call:
    /// nothing reports when that changes, so the caller tries again.
    Scarce,
    /// The other end has closed. What it sent before can still be received.
    Gone,
    /// Any other error: the channel cannot be used any more.
    Broken,
}

impl Failed {
    pub fn of(e: &io::Error) -> Failed {
        match e.raw_os_error() {
            Some(libc::EAGAIN) => Failed::Full,
            Some(
                libc::ENOMEM
                | libc::ENOBUFS
                | libc::EINTR
                | libc::ETOOMANYREFS
                | libc::EMFILE
                | libc::ENFILE,
            ) => Failed::Scarce,
            Some(libc::EPIPE | libc::ECONNRESET | libc::ECONNREFUSED | libc::ENOTCONN) => {
                Failed::Gone
            }
            _ => Failed::Broken,
        }
    }
}

/// The time between two tries of a call that waits, while the system lacks something.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

const FD_BYTES: usize = size_of::<RawFd>();
/// Bytes that CMSG_SPACE wants for [`FDS_MAX`] descriptors; [`Control`] is made of words, so that
/// they are aligned.
// SAFETY: CMSG_SPACE only computes.
const CONTROL_BYTES: usize = unsafe { libc::CMSG_SPACE((FDS_MAX * FD_BYTES) as u32) } as usize;
type Control = [u64; CONTROL_BYTES.div_ceil(8)];

/// Descriptors that the system lets a message carry (unix(7), SCM_MAX_FD). All of them are
/// received, because the system itself would close at once what there is no space for.
const RECEIVED_MAX: usize = 253;
/// Bytes that CMSG_SPACE wants for [`RECEIVED_MAX`] descriptors.
// SAFETY: CMSG_SPACE only computes.
const RECEIVED_BYTES: usize =
    unsafe { libc::CMSG_SPACE((RECEIVED_MAX * FD_BYTES) as u32) } as usize;
type Received = [u64; RECEIVED_BYTES.div_ceil(8)];

/// Descriptors that came with a message, in order.
#[derive(Debug, Default)]
pub struct Fds {
    all: [Option<Shared>; FDS_MAX],
    lost: bool,
    /// More came than a message carries.
    excess: bool,
}

impl Fds {
    /// Did more descriptors come than this process may have open? These are closed; the message
    /// itself is whole.
    pub fn lost(&self) -> bool {
        self.lost
    }

    /// How many have not been taken yet. None: some were lost.
    pub fn count(&self) -> Option<usize> {
        (!self.lost).then(|| self.all.iter().flatten().count())
    }

    /// Those that have not been taken yet.
    pub fn iter(&self) -> impl Iterator<Item = &Shared> {
        self.all.iter().flatten()
    }

    /// From now on those that have not been taken yet are of these ([`Shared::of`]).
    pub fn of(mut self, whose: Whose) -> Fds {
        self.all = self.all.map(|fd| fd.map(|fd| fd.of(whose)));
        self
    }

    /// The next one.
    pub fn take(&mut self) -> Option<Shared> {
        self.all.iter_mut().find_map(Option::take)
    }
}

impl From<[Option<Shared>; FDS_MAX]> for Fds {
    fn from(all: [Option<Shared>; FDS_MAX]) -> Fds {
        Fds { all, ..Fds::default() }
    }
}

/// Sends one message whole. `WouldBlock`: the other end has too many unread messages.
pub fn send(fd: BorrowedFd, bytes: &[u8], fds: &[BorrowedFd]) -> io::Result<()> {
    send_flagged(fd, bytes, fds, libc::MSG_DONTWAIT)
}

/// The same; for so long at most it waits until the system has what it takes.
pub fn send_within(
    most: std::time::Duration,
    fd: BorrowedFd,
    bytes: &[u8],
    fds: &[BorrowedFd],
) -> io::Result<()> {
    let end = clock::monotonic() + most;
    loop {
        match send(fd, bytes, fds) {
            Err(e) if Failed::of(&e) == Failed::Scarce && clock::monotonic() < end => {
                std::thread::sleep(PAUSE);
            }
            other => return other,
        }
    }
}

/// The same, but waits until the other end has read enough and the system has what it takes.
pub fn send_waiting(fd: BorrowedFd, bytes: &[u8], fds: &[BorrowedFd]) -> io::Result<()> {
    patiently(|| send_flagged(fd, bytes, fds, 0))
}

/// Receives one message: its length and its descriptors. 0 bytes: the other end has closed.
/// `WouldBlock`: there is none. `InvalidData`: it was too long or had too many descriptors. A
/// descriptor that this process may not have open any more is lost, and [`Fds::lost`] says so.
pub fn receive(fd: BorrowedFd, buffer: &mut [u8]) -> io::Result<(usize, Fds)> {
    receive_flagged(fd, buffer, libc::MSG_DONTWAIT)
}

/// The same, but waits for a message, and until the system has what it takes.
pub fn receive_waiting(fd: BorrowedFd, buffer: &mut [u8]) -> io::Result<(usize, Fds)> {
    patiently(|| receive_flagged(fd, buffer, 0))
}

fn send_flagged(
    fd: BorrowedFd,
    bytes: &[u8],
    fds: &[BorrowedFd],
    flags: libc::c_int,
) -> io::Result<()> {
    if fds.len() > FDS_MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let flags = libc::MSG_NOSIGNAL | flags;
    let sent = match fds {
        // A net process may make the other call on its own channel alone (`confine`).
        [] => {
            // SAFETY: the bytes are readable for their whole length.
            unsafe { libc::send(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) }
        }
        fds => {
            let mut control: Control = Default::default();
            let mut part = part(bytes.as_ptr().cast_mut(), bytes.len());
            let mut head = head(&mut part, &mut control, CONTROL_BYTES);
            attach(&mut head, fds);
            // SAFETY: `head` points to the bytes, which are only read, and to `control`; all
            // outlive the call.
            unsafe { libc::sendmsg(fd.as_raw_fd(), &head, flags) }
        }
    };
    let sent = count(sent)?;
    if sent < bytes.len() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    Ok(())
}

fn receive_flagged(
    fd: BorrowedFd,
    buffer: &mut [u8],
    flags: libc::c_int,
) -> io::Result<(usize, Fds)> {
    let mut control: Received = [0; RECEIVED_BYTES.div_ceil(8)];
    let mut part = part(buffer.as_mut_ptr(), buffer.len());
    let mut head = head(&mut part, &mut control, RECEIVED_BYTES);
    let flags = libc::MSG_CMSG_CLOEXEC | flags;
    // SAFETY: `head` points to the buffer and to `control`, both writable for the lengths that it
    // names.
    let mut receive = || count(unsafe { libc::recvmsg(fd.as_raw_fd(), &mut head, flags) });
    // If the other end closed without reading everything, the kernel reports that first, once; what
    // the other end sent can be received after it.
    let n = receive()
        .or_else(|e| if e.kind() == io::ErrorKind::ConnectionReset { receive() } else { Err(e) })?;
    let mut fds = detach(&head);
    // Truncated although there was space: this process could open no more descriptors.
    let cut = head.msg_flags & libc::MSG_CTRUNC != 0;
    fds.lost = cut && fds.all.iter().any(Option::is_none);
    if fds.excess || head.msg_flags & libc::MSG_TRUNC != 0 || cut && !fds.lost {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok((n, fds))
}

/// Makes a call again until the system does not lack anything for it.
fn patiently<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if Failed::of(&e) == Failed::Scarce => std::thread::sleep(PAUSE),
            other => return other,
        }
    }
}

fn part(base: *mut u8, len: usize) -> libc::iovec {
    libc::iovec { iov_base: base.cast(), iov_len: len }
}

/// `bytes`: of the control buffer.
fn head(part: &mut libc::iovec, control: &mut [u64], bytes: usize) -> libc::msghdr {
    // SAFETY: all zeros is a valid msghdr (its padding differs between systems, so it is not
    // written out).
    let mut head: libc::msghdr = unsafe { std::mem::zeroed() };
    head.msg_iov = part;
    head.msg_iovlen = 1;
    head.msg_control = control.as_mut_ptr().cast();
    head.msg_controllen = bytes as _;
    head
}

fn attach(head: &mut libc::msghdr, fds: &[BorrowedFd]) {
    let bytes = (fds.len() * FD_BYTES) as u32;
    // SAFETY: the control buffer is aligned and has room for FDS_MAX descriptors, of which there
    // are not more.
    unsafe {
        head.msg_controllen = libc::CMSG_SPACE(bytes) as _;
        let first = libc::CMSG_FIRSTHDR(head);
        (*first).cmsg_level = libc::SOL_SOCKET;
        (*first).cmsg_type = libc::SCM_RIGHTS;
        (*first).cmsg_len = libc::CMSG_LEN(bytes) as _;
        for (i, fd) in fds.iter().enumerate() {
            let slot = libc::CMSG_DATA(first).cast::<RawFd>().add(i);
            slot.write_unaligned(fd.as_raw_fd());
        }
    }
}

/// Takes every descriptor out of what was received, so that none can leak.
fn detach(head: &libc::msghdr) -> Fds {
    let mut fds = Fds::default();
    // SAFETY: the kernel filled the control buffer; the macros walk within msg_controllen, and each
    // number in an SCM_RIGHTS block is a descriptor that was made for this process and is nobody
    // else's.
    unsafe {
        let mut at = libc::CMSG_FIRSTHDR(head);
        while !at.is_null() {
            if (*at).cmsg_level == libc::SOL_SOCKET && (*at).cmsg_type == libc::SCM_RIGHTS {
                let bytes = (*at).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                for i in 0..bytes / FD_BYTES {
                    let raw = libc::CMSG_DATA(at).cast::<RawFd>().add(i).read_unaligned();
                    let fd = Shared::from(OwnedFd::from_raw_fd(raw)).of(Whose::Anybody);
                    match fds.all.iter_mut().find(|p| p.is_none()) {
                        Some(place) => *place = Some(fd),
                        None => fds.excess = true,
                    }
                }
            }
            at = libc::CMSG_NXTHDR(head, at);
        }
    }
    fds
}

#[cfg(test)]
mod tests {
    use super::super::{poll, socket};
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn descriptors_come_as_they_were_sent_and_close_on_exec() {
        let (a, b) = socket::seqpacket().unwrap();
        let (c, d) = socket::pair().unwrap();
        let mut buffer = [0; 16];
        let none = receive(b.as_fd(), &mut buffer).unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::WouldBlock);
        send(a.as_fd(), b"order", &[c.as_fd(), d.as_fd()]).unwrap();
        drop((c, d));
        let (n, mut fds) = receive_waiting(b.as_fd(), &mut buffer).unwrap();
        assert_eq!(&buffer[..n], b"order");
        let (c, d) = (fds.take().unwrap(), fds.take().unwrap());
        assert!(fds.take().is_none());
        socket::send(c.as_fd(), b"x").unwrap();
        assert_eq!(socket::receive(d.as_fd(), &mut buffer).unwrap(), 1);
        let flags = nix::fcntl::fcntl(&c, nix::fcntl::FcntlArg::F_GETFD).unwrap();
        assert_eq!(flags, libc::FD_CLOEXEC);
        drop(a);
        assert_eq!(receive_waiting(b.as_fd(), &mut buffer).unwrap().0, 0);
    }

    #[test]
    fn what_a_peer_sent_before_it_closed_is_received() {
        let (a, b) = socket::seqpacket().unwrap();
        send(a.as_fd(), b"unread", &[]).unwrap();
        send(b.as_fd(), b"last", &[]).unwrap();
        drop(b);
        let mut buffer = [0; 16];
        assert_eq!(receive(a.as_fd(), &mut buffer).unwrap().0, 4);
        assert_eq!(receive(a.as_fd(), &mut buffer).unwrap().0, 0);
    }

    #[test]
    fn too_long_or_too_many_is_refused_and_nothing_stays_open() {
        let (a, b) = socket::seqpacket().unwrap();
        let (c, d) = socket::pair().unwrap();
        let mut buffer = [0; 4];
        send(a.as_fd(), b"too long", &[c.as_fd()]).unwrap();
        let e = receive_waiting(b.as_fd(), &mut buffer).unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::InvalidData);

        use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
        let five = [c.as_raw_fd(); 5];
        let part = [io::IoSlice::new(b"x")];
        let rights = [ControlMessage::ScmRights(&five)];
        sendmsg::<()>(a.as_raw_fd(), &part, &rights, MsgFlags::empty(), None).unwrap();
        let e = receive_waiting(b.as_fd(), &mut buffer).unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::InvalidData);
        // Were a copy of `c` still open, its other end would not see the end.
        drop(c);
        let mut p = [poll::Poll::new(d.as_fd(), true, false)];
        poll::wait(&mut p, None).unwrap();
        assert_eq!(socket::receive(d.as_fd(), &mut buffer).unwrap(), 0);
    }
}
