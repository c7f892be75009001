//! A client: bytes there and back, each wait bounded by the socket's own timeouts.

use super::{TIMEOUT, same};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd};

pub struct Client(pub TcpStream);

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect_timeout(&address, TIMEOUT);
        Client::of(stream.unwrap_or_else(|e| panic!("connect {address}: {e}")))
    }

    pub fn of(stream: TcpStream) -> Client {
        stream.set_read_timeout(Some(TIMEOUT)).expect("timeout");
        stream.set_write_timeout(Some(TIMEOUT)).expect("timeout");
        stream.set_nodelay(true).expect("nodelay");
        Client(stream)
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Client {
        self.0.write_all(bytes.as_ref()).expect("send");
        self
    }

    /// Asks for `cat`, and keeps it.
    pub fn cat(mut self) -> Client {
        self.send("cat\r\nx").expect("+Go\r\nx");
        self
    }

    /// A session with streams.
    pub fn multiplex(mut self) -> TcpStream {
        self.send("MULTIPLEX\r\n").expect("+ Success\r\n");
        self.0
    }

    /// Sends as much as the other side takes.
    pub fn try_send(&mut self, bytes: &[u8]) -> &mut Client {
        let _ = self.0.write_all(bytes);
        self
    }

    pub fn half_close(&mut self) -> &mut Client {
        self.0.shutdown(Shutdown::Write).expect("half-close");
        self
    }

    /// These bytes and no others come next.
    #[track_caller]
    pub fn expect(&mut self, wanted: impl AsRef<[u8]>) -> &mut Client {
        let wanted = wanted.as_ref();
        let mut got = Vec::new();
        while got.len() < wanted.len() {
            let mut part = vec![0; wanted.len() - got.len()];
            match self.0.read(&mut part) {
                Ok(n @ 1..) => got.extend_from_slice(&part[..n]),
                Ok(0) => break,
                // A socket with a timeout is interrupted by whatever stops the tests for a moment
                // (signal(7)).
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => panic!(
                    "{e} after {:?}, wanted {:?}",
                    got.escape_ascii().to_string(),
                    wanted.escape_ascii().to_string()
                ),
            }
        }
        same(got, wanted);
        self
    }

    /// Everything up to the end, which must be an orderly one.
    #[track_caller]
    pub fn read_all(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        if let Err(e) = self.0.read_to_end(&mut all) {
            panic!("{e} after {:?}", all.escape_ascii().to_string());
        }
        all
    }

    /// Everything up to the end, whatever end it is.
    pub fn read_any(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        // It keeps what came before an error.
        let _ = self.0.read_to_end(&mut all);
        all
    }

    /// As many bytes, or fewer where there is an end, whatever end it is.
    pub fn read_any_of(&mut self, n: usize) -> Vec<u8> {
        let mut all = Vec::new();
        let _ = Read::by_ref(&mut self.0).take(n as u64).read_to_end(&mut all);
        all
    }

    /// Nothing more comes, and the end is an orderly one.
    #[track_caller]
    pub fn end(&mut self) {
        same(self.read_all(), "");
    }

    /// Is there nothing to read, and no end, for so long?
    pub fn silent(&mut self, millis: u64) -> bool {
        let stream = &mut self.0;
        stream.set_read_timeout(Some(std::time::Duration::from_millis(millis))).expect("timeout");
        let seen = stream.peek(&mut [0]);
        stream.set_read_timeout(Some(TIMEOUT)).expect("timeout");
        matches!(seen, Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut))
    }
}

impl Client {
    /// Does this process have the other end of the connection, which is one of IPv4 on this
    /// computer?
    pub fn is_at(&self, pid: i32) -> bool {
        let port = |a: std::io::Result<SocketAddr>| format!(":{:04X}", a.expect("address").port());
        let (client, server) = (port(self.0.local_addr()), port(self.0.peer_addr()));
        let all = std::fs::read_to_string("/proc/thread-self/net/tcp").expect("connections");
        let mut lines = all.lines().skip(1).map(|l| l.split_whitespace().collect::<Vec<_>>());
        let inode = lines.find(|l| l[1].ends_with(&server) && l[2].ends_with(&client));
        // One that nobody has accepted yet has none.
        let socket = inode.map(|l| format!("socket:[{}]", l[9]));
        super::proc::descriptors(pid).iter().any(|(_, what)| Some(what) == socket.as_ref())
    }
}

/// Connects from a certain address of this computer.
pub fn connect_from(from: IpAddr, to: SocketAddr) -> Client {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("socket");
    let raw = std::os::fd::AsRawFd::as_raw_fd(&fd);
    bind(raw, &SockaddrStorage::from(SocketAddr::new(from, 0)))
        .unwrap_or_else(|e| panic!("bind {from}: {e}"));
    connect(raw, &SockaddrStorage::from(to))
        .unwrap_or_else(|e| panic!("connect {from} to {to}: {e}"));
    Client::of(TcpStream::from(fd))
}

/// Breaks a TCP connection off: its other end sees a reset, at once. Closing the socket would do
/// that only when nobody has a copy any more, as a process has that another test has just forked,
/// until its exec.
#[track_caller]
pub fn reset(s: impl AsFd) {
    use nix::libc::{AF_UNSPEC, connect, sockaddr};
    let nobody = sockaddr { sa_family: AF_UNSPEC as u16, sa_data: [0; 14] };
    let size = size_of_val(&nobody) as u32;
    // SAFETY: the address is of this size, and is read.
    let done = unsafe { connect(s.as_fd().as_raw_fd(), &nobody, size) };
    assert_eq!(done, 0, "reset: {}", std::io::Error::last_os_error());
}
