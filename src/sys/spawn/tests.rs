use super::super::identity::Identity;
use super::super::process;
use super::super::signal::{Signal, Signals, raise};
use super::super::{check, confine, identity, memfd, socket};
use super::*;
use std::ffi::CString;
use std::fs::Permissions;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

mod spares;
mod starts;

const STARTS: usize = 4;

fn reap(pid: i32) {
    process::reap(pid);
}

/// A launch of /bin/sh with a script, to be varied.
struct World {
    argv: CList,
    env: CList,
    program: CString,
    tried: Tried,
    ours: OwnedFd,
    theirs: OwnedFd,
}

impl World {
    fn new(script: &str) -> World {
        let (ours, theirs) = socket::pair().unwrap();
        World {
            argv: CList::new(["sh", "-c", script]).unwrap(),
            env: CList::new(["A=1", "B=two words"]).unwrap(),
            program: c"/bin/sh".into(),
            tried: Tried::default(),
            ours,
            theirs,
        }
    }

    fn launch(&self) -> Launch<'_> {
        Launch {
            stderr: Stderr::Connection,
            check: Some(&self.tried),
            connection: Some(self.theirs.as_fd()),
            ..Launch::new(&self.program, &self.argv, &self.env)
        }
    }

    /// What it says until it ends.
    fn run(&self, launch: Launch) -> Result<String, Failure> {
        reap(start(launch)?.pid);
        let mut text = vec![0; 1 << 16];
        let n = socket::receive(self.ours.as_fd(), &mut text).unwrap_or(0);
        Ok(String::from_utf8(text[..n].to_vec()).unwrap())
    }
}

fn start(launch: Launch) -> Result<Child, Failure> {
    let mut spawner = Spawner::new(STARTS).unwrap();
    loop {
        match spawner.start(&launch) {
            // Another test's child holds the file that was just written, until it execs.
            Err(f) if f.errno == libc::ETXTBSY => std::thread::yield_now(),
            other => return other,
        }
    }
}

/// Lists the shell's open descriptors.
const OPEN: &str = "ls /proc/$$/fd; :";

fn output(script: &str) -> String {
    let w = World::new(script);
    w.run(w.launch()).unwrap()
}

fn root() -> bool {
    identity::effective_uid() == 0
}

fn stage_of(result: Result<String, Failure>) -> (Stage, i32) {
    let f = result.unwrap_err();
    (f.stage, f.errno)
}

/// A file under a name of its own.
fn file(content: &[u8], mode: u32) -> CString {
    static N: AtomicU32 = AtomicU32::new(0);
    let n = N.fetch_add(1, Ordering::Relaxed);
    let path = format!("/tmp/fived-spawn-{}-{n}", std::process::id());
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    CString::new(path).unwrap()
}

fn remove(path: CString) {
    std::fs::remove_file(path.to_str().unwrap()).unwrap();
}

#[test]
fn nothing_of_ours_is_in_it() {
    assert_eq!(output(OPEN), "0\n1\n2\n");
    assert_eq!(output("umask; pwd"), "0022\n/\n");
    let status = output("cat /proc/self/status");
    for line in ["SigBlk:\t", "SigIgn:\t", "SigCgt:\t", "CapAmb:\t"] {
        let empty = format!("{line}0000000000000000\n");
        assert!(status.contains(&empty), "{line} {status}");
    }
    let env = World {
        program: c"/usr/bin/env".into(),
        argv: CList::new(["env"]).unwrap(),
        ..World::new("")
    };
    assert_eq!(env.run(env.launch()).unwrap(), "A=1\nB=two words\n");
}

#[test]
fn it_leads_a_session_of_its_own() {
    let stat = output("cat /proc/$$/stat; :");
    let word = |n: usize| stat.rsplit(") ").next().unwrap().split(' ').nth(n).unwrap();
    let pid = stat.split(' ').next().unwrap();
    // state ppid pgrp session tty_nr
    assert_eq!((word(2), word(3), word(4)), (pid, pid, "0"));
}

