//! five: whom it trusts, and how it logs in.

#[path = "support/proxy.rs"]
mod proxy;
mod support;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proxy::Proxy;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;
use support::five::{ended, finish};
use support::{
    Daemon, Five, TIMEOUT, installed, passwords, proc, root, skip, until, until_listened_at,
};

const CONF: &str = "
passwords       = @DIR@/passwd
authorized_keys = @KEYS@/%u
login_tries     = 9
who    stream tcp nowait @USER@ /bin/sh sh -c 'echo \"user=$FIVED_USER by=$FIVED_AUTH\"'
stay   stream tcp nowait @USER@ /bin/sh sh -c 'echo \"user=$FIVED_USER by=$FIVED_AUTH\"; exec cat'
inside stream tcp nowait @USER@ /bin/echo echo inside
       require = login
";
const H: &str = "127.0.0.1";
const BY_KEY: &str = "user=demo by=pubkey\n";
const BY_PASSWORD: &str = "user=demo by=password\n";

fn daemon() -> Daemon {
    Daemon::with(CONF).file("passwd", &passwords(&["demo"])).start()
}

/// What the server's key is.
fn key_of(d: &Daemon) -> String {
    let line = d.wait_log("made ");
    line.rsplit(' ').next().expect("key").to_string()
}

/// five as it was typed: exit status, standard output, standard error.
fn typed(f: &Five, words: &[&str]) -> (i32, String, String) {
    let port = f.port();
    let mut c = f.command(&[&["-p", &port], words].concat());
    ended(
        c.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("five"),
    )
}

/// An SSH key of this person; `known`: it may log in as demo.
fn key(d: &Daemon, f: &Five, name: &str, kind: &[&str], passphrase: &str, known: bool) -> String {
    let path = format!("{}/.ssh/{name}", f.home);
    std::fs::create_dir_all(format!("{}/.ssh", f.home)).expect(".ssh");
    let mut c = Command::new("ssh-keygen");
    let made = c
        .args(["-q", "-C", name, "-N", passphrase, "-f", &path])
        .args(kind)
        .status()
        .expect("ssh-keygen");
    assert!(made.success());
    if known {
        let public = std::fs::read_to_string(format!("{path}.pub")).expect("public key");
        let before = std::fs::read_to_string(d.place.keys().join("demo")).unwrap_or_default();
        d.place.write_keys("demo", &(before + &public));
    }
    path
}

/// An agent of one's own, which ends with the test.
struct Agent(Child, String);

