//! DESIGN 1: the parent with its rights and no strangers' bytes, the net process with strangers'
//! bytes and no rights.

mod support;
use fived::wire::orders::{FromNet, Message};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::Read;
use std::process::Command;
use support::*;

const CONF: &str = "hello stream tcp nowait @USER@ /bin/echo echo hello\ncat stream tcp nowait @USER@ /bin/cat cat\n";
const HELLO: &str = "+Go\r\nhello\n";

fn kill_net(d: &Daemon) -> i32 {
    let net = d.net_pid();
    kill(Pid::from_raw(net), Signal::SIGKILL).expect("kill");
    net
}

#[test]
fn three_processes_and_the_parent_is_single_threaded() {
    let d = Daemon::with(CONF).start();
    same(d.ask("hello\r\n"), HELLO);
    let (net, keys) = (d.net_pid(), d.keys_pid());
    until("nothing else runs", || {
        let mut all = proc::children(d.parent_pid());
        all.retain(|p| ![net, keys].contains(p));
        all.is_empty()
    });
    until("nothing has to be reaped", || proc::threads(d.parent_pid()) == 1);
    assert_eq!(proc::arguments(net)[0], "fived-net");
}

#[test]
fn a_process_that_closes_for_it_ends_when_nobody_comes_any_more() {
    let row =
        "no stream unix nowait @USER@ /bin/echo echo no\n port = @DIR@/no\n no_access = unix:\n";
    let d = Daemon::with(&format!("{CONF}{row}")).start();
    // The second time is long before what is kept is looked through by the clock.
    for _ in 0..2 {
        let mut c = std::os::unix::net::UnixStream::connect(d.place.at("no")).expect("connect");
        assert_eq!(c.read(&mut [0]).expect("the end"), 0);
        assert_eq!(proc::closers(d.parent_pid()).len(), 1);
        until("it has ended", || proc::closers(d.parent_pid()).is_empty());
    }
}

/// However many sessions are busy, clients do not wait for their threads.
#[test]
fn the_loop_that_accepts_goes_before_the_threads_of_sessions() {
    if !root() {
        skip("needs root");
        return;
    }
    let d = Daemon::with(CONF).start();
    let mut c = d.connect();
    c.send("HOST\r\n").expect("+ Success\r\nWhich VHOST? ");
    let net = d.net_pid();
    let nice = |task: &str| {
        let text = read(&format!("/proc/{net}/task/{task}/stat"));
        let (_, rest) = text.rsplit_once(')').expect("stat");
        // Field 19 of proc(5).
        rest.split_whitespace().nth(16).expect("nice").parse::<i32>().expect("a number")
    };
    let tasks = std::fs::read_dir(format!("/proc/{net}/task")).expect("tasks");
    let others: Vec<i32> = tasks
        .map(|t| t.expect("task").file_name().into_string().expect("a number"))
        .filter(|t| *t != net.to_string())
        .map(|t| nice(&t))
        .collect();
    let usual = proc::stat(d.parent_pid()).expect("stat")[16].parse::<i32>().expect("a number");
    let first = if usual == 0 { -10 } else { usual };
    assert_eq!(nice(&net.to_string()), first);
    assert!(!others.is_empty() && others.iter().all(|n| *n == usual), "{others:?}");
}

#[test]
fn ps_names_each_process_by_what_it_is() {
    let d = Daemon::with("chargen stream tcp nowait @USER@ internal\n").start();
    let mut c = d.connect();
    c.send("chargen\r\n").expect("+Go\r\n");
    let comm = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/comm"));
    // The service's exec follows the reply.
    until("each has its name", || {
        let named = |pid: &i32| {
            let name = proc::arguments(*pid).first().cloned()?;
            comm(*pid).is_ok_and(|comm| comm.trim_end() == name).then_some(name)
        };
        let children = proc::children(d.parent_pid());
        let mut names: Vec<_> = children.iter().filter_map(named).collect();
        names.sort();
        names == ["fived-keys", "fived-net", "fived-service"] && names.len() == children.len()
    });
}

