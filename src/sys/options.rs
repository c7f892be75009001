//! The socket options that the net process may ask for and set, and how the parent restores on
//! listeners, which all net processes share, what was set.
//!
//! Net's system call filter refuses all others, so a net process can leave no other change on a
//! listener.

use super::{check, socket};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// A level and a name (setsockopt(2)).
pub(super) type SocketOption = (libc::c_int, libc::c_int);

/// TCP_NODELAY, of what it relays; SO_SNDBUF, of the pairs that services get; SO_LINGER, so that a
/// close never waits; SO_OOBINLINE, so that an urgent byte of a request is read with the others;
/// TCP_QUICKACK, so that a service that waits in its close is acknowledged at once; TCP_CORK, so
/// that what MSG_MORE has left to wait is sent; TCP_RTO_MAX_MS and TCP_USER_TIMEOUT, of sessions
/// that outlive their connections (`retransmit`).
/// The filter cannot look at their values, nor at which socket it is.
pub(super) const OF_NET: [SocketOption; 8] =
    [NODELAY, LINGER, SEND_BUFFER, URGENT_INLINE, ACKNOWLEDGE, CORK, RTO_MAX, USER_TIMEOUT];

/// SO_PEERCRED, which can only be asked for: whose client of a Unix socket it is that the parent or
/// a relay gives back to the loop, which counts waiting clients by their users. Net learns no more
/// by it than it was told with the client, or than who made its own channels.
pub(super) const ASKED_BY_NET: SocketOption = (libc::SOL_SOCKET, libc::SO_PEERCRED);

/// IPV6_ADDRFORM, which makes the accepted socket of an IPv4 client one of IPv4. No listener takes
/// it, and it cannot be asked for.
pub(super) const FAMILY: SocketOption = (libc::IPPROTO_IPV6, libc::IPV6_ADDRFORM);

const NODELAY: SocketOption = (libc::IPPROTO_TCP, libc::TCP_NODELAY);
const LINGER: SocketOption = (libc::SOL_SOCKET, libc::SO_LINGER);
pub(super) const SEND_BUFFER: SocketOption = (libc::SOL_SOCKET, libc::SO_SNDBUF);
pub(super) const RECEIVE_BUFFER: SocketOption = (libc::SOL_SOCKET, libc::SO_RCVBUF);
/// (This and the next: not of Multipath TCP.)
const URGENT_INLINE: SocketOption = (libc::SOL_SOCKET, libc::SO_OOBINLINE);
const ACKNOWLEDGE: SocketOption = (libc::IPPROTO_TCP, libc::TCP_QUICKACK);
const CORK: SocketOption = (libc::IPPROTO_TCP, libc::TCP_CORK);
/// TCP_RTO_MAX_MS (Linux 6.15): the longest time between two retransmissions, in milliseconds.
pub(super) const RTO_MAX: SocketOption = (libc::IPPROTO_TCP, 44);
/// TCP_USER_TIMEOUT: for how long nothing may be acknowledged, in milliseconds.
pub(super) const USER_TIMEOUT: SocketOption = (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT);
/// SO_BUF_LOCK. Bit 0: the size of the send buffer was set, and the kernel no longer adapts it.
/// (Linux 5.14; not of Multipath TCP.)
pub(super) const LOCK: SocketOption = (libc::SOL_SOCKET, 72);

/// An option's value. No option is larger; where there is none, it has no length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Value {
    bytes: [u8; 16],
    length: libc::socklen_t,
}

impl Value {
    pub fn int(n: libc::c_int) -> Value {
        let mut value = Value { length: size_of_val(&n) as libc::socklen_t, ..Value::default() };
        value.bytes[..size_of_val(&n)].copy_from_slice(&n.to_ne_bytes());
        value
    }

    /// Its first number, which is all of most of them.
    pub fn number(&self) -> libc::c_int {
        libc::c_int::from_ne_bytes(*self.bytes.first_chunk().expect("it has 16 bytes"))
    }

    /// Is there such an option?
    pub fn exists(&self) -> bool {
        self.length > 0
    }
}

/// The options that a listener had before any net process got it. Accepted connections inherit
/// them.
pub struct Options {
    values: [Value; OF_NET.len()],
    lock: Value,
}

impl Options {
    /// The options that the listener has now.
    pub fn of(listener: BorrowedFd) -> Options {
        Options { values: OF_NET.map(|option| get(listener, option)), lock: get(listener, LOCK) }
    }

