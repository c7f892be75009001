//! A session on a plain connection: HOST, AUTH's dialogue, what is refused, what a session is told
//! apart by.

mod support;
use std::io::Read;
use support::*;

const WHERE: &str = "where stream tcp nowait @USER@ /bin/sh sh -c 'echo host=$FIVED_HOST user=$FIVED_USER auth=$FIVED_AUTH session=$FIVED_SESSION service=$FIVED_SERVICE'\n";
const HOSTS: &str = "
all stream tcp nowait @USER@ /bin/echo echo default
[Main main.example]
only stream tcp nowait @USER@ /bin/echo echo main
all stream tcp nowait @USER@ /bin/echo echo own
[*]
star stream tcp nowait @USER@ /bin/sh sh -c 'echo star of -$FIVED_HOST-'
";

#[test]
fn host_chooses_by_any_name_and_answers_by_the_first() {
    let d = Daemon::with(HOSTS).start();
    for name in ["main", "MAIN.example"] {
        let mut c = d.connect();
        c.send("HOST\r\n").expect("+ Success\r\nWhich VHOST? ");
        c.send(format!("{name}\r\n")).expect("Host Main selected\r\n");
        c.send("only\r\n").expect("+Go\r\nmain\n").end();
    }
    same(d.ask("only\r\n"), NOT_AVAILABLE);
    same(d.ask("all\r\n"), "+Go\r\ndefault\n");
    same(d.ask("star\r\n"), "+Go\r\nstar of --\n");
}

#[test]
fn host_can_be_sent_at_once_and_changed_again() {
    let d = Daemon::with(HOSTS).start();
    let answer = d.ask("HOST\nmain\nHOST\nnowhere\nHOST\n\nall\n");
    same(
        answer,
        "+ Success\r\nWhich VHOST? Host Main selected\r\n+ Success\r\nWhich VHOST? - No such host\r\n+ Success\r\nWhich VHOST? Host  selected\r\n+Go\r\ndefault\n",
    );
    same(
        d.ask("HOST\nmain\nHOST\nnowhere\nall\n"),
        "+ Success\r\nWhich VHOST? Host Main selected\r\n+ Success\r\nWhich VHOST? - No such host\r\n+Go\r\nown\n",
    );
}

#[test]
fn help_shows_what_this_host_has() {
    let d = Daemon::with(HOSTS).start();
    same(d.ask("HELP\r\n"), format!("all\r\nstar\r\n{BUILTINS}"));
    let head = "+ Success\r\nWhich VHOST? Host Main selected\r\n";
    same(d.ask("HOST\r\nmain\r\nHELP\r\n"), format!("{head}only\r\nall\r\nstar\r\n{BUILTINS}"));
}

#[test]
fn everything_after_the_last_line_reaches_the_service() {
    let d = Daemon::with("[main]\ncat stream tcp nowait @USER@ /bin/cat cat\n").start();
    let body = "x\n".repeat(100_000);
    let answer = d.ask(format!("HOST\r\nmain\r\ncat\r\n{body}"));
    same(answer, format!("+ Success\r\nWhich VHOST? Host main selected\r\n+Go\r\n{body}"));
}

#[test]
fn a_plain_sessions_service_has_the_clients_own_socket() {
    let d = Daemon::with(
        "who stream tcp nowait @USER@ /usr/bin/perl perl -MSocket -e 'my ($p,$a)=sockaddr_in(getpeername(STDIN)); print $p'\n",
    )
    .start();
    let mut c = d.connect();
    let port = c.0.local_addr().expect("address").port();
    c.send("HOST\r\n\r\nwho\r\n").half_close();
    same(c.read_all(), format!("+ Success\r\nWhich VHOST? Host  selected\r\n+Go\r\n{port}"));
}

#[test]
fn a_service_s_socket_is_as_any_other_also_after_a_dialogue() {
    // The dialogue itself waits for no acknowledgement (TCP_NODELAY).
    let ask =
        "perl -MSocket=:all -e 'print unpack(\"i\", getsockopt(STDIN, IPPROTO_TCP, TCP_NODELAY))'";
    let d =
        Daemon::with(&format!("nodelay stream tcp nowait @USER@ /usr/bin/perl {ask}\n")).start();
    same(d.ask("nodelay\r\n"), "+Go\r\n0");
    same(d.ask("HOST\r\n\r\nnodelay\r\n"), "+ Success\r\nWhich VHOST? Host  selected\r\n+Go\r\n0");
}

#[test]
fn a_line_that_is_too_long_closes() {
    let d = Daemon::with(HOSTS).start();
    let answer = d.ask(format!("HOST\r\n{}\r\nall\r\n", "x".repeat(513)));
    same(answer, format!("+ Success\r\nWhich VHOST? {TOO_LONG}"));
    same(
        d.ask(format!("HOST\r\n{}\r\nall\r\n", "x".repeat(512))),
        "+ Success\r\nWhich VHOST? - No such host\r\n+Go\r\ndefault\n",
    );
    same(
        d.ask(format!("HOST\r\n\r\n{}\r\n", "x".repeat(256))),
        format!("+ Success\r\nWhich VHOST? Host  selected\r\n{TOO_LONG}"),
    );
}

