//! Every process that fived starts: its own ones have no right that they do not need, and services
//! get nothing of fived's, nor of whoever started fived, but what the manual says. All is seen from
//! outside, in /proc, while clients come and go.

mod support;
#[path = "support/tls.rs"]
mod tls;
#[path = "support/yamux_raw.rs"]
mod yamux_raw;

use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use support::*;

const CONF: &str = "
checkpassword = @DIR@/check
cps = UNLIMITED
max_sessions_per_source = 1000
max_services_per_source = 1000
max_streams_anonymous = 100
echo stream tcp nowait nobody internal
cat  stream tcp nowait nobody /bin/cat cat
tty  stream tcp nowait nobody /bin/cat cat
 pty = yes
show stream tcp nowait nobody /bin/cat cat /proc/self/stat -
";
const NONE: &str = "0000000000000000";

/// What must be so of a process of fived's own: of /proc/PID/status, and of its descriptors.
struct Role {
    argv0: &'static str,
    status: &'static [(&'static str, &'static str)],
    /// Its root is an empty directory, its network too, and it leaves no core.
    apart: bool,
    /// What its descriptors from 3 on may be.
    descriptors: &'static [&'static str],
    most: usize,
}

/// Of a process that has given up all rights.
const NO_RIGHTS: [(&str, &str); 8] = [
    ("Groups", ""),
    ("CapInh", NONE),
    ("CapPrm", NONE),
    ("CapEff", NONE),
    ("CapBnd", NONE),
    ("CapAmb", NONE),
    ("NoNewPrivs", "1"),
    ("Seccomp", "2"),
];

const ROLES: [Role; 5] = [
    Role {
        argv0: "fived-net",
        status: &NO_RIGHTS,
        apart: true,
        descriptors: &["socket:", "anon_inode:[event", "/memfd:fived (deleted)", "pipe:"],
        most: 1000,
    },
    Role {
        argv0: "fived-keys",
        status: &NO_RIGHTS,
        apart: true,
        descriptors: &["socket:"],
        most: 4,
    },
    Role {
        argv0: "fived-login",
        status: &[("CapInh", NONE), ("CapAmb", NONE), ("Seccomp", "2")],
        apart: false,
        descriptors: &["socket:", "anon_inode:[pidfd]", "/dev/null"],
        most: 16,
    },
    Role {
        argv0: "fived-terminal",
        status: &NO_RIGHTS,
        apart: false,
        descriptors: &["socket:", "/dev/pts/ptmx", "/dev/ptmx"],
        most: 6,
    },
    Role {
        argv0: "fived-service",
        status: &[
            ("Uid", "65534 65534 65534 65534"),
            ("Groups", "65534"),
            ("CapInh", NONE),
            ("CapPrm", NONE),
            ("CapEff", NONE),
            ("CapAmb", NONE),
        ],
        apart: false,
        descriptors: &[],
        most: 3,
    },
];

/// What is wrong with a process of fived's. None: it is gone.
fn wrong(role: &Role, pid: i32) -> Option<Vec<String>> {
    let own = std::process::id() as i32;
    let mut all = Vec::new();
    for (field, wanted) in role.status {
        let found = proc::try_status(pid, field)?;
        if found != *wanted {
            all.push(format!("{field}: {found}"));
        }
    }
    let open = proc::try_descriptors(pid)?;
    let strange =
        |d: &&(i32, String)| d.0 > 2 && !role.descriptors.iter().any(|may| d.1.starts_with(may));
    all.extend(open.iter().filter(strange).map(|d| format!("{d:?}")));
    if open.len() > role.most {
        all.push(format!("{open:?}"));
    }
    if role.apart {
        let mut root = std::fs::read_dir(format!("/proc/{pid}/root/")).ok()?;
        let network = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
        let core = limits.lines().find(|l| l.starts_with("Max core file size"))?.to_string();
        all.extend(root.next().map(|file| format!("{file:?}")));
        all.extend((network(pid)? == network(own)?).then(|| "this computer's network".into()));
        let root = role.argv0 == "fived-net" && proc::try_status(pid, "Uid")?.starts_with("0 ");
        all.extend(root.then(|| "root".into()));
        all.extend((core.split_whitespace().nth(5) != Some("0")).then_some(core));
    }
    Some(all)
}

