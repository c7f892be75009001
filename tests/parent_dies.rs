//! The parent's death (SIGKILL, the kernel's want of memory): what is relayed goes on to its end,
//! nothing new begins, and with the last relay every process of fived is gone.

mod support;
#[path = "support/tls.rs"]
mod tls;
#[path = "support/yamux_raw.rs"]
mod yamux_raw;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use support::*;
use tls::Tls;
use yamux_raw::{DATA, FIN, GO_AWAY, RST, Raw, SYN, WINDOW};

const CONF: &str = "cat stream tcp nowait @USER@ /bin/cat cat\nhello stream tcp nowait @USER@ /bin/echo echo hello\n";

/// fived's own processes below its parent: no services.
fn own(d: &Daemon) -> Vec<i32> {
    let named = |pid: &i32| proc::arguments(*pid).first().is_some_and(|a| a.starts_with("fived-"));
    proc::descendants(d.parent_pid()).into_iter().filter(named).collect()
}

/// As inetd and sshd do it: fived(8), SIGNALS.
#[test]
fn a_signal_that_it_does_not_handle_leaves_files_that_the_next_start_replaces() {
    let place = Place::new();
    let (pid, path) = (place.at("pid"), place.at("s"));
    let conf = format!("own stream unix nowait @USER@ internal echo\n port = {path}\n");
    let start = || Daemon::with(&conf).arg("-p").arg(&pid).start();
    let mut d = start();
    for signal in [Signal::SIGQUIT, Signal::SIGVTALRM, Signal::SIGKILL] {
        let id = |d: &Daemon| format!("{}\n", d.parent_pid());
        d.signal(signal);
        assert_eq!(d.wait(), 128 + signal as i32);
        let last = d;
        assert!(UnixStream::connect(&path).is_err(), "{signal}");
        d = start();
        assert_ne!(id(&d), id(&last));
        assert_eq!(std::fs::read_to_string(&pid).expect("pidfile"), id(&d));
        let mut c = UnixStream::connect(&path).expect("the socket is replaced");
        c.write_all(b"x").expect("write");
        c.shutdown(Shutdown::Write).expect("shutdown");
        let mut text = String::new();
        c.read_to_string(&mut text).expect("read");
        assert_eq!(text, "x");
    }
}

fn gone(pids: &[i32]) -> bool {
    pids.iter().all(|p| !proc::alive(*p))
}

#[test]
fn what_is_relayed_goes_on_to_its_end_and_nothing_new_begins() {
    let mut d = Daemon::with(CONF).start();
    let mut relay = Tls::start(d.connect().0, "nobody.example");
    relay.send(b"cat\r\nx");
    relay.expect(b"+Go\r\nx");
    let mut c = d.connect();
    c.send("MULTIPLEX\r\n").expect("+ Success\r\n");
    let mut mux = Raw(c.0);
    mux.data(SYN, 1, "cat\r\n");
    same(mux.until(DATA, 0, 1).payload, "+Go\r\n");
    // A request that is not whole yet.
    mux.data(SYN, 3, "hel");
    let mut idle = Tls::start(d.connect().0, "nobody.example");
    let mut silent = d.connect();
    let mut plain = d.connect();
    plain.send("cat\r\nz").expect("+Go\r\nz");
    let (all, address) = (own(&d), d.address());
    d.signal(Signal::SIGKILL);
    d.wait();
    // Whoever has no service yet is let go.
    assert_eq!(idle.read_all(), b"");
    assert_eq!(silent.read_any(), b"");
    assert!(TcpStream::connect(address).is_err() || until_refused(address));
    mux.until(GO_AWAY, 0, 0);
    mux.until(WINDOW, RST, 3);
    mux.data(SYN, 5, "hello\r\n");
    mux.until(WINDOW, RST, 5);
    for n in 0..20 {
        let text = format!("{n}\n");
        relay.send(text.as_bytes());
        relay.expect(text.as_bytes());
        mux.data(0, 1, &text);
        same(mux.until(DATA, 0, 1).payload, &text);
        plain.send(&text).expect(&text);
    }
    relay.half_close();
    assert_eq!(relay.read_all(), b"");
    assert!(!gone(&all), "the stream is still relayed");
    mux.data(FIN, 1, "");
    assert_eq!(mux.stream(1), (Vec::new(), FIN));
    let ended = Instant::now();
    until("all of fived is gone", || gone(&all));
    assert!(ended.elapsed() < Duration::from_secs(20), "soon: a second is what the manual says");
    // A plain service has the client's own socket.
    plain.send("still").expect("still");
}

/// A program that is asked about a password takes as long as it likes.
#[test]
fn a_login_that_hangs_ends_with_it() {
    let script = "#!/bin/sh\necho $$ >@DIR@/hangs\nexec sleep 1000\n";
    let conf = format!("checkpassword = @DIR@/check\n{CONF}");
    let mut d = Daemon::with(&conf).file("check", script).start();
    let mut c = d.connect();
    c.send("AUTH\r\ndemo\r\nx\r\n").expect("+ Success\r\nEnter Username: Enter Password: ");
    until("it hangs", || {
        proc::descendants(d.parent_pid()).iter().any(|p| proc::arguments(*p) == ["sleep", "1000"])
    });
    let all = proc::descendants(d.parent_pid());
    d.signal(Signal::SIGKILL);
    d.wait();
    until("all of fived is gone, and the program", || gone(&all));
}

/// The listener is the parent's and net's: with the last that has it the port is closed.
fn until_refused(address: std::net::SocketAddr) -> bool {
    until("the port is closed", || TcpStream::connect(address).is_err());
    true
}

/// Starts services, many at a time, until fived has a process ready for the next one. No start is
/// under way then, so it stays the next one's.
fn spare(d: &Daemon) -> i32 {
    let mut found = None;
    until("a process that was made in advance", || {
        let ask = || (0..5).for_each(|_| same(d.ask("hello\r\n"), "+Go\r\nhello\n"));
        std::thread::scope(|s| (0..8).for_each(|_| drop(s.spawn(ask))));
        // It is made when the last start is over, and has its name a moment later.
        let end = Instant::now() + Duration::from_millis(300);
        while found.is_none() && Instant::now() < end {
            found = proc::spares(d.parent_pid()).first().copied();
        }
        found.is_some()
    });
    found.expect("found")
}

#[test]
fn a_process_that_was_made_in_advance_ends_with_it() {
    let mut d = Daemon::with(CONF).start();
    let killed = spare(&d);
    kill(Pid::from_raw(killed), Signal::SIGKILL).expect("kill");
    until("it has ended", || !proc::alive(killed));
    same(d.ask("hello\r\n"), "+Go\r\nhello\n");
    let made = spare(&d);
    d.signal(Signal::SIGKILL);
    d.wait();
    until("it has ended", || !proc::alive(made));
    // And where fived is asked to end, or has nothing to start.
    let mut d = Daemon::with(CONF).start();
    let made = spare(&d);
    until("it is not needed any more", || !proc::alive(made));
    let made = spare(&d);
    d.signal(Signal::SIGTERM);
    d.wait();
    assert!(!proc::alive(made));
}