#[test]
fn net_has_a_user_of_its_own_and_no_rights() {
    if !root() {
        return skip("needs root");
    }
    let d = Daemon::with(CONF).start();
    let net = d.net_pid();
    let uid = net_uid(net);
    match nix::unistd::User::from_name("_fived").expect("passwd") {
        Some(user) => assert_eq!(uid, user.uid.as_raw()),
        None => {
            assert!((61184..=65519).contains(&uid), "{uid}");
            let account =
                nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)).expect("passwd");
            assert!(account.is_none(), "{account:?}");
            d.reload(CONF);
            until("another net", || d.nets().first().is_some_and(|pid| *pid != net));
            assert_eq!(net_uid(d.net_pid()), uid, "a reload does not change it");
        }
    }
    let net = d.net_pid();
    assert_eq!(proc::status(net, "Uid"), [&*uid.to_string(); 4].join(" "));
    assert_eq!(proc::status(net, "Groups"), "");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(proc::status(net, set), "0000000000000000", "{set}");
    }
}

/// The real uid of a process, which is not root any more.
fn net_uid(pid: i32) -> u32 {
    proc::status(pid, "Uid").split(' ').next().and_then(|n| n.parse().ok()).expect("a number")
}

#[test]
fn net_s_user_is_no_row_s() {
    if !root() {
        return skip("needs root");
    }
    let (code, err) = Daemon::with("user = daemon\nx stream tcp nowait daemon /bin/true\n").fails();
    assert_eq!(code, 1, "{err}");
    assert!(
        err.contains("fived.conf:2: user: expected a user that no row runs as, found \"daemon\""),
        "{err}"
    );
    // A row that names the very number that would be net's gets it, and net another.
    let d = Daemon::with(CONF).start();
    let uid = net_uid(d.net_pid());
    let d = Daemon::with(&format!("{CONF}x stream tcp nowait {uid} /bin/true\n")).start();
    assert_ne!(net_uid(d.net_pid()), uid);
}

#[test]
fn a_stopped_net_is_replaced() {
    let d = Daemon::with(CONF).start();
    let mut session = d.connect();
    session.send("MULTIPLEX\r\n").expect("+ Success\r\n");
    let net = d.net_pid();
    kill(Pid::from_raw(net), Signal::SIGSTOP).expect("kill");
    let mut early = d.connect();
    early.send("hello\r\n");
    same(early.read_all(), HELLO);
    d.wait_log(&format!("WARN net: pid {net} was stopped"));
    assert_ne!(d.net_pid(), net);
    same(session.read_all(), "");
}

