//! PUBKEY: ssh-keygen's own signatures, over TLS's exporter and over a fresh challenge.

mod support;
#[path = "support/tls.rs"]
mod tls;
#[path = "support/yamux_client.rs"]
mod yamux_client;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, SHA512, digest};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use support::*;
use tls::Tls;

const CONF: &str = "authorized_keys = @KEYS@/%u\nwho stream tcp nowait @USER@ /bin/sh sh -c 'echo user=$FIVED_USER auth=$FIVED_AUTH'\n";
const FAILED_LOGIN: &str = "- Authentication failed\r\n";
const YES: &str = "Authentication as demo successful\r\n";

/// A daemon whose user `demo` has the key that this makes; None without ssh-keygen.
fn daemon(conf: &str, kind: &[&str], options: &str) -> Option<Daemon> {
    with_key(Daemon::with(conf), kind, options)
}

fn with_key(d: Builder, kind: &[&str], options: &str) -> Option<Daemon> {
    if !installed("ssh-keygen") {
        skip("ssh-keygen is not installed");
        return None;
    }
    let key = d.place.at("key");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-N", "", "-f", &key])
        .args(kind)
        .status()
        .expect("ssh-keygen");
    assert!(made.success());
    let public = std::fs::read_to_string(format!("{key}.pub")).expect("public key");
    d.place.write_keys("demo", &format!("{options}{public}"));
    Some(d.start())
}

/// The line that logs a user in on a plain connection.
fn line(d: &Daemon, user: &str, challenge: &str) -> String {
    line_for(d, user, &text("plain", user, challenge), "fived")
}

/// The same on an encrypted one.
fn tls_line(d: &Daemon, user: &str, challenge: &str) -> String {
    line_for(d, user, &text("tls", user, challenge), "fived")
}

fn text(kind: &str, user: &str, challenge: &str) -> String {
    format!("fived pubkey {kind} 1\nuser {user}\nchallenge {challenge}\n")
}

fn line_for(d: &Daemon, user: &str, text: &str, namespace: &str) -> String {
    let (file, key) = (d.place.write("text", "", 0o600), d.place.at("key"));
    std::fs::write(&file, text).expect("text");
    let _ = std::fs::remove_file(format!("{file}.sig"));
    let out = Command::new("ssh-keygen")
        .args(["-q", "-Y", "sign", "-n", namespace, "-f", &key, &file])
        .output()
        .expect("ssh-keygen");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let armor = std::fs::read_to_string(format!("{file}.sig")).expect("signature");
    let blob: String = armor.lines().filter(|l| !l.starts_with("-----")).collect();
    format!("{user} {blob}\r\n")
}

fn challenge(c: &mut Client) -> String {
    let mut text = String::new();
    c.send("PUBKEY\r\n").expect("+ ");
    while !text.ends_with("\r\n") {
        let mut b = [0];
        std::io::Read::read_exact(&mut c.0, &mut b).expect("challenge");
        text.push(char::from(b[0]));
    }
    text.trim_end().to_string()
}

#[test]
fn every_kind_of_key_on_a_plain_connection() {
    for kind in [
        &["-t", "ed25519"][..],
        &["-t", "ecdsa", "-b", "256"],
        &["-t", "ecdsa", "-b", "384"],
        &["-t", "rsa", "-b", "2048"],
        &["-t", "rsa", "-b", "3072"],
    ] {
        let Some(d) = daemon(CONF, kind, "") else { return };
        let mut c = d.connect();
        let challenge = challenge(&mut c);
        assert_eq!(STANDARD.decode(&challenge).expect("base64").len(), 32);
        c.send(line(&d, "demo", &challenge)).expect(YES).send("who\r\n").half_close();
        same(c.read_all(), "+Go\r\nuser=demo auth=pubkey\n");
    }
}

fn string(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).expect("a length").to_be_bytes(), bytes].concat()
}

/// A device that FIDO calls an authenticator, in ring.
enum Device {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
}

