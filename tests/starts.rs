//! `+Go` comes only when the program may be executed. What a row's path leads to, and
//! what its service does, holds up nobody else.

mod support;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use std::fs::OpenOptions;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::*;

const HELLO: &str = "+Go\r\nhello\n";

/// With `x`, whose program is @DIR@/x, and `hello`.
fn daemon(files: &[(&str, &str)]) -> Daemon {
    let conf =
        "hello stream tcp nowait @USER@ /bin/echo echo hello\nx stream tcp nowait @USER@ @DIR@/x\n";
    files.iter().fold(Daemon::with(conf), |d, (name, text)| d.file(name, text)).start()
}

/// `x` is refused before `+Go`, and nobody else waits meanwhile. Returns the log's line.
fn refused(d: &Daemon) -> String {
    // A machine may be slow for a moment; whoever has to wait for another's start does so each time.
    let soon = |_| {
        let mut c = d.connect();
        c.send("x\r\n");
        let began = Instant::now();
        same(d.ask("hello\r\n"), HELLO);
        let took = began.elapsed();
        same(c.read_all(), FAILED);
        took < Duration::from_millis(2500)
    };
    assert!((0..4).any(soon), "{}", d.log());
    d.wait_log("REFUSE service=x host= from=127.0.0.1 reason=failed")
}

#[test]
fn a_program_that_is_a_pipe() {
    let d = daemon(&[("x", "#!/bin/sh\n")]);
    std::fs::remove_file(d.place.at("x")).expect("remove");
    mkfifo(d.place.at("x").as_str(), Mode::from_bits_truncate(0o755)).expect("mkfifo");
    assert!(refused(&d).contains("Permission denied"));
}

#[test]
fn an_interpreter_that_is_a_pipe() {
    let d = daemon(&[("x", "#!@DIR@/pipe\n")]);
    mkfifo(d.place.at("pipe").as_str(), Mode::from_bits_truncate(0o755)).expect("mkfifo");
    assert!(refused(&d).contains("interpreter"));
}

#[test]
fn a_program_on_which_somebody_holds_a_lease() {
    let d = daemon(&[("x", "#!/bin/sh\n")]);
    if !installed("perl") {
        return skip("needs perl");
    }
    let mut holder = Command::new("perl")
        .args(["-e", LEASE])
        .arg(d.place.at("x"))
        .stdout(Stdio::piped())
        .spawn()
        .expect("perl");
    let mut ready = [0; 1];
    std::io::Read::read_exact(holder.stdout.as_mut().expect("piped"), &mut ready).expect("a lease");
    refused(&d);
    holder.kill().and_then(|()| holder.wait()).expect("kill");
}

/// Takes a write lease on the file that it is given, says so, and sleeps; a signal that the lease
/// is wanted is ignored.
const LEASE: &str = r#"
    $SIG{IO} = 'IGNORE'; open my $f, '<', $ARGV[0] or die $!;
    # Refused while anybody else has the file open; another test's child may, for a moment.
    for (1..1000) { last if fcntl($f, 1024, 1); select undef, undef, undef, 0.01 }
    fcntl($f, 1025, 0) == 1 or die; $| = 1; print 'y'; sleep 60"#;

#[test]
fn a_program_that_is_open_for_writing() {
    let d = daemon(&[("x", "")]);
    std::fs::copy("/bin/true", d.place.at("x")).expect("copy");
    let writer = OpenOptions::new().append(true).open(d.place.at("x")).expect("x");
    let line = refused_if_known(&d);
    drop(writer);
    nobody_writes(d.place.at("x"));
    if let Some(line) = line {
        assert!(line.contains("Text file busy"), "{line}");
    }
    same(d.ask("x\r\n"), GO);
}

/// None, and skipped, where the kernel is older than Linux 6.14 and has no such question.
fn refused_if_known(d: &Daemon) -> Option<String> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("osrelease");
    let number = |n: usize| {
        release.split(['.', '-']).nth(n).and_then(|w| w.parse::<u32>().ok()).unwrap_or(0)
    };
    if (number(0), number(1)) < (6, 14) {
        println!("SKIPPED: only Linux 6.14 tells it before exec");
        return None;
    }
    Some(refused(d))
}