#[test]
fn signals_of_ours_stay_with_us() {
    let _blocked = Signals::new(&[Signal::TERM, Signal::USR1]).unwrap();
    let status = output("cat /proc/self/status");
    assert!(status.contains("SigBlk:\t0000000000000000\n"));
    let ours = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = |name| ours.lines().find(|l| l.starts_with(name)).unwrap();
    assert!(line("SigBlk").ends_with("4200"), "{ours}");
    // What std ignores (SIGPIPE) is caught, which exec resets, and still does nothing.
    assert!(line("SigIgn").ends_with("0000"), "{ours}");
    raise(Signal::PIPE);
}

#[test]
fn extras_are_3_and_4() {
    let (a, b) = (memfd::sealed(b"3rd").unwrap(), memfd::sealed(b"4th").unwrap());
    let w = World::new("cat <&3; cat <&4; echo; ls /proc/$$/fd; :");
    let both = Launch { extra: Some(a.as_fd()), second: Some(b.as_fd()), ..w.launch() };
    let text = w.run(both).unwrap();
    assert_eq!(text, "3rd4th\n0\n1\n2\n3\n4\n");
    let one = Launch { second: None, ..both };
    let text = w.run(one).unwrap();
    assert!(text.ends_with("\n0\n1\n2\n3\n"), "{text}");
}

#[test]
fn stderr_goes_where_it_should() {
    let w = World::new("echo x >&2");
    assert_eq!(w.run(w.launch()).unwrap(), "x\n");
    let stderr = Stderr::Null;
    assert_eq!(w.run(Launch { stderr, ..w.launch() }).unwrap(), "");
}

#[test]
fn limits_and_the_rest_are_as_wanted() {
    let w = World::new("ulimit -n; ulimit -t; umask; pwd; nice; grep NoNewPrivs /proc/self/status");
    let before: i32 = output("nice").trim().parse().unwrap();
    let launch = Launch {
        rlimits: &[(Rlimit::Files, 77), (Rlimit::Cpu, 55)],
        umask: 0o77,
        directory: c"/tmp",
        nice: 3,
        no_new_privs: true,
        ..w.launch()
    };
    let nice = (before + 3).min(19);
    let wanted = format!("77\n55\n0077\n/tmp\n{nice}\nNoNewPrivs:\t1\n");
    assert_eq!(w.run(launch).unwrap(), wanted);
}

#[test]
fn a_user_is_that_user_and_nothing_more() {
    if !root() {
        return eprintln!("skipped: needs root");
    }
    let who = Identity { uid: 12345, gid: 23456, groups: vec![7, 5, 23456] };
    let w = World::new("grep -E '^(Uid|Gid|Groups|Cap)' /proc/self/status");
    let identity = Some(&who);
    let text = w.run(Launch { identity, ..w.launch() }).unwrap();
    assert!(text.contains("Uid:\t12345\t12345\t12345\t12345\n"), "{text}");
    assert!(text.contains("Gid:\t23456\t23456\t23456\t23456\n"), "{text}");
    assert!(text.contains("Groups:\t5 7 23456 \n"), "{text}");
    for cap in ["CapPrm", "CapEff", "CapAmb"] {
        assert!(text.contains(&format!("{cap}:\t0000000000000000\n")), "{text}");
    }
    let groups = vec![];
    let alone = Identity { groups, ..who };
    let identity = Some(&alone);
    let text = w.run(Launch { identity, ..w.launch() }).unwrap();
    assert!(text.contains("Groups:\t \n"), "{text}");
}

#[test]
fn the_users_rights_decide() {
    if !root() {
        return eprintln!("skipped: needs root");
    }
    let who = Identity { uid: 12345, gid: 12345, groups: vec![] };
    let identity = Some(&who);
    let mut w = World::new("");
    let directory = c"/root";
    let denied = w.run(Launch { identity, directory, ..w.launch() });
    assert_eq!(stage_of(denied), (Stage::Directory, libc::EACCES));
    w.program = file(b"#!/bin/sh\necho hi\n", 0o700);
    assert_eq!(w.run(w.launch()).unwrap(), "hi\n");
    let denied = w.run(Launch { identity, ..w.launch() });
    assert_eq!(stage_of(denied), (Stage::Check, libc::EACCES));
    for (path, stage) in [(c"/no/such", Stage::Chroot), (c"/proc", Stage::Check)] {
        let chroot = Some(path);
        let missing = w.run(Launch { chroot, ..w.launch() });
        assert_eq!(stage_of(missing), (stage, libc::ENOENT));
    }
    remove(w.program);
}

