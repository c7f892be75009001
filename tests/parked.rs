//! A session that only waits for its next request has no thread, and nobody can tell.

mod support;
#[path = "support/tls.rs"]
mod tls;

use nix::sys::signal::Signal;
use support::*;
use tls::Tls;

const MANY: usize = 40;
const CONF: &str = "
hello stream tcp nowait @USER@ /bin/echo echo hello
cat stream tcp nowait @USER@ /bin/cat cat
[main]
where stream tcp nowait @USER@ /bin/sh sh -c 'echo host=$FIVED_HOST user=$FIVED_USER tls=$SSL_PROTOCOL'
";
const HOST: &str = "+ Success\r\nWhich VHOST? Host main selected\r\n";

/// Threads of the net process while it has no session.
fn rest(d: &Daemon) -> usize {
    same(d.ask("hello\r\n"), "+Go\r\nhello\n");
    proc::threads(d.net_pid())
}

/// Sessions in host `main`, plain and TLS by turns, without a thread.
struct Parked {
    plain: Vec<Client>,
    tls: Vec<Tls>,
}

fn park(d: &Daemon, n: usize) -> Parked {
    let threads = rest(d);
    let mut all = Parked { plain: Vec::new(), tls: Vec::new() };
    for _ in 0..n / 2 {
        let mut c = d.connect();
        c.send("HOST\r\nmain\r\n").expect(HOST);
        all.plain.push(c);
        let mut c = Tls::start(d.connect().0, "main");
        c.send(b"HOST\r\nmain\r\n");
        c.expect(HOST.as_bytes());
        all.tls.push(c);
    }
    d.wait_logs("SESSION ", n);
    until("their threads are gone", || proc::threads(d.net_pid()) == threads);
    assert_eq!(d.log().matches("END ").count(), 0, "{}", d.log());
    all
}

#[test]
fn sessions_that_wait_have_no_thread_and_go_on_with_all_their_facts() {
    let d = Daemon::with(CONF).start();
    let all = park(&d, MANY);
    for mut c in all.plain {
        same(c.send("where\r\n").read_all(), "+Go\r\nhost=main user= tls=\n");
    }
    for mut c in all.tls {
        c.send(b"where\r\n");
        same(c.read_all(), "+Go\r\nhost=main user= tls=TLSv1.3\n");
    }
    d.wait_logs("reason=closed", MANY);
}

#[test]
fn a_session_parks_again_after_each_request_and_in_the_middle_of_none() {
    let d = Daemon::with(CONF).start();
    let threads = rest(&d);
    let all = park(&d, 2);
    let (mut plain, mut tls) =
        (all.plain.into_iter().next().expect("one"), all.tls.into_iter().next().expect("one"));
    // Half a line keeps its thread, and the line is whole again.
    plain.send("HO");
    tls.send(b"HO");
    until("both have a thread", || proc::threads(d.net_pid()) == threads + 2);
    plain.send("ST\r\nmain\r\n").expect(HOST);
    tls.send(b"ST\r\nmain\r\n");
    tls.expect(HOST.as_bytes());
    until("both have none", || proc::threads(d.net_pid()) == threads);
    // Everything after the line is the service's.
    let body = "x\n".repeat(20_000);
    plain.send(format!("HOST\r\n\r\ncat\r\n{body}")).half_close();
    same(plain.read_all(), format!("+ Success\r\nWhich VHOST? Host  selected\r\n+Go\r\n{body}"));
    tls.send(format!("HOST\r\n\r\ncat\r\n{body}").as_bytes());
    tls.half_close();
    same(tls.read_all(), format!("+ Success\r\nWhich VHOST? Host  selected\r\n+Go\r\n{body}"));
}

#[test]
fn its_time_goes_on() {
    // Longer than it takes to park them.
    let d = Daemon::with(&format!("login_timeout = 9\n{CONF}")).start();
    let mut all = park(&d, 2);
    all.plain[0].end();
    same(all.tls[0].read_all(), "");
    d.wait_logs("reason=timeout", 2);
}

#[test]
fn a_client_that_goes_is_noticed() {
    let d = Daemon::with(CONF).start();
    let all = park(&d, 4);
    drop(all.plain);
    d.wait_logs("reason=closed", 2);
    // Without close_notify: rustls sends none when it is dropped.
    drop(all.tls);
    d.wait_logs("reason=truncated", 2);
}

#[test]
fn they_count_as_sessions() {
    let d = Daemon::with(&format!("max_sessions = 4\n{CONF}")).start();
    let all = park(&d, 4);
    same(d.ask("HOST\r\n"), BUSY);
    drop(all.plain);
    d.wait_logs("reason=closed", 2);
    until("there is room", || d.ask("HOST\r\nmain\r\nwhere\r\n").starts_with(HOST.as_bytes()));
}

#[test]
fn the_end_of_fived_reaches_them() {
    let mut d = Daemon::with(CONF).start();
    let mut all = park(&d, 4);
    d.signal(Signal::SIGTERM);
    all.plain.iter_mut().for_each(Client::end);
    all.tls.iter_mut().for_each(|c| same(c.read_all(), ""));
    assert_eq!(d.wait(), 0);
    assert_eq!(d.log().matches("reason=drained").count(), 4, "{}", d.log());
}

#[test]
fn a_reload_leaves_them_what_they_had() {
    let d = Daemon::with(CONF).start();
    let mut all = park(&d, 4);
    let old = d.net_pid();
    d.reload("hello stream tcp nowait @USER@ /bin/echo echo new\n");
    until("there are two", || d.nets().len() == 2);
    // The next request is judged by the table under which the session began.
    same(all.plain[0].send("where\r\n").read_all(), "+Go\r\nhost=main user= tls=\n");
    all.tls[0].send(b"where\r\n");
    same(all.tls[0].read_all(), "+Go\r\nhost=main user= tls=TLSv1.3\n");
    assert!(proc::alive(old), "it has two sessions more");
    drop(all);
    until("the old one ends", || !proc::alive(old));
}
