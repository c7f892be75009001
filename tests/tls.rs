//! SSL: in band and from the first byte; and certificates.

mod support;
#[path = "support/tls.rs"]
mod tls;

use std::io::{Read, Write};
use std::net::TcpStream;
use support::*;
use tls::Tls;

const ENV: &str = "env stream tcp nowait @USER@ /usr/bin/env env\ncat stream tcp nowait @USER@ /bin/cat cat\nplain stream tcp nowait @USER@ /bin/echo echo plain\nsecret stream tcp nowait @USER@ /bin/echo echo secret\n require = tls\n";

fn direct(d: &Daemon) -> Tls {
    Tls::start(d.connect().0, "nobody.example")
}

fn in_band(d: &Daemon) -> Tls {
    let mut c = d.connect();
    c.send("SSL\r\n").expect("+ Success\r\n");
    Tls::start(c.0, "nobody.example")
}

#[test]
fn in_band_and_from_the_first_byte() {
    let d = Daemon::with(ENV).start();
    for mut c in [direct(&d), in_band(&d)] {
        c.send(b"secret\r\n");
        assert_eq!(c.read_all(), b"+Go\r\nsecret\n");
    }
    same(d.ask("secret\r\n"), NOT_AVAILABLE);
}

#[test]
fn help_inside_tls_has_no_ssl_and_all_that_tls_opens() {
    let d = Daemon::with(ENV).start();
    let mut c = direct(&d);
    c.send(b"HELP\r\n");
    same(
        c.read_all(),
        "env\r\ncat\r\nplain\r\nsecret\r\nAUTH\r\nHOST\r\nMULTIPLEX\r\nPUBKEY\r\nRESUME\r\nRUN\r\n",
    );
    let mut c = direct(&d);
    c.send(b"SSL\r\n");
    same(c.read_all(), "- Session is already encrypted\r\n");
}