impl Device {
    fn name(&self) -> &'static str {
        match self {
            Device::Ed25519(_) => "sk-ssh-ed25519@openssh.com",
            Device::P256(_) => "sk-ecdsa-sha2-nistp256@openssh.com",
        }
    }

    /// PROTOCOL.u2f: the public key's blob.
    fn public(&self) -> Vec<u8> {
        let key = match self {
            Device::Ed25519(k) => string(k.public_key().as_ref()),
            Device::P256(k) => [string(b"nistp256"), string(k.public_key().as_ref())].concat(),
        };
        [string(self.name().as_bytes()), key, string(b"ssh:")].concat()
    }

    /// PROTOCOL.sshsig and PROTOCOL.u2f: a signature of that text, made with those flags.
    fn sign(&self, text: &str, flags: u8) -> Vec<u8> {
        let hash = digest(&SHA512, text.as_bytes());
        let head = [string(b"fived"), string(b""), string(b"sha512")].concat();
        let message = [b"SSHSIG", &head[..], &string(hash.as_ref())].concat();
        let tail = [&[flags][..], &7u32.to_be_bytes()].concat();
        let to_sign =
            [digest(&SHA256, b"ssh:").as_ref(), &tail, digest(&SHA256, &message).as_ref()].concat();
        let signature = match self {
            Device::Ed25519(k) => k.sign(&to_sign).as_ref().to_vec(),
            Device::P256(k) => {
                let rs = k.sign(&SystemRandom::new(), &to_sign).expect("a signature");
                let number = |n: &[u8]| string(&[&[0], n].concat()[usize::from(n[0] < 0x80)..]);
                [number(&rs.as_ref()[..32]), number(&rs.as_ref()[32..])].concat()
            }
        };
        let signature = [string(self.name().as_bytes()), string(&signature), tail].concat();
        [b"SSHSIG", &1u32.to_be_bytes()[..], &string(&self.public()), &head, &string(&signature)]
            .concat()
    }
}

/// No device is at hand where tests run: ring makes what one would say, and `ssh-keygen -Y verify`
/// vouches for that.
#[test]
fn fido_keys_with_somebody_present() {
    if !installed("ssh-keygen") {
        return skip("ssh-keygen is not installed");
    }
    let random = SystemRandom::new();
    let ed = Ed25519KeyPair::generate_pkcs8(&random).expect("a key");
    let p256 =
        EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
    for device in [
        Device::Ed25519(Ed25519KeyPair::from_pkcs8(ed.as_ref()).expect("a key")),
        Device::P256(
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, p256.as_ref(), &random)
                .expect("a key"),
        ),
    ] {
        let d = Daemon::with(CONF);
        let public = format!("{} {}\n", device.name(), STANDARD.encode(device.public()));
        d.place.write_keys("demo", &public);
        d.place.write("allowed", &format!("demo namespaces=\"fived\" {public}"), 0o644);
        let d = d.start();
        for (i, (flags, good)) in
            [(1, true), (5, true), (0, false), (4, false)].into_iter().enumerate()
        {
            let mut c = d.connect_from(&format!("127.0.2.{}", i + 1));
            let nonce = challenge(&mut c);
            let text = text("plain", "demo", &nonce);
            let blob = STANDARD.encode(device.sign(&text, flags));
            d.place.write(
                "sig",
                &format!("-----BEGIN SSH SIGNATURE-----\n{blob}\n-----END SSH SIGNATURE-----\n"),
                0o644,
            );
            d.place.write("text", &text, 0o644);
            let theirs = format!(
                "cd {} && ssh-keygen -Y verify -f allowed -I demo -n fived -s sig <text",
                d.place.path.display()
            );
            let verified = Command::new("sh").args(["-c", &theirs]).output().expect("sh");
            // It does not ask for presence: all of them are signatures.
            assert!(
                verified.status.success(),
                "{flags}: {}",
                String::from_utf8_lossy(&verified.stderr)
            );
            c.send(format!("demo {blob}\r\n")).half_close();
            same(c.read_all(), if good { YES } else { FAILED_LOGIN });
        }
    }
}

#[test]
fn over_tls_both_lines_at_once() {
    let Some(d) = daemon(CONF, &["-t", "ed25519"], "") else { return };
    let mut c = Tls::start(d.connect().0, "x.example");
    let exporter = STANDARD.encode(c.exporter());
    let signed = tls_line(&d, "demo", &exporter);
    c.send(format!("PUBKEY\r\n{signed}who\r\n").as_bytes());
    same(c.read_all(), format!("+ {exporter}\r\n{YES}+Go\r\nuser=demo auth=pubkey\n"));
    // The same signature is worth nothing on another connection.
    let mut c = Tls::start(d.connect().0, "x.example");
    c.send(format!("PUBKEY\r\n{signed}who\r\n").as_bytes());
    let answer = String::from_utf8(c.read_all()).expect("text");
    assert!(answer.ends_with(&format!("{FAILED_LOGIN}+Go\r\nuser= auth=\n")), "{answer}");
}

