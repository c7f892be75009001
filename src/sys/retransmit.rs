//! When TCP sends again what was not acknowledged.

use std::mem::{offset_of, size_of};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

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