#[test]
fn the_environment_tells_what_tls_settled() {
    let d = Daemon::with(ENV).start();
    let mut c = direct(&d);
    c.send(b"env\r\n");
    let text = String::from_utf8(c.read_all()).expect("text");
    for line in [
        "SSL_PROTOCOL=TLSv1.3\n",
        "SSL_CIPHER=TLS_",
        "SSL_TLS_SNI_SERVERNAME=nobody.example\n",
        "TCPREMOTEIP=127.0.0.1\n",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}

#[test]
fn the_client_hello_may_come_right_after_the_request() {
    let d = Daemon::with(ENV).start();
    let mut tcp = d.connect().0;
    let mut conn =
        rustls::ClientConnection::new(tls::config(&[]), "x.example".try_into().expect("name"))
            .expect("client");
    let mut first = b"SSL\r\n".to_vec();
    conn.write_tls(&mut first).expect("hello");
    tcp.write_all(&first).expect("send");
    let mut reply = [0; 11];
    tcp.read_exact(&mut reply).expect("reply");
    same(reply, "+ Success\r\n");
    while conn.is_handshaking() {
        conn.complete_io(&mut tcp).expect("handshake");
    }
    let mut c = Tls(rustls::StreamOwned::new(conn, tcp));
    c.send(b"plain\r\n");
    same(c.read_all(), "+Go\r\nplain\n");
}

#[test]
fn requests_smuggled_after_the_request_are_never_executed() {
    let d = Daemon::with(ENV).start();
    let mut c = d.connect();
    c.send("SSL\r\nplain\r\n").expect("+ Success\r\n");
    let rest = c.read_any();
    assert!(!rest.windows(3).any(|w| w == b"+Go"), "{:?}", rest.escape_ascii().to_string());
    same(d.ask("plain\r\n"), "+Go\r\nplain\n");
    assert_eq!(d.wait_logs("START service=plain", 1).len(), 1);
}

#[test]
fn ssl_forgets_the_host() {
    let d = Daemon::with("[main]\nonly stream tcp nowait @USER@ /bin/echo echo main\n").start();
    let mut c = d.connect();
    c.send("HOST\r\nmain\r\nSSL\r\n")
        .expect("+ Success\r\nWhich VHOST? Host main selected\r\n+ Success\r\n");
    let mut c = Tls::start(c.0, "other.example");
    c.send(b"only\r\n");
    same(c.read_all(), NOT_AVAILABLE);
}

#[test]
fn the_server_name_chooses_the_host_and_host_changes_it() {
    let d = Daemon::with(
        "[main.example]\nonly stream tcp nowait @USER@ /bin/echo echo main\n[b.example]\nonly stream tcp nowait @USER@ /bin/echo echo b\n",
    )
    .start();
    let mut c = Tls::start(d.connect().0, "main.example");
    c.send(b"only\r\n");
    same(c.read_all(), "+Go\r\nmain\n");
    let mut c = Tls::start(d.connect().0, "main.example");
    c.send(b"HOST\r\nB.example\r\nonly\r\n");
    same(c.read_all(), "+ Success\r\nWhich VHOST? Host b.example selected\r\n+Go\r\nb\n");
}

#[test]
fn half_closes_both_ways() {
    let d = Daemon::with(
        "late stream tcp nowait @USER@ /bin/sh sh -c 'cat >/dev/null; echo after the end'\n",
    )
    .start();
    let mut c = direct(&d);
    c.send(b"late\r\nsomething");
    c.half_close();
    same(c.read_all(), "+Go\r\nafter the end\n");
}

#[test]
fn the_service_may_close_first_and_go_on_reading() {
    let d = Daemon::with("sink stream tcp nowait @USER@ /bin/sh sh -c 'exec >&- 2>&-; cat >@DIR@/got; echo >>@DIR@/done'\n").start();
    std::fs::write(d.place.at("got"), "").expect("file");
    std::fs::write(d.place.at("done"), "").expect("file");
    for name in ["got", "done"] {
        std::fs::set_permissions(
            d.place.at(name),
            std::os::unix::fs::PermissionsExt::from_mode(0o666),
        )
        .expect("mode");
    }
    let mut c = direct(&d);
    c.send(b"sink\r\n");
    c.expect(b"+Go\r\n");
    c.send(b"still read");
    c.half_close();
    until("all of it", || std::fs::read(d.place.at("done")).is_ok_and(|b| !b.is_empty()));
    same(std::fs::read(d.place.at("got")).expect("file"), "still read");
}

#[test]
fn a_truncation_is_no_end() {
    let d =
        Daemon::with("wait stream tcp nowait @USER@ /bin/sh sh -c 'cat >/dev/null; sleep 100'\n")
            .start();
    let mut c = direct(&d);
    c.send(b"wait\r\n");
    c.expect(b"+Go\r\n");
    drop(c.0.sock);
    d.wait_log("reason=truncated");
}

#[test]
fn bulk_arrives_as_it_was_sent() {
    let d = Daemon::with(ENV).start();
    let c = direct(&d);
    let body: Vec<u8> =
        (0..4_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let (mut conn, mut tcp) = (c.0.conn, c.0.sock);
    conn.writer().write_all(b"cat\r\n").expect("write");
    let mut got = Vec::new();
    let mut sent = 0;
    tcp.set_nonblocking(true).expect("mode");
    let end = std::time::Instant::now() + TIMEOUT;
    let mut closed = false;
    while !closed {
        assert!(std::time::Instant::now() < end, "{sent} sent, {} got", got.len());
        while sent < body.len()
            && conn.writer().write(&body[sent..(sent + 16384).min(body.len())]).is_ok_and(|n| {
                sent += n;
                n > 0
            })
        {}
        if sent == body.len() {
            sent += 1;
            conn.send_close_notify();
        }
        let _ = conn.write_tls(&mut tcp);
        if conn.read_tls(&mut tcp).is_ok() {
            let state = conn.process_new_packets().expect("TLS");
            closed = state.peer_has_closed();
        }
        let mut part = vec![0; 65536];
        while let Ok(n @ 1..) = conn.reader().read(&mut part) {
            got.extend_from_slice(&part[..n]);
        }
    }
    assert!(got.starts_with(b"+Go\r\n") && got[5..] == body[..], "{} bytes came back", got.len());
}

#[test]
fn a_client_that_ends_tls_before_it_has_a_service_gets_the_end_of_tls_too() {
    let d = Daemon::with(ENV).start();
    for said in ["", "en", "HOST\r\n", "HOST\r\n\r\n", "AUTH\r\ndemo\r\n"] {
        let mut c = Tls::start(d.connect().0, "x.example");
        c.send(said.as_bytes());
        c.0.conn.send_close_notify();
        c.0.flush().expect("close_notify");
        // An end without close_notify would be an error.
        c.read_all();
    }
    d.wait_logs("reason=closed", 5);
}

#[test]
fn alpn_must_include_tcpmux_where_it_is_offered() {
    let d = Daemon::with(ENV).start();
    assert!(Tls::with(d.connect().0, "x.example", tls::config(&[b"http/1.1", b"tcpmux"])).is_ok());
    let refused = Tls::with(d.connect().0, "x.example", tls::config(&[b"http/1.1"]))
        .err()
        .expect("refused")
        .to_string();
    assert!(refused.to_lowercase().contains("noapplicationprotocol"), "{refused}");
}

#[test]
fn a_record_that_is_none_gets_its_alert() {
    let d = Daemon::with(ENV).start();
    for request in ["", "cat\r\n", "MULTIPLEX\r\n"] {
        let mut c = direct(&d);
        c.send(request.as_bytes());
        c.0.sock.write_all(&[&[0x17, 3, 3, 0, 32][..], &[7; 32]].concat()).expect("send");
        let mut rest = Vec::new();
        let error = c.0.read_to_end(&mut rest).expect_err("an alert").to_string();
        assert!(error.to_lowercase().contains("badrecordmac"), "{request:?}: {error}");
    }
}

#[test]
fn a_handshake_has_its_time_and_no_more() {
    let d = Daemon::with("request_timeout = 3\n").start();
    let mut c = d.connect();
    c.send([0x16, 3, 1]);
    same(c.read_any(), "");
    let mut c = d.connect();
    c.send("SSL\r\n").expect("+ Success\r\n");
    c.read_any();
    same(d.ask("HELP\r\n"), BUILTINS);
}

#[test]
fn a_key_that_cannot_be_kept_is_this_run_s_also_after_a_reload() {
    let d = Daemon::with("state_directory = /proc/no\n").start();
    let key = |line: String| line.split("sha256//").nth(1).expect("a key").to_string();
    let first = key(d.wait_log("WARN /proc/no: "));
    d.signal(nix::sys::signal::Signal::SIGHUP);
    assert_eq!(key(d.wait_logs("is kept for this run only", 2).pop().expect("a line")), first);
}

/// Nobody would have the key: a user who pinned it could connect to no server.
#[test]
fn a_key_that_cannot_be_kept_has_no_fingerprint() {
    let (code, out, err) = Place::new().fived("state_directory = /proc/no\n", &["--fingerprint"]);
    let why = "/proc/no: No such file or directory (os error 2): no certificate can be kept there, so there is no fingerprint to print\n";
    assert!(code == 111 && out.is_empty() && !err.contains("sha256"), "{code} {out}{err}");
    assert!(err.ends_with(why), "{err}");
}

/// five tells people to run it, who need not be root there.
#[test]
fn who_is_not_root_is_told_whose_fingerprint_it_is() {
    if !root() || !installed("setpriv") {
        return skip("needs root and setpriv");
    }
    let place = Place::new();
    place.write("fived.conf", "x stream tcp nowait root /bin/true\n", 0o644);
    let out = std::process::Command::new("setpriv")
        .args(["--reuid=54321", "--regid=54321", "--clear-groups", env!("CARGO_BIN_EXE_fived")])
        .args(["-f", &place.at("fived.conf"), "--fingerprint"])
        .output()
        .expect("fived");
    let err = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.code() == Some(1) && out.stdout.is_empty(), "{err}");
    let last = "fived: run --fingerprint as root for the fived that root runs\n";
    assert!(err.contains(":1: root: ") && err.ends_with(last), "{err}");
}

/// The next start finds it, and says nothing.
#[test]
fn a_certificate_is_logged_also_where_the_start_that_made_it_fails() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("address").to_string();
    for word in ["-d", "-b"] {
        let place = Place::new();
        let conf = "state_directory = @DIR@/state\nlog_type = FILE @DIR@/log\n";
        let (code, _, err) = place.fived(conf, &[word, "-l", &address]);
        assert!(code == 111 && err.contains(&address), "{word}: {code} {err}");
        let (_, key, _) = run(&["-f", &place.at("fived.conf"), "--fingerprint"]);
        let made = format!("made {} with key {key}", place.at("state/cert.pem"));
        assert!(err.contains(&made) && made.contains("sha256//"), "{made} {word}: {err}");
    }
    // It stays where a mistake is found after it was made, and where a reload is refused.
    let place = Place::new();
    let conf = "state_directory = @DIR@/state\nuser = nobody-here\n";
    let (code, _, err) = place.fived(conf, &["-l", "127.0.0.1:0"]);
    assert!(code == 1 && err.contains("made ") && err.contains("nobody-here"), "{code} {err}");
    let d = Daemon::with("").start();
    let conf = format!(
        "state_directory = @DIR@/other\ndiscard stream tcp nowait @USER@ internal\n port = {address}\n"
    );
    d.place.write("fived.conf", &conf, 0o644);
    d.signal(nix::sys::signal::Signal::SIGHUP);
    assert!(d.wait_log("RELOAD ").contains("refused"));
    d.wait_log(&format!("made {} with key sha256//", d.place.at("other/cert.pem")));
}