/// A server that is in the middle can hand out the exporter of its own connection to another server
/// as a plain challenge.
#[test]
fn what_was_signed_for_a_plain_challenge_is_worth_nothing_inside_tls() {
    let Some(d) = daemon(CONF, &["-t", "ed25519"], "") else { return };
    let mut c = Tls::start(d.connect().0, "x.example");
    let exporter = STANDARD.encode(c.exporter());
    c.send(
        format!(
            "PUBKEY\r\n{}PUBKEY\r\n{}",
            line(&d, "demo", &exporter),
            tls_line(&d, "demo", &exporter)
        )
        .as_bytes(),
    );
    c.expect(format!("+ {exporter}\r\n{FAILED_LOGIN}+ {exporter}\r\n{YES}").as_bytes());
    d.wait_log("user=demo method=pubkey result=bad-signature");
    // Nor the other way round; nor what had no kind yet.
    let mut c = d.connect_from("127.0.0.2");
    let nonce = challenge(&mut c);
    c.send(tls_line(&d, "demo", &nonce)).expect(FAILED_LOGIN);
    let nonce = challenge(&mut c);
    c.send(line_for(&d, "demo", &text("plain", "demo", &nonce).replace(" plain", ""), "fived"))
        .expect(FAILED_LOGIN);
}

#[test]
fn all_streams_of_a_connection_have_its_exporter() {
    let Some(d) = daemon(CONF, &["-t", "ed25519"], "") else { return };
    let mut c = Tls::start(d.connect().0, "x.example");
    let exporter = STANDARD.encode(c.exporter());
    let signed = tls_line(&d, "demo", &exporter);
    c.send(b"MULTIPLEX\r\n");
    c.expect(b"+ Success\r\n");
    let c = yamux_client::Client::new(c.0);
    // The same signature again: it is the same session.
    for _ in 0..2 {
        let mut s = c.ask(format!("PUBKEY\r\n{signed}who\r\n"));
        same(s.read_all(), format!("+ {exporter}\r\n{YES}+Go\r\nuser=demo auth=pubkey\n"));
    }
    let plain = line(&d, "demo", &exporter);
    let mut s = c.ask(format!("PUBKEY\r\n{plain}who\r\n"));
    same(s.read_all(), format!("+ {exporter}\r\n{FAILED_LOGIN}+Go\r\nuser= auth=\n"));
}

/// Nobody but a net process that is no longer fived's own shows a challenge twice. Here strace(1)
/// keeps the net process from its random bytes.
#[test]
fn a_signature_that_was_accepted_in_one_session_is_not_accepted_in_another() {
    if !(root() && installed("strace")) {
        return skip("needs root and strace");
    }
    let Some(d) = daemon(CONF, &["-t", "ed25519"], "") else { return };
    let pid = d.net_pid().to_string();
    let log = d.place.at("strace");
    let inject =
        ["-f", "-o", &log, "-e", "trace=getrandom", "-e", "inject=getrandom:retval=32", "-p", &pid];
    let mut strace = Command::new("strace")
        .args(inject)
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("strace");
    let traced = || {
        std::fs::read_to_string(format!("/proc/{pid}/status"))
            .is_ok_and(|s| !s.contains("TracerPid:\t0"))
    };
    until("strace traces, or may not", || {
        traced() || strace.try_wait().is_ok_and(|ended| ended.is_some())
    });
    if !traced() {
        return skip("strace may not trace here");
    }
    let mut c = d.connect();
    let nonce = challenge(&mut c);
    let signed = line(&d, "demo", &nonce);
    for _ in 0..2 {
        c.send(&signed).expect(YES);
        assert_eq!(challenge(&mut c), nonce);
    }
    let mut c = d.connect_from("127.0.0.2");
    assert_eq!(challenge(&mut c), nonce);
    c.send(&signed).expect(FAILED_LOGIN).send("who\r\n").expect("+Go\r\nuser= auth=\n").end();
    d.wait_log("LOGIN user=demo method=pubkey result=used-signature from=127.0.0.2");
    d.wait_log("PENALTY from=127.0.0.2");
    let _ = strace.kill().and_then(|()| strace.wait());
}

#[test]
fn a_name_ends_at_the_last_blank() {
    let Some(d) = daemon(CONF, &["-t", "ed25519"], "") else { return };
    let keys = std::fs::read_to_string(d.place.keys().join("demo")).expect("keys");
    d.place.write_keys("ann b", &keys);
    let mut c = d.connect();
    let nonce = challenge(&mut c);
    c.send(line(&d, "ann b", &nonce)).expect("Authentication as ann b successful\r\n");
}

#[test]
fn a_plain_challenge_is_used_once() {
    let Some(d) = daemon(CONF, &["-t", "ed25519"], "") else { return };
    let mut c = d.connect();
    let first = challenge(&mut c);
    let signed = line(&d, "demo", &first);
    c.send(&signed).expect(YES);
    assert_ne!(challenge(&mut c), first);
    c.send(&signed).expect(FAILED_LOGIN).send("who\r\n").expect("+Go\r\nuser= auth=\n");
}

