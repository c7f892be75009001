//! `socket`: the peer of a service that fived relays is the client, as the service itself
//! asks.

mod support;
#[path = "support/tls.rs"]
mod tls;
#[path = "support/yamux_client.rs"]
mod yamux_client;

use support::*;
use tls::Tls;
use yamux_client::Client as Mux;

/// Says both addresses of its descriptor 0.
const SCRIPT: &str = r#"#!/bin/sh
exec perl -MSocket=:all -e '
sub say_ { my ($s) = @_; my ($e, $p, $a) = getnameinfo($s, NI_NUMERICHOST | NI_NUMERICSERV); print "$p $a " }
say_(getpeername(STDIN)); say_(getsockname(STDIN));'
"#;
const CONF: &str = "socket = inet\nx stream tcp nowait @USER@ @DIR@/script\n";
const UNIX: &str = "x stream tcp nowait @USER@ /usr/bin/perl perl -MSocket -e 'print sockaddr_family(getpeername(STDIN)) == AF_UNIX ? 1 : 0'\n socket = unix\n";

fn able() -> bool {
    if !root() || !installed("perl") {
        skip("needs root and perl");
        return false;
    }
    true
}

#[test]
fn in_tls_the_addresses_are_the_client_s_and_ours() {
    if !has_ipv6() {
        return;
    }
    if !able() {
        return;
    }
    for at in ["127.0.0.1:0", "[::1]:0"] {
        let d = Daemon::with(CONF).file("script", SCRIPT).listen(at).start();
        let tcp = std::net::TcpStream::connect(d.address()).expect("connect");
        let (me, it) = (tcp.local_addr().expect("address"), d.address());
        let mut c = Tls::start(tcp, "localhost");
        c.send(b"x\r\n");
        same(c.read_all(), format!("{GO}{} {} {} {} ", me.ip(), me.port(), it.ip(), it.port()));
    }
}

#[test]
fn in_streams_the_addresses_are_the_client_s_and_ours() {
    if !able() {
        return;
    }
    let d = Daemon::with(CONF).file("script", SCRIPT).start();
    // Two clients in turn: a pair that was made ahead for one is not the other's.
    let clients = ["127.0.0.9", "127.0.0.8"].map(|from| {
        let mut c = d.connect_from(from);
        c.send("MULTIPLEX\r\n").expect("+ Success\r\n");
        (from, Mux::new(c.0))
    });
    let mut ports = Vec::new();
    for (from, m) in clients.iter().cycle().take(40) {
        let text = String::from_utf8(m.ask("x\r\n").read_all()).expect("text");
        let words: Vec<&str> =
            text.strip_prefix(GO).unwrap_or_else(|| panic!("{text}")).split(' ').collect();
        assert_eq!(
            (words[0], words[2], words[3]),
            (*from, "127.0.0.1", &*d.address().port().to_string()),
            "{text}"
        );
        ports.push(words[1].to_string());
    }
    ports.dedup();
    assert!(ports.len() > 1, "{ports:?}");
}

#[test]
fn in_streams_with_facts_of_their_own_they_are_too() {
    if !able() {
        return;
    }
    let conf = format!("{CONF}[main]\nown stream tcp nowait @USER@ @DIR@/script\n");
    let d = Daemon::with(&conf).file("script", SCRIPT).start();
    let mut c = d.connect_from("127.0.0.9");
    c.send("MULTIPLEX\r\n").expect("+ Success\r\n");
    let m = Mux::new(c.0);
    for asked in ["HOST\r\nmain\r\nown\r\n", "AUTH\r\na\r\nb\r\nx\r\n"] {
        let text = String::from_utf8(m.ask(asked).read_all()).expect("text");
        let words: Vec<&str> =
            text.rsplit_once(GO).unwrap_or_else(|| panic!("{text}")).1.split(' ').collect();
        assert_eq!(
            (words[0], words[2], words[3]),
            ("127.0.0.9", "127.0.0.1", &*d.address().port().to_string()),
            "{text}"
        );
    }
}

#[test]
fn socket_unix_is_a_pair() {
    if !able() {
        return;
    }
    let d = Daemon::with(UNIX).start();
    let mut c = d.connect();
    c.send("MULTIPLEX\r\n").expect("+ Success\r\n");
    same(Mux::new(c.0).ask("x\r\n").read_all(), format!("{GO}1"));
    let (code, err) = Daemon::with("x stream tcp nowait @USER@ /bin/true\n socket = tcp\n").fails();
    assert!(code == 1 && err.contains(":3: socket: expected inet or unix, found \"tcp\""), "{err}");
}