#[test]
fn a_dialogue_out_of_time_ends_as_tls_ends() {
    let d = Daemon::with("login_timeout = 3\n").start();
    let mut c = direct(&d);
    c.send(b"HOST\r\n");
    same(c.read_all(), "+ Success\r\nWhich VHOST? ");
    d.wait_log("reason=timeout");
}

/// The handshake is no request, the word SSL is one. No session waits for a day.
#[test]
fn after_a_handshake_without_the_word_ssl_the_first_request_has_its_time() {
    let d = Daemon::with("request_timeout = 3\nlogin_timeout = 1d\n").start();
    let mut asked = in_band(&d);
    let mut silent = direct(&d);
    let mut other = direct(&d);
    other.send(b"HOST\r\n\r\n");
    same(silent.read_all(), "");
    d.wait_log("reason=timeout");
    for c in [&mut asked, &mut other] {
        c.send(b"HELP\r\n");
        assert!(String::from_utf8_lossy(&c.read_all()).ends_with("RUN\r\n"));
    }
}

/// Nobody is told to remove a good pair because the wrong user has asked.
#[test]
fn a_pair_of_another_user_is_not_taken_for_a_broken_one() {
    if !root() {
        return skip("needs root");
    }
    let d = Daemon::with("").start();
    let conf = format!("state_directory = {}\n", d.place.at("state"));
    let (code, err) = Daemon::with(&conf).stateless().user("nobody").fails();
    let line = format!("{}: Permission denied (os error 13)\n", d.place.at("state/key.pem"));
    assert!(code == 1 && err.ends_with(&line), "{code} {err}");
}