#[test]
fn wrong_text_wrong_namespace_wrong_user_no_signature() {
    let Some(d) = daemon(&format!("pubkey_tries = 5\n{CONF}"), &["-t", "ed25519"], "") else {
        return;
    };
    let mut c = d.connect();
    let nonce = challenge(&mut c);
    c.send(line_for(&d, "demo", &text("plain", "root", &nonce), "fived")).expect(FAILED_LOGIN);
    let nonce = challenge(&mut c);
    c.send(line_for(&d, "demo", &text("plain", "demo", &nonce), "file")).expect(FAILED_LOGIN);
    let nonce = challenge(&mut c);
    c.send(line(&d, "root", &nonce)).expect(FAILED_LOGIN);
    challenge(&mut c);
    c.send("demo\r\n").expect(FAILED_LOGIN);
    challenge(&mut c);
    c.send("demo AAAA\r\n").expect(FAILED_LOGIN).end();
}

#[test]
fn a_key_that_is_not_the_users_costs_a_try_but_no_penalty() {
    let Some(d) = daemon(&format!("pubkey_tries = 2\n{CONF}"), &["-t", "ed25519"], "") else {
        return;
    };
    let another = d.place.at("another");
    let mut made = Command::new("ssh-keygen");
    let made = made.args(["-q", "-N", "", "-t", "ed25519", "-f", &another]).status();
    assert!(made.expect("ssh-keygen").success());
    let another = std::fs::read_to_string(another + ".pub").expect("public key");
    let mut c = d.connect();
    for keys in ["# nobody's\n", &another] {
        d.place.write_keys("demo", keys);
        let nonce = challenge(&mut c);
        c.send(line(&d, "demo", &nonce)).expect(FAILED_LOGIN);
    }
    c.end();
    d.wait_logs("result=not-a-key", 2);
    assert!(d.ask("PUBKEY\r\n").starts_with(b"+ "));
    assert!(!d.log().contains("PENALTY"));
}

/// How long it takes to look for a user's keys tells strangers who exists: all who do not log in
/// wait for the same moment.
#[test]
fn a_key_that_logs_nobody_in_is_not_answered_sooner_than_another() {
    let Some(d) = daemon(CONF, &["-t", "ed25519"], "") else { return };
    d.place.write_keys("demo", "# nobody's\n");
    for user in ["demo", "nosuchuser"] {
        let mut c = d.connect();
        for _ in 0..5 {
            let nonce = challenge(&mut c);
            let line = line(&d, user, &nonce);
            let asked = Instant::now();
            c.send(line).expect(FAILED_LOGIN);
            assert!(asked.elapsed() >= Duration::from_millis(20), "{user}");
        }
    }
}

#[test]
fn neither_does_a_key_of_a_kind_or_size_that_never_counts() {
    for kind in [&["-t", "ecdsa", "-b", "521"][..], &["-t", "rsa", "-b", "1024"]] {
        let Some(d) = daemon(CONF, kind, "") else { return };
        let mut c = d.connect();
        let nonce = challenge(&mut c);
        c.send(line(&d, "demo", &nonce)).expect(FAILED_LOGIN);
        d.wait_log("result=not-a-key");
        assert!(d.ask("PUBKEY\r\n").starts_with(b"+ "));
        assert!(!d.log().contains("PENALTY"));
    }
}

#[test]
fn a_bad_signature_costs_a_penalty() {
    let Some(d) = daemon(CONF, &["-t", "ed25519"], "") else { return };
    let mut c = d.connect();
    challenge(&mut c);
    c.send(line(&d, "demo", "another")).expect(FAILED_LOGIN).half_close().end();
    d.wait_log("PENALTY from=127.0.0.1");
    assert!(d.ask("PUBKEY\r\n").starts_with(b"- Try again later ("));
}

fn with_options(options: &str) -> Option<bool> {
    let d = daemon(CONF, &["-t", "ed25519"], options)?;
    let mut c = d.connect();
    let nonce = challenge(&mut c);
    c.send(line(&d, "demo", &nonce)).half_close();
    Some(c.read_all() == YES.as_bytes())
}

#[test]
fn options_of_a_line() {
    for options in [
        "restrict,no-pty ",
        "from=\"127.0.0.0/8\" ",
        "expiry-time=\"20990101\" ",
        "no-port-forwarding,no-agent-forwarding,no-x11-forwarding,no-user-rc ",
    ] {
        let Some(good) = with_options(options) else { return };
        assert!(good, "{options}");
    }
    for options in [
        "command=\"date\" ",
        "cert-authority ",
        "environment=\"A=b\" ",
        "from=\"192.0.2.1\" ",
        "expiry-time=\"20200101\" ",
        "principals=\"x\" ",
        "tunnel=\"0\" ",
        "future-option ",
    ] {
        let Some(good) = with_options(options) else { return };
        assert!(!good, "{options}");
    }
}

