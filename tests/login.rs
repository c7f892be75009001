//! AUTH: passwords, back ends, tries, penalties, and the rules on people.

mod support;
#[path = "support/tls.rs"]
mod tls;

use nix::sys::signal::Signal;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use support::*;
use tls::Tls;

/// `demopass`, by four schemes.
const PASSWD: &str = "six:$6$fivedtest$X.wDagCFaTEL16.RUmhYTPdlb7UdxZlREdHWbk18aC/lKd9RczxLpbeer3fHtePl48MK.qc1Tsr2DP2e/n5Qx1
demo:$5$fivedtest$aF7TYyX/okCSYkmpkB7BUyLsCpQnzMOh36YizxX91R.
yes:$y$j9T$F5Jx5fExrKuPp53xLKQ..1$vEcy8VBp1VtaLOtS63.pEUiXUKNY1taOaLYYJfmfkL2
# a comment
locked:!$5$fivedtest$aF7TYyX/okCSYkmpkB7BUyLsCpQnzMOh36YizxX91R.
empty:
";
const CONF: &str = "passwords = @DIR@/passwd
who stream tcp nowait @USER@ /bin/sh sh -c 'echo user=$FIVED_USER remote=$REMOTE_USER auth=$FIVED_AUTH'
inside stream tcp nowait @USER@ /bin/echo echo inside
 require = login
demos stream tcp nowait @USER@ /bin/echo echo demos
 users = demo
others stream tcp nowait @USER@ /bin/echo echo others
 users = six !demo
";
const ASKED: &str = "+ Success\r\nEnter Username: Enter Password: ";
const FAILED_LOGIN: &str = "- Authentication failed\r\n";

fn with(conf: &str) -> Daemon {
    Daemon::with(conf).file("passwd", PASSWD).start()
}

fn yes(name: &str) -> String {
    format!("{ASKED}Authentication as {name} successful\r\n")
}

/// With these rows, and these users of the system, who all have the password `demopass`.
fn with_users(rows: &str, names: &[&str]) -> Daemon {
    let hash = PASSWD.lines().nth(1).and_then(|l| l.split(':').nth(1)).expect("hash");
    let passwd: String = names.iter().map(|name| format!("{name}:{hash}\n")).collect();
    let conf = format!("passwords = @DIR@/passwd\n{rows}");
    Daemon::with(&conf).file("passwd", &passwd).start()
}

/// What the service answers to a user who logs in.
fn ask_as(d: &Daemon, name: &str, service: &str) -> String {
    let all = d.ask(format!("AUTH\n{name}\ndemopass\n{service}\n"));
    String::from_utf8(all).expect("text").replace(&yes(name), "")
}

#[test]
fn the_dialogue_byte_for_byte() {
    let d = with(CONF);
    let mut c = d.connect();
    c.send("AUTH\r\n").expect("+ Success\r\nEnter Username: ");
    c.send("demo\r\n").expect("Enter Password: ");
    c.send("demopass\r\n").expect("Authentication as demo successful\r\n");
    c.send("who\r\n").expect("+Go\r\nuser=demo remote=demo auth=password\n").end();
    d.wait_log("LOGIN user=demo method=password result=yes from=127.0.0.1 session=");
    d.wait_log("START service=who");
}

#[test]
fn a_name_is_escaped_once_wherever_it_is_logged() {
    let d = with_users("cat stream tcp nowait @USER@ /bin/cat cat\n", &["a b"]);
    let mut c = d.connect();
    c.send("AUTH\na b\ndemopass\ncat\n").expect(format!("{}{GO}", yes("a b")));
    let mut session = d.connect();
    session.send("AUTH\na b\ndemopass\n").expect(yes("a b"));
    d.wait_logs(r"LOGIN user=a\x20b method", 2);
    d.signal(Signal::SIGUSR1);
    for what in ["STATE session=", "STATE service=cat"] {
        let line = d.wait_log(what);
        assert!(line.contains(r" user=a\x20b "), "{line}");
    }
}

