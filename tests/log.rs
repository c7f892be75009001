//! Log lines. One event, one line, bounded, escaped; and a log that nobody reads blocks nobody.

mod support;
#[path = "support/tls.rs"]
mod tls;
use nix::sys::signal::Signal;
use support::*;

const CONF: &str = "hello stream tcp nowait @USER@ /bin/echo echo hello\ncat stream tcp nowait @USER@ /bin/cat cat\n";
const HELLO: &str = "+Go\r\nhello\n";

/// The value of `key=value` in a line.
fn word<'a>(line: &'a str, key: &str) -> &'a str {
    let words = line.split(' ').find_map(|w| w.strip_prefix(key)?.strip_prefix('='));
    words.unwrap_or_else(|| panic!("{key} in {line}"))
}

fn keys(line: &str) -> Vec<&str> {
    line.split(' ').map(|w| w.split('=').next().expect("a word")).collect()
}

#[test]
fn start_and_exit() {
    let d = Daemon::with(CONF).start();
    let mut c = d.connect();
    c.send("CAT\r\nx").expect("+Go\r\nx");
    let pid = d.service("cat").to_string();
    let start = d.wait_log("START ");
    assert_eq!(keys(&start), ["START", "service", "host", "pid", "from", "session"]);
    assert_eq!(
        [word(&start, "service"), word(&start, "host"), word(&start, "pid"), word(&start, "from")],
        ["cat", "", &pid, "127.0.0.1"]
    );
    c.half_close().end();
    let exit = d.wait_log("EXIT ");
    assert_eq!(keys(&exit), ["EXIT", "service", "pid", "status", "duration", "session"]);
    assert_eq!(
        [word(&exit, "pid"), word(&exit, "status"), word(&exit, "session")],
        [&*pid, "0", word(&start, "session")]
    );
    let (seconds, thousandths) = word(&exit, "duration").split_once('.').expect("S.mmm");
    assert!(seconds.parse::<u32>().is_ok() && thousandths.len() == 3);
}

/// `journalctl -p warning` shows the warnings, and nothing else.
#[test]
fn warnings_have_their_priority_in_the_journal() {
    let conf = format!("{CONF}missing stream tcp nowait @USER@ /no/such/program\n");
    let journal = "JOURNAL_STREAM=$(stat -L -c %d:%i /dev/fd/2) exec \"$0\" \"$@\"";
    let d = Daemon::with(&conf).under(&["sh", "-c", journal]).start();
    same(d.ask("missing\r\n"), "-Service failed\r\n");
    same(d.ask("hello\r\n"), HELLO);
    d.wait_log("EXIT service=hello");
    let log = d.log();
    let wrong = |l: &&str| l.starts_with("<4>") != l.contains("WARN ");
    let marked = log.lines().filter(|l| l.starts_with("<4>WARN ")).count();
    assert!(marked > 0 && !log.lines().any(|l| wrong(&l)), "{log}");
    // It is not the service's affair, and another descriptor is not the journal.
    let d = Daemon::with(&conf).env("JOURNAL_STREAM", "1:2").start();
    d.wait_log("WARN ");
    assert!(!d.log().contains("<4>"), "{}", d.log());
}

#[test]
fn sessions_have_numbers_of_their_own() {
    let d = Daemon::with(CONF).start();
    for _ in 0..5 {
        same(d.ask("hello\r\n"), HELLO);
    }
    let mut numbers: Vec<String> =
        d.wait_logs("START ", 5).iter().map(|l| word(l, "session").to_string()).collect();
    numbers.sort();
    numbers.dedup();
    assert_eq!(numbers.len(), 5);
}

#[test]
fn refusals_have_reasons() {
    let d = Daemon::with("off stream tcp nowait @USER@ /bin/cat\n disable = yes\ntls stream tcp nowait @USER@ /bin/cat\n require = tls\nin stream tcp nowait @USER@ /bin/cat\n require = login\n").start();
    for (name, reason) in
        [("none", "unknown"), ("off", "disabled"), ("tls", "tls"), ("in", "login")]
    {
        same(d.ask(format!("{name}\r\n")), NOT_AVAILABLE);
        let line =
            d.wait_log(&format!("REFUSE service={name} host= from=127.0.0.1 reason={reason}"));
        assert_eq!(keys(&line)[..5], ["REFUSE", "service", "host", "from", "reason"], "{line}");
    }
    same(d.ask("x".repeat(300)), TOO_LONG);
    d.wait_log("reason=too-long");
}