/// The time zone is that of `access_times`.
#[test]
fn a_key_expires_in_fived_s_time_zone() {
    let in_hours = |hours: &str| {
        let words = ["-u", "-d", &format!("{hours} hours"), "+%Y%m%d%H%M"];
        let out = Command::new("date").args(words).output().expect("date");
        String::from_utf8(out.stdout).expect("text").trim().to_string()
    };
    // UTC-12 is 12 hours behind UTC.
    for (hours, end, good) in [("-11", "", true), ("-13", "", false), ("-11", "Z", false)] {
        let options = format!("expiry-time=\"{}{end}\" ", in_hours(hours));
        let b = Daemon::with(CONF).env("TZ", "Etc/GMT+12");
        let Some(d) = with_key(b, &["-t", "ed25519"], &options) else { return };
        assert_eq!(logs_in(&d, 1), good, "{options}");
    }
}

/// Does this key log in now? Each time from a source of its own.
fn logs_in(d: &Daemon, n: u8) -> bool {
    let mut c = d.connect_from(&format!("127.0.4.{n}"));
    let nonce = challenge(&mut c);
    c.send(line(d, "demo", &nonce)).half_close();
    let answer = c.read_all();
    assert!(
        answer == YES.as_bytes() || answer == FAILED_LOGIN.as_bytes(),
        "{}",
        answer.escape_ascii()
    );
    answer == YES.as_bytes()
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))
        .expect("mode");
}

#[test]
fn a_file_that_others_may_write_does_not_count() {
    let Some(d) = daemon(CONF, &["-t", "ed25519"], "") else { return };
    let (keys, file) = (d.place.keys().to_path_buf(), d.place.keys().join("demo"));
    for (n, (what, m, good)) in [
        (&file, 0o664, false),
        (&file, 0o646, false),
        (&file, 0o644, true),
        (&keys, 0o1777, false),
        (&keys, 0o775, false),
        (&keys, 0o755, true),
    ]
    .into_iter()
    .enumerate()
    {
        mode(what, m);
        assert_eq!(logs_in(&d, n as u8 + 1), good, "{} {m:o}", what.display());
    }
}

#[test]
fn a_file_that_is_too_long_does_not_count() {
    let Some(d) = daemon(CONF, &["-t", "ed25519"], "") else { return };
    let key = std::fs::read_to_string(d.place.at("key.pub")).expect("public key");
    let with = |length: usize| key.clone() + "#".repeat(length - key.len() - 1).as_str() + "\n";
    d.place.write_keys("demo", &with(256 * 1024));
    assert!(logs_in(&d, 1));
    d.place.write_keys("demo", &with(256 * 1024 + 1));
    assert!(!logs_in(&d, 2));
    assert!(d.wait_log("longer than 262144 bytes").contains("demo"));
}

/// Whoever makes a name in a directory decides what it leads to: a link to a good file of somebody
/// else's, say.
#[test]
fn a_sticky_directory_that_others_may_write_never_counts_for_links_either() {
    let Some(d) = daemon(
        &CONF.replace("@KEYS@/%u", "@KEYS@/%u @KEYS@/open/%u @DIR@/%u"),
        &["-t", "ed25519"],
        "",
    ) else {
        return;
    };
    let (keys, open) = (d.place.keys().to_path_buf(), d.place.keys().join("open"));
    std::fs::rename(keys.join("demo"), keys.join("other")).expect("rename");
    std::fs::create_dir(&open).expect("directory");
    mode(&open, 0o755);
    std::os::unix::fs::symlink("../other", open.join("demo")).expect("link");
    assert!(logs_in(&d, 1));
    mode(&open, 0o1777);
    assert!(!logs_in(&d, 2));
    let wrong = "expected that only its owner can write it, found mode 1777: run `chmod go-w`";
    d.wait_log(&format!(
        "WARN {0}/demo: this file of keys does not count: {0}: {wrong}",
        open.display()
    ));
    // The test's own directory is below /tmp.
    std::os::unix::fs::symlink(keys.join("other"), d.place.at("demo")).expect("link");
    assert!(!logs_in(&d, 3));
    d.wait_log(&format!(
        "WARN {}: this file of keys does not count: /tmp: {wrong}",
        d.place.at("demo")
    ));
    // And a good directory's link through the bad one.
    std::os::unix::fs::symlink("open/demo", keys.join("demo")).expect("link");
    assert!(!logs_in(&d, 4));
    d.wait_log(&format!(
        "WARN {}/demo: this file of keys does not count: {}: {wrong}",
        keys.display(),
        open.display()
    ));
}