#[test]
fn a_pair_that_cannot_be_read_is_never_replaced() {
    let mut d = Daemon::with("").start();
    d.signal(nix::sys::signal::Signal::SIGINT);
    d.wait();
    for name in ["cert.pem", "key.pem"] {
        let pem = std::fs::read(d.place.at(&format!("state/{name}"))).expect("a file");
        std::fs::write(
            d.place.at(&format!("state/{name}")),
            [b"Subject: M\xfcller\n", &pem[..]].concat(),
        )
        .expect("write");
    }
    let fingerprint = || run(&["-f", &d.place.at("fived.conf"), "--fingerprint"]);
    // It is the same pair.
    d.wait_log(fingerprint().1.trim());
    for name in ["cert.pem", "key.pem"] {
        std::fs::remove_file(d.place.at(&format!("state/{name}"))).expect("remove");
        std::fs::create_dir(d.place.at(&format!("state/{name}"))).expect("directory");
    }
    let (code, out, err) = fingerprint();
    assert!(code == 1 && out.is_empty() && err.contains("key.pem: "), "{code} {out}{err}");
    // It says what to do, and that helps.
    assert!(err.contains(": restore cert.pem and key.pem from a copy, or remove both: "), "{err}");
    for name in ["cert.pem", "key.pem"] {
        std::fs::remove_dir(d.place.at(&format!("state/{name}"))).expect("remove");
    }
    assert_eq!(fingerprint().0, 0);
}

