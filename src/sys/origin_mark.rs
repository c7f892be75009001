//! The mark of those TCP sockets that this process itself has connected, and that another one of
//! fived's may have. Their addresses are this process's choice: handed over as a client's socket,
//! such a one would be a client from this computer, or from where an upstream is.
//!
//! It is an option that changes nothing once a socket is connected (IP_BIND_ADDRESS_NO_PORT,
//! ip(7)), that no listener has, so that no client's socket has it, and that a network process
//! cannot set (`options`).

use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use std::io;
use std::os::fd::BorrowedFd;

/// Marks a socket.
pub fn set(socket: BorrowedFd) -> io::Result<()> {
    Ok(setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?)
}

/// Unmarks a listener that another program has made, because what it accepts is marked as it is.
pub fn clear(listener: BorrowedFd) {
    // A kind of socket for which this fails has no such option.
    let _ = setsockopt(&listener, sockopt::IpBindAddressNoPort, &false);
}

/// Is it marked?
pub fn is_set(fd: BorrowedFd) -> bool {
    getsockopt(&fd, sockopt::IpBindAddressNoPort).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::super::{dial, socket};
    use super::*;
    use std::net::SocketAddr;
    use std::os::fd::AsFd;

    #[test]
    fn what_was_accepted_has_no_mark() {
        for at in ["127.0.0.1:0", "[::1]:0"] {
            let at: SocketAddr = at.parse().unwrap();
            let Ok(listener) = socket::listen(at, true) else { continue };
            let ours = dial::begin(socket::local(listener.as_fd()).unwrap(), false).unwrap();
            assert!(!is_set(ours.as_fd()));
            set(ours.as_fd()).unwrap();
            set(listener.as_fd()).unwrap();
            clear(listener.as_fd());
            let (theirs, _) = socket::accept(listener.as_fd()).unwrap();
            assert!(is_set(ours.as_fd()) && !is_set(theirs.as_fd()));
        }
    }
}