/// Each wait of the net process's loop takes 15 s, as long as this runs.
fn hang(net: i32) -> std::process::Child {
    let wait = "epoll_wait,epoll_pwait,epoll_pwait2";
    let (trace, inject) = (format!("trace={wait}"), format!("inject={wait}:delay_enter=15s"));
    let net_pid = net.to_string();
    let words = ["-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject, "-p", &net_pid];
    let silent = std::process::Stdio::null;
    let strace =
        std::process::Command::new("strace").args(words).stdout(silent()).stderr(silent()).spawn();
    until("it is traced", || proc::traced(net));
    strace.expect("strace")
}

#[test]
fn a_net_whose_loop_hangs_is_replaced_when_somebody_waits() {
    if !installed("strace") {
        return skip("needs strace");
    }
    if !looks_into_net() {
        return;
    }
    let d = Daemon::with(CONF).start();
    let net = d.net_pid();
    let mut strace = hang(net);
    // The first may come before strace(1) holds it up.
    until("it has hung while somebody waited", || {
        same(d.ask("hello\r\n"), HELLO);
        d.log().contains(&format!("WARN net: pid {net} has not answered for"))
    });
    strace.kill().and_then(|()| strace.wait()).expect("kill");
    until("it is gone", || !proc::alive(net));
}

/// At a service's own port the parent accepts, and net relays.
#[test]
fn a_net_whose_loop_hangs_is_replaced_when_it_is_to_relay() {
    if !installed("strace") {
        return skip("needs strace");
    }
    if !looks_into_net() {
        return;
    }
    let hello = "hello stream tcp nowait @USER@ /bin/echo echo hello\n port = 127.0.0.1:0\n";
    let upstream = Daemon::with(hello).start();
    let [server] = upstream.ports();
    let row = format!("to stream tcp nowait @USER@ redirect {server}\n port = 127.0.0.1:0\n");
    let d = Daemon::with(&row).start();
    let [port] = d.ports();
    let net = d.net_pid();
    let mut strace = hang(net);
    // Those that come first may end the wait that had begun before.
    until("it has hung while somebody waited", || {
        // It waits until another net process is there, or is served.
        Client::connect(port).read_any();
        d.log().contains(&format!("WARN net: pid {net} has not answered for"))
    });
    strace.kill().and_then(|()| strace.wait()).expect("kill");
    until("another serves", || Client::connect(port).read_any() == b"hello\n");
}

#[test]
fn an_idle_net_is_not_asked() {
    let d = Daemon::with(CONF).arg("-dd").start();
    same(d.ask("hello\r\n"), HELLO);
    // On a slow machine it may have been asked while it was not idle.
    let asked = || d.log().matches("Pong").count();
    until("four seconds without a question", || {
        let before = asked();
        std::thread::sleep(std::time::Duration::from_secs(4));
        asked() == before
    });
}

#[test]
fn net_s_user_is_the_setting_s() {
    if !root() {
        return skip("needs root");
    }
    let d = Daemon::with(&format!("user = daemon\n{CONF}")).start();
    let uid =
        nix::unistd::User::from_name("daemon").expect("passwd").expect("daemon").uid.to_string();
    assert_eq!(proc::status(d.net_pid(), "Uid"), [&*uid; 4].join(" "));
    same(d.ask("hello\r\n"), HELLO);
    let (code, err) = Daemon::with(&format!("user = root\n{CONF}")).fails();
    assert_eq!(code, 1, "never root: {err}");
}

#[test]
fn net_is_filtered_and_leaves_no_core() {
    let d = Daemon::with(CONF).start();
    let net = d.net_pid();
    assert_eq!(proc::status(net, "Seccomp"), "2");
    assert_eq!(proc::status(net, "NoNewPrivs"), "1");
    assert_eq!(proc::limit(net, "Max core file size"), ("0".into(), "0".into()));
}

#[test]
fn net_s_root_is_empty() {
    if !looks_into_net() {
        return;
    }
    let d = Daemon::with(CONF).start();
    let net = d.net_pid();
    let seen: Vec<_> = std::fs::read_dir(format!("/proc/{net}/root/")).expect("its root").collect();
    assert!(seen.is_empty(), "{seen:?}");
    assert!(!std::path::Path::new(&format!("/proc/{net}/cwd/etc")).exists());
}

#[test]
fn net_has_an_empty_network_of_its_own() {
    if !looks_into_net() {
        return;
    }
    let d = Daemon::with(CONF).start();
    same(d.ask("hello\r\n"), HELLO);
    let net = d.net_pid();
    assert_ne!(proc::link(net, "ns/net"), proc::link(d.parent_pid(), "ns/net"));
    let routes = std::fs::read_to_string(format!("/proc/{net}/net/route")).expect("its routes");
    assert!(routes.lines().count() <= 1, "more than its heading: {routes}");
}

#[test]
fn net_has_none_of_the_parent_s_descriptors() {
    if !looks_into_net() {
        return;
    }
    let d = Daemon::with(CONF).start();
    same(d.ask("hello\r\n"), HELLO);
    let open = proc::descriptors(d.net_pid());
    let ours: Vec<String> = proc::descriptors(d.parent_pid())
        .into_iter()
        .filter(|(n, _)| *n == 2)
        .map(|(_, what)| what)
        .collect();
    assert!(
        ours.len() == 1 && !open.iter().any(|(_, what)| ours.contains(what)),
        "the log is not net's: {ours:?} {open:?}"
    );
    let files: Vec<_> = open
        .iter()
        .filter(|(n, what)| what.starts_with('/') && *n > 2 && !what.starts_with("/memfd:"))
        .collect();
    assert!(files.is_empty(), "{files:?}");
    assert!(open.len() < 16, "{open:?}");
}

/// What net is handed is a sealed file without a name, of which the parent keeps its end.
#[test]
fn net_is_given_what_it_decides_by_and_nothing_else() {
    let conf = "passwords = @DIR@/secret-passwords\nbanner_fail = @DIR@/words\n\
                a stream tcp nowait @USER@ /bin/sh sh -c 'echo secret-argument'\n env = KEY=secret-variable\n directory = /secret-directory\n\
                b stream tcp nowait @USER@ /bin/cat cat\n instances = 1\n users = secret-is-no-name\n";
    let d = Daemon::with(conf).file("words", "Call us.\n").file("secret-passwords", "").start();
    let told = |pid: i32| {
        let all =
            proc::descriptors(pid).into_iter().filter(|(_, what)| what.starts_with("/memfd:"));
        let texts = all
            .filter_map(|(n, _)| std::fs::read(format!("/proc/{pid}/fd/{n}")).ok())
            .map(|b| String::from_utf8_lossy(&b).into_owned());
        texts.filter(|t| t.contains("/table")).collect::<Vec<_>>()
    };
    let told = told(d.parent_pid());
    assert_eq!(told.len(), 1, "one configuration");
    for part in ["a stream tcp", "b stream tcp", "users = secret-is-no-name", "Call us.\n"] {
        assert!(told[0].contains(part), "{part}: {}", told[0]);
    }
    let text = told[0].replace("secret-is-no-name", "");
    assert!(
        !text.contains("secret") && !text.contains("/bin/") && !text.contains(&d.place.at("")),
        "{text}"
    );
    let environment = proc::environment(d.net_pid()).join("\n");
    assert!(!environment.contains(&d.place.at("")), "{environment}");
}

#[test]
fn a_killed_net_is_replaced_and_nobody_is_refused_meanwhile() {
    let d = Daemon::with(CONF).start();
    let mut running = d.connect();
    running.send("cat\r\nx").expect("+Go\r\nx");
    let kills = trial_size("nets", 3, 100);
    for _ in 0..kills {
        let old = kill_net(&d);
        // The listener is the parent's: whoever comes now waits for the next net.
        let mut early: Vec<Client> = Vec::new();
        until("it is gone", || !proc::alive(old));
        early.extend((0..20).map(|_| d.connect()));
        early.iter_mut().for_each(|c| {
            c.send("hello\r\n");
        });
        for mut c in early {
            same(c.read_all(), HELLO);
        }
        assert_ne!(d.net_pid(), old);
    }
    running.send("undisturbed").expect("undisturbed");
    d.wait_log("WARN net: pid");
    let came = 20 * kills;
    trial("nets", format!("{kills} killed, {came} clients came meanwhile, all of them served"));
}

#[test]
fn a_net_is_replaced_soon() {
    let d = Daemon::with(CONF).start();
    // 50 ms are meant; a machine under test is slow, and may be very slow for a moment.
    let soon = (0..4).any(|_| {
        let begun = std::time::Instant::now();
        kill_net(&d);
        until("it is replaced", || d.nets().len() == 1 && d.ask("hello\r\n") == HELLO.as_bytes());
        begun.elapsed().as_secs() < 5
    });
    assert!(soon, "{}", d.log());
}

#[test]
fn a_net_that_dies_again_and_again_is_still_replaced() {
    let d = Daemon::with(CONF).start();
    let began = std::time::Instant::now();
    for _ in 0..8 {
        let old = kill_net(&d);
        until("another", || d.nets().iter().any(|n| *n != old));
    }
    same(d.ask("hello\r\n"), HELLO);
    assert!(proc::ticks(d.parent_pid()) < 200, "it does not spin");
    // Four in ten seconds are replaced at once, each of the others after a second.
    assert!(began.elapsed().as_secs() >= 3, "{:?}", began.elapsed());
}

/// A reload starts a net process, too, but none has died.
#[test]
fn a_net_is_replaced_at_once_whatever_reloads_there_were() {
    let d = Daemon::with(CONF).start();
    // A machine may be slow for a moment.
    let at_once = |_| {
        (0..6).for_each(|_| drop(d.reload(CONF)));
        until("the last one serves alone", || d.nets().len() == 1);
        let began = std::time::Instant::now();
        kill_net(&d);
        same(d.ask("hello\r\n"), HELLO);
        began.elapsed().as_millis() < 950
    };
    assert!((0..4).any(at_once), "{}", d.log());
}

#[test]
fn an_ordinary_user_may_start_it() {
    let me = user();
    let d = Daemon::with(&format!(
        "hello stream tcp nowait {me} /bin/echo echo hello\necho stream tcp nowait {me} internal\n"
    ))
    .user(&me)
    .start();
    same(d.ask("hello\r\n"), HELLO);
    same(d.ask("echo\r\nx"), "+Go\r\nx");
    let (net, uid) = (
        d.net_pid(),
        nix::unistd::User::from_name(&me).expect("passwd").expect("user").uid.to_string(),
    );
    assert_eq!(proc::status(net, "Uid"), [&*uid; 4].join(" "));
    assert_eq!(proc::status(net, "NoNewPrivs"), "1");
    assert_eq!(proc::status(net, "Seccomp"), "2");
    assert_eq!(proc::status(net, "CapEff"), "0000000000000000");
}

#[test]
fn an_ordinary_user_has_no_row_of_another() {
    let (code, err) =
        Daemon::with("hello stream tcp nowait root /bin/echo echo hello\n").user("nobody").fails();
    let group = Daemon::with("hello stream tcp nowait nobody:daemon /bin/echo echo hello\n")
        .user("nobody")
        .fails();
    assert!(group.0 == 1 && group.1.contains(":2: daemon: "), "{}", group.1);
    assert_eq!(code, 1);
    assert!(err.contains("fived.conf:2: root: "), "{err}");
}

#[test]
fn what_ends_is_reaped() {
    let d = Daemon::with(CONF).start();
    let alone = || until("no zombies", || proc::children(d.parent_pid()).len() == 2);
    let open = || if root() { proc::descriptors(d.parent_pid()).len() } else { 0 };
    same(d.ask("hello\r\n"), HELLO);
    d.wait_logs("EXIT service=hello", 1);
    alone();
    let before = open();
    for _ in 0..50 {
        same(d.ask("hello\r\n"), HELLO);
    }
    d.wait_logs("EXIT service=hello", 51);
    alone();
    until("the parent has no more descriptors", || open() <= before);
}

/// Makes processes that are the parent's children, not its own (CLONE_PARENT, clone(2)): many that
/// live, so that it takes long to find those that have ended, and some that make more and more,
/// which end at once. So for 90 s, or until it is told to end.
const SIBLINGS: &str = r#"
    #define _GNU_SOURCE
    #include <sched.h>
    #include <signal.h>
    #include <sys/prctl.h>
    #include <sys/resource.h>
    #include <sys/syscall.h>
    #include <unistd.h>

    static int sibling(long more) {
        int pid = syscall(SYS_clone, CLONE_PARENT | SIGCHLD | more, 0, 0, 0, 0);
        if (!pid && !more) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            alarm(90);
        }
        return pid;
    }

    int main(int n, char **words) {
        struct rlimit most = { 6000, 6000 };
        setrlimit(RLIMIT_NPROC, &most);
        for (int i = 0; i < 4000; i++) if (!sibling(0)) while (1) pause();
        for (int i = 0; i < 3; i++) if (!sibling(0))
            while (1) if (!sibling(CLONE_VM | CLONE_VFORK)) syscall(SYS_exit, 0);
        write(1, "made\n", 5);
        for (int i = 0; i < 900 && access(words[1], F_OK); i++) usleep(100000);
        kill(0, SIGKILL);
    }"#;

