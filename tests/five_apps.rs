//! five: applications that know nothing of it. (ssh, git, rsync and curl are in
//! `tests/five_manual.rs`, as the manual has them.)

#[path = "support/postgres.rs"]
mod postgres;
mod support;

use std::process::Command;
use support::{Daemon, Five, installed, root, skip, until};

const H: &str = "127.0.0.1";

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
    let Some(bin) = postgres::programs().filter(|_| installed("psql") && installed("nc")) else {
        return skip("PostgreSQL, psql or nc is not installed");
    };
    let conf = "pg stream tcp nowait @USER@ /bin/nc nc -N -U @DIR@/pg/.s.PGSQL.5432\n";
    let d = Daemon::with(conf).file("pg/made", "").start();
    let program = |name: &str| unprivileged(&format!("{bin}/{name}"));
    let _server = postgres::start(&d, "trust", program);

    let f = Five::new(&d);
    let (_forward, port) = postgres::forward(&f, &[], H);
    let psql = |sql: &str| postgres::psql(&f, &port, "alice", sql);
    until("PostgreSQL serves", || psql("select 6 * 7").0 == "42\n");
    let rows = psql("select repeat('x', 1000) from generate_series(1, 5000)");
    assert_eq!((rows.0.lines().count(), rows.1.as_str()), (5000, ""));
    assert_eq!(f.sessions().len(), 1);
}
