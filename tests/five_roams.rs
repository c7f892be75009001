//! five on a computer that moves: two computers, as network namespaces with a link between them.
//! The client's address changes, its link goes down, and what is between the two forgets the
//! connection; ssh, rsync, psql and idle streams go on.
//!
//! In `make test` the link is down for a few seconds, rsync copies less, and fewer streams are idle.

#[path = "support/computers.rs"]
mod computers;
#[path = "support/cutter.rs"]
mod cutter;
#[path = "support/dialogue.rs"]
mod dialogue;
mod support;

use computers::{Link, sh};
use cutter::{Cut, Cutter};
use dialogue::Dialogue;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use support::five::{finish, piped};
use support::{Daemon, Five, installed, skip, trial, trial_size, until, until_listened_at};

const CONF: &str = "
max_streams_anonymous = 100
resume_timeout_anonymous = 600
cat    stream tcp nowait @USER@ /bin/cat cat
ssh    stream tcp nowait root /usr/sbin/sshd sshd -i -f @DIR@/sshd_config
rsync  stream tcp nowait root /usr/bin/rsync rsync --daemon --config=@DIR@/rsyncd.conf
pg     stream tcp nowait @USER@ redirect @DIR@/pg/.s.PGSQL.5432
";
const SSHD: &str = "HostKey @DIR@/host\nAuthorizedKeysFile @DIR@/user.pub\nStrictModes no\nPidFile none\nUsePAM no\nPermitRootLogin yes\n";
const RSYNCD: &str = "use chroot = no\nreverse lookup = no\n[module]\npath = @DIR@/module\n";
/// The server's address on the link.
const H: &str = "10.78.0.1";

/// How much of everything there is.
struct Size {
    /// How long the link is down: longer than an answer may take.
    down: Duration,
    streams: usize,
    /// How many MiB rsync copies, and how many in a second at most.
    mebibytes: (u32, u32),
}

fn size() -> Size {
    let seconds = trial_size("roams", 7, 60);
    let down = Duration::from_secs(seconds as u64);
    match seconds {
        60.. => Size { down, streams: 100, mebibytes: (1024, 30) },
        _ => Size { down, streams: 30, mebibytes: (40, 4) },
    }
}

/// What these tests do with the two computers.
trait Roams {
    fn daemon(&self) -> Daemon;
    fn router(&self, d: &Daemon) -> Cutter;
    fn five_line(&self, f: &Five) -> String;
    fn state(&self, f: &Five) -> String;
    fn address_changes(&self);
    fn goes_down_and_comes_back(&self);
}

impl Roams for Link {
    fn daemon(&self) -> Daemon {
        self.serve(
            Daemon::with(CONF)
                .listen(&format!("{H}:0"))
                .file("sshd_config", SSHD)
                .file("rsyncd.conf", RSYNCD)
                .file("pg/made", ""),
        )
    }

    /// A router before the server that can forget connections.
    fn router(&self, d: &Daemon) -> Cutter {
        let (name, to) = (format!("/run/netns/{}", self.server), d.address());
        // The thread stays there, and so do the threads that it starts.
        std::thread::spawn(move || {
            let there = std::fs::File::open(name).expect("namespace");
            nix::sched::setns(there.as_fd(), nix::sched::CloneFlags::CLONE_NEWNET).expect("setns");
            Cutter::at(&format!("{H}:0"), to)
        })
        .join()
        .expect("a router")
    }

    /// The command line that calls a service of the server.
    fn five_line(&self, f: &Five) -> String {
        let five = env!("CARGO_BIN_EXE_five");
        format!("{} {five} --accept-new -q -p {} {H}", self.calls().join(" "), f.port())
    }

    /// The state of the session.
    fn state(&self, f: &Five) -> String {
        let (code, out, _) = finish(self.five(f, &["-q", "-O", "check", H]), b"");
        let state = out.split_whitespace().find_map(|w| w.strip_prefix("state="));
        format!("{code} {}", state.unwrap_or_default())
    }

    fn address_changes(&self) {
        let c = format!("ip -n {} addr", self.client);
        sh(&format!("{c} del 10.78.0.2/24 dev eth0; {c} add 10.78.0.3/24 dev eth0"));
    }

    fn goes_down_and_comes_back(&self) {
        self.set(&self.client, "down");
        std::thread::sleep(size().down);
        self.set(&self.client, "up");
    }
}

/// Each of these happens to the client, and everything goes on.
fn moves(l: &Link, f: &Five, router: &Cutter, what: &str, mut all: impl FnMut(&str)) {
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
    let seconds = size().down.as_secs();
    trial(
        "roams",
        format!("{what}: another address, {seconds} s without a link, a router forgets"),
    );
}