/// Whatever children a service makes for it, the parent serves others, and reaps its own.
#[test]
fn whoever_ends_without_end_keeps_no_other_waiting() {
    if !root() || !installed("cc") {
        skip("needs root, and a C compiler");
        return;
    }
    // A user who has no other processes, which the limit would count.
    let d = Daemon::with(&format!("{CONF}x stream tcp nowait 64999 @DIR@/x x @DIR@/release\n"))
        .file("x.c", SIBLINGS);
    let mut cc = Command::new("cc");
    cc.args(["-static", "-O2", "-w", "-o"]).args([d.place.at("x"), d.place.at("x.c")]);
    assert!(cc.status().expect("cc").success());
    let d = d.start();
    let mut c = d.connect();
    c.send("x\r\n").expect("+Go\r\nmade\n");
    for _ in 0..20 {
        same(d.ask("hello\r\n"), HELLO);
    }
    d.wait_logs("EXIT service=hello", 20);
    assert!(!d.log().contains("EXIT service=x"), "{}", d.log());
    d.place.write("release", "", 0o600);
    d.wait_log("EXIT service=x");
    until("all are reaped", || {
        let all = proc::children(d.parent_pid());
        all.iter().all(|p| [d.net_pid(), d.keys_pid()].contains(p))
    });
}