#[test]
fn what_a_stranger_sends_is_one_word_of_one_line() {
    let d = Daemon::with(CONF).start();
    same(d.ask(b"evil\rSTART service=x \x1b[2J\xff\\\n"), NOT_AVAILABLE);
    let line = d.wait_log("REFUSE ");
    assert!(line.contains(r"service=evil\x0dSTART\x20service=x\x20\x1b[2J\xff\\ "), "{line}");
    assert!(!d.log().lines().any(|l| l.starts_with("START")));
}

/// A warning is of fived's own making: a library that finds fault with a stranger's bytes is not to
/// wake anybody.
#[test]
fn a_stranger_makes_no_warning_of_a_library() {
    let d = Daemon::with(CONF).start();
    let name = rustls::pki_types::ServerName::try_from("nobody.example").expect("a name");
    let mut conn = rustls::ClientConnection::new(tls::config(&[]), name).expect("a client");
    let mut hello = Vec::new();
    conn.write_tls(&mut hello).expect("a hello");
    let at = hello.windows(14).position(|w| w == b"nobody.example").expect("its name");
    hello[at] = 0xff;
    let mut c = d.connect();
    c.send(&hello).read_any();
    d.wait_log("END session=");
    assert!(!d.log().contains("WARN"), "{}", d.log());
}

#[test]
fn lines_are_bounded() {
    let d = Daemon::with(CONF).start();
    same(d.ask([&[0xff; 255][..], b"\r\n"].concat()), NOT_AVAILABLE);
    let line = d.wait_log("REFUSE service=");
    assert!(line.len() < 1000, "{}", line.len());
    assert!(line.ends_with(" host= from=127.0.0.1 reason=unknown"), "who it was is told: {line}");
    assert!(d.log().lines().all(|l| l.len() < 1000));
}

#[test]
fn debugging_says_more_and_much_more() {
    let debug_lines = |d: &[&str]| {
        let d = d.iter().fold(Daemon::with(CONF), |b, a| b.arg(a)).start();
        same(d.ask("hello\r\n"), HELLO);
        same(d.ask("x\x1b\r\n"), NOT_AVAILABLE);
        d.wait_log("REFUSE service=x");
        d.log()
    };
    let (none, some, much) = (debug_lines(&[]), debug_lines(&["-d"]), debug_lines(&["-dd"]));
    assert!(
        !none.contains("DEBUG")
            && some.contains(
                "request \"hello\" from 127.0.0.1 host=0 tls=false user=None: asking for service 0"
            ),
        "{some}"
    );
    assert!(
        some.contains(": refused, Denied(Unknown)")
            && !some.contains('\x1b')
            && !some.contains("TRACE fived"),
        "{some}"
    );
    assert!(much.contains("TRACE fived::parent::nets: net "), "{much}");
}

#[test]
fn attributes_choose_what_is_logged() {
    let conf = "log_on_success = HOST\nlog_on_failure = ATTEMPT\na stream tcp nowait @USER@ /bin/echo echo a\nb stream tcp nowait @USER@ /bin/echo echo b\n log_on_success += PID EXIT\n disable = no\n\
                c stream tcp nowait @USER@ /bin/cat\n disable = yes\nd stream tcp nowait @USER@ /bin/echo echo d\n log_on_success =\n";
    let d = Daemon::with(conf).start();
    for name in ["d", "a", "C", "b"] {
        d.ask(format!("{name}\r\n"));
    }
    assert_eq!(
        keys(&d.wait_log("START service=a")),
        ["START", "service", "host", "from", "session"]
    );
    let start = d.wait_log("START service=b");
    assert_eq!(keys(&start), ["START", "service", "host", "pid", "from", "session"]);
    let exit = d.wait_log("EXIT service=b");
    assert_eq!(keys(&exit), ["EXIT", "service", "pid", "status", "session"]);
    let refuse = d.wait_log("REFUSE service=c");
    assert!(!refuse.contains("from=") && refuse.contains("reason=disabled"), "{refuse}");
    let log = d.log();
    assert!(!log.contains("EXIT service=a") && !log.contains("service=d "), "{log}");
}