#[test]
fn the_key_is_made_once_and_its_fingerprint_logged() {
    let d = Daemon::with("").start();
    let line = d.wait_log("sha256//");
    let fingerprint = format!(
        "sha256//{}",
        line.split("sha256//").nth(1).expect("fingerprint").split(' ').next().expect("word")
    );
    let mode = |name: &str| {
        std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(d.place.at(name)).expect("file").permissions(),
        ) & 0o777
    };
    assert_eq!(mode("state/key.pem"), 0o600);
    let conf = d.place.at("fived.conf");
    let (code, out, _) = run(&["-f", &conf, "--fingerprint"]);
    assert_eq!((code, out), (0, format!("{fingerprint}\n")));
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o640);
    std::fs::set_permissions(d.place.at("state/key.pem"), open).expect("a mode");
    let (code, _, err) = run(&["-f", &conf, "-t"]);
    let wanted = "key.pem: expected mode 0600, found 0640";
    assert!(code == 0 && err.starts_with("warning: ") && err.contains(wanted), "{err}");
    if installed("openssl") {
        let script = format!(
            "openssl x509 -in {} -pubkey -noout | openssl pkey -pubin -outform der | openssl dgst -sha256 -binary | base64",
            d.place.at("state/cert.pem")
        );
        let theirs = std::process::Command::new("sh")
            .args(["-c", &script])
            .output()
            .expect("openssl")
            .stdout;
        assert_eq!(format!("sha256//{}", String::from_utf8_lossy(&theirs).trim()), fingerprint);
    }
}

/// A key and a certificate, made by openssl.
fn make(d: &Place, name: &str) -> bool {
    let script = format!(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 9 -subj /CN={name} -keyout {0}/{name}.key -out {0}/{name}.crt 2>/dev/null && chmod 600 {0}/{name}.key",
        d.path.display()
    );
    std::process::Command::new("sh").args(["-c", &script]).status().is_ok_and(|s| s.success())
}

#[test]
fn each_host_has_its_own_certificate_and_a_reload_changes_it_without_ending_a_session() {
    if !installed("openssl") {
        return skip("openssl is not installed");
    }
    let conf = "certificate = @DIR@/a.example.crt\nkey = @DIR@/a.example.key\ncat stream tcp nowait @USER@ /bin/cat cat\n[b.example]\ncertificate = @DIR@/b.example.crt\nkey = @DIR@/b.example.key\n";
    let b = Daemon::with(conf);
    assert!(make(&b.place, "a.example") && make(&b.place, "b.example"));
    let d = b.start();
    let certificate = |name: &str| Tls::start(d.connect().0, name).certificate();
    let (a, b) = (certificate("a.example"), certificate("b.example"));
    assert!(a != b && certificate("c.example") == a);
    let mut standing = Tls::start(d.connect().0, "a.example");
    standing.send(b"cat\r\n");
    standing.expect(b"+Go\r\n");
    assert!(make(&d.place, "a.example"));
    d.reload(conf);
    until("the new certificate", || certificate("a.example") != a);
    standing.send(b"still here\n");
    standing.expect(b"still here\n");
    assert_eq!(certificate("b.example"), b);
}

#[test]
fn the_fingerprint_of_a_host_names_it() {
    if !installed("openssl") {
        return skip("openssl is not installed");
    }
    let pair = |name| format!("certificate = @DIR@/{name}.crt\nkey = @DIR@/{name}.key\n");
    let (a, b) = (pair("a.example"), pair("b.example"));
    let conf = format!("{a}[b.example www.b.example]\n{b}[c.example]\n");
    let place = Place::new();
    assert!(make(&place, "a.example") && make(&place, "b.example"));
    let (code, out, err) = place.fived(&conf, &["--fingerprint"]);
    let words: Vec<Vec<&str>> = out.lines().map(|l| l.split(' ').collect()).collect();
    assert_eq!((code, words.len()), (0, 2), "{out}{err}");
    assert_eq!((&words[0][1..], &words[1][1..]), (&[][..], &["b.example", "www.b.example"][..]));
    assert!(out.lines().all(|l| l.starts_with("sha256//")), "{out}");
}