#[test]
fn no_process_of_fived_has_a_right_that_it_does_not_need() {
    if !root() {
        return skip("needs root");
    }
    let rounds = trial_size("census", 5, 500);
    let check = "#!/bin/sh\ncat <&3 >/dev/null\nsleep 0.1\nexit 1\n";
    let d = Daemon::with(CONF).file("check", check).start();
    let (over, next, looks) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let mut seen = BTreeMap::<&str, usize>::new();
    std::thread::scope(|s| {
        for kind in 0..5 {
            let (d, over, next, looks) = (&d, &over, &next, &looks);
            s.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    // A look that has begun may have missed the client's processes: the next one.
                    let enough = looks.load(Ordering::Relaxed) + 2;
                    let looked =
                        || looks.load(Ordering::Relaxed) >= enough || over.load(Ordering::Relaxed);
                    live(d, kind, next.fetch_add(1, Ordering::Relaxed), looked);
                }
            });
        }
        let looked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..rounds {
                look(&d, &mut seen);
                looks.fetch_add(1, Ordering::Relaxed);
                d.signal(Signal::SIGHUP);
            }
            until("each role was seen", || {
                look(&d, &mut seen);
                looks.fetch_add(1, Ordering::Relaxed);
                seen.len() == ROLES.len()
            });
        }));
        over.store(true, Ordering::Relaxed);
        looked.unwrap_or_else(|why| std::panic::resume_unwind(why));
    });
    trial("census", format!("{rounds} rounds, processes looked at: {seen:?}"));
}

