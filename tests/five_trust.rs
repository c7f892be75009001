//! five: certificates, known_hosts, names of hosts, and what the server's own check says of a
//! certificate.

mod support;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, ServerConnection};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use support::five::{ended, finish, piped};
use support::{Daemon, Five, Place, has_ipv6, installed, read, root, run, skip, until};

const CONF: &str = "hello stream tcp nowait @USER@ /bin/echo echo hello\n";
const H: &str = "127.0.0.1";

/// A certificate for these names, valid in these years, by an authority of the test's; its key, the
/// authority. All PEM.
fn certificate(names: &[&str], from: i32, to: i32) -> (String, String, String) {
    let authority_key = KeyPair::generate().expect("key");
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = authority.self_signed(&authority_key).expect("authority").pem();
    let key = KeyPair::generate().expect("key");
    let mut params =
        CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>())
            .expect("names");
    (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
    let made = params.signed_by(&key, &Issuer::new(authority, authority_key)).expect("certificate");
    (made.pem(), key.serialize_pem(), root)
}

/// A daemon that shows this certificate, and a person whose system trusts its authority.
fn daemon((certificate, key, root): &(String, String, String)) -> (Daemon, Five) {
    let conf = format!("certificate = @DIR@/cert\nkey = @DIR@/key\n{CONF}");
    let d = Daemon::with(&conf).file("cert", certificate).file("key", key).file("roots", root);
    std::fs::set_permissions(d.place.at("key"), std::fs::Permissions::from_mode(0o600))
        .expect("mode");
    let d = d.start();
    let f = Five::new(&d).env("SSL_CERT_FILE", &d.place.at("roots"));
    (d, f)
}

/// five as it was typed, without `--accept-new`: exit status, standard output, standard error.
fn typed(f: &Five, words: &[&str]) -> (i32, String, String) {
    let port = f.port();
    let mut c = f.command(&[&["-p", &port], words].concat());
    ended(
        c.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("five"),
    )
}

fn known_hosts(f: &Five, text: &str) -> String {
    let path = f.config_path("known_hosts");
    std::fs::create_dir_all(Path::new(&path).parent().expect("directory")).expect("directory");
    std::fs::write(&path, text).expect("known_hosts");
    path
}

#[test]
fn a_certificate_that_was_vouched_for_is_noted_and_no_self_made_key_is_taken_after_it() {
    let (d, f) = daemon(&certificate(&["localhost"], 2020, 2200));
    let place = format!("localhost:{}", f.port());
    for _ in 0..2 {
        assert_eq!(
            typed(&f, &["-x", "-4", "localhost", "hello"]),
            (0, "hello\n".into(), String::new())
        );
        assert_eq!(
            std::fs::read_to_string(f.config_path("known_hosts")).expect("known_hosts"),
            format!("{place} vouched\n")
        );
    }
    // The same to somebody whose system does not trust that authority: nobody vouches for what is
    // shown.
    drop(d);
    let stranger = Daemon::with(CONF).start();
    let g = Five::new(&stranger);
    let place = format!("localhost:{}", g.port());
    let file = known_hosts(&g, &format!("# mine\n{place} vouched\n"));
    for more in [&["-q"][..], &["--accept-new"]] {
        let (code, out, err) = typed(&g, &[more, &["-x", "-4", "localhost", "hello"]].concat());
        assert_eq!((code, out.as_str()), (255, ""));
        assert!(err.contains(&format!("WARNING: THE KEY OF {place} HAS CHANGED")), "{err}");
        assert!(
            err.contains(&format!(
                "a certificate that this system's roots vouched for  ({file}:2)"
            )),
            "{err}"
        );
    }
    assert_eq!(
        std::fs::read_to_string(&file).expect("known_hosts"),
        format!("# mine\n{place} vouched\n")
    );
}

#[test]
fn a_certificate_that_is_expired_or_anothers_is_refused_with_that_reason() {
    let cases = [
        (certificate(&["localhost"], 2001, 2002), "it expired on 2002-01-01\n"),
        (
            certificate(&["localhost"], 2200, 2201),
            "it is valid from 2200-01-01 on only (is this computer's clock right?)\n",
        ),
        (
            certificate(&["a.example", "192.0.2.1"], 2020, 2200),
            "it is for a.example, 192.0.2.1, not for this host\n",
        ),
    ];
    for (pair, why) in cases {
        let (_d, f) = daemon(&pair);
        let place = format!("localhost:{}", f.port());
        for more in [&["--accept-new"][..], &["-q"], &[]] {
            let (code, out, err) = typed(&f, &[more, &["-4", "localhost", "hello"]].concat());
            assert_eq!((code, out.as_str()), (255, ""), "{err}");
            assert!(
                err.starts_with(&format!("five: {place}: its certificate is refused: {why}")),
                "{err}"
            );
            assert!(!Path::new(&f.config_path("known_hosts")).exists());
            // As the message says.
            let line = err.lines().last().expect("a line").to_string();
            if more.is_empty() {
                known_hosts(&f, &line);
                assert_eq!(typed(&f, &["-4", "localhost", "hello"]).0, 0, "{line}");
            }
        }
    }
}

