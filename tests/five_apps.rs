//! five: applications that know nothing of it. (ssh, git, rsync and curl are in
//! `tests/five_manual.rs`, as the manual has them.)

mod support;

use std::io::Read;
use std::process::{Child, Command, Stdio};
use support::{Daemon, Five, installed, root, skip, until};

const H: &str = "127.0.0.1";

/// Ends with the test, whatever becomes of it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // SIGTERM: PostgreSQL cleans up after itself.
        let pid = nix::unistd::Pid::from_raw(self.0.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// Where Debian has the server's own programs.
fn postgres() -> Option<String> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    versions
        .map(|v| format!("{}/bin", v.path().display()))
        .find(|d| std::path::Path::new(d).join("initdb").exists())
}

/// A program that refuses to be root is nobody.
fn unprivileged(program: &str) -> Command {
    if !root() {
        return Command::new(program);
    }
    let mut c = Command::new("setpriv");
    c.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", program]);
    c
}

#[test]
fn a_database_and_its_client() {
    let Some(bin) = postgres().filter(|_| installed("psql") && installed("nc")) else {
        return skip("PostgreSQL, psql or nc is not installed");
    };
    let conf = "pg stream tcp nowait @USER@ /bin/nc nc -N -U @DIR@/pg/.s.PGSQL.5432\n";
    let d = Daemon::with(conf).file("pg/made", "").start();
    let home = d.place.at("pg");
    if root() {
        let nobody = nix::unistd::User::from_name("nobody").expect("passwd").expect("nobody");
        std::os::unix::fs::chown(&home, Some(nobody.uid.as_raw()), Some(nobody.gid.as_raw()))
            .expect("chown");
    }
    let data = format!("{home}/data");
    let quiet = |c: &mut Command| {
        c.current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("starts")
    };
    let made = quiet(unprivileged(&format!("{bin}/initdb")).args([
        "-D",
        &data,
        "-U",
        "alice",
        "-A",
        "trust",
        "--no-sync",
    ]));
    assert!(made.success(), "initdb");
    let mut server = unprivileged(&format!("{bin}/postgres"));
    server
        .args(["-D", &data, "-k", &home, "-h", "", "-F"])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let _server = Running(server.spawn().expect("postgres"));
    until("PostgreSQL's socket", || {
        std::path::Path::new(&format!("{home}/.s.PGSQL.5432")).exists()
    });

    let f = Five::new(&d);
    let mut forward = Running(f.start(&["-N", "-L", "127.0.0.1:0:pg", H]));
    let (mut said, mut byte) = (String::new(), [0]);
    while !said.contains(" leads to pg\n") {
        assert_eq!(
            forward.0.stderr.as_mut().expect("piped").read(&mut byte).expect("read"),
            1,
            "{said}"
        );
        said.push(byte[0].into());
    }
    let port = said
        .lines()
        .find_map(|l| l.strip_suffix(" leads to pg")?.rsplit(':').next())
        .expect("port");
    let psql = |sql: &str| {
        let out = f
            .program("psql")
            .args(["-X", "-At", "-h", H, "-p", port, "-U", "alice", "-d", "postgres", "-c", sql])
            .output()
            .expect("psql");
        (
            String::from_utf8_lossy(&out.stdout).into_owned(),
            String::from_utf8_lossy(&out.stderr).into_owned(),
        )
    };
    until("PostgreSQL serves", || psql("select 6 * 7").0 == "42\n");
    let rows = psql("select repeat('x', 1000) from generate_series(1, 5000)");
    assert_eq!((rows.0.lines().count(), rows.1.as_str()), (5000, ""));
    assert_eq!(f.sessions().len(), 1);
}
