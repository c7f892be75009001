//! A PostgreSQL server of a test's own, and a way to it through five.

use super::support::{Daemon, Five, until_listened_at};
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Ends with the test, whatever becomes of it.
pub struct Running(Child);

impl Running {
    /// Starts a program without input and output.
    pub fn start(c: &mut Command) -> Running {
        Running(quiet(c).spawn().expect("starts"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // SIGTERM: PostgreSQL removes what it has made.
        let pid = nix::unistd::Pid::from_raw(self.0.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// The directory where Debian has PostgreSQL's own programs, if it is installed.
pub fn programs() -> Option<String> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    versions
        .map(|v| format!("{}/bin", v.path().display()))
        .find(|d| Path::new(d).join("initdb").exists())
}

/// Starts a server whose superuser is alice, with a Unix socket in `@DIR@/pg`. `program`: the
/// command of one of its programs, as a user that is not root. `authentication`: how it knows its
/// clients.
pub fn start(d: &Daemon, authentication: &str, program: impl Fn(&str) -> Command) -> Running {
    let home = d.place.at("pg");
    if super::support::root() {
        let nobody = nix::unistd::User::from_name("nobody").expect("passwd").expect("nobody");
        let (uid, gid) = (Some(nobody.uid.as_raw()), Some(nobody.gid.as_raw()));
        std::os::unix::fs::chown(&home, uid, gid).expect("chown");
    }
    let data = format!("{home}/data");
    let mut initdb = program("initdb");
    initdb.args(["-D", &data, "-U", "alice", "-A", authentication, "--no-sync"]);
    assert!(quiet(&mut initdb).status().expect("initdb").success());
    let mut server = program("postgres");
    server.args(["-D", &data, "-k", &home, "-h", "", "-F"]);
    let server = Running::start(&mut server);
    until_listened_at(&format!("{home}/.s.PGSQL.5432"));
    server
}

fn quiet(c: &mut Command) -> &mut Command {
    c.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}

/// A forward of five to the service `pg`, and its port.
pub fn forward(five: &Five, options: &[&str], to: &str) -> (Running, String) {
    let words = [&["-N", "-L", "127.0.0.1:0:pg"], options, &[to]].concat();
    let mut child = five.start(&words);
    let (mut text, mut byte) = (String::new(), [0]);
    while !text.contains(" leads to pg\n") {
        let read = child.stderr.as_mut().expect("piped").read(&mut byte).expect("read");
        assert_eq!(read, 1, "{text}");
        text.push(byte[0].into());
    }
    let line = text.lines().find_map(|l| l.strip_suffix(" leads to pg"));
    let port = line.and_then(|l| l.rsplit(':').next()).expect("port").to_string();
    (Running(child), port)
}

/// What the database answers to psql, as that user of it: its output, and its errors.
pub fn psql(five: &Five, port: &str, user: &str, sql: &str) -> (String, String) {
    let words =
        ["-X", "-At", "-h", "127.0.0.1", "-p", port, "-U", user, "-d", "postgres", "-c", sql];
    let out = five.program("psql").args(words).output().expect("psql");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&out.stdout), text(&out.stderr))
}