#[test]
fn what_runs_it_is_tried_too_however_deep() {
    let mut w = World::new("");
    let inner = file(b"#!/bin/sh\necho \"$@\"\n", 0o755);
    let line = |path: &CString| [b"#!", path.as_bytes(), b" a\n"].concat();
    w.program = file(&line(&inner), 0o755);
    w.argv = CList::new(["x"]).unwrap();
    assert_eq!(w.run(w.launch()).unwrap(), format!("a {}\n", w.program.to_str().unwrap()));
    std::fs::set_permissions(inner.to_str().unwrap(), PermissionsExt::from_mode(0o644)).unwrap();
    assert_eq!(stage_of(w.run(w.launch())), (Stage::Interpreter, libc::EACCES));
    remove(std::mem::take(&mut w.program));
    // Where it runs itself there is no end.
    let own = file(b"", 0o755);
    std::fs::write(own.to_str().unwrap(), line(&own)).unwrap();
    w.program = own;
    assert_eq!(stage_of(w.run(w.launch())), (Stage::Interpreter, libc::ELOOP));
    remove(w.program);
    remove(inner);
}

#[test]
fn who_may_run_it_need_not_read_it() {
    if !root() {
        return eprintln!("skipped: needs root");
    }
    let who = Identity { uid: 12345, gid: 12345, groups: vec![] };
    let mut w = World::new("echo hi");
    let shell = std::fs::read("/bin/sh").unwrap();
    w.program = file(&shell, 0o711);
    assert_eq!(
        w.run(Launch { identity: Some(&who), greeting: b"+Go ", ..w.launch() }).unwrap(),
        "+Go hi\n"
    );
    remove(w.program);
}

#[test]
fn the_greeting_comes_first_and_only_when_it_is_true() {
    let greeting = b"+Go\r\n";
    let mut w = World::new("echo hi");
    assert_eq!(w.run(Launch { greeting, ..w.launch() }).unwrap(), "+Go\r\nhi\n");

    w.program = c"/no/such/program".into();
    let missing = w.run(Launch { greeting, ..w.launch() });
    assert_eq!(stage_of(missing), (Stage::Check, libc::ENOENT));
    let unchecked = w.run(Launch { check: None, ..w.launch() });
    assert_eq!(stage_of(unchecked), (Stage::Exec, libc::ENOENT));

    w.program = file(b"#!/no/such/shell -x\n", 0o755);
    let refused = w.run(Launch { greeting, ..w.launch() });
    assert_eq!(stage_of(refused), (Stage::Interpreter, libc::ENOENT));
    remove(std::mem::take(&mut w.program));

    w.program = file(b"no program\n", 0o755);
    let refused = w.run(Launch { greeting, ..w.launch() }).unwrap_err();
    assert_eq!(
        (refused.stage, refused.errno, refused.greeted),
        (Stage::Check, libc::ENOEXEC, false)
    );
    let lied = w.run(Launch { greeting, check: None, ..w.launch() }).unwrap_err();
    assert_eq!((lied.stage, lied.errno), (Stage::Exec, libc::ENOEXEC));
    assert!(lied.greeted && !lied.is_scarcity());
    remove(w.program);
}

