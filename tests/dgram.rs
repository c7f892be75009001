//! Servers of Debian's packages that are written for `wait` or for a port of their own under inetd,
//! behind rows as a migration would have them.

mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use support::*;

/// The address of the first row's port.
fn port(d: &Daemon) -> SocketAddr {
    d.port(0)
}

/// The standard output of a command that succeeds.
#[track_caller]
fn sh(command: &str) -> Vec<u8> {
    let out = Command::new("sh").args(["-c", command]).output().expect("sh");
    assert!(out.status.success(), "{command}: {}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

#[test]
fn tftpd_hpa() {
    const TFTPD: &str = "/usr/sbin/in.tftpd";
    if !(root() && Path::new(TFTPD).exists() && installed("curl")) {
        return skip("needs root, in.tftpd (tftpd-hpa) and curl");
    }
    // It serves who comes until nobody has come for a second.
    let d = Daemon::with(&format!(
        "tftp dgram udp wait root {TFTPD} in.tftpd --timeout 1 --create --user @USER@ --secure @DIR@/files\n port = 127.0.0.1:0\n"
    ))
    .start();
    // More than one block, and no whole number of them.
    let text = "0123456789abcdef".repeat(1000) + "end";
    d.place.write("files/page", &text, 0o644);
    let page = format!("tftp://127.0.0.1:{}/page", port(&d).port());
    let get = || sh(&format!("curl -sS -m 60 {page}"));
    same(get(), &text);
    d.wait_log("EXIT service=tftp");
    same(get(), &text);
    d.wait_logs("START service=tftp", 2);
    // Four clients at once, whichever program serves them.
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..4).map(|_| scope.spawn(get)).collect();
        all.into_iter().for_each(|one| same(one.join().expect("a client"), &text));
    });
    assert!(!d.log().contains("WARN"), "{}", d.log());
}

/// A request of ntalk (protocols/talkd.h), from `name` here, who calls `whom` or looks for the call.
fn ntalk(kind: u8, id: u32, from: SocketAddr, name: &str, whom: &str) -> Vec<u8> {
    let SocketAddr::V4(from) = from else { panic!("IPv4") };
    let address = [&[0, 2][..], &from.port().to_be_bytes(), &from.ip().octets(), &[0; 8]].concat();
    let text = |text: &str, length: usize| {
        let mut bytes = text.as_bytes().to_vec();
        bytes.resize(length, 0);
        bytes
    };
    let (head, pid) = ([&[1, kind, 0, 0][..], &id.to_be_bytes()].concat(), 123i32.to_be_bytes());
    let names = [text(name, 12), text(whom, 12), text("", 16)].concat();
    [&head, &address, &address, &pid[..], &names].concat()
}

#[test]
fn ntalkd() {
    const NTALKD: &str = "/usr/sbin/in.ntalkd";
    if !(root() && Path::new(NTALKD).exists()) {
        return skip("needs root and in.ntalkd (talkd)");
    }
    let d = Daemon::with(&format!(
        "ntalk dgram udp wait nobody:tty {NTALKD} in.ntalkd\n port = 127.0.0.1:0\n"
    ))
    .start();
    let s = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    s.set_read_timeout(Some(TIMEOUT)).expect("timeout");
    let (here, at) = (s.local_addr().expect("bound"), port(&d));
    let ask = |request: &[u8]| {
        s.send_to(request, at).expect("sent");
        let mut answer = [0; 64];
        let (n, from) = s.recv_from(&mut answer).expect("an answer");
        assert_eq!((n, from, answer[0], answer[1]), (24, at, 1, request[1]));
        answer
    };
    const LEAVE: u8 = 0;
    const LOOK: u8 = 1;
    // Nobody has called bob; alice does; then bob finds her.
    assert_eq!(ask(&ntalk(LOOK, 1, here, "bob", "alice"))[2], 1, "NOT_HERE");
    ask(&ntalk(LEAVE, 2, here, "alice", "bob"));
    let found = ask(&ntalk(LOOK, 3, here, "bob", "alice"));
    assert_eq!(found[2], 0, "SUCCESS");
    assert_eq!(found[10..12], here.port().to_be_bytes(), "where alice waits");
    // One program has had all of it, and still has the socket.
    assert_eq!(d.wait_logs("START service=ntalk", 1).len(), 1);
    assert!(!d.log().contains("EXIT") && !d.log().contains("WARN"), "{}", d.log());
}

#[test]
fn sshd_at_a_port_of_its_own() {
    if !(root() && Path::new("/usr/sbin/sshd").exists() && installed("ssh")) {
        return skip("needs root, /usr/sbin/sshd and ssh");
    }
    let d = Daemon::with(
        "ssh stream tcp nowait root /usr/sbin/sshd sshd -i -f @DIR@/sshd_config\n port = 127.0.0.1:0\n tcpmux = no\n stderr = log\n",
    )
    .file(
        "sshd_config",
        "HostKey @DIR@/host\nAuthorizedKeysFile @DIR@/user.pub\nStrictModes no\nPidFile none\nUsePAM no\nPermitRootLogin yes\n",
    )
    .start();
    let (dir, port) = (d.place.path.display(), port(&d).port());
    sh(&format!(
        "mkdir -p /run/sshd; ssh-keygen -q -t ed25519 -N '' -f {dir}/host; ssh-keygen -q -t ed25519 -N '' -f {dir}/user"
    ));
    let printed = sh(&format!(
        "ssh -q -F none -p {port} -i {dir}/user -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o BatchMode=yes root@127.0.0.1 'echo $SSH_CONNECTION; head -c 2000000 /dev/zero | wc -c'"
    ));
    let printed = String::from_utf8(printed).expect("text");
    let words: Vec<&str> = printed.split_whitespace().collect();
    assert_eq!((words[0], words[2], words[4]), ("127.0.0.1", "127.0.0.1", "2000000"), "{printed}");
    same(words[3], port.to_string());
}
