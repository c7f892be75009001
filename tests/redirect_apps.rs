//! SPEC 6.3, with real servers behind it: PostgreSQL, whose `peer` accepts who logged in at fived by
//! an SSH key, and HAProxy, which reads the PROXY header.

mod support;
#[path = "support/tls.rs"]
mod tls;

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use support::{Builder, Daemon, Five, Place, installed, root, skip, until};
use tls::Tls;

const H: &str = "127.0.0.1";

/// Ends with the test, whatever becomes of it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // SIGTERM: PostgreSQL removes what it has made.
        let pid = nix::unistd::Pid::from_raw(self.0.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// Where Debian has PostgreSQL's own programs.
fn postgres() -> Option<String> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    versions
        .map(|v| format!("{}/bin", v.path().display()))
        .find(|d| Path::new(d).join("initdb").exists())
}

fn quiet(c: &mut Command) -> &mut Command {
    c.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}

/// In a mount namespace in which alice and bob are users of this computer.
fn with_users(b: Builder) -> Builder {
    let passwd = std::fs::read_to_string("/etc/passwd").expect("passwd");
    let user = |name: &str, uid: u32| format!("{name}:x:{uid}:{uid}::/:/bin/sh\n");
    b.place.write("passwd", &(passwd + &user("alice", 62_001) + &user("bob", 62_002)), 0o644);
    b.under(&["unshare", "-m", "sh", "-c", MOUNT])
}

const MOUNT: &str = "mount --bind @DIR@/passwd /etc/passwd && exec \"$0\" \"$@\"";

/// A server whose superuser is alice, and which asks the kernel who connects; in that namespace.
fn start_postgres(d: &Daemon, bin: &str) -> Running {
    let home = d.place.at("pg");
    let nobody = nix::unistd::User::from_name("nobody").expect("passwd").expect("nobody");
    std::os::unix::fs::chown(&home, Some(nobody.uid.as_raw()), Some(nobody.gid.as_raw()))
        .expect("chown");
    let data = format!("{home}/data");
    let as_nobody = |program: &str| {
        let mut c = Command::new("unshare");
        c.args(["-m", "sh", "-c", &d.place.fill(MOUNT), "setpriv", "--reuid=nobody"]);
        c.args(["--regid=nogroup", "--clear-groups", &format!("{bin}/{program}")]);
        c
    };
    let mut initdb = as_nobody("initdb");
    initdb.args(["-D", &data, "-U", "alice", "-A", "peer", "--no-sync"]);
    assert!(quiet(&mut initdb).status().expect("initdb").success());
    let mut server = as_nobody("postgres");
    server.args(["-D", &data, "-k", &home, "-h", "", "-F"]);
    let server = Running(quiet(&mut server).spawn().expect("postgres"));
    until("PostgreSQL's socket", || Path::new(&format!("{home}/.s.PGSQL.5432")).exists());
    server
}

/// A person with a key that may log in by that name, and a forward to the database as that user.
struct Person {
    _place: Place,
    five: Five,
    _forward: Running,
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
        let mut child = five.start(&["-N", "-i", &key, "-L", "127.0.0.1:0:pg", &to]);
        let (mut said, mut byte) = (String::new(), [0]);
        while !said.contains(" leads to pg\n") {
            let read = child.stderr.as_mut().expect("piped").read(&mut byte).expect("read");
            assert_eq!(read, 1, "{said}");
            said.push(byte[0].into());
        }
        let line = said.lines().find_map(|l| l.strip_suffix(" leads to pg"));
        let port = line.and_then(|l| l.rsplit(':').next()).expect("port").to_string();
        Person { _place: place, five, _forward: Running(child), port }
    }

    /// What the database says to this person, as that user of it.
    fn psql(&self, user: &str, sql: &str) -> (String, String) {
        let words =
            ["-X", "-At", "-h", H, "-p", &self.port, "-U", user, "-d", "postgres", "-c", sql];
        let out = self.five.program("psql").args(words).output().expect("psql");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(&out.stdout), text(&out.stderr))
    }
}

#[test]
fn who_logged_in_by_a_key_is_that_user_for_a_database() {
    let all = ["psql", "unshare", "setpriv", "ssh-keygen"].map(installed);
    let Some(bin) = postgres().filter(|_| root() && !all.contains(&false)) else {
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
    let line = d.wait_log("START service=pg");
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
    let _haproxy = Running(quiet(&mut haproxy).spawn().expect("haproxy"));
    until("HAProxy's socket", || Path::new(&d.place.at("haproxy.sock")).exists());

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
    let told = format!("\r\n\r\n127.0.0.1 {port} 127.0.0.1 host=www.example.org id=2");
    assert!(all.ends_with(&told), "{all}");
}