impl Agent {
    fn start(f: &Five, keys: &[&str]) -> Agent {
        let path = format!("{}/agent", f.home);
        let child = Command::new("ssh-agent")
            .args(["-D", "-a", &path])
            .stdout(Stdio::null())
            .spawn()
            .expect("ssh-agent");
        until_listened_at(&path);
        let added = Command::new("ssh-add")
            .arg("-q")
            .args(keys)
            .env("SSH_AUTH_SOCK", &path)
            .stderr(Stdio::null())
            .status();
        assert!(added.expect("ssh-add").success());
        Agent(child, path)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

fn without(program: &str) -> bool {
    let missing = !installed(program);
    if missing {
        skip(&format!("{program} is not installed"));
    }
    missing
}

#[test]
fn an_unknown_key_is_never_taken_silently() {
    let d = daemon();
    let f = Five::new(&d);
    let (place, key, file) =
        (format!("{H}:{}", f.port()), key_of(&d), f.config_path("known_hosts"));
    let (code, out, err) = typed(&f, &[H, "who"]);
    assert_eq!((code, out.as_str()), (255, ""));
    let expected =
        format!("five: {place}: its key is not known, and there is no terminal to ask: {key}\n");
    assert!(
        err.starts_with(&expected)
            && err.ends_with(&format!("or add this line to {file}:\n{place} {key}\n")),
        "{err}"
    );
    // As the message says.
    std::fs::create_dir_all(Path::new(&file).parent().expect("directory")).expect("directory");
    std::fs::write(&file, format!("{place} {key}")).expect("known_hosts");
    assert_eq!(typed(&f, &[H, "who"]), (0, "user= by=\n".into(), String::new()));
}

#[test]
fn accept_new_writes_it_down_once() {
    let d = daemon();
    let f = Five::new(&d);
    let (line, file) = (format!("{H}:{} {}\n", f.port(), key_of(&d)), f.config_path("known_hosts"));
    for _ in 0..2 {
        assert_eq!(typed(&f, &["-x", "--accept-new", H, "who"]).0, 0);
        assert_eq!(std::fs::read_to_string(&file).expect("known_hosts"), line);
    }
    assert_eq!(std::fs::metadata(&file).expect("known_hosts").permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_file_that_keeps_nothing_is_no_loop() {
    let d = daemon();
    let f = Five::new(&d).config("");
    std::os::unix::fs::symlink("/dev/null", f.config_path("known_hosts")).expect("link");
    let (code, out, err) = typed(&f, &["--accept-new", H, "who"]);
    assert_eq!(
        (code, out.as_str(), err.matches("is known from now on").count()),
        (0, "user= by=\n", 1),
        "{err}"
    );
}

#[test]
fn what_is_accepted_counts_also_where_it_cannot_be_written_down() {
    let d = daemon();
    let f = Five::new(&d).config("");
    let (place, key, file) =
        (format!("{H}:{}", f.port()), key_of(&d), f.config_path("known_hosts"));
    std::os::unix::fs::symlink("/nonexistent/known_hosts", &file).expect("link");
    let (code, out, err) = typed(&f, &["--accept-new", H, "who"]);
    let expected =
        format!("five: {place}: {key} is used this once: {file}: No such file or directory\n");
    assert_eq!((code, out.as_str(), err), (0, "user= by=\n", expected));
}

#[test]
fn a_changed_key_is_refused_with_a_warning_whatever_the_options() {
    let d = daemon();
    let (mine, other) = (key_of(&d), format!("sha256//{}=", "A".repeat(43)));
    let f = Five::new(&d).config("");
    let (place, file) = (format!("{H}:{}", f.port()), f.config_path("known_hosts"));
    std::fs::write(&file, format!("# mine\n{place} {other}\n")).expect("known_hosts");
    for words in [&[H, "who"][..], &["--accept-new", H, "who"]] {
        let (code, out, err) = typed(&f, words);
        assert_eq!((code, out.as_str()), (255, ""));
        assert!(
            err.contains(&format!("WARNING: THE KEY OF {place} HAS CHANGED"))
                && err.contains(&format!("{file}:2")),
            "{err}"
        );
        assert!(err.contains(&mine) && err.contains(&other), "{err}");
    }
    let (_, shown) = f.on_terminal(&["-p", &f.port(), H, "who"], "");
    assert!(shown.contains("HAS CHANGED"), "{shown}");
}

#[test]
fn a_pin_is_the_only_key_that_will_do() {
    let d = daemon();
    let f = Five::new(&d).config(&format!("[{H}]\npin = {}\n", key_of(&d)));
    assert_eq!(typed(&f, &[H, "who"]).0, 0);
    assert!(!Path::new(&f.config_path("known_hosts")).exists());
    let g = Five::new(&d).config(&format!("[{H}]\npin = sha256//{}=\n", "A".repeat(43)));
    let (code, _, err) = typed(&g, &["-x", "--accept-new", H, "who"]);
    assert!(code == 255 && err.contains("HAS CHANGED") && err.contains("pin in "), "{err}");
}

#[test]
fn the_person_is_asked_on_the_terminal() {
    let d = daemon();
    let f = Five::new(&d);
    let (port, key) = (f.port(), key_of(&d));
    let words = ["-p", port.as_str(), H, "who"];
    let (code, shown) = f.on_terminal(&words, "no\n");
    assert!(code == 255 && shown.contains(&key) && shown.contains("was not accepted"), "{shown}");
    // The end of input is a no, too.
    let (code, shown) = f.on_terminal(&words, "\u{4}\n");
    assert!(code == 255 && shown.contains("was not accepted"), "{code} {shown}");
    let (code, shown) = f.on_terminal(&words, "No\n");
    assert!(code == 255 && shown.contains("was not accepted"), "{code} {shown}");
    // Of the form that a key has.
    let other = format!("sha256//{}A=", "A".repeat(42));
    let (code, shown) = f.on_terminal(&words, &format!("{other}\n"));
    assert!(code == 255 && shown.contains("was not accepted"), "{code} {shown}");
    let (code, shown) = f.on_terminal(&words, "perhaps\nYES\n");
    assert!(code == 0 && shown.contains("user= by="), "{shown}");
    let words = ["-x", "-p", port.as_str(), H, "who"];
    // As `fived --fingerprint` prints it, of a virtual host too.
    for line in [key.clone(), format!("{key} b.example")] {
        std::fs::remove_file(f.config_path("known_hosts")).expect("known_hosts");
        let (code, shown) = f.on_terminal(&words, &format!("{line}\n"));
        assert!(code == 0 && shown.contains("user= by="), "{shown}");
    }
}

#[test]
fn the_systems_roots_vouch_for_a_name() {
    if without("openssl") {
        return;
    }
    let b = Daemon::with(&format!("certificate = @DIR@/cert\nkey = @DIR@/key\n{CONF}"))
        .file("passwd", &passwords(&["demo"]));
    let script = b.place.write(
        "make",
        "#!/bin/sh -e
exec 2>/dev/null
cd @DIR@
new() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out $1; }
new ca.key
openssl req -x509 -new -key ca.key -days 9 -subj /CN=authority -out ca
new key
openssl req -new -key key -subj /CN=localhost -out request
printf 'subjectAltName=DNS:localhost\\nbasicConstraints=CA:FALSE\\n' >extensions
openssl x509 -req -in request -CA ca -CAkey ca.key -CAcreateserial -days 9 -extfile extensions -out cert
",
        0o755,
    );
    assert!(Command::new(script).status().expect("sh").success());
    let roots = b.place.at("ca");
    let d = b.start();
    let f = Five::new(&d).env("SSL_CERT_FILE", &roots);
    assert_eq!(typed(&f, &["-4", "localhost", "who"]), (0, "user= by=\n".into(), String::new()));
    // Another name is not the certificate's.
    let (code, _, err) = typed(&f, &[H, "who"]);
    assert!(
        code == 255
            && err.contains("its certificate is refused: it is for localhost, not for this host"),
        "{err}"
    );
}

#[test]
fn a_key_file_logs_in() {
    if without("ssh-keygen") {
        return;
    }
    let d = daemon();
    let f = Five::new(&d);
    key(&d, &f, "id_ed25519", &["-t", "ed25519"], "", true);
    assert_eq!(f.run(&["-q", "demo@127.0.0.1", "who"]), (0, BY_KEY.into(), String::new()));
    assert_eq!(f.run(&["-q", "-l", "demo", H]).1, "who\nstay\ninside\n");
    assert_eq!(f.run(&["-q", H]).1, "who\nstay\n");
    assert_eq!(f.sessions().len(), 2);
}

#[test]
fn every_kind_of_key_by_agent_and_by_file() {
    if without("ssh-agent") {
        return;
    }
    for (n, kind) in [
        &["-t", "ed25519"][..],
        &["-t", "ecdsa", "-b", "256"],
        &["-t", "ecdsa", "-b", "384"],
        &["-t", "rsa", "-b", "2048"],
    ]
    .iter()
    .enumerate()
    {
        let d = daemon();
        let f = Five::new(&d);
        let path = key(&d, &f, &format!("key{n}"), kind, "", true);
        assert_eq!(f.run(&["-q", "-x", "-i", &path, "-l", "demo", H, "who"]).1, BY_KEY, "{kind:?}");
        let agent = Agent::start(&f, &[&path]);
        std::fs::remove_file(&path).expect("key");
        let f = Five::new(&d).env("SSH_AUTH_SOCK", &agent.1);
        assert_eq!(f.run(&["-q", "-x", "-l", "demo", H, "who"]).1, BY_KEY, "{kind:?}");
        // The public half alone names the agent's key.
        assert_eq!(f.run(&["-q", "-x", "-i", &path, "-l", "demo", H, "who"]).1, BY_KEY, "{kind:?}");
    }
}

#[test]
fn keys_are_tried_in_their_order_until_one_opens() {
    if without("ssh-agent") {
        return;
    }
    let d = daemon();
    let f = Five::new(&d);
    let others: Vec<String> =
        (0..3).map(|n| key(&d, &f, &format!("other{n}"), &["-t", "ed25519"], "", false)).collect();
    key(&d, &f, "id_ed25519", &["-t", "ed25519"], "", true);
    let agent = Agent::start(&f, &others.iter().map(String::as_str).collect::<Vec<_>>());
    let f = Five::new(&d).env("SSH_AUTH_SOCK", &agent.1);
    let (code, out, err) = f.run(&["-v", "-l", "demo", H, "who"]);
    assert_eq!((code, out.as_str()), (0, BY_KEY), "{err}");
    assert!(err.contains("logged in with ") && err.contains(".ssh/id_ed25519\n"), "{err}");
}

#[test]
fn a_key_that_is_not_there_is_said_and_others_are_tried() {
    if without("ssh-keygen") {
        return;
    }
    let d = daemon();
    let f = Five::new(&d);
    let (code, _, err) = f.run(&["-i", "/nonexistent/key", "-l", "demo", H, "who"]);
    assert!(code == 255 && err.contains("five: /nonexistent/key: there is no such key\n"), "{err}");
    key(&d, &f, "id_ed25519", &["-t", "ed25519"], "", true);
    let (code, out, err) = f.run(&["-i", "/nonexistent/key", "-l", "demo", H, "who"]);
    let said = "five: /nonexistent/key: there is no such key\n";
    assert_eq!((code, out.as_str(), err.as_str()), (0, BY_KEY, said));
}

#[test]
fn what_goes_ahead_of_a_failed_login_is_a_request_without_input() {
    if without("ssh-agent") {
        return;
    }
    let d = Daemon::with(&format!(
        "{CONF}keep stream tcp nowait @USER@ /bin/sh sh -c 'echo \"$FIVED_USER:$(cat)\"'\n"
    ))
    .file("passwd", &passwords(&["demo"]))
    .start();
    let f = Five::new(&d);
    let other = key(&d, &f, "other", &["-t", "ed25519"], "", false);
    key(&d, &f, "id_ed25519", &["-t", "ed25519"], "", true);
    let (code, out, err) = f.run_with(&["-q", "-i", &other, "-l", "demo", H, "keep"], b"secret");
    assert_eq!((code, out.as_str(), err.as_str()), (0, "demo:secret\n", ""));
}

/// A session that only lost its connection would be kept for a minute, and its service with it.
#[test]
fn a_session_whose_login_failed_is_ended_with_its_service() {
    if without("ssh-agent") {
        return;
    }
    let d = daemon();
    let f = Five::new(&d);
    let other = key(&d, &f, "other", &["-t", "ed25519"], "", false);
    key(&d, &f, "id_ed25519", &["-t", "ed25519"], "", true);
    let out = f.run_with(&["-q", "-x", "-i", &other, "-l", "demo", H, "stay"], b"");
    assert_eq!(out, (0, BY_KEY.into(), String::new()));
    d.wait_logs(" reason=closed duration=", 2);
    assert!(!d.log().contains("LOST "), "{}", d.log());
    // It may have ended before its service was started.
    let times = |verb: &str| d.log().matches(&format!("{verb} service=stay ")).count();
    until("both services have ended", || times("EXIT") == times("START"));
}

#[test]
fn who_types_no_answer_hears_which_question_that_was() {
    let d = daemon();
    let f = Five::new(&d);
    let words = ["--accept-new", "-p", &f.port(), "-l", "demo", H, "who"];
    let (code, shown) = f.on_terminal(&words, "\u{4}\n");
    let why = format!("five: (demo@{H}:{}) Enter Password: no answer was typed", f.port());
    assert!(code == 255 && shown.contains(&why), "{shown}");
}

#[test]
fn a_passphrase_is_ssh_keygens_business() {
    if without("ssh-keygen") {
        return;
    }
    let d = daemon();
    let f = Five::new(&d);
    key(&d, &f, "id_ed25519", &["-t", "ed25519"], "open sesame", true);
    let (code, shown) = f.on_terminal(
        &["--accept-new", "-q", "-p", &f.port(), "-l", "demo", H, "who"],
        "open sesame\n",
    );
    assert!(code == 0 && shown.contains(BY_KEY.trim()) && !shown.contains("sesame"), "{shown}");
    let path = format!("{}/.ssh/id_ed25519", f.home);
    assert!(shown.contains(&format!("({path}) Enter passphrase")), "{shown}");
    // Without a terminal nobody can be asked, and nothing hangs.
    let (code, _, err) = f.run(&["-x", "-l", "demo", H, "who"]);
    assert!(
        code == 255
            && err.contains("not logged in")
            && err.contains("ssh-keygen did not sign with it")
            && err.contains("incorrect passphrase"),
        "{err}"
    );
    // Nor does anybody see what it says about a file that others can read.
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .expect("mode");
    let (code, _, err) = f.run(&["-x", "-l", "demo", H, "who"]);
    let why = format!(
        "{path}: ssh-keygen did not sign with it: Permissions 0644 for '{path}' are too open."
    );
    assert!(code == 255 && err.contains(&why) && !err.contains("@@"), "{err}");
}

#[test]
fn a_passphrase_is_asked_for_three_times() {
    if without("ssh-keygen") {
        return;
    }
    let d = daemon();
    let f = Five::new(&d);
    let path = key(&d, &f, "id_ed25519", &["-t", "ed25519"], "open sesame", true);
    let words = ["--accept-new", "-q", "-x", "-p", &f.port(), "-l", "demo", H, "who"];
    let question = format!("({path}) Enter passphrase");
    let (code, shown) = f.on_terminal(&words, "wrong\n\nopen sesame\n");
    assert!(code == 0 && shown.contains(BY_KEY.trim()), "{shown}");
    assert_eq!(shown.matches(&question).count(), 3, "{shown}");
    let (code, shown) = f.on_terminal(&words, "wrong\nwrong\nwrong\ndemopass\n");
    assert!(code == 0 && shown.contains(BY_PASSWORD.trim()), "{shown}");
    assert_eq!(shown.matches(&question).count(), 3, "{shown}");
    // For the server no wrong key was tried.
    assert_eq!(d.log().matches("method=pubkey result=").count(), 1, "{}", d.log());
    // A program that gives a wrong one is asked as often.
    let asks =
        d.place.write("askpass", "#!/bin/sh\necho \"$1\" >>@DIR@/asked\necho wrong\n", 0o755);
    let f = f.env("SSH_ASKPASS", &asks);
    let (code, _, err) = f.run(&["-x", "-l", "demo", H, "who"]);
    assert!(code == 255 && err.contains("incorrect passphrase"), "{err}");
    let asked = std::fs::read_to_string(d.place.at("asked")).expect("asked");
    assert_eq!(asked.matches("Enter passphrase").count(), 3, "{asked}");
}

#[test]
fn askpass_is_asked_for_a_passphrase_where_there_is_no_terminal() {
    if without("ssh-keygen") {
        return;
    }
    let d = daemon();
    let asks =
        d.place.write("askpass", "#!/bin/sh\necho \"$1\" >>@DIR@/asked\necho open sesame\n", 0o755);
    let f = Five::new(&d).env("SSH_ASKPASS", &asks);
    key(&d, &f, "id_ed25519", &["-t", "ed25519"], "open sesame", true);
    assert_eq!(f.run(&["-q", "-l", "demo", H, "who"]), (0, BY_KEY.into(), String::new()));
    let asked = std::fs::read_to_string(d.place.at("asked")).expect("asked");
    assert!(asked.starts_with("Enter passphrase") && asked.lines().count() == 1, "{asked}");
    let g = Five::new(&d).env("SSH_ASKPASS", &asks).env("SSH_ASKPASS_REQUIRE", "never");
    assert_eq!(g.run(&["-x", "-l", "demo", H, "who"]).0, 255);
}

#[test]
fn a_private_key_without_its_public_half_names_the_agents() {
    if without("ssh-agent") {
        return;
    }
    let d = daemon();
    let f = Five::new(&d);
    let [one, two] = ["one", "two"].map(|name| key(&d, &f, name, &["-t", "ed25519"], "", true));
    let agent = Agent::start(&f, &[&one, &two]);
    // Nobody can be asked for its passphrase: only the agent can sign with it.
    let locked = Command::new("ssh-keygen")
        .args(["-q", "-p", "-P", "", "-N", "open sesame", "-f", &two])
        .stdout(Stdio::null())
        .status();
    assert!(locked.expect("ssh-keygen").success());
    std::fs::remove_file(format!("{two}.pub")).expect("public key");
    let f = Five::new(&d).env("SSH_AUTH_SOCK", &agent.1);
    let (code, _, err) = f.run(&["-v", "-i", &two, "-l", "demo", H, "who"]);
    assert!(
        code == 0 && err.contains("logged in with SHA256:") && err.contains(" (two, agent)\n"),
        "{err}"
    );
}

#[test]
fn the_servers_prompts_are_answered_on_the_terminal() {
    let d = daemon();
    let f = Five::new(&d);
    let (code, shown) = f.on_terminal(
        &["--accept-new", "-q", "-p", &f.port(), "demo@127.0.0.1", "who"],
        "wrong\ndemopass\n",
    );
    assert!(
        code == 0 && shown.contains(BY_PASSWORD.trim()) && !shown.contains("demopass"),
        "{shown}"
    );
    assert_eq!(
        shown.matches(&format!("(demo@{H}:{}) Enter Password: ", f.port())).count(),
        2,
        "{shown}"
    );
    // It stands: nobody is asked again, and nothing of the password is left with the holder.
    assert_eq!(f.run(&["-q", "-l", "demo", H, "inside"]).1, "inside\n");
    if root() {
        let pid = f.run(&["-O", "check", "demo@127.0.0.1"]).1;
        let pid = pid.split(' ').find_map(|w| w.strip_prefix("pid=")).expect("pid");
        let memory = proc::memory(pid.parse().expect("number"));
        assert!(memory.iter().all(|m| m.windows(8).all(|w| w != b"demopass")));
    }
}

#[test]
fn askpass_is_asked_where_there_is_no_terminal() {
    let d = daemon();
    let asks =
        d.place.write("askpass", "#!/bin/sh\necho \"$1\" >>@DIR@/asked\necho demopass\n", 0o755);
    let f = Five::new(&d).env("SSH_ASKPASS", &asks);
    assert_eq!(f.run(&["-q", "-l", "demo", H, "who"]), (0, BY_PASSWORD.into(), String::new()));
    let asked = std::fs::read_to_string(d.place.at("asked")).expect("asked");
    assert_eq!(asked, format!("(demo@{H}:{}) Enter Password: \n", f.port()));
    let g = Five::new(&d).env("SSH_ASKPASS", &asks).env("SSH_ASKPASS_REQUIRE", "never");
    let (code, _, err) = g.run(&["-x", "-l", "demo", H, "who"]);
    assert_eq!(
        (code, err),
        (
            255,
            format!(
                "five: demo@{H}:{}: not logged in: no terminal to ask for a password\n",
                f.port()
            )
        )
    );
}

#[test]
fn each_login_that_failed_is_named() {
    if without("ssh-keygen") {
        return;
    }
    let d = daemon();
    let f = Five::new(&d).env("SSH_AUTH_SOCK", "/nonexistent");
    let made = |name, known| key(&d, &f, name, &["-t", "ed25519"], "", known);
    let (bad, good) = (made("bad", false), made("good", true));
    let agent = "the agent /nonexistent: No such file or directory";
    let why = format!("not logged in: {agent}; {bad}: not accepted; no terminal to ask");
    let (code, _, err) = f.run(&["-x", "-l", "demo", "-i", &bad, H, "who"]);
    assert!(code == 255 && err.contains(&why), "{err}");
    // With -v, if one succeeds, too.
    let (code, _, err) = f.run(&["-x", "-v", "-l", "demo", "-i", &bad, "-i", &good, H, "who"]);
    let steps = [agent.into(), format!("{bad}: not accepted"), format!("logged in with {good}")];
    let told = |step: &String| err.contains(&format!("five: {step}\n"));
    assert!(code == 0 && steps.iter().all(told), "{err}");
}

/// Passes on to another agent what is asked of it, but to sign only once it may; says when it is
/// asked for that.
fn hesitant_agent(path: &str, to: &str) -> (Receiver<()>, Sender<()>) {
    let listener = UnixListener::bind(path).expect("agent");
    let to = to.to_string();
    let ((asked, is_asked), (may, wait)) = (channel(), channel());
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let mut other = UnixStream::connect(&to).expect("the other agent");
            while let Some(message) = agent_message(&mut client) {
                if message[4] == 13 {
                    asked.send(()).expect("the test waits");
                    wait.recv().expect("the test goes on");
                }
                other.write_all(&message).expect("passed on");
                let answer = agent_message(&mut other).expect("an answer");
                client.write_all(&answer).expect("answered");
            }
        }
    });
    (is_asked, may)
}