#[test]
fn without_a_namespace_a_warning_is_logged_and_clients_are_served() {
    if !able() || !installed("setpriv") {
        return;
    }
    // Root without a right that it takes, and an ordinary user, whose namespaces have none of them.
    let ordinary: &[&str] = &["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"];
    let root = |right| vec!["setpriv", right, "--inh-caps=-all"];
    let ways =
        [root("--bounding-set=-sys_admin"), root("--bounding-set=-net_admin"), ordinary.to_vec()];
    for way in ways {
        let user = if way == ordinary { "54321" } else { "nobody" };
        let conf = format!("socket = inet\nx stream tcp nowait {user} /bin/echo echo served\n");
        let d = Daemon::with(&conf).under(&way).start();
        let mut c = d.connect();
        c.send("MULTIPLEX\r\n").expect("+ Success\r\n");
        same(Mux::new(c.0).ask("x\r\n").read_all(), format!("{GO}served\n"));
        let got = d.wait_logs("get Unix sockets", 1);
        assert!(got.len() == 1 && got[0].starts_with("WARN "), "{way:?}: {got:?}");
    }
}

#[test]
fn rsync_s_hosts_allow_goes_by_the_client_s_address() {
    if !root() || !installed("rsync") {
        return skip("needs root and rsync");
    }
    let d =
        Daemon::with("socket = inet\nx stream tcp nowait root /usr/bin/rsync rsync --daemon --config=@DIR@/rsyncd.conf\n stderr = null\n")
            .file("rsyncd.conf", "use chroot = no\nreverse lookup = no\n[files]\npath = @DIR@\nhosts allow = 127.0.0.9\n")
            .start();
    for (from, answer) in
        [("127.0.0.9", "@RSYNCD: OK"), ("127.0.0.8", "@ERROR: access denied to files from ")]
    {
        let got = "x\r\n@RSYNCD: 29\nfiles\n";
        let mut c = Tls::start(d.connect_from(from).0, "localhost");
        c.send(got.as_bytes());
        c.half_close();
        let text = String::from_utf8_lossy(&c.read_all()).into_owned();
        assert!(text.contains(answer), "{from}: {text}");
        let mut c = d.connect_from(from);
        c.send("MULTIPLEX\r\n").expect("+ Success\r\n");
        let m = Mux::new(c.0);
        let mut s = m.ask(got);
        s.finish();
        let text = String::from_utf8_lossy(&s.read_all()).into_owned();
        assert!(text.contains(answer), "{from}: {text}");
    }
}

#[test]
fn vsftpd_logs_the_client_s_address() {
    if !root() || !installed("vsftpd") {
        return skip("needs root and vsftpd");
    }
    let conf = "listen=NO\nanonymous_enable=YES\nxferlog_enable=YES\nvsftpd_log_file=@DIR@/ftp.log\nsecure_chroot_dir=@DIR@/empty\n";
    let d = Daemon::with(
        "socket = inet\nx stream tcp nowait root /usr/sbin/vsftpd vsftpd @DIR@/vsftpd.conf\n",
    )
    .file("vsftpd.conf", conf)
    .start();
    std::fs::create_dir(d.place.at("empty")).expect("a directory");
    let logged = |from: &str| {
        until("it is logged", || {
            std::fs::read_to_string(d.place.at("ftp.log"))
                .is_ok_and(|t| t.contains(&format!("CONNECT: Client \"{from}\"")))
        });
    };
    let mut c = Tls::start(d.connect_from("127.0.0.8").0, "localhost");
    c.send(b"x\r\n");
    c.expect(format!("{GO}220 ").as_bytes());
    logged("127.0.0.8");
    let mut c = d.connect_from("127.0.0.9");
    c.send("MULTIPLEX\r\n").expect("+ Success\r\n");
    let m = Mux::new(c.0);
    let mut s = m.ask("x\r\n");
    s.expect(format!("{GO}220 "));
    logged("127.0.0.9");
}