#[test]
fn a_session_bears_one_number() {
    let d = Daemon::with(WHERE).start();
    let answer = String::from_utf8(d.ask("HOST\r\n\r\nwhere\r\n")).expect("text");
    let number = answer
        .split("session=")
        .nth(1)
        .and_then(|s| s.split(' ').next())
        .expect("a number")
        .to_string();
    d.wait_log(&format!("SESSION from=127.0.0.1 session={number}"));
    let start = d.wait_log("START service=where");
    assert!(start.ends_with(&format!(" from=127.0.0.1 session={number}")), "{start}");
    d.wait_log(&format!("END session={number} from=127.0.0.1 reason="));
}

#[test]
fn a_session_that_chooses_nothing_is_closed() {
    let d = Daemon::with("login_timeout = 3\nrequest_timeout = 3\n").start();
    let mut c = d.connect();
    c.send("HOST\r\n").expect("+ Success\r\nWhich VHOST? ").end();
    d.wait_log("reason=timeout");
}

#[test]
fn a_session_whose_service_does_not_start_is_refused() {
    let conf = "gone stream tcp nowait @USER@ @DIR@/none\nfull stream tcp nowait @USER@ /bin/sleep sleep 60\n instances = 1\n";
    let d = Daemon::with(conf).start();
    let answer = |end: &str| format!("+ Success\r\nWhich VHOST? Host  selected\r\n{end}");
    same(d.ask("HOST\r\n\r\ngone\r\n"), answer(FAILED));
    let mut first = d.connect();
    first.send("full\r\n").expect(GO);
    same(d.ask("HOST\r\n\r\nfull\r\n"), answer(BUSY));
    assert!(d.wait_logs("END ", 2).iter().all(|l| l.contains(" reason=refused ")), "{}", d.log());
}

#[test]
fn more_sessions_than_may_stand_are_busy() {
    let d =
        Daemon::with("max_sessions = 1\nok stream tcp nowait @USER@ /bin/echo echo ok\n").start();
    let mut first = d.connect();
    first.send("HOST\r\n").expect("+ Success\r\nWhich VHOST? ");
    same(d.ask("HOST\r\n"), BUSY);
    same(d.ask("ok\r\n"), "+Go\r\nok\n");
    first.send("\r\n").expect("Host  selected\r\n").send("ok\r\n").expect("+Go\r\nok\n").end();
    until("the next session", || d.ask("HOST\r\n\r\n").starts_with(b"+ Success"));
}

#[test]
fn sessions_of_older_tables_take_no_room_from_new_ones() {
    let conf = "max_sessions = 1\n";
    let d = Daemon::with(conf).start();
    let mut standing = Vec::new();
    for n in 1..5 {
        // The old net may still take a few, and is full.
        until("room", || {
            let mut c = d.connect();
            let mut first = [0; 2];
            c.send("HOST\r\n").0.read_exact(&mut first).expect("an answer");
            let new = &first == b"+ ";
            if new {
                c.expect("Success\r\nWhich VHOST? ");
                standing.push(c);
            }
            new
        });
        d.wait_logs("SESSION from=", n);
        d.reload(conf);
    }
    for c in &mut standing {
        c.send("\r\n").expect("Host  selected\r\n");
    }
}

#[test]
fn auth_is_refused_from_afar_without_tls() {
    // A second address of this computer is not the loopback's: asked with -C no socket is needed,
    // but the wire is what counts.
    let Some(outside) = outside_address() else {
        return skip("this computer has no address but the loopback's");
    };
    let d = Daemon::with("").listen("0.0.0.0:0").start();
    let ask = |text: &str| {
        let to = std::net::SocketAddr::new(outside, d.address().port());
        Client::connect(to).send(text).half_close().read_all()
    };
    same(ask("AUTH\r\nx\r\ny\r\nHELP\r\n"), "- AUTH needs SSL first\r\n");
    d.wait_log(&format!("REFUSE service=AUTH host= from={outside} reason=tls"));
    same(ask("PUBKEY\r\n"), "- PUBKEY needs SSL first\r\n");
    d.wait_log(&format!("REFUSE service=PUBKEY host= from={outside} reason=tls"));
    same(ask("HELP\r\n"), "HOST\r\nMULTIPLEX\r\nRUN\r\nSSL\r\n");
    d.reload("plaintext_login = yes\n");
    until("the new table", || ask("HELP\r\n") == BUILTINS.as_bytes());
}

fn outside_address() -> Option<std::net::IpAddr> {
    let probe = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    probe.connect("192.0.2.1:9").ok()?;
    let ip = probe.local_addr().ok()?.ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then_some(ip)
}
