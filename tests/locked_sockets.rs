//! A program can keep the kernel's lock of a socket for as long as it likes: a call with memory that
//! somebody else has to provide (userfaultfd(2), FUSE) waits for that with the lock taken. Whoever
//! then makes a call on the same socket that takes the lock waits too, and no signal ends that. So
//! nothing that serves all makes such a call on a socket that a program has. Likewise it can keep
//! the last close of a socket waiting: by a wait for events of the socket (epoll(7)) with such
//! memory. So nothing that serves all closes one that a program has had.

mod support;

use nix::sys::signal::Signal;
use std::net::{TcpStream, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};
use support::*;

/// At its first start it leaves a process that keeps the lock, for 90 s at most or until the test
/// releases it, and ends when that has it. What is `watched` is not locked: only its last close
/// will wait, and the process has no copy of it.
const LOCKS: &str = r#"
    #define _GNU_SOURCE
    #include <fcntl.h>
    #include <linux/filter.h>
    #include <linux/userfaultfd.h>
    #include <poll.h>
    #include <pthread.h>
    #include <signal.h>
    #include <stdlib.h>
    #include <string.h>
    #include <sys/epoll.h>
    #include <sys/ioctl.h>
    #include <sys/mman.h>
    #include <sys/socket.h>
    #include <sys/syscall.h>
    #include <termios.h>
    #include <unistd.h>

    static char *nothing;
    static int events;

    static void *watch(void *none) {
        epoll_wait(events, (void *)nothing, 1, -1);
        return 0;
    }

    static void *say(void *none) {
        write(2, nothing, 4096);
        return 0;
    }

    static void *size(void *none) {
        ioctl(0, TIOCGWINSZ, nothing);
        return 0;
    }

    static void *read_all(void *none) {
        read(0, nothing, 4096);
        return 0;
    }

    static void *set(void *none) {
        struct termios mode;
        tcgetattr(0, &mode);
        tcsetattr(0, TCSANOW, &mode);
        return 0;
    }

    static void *lock(void *listens) {
        struct sock_fprog filter = { 1, (void *)nothing };
        if (listens) setsockopt(0, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter);
        else send(0, nothing, 4096, MSG_DONTWAIT);
        return 0;
    }

    static void *(*begins(char *what))(void *) {
        if (strstr(what, "size")) return size;
        if (strstr(what, "mode")) return read_all;
        if (strstr(what, "log") || strstr(what, "terminal")) return say;
        return strstr(what, "watched") ? watch : lock;
    }

    int main(int n, char **words) {
        static char much[1 << 16];
        struct linger linger = { 1, 60 };
        struct uffdio_api api = { .api = UFFD_API };
        struct uffdio_register page = { .mode = UFFDIO_REGISTER_MODE_MISSING };
        struct epoll_event any = { EPOLLIN | EPOLLOUT };
        char *what = words[1], locked;
        int watched = !!strstr(what, "watched");
        int told[2];
        struct pollfd room = { 0, POLLOUT };
        if (strstr(what, "terminal")) signal(SIGHUP, SIG_IGN);
        if (strstr(what, "full")) while (poll(&room, 1, 500) > 0) send(0, much, sizeof much, MSG_DONTWAIT);
        if (strstr(what, "linger")) setsockopt(0, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
        if (strstr(what, "datagram")) recv(0, much, sizeof much, MSG_DONTWAIT);
        if (strstr(what, "listener") && (!watched || !access(words[2], F_OK))) close(accept(0, 0, 0));
        if (!access(words[2], F_OK)) return 0;
        if (watched) epoll_ctl(events = epoll_create1(0), EPOLL_CTL_ADD, 0, &any);
        close(open(words[2], O_CREAT | O_WRONLY, 0600));
        if (pipe(told)) return 1;
        if (fork()) {
            close(told[1]);
            int is = read(told[0], &locked, 1);
            for (int n = 0; n < 900 && strstr(what, "terminal") && access(words[3], F_OK); n++) usleep(100000);
            return is == 1 ? 0 : 1;
        }
        for (int n = 0; n < 3; n++) if (watched || strstr(what, "log") && n < 2) close(n);
        int faults = syscall(SYS_userfaultfd, O_NONBLOCK);
        nothing = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        page.range.start = (unsigned long)nothing;
        page.range.len = 4096;
        if (ioctl(faults, UFFDIO_API, &api) || ioctl(faults, UFFDIO_REGISTER, &page)) return 1;
        pthread_t thread;
        int whole = strstr(what, "datagram") || strstr(what, "listener");
        if (strstr(what, "mode")) {
            struct termios mode;
            tcgetattr(0, &mode);
            cfmakeraw(&mode);
            tcsetattr(0, TCSANOW, &mode);
            write(1, "raw", 3);
            for (int come = 0; come < 2048; ioctl(0, FIONREAD, &come)) usleep(10000);
        }
        pthread_create(&thread, 0, begins(what), whole ? words : 0);
        struct pollfd fault = { faults, POLLIN };
        poll(&fault, 1, -1);
        if (strstr(what, "mode")) pthread_create(&thread, 0, set, 0);
        if (strstr(what, "mode")) usleep(200000);
        close(open(words[4], O_CREAT | O_WRONLY, 0600));
        write(told[1], "x", 1);
        for (int n = 0; n < 900 && !access(words[4], F_OK) && access(words[3], F_OK); n++) usleep(100000);
        _exit(0);
    }"#;

fn conf(attributes: &str, what: &str) -> String {
    let attributes = attributes.replace(
        "PROGRAM",
        &format!("nobody @DIR@/x x {what} @DIR@/once @DIR@/release @DIR@/kept"),
    );
    format!(
        "shutdown_timeout = 600\nhello stream tcp nowait @USER@ /bin/echo echo hello\nx {attributes}"
    )
}

/// The service `x`, beside `hello`. None: it cannot be tried here.
fn locks(attributes: &str, what: &str) -> Option<Daemon> {
    if !root() || !installed("cc") {
        skip("needs root, and a C compiler");
        return None;
    }
    let d = Daemon::with(&conf(attributes, what));
    let d = d.file("x.c", LOCKS);
    let built = Command::new("cc")
        .args(["-static", "-O2", "-w", "-pthread", "-o"])
        .args([d.place.at("x"), d.place.at("x.c")])
        .status()
        .expect("cc");
    assert!(built.success());
    // Only root may have the kernel wait for such memory (userfaultfd(2)), whoever starts it.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o4755);
    std::fs::set_permissions(d.place.at("x"), mode).expect("mode");
    Some(d.start())
}

/// A client of `x`: by name, or at its port.
fn come(d: &Daemon, what: &str) -> Option<Client> {
    match what {
        "datagram" => {
            let from = UdpSocket::bind("127.0.0.1:0").expect("bind");
            from.send_to(b"x", d.port(0)).expect("send");
        }
        "listener" => drop(TcpStream::connect(d.port(0)).expect("connect")),
        _ => {
            let mut c = d.connect();
            c.send("x\r\n").expect("+Go\r\n");
            return Some(c);
        }
    }
    None
}

/// Everybody else is served while the lock is kept.
fn others_are_served(d: &Daemon) {
    let began = Instant::now();
    assert!(d.wait_log("EXIT service=x").contains(" status=0 "), "{}", d.log());
    for _ in 0..4 {
        same(d.ask("hello\r\n"), "+Go\r\nhello\n");
    }
    assert!(began.elapsed() < TIMEOUT, "the lock is kept for longer\n{}", d.log());
}

#[test]
fn of_a_service_whose_output_was_not_taken() {
    for what in ["full", "full,linger"] {
        let Some(d) = locks("stream tcp nowait PROGRAM\n", what) else { return };
        let mut c = d.connect();
        c.send("RUN\r\nx\r\n").expect("+ Success\r\n+Go\r\n");
        others_are_served(&d);
    }
}

#[test]
fn of_a_service_whose_close_lingers() {
    for what in ["", "linger"] {
        let row = "stream tcp nowait PROGRAM\n lingering_close = yes\n";
        let Some(d) = locks(row, &format!("service,{what}")) else { return };
        let mut c = d.connect();
        c.send("x\r\n").expect("+Go\r\n");
        others_are_served(&d);
        assert!(!d.log().contains("has not answered"), "{}", d.log());
    }
}

#[test]
fn of_a_socket_that_a_program_has_whole() {
    for (row, what) in [("dgram udp", "datagram"), ("stream tcp", "listener")] {
        let row = format!("{row} wait PROGRAM\n port = 127.0.0.1:0\n");
        let Some(d) = locks(&row, what) else { return };
        come(&d, what);
        others_are_served(&d);
        d.wait_log("a process keeps the lock of this socket");
        if what == "listener" {
            let began = Instant::now();
            d.reload(&conf(&format!("{row} backlog = 17\n"), what));
            same(d.ask("hello\r\n"), "+Go\r\nhello\n");
            assert!(began.elapsed() < TIMEOUT, "{}", d.log());
        }
        come(&d, what);
        d.place.write("release", "", 0o600);
        // Whoever comes when it has been given back is served.
        d.wait_logs("EXIT service=x", 2);
    }
}

/// fived ends while the lock is kept, which is for longer than `wait` waits.
fn it_ends(row: &str, what: &str) {
    for (signal, code) in [(Signal::SIGTERM, 0), (Signal::SIGUSR2, 0), (Signal::SIGKILL, 137)] {
        let Some(mut d) = locks(row, what) else { return };
        let _client = come(&d, what);
        others_are_served(&d);
        if what != "service" {
            d.wait_log("a process keeps the lock of this socket");
        }
        d.signal(signal);
        assert_eq!(d.wait(), code);
    }
}

#[test]
fn of_a_fived_that_ends_after_a_close_that_lingers() {
    it_ends("stream tcp nowait PROGRAM\n lingering_close = yes\n", "service");
}

#[test]
fn of_a_fived_that_ends_after_a_program_of_datagrams() {
    it_ends("dgram udp wait PROGRAM\n port = 127.0.0.1:0\n", "datagram");
}

#[test]
fn of_a_fived_that_ends_after_a_program_that_listens() {
    it_ends("stream tcp wait PROGRAM\n port = 127.0.0.1:0\n", "listener");
}

#[test]
fn of_a_user_whose_closes_linger_beside_those_of_others() {
    let row = "stream tcp nowait PROGRAM\n lingering_close = yes\ny stream tcp nowait daemon /bin/echo echo hello\n lingering_close = yes\n";
    let Some(d) = locks(row, "service") else { return };
    let _client = come(&d, "service");
    others_are_served(&d);
    for _ in 0..4 {
        // It is reset where what the service does not read is not discarded.
        same(d.ask("y\r\nwhat nobody reads"), "+Go\r\nhello\n");
    }
}

#[test]
fn of_a_port_that_a_reload_gives_to_a_second_row() {
    // The system could give those of its own range to somebody else, at another address.
    let [port, other] = [free_port(), free_port()];
    let row = format!(
        "stream tcp wait PROGRAM\n port = 127.0.0.1:{port}\n\
         z stream tcp nowait daemon /bin/echo echo hello\n port = 127.0.0.1:{other}\n"
    );
    let Some(d) = locks(&row, "listener") else { return };
    come(&d, "listener");
    others_are_served(&d);
    let second = "y stream tcp nowait daemon /bin/echo echo hello\n port = 0.0.0.0:";
    let both = conf(&format!("{row}{second}{port}\n"), "listener");
    assert!(d.reload(&both).contains("refused"), "{}", d.log());
    d.wait_log("the system has not answered in time: a process may keep the lock of a socket");
    same(d.ask("hello\r\n"), "+Go\r\nhello\n");
    // It holds up that port alone.
    let beside = conf(&format!("{row}{second}{other}\n"), "listener");
    assert!(!d.reload(&beside).contains("refused"), "{}", d.log());
    d.place.write("release", "", 0o600);
    until("the lock was given back", || !d.reload(&both).contains("refused"));
}

#[test]
fn of_a_service_whose_socket_nobody_can_close() {
    let lingering = "stream tcp nowait PROGRAM\n lingering_close = yes\n";
    for (row, request) in [("stream tcp nowait PROGRAM\n", "RUN\r\nx\r\n"), (lingering, "x\r\n")] {
        let Some(d) = locks(row, "watched") else { return };
        let mut c = d.connect();
        c.send(request).expect(if request == "x\r\n" { "+Go\r\n" } else { "+ Success\r\n+Go\r\n" });
        others_are_served(&d);
    }
}

#[test]
fn of_a_port_without_a_row_whose_socket_nobody_can_close() {
    let row = "stream tcp wait PROGRAM\n port = 127.0.0.1:0\n";
    let Some(d) = locks(row, "listener,watched") else { return };
    come(&d, "listener");
    d.wait_logs("EXIT service=x", 2);
    d.reload("hello stream tcp nowait @USER@ /bin/echo echo hello\n");
    others_are_served(&d);
}

#[test]
fn of_a_user_whose_sockets_nobody_can_close_beside_those_of_others() {
    let row = "stream tcp nowait PROGRAM\ny stream tcp nowait daemon /bin/echo echo hello\n";
    let Some(d) = locks(row, "watched") else { return };
    let mut n = 0;
    // Those of that user are closed by a few processes, and each of these waits.
    until("it is busy for that user", || {
        let _ = std::fs::remove_file(d.place.at("once"));
        let mut c = d.connect();
        c.send("RUN\r\nx\r\n").expect("+ Success\r\n");
        if c.read_any_of(5) == b"-Serv" {
            return true;
        }
        n += 1;
        d.wait_logs("EXIT service=x", n);
        std::thread::sleep(Duration::from_millis(100));
        false
    });
    d.wait_log(" reason=processes");
    for _ in 0..4 {
        same(d.ask("y\r\n"), "+Go\r\nhello\n");
    }
    d.place.write("release", "", 0o600);
    until("what waited was closed", || d.ask("hello\r\n") == b"+Go\r\nhello\n");
}

/// So is the log, where a service has it too.
#[test]
fn of_the_log() {
    let Some(d) = locks("stream tcp nowait PROGRAM\n stderr = log\n", "log") else { return };
    let mut c = d.connect();
    c.send("x\r\n").expect("+Go\r\n").end();
    for _ in 0..100 {
        same(d.ask("hello\r\n"), "+Go\r\nhello\n");
    }
    assert!(!d.log().contains("EXIT"), "it is not kept\n{}", d.log());
    d.place.write("release", "", 0o600);
    d.wait_logs("EXIT service=hello", 100);
}

/// Nor does the parent ask a terminal anything that its user has got: who changes its line
/// discipline has each such call wait.
#[test]
fn of_a_terminal_that_is_asked() {
    if !root() || !installed("strace") {
        return skip("needs root and strace");
    }
    let d = Daemon::with("x stream tcp nowait nobody /bin/echo echo x\n pty = yes\n").start();
    let calls = Calls::of_parent(&d, &["-y"]);
    let mut c = d.connect();
    c.send("RUN\r\nx pty xterm 24 80\r\n").expect("+ Success\r\n+Go\r\n");
    d.wait_log("EXIT service=x");
    let calls = calls.end();
    let (made, got) = calls.split_once("clone(").expect("a start");
    assert!(made.contains("</dev/pts/"), "{calls}");
    let asks = |l: &&str| l.starts_with("ioctl(") && l.contains("</dev/pts/");
    assert_eq!(got.lines().find(asks), None);
}

/// Whoever closes the other end of a terminal waits for who writes there; who gives it another size,
/// for who asks for that; and who asks for its mode, for who reads it while somebody sets that.
#[test]
fn of_a_terminal() {
    let resize = b"\x02\0\0\x04\0\x32\0\x84";
    let input = [b"\0\0\x08\0".as_slice(), &[b'x'; 2048]].concat();
    let end = b"\x01\0\0\0";
    for (what, before, then) in [
        ("terminal", &b""[..], &b""[..]),
        ("terminal,size", b"", resize),
        ("terminal,mode", &input, end),
    ] {
        let row = "stream tcp nowait PROGRAM\n pty = yes\n";
        let Some(d) = locks(row, what) else { return };
        let mut c = d.connect();
        c.send("RUN\r\nx pty xterm 24 80\r\n").expect("+ Success\r\n+Go\r\n");
        c.send(before);
        until("it is kept", || std::fs::exists(d.place.at("kept")).expect("a path"));
        c.send(then);
        std::thread::sleep(Duration::from_millis(300));
        drop(c);
        d.wait_log("END session=");
        d.reload(&conf(row, what));
        // The network process from before has no thread that waits.
        until("it ends", || d.nets().len() == 1);
        same(d.ask("hello\r\n"), "+Go\r\nhello\n");
        d.place.write("release", "", 0o600);
    }
}
