use super::super::{interrupt, local, memfd, message, poll, process, socket};
use super::*;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::Duration;

mod calls;

use calls::{
    channel_to_the_parent, nothing_but_memory_and_its_channel, only_to_the_parent,
    what_no_login_needs,
};

const TASK: &str = "FIVED_TEST_CONFINE";
const WHO: (u32, u32) = (12345, 23456);

/// Confines a process of its own (see below), tries what it may and may not, and waits to be looked
/// at.
#[test]
fn inside() {
    let Ok(task) = std::env::var(TASK) else {
        return;
    };
    let reached = match task.as_str() {
        "root" => tried(Some(WHO)),
        "user" => tried(None),
        "answer" => {
            login(WHO.0, WHO.1).unwrap();
            answers_only();
            None
        }
        "keys" => {
            let confined = keys().unwrap();
            if confined.filtered {
                nothing_but_memory_and_its_channel();
            }
            Some(confined)
        }
        "foreign" => {
            foreign_code().unwrap();
            what_no_login_needs();
            None
        }
        "helper" => {
            helper(WHO.0, WHO.1).unwrap();
            signals_no_other();
            None
        }
        _ => login(WHO.0, WHO.1).map(|()| None).unwrap(),
    };
    println!("reached {reached:?}");
    let _ = std::io::stdin().read(&mut [0]);
}

fn tried(user: Option<(u32, u32)>) -> Option<Confined> {
    let parent = channel_to_the_parent();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let client = TcpStream::connect(address).unwrap();
    let text = memfd::sealed(b"text").unwrap();
    listener.set_nonblocking(true).unwrap();
    // Net asks this before it is confined, and later again.
    let can_refuse_rights = local::can_refuse_rights();
    let confined = net(user).unwrap();
    assert_eq!(local::can_refuse_rights(), can_refuse_rights);
    drop(interrupt::Interrupt::new().unwrap());
    allowed(&listener, &client, text.as_fd());
    only_to_the_parent(parent.as_fd(), text.as_raw_fd(), confined.filtered);
    if confined.filtered {
        denied(address, listener.as_raw_fd());
    }
    Some(confined)
}

/// What the net process does all day.
fn allowed(listener: &TcpListener, client: &TcpStream, text: std::os::fd::BorrowedFd) {
    assert_eq!(memfd::read(text).unwrap(), b"text");
    let (served, from) = socket::accept(listener.as_fd()).unwrap();
    assert_eq!(from, client.local_addr().unwrap());
    socket::peer(served.as_fd()).unwrap();
    socket::local(served.as_fd()).unwrap();
    socket::set_nodelay(served.as_fd(), true).unwrap();
    socket::set_send_buffer(served.as_fd(), 8192).unwrap();
    socket::acknowledge(served.as_fd()).unwrap();
    socket::push(served.as_fd()).unwrap();
    socket::set_urgent_inline(served.as_fd(), true).unwrap();
    crate::sys::retransmit::often(served.as_fd());
    socket::drop_unsent(client.as_fd()).unwrap();
    socket::abort(client.as_fd());
    socket::send(served.as_fd(), b"x").unwrap();
    let mut p = [poll::Poll::new(client.as_fd(), true, false)];
    poll::wait(&mut p, Some(Duration::from_secs(5))).unwrap();
    assert_eq!(socket::unread(client.as_fd()), 1);
    socket::shutdown_write(served.as_fd()).unwrap();

    let (a, b) = socket::seqpacket().unwrap();
    let (c, d) = socket::pair().unwrap();
    assert_eq!(local::peer_uid(c.as_fd()).unwrap(), identity::effective_uid());
    message::send_waiting(a.as_fd(), b"order", &[]).unwrap();
    assert_eq!(message::receive_waiting(b.as_fd(), &mut [0; 9]).unwrap().0, 5);
    let parts = [io::IoSlice::new(b"ab"), io::IoSlice::new(b"c")];
    assert_eq!(socket::send_parts(c.as_fd(), &parts).unwrap(), 3);
    assert_eq!(socket::receive(d.as_fd(), &mut [0; 9]).unwrap(), 3);
    mio::Poll::new().unwrap();

    let work = || {
        process::set_name("session");
        process::give_way();
        // SAFETY: no memory is handed over.
        assert_eq!(unsafe { libc::sched_getscheduler(0) }, libc::SCHED_BATCH);
        let many: Vec<Vec<u8>> = (0..100).map(|n| vec![1; n * 10_000]).collect();
        std::thread::sleep(Duration::from_millis(1));
        process::release_unused_stack();
        many.iter().map(Vec::len).sum::<usize>()
    };
    let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(work)).collect();
    for t in threads {
        assert_eq!(t.join().unwrap(), 49_500_000);
    }
    let caught = std::thread::spawn(|| panic!("a panic ends its thread alone")).join();
    assert!(caught.is_err());
    clock::minute_of_day();
}

