//! Options and exit statuses.

mod support;
use std::process::Command;
use support::*;

const CONF: &str = "hello stream tcp nowait @USER@ /bin/echo echo hello\n";

#[test]
fn version_and_help() {
    for word in ["-V", "--version"] {
        let (code, out, err) = run(&[word]);
        assert_eq!(
            (code, out.as_str(), err.as_str()),
            (0, concat!("fived ", env!("CARGO_PKG_VERSION"), "\n"), "")
        );
    }
    for word in ["-h", "--help"] {
        let (code, out, err) = run(&[word]);
        assert_eq!((code, err.as_str()), (0, ""));
        let long = [
            "--config",
            "--listen",
            "--test",
            "--table",
            "--decide",
            "--background",
            "--pidfile",
            "--debug",
            "--passwd",
            "--fingerprint",
        ];
        assert!(long.iter().all(|o| out.contains(o)), "{out}");
    }
}

#[test]
fn wrong_use_exits_1_and_says_why() {
    let wrong: [&[&str]; 7] = [
        &["-x"],
        &["word"],
        &["-l", "nowhere"],
        &["-l", "127.0.0.1:99999"],
        &["-f"],
        &["-C", "service=x"],
        &["--frobnicate"],
    ];
    for words in wrong {
        let (code, out, err) = run(words);
        assert_eq!((code, out.as_str()), (1, ""), "{words:?}");
        assert!(
            err.starts_with("fived: ")
                && err.contains(words.last().expect("a word").trim_start_matches('-')),
            "{words:?}: {err}"
        );
    }
}

#[test]
fn a_missing_configuration_exits_1() {
    for task in ["-t", "-T", "-l127.0.0.1:0"] {
        let (code, _, err) = run(&["-f", "/nonexistent/fived.conf", task]);
        assert_eq!(code, 1, "{err}");
        assert!(err.contains("/nonexistent/fived.conf"), "{err}");
    }
}

#[test]
fn a_wrong_configuration_does_not_start() {
    let (code, err) = Daemon::with("one stream tcp maybe nobody /bin/cat\nfrobnicate\n").fails();
    assert_eq!(code, 1);
    assert!(err.contains("fived.conf:2: maybe: ") && err.contains("fived.conf:3: "), "{err}");
}

#[test]
fn a_test_says_ok() {
    let (code, out, err) = Place::new().fived(CONF, &["-t"]);
    assert_eq!((code, out.as_str(), err.as_str()), (0, "configuration OK\n", ""));
}

/// As in `fived -t 2>&1 | head -1`.
#[test]
fn a_standard_error_that_nobody_reads_does_not_change_the_exit_status() {
    let wrong = "one stream tcp maybe nobody /bin/cat\n";
    let missing = "one stream tcp nowait @USER@ /nonexistent\n";
    for (conf, words, wanted) in [(wrong, "-t", 1), (missing, "-t", 0), (CONF, "--no-such", 1)] {
        let place = Place::new();
        let conf = place.write("fived.conf", &place.fill(conf), 0o644);
        let (reader, writer) = std::io::pipe().expect("pipe");
        drop(reader);
        let status = Command::new(env!("CARGO_BIN_EXE_fived"))
            .args(["-f", &conf, words])
            .stderr(writer)
            .status();
        assert_eq!(status.expect("fived").code(), Some(wanted), "{conf} {words}");
    }
}

#[test]
fn an_address_in_use_exits_111() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("listener");
    let address = taken.local_addr().expect("address").to_string();
    let (code, err) = Daemon::with(CONF).listen(&address).fails();
    assert_eq!(code, 111, "{err}");
    assert!(err.contains(&address), "{err}");
}

#[test]
fn the_fingerprint_is_that_of_the_log() {
    let d = Daemon::with(CONF).start();
    let (code, out, err) = run(&["-f", &d.place.at("fived.conf"), "--fingerprint"]);
    assert_eq!(code, 0, "{err}");
    let base64 =
        out.strip_prefix("sha256//").and_then(|o| o.strip_suffix('\n')).expect("one fingerprint");
    assert_eq!(base64.len(), 44);
    d.wait_log(out.trim_end());
}

#[test]
fn debug_says_more() {
    let d = Daemon::with(CONF).arg("-dd").start();
    same(d.ask("hello\r\n"), "+Go\r\nhello\n");
    d.wait_log("EXIT service=hello");
}

#[test]
fn a_home_that_cannot_be_entered_does_not_keep_an_ordinary_user_from_starting() {
    if !root() {
        return skip("needs root, to be somebody else");
    }
    let place = Place::new();
    place.write("home/.local/state/fived/cert.pem", "not this user's\n", 0o600);
    std::fs::set_permissions(place.at("home"), std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .expect("mode");
    let home = place.at("home");
    let d = Daemon::with("cat stream tcp nowait @USER@ /bin/cat cat\n")
        .user("nobody")
        .stateless()
        .env("HOME", &home)
        .start();
    d.wait_log("the certificate is kept for this run only");
    same(d.connect().send("cat\r\nx").half_close().read_all(), "+Go\r\nx");
}

/// What fived opens first must not become its standard input or output by chance.
#[test]
fn standard_descriptors_that_are_closed_are_those_of_dev_null() {
    if !root() {
        return skip("needs root");
    }
    let closed = "exec \"$0\" \"$@\" <&- >&-";
    let d = Daemon::with(CONF).under(&["sh", "-c", closed]).start();
    for n in 0..2 {
        let at = std::fs::read_link(format!("/proc/{}/fd/{n}", d.parent_pid()));
        assert_eq!(at.expect("open"), std::path::Path::new("/dev/null"), "{n}");
    }
    same(d.ask("hello\r\n"), "+Go\r\nhello\n");
}