/// Bytes that are no text are logged as they came.
#[test]
fn a_name_that_is_not_utf_8_is_logged_byte_for_byte() {
    // As text, with a replacement character, it would be the name of a user.
    let d = with_users("cat stream tcp nowait @USER@ /bin/cat cat\n", &["a\u{fffd}b"]);
    same(d.ask(b"AUTH\na\xffb\ndemopass\n"), format!("{ASKED}{FAILED_LOGIN}"));
    d.wait_log(r"LOGIN user=a\xffb method=password result=no");
}

#[test]
fn all_at_once_and_by_every_scheme() {
    let d = with(CONF);
    for name in ["six", "demo", "yes"] {
        same(
            d.ask(format!("AUTH\n{name}\ndemopass\ninside\n")),
            format!("{}+Go\r\ninside\n", yes(name)),
        );
    }
}

#[test]
fn every_failure_looks_alike() {
    let d = with(CONF);
    // One failure is a penalty: each try comes from a source of its own.
    let tries = [
        ("demo", "wrong"),
        ("nobody-here", "demopass"),
        ("locked", "demopass"),
        ("empty", ""),
        ("", ""),
        ("demo", ""),
        ("a\x01b", "x"),
        ("root", ""),
        // As long as a line may be: longer than crypt(3) takes.
        ("demo", &"x".repeat(512)),
    ];
    for (i, (name, password)) in tries.into_iter().enumerate() {
        let mut c = d.connect_from(&format!("127.0.3.{}", i + 1));
        c.send(format!("AUTH\r\n{name}\r\n{password}\r\nwho\r\n")).half_close();
        same(c.read_all(), format!("{ASKED}{FAILED_LOGIN}+Go\r\nuser= remote= auth=\n"));
        d.wait_log(&format!("PENALTY from=127.0.3.{} reason=login failures=1 ", i + 1));
    }
}

#[test]
fn a_failed_try_leaves_nobody_and_another_login_replaces() {
    let d = with(CONF);
    let answer = d.ask("AUTH\ndemo\ndemopass\nAUTH\nsix\ndemopass\nwho\n");
    same(
        answer,
        format!("{}{}+Go\r\nuser=six remote=six auth=password\n", yes("demo"), yes("six")),
    );
    let answer = d.ask("AUTH\ndemo\ndemopass\nAUTH\nsix\nwrong\nwho\n");
    same(answer, format!("{}{ASKED}{FAILED_LOGIN}+Go\r\nuser= remote= auth=\n", yes("demo")));
    // Nor is anything listed that the first one might have.
    let mut c = d.connect_from("127.0.0.2");
    c.send("AUTH\ndemo\ndemopass\nAUTH\nsix\nwrong\nHELP\n").half_close();
    c.expect(format!("{}{ASKED}{FAILED_LOGIN}", yes("demo")));
    let listed = String::from_utf8_lossy(&c.read_all()).into_owned();
    assert!(listed.contains("who\r\n") && !listed.contains("demos"), "{listed}");
}

#[test]
fn three_failures_end_the_session_and_a_penalty_follows() {
    let d = with(CONF);
    let answer = d.ask("AUTH\ndemo\n1\nAUTH\ndemo\n2\nAUTH\ndemo\n3\nwho\n");
    same(answer, format!("{ASKED}{FAILED_LOGIN}").repeat(3));
    // One at each failure; time has paid off a little of the first ones.
    let line = d.wait_logs("PENALTY from=127.0.0.1", 3).pop().expect("a line");
    let seconds: u64 = word(&line, "seconds").parse().expect("a number");
    assert!(line.contains(" reason=login failures=3 ") && (2..=15).contains(&seconds), "{line}");
    let end = line.split(" end=").nth(1).and_then(|l| l.split(' ').next()).expect("the end");
    let date = |when: &str| {
        let out = std::process::Command::new("date")
            .args(["-u", "-d", when, "+%s"])
            .output()
            .expect("date");
        String::from_utf8_lossy(&out.stdout).trim().parse::<i64>().expect("seconds")
    };
    let left = date(end) - date("now");
    assert!(end.ends_with('Z') && (-5..=16).contains(&left), "{end} is in {left} s");
    try_later(d.ask("AUTH\r\ndemo\r\ndemopass\r\n"), 1..=15);
    try_later(d.ask("PUBKEY\r\n"), 1..=15);
    // Nothing else is barred, and nobody else.
    same(d.ask("who\r\n"), "+Go\r\nuser= remote= auth=\n");
    let mut other = d.connect_from("127.0.0.9");
    other.send("AUTH\ndemo\ndemopass\nwho\n").half_close();
    same(other.read_all(), format!("{}+Go\r\nuser=demo remote=demo auth=password\n", yes("demo")));
}

