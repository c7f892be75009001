//! The internal services.

mod support;
use support::*;

fn daemon() -> Daemon {
    let rows = ["echo", "discard", "chargen", "daytime", "time", "status"];
    let conf: String =
        rows.iter().map(|r| format!("{r} stream tcp nowait @USER@ internal\n")).collect();
    Daemon::with(&conf).start()
}

#[test]
fn echo_gives_back_what_it_gets() {
    let d = daemon();
    same(d.ask("echo\r\nthere and\r\nback"), "+Go\r\nthere and\r\nback");
    let mut c = d.connect();
    c.send("echo\r\n").expect(GO);
    for word in ["one", "two"] {
        c.send(word).expect(word);
    }
    c.half_close().end();
}

#[test]
fn discard_takes_everything_and_says_nothing() {
    let d = daemon();
    let mut c = d.connect();
    c.send("discard\r\n").expect(GO).send(vec![7; 300_000]).half_close().end();
}

#[test]
fn chargen_goes_round_the_printable_characters() {
    let d = daemon();
    let mut c = d.connect();
    c.send("chargen\r\n").expect(GO);
    let printable: Vec<u8> = (b' '..=b'~').collect();
    for first in 0..200 {
        let line: Vec<u8> = (0..72).map(|i| printable[(first + i) % 95]).collect();
        c.expect([&line[..], b"\r\n"].concat());
    }
}

#[test]
fn daytime_is_one_line() {
    let text = String::from_utf8(daemon().ask("daytime\r\n")).expect("ASCII");
    let line = text.strip_prefix(GO).and_then(|t| t.strip_suffix("\r\n")).expect("a line");
    assert!(
        line.contains("20") && line.matches(':').count() >= 2 && !line.contains('\n'),
        "{line}"
    );
}

#[test]
fn time_is_seconds_since_1900() {
    let bytes = daemon().ask("time\r\n");
    let number = bytes.strip_prefix(GO.as_bytes()).expect("go").try_into().expect("four bytes");
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("now").as_secs();
    let wanted = (now + 2_208_988_800) as u32;
    assert!(wanted.wrapping_sub(u32::from_be_bytes(number)) < 60);
}

#[test]
fn status_tells_what_runs() {
    let d = daemon();
    let mut c = d.connect();
    c.send("echo\r\nx").expect("+Go\r\nx");
    let text = String::from_utf8(d.ask("status\r\n")).expect("ASCII");
    let line = text.lines().find(|l| l.contains("service=echo")).expect("the echo");
    assert!(line.contains("from=127.0.0.1"), "{text}");
    assert!(line.contains(&format!("pid={}", d.service("fived-service"))), "{text}");
}

#[test]
fn a_client_that_goes_ends_the_service() {
    let d = daemon();
    for name in ["chargen", "echo", "discard"] {
        let mut c = d.connect();
        c.send(format!("{name}\r\n")).expect(GO);
    }
    until("no service is left", || d.services().is_empty());
    d.wait_logs("EXIT service=", 3);
}

#[test]
fn they_run_as_the_row_s_user_without_fived_s_descriptors() {
    let d = daemon();
    let mut c = d.connect();
    c.send("echo\r\nx").expect("+Go\r\nx");
    let pid = d.service("fived-service");
    let uid = nix::unistd::User::from_name(&user()).expect("passwd").expect("user").uid.to_string();
    assert_eq!(proc::status(pid, "Uid"), [&*uid; 4].join(" "));
    let open: Vec<i32> = proc::descriptors(pid).iter().map(|d| d.0).collect();
    assert_eq!(open, [0, 1, 2]);
}

/// What a default for other rows says of their root does not keep fived's own services from
/// starting.
#[test]
fn they_need_nothing_in_a_chroot() {
    let d = Daemon::with("chroot = @DIR@\ndirectory = /\necho stream tcp nowait @USER@ internal\n")
        .start();
    same(d.ask("echo\r\nhere"), "+Go\r\nhere");
}