#[test]
fn a_lost_parent_takes_net_with_it() {
    let mut d = Daemon::with(CONF).start();
    let net = d.net_pid();
    d.signal(Signal::SIGKILL);
    d.wait();
    until("net ends", || !proc::alive(net));
}

/// Whoever starts fived may ignore SIGCHLD; then a child's end would be told to nobody.
#[test]
fn ended_children_are_noticed_whatever_signals_are_ignored() {
    if !installed("perl") {
        return skip("needs perl");
    }
    let d = Daemon::with("x stream tcp nowait @USER@ /bin/echo echo x\n")
        .under(&["perl", "-e", "$SIG{CHLD} = 'IGNORE'; exec @ARGV"])
        .start();
    same(d.ask("x\r\n"), "+Go\r\nx\n");
    d.wait_log("EXIT service=x");
}

/// What a captured net could do with both ends of a pair, or by handing a channel to somebody: the
/// parent must not keep the session.
#[test]
fn sessions_end_with_their_net_whoever_has_their_channels() {
    const KEEP: &str = "import ctypes, os, sys, time
pid = int(sys.argv[1])
p, libc = os.pidfd_open(pid), ctypes.CDLL(None)
print(min(libc.syscall(438, p, int(f), 0) for f in os.listdir(f'/proc/{pid}/fd')), flush=True)
time.sleep(120)";
    if !takes_net_over() {
        return;
    }
    let d = Daemon::with("echo stream tcp nowait @USER@ internal\n").start();
    same(d.ask("echo\r\n"), GO);
    d.wait_log("EXIT service=echo");
    // From the first session on the parent has a channel to what closes for it.
    same(d.ask("HOST\r\n"), "+ Success\r\nWhich VHOST? ");
    d.wait_log("END session=");
    let idle = proc::descriptors(d.parent_pid()).len();
    let mut session = d.connect();
    session.send("HOST\r\n").expect("+ Success\r\nWhich VHOST? ");
    let mut stream = d.connect();
    stream.send("MULTIPLEX\r\n").expect("+ Success\r\n");
    d.wait_logs("SESSION ", 3);
    let net = d.net_pid();
    let mut command = std::process::Command::new("python3");
    let mut keeper = command
        .args(["-c", KEEP, &net.to_string()])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("python3");
    let mut line = String::new();
    std::io::BufRead::read_line(
        &mut std::io::BufReader::new(keeper.stdout.take().expect("piped")),
        &mut line,
    )
    .expect("a line");
    assert!(
        line.trim().parse::<i32>().is_ok_and(|fd| fd > 0),
        "copies of net's descriptors: {line}"
    );
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(net), nix::sys::signal::Signal::SIGKILL)
        .expect("kill");
    d.wait_logs("END session=", 3);
    until("nothing is left open", || proc::descriptors(d.parent_pid()).len() <= idle);
    kill_and_wait(&mut keeper);
}