#[test]
fn a_key_that_everybody_may_read_or_of_another_certificate_is_refused() {
    if !installed("openssl") {
        return skip("openssl is not installed");
    }
    let place = Place::new();
    assert!(make(&place, "a.example") && make(&place, "b.example"));
    let (code, _, err) =
        place.fived("certificate = @DIR@/a.example.crt\nkey = @DIR@/b.example.key\n", &["-t"]);
    assert!(code == 1 && err.contains(":2: key: "), "{err}");
    assert!(err.contains("b.example.key: expected the certificate's private key"), "{err}");
    place.write(
        "open.key",
        &std::fs::read_to_string(place.at("a.example.key")).expect("key"),
        0o644,
    );
    let (code, _, err) =
        place.fived("certificate = @DIR@/a.example.crt\nkey = @DIR@/open.key\n", &["-t"]);
    assert!(code == 1 && err.contains("0600"), "{err}");
    // The key's setting was forgotten, whatever the mode of the certificate's file is.
    for mode in [0o644, 0o600] {
        let text = std::fs::read_to_string(place.at("a.example.crt")).expect("certificate");
        place.write("alone.crt", &text, mode);
        let (code, _, err) = place.fived("certificate = @DIR@/alone.crt\n", &["-t"]);
        let wanted = "alone.crt: expected a private key in this file, too, or `key = FILE` beside it, found neither";
        assert!(code == 1 && err.contains(wanted), "{err}");
    }
}

/// PEM around what is no certificate.
const DAMAGED: &str = "-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n";

#[test]
fn what_is_wrong_with_a_certificate_or_a_key_is_said_in_words() {
    if !installed("openssl") {
        return skip("openssl is not installed");
    }
    let place = Place::new();
    assert!(make(&place, "a.example"));
    let whole = std::fs::read_to_string(place.at("a.example.crt")).expect("certificate");
    place.write("cut.crt", &whole[..whole.len() / 2], 0o644);
    let keys = "umask 077; openssl ec -in a.example.key -aes128 -passout pass:x -out locked.key
        openssl ecparam -name secp521r1 -genkey -noout -out large.key";
    let sh = std::process::Command::new("sh").args(["-c", keys]).current_dir(place.at("")).output();
    assert!(sh.is_ok_and(|o| o.status.success()));
    place.write("damaged.crt", DAMAGED, 0o644);
    for (certificate, key, place_of, wanted) in [
        ("cut.crt", "a.example.key", ":1: certificate: ", "cut.crt: expected whole certificates"),
        ("damaged.crt", "a.example.key", ":1: certificate: ", "damaged.crt: cannot be read"),
        ("a.example.crt", "locked.key", ":2: key: ", "locked.key: expected a PEM file with BEGIN"),
        ("a.example.crt", "large.key", ":2: key: ", "large.key: expected a private key of ECDSA"),
    ] {
        let conf = format!("certificate = @DIR@/{certificate}\nkey = @DIR@/{key}\n");
        let (code, _, err) = place.fived(&conf, &["-t"]);
        assert!(code == 1 && err.lines().count() == 1, "{err}");
        assert!(err.contains(place_of) && err.contains(wanted), "{err}");
    }
}

#[test]
fn openssl_is_a_client() {
    if !installed("openssl") {
        return skip("openssl is not installed");
    }
    let d = Daemon::with(ENV).start();
    let script = format!(
        "(printf 'plain\\r\\n'; sleep 1) | openssl s_client -quiet -connect {} 2>/dev/null",
        d.address()
    );
    let out =
        std::process::Command::new("sh").args(["-c", &script]).output().expect("openssl").stdout;
    same(out, "+Go\r\nplain\n");
}

#[test]
fn no_other_version_of_tls() {
    if !installed("openssl") {
        return skip("openssl is not installed");
    }
    let d = Daemon::with(ENV).start();
    let script = format!("openssl s_client -tls1_2 -connect {} </dev/null 2>&1; true", d.address());
    let out =
        std::process::Command::new("sh").args(["-c", &script]).output().expect("openssl").stdout;
    assert!(
        String::from_utf8_lossy(&out).contains("alert protocol version"),
        "{}",
        String::from_utf8_lossy(&out)
    );
    let mut c = TcpStream::connect(d.address()).expect("connect");
    c.write_all(&[0x16, 3, 1, 0xff, 0xff, 1, 2, 3]).expect("send");
    let mut rest = Vec::new();
    let _ = c.read_to_end(&mut rest);
    same(d.ask("plain\r\n"), "+Go\r\nplain\n");
}
