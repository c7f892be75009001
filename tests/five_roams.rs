//! five on a computer that moves: two computers, as network namespaces with a link between them.
//! The client's address changes, its link goes down, and what is between the two forgets the
//! connection; ssh, rsync, psql and idle streams go on.

#[path = "support/cutter.rs"]
mod cutter;
mod support;

use cutter::{Cut, Cutter};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use support::five::finish;
use support::{Daemon, Five, installed, root, skip, until};

const CONF: &str = "
max_streams_anonymous = 100
cat    stream tcp nowait @USER@ /bin/cat cat
ssh    stream tcp nowait root /usr/sbin/sshd sshd -i -f @DIR@/sshd_config
rsync  stream tcp nowait root /usr/bin/rsync rsync --daemon --config=@DIR@/rsyncd.conf
pg     stream tcp nowait @USER@ redirect @DIR@/pg/.s.PGSQL.5432
";
const SSHD: &str = "HostKey @DIR@/host\nAuthorizedKeysFile @DIR@/user.pub\nStrictModes no\nPidFile none\nUsePAM no\nPermitRootLogin yes\n";
const RSYNCD: &str = "use chroot = no\nreverse lookup = no\n[module]\npath = @DIR@/module\n";
/// The server's address on the link.
const H: &str = "10.78.0.1";
/// How long the link is down: longer than an answer may take.
const DOWN: Duration = Duration::from_secs(7);

#[track_caller]
fn sh(script: &str) {
    let out = Command::new("sh").args(["-ec", script]).output().expect("sh");
    assert!(out.status.success(), "{script}\n{}", String::from_utf8_lossy(&out.stderr));
}

/// Two computers: `{name}s` serves, `{name}c` calls and moves.
struct Link(String);

impl Link {
    /// None: not here.
    fn new() -> Option<Link> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !(root() && installed("ip")) {
            skip("needs root and ip");
            return None;
        }
        let name = format!("fvr{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let link = Link(name.clone());
        sh(&format!(
            "ip netns add {name}s; ip netns add {name}c
             ip -n {name}s link add eth0 type veth peer name eth0 netns {name}c
             ip -n {name}s addr add {H}/24 dev eth0; ip -n {name}c addr add 10.78.0.2/24 dev eth0
             for n in {name}s {name}c; do ip -n $n link set lo up; ip -n $n link set eth0 up; done"
        ));
        Some(link)
    }

    fn daemon(&self) -> Daemon {
        let d = Daemon::with(CONF)
            .listen(&format!("{H}:0"))
            .file("sshd_config", SSHD)
            .file("rsyncd.conf", RSYNCD)
            .file("pg/made", "");
        d.under(&["ip", "netns", "exec", &format!("{}s", self.0)]).start()
    }

    /// A router before the server that can forget connections.
    fn router(&self, d: &Daemon) -> Cutter {
        let (name, to) = (format!("/run/netns/{}s", self.0), d.address());
        // The thread stays there, and so do the threads that it starts.
        std::thread::spawn(move || {
            let there = std::fs::File::open(name).expect("namespace");
            nix::sched::setns(there.as_fd(), nix::sched::CloneFlags::CLONE_NEWNET).expect("setns");
            Cutter::at(&format!("{H}:0"), to)
        })
        .join()
        .expect("a router")
    }

    /// What puts a command onto the computer that moves.
    fn there(&self, f: &Five) -> String {
        let five = env!("CARGO_BIN_EXE_five");
        format!("ip netns exec {}c setsid -w {five} --accept-new -q -p {}", self.0, f.port())
    }

    /// five on that computer.
    fn five(&self, f: &Five, words: &[&str]) -> Child {
        let mut c = f.program("sh");
        c.args(["-c", &format!("exec {} \"$@\"", self.there(f)), "sh"]).args(words);
        piped(&mut c)
    }

    /// The state of the session.
    fn state(&self, f: &Five) -> String {
        let (code, out, _) = finish(self.five(f, &["-O", "check", H]), b"");
        let state = out.split_whitespace().find_map(|w| w.strip_prefix("state="));
        format!("{code} {}", state.unwrap_or_default())
    }

    fn address_changes(&self) {
        let c = format!("ip -n {}c addr", self.0);
        sh(&format!("{c} del 10.78.0.2/24 dev eth0; {c} add 10.78.0.3/24 dev eth0"));
    }

    fn goes_down_and_comes_back(&self) {
        sh(&format!("ip -n {}c link set eth0 down", self.0));
        std::thread::sleep(DOWN);
        sh(&format!("ip -n {}c link set eth0 up", self.0));
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let _ = Command::new("sh")
            .args(["-c", &format!("ip netns del {0}s; ip netns del {0}c", self.0)])
            .status();
    }
}

fn piped(c: &mut Command) -> Child {
    c.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts")
}

/// A program that answers each line with one.
struct Talk(Child, BufReader<ChildStdout>);

impl Talk {
    fn new(mut child: Child) -> Talk {
        let out = BufReader::new(child.stdout.take().expect("piped"));
        Talk(child, out)
    }

    fn tells(&mut self, text: &str) {
        let line = format!("{text}\n");
        self.0.stdin.as_mut().expect("piped").write_all(line.as_bytes()).expect("written");
    }