/// `- Try again later (N s)`, and N is one of these.
#[track_caller]
fn try_later(answer: Vec<u8>, seconds: std::ops::RangeInclusive<u64>) {
    let text = String::from_utf8(answer).expect("text");
    let n = text
        .strip_prefix("- Try again later (")
        .and_then(|t| t.strip_suffix(" s)\r\n"))
        .and_then(|n| n.parse().ok());
    assert!(n.is_some_and(|n| seconds.contains(&n)), "{text:?}");
}

/// The value of a word of a log line.
fn word<'a>(line: &'a str, key: &str) -> &'a str {
    line.split(' ')
        .find_map(|w| w.strip_prefix(key)?.strip_prefix('='))
        .unwrap_or_else(|| panic!("no {key} in {line}"))
}

#[test]
fn a_penalty_is_in_force_at_once_for_every_other_session() {
    let d = with(CONF);
    // One that stands already, in the middle of a dialogue.
    let (mut between, mut first) = (d.connect(), d.connect());
    between.send("AUTH\r\n").expect("+ Success\r\nEnter Username: ");
    first.send("AUTH\ndemo\nwrong\n").expect(format!("{ASKED}{FAILED_LOGIN}"));
    d.wait_log("PENALTY from=127.0.0.1 reason=login failures=1 seconds=5 end=");
    between.send("demo\r\ndemopass\r\nwho\r\n").expect("Enter Password: ");
    try_later(between.read_all(), 1..=5);
    try_later(d.ask("AUTH\n"), 1..=5);
    // The one that failed may use up its tries.
    first
        .send("AUTH\ndemo\ndemopass\nwho\n")
        .expect(format!("{}+Go\r\nuser=demo remote=demo auth=password\n", yes("demo")))
        .end();
    assert!(!d.log().contains("nonsense"), "{}", d.log());
}

#[test]
fn who_does_not_wait_for_a_failure_has_its_penalty_too() {
    let script = "#!/bin/sh\ncat <&3 >/dev/null\n: >@DIR@/asked\nuntil [ -e @DIR@/go ]; do sleep 0.02; done\nexit 1\n";
    let d = Daemon::with(&CONF.replace("passwords = @DIR@/passwd", "checkpassword = @DIR@/check"))
        .file("check", script)
        .start();
    let mut c = d.connect();
    c.send("AUTH\nann\nx\n").expect(ASKED);
    until("the program was asked", || std::path::Path::new(&d.place.at("asked")).exists());
    drop(c);
    // Net hears of the client's end when it has the result: the session stands or not, the failure
    // counts.
    d.place.write("go", "", 0o644);
    d.wait_log("LOGIN user=ann method=password result=no");
    d.wait_log("PENALTY from=127.0.0.1 reason=login failures=1 ");
}

