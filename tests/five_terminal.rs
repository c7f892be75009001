//! The service has a terminal, and the person's own is raw as long as it has it.

mod support;

use fived::sys::pty;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command};
use std::time::{Duration, Instant};
use support::*;

const CONF: &str = "sh stream tcp nowait @USER@ /bin/sh sh
 pty = yes
what stream tcp nowait @USER@ /bin/sh sh -c 'tty; stty size; echo term=$TERM; exit 7'
 pty = yes
bash stream tcp nowait @USER@ /bin/bash bash --norc -i
 pty = yes
cat stream tcp nowait @USER@ /bin/cat cat
 pty = yes
keys stream tcp nowait @USER@ /bin/sh sh -c 'cat; stty -icanon min 1; echo keys; head -c 1 | od -An -tx1; stty icanon; echo lines; cat; echo over'
 pty = yes
closes stream tcp nowait @USER@ /bin/sh sh -c 'echo last; exec </dev/null >/dev/null 2>&1; sleep 0.3; exit 5'
 pty = yes
stays stream tcp nowait @USER@ /bin/sh sh -c 'echo last; exec sleep 600 </dev/null >/dev/null 2>&1'
 pty = yes
leaves stream tcp nowait @USER@ /bin/sh sh -c 'setsid sleep 600 & while [ $(cut -f6 -d\" \" /proc/$!/stat) != $! ]; do :; done; echo left $!; exit 3'
 pty = yes
much stream tcp nowait @USER@ /bin/sh sh -c 'setsid sleep 600 & while [ $(cut -f6 -d\" \" /proc/$!/stat) != $! ]; do :; done; echo left $!; exec head -c 60000 /dev/zero'
 pty = yes
none stream tcp nowait @USER@ /bin/sh sh -c 'tty; read x; echo got $x'
";

/// A five on a terminal of its own, and whoever sits there.
struct Person {
    master: File,
    terminal: File,
    five: Child,
    seen: String,
    before: String,
}

impl Person {
    fn calls(f: &Five, words: &[&str]) -> Person {
        Person::runs(f, &[&["--accept-new", "-q", "-p", &f.port()], words].concat())
    }

    /// The same with these words alone.
    fn runs(f: &Five, words: &[&str]) -> Person {
        let (master, terminal) = pty::open(geteuid().as_raw(), 24, 80).expect("a terminal");
        let terminal = File::from(terminal);
        let end = || terminal.try_clone().expect("a descriptor");
        let before = modes(&terminal);
        let mut c = f.program("setsid");
        c.args(["-c", env!("CARGO_BIN_EXE_five")]);
        c.args(words).env("TERM", "vt220").stdin(end()).stdout(end()).stderr(end());
        let five = c.spawn().expect("five");
        Person { master: File::from(master), terminal, five, seen: String::new(), before }
    }

    fn types(&mut self, text: &str) -> &mut Person {
        self.master.write_all(text.as_bytes()).expect("the terminal");
        self
    }

    /// Waits until the terminal shows that, and forgets what was shown up to there.
    fn sees(&mut self, what: &str) -> &mut Person {
        let end = Instant::now() + TIMEOUT;
        while !self.seen.contains(what) {
            assert!(Instant::now() < end, "expected {what:?}, found {:?}", self.seen);
            let mut bytes = [0; 4096];
            match self.master.read(&mut bytes) {
                Ok(n) => self.seen += &String::from_utf8_lossy(&bytes[..n]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(e) => panic!("{e}"),
            }
        }
        let at = self.seen.find(what).expect("it was seen") + what.len();
        self.seen.drain(..at);
        self
    }

    /// How five ended: its status, or the signal as a negative number. Its terminal is as before.
    fn ended(&mut self) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        until("five has ended", || self.five.try_wait().expect("five").is_some());
        let status = self.five.wait().expect("five");
        assert_eq!(modes(&self.terminal), self.before, "the terminal's settings");
        status.code().unwrap_or_else(|| -status.signal().unwrap_or(0))
    }

    fn is_raw(&self) -> bool {
        modes(&self.terminal) != self.before
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        let _ = self.five.kill().and_then(|()| self.five.wait());
    }
}

/// The settings of a terminal, as stty(1) saves them.
fn modes(terminal: &File) -> String {
    let mut c = Command::new("stty");
    let out = c.arg("-g").stdin(terminal.try_clone().expect("a descriptor")).output();
    String::from_utf8(out.expect("stty").stdout).expect("text")
}

const H: &str = "127.0.0.1";