#[test]
fn a_certificate_of_nobodys_word_is_a_key_whatever_its_dates_are() {
    // An authority that this person's system does not trust.
    let (d, _) = daemon(&certificate(&["localhost"], 2001, 2002));
    let f = Five::new(&d);
    assert_eq!(f.run(&["-q", "-4", "localhost", "hello"]), (0, "hello\n".into(), String::new()));
}

#[test]
fn an_invalid_line_of_known_hosts_about_this_host_is_reported_with_its_number() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    let file = known_hosts(
        &f,
        &format!("# mine\n\n{H}:{} garbage\nother sha256//x\n{H}:0 vouched\n", f.port()),
    );
    let expected = format!(
        "five: {file}:3: garbage: expected sha256//BASE64, as fived --fingerprint prints it, or `vouched`\nfive: {file}:4: other: expected \
         HOST:PORT\nfive: {file}:5: {H}:0: expected HOST:PORT\n"
    );
    assert_eq!(f.run(&[H, "hello"]), (255, String::new(), expected));
}

#[test]
fn an_invalid_line_of_known_hosts_is_no_hindrance_for_what_others_say() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    assert_eq!(f.run(&["-q", "-x", H, "hello"]).0, 0);
    let known = read(&f.config_path("known_hosts"));
    // One is about another host, and two may be about any, this one too.
    let lines = format!("far.example:1 garbage\n{known}other sha256//x\n{H}:{}\n", f.port());
    let file = known_hosts(&f, &lines);
    let warned = format!(
        "five: {file}:1: garbage: expected sha256//BASE64, as fived --fingerprint prints it, or `vouched`: the line does not \
         count\nfive: {file}:3: other: expected HOST:PORT: the line does not count\nfive: {file}:4: {H}:{}: expected \
         sha256//BASE64 or `vouched` after it: the line does not count\n",
        f.port()
    );
    let done = |told: &str| (0, "hello\n".into(), told.into());
    assert_eq!(typed(&f, &["-x", H, "hello"]), done(&warned));
    assert_eq!(typed(&f, &["-x", "-q", H, "hello"]), done(""));
    // Nor where another key is known: that line counts.
    let other = format!("{H}:{} sha256//{}A=\nother sha256//x\n", f.port(), "A".repeat(42));
    known_hosts(&f, &other);
    let (code, out, told) = typed(&f, &["-x", H, "hello"]);
    assert!(code == 255 && out.is_empty() && told.contains(" HAS CHANGED."), "{code} {told}");
}

#[test]
fn an_invalid_line_makes_no_host_an_unknown_one_that_may_be_accepted() {
    let (d, f) = daemon(&certificate(&["localhost"], 2001, 2049));
    let here = format!("localhost:{}", f.port());
    let key = format!("sha256//{}A=", "A".repeat(42));
    // Each may have been what was known about it, written by hand, or only in part.
    for line in
        [here.clone(), format!("{here} {}", &key[..20]), format!("localhost {key}"), "x".into()]
    {
        let file = known_hosts(&f, &line);
        let (code, out, told) = f.run(&["-x", "-4", "--accept-new", "localhost", "hello"]);
        assert_eq!((code, out.as_str()), (255, ""), "{line}: {told}");
        assert!(told.starts_with(&format!("five: {file}:1: ")), "{line}: {told}");
        assert_eq!(read(&file), line, "it stays as it was");
        assert!(!d.log().contains("START "), "{line}");
    }
    // One that names another place is not about this one.
    let other = format!("[localhost]:1 {key}\nfar.example:1 x\n");
    let file = known_hosts(&f, &other);
    let (code, out, told) = f.run(&["-x", "-4", "localhost", "hello"]);
    assert_eq!((code, out.as_str()), (0, "hello\n"), "{told}");
    assert_eq!(read(&file), format!("{other}{here} vouched\n"));
}