fn denied(address: std::net::SocketAddr, listener: libc::c_int) {
    let forbidden = |e: io::Error| assert_eq!(e.raw_os_error(), Some(libc::EPERM), "{e}");
    forbidden(fs::File::open("/").unwrap_err());
    forbidden(fs::write("/x", "x").unwrap_err());
    forbidden(TcpStream::connect(address).unwrap_err());
    forbidden(UdpSocket::bind("127.0.0.1:0").unwrap_err());
    forbidden(std::os::unix::net::UnixDatagram::pair().unwrap_err());
    assert!(Command::new("/bin/true").status().is_err());
    denied_calls(listener);
    denied_options(listener);
}

fn refused(answer: libc::c_long) {
    assert_eq!(answer, -1);
    assert_eq!(io::Error::last_os_error().raw_os_error(), Some(libc::EPERM));
}

fn denied_calls(listener: libc::c_int) {
    let (size, none) = (4096usize, std::ptr::null_mut::<libc::c_void>());
    let exec = libc::PROT_READ | libc::PROT_EXEC;
    let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: calls that the filter refuses before they do anything; a child that came to be would
    // end at once.
    unsafe {
        refused(libc::syscall(libc::SYS_kill, libc::getppid(), 0));
        refused(libc::syscall(libc::SYS_tgkill, libc::getppid(), libc::getppid(), 0));
        refused(libc::syscall(libc::SYS_ptrace, 0, 0, 0, 0));
        refused(libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0));
        refused(libc::syscall(libc::SYS_mmap, none, size, exec, kind, -1, 0));
        refused(libc::syscall(libc::SYS_mprotect, none, size, exec));
        refused(libc::syscall(libc::SYS_setuid, 0));
        let (usual, batch) = (libc::SCHED_OTHER, libc::SCHED_BATCH);
        for (whose, policy) in [(0, usual), (0, libc::SCHED_FIFO), (libc::getppid(), batch)] {
            refused(libc::syscall(libc::SYS_sched_setscheduler, whose, policy, &raw const size));
        }
        refused(libc::syscall(libc::SYS_prctl, libc::PR_SET_DUMPABLE, 1, 0, 0, 0));
        let mut two = [0 as libc::c_int; 2];
        let stream = libc::SOCK_STREAM;
        refused(libc::syscall(libc::SYS_socketpair, libc::AF_TIPC, stream, 0, two.as_mut_ptr()));
        refused(libc::syscall(libc::SYS_pipe2, two.as_mut_ptr(), libc::O_DIRECT));
        let offset = &raw const two;
        refused(libc::syscall(libc::SYS_splice, listener, offset, listener, none, 1, 0));
        refused(libc::syscall(libc::SYS_splice, listener, none, listener, offset, 1, 0));
        at_a_path();
        let head: libc::msghdr = std::mem::zeroed();
        let nowhere: libc::sockaddr_in = std::mem::zeroed();
        let (to, len, fast) =
            (&raw const nowhere, size_of::<libc::sockaddr_in>(), libc::MSG_FASTOPEN);
        for flags in [fast, fast | libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT] {
            refused(libc::syscall(libc::SYS_sendmsg, listener, &raw const head, flags));
            refused(libc::syscall(libc::SYS_sendto, listener, to, 1, flags, none, 0));
        }
        refused(libc::syscall(libc::SYS_sendto, listener, to, 1, 0, to, len));
        // Nor by a socket that it was given.
        refused(libc::syscall(libc::SYS_connect, listener, to, len));
        refused(libc::syscall(libc::SYS_bind, listener, to, len));
        refused(libc::syscall(libc::SYS_listen, listener, 1));
        refused(libc::syscall(libc::SYS_io_uring_setup, 1, none));
        let limit = [0u64; 2];
        refused(libc::syscall(libc::SYS_prlimit64, 0, libc::RLIMIT_NOFILE, limit.as_ptr(), none));
        assert_eq!(libc::syscall(libc::SYS_clone3, none, 0), -1);
        assert_eq!(io::Error::last_os_error().raw_os_error(), Some(libc::ENOSYS));
    }
}

