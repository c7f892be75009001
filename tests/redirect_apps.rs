//! `redirect` with real servers behind it: PostgreSQL, whose `peer` accepts who logged in at fived by
//! an SSH key, and HAProxy, which reads the PROXY header.

#[path = "support/postgres.rs"]
mod postgres;
mod support;
#[path = "support/tls.rs"]
mod tls;

use postgres::Running;
use std::process::Command;
use support::{Builder, Daemon, Five, Place, installed, root, skip, until, until_listened_at};
use tls::Tls;

const H: &str = "127.0.0.1";

/// In a mount namespace in which alice and bob are users of this computer.
fn with_users(b: Builder) -> Builder {
    let passwd = std::fs::read_to_string("/etc/passwd").expect("passwd");
    let user = |name: &str, uid: u32| format!("{name}:x:{uid}:{uid}::/:/bin/sh\n");
    // The first entry of a name counts, should this computer have an `alice` of its own.
    b.place.write("passwd", &(user("alice", 62_001) + &user("bob", 62_002) + &passwd), 0o644);
    b.under(&["unshare", "-m", "sh", "-c", MOUNT])
}

const MOUNT: &str = "mount --bind @DIR@/passwd /etc/passwd && exec \"$0\" \"$@\"";

/// A server that asks the kernel who connects; in that namespace.
fn start_postgres(d: &Daemon, bin: &str) -> Running {
    postgres::start(d, "peer", |program| {
        let mut c = Command::new("unshare");
        c.args(["-m", "sh", "-c", &d.place.fill(MOUNT), "setpriv", "--reuid=nobody"]);
        c.args(["--regid=nogroup", "--clear-groups", &format!("{bin}/{program}")]);
        c
    })
}

/// A person with a key that may log in by that name, and a forward to the database as that user.
struct Person {
    _forward: Running,
    // It ends its session, whose socket is in the place.
    five: Five,
    _place: Place,
    port: String,
}

impl Person {
    fn new(d: &Daemon, name: &str) -> Person {
        let place = Place::new();
        let five = Five::at(&place, d.address());
        let key = place.at("key");
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f", &key])
            .status()
            .expect("ssh-keygen");
        assert!(made.success());
        d.place.write_keys(name, &std::fs::read_to_string(format!("{key}.pub")).expect("key"));
        let to = format!("{name}@{H}");
        let (forward, port) = postgres::forward(&five, &["-i", &key], &to);
        Person { _place: place, five, _forward: forward, port }
    }

    /// What the database says to this person, as that user of it.
    fn psql(&self, user: &str, sql: &str) -> (String, String) {
        postgres::psql(&self.five, &self.port, user, sql)
    }
}

#[test]
fn who_logged_in_by_a_key_is_that_user_for_a_database() {
    let all = ["psql", "unshare", "setpriv", "ssh-keygen"].map(installed);
    let Some(bin) = postgres::programs().filter(|_| root() && !all.contains(&false)) else {
        return skip("needs root, PostgreSQL, psql, unshare, setpriv and ssh-keygen");
    };
    let conf = "authorized_keys = @KEYS@/%u\n\
                pg stream tcp nowait * redirect @DIR@/pg/.s.PGSQL.5432\n require = tls login\n";
    let d = with_users(Daemon::with(conf).file("pg/made", "")).start();
    let _server = start_postgres(&d, &bin);
    let alice = Person::new(&d, "alice");
    until("PostgreSQL serves", || alice.psql("alice", "select current_user").0 == "alice\n");
    let rows = alice.psql("alice", "select repeat('x', 1000) from generate_series(1, 5000)");
    assert_eq!((rows.0.lines().count(), rows.1.as_str()), (5000, ""));
    let created = alice.psql("alice", "create role bob login");
    assert_eq!(created.1, "");

    let bob = Person::new(&d, "bob");
    assert_eq!(bob.psql("bob", "select current_user"), ("bob\n".into(), String::new()));
    let (out, err) = bob.psql("alice", "select current_user");
    assert!(out.is_empty() && err.contains("Peer authentication failed"), "{out}{err}");
    let (out, err) = alice.psql("bob", "select current_user");
    assert!(out.is_empty() && err.contains("Peer authentication failed"), "{out}{err}");
    // The first one is alice's; bob's may be the last that is there yet.
    let line = d.wait_logs("START service=pg", 1).remove(0);
    assert!(line.contains("/pg/.s.PGSQL.5432 from=127.0.0.1") && line.contains("user=alice"));
}

/// One that answers every request with what it was told of its client.
const HAPROXY: &str = "defaults
    mode http
    timeout connect 20s
    timeout client 20s
    timeout server 20s
frontend told
    bind unix@@DIR@/haproxy.sock mode 666 accept-proxy
    http-request return status 200 content-type text/plain lf-string \"%[src] %[src_port] %[dst] \
host=%[fc_pp_authority] id=%[fc_pp_unique_id]\"
";

#[test]
fn haproxy_reads_the_header() {
    if !installed("haproxy") {
        return skip("haproxy is not installed");
    }
    let conf = "[*]\n\
                v1 stream tcp nowait @USER@ redirect @DIR@/haproxy.sock\n proxy = v1\n\
                v2 stream tcp nowait @USER@ redirect @DIR@/haproxy.sock\n proxy = v2\n\
                [www.example.org]\n";
    let d = Daemon::with(conf).start();
    d.place.write("haproxy.cfg", &d.place.fill(HAPROXY), 0o644);
    let mut haproxy = Command::new("haproxy");
    haproxy.args(["-db", "-f", &d.place.at("haproxy.cfg")]);
    let _haproxy = Running::start(&mut haproxy);
    until_listened_at(&d.place.at("haproxy.sock"));

    let get = "GET / HTTP/1.0\r\n\r\n";
    let mut c = d.connect();
    let port = c.0.local_addr().expect("an address").port();
    let all = c.send(format!("v1\r\n{get}")).read_all();
    let all = String::from_utf8(all).expect("text");
    assert!(all.ends_with(&format!("\r\n\r\n127.0.0.1 {port} 127.0.0.1 host= id=")), "{all}");

    let mut c = Tls::start(d.connect().0, "www.example.org");
    let port = c.0.sock.local_addr().expect("an address").port();
    c.send(format!("v2\r\n{get}").as_bytes());
    let all = String::from_utf8(c.read_all()).expect("text");
    let expected = format!("\r\n\r\n127.0.0.1 {port} 127.0.0.1 host=www.example.org id=2");
    assert!(all.ends_with(&expected), "{all}");
}
