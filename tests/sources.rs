//! One source, an address of a stranger, takes what it may; whoever comes from elsewhere is served throughout.

mod support;
use support::*;

const CONF: &str = "hello stream tcp nowait @USER@ /bin/echo echo hello\ncat stream tcp nowait @USER@ /bin/cat cat\n";
const HELLO: &str = "+Go\r\nhello\n";
/// Another source than 127.0.0.1, from which tests connect if they do not say otherwise.
const HONEST: &str = "127.0.0.2";

/// Asks for `cat` and keeps it.
fn hold(mut c: Client) -> Client {
    c.send("cat\r\nx").expect("+Go\r\nx");
    c
}

#[test]
fn one_source_runs_no_more_services_than_its_own() {
    let d = Daemon::with(&format!("max_services = 5\nmax_services_per_source = 3\n{CONF}")).start();
    let mut taken: Vec<Client> = (0..3).map(|_| hold(d.connect())).collect();
    same(d.ask("hello\r\n"), BUSY);
    assert!(d.wait_log("REFUSE service=hello").contains("from=127.0.0.1 reason=max_services_per_source"));
    same(d.connect_from(HONEST).send("hello\r\n").read_all(), HELLO);
    // A reload forgets none of them.
    d.reload(&format!("max_services = 5\nmax_services_per_source = 3\n{CONF}"));
    same(d.ask("cat\r\n"), BUSY);
    taken.extend((0..2).map(|_| hold(d.connect_from(HONEST))));
    same(d.connect_from("127.0.0.3").send("hello\r\n").read_all(), BUSY);
    assert!(d.wait_log("from=127.0.0.3").contains("reason=max_services session"));
    drop(taken);
    until("there is room again", || d.ask("hello\r\n") == HELLO.as_bytes());
}