#[test]
fn a_word_that_no_program_can_be_given() {
    let long = "a".repeat(128 * 1024);
    let conf = format!(
        "x stream tcp nowait @USER@ /bin/true true {long}\ny stream tcp nowait @USER@ /bin/true true\n env = A={long}\n"
    );
    let place = Place::new();
    let (code, _, err) = place.fived(&conf, &["-t"]);
    assert_eq!((code, err.matches("a word of more than 131071 bytes").count()), (0, 2), "{err}");
    let d = Daemon::with(&conf).start();
    same(d.ask("x\r\n"), FAILED);
    same(d.ask("y\r\n"), FAILED);
}

#[test]
fn words_that_are_too_long_together() {
    if !root() {
        return skip("needs root for a limit above its own");
    }
    // Each is short enough; all together are more than a quarter of the stack's limit.
    let words = vec!["a".repeat(100_000); 6].join(" ");
    let conf = format!("x stream tcp nowait @USER@ /bin/true true {words}\n rlimit_stack = 1M\n");
    let d = Daemon::with(&conf).start();
    same(d.ask("x\r\n"), FAILED);
    d.wait_log("Argument list too long");
}

/// A service whose socket is full when it ends, and is to be closed only when the client has taken
/// all, or after a minute.
const LINGERS: &str = r#"
    #include <string.h>
    #include <sys/socket.h>
    int main(void) {
        static char much[1 << 20];
        struct linger linger = { 1, 60 };
        setsockopt(1, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
        while (send(1, much, sizeof much, MSG_DONTWAIT) > 0);
        return 0;
    }"#;

/// It is the service `x`, beside `hello`, of a fived under this command.
fn lingering(under: &[&str]) -> Option<Daemon> {
    if !installed("cc") {
        skip("needs a C compiler");
        return None;
    }
    let hello = "hello stream tcp nowait @USER@ /bin/echo echo hello\n";
    let d = Daemon::with(&format!("{hello}x stream tcp nowait @USER@ @DIR@/x\n"));
    let d = d.file("x.c", LINGERS).under(under);
    let built = Command::new("cc")
        .args(["-static", "-O2", "-o"])
        .args([d.place.at("x"), d.place.at("x.c")])
        .status()
        .expect("cc");
    assert!(built.success());
    Some(d.start())
}

#[test]
fn a_service_that_lingers_holds_up_nobody() {
    let Some(mut d) = lingering(&[]) else { return };
    // Of a session, too: its thread has the connection until it is told that the service runs.
    let mut all: Vec<Client> = (0..32).map(|_| d.connect()).collect();
    for (n, c) in all.iter_mut().enumerate() {
        c.send(if n % 2 == 0 { "x\r\n" } else { "HOST\r\n\r\nx\r\n" });
    }
    for _ in 0..8 {
        let began = Instant::now();
        same(d.ask("hello\r\n"), HELLO);
        assert!(began.elapsed() < Duration::from_secs(30), "they linger for a minute");
    }
    until("all have ended", || d.log().matches("EXIT service=x").count() == 32);
    d.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(d.wait(), 0);
}

/// A child has copies of the connections of those that start beside it. strace(1) holds it up where
/// it closes them.
#[test]
fn a_service_that_lingers_holds_up_nobody_who_starts_beside_it() {
    if !installed("strace") {
        return skip("needs strace");
    }
    let late = "inject=close_range:delay_enter=300000:when=2";
    let words = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=close_range", "-e", late];
    let Some(d) = lingering(&words) else { return };
    let mut all: Vec<Client> = (0..8).map(|_| d.connect()).collect();
    for c in &mut all {
        c.send("x\r\n");
    }
    until("all have ended", || d.log().matches("EXIT service=x").count() == 8);
}

/// In a mount namespace of its own, in which /etc/passwd is the test's file `users`.
fn with_users(conf: &str) -> Builder {
    let passwd = std::fs::read_to_string("/etc/passwd").expect("/etc/passwd");
    let mount = "mount --bind \"$0\" /etc/passwd && exec \"$@\"";
    Daemon::with(conf).file("users", &passwd).under(&[
        "unshare",
        "-m",
        "sh",
        "-c",
        mount,
        "@DIR@/users",
    ])
}

const USERS: &str = "hello stream tcp nowait nobody /bin/echo echo hello\nx stream tcp nowait later /usr/bin/id id -un\n";

#[test]
fn a_user_who_was_made_after_the_start() {
    if !root() || !installed("unshare") {
        return skip("needs root and unshare");
    }
    let d = with_users(USERS).start();
    d.wait_log("later: no such user");
    assert!(refused(&d).contains("later: no such user"));
    let passwd = std::fs::read_to_string(d.place.at("users")).expect("users");
    std::fs::write(d.place.at("users"), format!("{passwd}later:x:54321:54321::/:/bin/sh\n"))
        .expect("users");
    same(d.ask("x\r\n"), "+Go\r\nlater\n");
}

/// As with sshd and login, a user without a home is served all the same.
#[test]
fn whose_home_cannot_be_entered_is_served_in_the_root_directory() {
    if !root() || !installed("unshare") {
        return skip("needs root and unshare");
    }
    let homes =
        [("gone", "/nonexistent"), ("none", ""), ("file", "@DIR@/users"), ("shut", "@DIR@/shut")];
    let passwd = passwords(&homes.map(|(name, _)| name));
    let conf = "passwords = @DIR@/passwords
where stream tcp nowait * /bin/sh sh -c 'pwd; echo $HOME'
given stream tcp nowait * /bin/pwd pwd
 directory = /nonexistent
";
    let d = with_users(conf).file("passwords", &passwd);
    let users = std::fs::read_to_string(d.place.at("users")).expect("users");
    let line = |(name, home): &(&str, &str)| format!("{name}:x:54321:54321::{home}:/bin/sh\n");
    let users: String = std::iter::once(users).chain(homes.iter().map(line)).collect();
    d.place.write("users", &users, 0o644);
    std::fs::create_dir(d.place.at("shut")).expect("directory");
    std::fs::set_permissions(d.place.at("shut"), std::fs::Permissions::from_mode(0o700))
        .expect("mode");
    let d = d.start();
    let ask = |name: &str, service: &str| {
        let all = d.ask(format!("AUTH\n{name}\ndemopass\n{service}\n"));
        let text = String::from_utf8(all).expect("text");
        text.split_once(" successful\r\n").expect("a login").1.to_string()
    };
    for (name, home) in homes {
        // No home is `/` (passwd(5)).
        let home = if home.is_empty() { "/".into() } else { d.place.fill(home) };
        same(ask(name, "where"), format!("+Go\r\n/\n{home}\n"));
        same(ask(name, "given"), FAILED);
    }
    d.wait_log("/nonexistent: directory: ");
}

#[test]
fn a_name_service_that_does_not_answer() {
    if !root() || !installed("unshare") || !installed("nsenter") {
        return skip("needs root, unshare and nsenter");
    }
    let hash = "$5$salt$Gcm6FsVtF/Qa77ZKD.iwsJlCVPY0XSMgLJL0Hnww/c1";
    let d = with_users(&format!("passwords = @DIR@/passwords\n{USERS}"))
        .file("passwords", &format!("later:{hash}\n"))
        .start();
    // Whoever opens a pipe waits for the other end.
    mkfifo(d.place.at("pipe").as_str(), Mode::from_bits_truncate(0o644)).expect("mkfifo");
    let (target, pipe) = (format!("--target={}", d.parent_pid()), d.place.at("pipe"));
    let mounted = Command::new("nsenter")
        .args([&target, "--mount", "mount", "--bind", &pipe, "/etc/passwd"])
        .status();
    assert!(mounted.expect("nsenter").success());
    let mut waits: Vec<Client> = (0..8).map(|_| d.connect()).collect();
    for c in &mut waits {
        c.send("x\r\n");
    }
    let mut login = d.connect();
    login.send("AUTH\r\nlater\r\nwrong\r\n");
    for _ in 0..4 {
        let began = Instant::now();
        same(d.ask("hello\r\n"), HELLO);
        let waiting = |c: &mut Client| c.silent(1);
        assert!(began.elapsed() < Duration::from_secs(5) || waits.iter_mut().any(waiting));
    }
    waits.iter_mut().for_each(|c| same(c.read_all(), FAILED));
    until("the log says why", || {
        d.log().contains("user later: the name service did not answer within 5 s")
    });
    until("nothing is left of it", || d.services().is_empty());
    // Nor when fived ends, or is killed.
    let mut d = d;
    let waits = |pid: &i32| {
        let user = proc::try_status(*pid, "Uid").is_some_and(|ids| !ids.starts_with("0 "));
        let stat = proc::stat(*pid).is_some_and(|stat| stat[0] == "S");
        user && stat && proc::arguments(*pid).first().is_some_and(|a| a == "fived-service")
    };
    until("a look-up waits", || {
        d.connect().send("x\r\n");
        d.services().iter().any(waits)
    });
    let all = proc::descendants(d.parent_pid());
    d.signal(Signal::SIGKILL);
    d.wait();
    until("all of fived is gone", || all.iter().all(|p| !proc::alive(*p)));
}