#[test]
fn debug_lines_say_why_and_the_client_gets_no_reason() {
    let d = Daemon::with(CONF).file("passwd", PASSWD).arg("-d").start();
    for (i, (name, password, why)) in [
        ("demo", "wrong", "another password than the file's"),
        ("nobody-here", "x", "no such name in the password file, or it is locked"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut c = d.connect_from(&format!("127.0.3.{}", i + 1));
        c.send(format!("AUTH\n{name}\n{password}\nwho\n")).half_close();
        same(c.read_all(), format!("{ASKED}{FAILED_LOGIN}+Go\r\nuser= remote= auth=\n"));
        d.wait_log(&format!("login of \"{name}\" from 127.0.3.{}: {why}", i + 1));
    }
}

#[test]
fn who_may_not_use_it_gets_the_answer_for_an_unknown_name() {
    let d = with(CONF);
    for name in ["inside", "demos", "others", "nothing"] {
        same(d.ask(format!("{name}\r\n")), NOT_AVAILABLE);
    }
    let as_demo = |rest: &str| {
        String::from_utf8(d.ask(format!("AUTH\ndemo\ndemopass\n{rest}")))
            .expect("text")
            .replace(&yes("demo"), "")
    };
    same(as_demo("demos\n"), "+Go\r\ndemos\n");
    same(as_demo("others\n"), NOT_AVAILABLE);
    same(as_demo("HELP\n"), format!("who\r\ninside\r\ndemos\r\n{BUILTINS}"));
    d.wait_log("REFUSE service=others host= from=127.0.0.1 reason=user");
}

#[test]
fn tls_makes_a_login_from_afar_possible_and_forgets_one_before_it() {
    let d = with(CONF);
    let mut c = d.connect();
    c.send("AUTH\ndemo\ndemopass\nSSL\n").expect(format!("{}+ Success\r\n", yes("demo")));
    let mut c = Tls::start(c.0, "x.example");
    c.send(b"who\r\n");
    same(c.read_all(), "+Go\r\nuser= remote= auth=\n");
    let mut c = d.connect();
    c.send("AUTH\ndemo\ndemopass\nSSL\n").expect(format!("{}+ Success\r\n", yes("demo")));
    let mut c = Tls::start(c.0, "x.example");
    c.send(b"HELP\r\n");
    let listed = String::from_utf8_lossy(&c.read_all()).into_owned();
    assert!(listed.contains("who\r\n") && !listed.contains("demos"), "{listed}");
    let mut c = Tls::start(d.connect().0, "x.example");
    c.send(b"AUTH\r\nsix\r\ndemopass\r\nwho\r\n");
    same(c.read_all(), format!("{}+Go\r\nuser=six remote=six auth=password\n", yes("six")));
}

#[test]
fn a_row_of_whoever_logged_in() {
    if !root() {
        return skip("only root can run a service as another user");
    }
    let d = with_users(
        "me stream tcp nowait * /bin/sh sh -c 'id -un; echo $HOME $USER $LOGNAME; pwd'\nroot stream tcp nowait * /usr/bin/id id -un\n users = root\n",
        &["daemon", "root", "ghost"],
    );
    let ask = |name, service| ask_as(&d, name, service);
    same(ask("daemon", "me"), "+Go\r\ndaemon\n/usr/sbin daemon daemon\n/usr/sbin\n");
    same(ask("root", "me"), NOT_AVAILABLE);
    same(ask("root", "root"), "+Go\r\nroot\n");
    same(ask("ghost", "me"), FAILED);
    same(d.ask("me\r\n"), NOT_AVAILABLE);
}

#[test]
fn groups_decide() {
    if !root() {
        return skip("needs users of several groups");
    }
    let d = with_users(
        "g stream tcp nowait nobody /bin/echo echo g\n users = @daemon\nn stream tcp nowait nobody /bin/echo echo n\n users = @daemon @bin !daemon\n",
        &["daemon", "bin"],
    );
    let ask = |name, service| ask_as(&d, name, service);
    same(ask("daemon", "g"), "+Go\r\ng\n");
    same(ask("bin", "g"), NOT_AVAILABLE);
    same(ask("bin", "n"), "+Go\r\nn\n");
    same(ask("daemon", "n"), NOT_AVAILABLE);
}

#[test]
fn a_checkpassword_program_decides() {
    // Descriptor 3 brings `user\0password\0\0`.
    let script = "#!/bin/sh\nx=$(tr '\\000' '|' <&3)\ncase $x in 'ann|secret||') exit 0;; 'later|'*) exit 111;; esac\nexit 1\n";
    let d = Daemon::with(&CONF.replace("passwords = @DIR@/passwd", "checkpassword = @DIR@/check"))
        .file("check", script)
        .start();
    same(
        d.ask("AUTH\nann\nsecret\nwho\n"),
        format!("{}+Go\r\nuser=ann remote=ann auth=password\n", yes("ann")),
    );
    same(
        d.ask("AUTH\nlater\nx\nwho\n"),
        format!("{ASKED}{FAILED_LOGIN}+Go\r\nuser= remote= auth=\n"),
    );
    d.wait_log("LOGIN user=later method=password result=later");
    // A failure is told in a beat: the time of this one tells nothing of what the program did.
    let before = std::time::Instant::now();
    same(
        d.ask("AUTH\nann\nwrong\nwho\n"),
        format!("{ASKED}{FAILED_LOGIN}+Go\r\nuser= remote= auth=\n"),
    );
    assert!(before.elapsed().as_millis() >= 500);
}

#[test]
fn the_reason_of_a_refusal_is_sent_where_it_is_wanted() {
    let conf = format!(
        "{CONF}own stream tcp nowait @USER@ /bin/cat\n users = six\n log_on_failure = HOST USERID\n"
    );
    let d = Daemon::with(&conf).file("passwd", PASSWD).start();
    same(d.ask("AUTH\ndemo\ndemopass\nown\n"), format!("{}{NOT_AVAILABLE}", yes("demo")));
    assert!(d.wait_log("REFUSE service=own").contains(" reason=user user=demo session="));
}

#[test]
fn a_checkpassword_program_has_its_words_as_they_were_quoted() {
    // Split again at the blank it would be `exit`, which is a yes.
    let conf = CONF.replace("passwords = @DIR@/passwd", "checkpassword = /bin/sh -c 'exit 1' \"\"");
    let d = Daemon::with(&conf).start();
    same(
        d.ask("AUTH\nann\nx\nwho\n"),
        format!("{ASKED}{FAILED_LOGIN}+Go\r\nuser= remote= auth=\n"),
    );
    d.wait_log("method=password result=no");
    let (_, table, _) = run(&["-T", "-f", &d.place.at("fived.conf")]);
    assert!(table.contains("checkpassword = /bin/sh -c 'exit 1' ''\n"), "{table}");
}

#[test]
fn a_name_that_nobody_can_have_is_nobodys_whatever_the_back_end_says() {
    let d = Daemon::with(&CONF.replace("passwords = @DIR@/passwd", "checkpassword = /bin/true"))
        .start();
    for (i, name) in [&b""[..], b"a\0b", b"\0", b"a\x07b", b"\xff", b"a\rb"].into_iter().enumerate()
    {
        let mut c = d.connect_from(&format!("127.0.2.{}", i + 1));
        c.send([b"AUTH\n", name, b"\nx\nwho\n"].concat()).half_close();
        same(c.read_all(), format!("{ASKED}{FAILED_LOGIN}+Go\r\nuser= remote= auth=\n"));
    }
    let mut c = d.connect_from("127.0.2.99");
    c.send("AUTH\nm\u{fc}ller\nx\nwho\n").half_close();
    same(
        c.read_all(),
        format!("{}+Go\r\nuser=m\u{fc}ller remote=m\u{fc}ller auth=password\n", yes("m\u{fc}ller")),
    );
}

#[test]
fn a_hash_that_crypt_does_not_know_is_a_locked_one() {
    let odd = "odd:$apr1$abcdefgh$F0VYQ6Pr0J6QzTn3Lk6yj1\n";
    for passwd in [format!("{odd}{PASSWD}"), odd.to_string()] {
        let d = Daemon::with(CONF).file("passwd", &passwd).start();
        same(
            d.ask("AUTH\nodd\nx\nwho\n"),
            format!("{ASKED}{FAILED_LOGIN}+Go\r\nuser= remote= auth=\n"),
        );
        let mut c = d.connect_from("127.0.0.9");
        c.send("AUTH\nnobody-here\nx\nwho\n").half_close();
        same(c.read_all(), format!("{ASKED}{FAILED_LOGIN}+Go\r\nuser= remote= auth=\n"));
        d.wait_logs("method=password result=no", 2);
    }
}

/// PAM's own files and modules: its services are a directory of the test's, in a mount namespace of
/// fived's.
#[test]
fn pam_decides_with_prompts_of_its_own() {
    if !(root()
        && std::fs::read_dir("/usr/lib").is_ok_and(|mut d| {
            d.any(|e| e.is_ok_and(|e| e.path().join("security/pam_exec.so").exists()))
        }))
    {
        return skip("needs root, and the modules of PAM");
    }
    let mount = "mount --bind @DIR@/pam.d /etc/pam.d && exec \"$0\" \"$@\"";
    let check = "#!/bin/sh\n[ $PAM_TYPE = auth ] || exec test $PAM_USER != expired\necho $PAM_USER $PAM_RHOST $PAM_SERVICE >>@DIR@/seen\n[ \"$(tr -d '\\000')\" = secret ]\n";
    let exec = "required pam_exec.so quiet expose_authtok @DIR@/check\n";
    let b =
        Daemon::with(&CONF.replace("passwords = @DIR@/passwd", "pam = fived")).file("check", check);
    b.place.write(
        "pam.d/fived",
        &format!("auth optional pam_echo.so for %u\nauth {exec}account {exec}"),
        0o644,
    );
    let d = b.under(&["unshare", "-m", "sh", "-c", mount]).start();
    let mut n = 0;
    let mut ask = |name: &str, password: &str| {
        n += 1;
        let mut c = d.connect_from(&format!("127.0.2.{n}"));
        c.send(format!("AUTH\n{name}\n{password}\nwho\n")).half_close();
        String::from_utf8(c.read_all()).expect("text")
    };
    let asked = |name: &str| format!("+ Success\r\nEnter Username: for {name}\r\nEnter Password: ");
    let yes = "Authentication as ann successful\r\n+Go\r\nuser=ann remote=ann auth=password\n";
    let no = format!("{FAILED_LOGIN}+Go\r\nuser= remote= auth=\n");
    same(ask("ann", "secret"), asked("ann") + yes);
    let before = std::time::Instant::now();
    same(ask("ann", "wrong"), asked("ann") + &no);
    assert!(
        before.elapsed().as_millis() >= 500,
        "the time of a failure tells how much work it was"
    );
    same(ask("expired", "secret"), asked("expired") + &no);
    same(ask("", "secret"), asked("") + &no);
    let seen = place_read(&d, "seen");
    assert!(seen.starts_with("ann 127.0.2.1 fived\nann 127.0.2.2 fived\n"), "{seen}");
    d.wait_log("LOGIN user=expired method=password result=no from=127.0.2.3");
}

#[test]
fn others_code_in_a_login_child_has_a_filter_of_system_calls() {
    if !root() {
        return skip("an ordinary user's programs may have to gain rights, which a filter forbids");
    }
    let script = "#!/bin/sh\ncat <&3 >/dev/null\ngrep -h Seccomp: /proc/self/status /proc/$PPID/status >@DIR@/seen\nunshare -m true 2>/dev/null && exit 1\nexit 0\n";
    let d = Daemon::with(&CONF.replace("passwords = @DIR@/passwd", "checkpassword = @DIR@/check"))
        .file("check", script)
        .start();
    same(
        d.ask("AUTH\nann\nx\nwho\n"),
        format!("{}+Go\r\nuser=ann remote=ann auth=password\n", yes("ann")),
    );
    same(place_read(&d, "seen"), "Seccomp:\t2\nSeccomp:\t2\n");
}

#[test]
fn a_login_child_that_hashes_has_no_rights() {
    if !root() {
        return skip("an ordinary user's child has no rights to give up");
    }
    // It would hash for longer than it may.
    let d = Daemon::with(CONF).file("passwd", "slow:$6$rounds=999999999$fivedtest$x\n").start();
    let mut c = d.connect();
    c.send("AUTH\nslow\nx\n");
    let is = |pid: &i32| proc::arguments(*pid).first().is_some_and(|a| a == "fived-login");
    let has = |pid: i32, field: &str, none: &str| {
        proc::try_status(pid, field).is_some_and(|all| all.split_whitespace().all(|v| v == none))
    };
    let mut child = None;
    until("a child without rights", || {
        child = proc::children(d.parent_pid()).into_iter().find(is);
        child.is_some_and(|pid| {
            let ids = proc::try_status(pid, "Uid").unwrap_or_default();
            ids.split_whitespace().all(|id| id != "0")
                && has(pid, "Groups", "")
                && has(pid, "CapPrm", "0000000000000000")
                && has(pid, "NoNewPrivs", "1")
                && has(pid, "Seccomp", "2")
        })
    });
    let child = nix::unistd::Pid::from_raw(child.expect("it was found"));
    nix::sys::signal::kill(child, Signal::SIGKILL).expect("it is there");
}

#[test]
fn the_login_child_is_alone_with_the_password() {
    // The process that reads a password is neither the parent nor net, and has ended after the
    // result.
    let script = "#!/bin/sh\ncat <&3 >/dev/null\nps -o args= -p $PPID >@DIR@/parent\nexit 0\n";
    let d = Daemon::with(&CONF.replace("passwords = @DIR@/passwd", "checkpassword = @DIR@/check"))
        .file("check", script)
        .start();
    same(
        d.ask("AUTH\nann\nx\nwho\n"),
        format!("{}+Go\r\nuser=ann remote=ann auth=password\n", yes("ann")),
    );
    assert!(place_read(&d, "parent").starts_with("fived-login"));
    until("no login child is left", || {
        proc::children(d.parent_pid())
            .iter()
            .all(|&p| proc::arguments(p).first().is_none_or(|a| a != "fived-login"))
    });
}

fn place_read(d: &Daemon, name: &str) -> String {
    std::fs::read_to_string(d.place.at(name)).unwrap_or_default()
}

#[test]
fn passwd_prints_a_line_that_logs_in() {
    let (code, out, err) = run_with(&["--passwd", "new"], b"demopass\ndemopass\n");
    assert!(code == 0 && out.starts_with("new:$"), "{out}{err}");
    let d = Daemon::with(CONF).file("passwd", &out).start();
    same(
        d.ask("AUTH\nnew\ndemopass\nwho\n"),
        format!("{}+Go\r\nuser=new remote=new auth=password\n", yes("new")),
    );
    let (code, out, err) = run_with(&["--passwd", "new"], b"one\nother\n");
    assert!(code == 1 && out.is_empty() && !err.is_empty(), "{out}{err}");
    assert_eq!(run_with(&["--passwd", "a:b"], b"x\nx\n").0, 1);
    for bytes in [512, 513] {
        let (code, out, err) = run_with(&["--passwd", "new"], &vec![b'x'; bytes]);
        assert!(code == 1 && out.is_empty() && err.contains("of at most 511 bytes"), "{err}");
    }
}

#[test]
fn passwd_reads_one_line_from_a_pipe() {
    let (code, out, err) = run_with(&["--passwd", "new"], b"demopass\n");
    assert!(code == 0 && out.starts_with("new:$") && err.is_empty(), "{out}{err}");
    let d = Daemon::with(CONF).file("passwd", &out).start();
    same(
        d.ask("AUTH\nnew\ndemopass\nwho\n"),
        format!("{}+Go\r\nuser=new remote=new auth=password\n", yes("new")),
    );
    // Whoever keeps the pipe open is not waited for.
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_fived"));
    child
        .args(["--passwd", "new"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped());
    let mut child = child.spawn().expect("fived");
    let mut pipe = child.stdin.take().expect("piped");
    std::io::Write::write_all(&mut pipe, b"demopass\n").expect("write");
    until("it ends", || child.try_wait().is_ok_and(|status| status.is_some_and(|s| s.success())));
    drop(pipe);
    let (code, out, err) = run_with(&["--passwd", "new"], b"");
    assert!(code == 1 && out.is_empty() && !err.is_empty(), "{out}{err}");
}

#[test]
fn a_password_file_that_others_can_write_is_a_warning() {
    let b = Daemon::with(CONF).file("passwd", PASSWD);
    let (passwd, conf) = (b.place.at("passwd"), b.place.write("test.conf", CONF, 0o644));
    for (mode, warns) in [(0o600, false), (0o644, false), (0o660, true), (0o602, true)] {
        std::fs::set_permissions(&passwd, Permissions::from_mode(mode)).expect("chmod");
        let (code, _, err) = run(&["-t", "-f", &conf]);
        let why = "whoever can write it can log in as any user: run `chmod go-w`";
        let wanted = format!("warning: {passwd}: mode {mode:04o}: {why}\n");
        assert_eq!((code, err), (0, if warns { wanted } else { String::new() }));
    }
}

#[test]
fn hashes_of_schemes_that_crypt_does_not_know_are_reported_at_the_start() {
    let odd =
        "# c\nodd:$apr1$abcdefgh$F0VYQ6Pr0J6QzTn3Lk6yj1\nlocked:!$apr1$x$y\nplain:secret-word!\n";
    let b = Daemon::with(CONF).file("passwd", &format!("{odd}{PASSWD}"));
    let (passwd, conf) = (b.place.at("passwd"), b.place.write("test.conf", CONF, 0o644));
    let (code, out, err) = run(&["-t", "-f", &conf]);
    let wrong = |line: u32, name: &str, scheme: &str| {
        format!(
            "{passwd}:{line}: {name}: crypt(3) of this system does not know the scheme{scheme} of this hash; it is as good as locked"
        )
    };
    let (first, second) = (wrong(2, "odd", " $apr1$"), wrong(4, "plain", ""));
    assert_eq!(
        (code, out.as_str(), err),
        (0, "configuration OK\n", format!("warning: {first}\nwarning: {second}\n"))
    );
    // Many are told of in short.
    let many: String = (0..50).map(|n| format!("u{n}:$apr1$x$y\n")).collect();
    b.place.write("passwd", &many, 0o600);
    let (_, _, err) = run(&["-t", "-f", &conf]);
    assert_eq!(err.lines().count(), 21, "{err}");
    assert!(
        err.ends_with(": 30 more hashes of schemes that crypt(3) of this system does not know\n"),
        "{err}"
    );
    // It is not waited for.
    std::fs::remove_file(&passwd).expect("remove");
    nix::unistd::mkfifo(std::path::Path::new(&passwd), nix::sys::stat::Mode::S_IRWXU)
        .expect("pipe");
    let (code, _, err) = run(&["-t", "-f", &conf]);
    assert_eq!(code, 0);
    assert!(
        err.contains(
            "passwd: expected a regular file, found a named pipe: nobody can log in by a password"
        ),
        "{err}"
    );
    std::fs::remove_file(&passwd).expect("remove");
    b.place.write("passwd", odd, 0o600);
    b.start().wait_log(&format!("WARN {first}"));
}

#[test]
fn a_service_of_pams_that_there_is_not_is_a_warning() {
    let place = Place::new();
    let (code, out, err) = place.fived("pam = fived-no-such\n", &["-t"]);
    let wanted = format!(
        "warning: {}:1: pam: fived-no-such: no such file in /etc/pam.d: ",
        place.at("fived.conf")
    );
    assert!(code == 0 && out == "configuration OK\n" && err.starts_with(&wanted), "{err}");
    if std::path::Path::new("/etc/pam.d/other").exists() {
        assert_eq!(
            place.fived("pam = other\nwho stream tcp nowait @USER@ /bin/true\n", &["-t"]).2,
            ""
        );
    }
}

#[test]
fn a_password_line_that_is_too_long_closes() {
    let d = with(CONF);
    same(d.ask(format!("AUTH\ndemo\n{}\nwho\n", "x".repeat(513))), format!("{ASKED}{TOO_LONG}"));
    same(
        d.ask(format!("AUTH\n{}\nwho\n", "x".repeat(513))),
        format!("+ Success\r\nEnter Username: {TOO_LONG}"),
    );
}

#[test]
fn status_is_the_operators_own_door() {
    let conf = format!(
        "{CONF}status stream tcp nowait @USER@ internal\n users = demo\nsleep stream tcp nowait @USER@ /bin/sleep sleep 100\n"
    );
    let d = with(&conf);
    let mut busy = d.connect();
    busy.send("sleep\r\n").expect(GO);
    // A session that stays: the one that asks is handed to the service, and may be over when that answers.
    let mut stays = d.connect();
    stays.send("AUTH\ndemo\ndemopass\n").expect(yes("demo"));
    let answer = String::from_utf8(d.ask("AUTH\ndemo\ndemopass\nstatus\n"))
        .expect("text")
        .replace(&yes("demo"), "");
    assert!(answer.starts_with(GO), "{answer}");
    for part in [
        "\nsession=",
        "user=demo method=password",
        "\nservice=sleep host= pid=",
        "starts=",
        "refused=",
    ] {
        assert!(answer.contains(part), "{part} in {answer}");
    }
    same(d.ask("status\r\n"), NOT_AVAILABLE);
    d.signal(Signal::SIGUSR1);
    d.wait_log("STATE service=sleep");
}
