//! Real daemons, unchanged, as services of fived: plain, inside TLS, and as streams of a MULTIPLEX
//! session.

#[path = "support/forward.rs"]
mod forward;
mod support;
#[path = "support/tls.rs"]
mod tls;
#[path = "support/yamux_client.rs"]
mod yamux_client;

use forward::{encrypted, forward, multiplexed, plain};
use std::path::Path;
use std::process::Command;
use support::*;

/// Runs a shell script; its standard output, or its complaint.
fn sh(script: &str) -> String {
    let out = Command::new("timeout").args(["60", "sh", "-ec", script]).output().expect("sh");
    assert!(
        out.status.success(),
        "{script}\n{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// The ports of one service, by every way there is.
fn ways(d: &Daemon, service: &str) -> Vec<u16> {
    vec![
        forward(d, service, plain),
        forward(d, service, encrypted),
        forward(d, service, multiplexed(d.address())),
    ]
}

/// hashicorp/yamux itself is a client of MULTIPLEX.
#[test]
fn hashicorp_yamux() {
    let sources = "/usr/share/gocode";
    if !(installed("go") && Path::new(sources).join("src/github.com/hashicorp/yamux").exists()) {
        return skip("go or golang-github-hashicorp-yamux-dev is not installed");
    }
    let d = Daemon::with(
        "max_streams_anonymous = 64\ncat stream tcp nowait @USER@ /bin/cat cat\nhello stream tcp nowait @USER@ /bin/echo echo hello\ngone stream tcp nowait @USER@ /bin/echo echo bye\n",
    )
    .start();
    let dir = d.place.path.display();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/yamux.go");
    sh(&format!(
        "GO111MODULE=off GOPATH={sources} GOCACHE={dir}/cache go build -o {dir}/yamux {source}"
    ));
    assert_eq!(sh(&format!("{dir}/yamux {}", d.address())), "ok\n");
    d.wait_log("reason=closed");
}

/// The daemon's own user, whom the rows name: who runs the tests.
fn me() -> String {
    nix::unistd::User::from_uid(nix::unistd::geteuid()).expect("passwd").expect("user").name
}

#[test]
fn git_daemon() {
    if !installed("git") {
        return skip("git is not installed");
    }
    let me = me();
    let d =
        Daemon::with(&format!("git stream tcp nowait {me} /usr/bin/env env git daemon --inetd --export-all --base-path=@DIR@\n")).start();
    let dir = d.place.path.display();
    sh(&format!(
        "git init -q {dir}/repo && cd {dir}/repo && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m one && head -c 300000 /dev/urandom >blob && git add blob && git -c user.name=a -c user.email=a@b commit -qm two"
    ));
    let head = sh(&format!("git -C {dir}/repo rev-parse HEAD"));
    for (i, port) in ways(&d, "git").into_iter().enumerate() {
        sh(&format!("git clone -q git://127.0.0.1:{port}/repo {dir}/clone{i}"));
        assert_eq!(sh(&format!("git -C {dir}/clone{i} rev-parse HEAD")), head);
    }
}

#[test]
fn sshd() {
    if !(root() && Path::new("/usr/sbin/sshd").exists() && installed("ssh")) {
        return skip("needs root, /usr/sbin/sshd and ssh");
    }
    let conf =
        "ssh stream tcp nowait root /usr/sbin/sshd sshd -i -f @DIR@/sshd_config\n stderr = log\n";
    let d = Daemon::with(conf)
        .file(
            "sshd_config",
            "HostKey @DIR@/host\nAuthorizedKeysFile @DIR@/user.pub\nStrictModes no\nPidFile none\nUsePAM no\nPermitRootLogin yes\n",
        )
        .start();
    let dir = d.place.path.display();
    sh(&format!(
        "mkdir -p /run/sshd; ssh-keygen -q -t ed25519 -N '' -f {dir}/host; ssh-keygen -q -t ed25519 -N '' -f {dir}/user"
    ));
    for port in ways(&d, "ssh") {
        let printed = sh(&format!(
            "ssh -q -F none -p {port} -i {dir}/user -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o BatchMode=yes root@127.0.0.1 'echo through; head -c 2000000 /dev/zero | wc -c'"
        ));
        assert_eq!(printed.split_whitespace().collect::<Vec<_>>(), ["through", "2000000"]);
    }
}

#[test]
fn rsync_daemon() {
    if !installed("rsync") {
        return skip("rsync is not installed");
    }
    let me = me();
    let d =
        Daemon::with(&format!("rsync stream tcp nowait {me} /usr/bin/rsync rsync --daemon --config=@DIR@/rsyncd.conf\n stderr = null\n"))
            .file("rsyncd.conf", "use chroot = no\nreverse lookup = no\n[files]\npath = @DIR@/files\n")
            .start();
    let dir = d.place.path.display();
    sh(&format!("mkdir {dir}/files && head -c 1000000 /dev/urandom >{dir}/files/a"));
    for (i, port) in ways(&d, "rsync").into_iter().enumerate() {
        sh(&format!(
            "rsync -q rsync://127.0.0.1:{port}/files/a {dir}/got{i} && cmp {dir}/files/a {dir}/got{i}"
        ));
    }
}

#[test]
fn svnserve() {
    if !(installed("svnserve") && installed("svnadmin")) {
        return skip("subversion is not installed");
    }
    let me = me();
    let d = Daemon::with(&format!(
        "svn stream tcp nowait {me} /usr/bin/svnserve svnserve -i -r @DIR@/svn\n stderr = null\n"
    ))
    .start();
    let dir = d.place.path.display();
    sh(&format!(
        "mkdir {dir}/svn && svnadmin create {dir}/svn/r && echo hello >{dir}/f && svn import -q --force-log -m x {dir}/f file://{dir}/svn/r/f"
    ));
    for port in ways(&d, "svn") {
        assert_eq!(sh(&format!("svn --non-interactive cat svn://127.0.0.1:{port}/r/f")), "hello\n");
    }
}

#[test]
fn busybox_httpd() {
    if !(installed("busybox") && installed("curl")) {
        return skip("busybox or curl is not installed");
    }
    let Ok(busybox) = std::fs::canonicalize("/bin/busybox")
        .or_else(|_| std::fs::canonicalize("/usr/bin/busybox"))
    else {
        return skip("busybox is elsewhere");
    };
    let d = Daemon::with(&format!(
        "http stream tcp nowait @USER@ {} httpd -i -h @DIR@/www\n stderr = null\n",
        busybox.display()
    ))
    .start();
    d.place.write("www/page", "a page\n", 0o644);
    for port in ways(&d, "http") {
        assert_eq!(sh(&format!("curl -sS http://127.0.0.1:{port}/page")), "a page\n");
    }
}
