//! Changes of this computer's network: its links, addresses and routes (rtnetlink(7)).

use super::socket;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv,
};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// What is told: links, and addresses and routes of both families.
const GROUPS: i32 = libc::RTMGRP_LINK
    | libc::RTMGRP_IPV4_IFADDR
    | libc::RTMGRP_IPV4_ROUTE
    | libc::RTMGRP_IPV6_IFADDR
    | libc::RTMGRP_IPV6_ROUTE;
/// Messages that are read at once, at most: there are more only while the network changes.
const BATCH: usize = 64;

/// A descriptor that is readable when the network has changed.
#[derive(Debug)]
pub struct NetworkChanges(OwnedFd);

impl NetworkChanges {
    pub fn new() -> io::Result<NetworkChanges> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (family, kind) = (AddressFamily::Netlink, SockType::Raw);
        let fd = nix::sys::socket::socket(family, kind, flags, SockProtocol::NetlinkRoute)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, GROUPS as u32))?;
        Ok(NetworkChanges(fd))
    }

    /// Has it changed since the last call? What has changed does not matter.
    pub fn take(&self) -> bool {
        let mut message = [0; 8192];
        let mut any = false;
        for _ in 0..BATCH {
            match recv(self.0.as_raw_fd(), &mut message, MsgFlags::MSG_DONTWAIT) {
                Ok(_) => any = true,
                // There were more changes than the kernel could keep.
                Err(nix::errno::Errno::ENOBUFS) => any = true,
                Err(_) => break,
            }
        }
        any
    }
}

impl AsFd for NetworkChanges {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Has this computer the address now? True also if that cannot be told.
pub fn has_address(ip: IpAddr) -> bool {
    let bound = socket::datagram((ip, 0).into()).and_then(|fd| socket::bind(&fd, (ip, 0).into()));
    let none = [libc::EADDRNOTAVAIL, libc::EAFNOSUPPORT].map(Some);
    !bound.is_err_and(|e| none.contains(&e.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_this_computers_or_not() {
        assert!(has_address("127.0.0.1".parse().unwrap()));
        assert!(!has_address("192.0.2.1".parse().unwrap()));
    }

    #[test]
    fn nothing_has_changed_yet() {
        let changes = NetworkChanges::new().unwrap();
        // Whatever happens to this computer meanwhile, a second look finds no more of it.
        changes.take();
        assert!(changes.as_fd().as_raw_fd() >= 0);
    }
}