/// The calls that look at an open file look at no other one.
fn at_a_path() {
    let (here, root, mut found) = (libc::AT_FDCWD, c"/".as_ptr(), [0u64; 64]);
    // SAFETY: what is written fits.
    unsafe {
        refused(libc::syscall(libc::SYS_newfstatat, here, root, found.as_mut_ptr(), 0));
        refused(libc::syscall(libc::SYS_statx, here, root, 0, 0, found.as_mut_ptr()));
    }
}

/// Options and flags of a listener, which the next net process would find on it.
fn denied_options(listener: libc::c_int) {
    // SAFETY: calls that the filter refuses before they do anything.
    unsafe {
        let (here, ip, tcp) = (libc::SOL_SOCKET, libc::IPPROTO_IP, libc::IPPROTO_TCP);
        let value = [0u64; 2];
        let others = [
            libc::SO_BINDTODEVICE,
            libc::SO_ATTACH_FILTER,
            libc::SO_ATTACH_BPF,
            libc::SO_REUSEPORT,
            libc::SO_RCVBUF,
            libc::SO_MARK,
        ];
        let others = others
            .map(|name| (here, name))
            .into_iter()
            .chain([(tcp, libc::TCP_CONGESTION), (tcp, libc::TCP_DEFER_ACCEPT)]);
        // With it the parent marks sockets (`origin_mark`).
        let mark = (ip, libc::IP_BIND_ADDRESS_NO_PORT);
        for (level, name) in
            others.chain([(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY), (ip, libc::IP_TTL), mark])
        {
            refused(libc::syscall(
                libc::SYS_setsockopt,
                listener,
                level,
                name,
                value.as_ptr(),
                size_of_val(&value),
            ));
        }
        refused(libc::syscall(libc::SYS_fcntl, listener, libc::F_SETFL, 0));
        refused(libc::syscall(libc::SYS_ioctl, listener, libc::FIONBIO, value.as_ptr()));
    }
}

/// Runs [`inside`] in another process; what it printed, and what /proc says of it then.
fn inspected(task: &str, root: bool) -> (String, String, String) {
    let mut child = Command::new("/proc/self/exe");
    child.args(["--exact", "sys::confine::tests::inside", "--nocapture"]);
    child.env(TASK, task).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if !root {
        std::os::unix::process::CommandExt::uid(&mut child, WHO.0);
    }
    let mut child = child.spawn().unwrap();
    let mut printed = String::new();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    while let Some(Ok(line)) = lines.next() {
        if line.contains("reached") {
            printed = line;
            break;
        }
    }
    let proc = |name: &str| format!("/proc/{}/{name}", child.id());
    // The test's own thread: some of it concerns one thread, and the net process has one then.
    let tasks = fs::read_dir(proc("task")).unwrap();
    let numbers =
        tasks.filter_map(|t| t.unwrap().file_name().into_string().ok()?.parse::<u32>().ok());
    let status = proc(&format!("task/{}/status", numbers.max().unwrap()));
    let status = fs::read_to_string(status).unwrap();
    let home = fs::read_link(proc("root")).map_or(String::new(), |p| p.display().to_string());
    child.stdin.take().unwrap().write_all(b"x").unwrap();
    let ended = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success() && !printed.is_empty(), "{task}: {errors}");
    (printed, status, home)
}

/// What a login child still does: waits, hashes, answers. Nothing else.
fn answers_only() {
    let crypt = super::super::crypt::Crypt::open().unwrap();
    let setting = crypt.setting().unwrap();
    let (a, b) = socket::seqpacket().unwrap();
    answer_only().unwrap();
    message::send_waiting(a.as_fd(), b"word", &[]).unwrap();
    poll::wait(&mut [poll::Poll::new(b.as_fd(), true, false)], Some(Duration::from_secs(5)))
        .unwrap();
    assert_eq!(message::receive_waiting(b.as_fd(), &mut [0; 9]).unwrap().0, 4);
    assert!(crypt.hash(c"secret", &setting).is_some());
    std::thread::sleep(Duration::from_millis(1));
    let forbidden = |e: io::Error| assert_eq!(e.raw_os_error(), Some(libc::EPERM), "{e}");
    forbidden(fs::File::open("/").unwrap_err());
    forbidden(TcpStream::connect("127.0.0.1:1").unwrap_err());
    forbidden(socket::seqpacket().unwrap_err());
    assert!(
        Command::new("/bin/true").status().is_err()
            && std::thread::Builder::new().spawn(|| ()).is_err()
    );
}