#[test]
fn a_line_that_is_written_only_in_part_is_taken_back() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    let before = format!("#{}\n", "x".repeat(1000));
    let file = known_hosts(&f, &before);
    // As on a full disk: there is room for 22 bytes more.
    let limited = "trap '' XFSZ; ulimit -f 1; exec \"$0\" \"$@\"";
    let (code, _, err) =
        finish(piped(&mut f.command_by("bash", &["-c", limited], &[H, "hello"])), b"");
    assert!(code == 0 && err.contains("is used this once"), "{code} {err}");
    assert_eq!(read(&file), before);
}

#[test]
fn who_adds_a_line_waits_for_others_that_do() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    let before = "# mine\n";
    let file = known_hosts(&f, before);
    let other = std::fs::File::options().append(true).open(&file).expect("known_hosts");
    other.lock().expect("locked");
    let call = f.start(&["--accept-new", "-q", H, "hello"]);
    let has_opened = || {
        let all = std::fs::read_dir(format!("/proc/{}/fd", call.id())).expect("descriptors");
        all.flatten().any(|fd| std::fs::read_link(fd.path()).is_ok_and(|to| to == Path::new(&file)))
    };
    until("it would add a line", has_opened);
    // If it did not wait, it would do that now.
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(read(&file), before);
    drop(other);
    assert_eq!(finish(call, b"").0, 0);
    assert!(read(&file).starts_with(&format!("{before}{H}")));
}

#[test]
fn a_key_that_several_accept_at_once_is_added_once() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    let calls: Vec<_> =
        (0..8).map(|_| f.start(&["--accept-new", "-q", "-x", H, "hello"])).collect();
    for call in calls {
        assert_eq!(finish(call, b"").0, 0);
    }
    let text = read(&f.config_path("known_hosts"));
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[test]
fn files_that_have_no_end_and_pipes_are_not_waited_for() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    let path = known_hosts(&f, "");
    std::fs::remove_file(&path).expect("known_hosts");
    std::os::unix::fs::symlink("/dev/zero", &path).expect("link");
    let (status, _, told) = f.run(&[H, "hello"]);
    assert!(status == 255 && told.contains("known_hosts: longer than"), "{status} {told}");
    std::fs::remove_file(&path).expect("known_hosts");
    nix::unistd::mkfifo(path.as_str(), nix::sys::stat::Mode::S_IRWXU).expect("pipe");
    let (status, _, told) = f.run(&[H, "hello"]);
    let why = "known_hosts: expected a file with text, found a pipe that nobody writes to";
    assert!(status == 255 && told.contains(why), "{status} {told}");
    // Where somebody wants none of it, as with ssh(1).
    std::fs::remove_file(&path).expect("known_hosts");
    std::os::unix::fs::symlink("/dev/null", &path).expect("link");
    let (status, out, told) = f.run(&[H, "hello"]);
    assert_eq!((status, out.as_str()), (0, "hello\n"), "{told}");
}

#[test]
fn who_has_no_home_directory_knows_nobody() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d).env("HOME", "/dev/null");
    let (status, out, told) = f.run(&["-x", H, "hello"]);
    assert_eq!((status, out.as_str()), (0, "hello\n"), "{told}");
    assert!(told.contains(" is used this once: /dev/null/.config/five: "), "{told}");
    let (status, _, told) = typed(&f, &["-x", H, "hello"]);
    assert!(status == 255 && told.contains("its key is not known"), "{told}");
}

#[test]
fn no_answer_to_the_question_is_a_no_on_a_line_of_its_own() {
    if !installed("script") {
        return skip("needs script");
    }
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    let (code, shown) = f.on_terminal(&["-p", &f.port(), "-x", H, "hello"], "\u{4}\n");
    let told = format!("\r\nfive: {H}:{}: the key sha256//", f.port());
    assert!(code == 255 && shown.contains(&told), "{shown}");
}

#[test]
fn quiet_calls_report_a_key_that_is_not_trusted() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    for words in [&["-q", H, "hello"][..], &["-qN", H]] {
        let (code, _, err) = typed(&f, words);
        assert!(code == 255 && err.contains("its key is not known"), "{err}");
    }
    assert_eq!(f.run(&["-q", H, "nosuch"]), (254, String::new(), String::new()));
}

