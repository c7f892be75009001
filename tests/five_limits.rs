//! five: limits of the shell that it is called from (`ulimit`), and who is bound by them.

mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::process::Child;
use support::five::{ended, finish, piped};
use support::{Daemon, Five, until};

const CONF: &str = "
date  stream tcp nowait @USER@ /bin/date date
big   stream tcp nowait @USER@ /bin/sh sh -c 'head -c 300000 /dev/zero; exit 4'
loud  stream tcp nowait @USER@ /bin/sh sh -c 'head -c 300000 /dev/zero >&2; exit 4'
ready stream tcp nowait @USER@ /bin/sh sh -c 'echo ready; exec cat'
";
const H: &str = "127.0.0.1";
/// How a program ends that has written a file beyond its limit.
const BEYOND: i32 = 128 + 25;

/// five, called from a shell after these commands.
fn after(f: &Five, commands: &str, words: &[&str]) -> Child {
    let script = format!("{commands}; exec \"$@\"");
    piped(&mut f.command_by("setsid", &["sh", "-c", &script, "sh"], words))
}

/// The same, to its end.
fn ran_after(f: &Five, commands: &str, words: &[&str]) -> (i32, String, String) {
    finish(after(f, commands, words), b"")
}

/// The same, with this file as its standard output; how it ended, its standard error, and how many
/// bytes the file has.
fn into_file(f: &Five, commands: &str, words: &[&str]) -> (i32, String, u64) {
    let path = format!("{}/out", f.home);
    let (status, _, err) = ran_after(f, &format!("{commands}; exec >{path}"), words);
    (status, err, std::fs::metadata(path).expect("a file").len())
}

/// A line of a process's limits: the soft one and the hard one.
fn limits(pid: i32, name: &str) -> (String, String) {
    let all = std::fs::read_to_string(format!("/proc/{pid}/limits")).expect("limits");
    let line = all.lines().find_map(|l| l.strip_prefix(name)).expect("a line");
    let mut words = line.split_whitespace().map(String::from);
    (words.next().expect("soft"), words.next().expect("hard"))
}

#[test]
fn a_limit_of_the_first_call_is_not_that_of_others() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    let (status, _, err) = ran_after(&f, "ulimit -S -f 100; ulimit -S -t 1", &["-q", H, "date"]);
    assert_eq!((status, &*err), (0, ""));
    let open = f.open_call(&["-q"]);
    for name in ["Max file size", "Max cpu time"] {
        let (soft, hard) = limits(f.holder(), name);
        assert_eq!(soft, hard, "{name}");
    }
    assert_eq!(into_file(&f, ":", &[H, "big"]), (4, "".into(), 300_000));
    assert_eq!(finish(open, b"on"), (0, "on".into(), "".into()));
}

/// Nothing can be done about it, so its holder is nobody else's.
#[test]
fn a_call_with_a_hard_limit_leaves_no_holder() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    for limit in ["ulimit -f 100", "ulimit -t 5"] {
        let (status, out, err) = ran_after(&f, limit, &["-v", H, "date"]);
        assert!(status == 0 && !out.is_empty(), "{err}");
        assert!(err.contains("so this session is not left to other calls\n"), "{limit}: {err}");
        assert_eq!(f.sessions().len(), 0, "{limit}");
    }
    // A session that stands is used.
    assert_eq!(f.run(&["-q", H, "date"]).0, 0);
    let (status, _, err) = ran_after(&f, "ulimit -t 5", &["-v", H, "date"]);
    assert!(status == 0 && err.contains("using the session to "), "{err}");
    assert_eq!(f.sessions().len(), 1);
}

#[test]
fn a_call_s_own_limit_holds() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    let mut open = f.open_call(&["-q"]);
    for (limit, words) in [
        ("ulimit -f 100", &[H, "big"][..]),
        ("ulimit -S -f 100", &[H, "big"]),
        ("ulimit -f 100", &["-x", H, "big"]),
    ] {
        assert_eq!(into_file(&f, limit, words), (BEYOND, "".into(), 51_200), "{limit} {words:?}");
    }
    let (status, err, size) = into_file(&f, "trap '' XFSZ; ulimit -f 100", &[H, "big"]);
    let told = format!("five: {H}:{}: standard output: File too large\n", f.port());
    assert_eq!((status, err, size), (255, told, 51_200));
    // Of standard error, too; what is no file has no limit, and a smaller file is whole.
    let path = format!("{}/err", f.home);
    let (status, ..) = ran_after(&f, &format!("ulimit -f 100; exec 2>{path}"), &[H, "loud"]);
    assert_eq!(
        (status, File::open(path).expect("a file").metadata().unwrap().len()),
        (BEYOND, 51_200)
    );
    let (status, out, _) = ran_after(&f, "ulimit -f 100", &[H, "big"]);
    assert_eq!((status, out.len()), (4, 300_000));
    assert_eq!(into_file(&f, "ulimit -f 1000", &[H, "big"]), (4, "".into(), 300_000));
    until("their services have ended", || d.services().len() == 1);
    // The call that was open all the time has noticed nothing.
    let mut answer = [0; 3];
    open.stdin.as_mut().expect("piped").write_all(b"on\n").expect("written");
    open.stdout.as_mut().expect("piped").read_exact(&mut answer).expect("an answer");
    drop(open.stdin.take());
    assert_eq!((&answer, ended(open).0), (b"on\n", 0));
}

#[test]
fn too_few_descriptors_for_a_session_are_an_error() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    let expected = "five: ulimit -Hn: a session needs 18 descriptors at least\n";
    for words in [&["-q", "-n", H, "date"][..], &["-x", "-n", H, "date"]] {
        let (status, _, err) = ran_after(&f, "ulimit -n 17", words);
        assert_eq!(status, 255, "{err}");
        assert!(words[0] == "-q" || err.ends_with(expected), "{err}");
        let (status, out, err) = ran_after(&f, "ulimit -n 18", words);
        assert!(status == 0 && out.contains(':'), "{err}");
        if words[0] == "-q" {
            assert_eq!(f.run(&["-O", "exit", H]).0, 0);
        }
    }
}