    #[track_caller]
    fn hears(&mut self, text: &str) {
        let mut line = String::new();
        self.1.read_line(&mut line).expect("a line");
        if line != format!("{text}\n") {
            let _ = self.0.kill();
            let mut err = String::new();
            let _ = self.0.stderr.take().map(|mut e| e.read_to_string(&mut err));
            panic!("{line:?} is not {text:?}: {err}");
        }
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

/// Each of these happens to the client, and everything goes on.
fn moves(l: &Link, f: &Five, router: &Cutter, mut all: impl FnMut(&str)) {
    let up = |when: &str| {
        until(when, || l.state(f) == "0 up");
    };
    l.address_changes();
    all("another address");
    up("it is resumed from another address");
    l.goes_down_and_comes_back();
    all("the link is back");
    up("it is resumed when the link is back");
    router.cut(Cut::Stall);
    all("a router has forgotten it");
    up("it is resumed after a router has forgotten it");
}

#[test]
fn idle_streams_go_on() {
    let Some(l) = Link::new() else { return };
    let d = l.daemon();
    let router = l.router(&d);
    let f = Five::at(&d.place, router.address);
    let mut all: Vec<Talk> = Vec::new();
    for n in 0..30 {
        let mut talk = Talk::new(l.five(&f, &[H, "cat"]));
        talk.tells(&format!("{n}"));
        talk.hears(&format!("{n}"));
        all.push(talk);
    }
    moves(&l, &f, &router, |what| {
        all.iter_mut().for_each(|talk| talk.tells(what));
        all.iter_mut().for_each(|talk| talk.hears(what));
    });
    assert!(d.log().matches("RESUME session=").count() >= 3, "{}", d.log());
}

#[test]
fn ssh_goes_on() {
    let Some(l) = Link::new() else { return };
    if !installed("ssh") || !Path::new("/usr/sbin/sshd").exists() {
        return skip("needs ssh and sshd");
    }
    let d = l.daemon();
    let keys = "ssh-keygen -q -t ed25519 -N '' -f";
    let at = d.place.path.display();
    sh(&format!("mkdir -p /run/sshd; {keys} {at}/host; {keys} {at}/user"));
    let router = l.router(&d);
    let f = Five::at(&d.place, router.address);
    let mut c = f.program("ssh");
    c.args(["-q", "-F", "none", "-i", &d.place.at("user"), "-o", "BatchMode=yes"])
        .args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"])
        .args(["-o", &format!("ProxyCommand={} {H} ssh", l.there(&f)), "root@there", "cat"]);
    let mut ssh = Talk::new(piped(&mut c));
    ssh.tells("it is ssh");
    ssh.hears("it is ssh");
    moves(&l, &f, &router, |what| {
        ssh.tells(what);
        ssh.hears(what);
    });
}

#[test]
fn rsync_goes_on() {
    let Some(l) = Link::new() else { return };
    if !installed("rsync") {
        return skip("needs rsync");
    }
    let d = l.daemon();
    std::fs::create_dir_all(d.place.at("module")).expect("module");
    sh(&format!("head -c 40000000 /dev/urandom >{}", d.place.at("module/file")));
    let router = l.router(&d);
    let f = Five::at(&d.place, router.address);
    let mut c = f.program("rsync");
    c.env("RSYNC_CONNECT_PROG", format!("{} {H} rsync", l.there(&f)));
    c.args(["-a", "--bwlimit=4m", "rsync://there/module/", &d.place.at("copy")]);
    let rsync = piped(&mut c);
    d.wait_log("START service=rsync");
    moves(&l, &f, &router, |_| {});
    assert_eq!(finish(rsync, b""), (0, String::new(), String::new()));
    sh(&format!("cmp {} {}", d.place.at("module/file"), d.place.at("copy/file")));
}

#[test]
fn a_transaction_of_psql_goes_on() {
    let Some(l) = Link::new() else { return };
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut all = versions.map(|v| v.path().join("bin"));
    let Some(bin) = all.find(|b| b.join("initdb").exists()).filter(|_| installed("psql")) else {
        return skip("needs PostgreSQL and psql");
    };
    let d = l.daemon();
    let (bin, home) = (bin.display(), d.place.at("pg"));
    let nobody = "setpriv --reuid=nobody --regid=nogroup --clear-groups";
    sh(&format!(
        "chown nobody {home}; cd /
         {nobody} {bin}/initdb -D {home}/data -U alice -A trust --no-sync >/dev/null
         mkdir {}",
        d.place.at("near")
    ));
    let mut c = Command::new("sh");
    let options = format!("-D {home}/data -k {home} -h '' -F");
    c.args(["-c", &format!("cd /; exec {nobody} {bin}/postgres {options} 2>/dev/null")]);
    let server = Talk::new(piped(&mut c));
    until("PostgreSQL's socket", || Path::new(&format!("{home}/.s.PGSQL.5432")).exists());
    let router = l.router(&d);
    let f = Five::at(&d.place, router.address);
    let near = format!("{}/.s.PGSQL.5432", d.place.at("near"));
    let forward = Talk::new(l.five(&f, &["-N", "-L", &format!("{near}:pg"), H]));
    until("the forward", || Path::new(&near).exists());
    let mut c = f.program("psql");
    c.args(["-X", "-A", "-t", "-q", "-h", &d.place.at("near"), "-U", "alice", "-d", "postgres"]);
    let mut psql = Talk::new(piped(&mut c));
    let ask = |psql: &mut Talk, sql: &str, answer: &str| {
        psql.tells(sql);
        psql.hears(answer);
    };
    ask(&mut psql, "begin; create table t (n int); insert into t values (1); select 1;", "1");
    let mut n = 1;
    moves(&l, &f, &router, |_| {
        n += 1;
        ask(
            &mut psql,
            &format!("insert into t values ({n}); select count(*) from t;"),
            &n.to_string(),
        );
    });
    ask(&mut psql, "commit; select count(*) from t;", "4");
    // In this order: PostgreSQL is asked to end, and removes what it has in the system.
    drop((psql, forward));
    sh(&format!("kill {}", server.0.id()));
}
