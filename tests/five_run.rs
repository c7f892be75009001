//! SPEC 7.5, five: a service's exit status is five's, and its standard error is five's.

mod support;

use support::*;

const CONF: &str = "both stream tcp nowait @USER@ /bin/sh sh -c 'echo out; echo err >&2; exit 3'
killed stream tcp nowait @USER@ /bin/sh sh -c 'kill -TERM $$'
cat stream tcp nowait @USER@ /bin/cat cat
backup stream tcp nowait @USER@ /bin/sh sh -c 'cat >/dev/null; echo 7; exit 9'
far stream tcp nowait @USER@ /bin/sh sh -c 'exec 1>&-; sleep 0.3; echo late >&2; exit 5'
flood stream tcp nowait @USER@ /bin/sh sh -c 'head -c 3000000 /dev/zero | tr \"\\0\" e >&2; head -c 3000000 /dev/zero'
tcpmux/own stream tcp nowait @USER@ /bin/sh sh -c 'printf \"+mine\\r\\nout\\n\"; exit 4'
tcpmux/no stream tcp nowait @USER@ /bin/sh sh -c 'printf \"%s\\r\\n\" \"-not now\"'
[main]
own stream tcp nowait @USER@ /bin/sh sh -c 'echo own; echo err >&2; exit 6'
";

#[test]
fn its_exit_status_and_its_standard_error_are_five_s() {
    let d = Daemon::with(CONF).start();
    let five = Five::new(&d);
    let ran =
        |words: &[&str], input: &[u8]| five.run_with(&[&["localhost"], words].concat(), input);
    let is = |(status, out, err): (i32, String, String)| (status, out, err);
    // It learns the server's key, and says so.
    assert_eq!(ran(&["cat"], b"").0, 0);
    for words in [&["both"][..], &["-x", "both"]] {
        assert_eq!(is(ran(words, b"")), (3, "out\n".into(), "err\n".into()), "{words:?}");
    }
    assert_eq!(is(ran(&["killed"], b"")), (128 + 15, String::new(), String::new()));
    assert_eq!(is(ran(&["cat"], b"x\ny")), (0, "x\ny".into(), String::new()));
    assert_eq!(is(ran(&["far"], b"")), (5, String::new(), "late\n".into()));
    assert_eq!(is(ran(&["-H", "main", "own"], b"")), (6, "own\n".into(), "err\n".into()));
    assert_eq!(is(ran(&["own"], b"")), (4, "out\n".into(), String::new()));
    let (status, out, err) = ran(&["flood"], b"");
    assert_eq!((status, out.len(), err.len()), (0, 3_000_000, 3_000_000));
    // Its own statuses: refused, and no session or wrong use.
    for name in ["nothing", "HELP", "no"] {
        assert_eq!(ran(&[name], b"").0, 254, "{name}");
    }
    assert_eq!(ran(&["cat", "more"], b"").0, 255);
    let plain = ran(&["--plain", "both"], b"");
    assert_eq!(is(plain), (0, "out\nerr\n".into(), String::new()));
}

#[test]
fn scripts_see_it() {
    let d = Daemon::with(CONF).start();
    let five = Five::new(&d);
    let script = |text: &str| {
        let mut shell = five.program("bash");
        shell.args(["-c", text]).env("FIVE", env!("CARGO_BIN_EXE_five")).env("P", five.port());
        let out = shell.output().expect("bash");
        (out.status.code(), String::from_utf8_lossy(&out.stdout).into_owned())
    };
    if !installed("bash") {
        return skip("needs bash");
    }
    let call = "$FIVE -p $P --accept-new -l '' localhost";
    let text = format!("set -o pipefail; echo x | {call} backup | cat; echo $?");
    assert_eq!(script(&text), (Some(0), "7\n9\n".into()));
    let text = format!("{call} backup </dev/null || exit; echo not reached");
    assert_eq!(script(&text), (Some(9), "7\n".into()));
    // Standard error goes where the caller's goes, and closing it harms nobody.
    let text = format!("{call} both 2>&1 >/dev/null; {call} both 2>&-; echo $?");
    assert_eq!(script(&text), (Some(0), "err\nout\n3\n".into()));
}
