//! SPEC 1.2, PUBKEY: ssh-keygen's own signatures, over TLS's exporter and over a fresh challenge.

mod support;
#[path = "support/tls.rs"]
mod tls;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::process::Command;
use support::*;
use tls::Tls;

const CONF: &str = "authorized_keys = @DIR@/keys/%u\nwho stream tcp nowait @USER@ /bin/sh sh -c 'echo user=$FIVED_USER auth=$FIVED_AUTH'\n";
const FAILED_LOGIN: &str = "- Authentication failed\r\n";
const YES: &str = "Authentication as demo successful\r\n";

/// A daemon whose user `demo` has the key that this makes; None without ssh-keygen.
fn daemon(conf: &str, kind: &[&str], options: &str) -> Option<Daemon> {
    if !installed("ssh-keygen") {
        skip("ssh-keygen is not installed");
        return None;
    }
    let d = Daemon::with(conf);
    let key = d.place.at("key");
    let made = Command::new("ssh-keygen").args(["-q", "-N", "", "-f", &key]).args(kind).status().expect("ssh-keygen");
    assert!(made.success());
    let public = std::fs::read_to_string(format!("{key}.pub")).expect("public key");
    d.place.write("keys/demo", &format!("{options}{public}"), 0o644);
    std::fs::set_permissions(d.place.at("keys"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("mode");
    Some(d.file("unused", "").start())
}

/// The line that logs a user in.
fn line(d: &Daemon, user: &str, challenge: &str) -> String {
    line_for(d, user, &format!("fived pubkey 1\nuser {user}\nchallenge {challenge}\n"), "fived")
}

fn line_for(d: &Daemon, user: &str, text: &str, namespace: &str) -> String {
    let (file, key) = (d.place.write("text", "", 0o600), d.place.at("key"));
    std::fs::write(&file, text).expect("text");
    let _ = std::fs::remove_file(format!("{file}.sig"));
    let out = Command::new("ssh-keygen").args(["-q", "-Y", "sign", "-n", namespace, "-f", &key, &file]).output().expect("ssh-keygen");
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
    for kind in [&["-t", "ed25519"][..], &["-t", "ecdsa", "-b", "256"], &["-t", "ecdsa", "-b", "384"], &["-t", "rsa", "-b", "2048"], &["-t", "rsa", "-b", "3072"]] {
        let Some(d) = daemon(CONF, kind, "") else { return };
        let mut c = d.connect();
        let challenge = challenge(&mut c);
        assert_eq!(STANDARD.decode(&challenge).expect("base64").len(), 32);
        c.send(line(&d, "demo", &challenge)).expect(YES).send("who\r\n").half_close();
        same(c.read_all(), "+Go\r\nuser=demo auth=pubkey\n");
    }
}

#[test]
fn over_tls_both_lines_at_once() {
    let Some(d) = daemon(CONF, &["-t", "ed25519"], "") else { return };
    let mut c = Tls::start(d.connect().0, "x.example");
    let exporter = STANDARD.encode(c.exporter());
    let signed = line(&d, "demo", &exporter);
    c.send(format!("PUBKEY\r\n{signed}who\r\n").as_bytes());
    same(c.read_all(), format!("+ {exporter}\r\n{YES}+Go\r\nuser=demo auth=pubkey\n"));
    // The same signature is worth nothing on another connection.
    let mut c = Tls::start(d.connect().0, "x.example");
    c.send(format!("PUBKEY\r\n{signed}who\r\n").as_bytes());
    let said = String::from_utf8(c.read_all()).expect("text");
    assert!(said.ends_with(&format!("{FAILED_LOGIN}+Go\r\nuser= auth=\n")), "{said}");
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
    let Some(d) = daemon(&format!("pubkey_tries = 5\n{CONF}"), &["-t", "ed25519"], "") else { return };
    let mut c = d.connect();
    let nonce = challenge(&mut c);
    c.send(line_for(&d, "demo", &format!("fived pubkey 1\nuser root\nchallenge {nonce}\n"), "fived")).expect(FAILED_LOGIN);
    let nonce = challenge(&mut c);
    c.send(line_for(&d, "demo", &format!("fived pubkey 1\nuser demo\nchallenge {nonce}\n"), "file")).expect(FAILED_LOGIN);
    let nonce = challenge(&mut c);
    c.send(line(&d, "root", &nonce)).expect(FAILED_LOGIN);
    challenge(&mut c);
    c.send("demo\r\n").expect(FAILED_LOGIN);
    challenge(&mut c);
    c.send("demo AAAA\r\n").expect(FAILED_LOGIN).end();
}

#[test]
fn a_key_that_is_not_the_users_costs_a_try_but_no_penalty() {
    let Some(d) = daemon(&format!("pubkey_tries = 2\n{CONF}"), &["-t", "ed25519"], "") else { return };
    std::fs::write(d.place.at("keys/demo"), "# nobody's\n").expect("keys");
    let mut c = d.connect();
    for _ in 0..2 {
        let nonce = challenge(&mut c);
        c.send(line(&d, "demo", &nonce)).expect(FAILED_LOGIN);
    }
    c.end();
    d.wait_logs("result=not-a-key", 2);
    assert!(d.ask("PUBKEY\r\n").starts_with(b"+ "));
    assert!(!d.log().contains("PENALTY"));
}

#[test]
fn a_bad_signature_costs_a_penalty() {
    let Some(d) = daemon(CONF, &["-t", "ed25519"], "") else { return };
    let mut c = d.connect();
    challenge(&mut c);
    c.send(line(&d, "demo", "another")).expect(FAILED_LOGIN).half_close().end();
    d.wait_log("PENALTY from=127.0.0.1");
    same(d.ask("PUBKEY\r\n"), "- Try again later\r\n");
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
    for options in ["restrict,no-pty ", "from=\"127.0.0.0/8\" ", "expiry-time=\"20990101\" ", "no-port-forwarding,no-agent-forwarding,no-x11-forwarding,no-user-rc "] {
        let Some(good) = with_options(options) else { return };
        assert!(good, "{options}");
    }
    for options in ["command=\"date\" ", "cert-authority ", "environment=\"A=b\" ", "from=\"192.0.2.1\" ", "expiry-time=\"20200101\" ", "principals=\"x\" ", "tunnel=\"0\" ", "future-option "] {
        let Some(good) = with_options(options) else { return };
        assert!(!good, "{options}");
    }
}

#[test]
fn a_file_that_others_may_write_does_not_count() {
    let Some(d) = daemon(CONF, &["-t", "ed25519"], "") else { return };
    let mode = |m: u32| std::fs::set_permissions(d.place.at("keys/demo"), std::os::unix::fs::PermissionsExt::from_mode(m)).expect("mode");
    for (m, good) in [(0o664, false), (0o646, false), (0o644, true)] {
        mode(m);
        let mut c = d.connect();
        let nonce = challenge(&mut c);
        c.send(line(&d, "demo", &nonce)).half_close();
        same(c.read_all(), if good { YES } else { FAILED_LOGIN });
    }
}

#[test]
fn a_user_of_two_names_up_is_no_user() {
    let Some(d) = daemon(CONF, &["-t", "ed25519"], "") else { return };
    let mut c = d.connect();
    let nonce = challenge(&mut c);
    c.send(line(&d, "../keys/demo", &nonce)).expect(FAILED_LOGIN);
}