/// Looks at everybody.
fn look(d: &Daemon, seen: &mut BTreeMap<&str, usize>) {
    for pid in proc::descendants(d.parent_pid()) {
        let argv0 = proc::arguments(pid).into_iter().next();
        let Some(role) = ROLES.iter().find(|r| argv0.as_deref() == Some(r.argv0)) else { continue };
        // One that has just been started may not have given up all of it yet.
        let end = std::time::Instant::now() + TIMEOUT;
        while let Some(more) = wrong(role, pid).filter(|all| !all.is_empty()) {
            assert!(std::time::Instant::now() < end, "{}: {more:#?}", role.argv0);
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        *seen.entry(role.argv0).or_default() += 1;
    }
}

/// A client, for a while; one whose service lives as long as the client does: until somebody has
/// looked.
fn live(d: &Daemon, kind: usize, n: usize, looked: impl Fn() -> bool) {
    match kind {
        0 => {
            let mut c = d.connect();
            c.send("echo\r\nx").expect("+Go\r\nx");
            while !looked() {
                c.silent(20);
            }
        }
        3 => {
            let mut c = d.connect();
            c.send("RUN\r\ntty pty xterm 24 80\r\n").expect("+ Success\r\n+Go\r\n");
            while !looked() {
                c.silent(20);
            }
        }
        1 => {
            let mut t = tls::Tls::start(d.connect().0, "nobody.example");
            t.send(b"cat\r\nx");
            t.expect(b"+Go\r\nx");
        }
        // A failure's penalty is its source's.
        2 => {
            let from = format!("127.{}.{}.1", 1 + n / 200 % 200, n % 200);
            d.connect_from(&from).try_send(b"AUTH\r\nx\r\ny\r\n").half_close().read_any();
        }
        _ => {
            let mut c = d.connect();
            c.send("MULTIPLEX\r\n").expect("+ Success\r\n");
            let mut r = yamux_raw::Raw(c.0);
            let sent = yamux_raw::header(yamux_raw::DATA, yamux_raw::SYN | yamux_raw::FIN, 1, 5);
            // A reload may take the session's place.
            let _ = std::io::Write::write_all(&mut r.0, &[&sent[..], b"cat\r\n"].concat());
            while let Ok(Some(f)) = r.try_next() {
                if f.stream == 1 && f.flags & (yamux_raw::FIN | yamux_raw::RST) != 0 {
                    break;
                }
            }
        }
    }
}

/// Whoever starts fived has descriptors open that are not closed by exec, every signal blocked and
/// most of them ignored, a directory and a umask of its own.
const STARTER: &str = r#"
$^F = 1000;
for (1 .. 30) { open my $f, "<", "/etc/passwd"; push @all, $f }
umask 0; chdir "/tmp"; $ENV{FIVED_TEST_LEAK} = 1;
$SIG{$_} = "IGNORE" for qw(HUP INT QUIT PIPE CHLD USR1 USR2 ALRM TSTP TTIN TTOU);
sigprocmask(SIG_BLOCK, POSIX::SigSet->new(1 .. 31));
exec @ARGV"#;

const VARIABLES: [&str; 21] = [
    "PATH",
    "PROTO",
    "TCPLOCALIP",
    "TCPLOCALPORT",
    "TCPREMOTEIP",
    "TCPREMOTEPORT",
    "REMOTE_ADDR",
    "REMOTE_PORT",
    "REMOTE_HOST",
    "FIVED_SERVICE",
    "FIVED_HOST",
    "FIVED_SESSION",
    "FIVED_STREAM",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "SSL_PROTOCOL",
    "SSL_CIPHER",
    "SSL_TLS_SNI_SERVERNAME",
    "FIVED_RUN",
];

/// What a service has that is not its own, or that is not as `fived` has it from its starter.
fn unclean(pid: i32, fived: i32) -> Vec<String> {
    let mut all = Vec::new();
    let mut expect = |what: &str, wanted: &str, found: String| {
        if found != wanted {
            all.push(format!("{what}: {found}"));
        }
    };
    let open = proc::descriptors(pid);
    // The fourth is the file that it reads its own number from, until it has.
    let numbers: Vec<i32> =
        open.iter().filter(|d| d.1 != format!("/proc/{pid}/stat")).map(|d| d.0).collect();
    expect("descriptors", "[0, 1, 2]", format!("{numbers:?}"));
    for set in ["SigBlk", "SigIgn", "SigCgt", "CapInh", "CapPrm", "CapEff", "CapAmb"] {
        expect(set, NONE, proc::status(pid, set));
    }
    expect("Uid", "65534 65534 65534 65534", proc::status(pid, "Uid"));
    expect("Groups", "65534", proc::status(pid, "Groups"));
    expect("Umask", "0022", proc::status(pid, "Umask"));
    expect("NoNewPrivs", "0", proc::status(pid, "NoNewPrivs"));
    expect("Seccomp", "0", proc::status(pid, "Seccomp"));
    expect("cwd", "/", proc::link(pid, "cwd"));
    expect("root", "/", proc::link(pid, "root"));
    for ns in ["net", "mnt", "pid", "ipc", "uts", "user", "cgroup"] {
        let name = format!("ns/{ns}");
        // The parent enters another network for a moment, to connect there.
        expect(&name, &proc::link(std::process::id() as i32, &name), proc::link(pid, &name));
    }
    let limits = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/limits")).expect("limits");
    expect("nofile", "300 4000", {
        let (soft, hard) = proc::limit(pid, "Max open files");
        format!("{soft} {hard}")
    });
    let rest = |pid: i32| {
        let text = limits(pid);
        let lines = text.lines().filter(|l| !l.starts_with("Max open files"));
        lines.map(str::trim_end).collect::<Vec<_>>().join("\n")
    };
    expect("limits", &rest(fived), rest(pid));
    let own = |pid: i32, file: &str| {
        std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default()
    };
    for file in ["oom_score_adj", "cgroup", "coredump_filter", "personality"] {
        expect(file, &own(fived, file), own(pid, file));
    }
    let strange = proc::environment(pid);
    let strange =
        strange.iter().filter(|v| !VARIABLES.contains(&v.split('=').next().unwrap_or("")));
    expect("environment", "[]", format!("{:?}", strange.collect::<Vec<_>>()));
    all
}

/// The number that the service `show` says first, whatever it is wrapped in.
fn number(mut c: impl Read) -> i32 {
    let mut all = Vec::new();
    let mut part = [0; 1000];
    loop {
        let text = String::from_utf8_lossy(&all);
        if let Some((before, _)) = text.split_once(" (cat)") {
            let digits = before.rsplit(|c: char| !c.is_ascii_digit()).next().expect("digits");
            return digits.parse().unwrap_or_else(|_| panic!("{text:?}"));
        }
        let n = c.read(&mut part).expect("more of it");
        assert!(n > 0, "{text:?}");
        all.extend_from_slice(&part[..n]);
    }
}

#[test]
fn a_service_gets_nothing_that_is_not_its_own() {
    if !root() || !installed("perl") || !installed("prlimit") {
        return skip("needs root, perl and prlimit");
    }
    let size = trial_size("children", 60, 3000);
    let conf = format!("log_on_success =\n{CONF} port = 127.0.0.1:0\n");
    let d = Daemon::with(&conf)
        .file("check", "#!/bin/sh\nexit 1\n")
        .under(&["prlimit", "--core=0:0", "--nofile=300:4000", "perl", "-MPOSIX", "-e", STARTER])
        .start();
    let port = d.port(0);
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|s| {
        for _ in 0..6 {
            s.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= size {
                        return;
                    }
                    let (way, unclean) = one(&d, port, n);
                    found
                        .lock()
                        .expect("list")
                        .extend(unclean.iter().map(|w| format!("{way}: {w}")));
                    if n % 100 == 50 {
                        d.signal(Signal::SIGHUP);
                    }
                }
            });
        }
    });
    let found = found.into_inner().expect("list");
    assert!(found.is_empty(), "{found:#?}");
    trial("children", format!("{size} services by 5 ways, each with nothing that is not its own"));
}

/// Starts a service in one of the ways, and looks at it while it runs.
fn one(d: &Daemon, port: SocketAddr, n: usize) -> (&'static str, Vec<String>) {
    let look = |pid| unclean(pid, d.parent_pid());
    match n % 5 {
        0 => {
            let mut c = d.connect();
            c.send("show\r\n");
            ("plain", look(number(&mut c.0)))
        }
        1 => {
            let mut t = tls::Tls::start(d.connect().0, "nobody.example");
            t.send(b"show\r\n");
            ("TLS", look(number(&mut t.0)))
        }
        2 => {
            let mut c = d.connect();
            c.send("MULTIPLEX\r\n").expect("+ Success\r\n");
            let mut r = yamux_raw::Raw(c.0);
            r.data(yamux_raw::SYN, 1, "show\r\n");
            ("stream", look(number(&mut r.0)))
        }
        3 => {
            let mut c = d.connect();
            c.send("RUN\r\nshow\r\n");
            ("RUN", look(number(&mut c.0)))
        }
        _ => ("port", look(number(&mut Client::connect(port).0))),
    }
}