#[test]
fn a_truncation_is_a_reset() {
    if !able() {
        return;
    }
    let script = "#!/usr/bin/perl\n$| = 1; print 'x'; my $n; 1 while $n = sysread(STDIN, my $b, 9); my $e = $!{ECONNRESET}; open(F, '>', '@DIR@/part'); print F defined $n ? 'end' : $e ? 'reset' : 'error'; close F; rename('@DIR@/part', '@DIR@/how');\n";
    let row = "x stream tcp nowait root @DIR@/script\n";
    let d =
        Daemon::with(&format!("socket = inet\n{row}[main]\n{row}")).file("script", script).start();
    let seen = |how| {
        until("the service has seen it", || {
            std::fs::read_to_string(d.place.at("how")).is_ok_and(|t| t == how)
        });
    };
    for (whole, how) in [(true, "end"), (false, "reset")] {
        let mut c = d.connect();
        c.send("MULTIPLEX\r\n").expect("+ Success\r\n");
        let m = Mux::new(c.0);
        for asked in ["x\r\n", "HOST\r\nmain\r\nx\r\n"] {
            let _ = std::fs::remove_file(d.place.at("how"));
            let mut s = m.ask(asked);
            let mut got = Vec::new();
            while !got.ends_with(format!("{GO}x").as_bytes()) {
                let mut byte = [0];
                std::io::Read::read_exact(&mut s, &mut byte).expect("a byte");
                got.push(byte[0]);
            }
            if whole {
                s.finish();
            }
            drop(s);
            seen(how);
        }
    }
    for (whole, how) in [(true, "end"), (false, "reset")] {
        let _ = std::fs::remove_file(d.place.at("how"));
        let mut c = Tls::start(d.connect().0, "localhost");
        c.send(b"x\r\n");
        c.expect(format!("{GO}x").as_bytes());
        if whole {
            c.half_close();
        }
        drop(c);
        seen(how);
    }
}

#[test]
fn tcpd_obeys_the_client_s_address() {
    let needed = ["/usr/sbin/tcpd", "/etc/hosts.allow", "/etc/hosts.deny"];
    if !root() || !needed.iter().all(|p| std::path::Path::new(p).exists()) {
        return skip("needs root, tcpd and its tables");
    }
    // hosts_access(5): its own tables are the computer's, so those of this test are mounted over
    // them, for this fived alone.
    let conf = "x stream tcp nowait root /usr/sbin/tcpd /bin/echo served\n";
    let script = "#!/bin/sh\nset -e\nmount --make-rprivate /\nfor f in allow deny; do mount --bind @DIR@/$f /etc/hosts.$f; done\nexec \"$@\"\n";
    let builder = Daemon::with(conf)
        .file("allow", "echo: 127.0.0.9\n")
        .file("deny", "ALL: ALL\n")
        .file("wrap", script);
    let wrap = builder.place.at("wrap");
    let d = builder.under(&["unshare", "-m", &wrap]).start();
    for (from, answer) in [("127.0.0.9", format!("{GO}served\n")), ("127.0.0.8", GO.into())] {
        let mut c = Tls::start(d.connect_from(from).0, "localhost");
        c.send(b"x\r\n");
        same(c.read_all(), &answer);
        let mut c = d.connect_from(from);
        c.send("MULTIPLEX\r\n").expect("+ Success\r\n");
        same(Mux::new(c.0).ask("x\r\n").read_all(), &answer);
    }
}

#[test]
fn sshd_logs_the_client_s_address() {
    if !root() || !std::path::Path::new("/usr/sbin/sshd").exists() || !installed("ssh-keygen") {
        return skip("needs root, /usr/sbin/sshd and ssh-keygen");
    }
    let conf = "x stream tcp nowait root /usr/sbin/sshd sshd -i -E @DIR@/ssh.log -f @DIR@/sshd_config\n stderr = null\n";
    let d = Daemon::with(conf)
        .file("sshd_config", "HostKey @DIR@/host\nPidFile none\nUsePAM no\nLogLevel VERBOSE\n")
        .start();
    std::fs::create_dir_all("/run/sshd").expect("a directory");
    let key = d.place.at("host");
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&key)
        .status();
    assert!(made.expect("ssh-keygen").success());
    let logged = |from: &str| {
        until("it is logged", || {
            std::fs::read_to_string(d.place.at("ssh.log"))
                .is_ok_and(|t| t.contains(&format!("Connection from {from} port ")))
        });
    };
    let mut c = Tls::start(d.connect_from("127.0.0.9").0, "localhost");
    c.send(b"x\r\n");
    c.expect(format!("{GO}SSH-2.0-").as_bytes());
    logged("127.0.0.9");
    let mut c = d.connect_from("127.0.0.8");
    c.send("MULTIPLEX\r\n").expect("+ Success\r\n");
    let m = Mux::new(c.0);
    let mut s = m.ask("x\r\n");
    s.expect(format!("{GO}SSH-2.0-"));
    logged("127.0.0.8");
}