#[test]
fn idle_streams_go_on() {
    let Some(l) = Link::new("10.78.0") else { return };
    let d = l.daemon();
    let router = l.router(&d);
    let f = Five::at(&d.place, router.address);
    let mut all: Vec<Dialogue> = Vec::new();
    for n in 0..size().streams {
        let mut dialogue = Dialogue::new(l.five(&f, &["-q", H, "cat"]));
        dialogue.echo(&n.to_string());
        all.push(dialogue);
    }
    moves(&l, &f, &router, &format!("{} idle streams", all.len()), |what| {
        all.iter_mut().for_each(|dialogue| dialogue.send(what));
        all.iter_mut().for_each(|dialogue| dialogue.expect(what));
    });
    // When the link is back, the old connection may answer before another one is made.
    d.wait_logs("RESUME session=", 2);
}

/// Before anybody has given up the old connection: TCP alone would wait for seconds.
#[test]
fn a_link_that_comes_back_is_used_at_once() {
    let Some(l) = Link::new("10.78.0") else { return };
    let d = l.daemon();
    let f = Five::at(&d.place, d.address());
    let mut dialogue = Dialogue::new(l.five(&f, &["-q", H, "cat"]));
    dialogue.echo("ready");
    l.set(&l.client, "down");
    dialogue.send("while it is away");
    std::thread::sleep(Duration::from_secs(3));
    l.set(&l.client, "up");
    dialogue.expect("while it is away");
    d.wait_logs("RESUME session=", 1);
}

#[test]
fn ssh_goes_on() {
    let Some(l) = Link::new("10.78.0") else { return };
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
        .args(["-o", &format!("ProxyCommand={} ssh", l.five_line(&f)), "root@there", "cat"]);
    let mut ssh = Dialogue::new(piped(&mut c));
    ssh.echo("it is ssh");
    moves(&l, &f, &router, "ssh", |what| ssh.echo(what));
}

#[test]
fn rsync_goes_on() {
    let Some(l) = Link::new("10.78.0") else { return };
    if !installed("rsync") {
        return skip("needs rsync");
    }
    let d = l.daemon();
    std::fs::create_dir_all(d.place.at("module")).expect("module");
    let (all, each) = size().mebibytes;
    sh(&format!("head -c {all}M /dev/urandom >{}", d.place.at("module/file")));
    let router = l.router(&d);
    let f = Five::at(&d.place, router.address);
    let mut c = f.program("rsync");
    c.env("RSYNC_CONNECT_PROG", format!("{} rsync", l.five_line(&f)));
    c.args(["-a", &format!("--bwlimit={each}m"), "rsync://there/module/", &d.place.at("copy")]);
    let rsync = piped(&mut c);
    // Before the first file, rsync itself gives up after a minute.
    let copied = || std::fs::read_dir(d.place.at("copy")).into_iter().flatten().count() > 0;
    until("rsync's first bytes", copied);
    moves(&l, &f, &router, &format!("rsync of {all} MiB"), |_| {});
    // 1 GiB takes longer than others are waited for.
    let done = rsync.wait_with_output().expect("rsync");
    assert!(done.status.success() && done.stdout.is_empty() && done.stderr.is_empty(), "{done:?}");
    sh(&format!("cmp {} {}", d.place.at("module/file"), d.place.at("copy/file")));
}

#[test]
fn a_transaction_of_psql_goes_on() {
    let Some(l) = Link::new("10.78.0") else { return };
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
        d.place.at("local")
    ));
    let mut c = Command::new("sh");
    let options = format!("-D {home}/data -k {home} -h '' -F");
    c.args(["-c", &format!("cd /; exec {nobody} {bin}/postgres {options} 2>/dev/null")]);
    let server = Dialogue::new(piped(&mut c));
    until("PostgreSQL's socket", || Path::new(&format!("{home}/.s.PGSQL.5432")).exists());
    let router = l.router(&d);
    let f = Five::at(&d.place, router.address);
    let local = format!("{}/.s.PGSQL.5432", d.place.at("local"));
    let forward = Dialogue::new(l.five(&f, &["-q", "-N", "-L", &format!("{local}:pg"), H]));
    until_listened_at(&local);
    let psql = || {
        let mut c = f.program("psql");
        c.args(["-X", "-A", "-t", "-q", "-h", &d.place.at("local"), "-U", "alice"]);
        c.args(["-d", "postgres"]);
        c
    };
    // It says no for a while after it listens.
    until("PostgreSQL serves", || {
        psql().args(["-c", "select 1"]).output().expect("psql").stdout == b"1\n"
    });
    let mut psql = Dialogue::new(piped(&mut psql()));
    let ask = |psql: &mut Dialogue, sql: &str, answer: &str| {
        psql.send(sql);
        psql.expect(answer);
    };
    ask(&mut psql, "begin; create table t (n int); insert into t values (1); select 1;", "1");
    let mut n = 1;
    moves(&l, &f, &router, "psql", |_| {
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
    sh(&format!("kill {}", server.child.id()));
}