/// In a mount namespace of fived's, in which there is a user whose home is the test's.
#[test]
fn a_homes_file_is_read_as_its_user() {
    if !root() {
        return skip("needs root");
    }
    let conf = CONF.replace("@KEYS@/%u", "%h/.ssh/authorized_keys");
    let b = Daemon::with(&conf);
    let passwd = std::fs::read_to_string("/etc/passwd").expect("passwd");
    // The first entry of a name counts, should this computer have a `demo` of its own.
    b.place.write("passwd", &format!("demo:x:43210:43210::@KEYS@/home:/bin/sh\n{passwd}"), 0o644);
    let mount = "mount --bind @DIR@/passwd /etc/passwd && exec \"$0\" \"$@\"";
    let Some(d) = with_key(b.under(&["unshare", "-m", "sh", "-c", mount]), &["-t", "ed25519"], "")
    else {
        return;
    };
    let (home, ssh) = (d.place.keys().join("home"), d.place.keys().join("home/.ssh"));
    std::fs::create_dir_all(&ssh).expect("directory");
    std::fs::rename(d.place.keys().join("demo"), ssh.join("authorized_keys")).expect("rename");
    for (path, m) in [(&ssh.join("authorized_keys"), 0o600), (&ssh, 0o700), (&home, 0o700)] {
        mode(path, m);
        std::os::unix::fs::chown(path, Some(43210), Some(43210)).expect("chown");
    }
    assert!(logs_in(&d, 1));
    mode(&home, 0o770);
    assert!(!logs_in(&d, 2));
    let file = ssh.join("authorized_keys");
    d.wait_log(&format!(
        "WARN {}: this file of keys does not count: {}: expected that only its owner can write it",
        file.display(),
        home.display()
    ));
    // What root alone can read is not read for him.
    mode(&home, 0o700);
    std::os::unix::fs::chown(&file, Some(0), None).expect("chown");
    assert!(!logs_in(&d, 3));
    std::os::unix::fs::chown(&file, Some(12345), None).expect("chown");
    mode(&file, 0o644);
    assert!(!logs_in(&d, 4));
}

#[test]
fn a_named_pipe_in_the_place_of_a_file_of_keys_holds_up_nobody() {
    let Some(d) =
        daemon(&CONF.replace("@KEYS@/%u", "@KEYS@/pipe/%u @KEYS@/%u"), &["-t", "ed25519"], "")
    else {
        return;
    };
    let pipe = d.place.keys().join("pipe/demo");
    std::fs::create_dir(d.place.keys().join("pipe")).expect("directory");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("pipe");
    assert!(logs_in(&d, 1));
    d.wait_log(&format!("WARN {0}: this file of keys does not count: {0}: expected a regular file, found a named pipe", pipe.display()));
}

/// As its owner may do it, to hold up whoever reads it.
#[test]
fn a_lease_on_a_file_of_keys_holds_up_nobody() {
    let Some(d) =
        daemon(&CONF.replace("@KEYS@/%u", "@KEYS@/lease/%u @KEYS@/%u"), &["-t", "ed25519"], "")
    else {
        return;
    };
    std::fs::create_dir(d.place.keys().join("lease")).expect("directory");
    let file = d.place.write_keys("lease/demo", "");
    if !installed("perl") {
        return skip("perl is not installed");
    }
    // F_SETLEASE, F_WRLCK; SIGIO would end it.
    let hold = "$SIG{IO} = 'IGNORE'; open F, '+<', shift or die; fcntl F, 1024, 1 or exit 77; $| = 1; print \"held\\n\"; sleep 60";
    let mut c = Command::new("perl");
    let mut perl =
        c.args(["-e", hold, &file]).stdout(std::process::Stdio::piped()).spawn().expect("perl");
    let mut answer = String::new();
    let mut out = std::io::BufReader::new(perl.stdout.take().expect("piped"));
    std::io::BufRead::read_line(&mut out, &mut answer).expect("what it says");
    let held = answer == "held\n";
    if held {
        assert!(logs_in(&d, 1));
        d.wait_log(&format!("WARN {file}: this file of keys does not count: {file}: another process holds a lease on it"));
    }
    let _ = perl.kill().and_then(|()| perl.wait());
    if !held {
        skip("this file system has no leases");
    }
}