/// What a captured net could say: its own channel is written to, and sessions are begun on channels
/// that nobody reads. Arguments: net, sessions, orders of each, its bytes (or its number, as 0x302)
/// or nothing for a question that is answered; the version of orders. Prints that they are said.
const CAPTURED: &str = "import array, ctypes, os, socket, struct, sys
pid, sessions, orders, text = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4].encode()
p, libc = os.pidfd_open(pid), ctypes.CDLL(None)
def order(kind):
    return struct.pack('<HHIIIQQ', int(sys.argv[5]), kind, 0, 0, 0, 0, 0) + bytes(512)
def is_channel(s):
    return s.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_SEQPACKET
all = sorted(int(f) for f in os.listdir(f'/proc/{pid}/fd') if int(f) > 2)
all = [f for f in all if os.readlink(f'/proc/{pid}/fd/{f}').startswith('socket:')]
own = [s for s in (socket.socket(fileno=libc.syscall(438, p, f, 0)) for f in all) if is_channel(s)][0]
kept, c = [], client(pid)
kept.append(c[0])
c = c[1]
for n in range(sessions):
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    own.sendmsg([addressed(order(0x103), c)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [c.fileno(), b.fileno()]))])
    b.close()
    fds = a.recvmsg(1024, 64)[1]
    a = socket.socket(fileno=array.array('i', fds[0][2])[0]) if fds else a
    kept.append(a)
    try:
        for n in range(orders):
            a.send(order(int(text, 16)) if text.startswith(b'0x') else text or order(0x303))
    except OSError:
        pass
print('said', flush=True)
sys.stdin.read(1)
";