fn root() -> bool {
    identity::effective_uid() == 0
}

const NOTHING: [&str; 5] = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];

fn has(status: &str, name: &str, value: &str) {
    let line = status.lines().find(|l| l.starts_with(name)).unwrap_or("");
    let words = |s: &str| s.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(words(line), format!("{name}: {value}").trim_end(), "{status}");
}

#[test]
fn root_becomes_nobody_with_nothing() {
    if !root() {
        return eprintln!("skipped: needs root");
    }
    let (printed, status, home) = inspected("root", true);
    assert!(printed.contains("apart: true, unconnected: true, filtered: true"), "{printed}");
    has(&status, "Uid", "12345 12345 12345 12345");
    has(&status, "Gid", "23456 23456 23456 23456");
    has(&status, "Groups", "");
    has(&status, "NoNewPrivs", "1");
    has(&status, "Seccomp", "2");
    NOTHING.iter().for_each(|c| has(&status, c, "0000000000000000"));
    assert!(home.ends_with(" (deleted)"), "{home}");
}

#[test]
fn an_ordinary_user_is_filtered_too() {
    // Started by root in its place, if need be.
    let (printed, status, _) = inspected("user", !root());
    assert!(printed.contains("apart: false, unconnected: false, filtered: true"), "{printed}");
    has(&status, "NoNewPrivs", "1");
    has(&status, "Seccomp", "2");
    has(&status, "CapEff", "0000000000000000");
}

#[test]
fn a_login_has_the_users_rights_alone() {
    if !root() {
        return eprintln!("skipped: needs root");
    }
    let (_, status, _) = inspected("answer", true);
    has(&status, "Seccomp", "2");
    let (_, status, _) = inspected("login", true);
    has(&status, "Uid", "12345 12345 12345 12345");
    has(&status, "Groups", "");
    has(&status, "NoNewPrivs", "1");
    has(&status, "CapPrm", "0000000000000000");
}

#[test]
fn the_keys_are_with_nothing() {
    if !root() {
        return eprintln!("skipped: needs root");
    }
    let (printed, status, home) = inspected("keys", true);
    assert!(printed.contains("apart: true, unconnected: true, filtered: true"), "{printed}");
    has(&status, "Groups", "");
    has(&status, "NoNewPrivs", "1");
    NOTHING.iter().for_each(|c| has(&status, c, "0000000000000000"));
    assert!(home.ends_with(" (deleted)"), "{home}");
}

#[test]
fn foreign_code_has_no_call_that_no_login_needs() {
    if !root() {
        return eprintln!("skipped: needs root");
    }
    let (_, status, _) = inspected("foreign", true);
    has(&status, "Seccomp", "2");
    has(&status, "NoNewPrivs", "0");
}

/// Processes that look something up have the same user.
fn signals_no_other() {
    // SAFETY: no memory is handed over.
    let signal = |pid: i32| check(unsafe { libc::kill(pid, 0) }).map_err(|e| e.raw_os_error());
    let mut child = Command::new("sleep").arg("60").spawn().unwrap();
    assert_eq!(signal(child.id() as i32), Ok(0), "its own");
    child.kill().and_then(|()| child.wait()).unwrap();
    let other = std::env::var("FIVED_TEST_OTHER").unwrap().parse().unwrap();
    let answer = signal(other);
    assert!(answer == Err(Some(libc::EPERM)) || own_signals().is_err(), "{answer:?}");
}

#[test]
fn helpers_of_one_user_cannot_end_each_other() {
    if !root() {
        return eprintln!("skipped: needs root");
    }
    use std::os::unix::process::CommandExt;
    let mut other = Command::new("sleep").arg("60").uid(WHO.0).gid(WHO.1).spawn().unwrap();
    let tests = std::env::current_exe().unwrap();
    let mut command = Command::new(tests);
    command.args(["--exact", "sys::confine::tests::inside", "--nocapture"]);
    command.env(TASK, "helper").env("FIVED_TEST_OTHER", other.id().to_string());
    let out = command.stdin(Stdio::null()).output().unwrap();
    other.kill().and_then(|()| other.wait()).unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(said.contains("reached None"), "{said}");
}