#[test]
fn why_a_file_does_not_count_is_logged_once_a_minute() {
    let Some(d) = daemon(CONF, &["-t", "ed25519"], "") else { return };
    mode(&d.place.keys().join("demo"), 0o666);
    assert!(!logs_in(&d, 1) && !logs_in(&d, 2) && !logs_in(&d, 3));
    // A stranger's names are no files, and nothing is said of them.
    mode(d.place.keys(), 0o777);
    let mut c = d.connect_from("127.0.4.4");
    let nonce = challenge(&mut c);
    c.send(line(&d, "stranger", &nonce)).expect(FAILED_LOGIN);
    d.wait_logs("LOGIN user=demo", 3);
    d.wait_log("LOGIN user=stranger");
    let answer: Vec<String> =
        d.log().lines().filter(|l| l.starts_with("WARN ")).map(String::from).collect();
    let file = d.place.keys().join("demo");
    let wanted = "expected that only its owner can write it, found mode 0666: run `chmod go-w`";
    assert_eq!(
        answer,
        [format!("WARN {0}: this file of keys does not count: {0}: {wanted}", file.display())]
    );
}

/// As sshd without PAM has it: chage(1) ends who may log in, by a key too.
#[test]
fn nobody_logs_in_with_an_account_that_has_expired() {
    if !root() || !installed("unshare") {
        return skip("needs root and unshare");
    }
    let (conf, files) = (format!("passwords = @DIR@/passwd\n{CONF}"), ["passwd", "shadow"]);
    let hash = "$5$fivedtest$aF7TYyX/okCSYkmpkB7BUyLsCpQnzMOh36YizxX91R.";
    // Days since 1970, in the last field but one. It is one of 2243 for `later`.
    let users = [("demo", ""), ("gone", "1"), ("later", "100000"), ("locked", "")];
    let b = Daemon::with(&conf)
        .file("passwd", &users.map(|(name, _)| format!("{name}:{hash}\n")).concat());
    let [passwd, shadow] = files.map(|f| std::fs::read_to_string(format!("/etc/{f}")).expect(f));
    let new = |line: &dyn Fn(usize) -> String| (0..users.len()).map(line).collect::<String>();
    let passwd_of = |n: usize| format!("{0}:x:{1}:{1}::/:/bin/sh\n", users[n].0, 61_300 + n);
    let shadow_of = |n: usize| format!("{}:!:19000:::::{}:\n", users[n].0, users[n].1);
    b.place.write("etc-passwd", &(passwd + &new(&passwd_of)), 0o644);
    b.place.write("etc-shadow", &(shadow + &new(&shadow_of)), 0o600);
    let mounts = "mount --bind @DIR@/etc-passwd /etc/passwd && mount --bind @DIR@/etc-shadow /etc/shadow && exec \"$0\" \"$@\"";
    let b = b.under(&["unshare", "-m", "sh", "-c", mounts]);
    let Some(d) = with_key(b, &["-t", "ed25519"], "") else { return };
    let keys = std::fs::read_to_string(d.place.keys().join("demo")).expect("keys");
    for (n, (name, _)) in users.iter().enumerate() {
        d.place.write_keys(name, &keys);
        let yes = format!("Authentication as {name} successful\r\n");
        let answer = if *name == "gone" { FAILED_LOGIN } else { &yes };
        let mut c = d.connect_from(&format!("127.0.5.{}", n + 1));
        let nonce = challenge(&mut c);
        c.send(line(&d, name, &nonce)).expect(answer);
        let prompts = "+ Success\r\nEnter Username: Enter Password: ";
        c.send(format!("AUTH\r\n{name}\r\ndemopass\r\n")).expect(format!("{prompts}{answer}"));
    }
    d.wait_log("LOGIN user=gone method=pubkey result=no-account from=127.0.5.2");
    d.wait_log("LOGIN user=gone method=password result=no from=127.0.5.2");
}

