//! When TCP sends again what was not acknowledged.

use super::options::{self, RTO_MAX, USER_TIMEOUT, Value};
use std::mem::{offset_of, size_of};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// Milliseconds between two retransmissions at most, where [`often`] was asked for: the least that
/// the kernel takes.
const OFTEN: libc::c_int = 1000;
/// For this many milliseconds nothing may be acknowledged: what tcp(7) has without options
/// (tcp_retries2), where it is counted by retransmissions.
const GIVE_UP_AFTER: libc::c_int = 924_600;

/// From now on what was not acknowledged is sent again every second at least. Without this the
/// pauses grow to two minutes, and a network that was away for a while is not used again for about
/// as long, if nobody says that it is back. It is given up no earlier than without this.
pub fn often(fd: BorrowedFd) {
    // The kernel has no such option (before Linux 6.15), or it is no TCP socket.
    if options::set(fd, USER_TIMEOUT, &Value::int(GIVE_UP_AFTER)).is_ok()
        && options::set(fd, RTO_MAX, &Value::int(OFTEN)).is_err()
    {
        // What is counted by retransmissions stays as it was.
        let _ = options::set(fd, USER_TIMEOUT, &Value::int(0));
    }
}

/// The connection's retransmission timeout; zero if it is not TCP.
pub fn next_retransmission(fd: BorrowedFd) -> Duration {
    // The beginning of tcp(7)'s structure, which every system has.
    const LENGTH: usize = offset_of!(libc::tcp_info, tcpi_rto) + size_of::<u32>();
    let (mut info, mut size) = ([0u8; LENGTH], LENGTH as libc::socklen_t);
    // SAFETY: the system writes at most `size` bytes.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut size,
        )
    };
    match info.last_chunk::<4>() {
        Some(micros) if result == 0 && size as usize == LENGTH => {
            Duration::from_micros(u32::from_ne_bytes(*micros).into())
        }
        _ => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    #[test]
    fn what_is_sent_again_often_is_given_up_no_earlier() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let value = |option| options::get(tcp.as_fd(), option).number();
        let (before, timeout) = (value(RTO_MAX), value(USER_TIMEOUT));
        often(tcp.as_fd());
        let has = before != 0;
        let wanted = if has { (OFTEN, GIVE_UP_AFTER) } else { (before, timeout) };
        assert_eq!((value(RTO_MAX), value(USER_TIMEOUT)), wanted);
        often(std::os::unix::net::UnixStream::pair().unwrap().0.as_fd());
    }

    #[test]
    fn a_connection_reports_its_retransmission_timeout() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(next_retransmission(tcp.as_fd()) > Duration::ZERO);
        assert_eq!(
            next_retransmission(std::os::unix::net::UnixStream::pair().unwrap().0.as_fd()),
            Duration::ZERO
        );
    }
}