fn captured(d: &Daemon, sessions: usize, orders: usize, text: &str) -> std::process::Child {
    // Of another version every order would be a forbidden one.
    let [low, high, ..] = FromNet::Pong.encode();
    let version = u16::from_le_bytes([low, high]).to_string();
    let numbers = [d.net_pid().to_string(), sessions.to_string(), orders.to_string()];
    let words = [&numbers[..], &[text.into(), version]].concat();
    let mut command = std::process::Command::new("python3");
    let piped = std::process::Stdio::piped;
    let mut child = command
        .args(["-c", &format!("{}{CAPTURED}", include_str!("support/client_of_net.py"))])
        .args(words)
        .stdin(piped())
        .stdout(piped())
        .spawn()
        .expect("python3");
    let mut line = String::new();
    std::io::BufRead::read_line(
        &mut std::io::BufReader::new(child.stdout.take().expect("piped")),
        &mut line,
    )
    .expect("a line");
    same(line, "said\n");
    child
}

#[test]
fn a_wrong_order_of_a_session_ends_the_net_that_sent_it() {
    if !takes_net_over() {
        return;
    }
    let d = Daemon::with(CONF).start();
    let mut other = d.connect();
    other.send("HOST\r\n").expect("+ Success\r\nWhich VHOST? ");
    let net = d.net_pid();
    let mut child = captured(&d, 2, 1, "no order");
    d.wait_log(&format!("WARN net: pid {net}: a forbidden order; fived ends it"));
    same(other.read_any(), "");
    until("another serves", || {
        d.nets().iter().any(|pid| *pid != net) && d.ask("hello\r\n") == HELLO.as_bytes()
    });
    assert_eq!(d.log().matches("a forbidden order").count(), 1, "{}", d.log());
    child.kill().and_then(|()| child.wait()).expect("reaped");
}

#[test]
fn an_order_out_of_its_phase_ends_the_net_that_sent_it() {
    if !takes_net_over() {
        return;
    }
    // A handshake is over that was never signed; a connection is lost that was not encrypted.
    for order in ["0x302", "0x332"] {
        let d = Daemon::with(CONF).start();
        let net = d.net_pid();
        let mut child = captured(&d, 1, 1, order);
        d.wait_log(&format!("WARN net: pid {net}: a forbidden order; fived ends it"));
        child.kill().and_then(|()| child.wait()).expect("reaped");
    }
}

#[test]
fn answers_that_a_session_does_not_take_end_it_and_no_other() {
    if !takes_net_over() {
        return;
    }
    let d = Daemon::with(&format!("max_sessions_per_source = 200\n{CONF}")).start();
    let mut honest = d.connect();
    honest.send("HOST\r\n").expect("+ Success\r\nWhich VHOST? ");
    let mut one = captured(&d, 1, 1000, "");
    assert!(d.wait_log("END session=").contains("reason=system"), "{}", d.log());
    // Each of these holds less than is too much for one.
    let mut many = captured(&d, 120, 400, "");
    let ends = d.wait_logs("END session=", 5);
    assert!(ends.iter().all(|line| line.contains("reason=system")), "{ends:?}");
    same(honest.send("\r\nhello\r\n").read_all(), "Host  selected\r\n+Go\r\nhello\n");
    for child in [&mut one, &mut many] {
        child.kill().and_then(|()| child.wait()).expect("reaped");
    }
}

/// `pkill -HUP fived` finds the other processes of fived, too.
#[test]
fn a_signal_for_the_parent_ends_no_other_process() {
    let ready = "ready stream tcp nowait @USER@ /bin/sh sh -c \"echo ready; exec cat\"\n";
    let d = Daemon::with(ready).start();
    let f = Five::new(&d);
    let call = f.open_call(&["-q"]);
    let send = |signal| {
        for pid in d.nets().into_iter().chain(d.keys()) {
            // One of before a reload ends of itself, perhaps now.
            assert!(matches!(kill(Pid::from_raw(pid), signal), Ok(()) | Err(Errno::ESRCH)));
        }
        d.signal(signal);
    };
    for n in 1..=2 {
        send(Signal::SIGHUP);
        d.wait_logs("RELOAD ", n);
    }
    send(Signal::SIGUSR1);
    d.wait_log("STATE");
    send(Signal::SIGUSR2);
    d.wait_log("leaving");
    assert_eq!(five::finish(call, b"still there\n"), (0, "still there\n".into(), String::new()));
    let log = d.log();
    assert!(!log.contains("WARN"), "{log}");
}