#[test]
fn a_shell_has_a_terminal_that_follows_the_person_s() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    let mut p = Person::calls(&f, &[H, "what"]);
    p.sees("/dev/pts/").sees("\r\n24 80\r\n").sees("term=vt220\r\n");
    assert_eq!(p.ended(), 7);

    let mut p = Person::calls(&f, &["-x", H, "sh"]);
    p.types("PS1=; stty -echo; echo be$((1))gin; stty size\n").sees("be1gin\r\n24 80\r\n");
    assert!(p.is_raw());
    pty::resize(p.master.as_fd(), 50, 132).expect("resize");
    // The size is on its way: the shell waits for it.
    p.types("until [ \"$(stty size)\" = '50 132' ]; do sleep 0.05; done; echo lar$((1))ger\n");
    p.sees("lar1ger\r\n");
    // What is typed gets there as it is typed: Control-C is the service's.
    p.types("sh -c 'echo sle$((1))eps; exec sleep 600'\n").sees("sle1eps\r\n");
    p.types("\x03echo go$((1))es on\n").sees("go1es on\r\n");
    p.types("exit 9\n");
    assert_eq!(p.ended(), 9);
}

/// Through a socket of this computer it is the same.
#[test]
fn a_door_on_this_computer_gives_a_terminal_too() {
    let conf = format!("listen = 127.0.0.1:0 @DIR@/fived\n{CONF}");
    let d = Daemon::with(&conf).listen("").start();
    let (f, path) = (Five::new(&d), d.place.at("fived"));
    d.wait_log(&format!("listening on {path}"));
    let mut p = Person::runs(&f, &[&path, "what"]);
    p.sees("/dev/pts/").sees("\r\n24 80\r\n").sees("term=vt220\r\n");
    assert_eq!(p.ended(), 7);

    let mut p = Person::runs(&f, &[&path, "sh"]);
    p.types("PS1=; stty -echo; echo be$((1))gin; stty size\n").sees("be1gin\r\n24 80\r\n");
    assert!(p.is_raw());
    pty::resize(p.master.as_fd(), 50, 132).expect("resize");
    p.types("until [ \"$(stty size)\" = '50 132' ]; do sleep 0.05; done; echo lar$((1))ger\n");
    p.sees("lar1ger\r\n");
    p.types("sh -c 'echo sle$((1))eps; exec sleep 600'\n").sees("sle1eps\r\n");
    p.types("\x03echo go$((1))es on\n").sees("go1es on\r\n");
    p.types("~.");
    assert_eq!(p.ended(), 255);
    until("the shell has ended", || d.services().is_empty());

    // Without a terminal of the service, this one's settings stay.
    let mut p = Person::runs(&f, &[&path, "none"]);
    p.sees("not a tty");
    assert!(!p.is_raw());
    p.types("~.\n").sees("got ~.");
    assert_eq!(p.ended(), 0);
    for signal in [1, 2, 15] {
        let mut p = Person::runs(&f, &[&path, "sh"]);
        until("it is raw", || p.is_raw());
        signals::send(&p.five, signal);
        assert_eq!(p.ended(), -signal, "{signal}");
        until("the shell has ended", || d.services().is_empty());
    }
}

#[test]
fn the_terminal_is_as_before_whatever_ends_five() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    for signal in signals::ending() {
        let mut p = Person::calls(&f, &[H, "sh"]);
        p.types("echo be$((1))gin\n").sees("be1gin");
        until("it is raw", || p.is_raw());
        signals::send(&p.five, signal);
        assert_eq!(p.ended(), -signal, "{signal}");
        until("the shell has ended", || d.services().is_empty());
    }
    // The session is ended, or its holder is killed.
    for killed in [false, true] {
        let mut p = Person::calls(&f, &[H, "sh"]);
        p.types("echo be$((1))gin\n").sees("be1gin");
        until("it is raw", || p.is_raw());
        match killed {
            true => kill(Pid::from_raw(f.holder()), Signal::SIGKILL).expect("kill"),
            false => assert_eq!(f.run(&["-O", "exit", H]).0, 0),
        }
        assert_eq!(p.ended(), 255, "killed: {killed}");
    }
}

#[test]
fn a_question_shows_what_is_typed_again_whatever_ends_five() {
    let d = Daemon::with("hello stream tcp nowait @USER@ /bin/echo echo hello\n").start();
    let f = Five::new(&d);
    for signal in signals::ending() {
        let mut p = Person::calls(&f, &["-x", "-l", "demo", H, "hello"]);
        p.sees("Password: ");
        until("nothing is shown", || p.is_raw());
        signals::send(&p.five, signal);
        assert_eq!(p.ended(), -signal, "{signal}");
        // What the shell shows next is on a line of its own.
        p.sees("\r\n");
    }
}