#[test]
fn a_program_that_has_changed_is_tried_again() {
    let greeting = b"+Go\r\n";
    let mut w = World::new("");
    w.argv = CList::new(["echo", "hi"]).unwrap();
    w.program = file(&std::fs::read("/bin/echo").unwrap(), 0o755);
    let path = Path::new(w.program.to_str().unwrap());
    let mode = |m| std::fs::set_permissions(path, Permissions::from_mode(m)).unwrap();
    let refused = |errno| {
        let f = w.run(Launch { greeting, ..w.launch() }).unwrap_err();
        assert_eq!((f.stage, f.errno, f.greeted), (Stage::Check, errno, false));
    };
    for _ in 0..2 {
        for _ in 0..3 {
            assert_eq!(w.run(Launch { greeting, ..w.launch() }).unwrap(), "+Go\r\nhi\n");
        }
        mode(0o644);
        refused(libc::EACCES);
        mode(0o755);
    }
    let nobody = Identity { uid: 65534, gid: 65534, groups: vec![65534] };
    mode(0o700);
    assert_eq!(w.run(Launch { greeting, ..w.launch() }).unwrap(), "+Go\r\nhi\n");
    if identity::effective_uid() == 0 {
        let other = w.run(Launch { greeting, identity: Some(&nobody), ..w.launch() });
        assert_eq!(stage_of(other), (Stage::Check, libc::EACCES));
    }
    std::fs::write(path, "no program\n").unwrap();
    refused(libc::ENOEXEC);
    std::fs::remove_file(path).unwrap();
    refused(libc::ENOENT);
}

#[test]
fn a_client_that_is_gone_or_deaf_is_no_start() {
    let w = World::new("echo hi");
    let (ours, theirs) = socket::pair().unwrap();
    drop(ours);
    let connection = theirs.as_fd();
    let greeting = b"+Go\r\n";
    let gone = start(Launch { connection: Some(connection), greeting, ..w.launch() }).unwrap_err();
    assert!(gone.is_peer_gone() && !gone.is_scarcity() && !gone.greeted);

    socket::set_buffers(w.theirs.as_fd(), 4096, 4096).unwrap();
    let before = std::time::Instant::now();
    let greeting = &[b'x'; 1 << 20];
    let unread = start(Launch { greeting, ..w.launch() }).unwrap_err();
    assert_eq!((unread.stage, unread.errno, unread.greeted), (Stage::Greeting, libc::EAGAIN, true));
    assert!(before.elapsed() < std::time::Duration::from_secs(20));
}

#[test]
fn the_connection_blocks() {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let w = World::new("exit");
    fcntl(&w.theirs, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    w.run(w.launch()).unwrap();
    let now = fcntl(&w.theirs, FcntlArg::F_GETFL).unwrap();
    assert_eq!(now & libc::O_NONBLOCK, 0);
}

#[test]
fn a_child_is_signalled_and_never_another() {
    let w = World::new("sleep 100 & sleep 100");
    let child = start(w.launch()).unwrap();
    child.signal_group(Signal::TERM).unwrap();
    reap(child.pid);
    let gone = child.signal(Signal::KILL).unwrap_err();
    assert_eq!(gone.raw_os_error(), Some(libc::ESRCH));

    let late = start(w.launch()).unwrap();
    late.signal_group(Signal::KILL).unwrap();
    let other = Child::new(std::os::unix::process::parent_id() as i32);
    assert_eq!(other.signal(Signal::TERM).unwrap_err().raw_os_error(), Some(libc::ECHILD));
    reap(late.pid);
}

#[test]
fn thousands_of_descriptors_cost_nothing_and_stay_here() {
    process::raise_nofile().unwrap();
    let null = process::null().unwrap();
    let many: Vec<_> = (0..5000).map_while(|_| null.try_clone().ok()).collect();
    assert!(many.len() > 500, "{}", many.len());
    assert_eq!(output(OPEN), "0\n1\n2\n");
    // Still ours: the child closed a table of its own.
    assert!(many.last().unwrap().try_clone().is_ok());
}

#[test]
fn the_limit_of_descriptors_is_as_it_was() {
    use nix::sys::resource::{Resource, getrlimit};
    let now = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let (soft, hard) = process::nofile_before().unwrap_or(now);
    process::raise_nofile().unwrap();
    assert_eq!(output("ulimit -n; ulimit -Hn"), format!("{soft}\n{hard}\n"));
}