/// PAM's own files and modules, in a mount namespace of fived's.
#[test]
fn a_good_key_is_followed_by_pams_account_phase() {
    let modules = |d: std::fs::DirEntry| d.path().join("security/pam_exec.so").exists();
    if !root()
        || !std::fs::read_dir("/usr/lib").is_ok_and(|mut all| all.any(|e| e.is_ok_and(modules)))
    {
        return skip("needs root, and the modules of PAM");
    }
    let mount = "mount --bind @DIR@/pam.d /etc/pam.d && exec \"$0\" \"$@\"";
    let check = "#!/bin/sh\necho $PAM_TYPE $PAM_USER $PAM_RHOST $PAM_SERVICE >>@DIR@/seen\nexec test $PAM_USER != expired\n";
    let started = |settings: &str| {
        let b = Daemon::with(&format!("{settings}{CONF}")).file("check", check);
        b.place.write(
            "pam.d/fived",
            "auth required pam_deny.so\naccount required pam_exec.so quiet @DIR@/check\n",
            0o644,
        );
        let d = with_key(b.under(&["unshare", "-m", "sh", "-c", mount]), &["-t", "ed25519"], "")?;
        let keys = std::fs::read_to_string(d.place.keys().join("demo")).expect("keys");
        d.place.write_keys("expired", &keys);
        Some(d)
    };
    let Some(d) = started("pam = fived\n") else { return };
    assert!(logs_in(&d, 1));
    let seen = || std::fs::read_to_string(d.place.at("seen")).unwrap_or_default();
    same(seen(), "account demo 127.0.4.1 fived\n");
    let mut c = d.connect_from("127.0.4.2");
    let nonce = challenge(&mut c);
    c.send(line(&d, "expired", &nonce))
        .expect(FAILED_LOGIN)
        .send("who\r\n")
        .expect("+Go\r\nuser= auth=\n")
        .end();
    d.wait_log("LOGIN user=expired method=pubkey result=no-account from=127.0.4.2");
    same(seen(), "account demo 127.0.4.1 fived\naccount expired 127.0.4.2 fived\n");
    // Without a good signature of a good key nobody has modules act.
    let mut c = d.connect_from("127.0.4.3");
    challenge(&mut c);
    c.send(line(&d, "expired", "another")).expect(FAILED_LOGIN);
    assert_eq!(seen().lines().count(), 2);
    // Over TLS as well, where nothing waits for the answer.
    let mut c = Tls::start(d.connect().0, "x.example");
    let exporter = STANDARD.encode(c.exporter());
    c.send(format!("PUBKEY\r\n{}who\r\n", tls_line(&d, "demo", &exporter)).as_bytes());
    same(c.read_all(), format!("+ {exporter}\r\n{YES}+Go\r\nuser=demo auth=pubkey\n"));
    // Where it is switched off PAM is not asked.
    let Some(d) = started("pam = fived\npam_account = no\n") else { return };
    let mut c = d.connect();
    let nonce = challenge(&mut c);
    c.send(line(&d, "expired", &nonce)).expect("Authentication as expired successful\r\n");
    assert!(!Path::new(&d.place.at("seen")).exists());
}

#[test]
fn the_account_phase_needs_a_service_of_pams() {
    let place = Place::new();
    let (code, _, err) = place.fived("pam_account = yes\n", &["-t"]);
    let wanted = format!(
        "{}:1: pam_account: yes: expected a PAM service to ask (`pam = NAME`), found none\n",
        place.at("fived.conf")
    );
    assert_eq!((code, err), (1, wanted));
    for (conf, effective) in [
        ("", "no"),
        ("pam = x\n", "yes"),
        ("pam = x\npam_account = no\n", "no"),
        ("pam_account = no\n", "no"),
    ] {
        let (_, table, _) = place.fived(conf, &["-T"]);
        assert!(table.contains(&format!("\npam_account = {effective}\n")), "{conf}: {table}");
    }
}

#[test]
fn a_user_of_two_names_up_is_no_user() {
    let Some(d) = daemon(CONF, &["-t", "ed25519"], "") else { return };
    let mut c = d.connect();
    let nonce = challenge(&mut c);
    c.send(line(&d, "../keys/demo", &nonce)).expect(FAILED_LOGIN);
}

#[test]
fn the_log_has_the_keys_fingerprint_as_sshd_prints_it() {
    let Some(d) = daemon(CONF, &["-t", "ed25519"], "") else { return };
    let print = |key: &str| {
        let out = Command::new("ssh-keygen")
            .args(["-l", "-E", "sha256", "-f", &format!("{key}.pub")])
            .output()
            .expect("ssh-keygen");
        String::from_utf8_lossy(&out.stdout).split(' ').nth(1).expect("a fingerprint").to_string()
    };
    let mut c = d.connect();
    let text = challenge(&mut c);
    c.send(line(&d, "demo", &text)).expect(YES);
    let line = d.wait_log("LOGIN user=demo method=pubkey result=yes from=127.0.0.1 session=");
    assert!(line.ends_with(&format!(" key={}", print(&d.place.at("key")))), "{line}");
    // A key that is nobody's here has its fingerprint, too.
    d.place.write_keys("demo", "");
    let text = challenge(&mut c);
    c.send(self::line(&d, "demo", &text)).expect(FAILED_LOGIN);
    let line = d.wait_log("LOGIN user=demo method=pubkey result=not-a-key");
    assert!(line.ends_with(&format!(" key={}", print(&d.place.at("key")))), "{line}");
}