#[test]
fn ssh_keygen_s_question_leaves_the_terminal_as_before_too() {
    if !installed("ssh-keygen") {
        return skip("needs ssh-keygen");
    }
    let d = Daemon::with("hello stream tcp nowait @USER@ /bin/echo echo hello\n").start();
    let (f, key) = (Five::new(&d), d.place.at("key"));
    let words = ["-q", "-t", "ed25519", "-N", "open sesame", "-f", &key];
    assert!(Command::new("ssh-keygen").args(words).status().expect("ssh-keygen").success());
    for signal in signals::ending() {
        let mut p = Person::calls(&f, &["-x", "-l", "demo", "-i", &key, H, "hello"]);
        p.sees("Enter passphrase");
        until("nothing is shown", || p.is_raw());
        signals::send(&p.five, signal);
        assert_eq!(p.ended(), -signal, "{signal}");
    }
}

/// The server waits for a request for a second only.
#[test]
fn who_types_a_passphrase_slowly_is_logged_in_too() {
    if !installed("ssh-keygen") {
        return skip("needs ssh-keygen");
    }
    let conf = "request_timeout = 1\nauthorized_keys = @KEYS@/%u\n
who stream tcp nowait @USER@ /bin/sh sh -c 'echo by=$FIVED_AUTH'\n";
    let d = Daemon::with(conf).start();
    let (f, key) = (Five::new(&d), d.place.at("key"));
    let words = ["-q", "-t", "ed25519", "-N", "open sesame", "-f", &key];
    assert!(Command::new("ssh-keygen").args(words).status().expect("ssh-keygen").success());
    d.place.write_keys("demo", &read(&format!("{key}.pub")));
    let mut p = Person::calls(&f, &["-x", "-l", "demo", "-i", &key, H, "who"]);
    p.sees("Enter passphrase");
    // One that connects now, and says nothing, has been ended before it is typed.
    d.connect().read_any();
    p.types("open sesame\n").sees("by=pubkey");
    assert_eq!(p.ended(), 0);
}

/// When it signs it shows nothing that is typed, and does not end when it is asked to.
const STUBBORN: &str = "#!/bin/sh
case $* in *sign*) trap '' TERM; stty -echo </dev/tty; exec sleep 60;; esac
";

#[test]
fn an_ssh_keygen_that_must_be_killed_leaves_the_terminal_as_before_too() {
    if !installed("ssh-keygen") {
        return skip("needs ssh-keygen");
    }
    let d = Daemon::with("hello stream tcp nowait @USER@ /bin/echo echo hello\n").start();
    let key = d.place.at("key");
    let words = ["-q", "-t", "ed25519", "-N", "", "-f", &key];
    assert!(Command::new("ssh-keygen").args(words).status().expect("ssh-keygen").success());
    std::fs::create_dir(d.place.at("bin")).expect("bin");
    d.place.write("bin/ssh-keygen", STUBBORN, 0o755);
    let path = format!("{}:{}", d.place.at("bin"), std::env::var("PATH").expect("PATH"));
    let f = Five::new(&d).env("PATH", &path);
    let mut p = Person::calls(&f, &["-x", "-l", "demo", "-i", &key, H, "hello"]);
    until("nothing is shown", || p.is_raw());
    signals::send(&p.five, 15);
    assert_eq!(p.ended(), -15);
}

#[test]
fn escapes_are_typed_at_the_beginning_of_a_line() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    let mut p = Person::calls(&f, &[H, "sh"]);
    until("it is raw", || p.is_raw());
    p.types("echo x~.y\r").sees("\nx~.y\r\n");
    p.types("~~; echo tilde$((1))\r").sees("~; echo").sees("tilde1\r\n");
    p.types("~.");
    assert_eq!(p.ended(), 255);
    until("the shell has ended", || d.services().is_empty());
}

#[test]
fn messages_begin_at_the_left_while_the_terminal_is_raw() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    let path = d.place.at("forward");
    let forward = format!("{path}:nosuch");
    let mut p = Person::runs(&f, &["--accept-new", "-p", &f.port(), "-L", &forward, H, "sh"]);
    until("it is raw", || p.is_raw());
    drop(std::os::unix::net::UnixStream::connect(&path).expect("the forward"));
    p.sees("nosuch: Service not available").sees(")\r\n");
    p.types("exit\r");
    assert_eq!(p.ended(), 0);
}

#[test]
fn an_escape_is_obeyed_at_once_while_the_holder_takes_nothing() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    let mut p = Person::calls(&f, &[H, "sh"]);
    until("it is raw", || p.is_raw());
    let holder = Pid::from_raw(f.holder());
    kill(holder, Signal::SIGSTOP).expect("kill");
    // More than the socket between five and the holder takes.
    let (line, mut left) = ([b'x'; 1024], 700);
    until("everything is typed", || {
        while left > 0 && p.master.write_all(&line).is_ok() {
            left -= 1;
        }
        left == 0
    });
    until("the rest is typed", || p.master.write_all(b"\r").is_ok());
    until("the escape is typed", || p.master.write_all(b"~.").is_ok());
    let ended = p.ended();
    kill(holder, Signal::SIGCONT).expect("kill");
    assert_eq!(ended, 255);
    until("the shell has ended", || d.services().is_empty());
}