#[test]
fn names_that_dns_does_not_allow_are_not_sent_to_the_server() {
    if !has_ipv6() {
        return;
    }
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    // Numbers that the resolver takes for the loopback's address.
    for host in ["127.1", "2130706433"] {
        assert_eq!(
            f.run(&["-q", "-4", "-x", host, "hello"]),
            (0, "hello\n".into(), String::new()),
            "{host}"
        );
    }
    let f = f.config("[wei?d*]\nhostname = 127.1\n");
    assert_eq!(f.run(&["-q", "wei!d+name", "hello"]), (0, "hello\n".into(), String::new()));
    let d = Daemon::with(CONF).listen("[::1]:0").start();
    let f = Five::new(&d);
    let (code, out, err) = f.run(&["-q", "::1%1", "hello"]);
    assert_eq!((code, out.as_str()), (0, "hello\n"), "{err}");
    assert_eq!(f.run(&["-q", "[::1%1]", "hello"]).1, "hello\n");
}

#[test]
fn names_of_etc_hosts_need_not_be_names_of_dns() {
    if !root() || !installed("unshare") {
        return skip("needs root and unshare for an /etc/hosts of its own");
    }
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    let hosts = d.place.write("hosts", "127.0.0.1 my_box box+2 m\u{fc}ller -\n", 0o644);
    for host in ["my_box", "box+2", "m\u{fc}ller"] {
        let script = format!("mount --bind {hosts} /etc/hosts && exec \"$@\"");
        let before = ["-m", "setsid", "-w", "sh", "-c", &script, "sh"];
        let mut c = f.command_by("unshare", &before, &["-q", "-x", host, "hello"]);
        assert_eq!(finish(piped(&mut c), b""), (0, "hello\n".into(), String::new()), "{host}");
    }
}

#[test]
fn a_port_after_the_hosts_name_says_the_option() {
    let place = Place::new();
    let f = Five::at(&place, "127.0.0.1:1".parse().expect("address"));
    let (code, _, err) = typed(&f, &["me@server.example:1001", "date"]);
    let expected = "five: me@server.example:1001: the port is an option of its own: five -p 1001 me@server.example\nusage: five ";
    assert!(code == 255 && err.starts_with(expected), "{err}");
}

#[test]
fn hostname_is_the_address_of_a_name() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    let port = f.port();
    let f = f.config(&format!(
        "[db1]\nhostname = {H}\n[web* d* !d2]\nhostname = localhost\nport = {port}\npersist = 2h\n"
    ));
    assert_eq!(f.run(&["-q", "-4", "db1", "hello"]).1, "hello\n");
    // What is known, and the session, are the address's.
    let known = std::fs::read_to_string(f.config_path("known_hosts")).expect("known_hosts");
    assert!(
        known.starts_with(&format!("{H}:{port} sha256//")) && known.lines().count() == 1,
        "{known}"
    );
    assert!(f.run(&["-O", "check", H]).1.starts_with(&format!("session={H}:{port} ")));
    assert!(f.run(&["-O", "check", "db1"]).1.starts_with(&format!("session={H}:{port} ")));
    assert_eq!(
        typed(&f, &["-O", "check", "web2"]).2,
        format!("five: localhost:{port}: no session\n")
    );
    assert_eq!(typed(&f, &["-O", "check", "d2"]).2, format!("five: d2:{port}: no session\n"));
}

/// Anybody can show a certificate; only who has its key can sign with it.
#[test]
fn a_certificate_that_is_shown_without_its_key_is_not_trusted() {
    let (certificate, _, root) = certificate(&["localhost"], 2020, 2200);
    let another = KeyPair::generate().expect("key").serialize_pem();
    let place = Place::new();
    let f = Five::at(&place, server(der(&certificate), &another));
    let f = f.env("SSL_CERT_FILE", &place.write("roots", &root, 0o644));
    let (code, out, err) = typed(&f, &["-x", "-4", "localhost", "hello"]);
    assert!(code == 255 && out.is_empty() && err.contains("BadSignature"), "{err}");
    assert!(!Path::new(&f.config_path("known_hosts")).exists());
}

/// A server of the test's own, whose certificate is whatever it is: it shakes hands, once.
fn server(chain: Vec<u8>, key: &str) -> SocketAddr {
    #[derive(Debug)]
    struct Any(Arc<CertifiedKey>);
    impl ResolvesServerCert for Any {
        fn resolve(&self, _: ClientHello) -> Option<Arc<CertifiedKey>> {
            Some(self.0.clone())
        }
    }
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("key");
    let key = rustls::crypto::ring::sign::any_supported_type(&key).expect("key");
    let shown = Any(Arc::new(CertifiedKey::new(vec![chain.into()], key)));
    let provider = ServerConfig::builder_with_provider(Arc::new(default_provider()));
    let mut config = provider
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(shown));
    config.alpn_protocols = vec![b"tcpmux".to_vec()];
    let listener = TcpListener::bind((H, 0)).expect("listener");
    let address = listener.local_addr().expect("address");
    std::thread::spawn(move || {
        let (mut tcp, _) = listener.accept().expect("a client");
        let mut word = [0; 5];
        tcp.read_exact(&mut word).expect("SSL");
        tcp.write_all(b"+ Success\r\n").expect("written");
        let mut tls = ServerConnection::new(Arc::new(config)).expect("TLS");
        // The client refuses it: an alert ends this.
        while tls.complete_io(&mut tcp).is_ok() {}
    });
    address
}

