//! Servers of Debian's packages that are written for `wait` or for a port of their own under inetd,
//! behind rows as a migration would have them.

mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use support::*;

/// The address of the first row's port.
fn port(d: &Daemon) -> SocketAddr {
    let log = d.log();
    let mut all = log.lines().filter_map(|l| l.strip_prefix("listening on ")?.parse().ok());
    all.nth(1).expect("the row's port")
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
    let said = sh(&format!(
        "ssh -q -F none -p {port} -i {dir}/user -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o BatchMode=yes root@127.0.0.1 'echo $SSH_CONNECTION; head -c 2000000 /dev/zero | wc -c'"
    ));
    let said = String::from_utf8(said).expect("text");
    let words: Vec<&str> = said.split_whitespace().collect();
    assert_eq!((words[0], words[2], words[4]), ("127.0.0.1", "127.0.0.1", "2000000"), "{said}");
    same(words[3], port.to_string());
}