/// The next message on an agent's connection, with its length. None: there is none.
fn agent_message(from: &mut UnixStream) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length).ok()?;
    let mut message = vec![0; u32::from_be_bytes(length) as usize];
    from.read_exact(&mut message).expect("a message");
    Some([&length[..], &message].concat())
}

/// Somebody who confirms a key's use, or touches it, needs time.
#[test]
fn an_agent_may_take_longer_than_a_request() {
    if without("ssh-agent") {
        return;
    }
    let conf = format!("request_timeout = 3\n{CONF}");
    let d = Daemon::with(&conf).file("passwd", &passwords(&["demo"])).start();
    let f = Five::new(&d);
    let one = key(&d, &f, "one", &["-t", "ed25519"], "", true);
    let agent = Agent::start(&f, &[&one]);
    let path = d.place.at("hesitant");
    let (is_asked, may) = hesitant_agent(&path, &agent.1);
    let f = f.env("SSH_AUTH_SOCK", &path);
    let call = f.start(&["-q", "-x", "-l", "demo", H, "who"]);
    is_asked.recv_timeout(TIMEOUT).expect("it is asked");
    // One that connects now, and says nothing, has been ended before it answers.
    d.connect().read_any();
    may.send(()).expect("the agent");
    assert_eq!(finish(call, b""), (0, BY_KEY.into(), String::new()));
}