/// A certificate of version 1: without the number of its version, and without extensions. Nobody
/// checks its signature here.
fn version_1(der: &[u8]) -> Vec<u8> {
    /// Tag, what is inside, the rest.
    fn element(der: &[u8]) -> (u8, &[u8], &[u8]) {
        let (length, head) = match der[1] {
            n @ ..=0x7f => (usize::from(n), 2),
            0x81 => (usize::from(der[2]), 3),
            _ => (usize::from(der[2]) << 8 | usize::from(der[3]), 4),
        };
        (der[0], &der[head..head + length], &der[head + length..])
    }
    fn sequence(inside: &[u8]) -> Vec<u8> {
        let head = match inside.len() {
            n @ ..=0x7f => vec![0x30, n as u8],
            n @ ..=0xff => vec![0x30, 0x81, n as u8],
            n => vec![0x30, 0x82, (n >> 8) as u8, n as u8],
        };
        [&head, inside].concat()
    }
    let (_, certificate, _) = element(der);
    let (_, signed, signature) = element(certificate);
    let (mut rest, mut kept) = (signed, Vec::new());
    while !rest.is_empty() {
        let (tag, _, more) = element(rest);
        // [0] is the version, [3] are the extensions.
        if tag != 0xa0 && tag != 0xa3 {
            kept.extend_from_slice(&rest[..rest.len() - more.len()]);
        }
        rest = more;
    }
    sequence(&[&sequence(&kept), signature].concat())
}

/// DER out of PEM, and back.
fn der(pem: &str) -> Vec<u8> {
    rustls::pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).expect("certificate").to_vec()
}

fn pem(der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|l| std::str::from_utf8(l).expect("text")).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

#[test]
fn a_certificate_of_version_1_says_so() {
    let (certificate, key, _) = certificate(&["localhost"], 2020, 2200);
    let old = version_1(&der(&certificate));
    let place = Place::new();
    let f = Five::at(&place, server(old.clone(), &key));
    let (code, _, err) = f.run(&["-q", H, "hello"]);
    let expected = format!(
        "five: {H}:{}: its certificate is refused: it is an X.509 certificate of version 1, expected version 3\n",
        f.port()
    );
    assert!(code == 255 && err.starts_with(&expected), "{err}");
    // The server's own check.
    let (c, k) = (place.write("cert", &pem(&old), 0o644), place.write("key", &key, 0o600));
    let conf = place.write("fived.conf", &format!("certificate = {c}\nkey = {k}\n{CONF}"), 0o644);
    let (code, _, err) = run(&["-t", "-f", &conf]);
    assert!(
        code == 1
            && err.contains(&format!(
                "{conf}:1: certificate: {c}: an X.509 certificate of version 1, expected version 3"
            )),
        "{err}"
    );
}

#[test]
fn the_check_warns_of_a_certificate_whose_time_is_over() {
    let place = Place::new();
    for (from, to, what) in [
        (2001, 2002, "expired on 2002-01-01"),
        (2200, 2201, "valid from 2200-01-01 on only"),
        (2020, 2200, ""),
    ] {
        let (c, k, _) = certificate(&["localhost"], from, to);
        let (c, k) = (place.write("cert", &c, 0o644), place.write("key", &k, 0o600));
        for (host, line) in [("", 1), ("[main]\n", 2)] {
            let conf = place.write(
                "fived.conf",
                &format!("{host}certificate = {c}\nkey = {k}\n{CONF}"),
                0o644,
            );
            let (code, out, err) = run(&["-t", "-f", &conf]);
            assert_eq!((code, out.as_str()), (0, "configuration OK\n"), "{err}");
            let expected = format!("warning: {conf}:{line}: certificate: {c}: {what}");
            assert!(
                if what.is_empty() { !err.contains(&c) } else { err.contains(&expected) },
                "{err}"
            );
        }
    }
}