    /// Restores those that have changed, and makes the listener nonblocking again. Errors: the
    /// system's.
    pub fn put_back(&self, listener: BorrowedFd) -> io::Result<()> {
        socket::set_nonblocking(listener)?;
        for (option, value) in OF_NET.into_iter().zip(self.values) {
            if get(listener, option) != value {
                restore(listener, option, &value)?;
            }
        }
        if get(listener, LOCK) != self.lock && set(listener, LOCK, &self.lock).is_err() {
            // The kernel will not adapt it any more, so the largest size that the system allows is
            // the best.
            set(listener, SEND_BUFFER, &Value::int(libc::c_int::MAX / 2))?;
        }
        Ok(())
    }
}

pub(super) fn get(fd: BorrowedFd, (level, name): SocketOption) -> Value {
    let mut value = Value::default();
    let mut length = size_of_val(&value.bytes) as libc::socklen_t;
    // SAFETY: at most the value's size is written, and the length.
    let asked = check(unsafe {
        let bytes = value.bytes.as_mut_ptr().cast();
        libc::getsockopt(fd.as_raw_fd(), level, name, bytes, &mut length)
    });
    asked.map_or(Value::default(), |_| Value { length, ..value })
}

pub(super) fn set(fd: BorrowedFd, (level, name): SocketOption, value: &Value) -> io::Result<()> {
    let bytes = value.bytes.as_ptr().cast();
    // SAFETY: this many bytes of the value are read.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, bytes, value.length) }).map(drop)
}

/// Gives an option the value back that it had.
pub(super) fn restore(fd: BorrowedFd, option: SocketOption, had: &Value) -> io::Result<()> {
    match option {
        // The kernel reports twice what was set: socket(7).
        SEND_BUFFER | RECEIVE_BUFFER => set(fd, option, &Value::int(had.number() / 2)),
        _ => set(fd, option, had),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;
    use std::os::fd::AsFd;

    #[test]
    fn what_net_may_set_is_put_back() {
        for mptcp in [false, true] {
            let listener = socket::listen("127.0.0.1:0".parse().expect("an address"), mptcp)
                .expect("a free port");
            let (fd, address) =
                (listener.as_fd(), socket::local(listener.as_fd()).expect("it is bound"));
            let before = Options::of(fd);
            set(fd, NODELAY, &Value::int(1)).expect("set");
            set(fd, CORK, &Value::int(1)).expect("set");
            let mut lingers = get(fd, LINGER);
            lingers.bytes[..8].copy_from_slice(&[1i32, 60].map(i32::to_ne_bytes).concat());
            set(fd, LINGER, &lingers).expect("set");
            // Older kernels have no such option, and Multipath TCP neither of them.
            let _ = set(fd, RTO_MAX, &Value::int(1000))
                .and_then(|()| set(fd, USER_TIMEOUT, &Value::int(9)));
            set(fd, SEND_BUFFER, &Value::int(2048)).expect("set");
            let acknowledged = get(fd, ACKNOWLEDGE);
            let other = Value::int(1 - acknowledged.number().min(1));
            assert!(set(fd, ACKNOWLEDGE, &other).is_ok() || mptcp);
            assert_eq!(
                set(fd, URGENT_INLINE, &Value::int(1)).is_err(),
                mptcp,
                "the kernel has it now"
            );
            // SAFETY: no memory is handed over.
            check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, 0) }).expect("set");
            before.put_back(fd).expect("put back");
            assert_eq!(
                socket::accept(fd).expect_err("nobody is there").kind(),
                io::ErrorKind::WouldBlock
            );
            let _client = TcpStream::connect(address).expect("it listens");
            let (accepted, _) = socket::accept(fd).expect("a client");
            let retries = [get(fd, RTO_MAX), get(fd, USER_TIMEOUT)];
            assert_eq!(retries, [before.values[6], before.values[7]]);
            for option in [NODELAY, CORK, LINGER, URGENT_INLINE] {
                assert_eq!(
                    (get(fd, option).number(), get(accepted.as_fd(), option).number()),
                    (0, 0),
                    "{option:?}"
                );
            }
            assert_eq!(get(fd, ACKNOWLEDGE), acknowledged);
            assert!(get(accepted.as_fd(), SEND_BUFFER).number() >= before.values[2].number());
            assert!(
                get(fd, LOCK) == before.lock
                    || mptcp && get(fd, SEND_BUFFER).number() > before.values[2].number()
            );
        }
    }
}
