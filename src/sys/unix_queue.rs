//! Which connections wait at a listening Unix socket (sock_diag(7)): whether the program that has
//! that socket has accepted one is known by looking again. See [`super::queue_head`].

use super::check;
use super::socket;
use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

const HEAD: usize = 16;
/// struct unix_diag_req, and struct unix_diag_msg.
const REQUEST: usize = 24;
const MESSAGE: usize = 16;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const UDIAG_SHOW_ICONS: u32 = 8;
const UNIX_DIAG_ICONS: u16 = 3;

/// The inode of a listener, by which the system is asked about it.
pub fn inode(listener: BorrowedFd) -> io::Result<u32> {
    Ok(nix::sys::stat::fstat(listener)?.st_ino as u32)
}

/// The clients whose connections to the listener with this inode nobody has accepted yet, by the
/// inodes of their sockets. Errors: the system cannot tell. (Before Linux 6.9 it may take long:
/// [`answers_at_once`](super::inet_diag::answers_at_once).)
pub fn unaccepted(inode: u32) -> io::Result<BTreeSet<u32>> {
    // SAFETY: no memory is handed over.
    let fd = check(unsafe {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_SOCK_DIAG)
    })?;
    // SAFETY: it was just made and is nobody else's.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    socket::send(fd.as_fd(), &request(inode))?;
    let mut buffer = vec![0; 64 * 1024];
    let n = socket::receive(fd.as_fd(), &mut buffer)?;
    read(&buffer[..n]).ok_or_else(|| ErrorKind::Unsupported.into())
}

/// Does one wait?
pub fn any(listener: BorrowedFd) -> bool {
    super::poll::is_readable(listener)
}

fn request(inode: u32) -> [u8; HEAD + REQUEST] {
    let mut r = [0; HEAD + REQUEST];
    r[0..4].copy_from_slice(&((HEAD + REQUEST) as u32).to_ne_bytes());
    r[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    r[6..8].copy_from_slice(&(libc::NLM_F_REQUEST as u16).to_ne_bytes());
    r[16] = libc::AF_UNIX as u8;
    r[20..24].copy_from_slice(&u32::MAX.to_ne_bytes());
    r[24..28].copy_from_slice(&inode.to_ne_bytes());
    r[28..32].copy_from_slice(&UDIAG_SHOW_ICONS.to_ne_bytes());
    // No cookie.
    r[32..40].fill(0xff);
    r
}

/// None: it is no such answer.
fn read(bytes: &[u8]) -> Option<BTreeSet<u32>> {
    let short = |b: &[u8], at: usize| -> Option<u16> {
        Some(u16::from_ne_bytes(b.get(at..at + 2)?.try_into().ok()?))
    };
    if short(bytes, 4)? != SOCK_DIAG_BY_FAMILY {
        return None;
    }
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let mut rest = bytes.get(HEAD + MESSAGE..length)?;
    let mut all = BTreeSet::new();
    while let (Some(length), Some(kind)) = (short(rest, 0), short(rest, 2)) {
        let value = rest.get(4..usize::from(length))?;
        if kind == UNIX_DIAG_ICONS {
            all.extend(value.chunks_exact(4).map(|n| u32::from_ne_bytes([n[0], n[1], n[2], n[3]])));
        }
        rest = rest.get(usize::from(length).next_multiple_of(4)..).unwrap_or_default();
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn connections_are_known_until_they_are_accepted() {
        let path = std::env::temp_dir().join(format!("fived-queue-{}", std::process::id()));
        let l = UnixListener::bind(&path).expect("bind");
        let waiting = || unaccepted(inode(l.as_fd()).expect("stat")).expect("look");
        assert!(waiting().is_empty() && !any(l.as_fd()));
        let clients = [0, 1].map(|_| UnixStream::connect(&path).expect("connect"));
        let inode = |c: &UnixStream| inode(c.as_fd()).expect("stat");
        assert_eq!(waiting(), clients.iter().map(inode).collect());
        assert!(any(l.as_fd()));
        let _first = l.accept().expect("accept");
        assert_eq!(waiting(), [inode(&clients[1])].into());
        std::fs::remove_file(&path).expect("remove");
    }
}