/// An agent with this one key, whose signatures are wrong.
fn bad_agent(path: &str, public: &str) {
    let listener = UnixListener::bind(path).expect("agent");
    let blob = public.split(' ').nth(1).expect("a key").to_string();
    let string = |bytes: &[u8]| [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat();
    std::thread::spawn(move || {
        let blob = STANDARD.decode(blob).expect("base64");
        let signature = [string(b"ssh-ed25519"), string(&[7; 64])].concat();
        for mut client in listener.incoming().flatten() {
            let mut length = [0; 4];
            while client.read_exact(&mut length).is_ok() {
                let mut message = vec![0; u32::from_be_bytes(length) as usize];
                client.read_exact(&mut message).expect("a message");
                let answer = match message[0] {
                    11 => [&[12, 0, 0, 0, 1][..], &string(&blob), &string(b"wrong")].concat(),
                    _ => [&[14][..], &string(&signature)].concat(),
                };
                client.write_all(&string(&answer)).expect("answered");
            }
        }
    });
}

/// A bad signature has a penalty, which the next connection meets: what is told then is not that
/// alone.
#[test]
fn a_key_whose_signature_is_bad_is_named() {
    if without("ssh-keygen") {
        return;
    }
    let d = daemon();
    let f = Five::new(&d);
    let path = key(&d, &f, "agents", &["-t", "ed25519"], "", true);
    let agent = d.place.at("agent");
    bad_agent(&agent, &std::fs::read_to_string(format!("{path}.pub")).expect("a key"));
    let f = f.env("SSH_AUTH_SOCK", &agent);
    let (code, _, err) = f.run(&["-q", "-v", "-l", "demo", H, "who"]);
    let told = err.lines().find(|l| l.contains("Try again later (")).unwrap_or(&err);
    assert!(code == 255 && told.contains("; before that: ") && told.contains("wrong"), "{err}");
    assert!(told.ends_with(": not accepted"), "{err}");
}

#[test]
fn wrong_passwords_come_to_an_end() {
    let d = daemon();
    let f = Five::new(&d);
    let (code, shown) =
        f.on_terminal(&["--accept-new", "-p", &f.port(), "-l", "demo", H, "who"], "a\nb\nc\n");
    assert!(code == 255 && shown.contains("not logged in: password: not accepted"), "{shown}");
    d.wait_log("PENALTY");
    let (code, _, err) = f.run(&["-l", "demo", H, "who"]);
    assert!(
        code == 255 && err.contains("AUTH was refused: Try again later (") && err.contains(" s)"),
        "{err}"
    );
}

#[test]
fn a_login_by_key_costs_no_round_trip_of_its_own() {
    if without("ssh-agent") {
        return;
    }
    let d = daemon();
    let f = Five::new(&d);
    let path = key(&d, &f, "mine", &["-t", "ed25519"], "", true);
    let agent = Agent::start(&f, &[&path]);
    let proxy = Proxy::new(d.address(), Duration::from_millis(60));
    let f = Five::at(&d.place, proxy.address).env("SSH_AUTH_SOCK", &agent.1);
    assert_eq!(f.run(&["-q", "-x", H, "who"]).0, 0);
    // One more is counted where the agent takes longer than the server's words.
    until("two round trips", || {
        let mut call = f.start(&["-q", "-x", "-l", "demo", H, "stay"]);
        let mut answer = [0; BY_KEY.len()];
        call.stdout.as_mut().expect("piped").read_exact(&mut answer).expect("answer");
        assert_eq!(&answer, BY_KEY.as_bytes());
        let round_trips =
            proxy.ways().last().expect("a connection").round_trips.load(Ordering::SeqCst);
        drop(call.stdin.take());
        assert_eq!(ended(call).0, 0);
        round_trips == 2
    });
}