/// It is no output of the service's terminal: the person's ends its lines.
#[test]
fn a_banner_is_shown_before_the_terminal_is_raw() {
    let conf = CONF.to_string() + " banner = @DIR@/banner\n";
    let conf = conf
        + "shell stream tcp nowait @USER@ /bin/sh sh -c 'printf \"a\\nb\\n\"; exec sh'\n pty = yes\n banner = @DIR@/banner\n";
    let long = "be nice\n".repeat(1000);
    let d = Daemon::with(&conf).file("banner", &long).start();
    let f = Five::new(&d);
    for words in [&[H, "shell"][..], &["-x", H, "shell"]] {
        let mut p = Person::calls(&f, words);
        p.sees(&(long.replace('\n', "\r\n") + "a\r\nb\r\n"));
        until("it is raw", || p.is_raw());
        p.types("exit 9\n");
        assert_eq!(p.ended(), 9);
    }
    // Without a terminal of the service.
    let mut p = Person::calls(&f, &[H, "none"]);
    p.sees("be nice\r\nnot a tty\r\n");
}

#[test]
fn who_asks_for_no_terminal_and_who_gets_none() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    let mut p = Person::calls(&f, &["-T", H, "what"]);
    p.sees("not a tty");
    assert_eq!(p.ended(), 7);
    // The row gives none: the person's terminal goes on editing lines, and nothing is an escape.
    let mut p = Person::calls(&f, &["-t", H, "none"]);
    p.sees("not a tty");
    assert!(!p.is_raw());
    p.types("~.\n").sees("got ~.");
    assert_eq!(p.ended(), 0);
    // Where it is not called from a terminal, it asks if it is told to.
    assert!(f.run(&[H, "what"]).1.starts_with("not a tty"));
    let (status, out, _) = f.run(&["-t", H, "what"]);
    assert!(status == 7 && out.starts_with("/dev/pts/"), "{status} {out}");
}

/// Its terminal hangs up only after it: programs close their standard output before they end.
#[test]
fn a_service_that_closes_its_terminal_is_not_ended_by_that() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    for x in ["-t", "-tx"] {
        let (status, out, _) = f.run(&[x, H, "closes"]);
        assert_eq!((status, &*out), (5, "last\r\n"), "{x}");
    }
    // It hangs up when its client leaves, too.
    let mut p = Person::calls(&f, &["-x", H, "stays"]);
    p.sees("last\r\n");
    drop(p);
    assert!(d.wait_log("EXIT service=stays ").contains(" signal=1 "));
    let is_terminal =
        |pid: &i32| proc::arguments(*pid).first().is_some_and(|a| a == "fived-terminal");
    until("no process of a terminal is left", || {
        !proc::children(d.parent_pid()).iter().any(is_terminal)
    });
}

/// A terminal hangs up after its service, whoever else has it, as sshd's does; nothing that the
/// service has written is lost.
#[test]
fn what_a_service_leaves_at_its_terminal_keeps_nobody_waiting() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    for (service, status, bytes) in [("leaves", 3, 0), ("much", 0, 60_000)] {
        let (found, out, _) = f.run(&["-tx", H, service]);
        let (first, rest) = out.split_once("\r\n").expect("a line");
        let pid = first.strip_prefix("left ").and_then(|pid| pid.parse().ok()).expect("a number");
        assert!(proc::alive(pid), "{service}");
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("killed");
        assert_eq!((found, rest.len()), (status, bytes), "{service}");
    }
}

/// A terminal that hands every key to its reader, as shells and editors have it, keeps no end of
/// the input that came before, and gets another one.
#[test]
fn the_end_of_the_input_reaches_who_reads_lines_and_who_reads_keys() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    for x in ["-t", "-tx"] {
        let (status, out, _) = f.run(&[x, H, "keys"]);
        assert_eq!(status, 0);
        for said in ["keys\r\n", " 04\r\n", "lines\r\n", "over\r\n"] {
            assert!(out.contains(said), "{said:?}: {out:?}");
        }
        // Control-D ends only the line if one has begun.
        assert_eq!(f.run_with(&[x, H, "cat"], b"no line end").0, 0);
    }
    if installed("bash") {
        assert_eq!(f.run(&["-t", H, "bash"]).0, 0);
    }
}