#[test]
fn a_log_that_nobody_reads_never_blocks_service() {
    let d = Daemon::with(CONF).start();
    let name = "n".repeat(250);
    let requests = trial_size("log", 1_500, 30_000);
    let gate = d.unread();
    for n in 0..requests {
        // Each source may have a hundred lines.
        let mut c = d.connect_from(&format!("127.1.{}.{}", n / 10_000, 1 + n / 100 % 100));
        same(c.send(format!("{name}\r\n")).read_all(), NOT_AVAILABLE);
    }
    same(d.ask("hello\r\n"), HELLO);
    drop(gate);
    let line = d.wait_log("lost ");
    let count =
        line.split(' ').skip_while(|w| *w != "lost").nth(1).and_then(|n| n.parse::<u32>().ok());
    assert!(line.ends_with(" lines") && count.is_some_and(|n| n > 0), "{line}");
    // And it goes on.
    same(d.ask("hello\r\n"), HELLO);
    until("lines again", || d.log().rfind("START service=hello") > d.log().find("lost "));
    assert!(d.log().lines().all(|l| l.len() < 1000), "none is torn");
    let lost = count.unwrap_or(0);
    trial(
        "log",
        format!("{requests} requests answered while nobody read, {lost} lines lost and said"),
    );
}

#[test]
fn a_log_that_is_closed_blocks_nobody() {
    let d = Daemon::with(&format!("log_type = FILE /dev/full\n{CONF}")).start_unlogged();
    for _ in 0..20 {
        same(d.ask("hello\r\n"), HELLO);
    }
}

/// Nothing is made for it.
#[test]
fn a_log_that_cannot_be_opened_does_not_pass_the_test() {
    let place = Place::new();
    let (conf, file) = (place.at("test.conf"), place.write("file", "", 0o644));
    let tested = |log: &str| {
        place.write("test.conf", &place.fill(&format!("log_type = FILE {log}\n{CONF}")), 0o644);
        run(&["-t", "-f", &conf])
    };
    let directory = place.at("");
    for (log, why) in [
        (place.at("none/log"), "No such file or directory (os error 2)"),
        (format!("{file}/log"), "Not a directory (os error 20)"),
        (directory, "Is a directory (os error 21)"),
    ] {
        let wanted = format!("{conf}:1: log_type: {log}: {why}\n");
        assert_eq!(tested(&log), (1, String::new(), wanted));
    }
    let new = place.at("new");
    for log in [&file, &new, "/dev/null"] {
        assert_eq!(tested(log), (0, "configuration OK\n".into(), String::new()));
    }
    assert!(!std::path::Path::new(&new).exists());
}

#[test]
fn a_file_may_be_the_log_and_then_each_line_has_its_time() {
    let d = Daemon::with(&format!("log_type = FILE @DIR@/log\n{CONF}")).start_unlogged();
    same(d.ask("hello\r\n"), HELLO);
    same(d.ask(format!("{}\r\n", "x".repeat(255))), NOT_AVAILABLE);
    let text = || std::fs::read_to_string(d.place.at("log")).unwrap_or_default();
    until("its lines", || {
        text().contains(" START service=hello ") && text().contains(" EXIT service=hello ")
    });
    let shape = "dddd-dd-ddTdd:dd:dd.dddZ ";
    for line in text().lines() {
        let head: String = line
            .chars()
            .take(shape.len())
            .map(|c| if c.is_ascii_digit() { 'd' } else { c })
            .collect();
        assert!(head == shape && line.len() < 1000, "{line}");
    }
}

/// More clients wait at a port than a turn of the parent serves, and none of them is logged.
#[test]
fn lines_are_written_while_there_is_always_something_to_do() {
    let who = if root() { "root".into() } else { user() };
    let (bad, look) = (free_address(), free_address());
    let d = Daemon::with(&format!(
        "log_type = FILE @DIR@/log\nlog_on_success =\nmax_services_per_source = 1000\n\
         bad stream tcp nowait {who} /no/such\n port = {bad}\n\
         look stream tcp nowait {who} /bin/sh sh -c 'grep -c \"REFUSE service=bad\" @DIR@/log'\n port = {look}\n"
    ))
    .start_unlogged();
    same(Client::connect(look).read_all(), "0\n");
    d.signal(Signal::SIGSTOP);
    let mut refused = Client::connect(bad);
    let mut all: Vec<Client> = (0..300).map(|_| Client::connect(look)).collect();
    d.signal(Signal::SIGCONT);
    same(refused.read_all(), "");
    // A turn serves 64 clients. Where starts are slow some are refused (reason=processes).
    let replies = all.iter_mut().skip(100).map(Client::read_all);
    let served: Vec<_> = replies.filter(|reply| !reply.is_empty()).collect();
    assert!(!served.is_empty() && served.iter().all(|reply| reply == b"1\n"), "{served:?}");
}
