//! Where `max_sessions` stand, an idle session makes room for a client of another source: nobody
//! who only holds sessions keeps the others out.

#[path = "support/resume_client.rs"]
mod resume_client;
mod support;
#[path = "support/tls.rs"]
mod tls;
#[path = "support/yamux_raw.rs"]
mod yamux_raw;

use resume_client::Session;
use std::io::{Read, Write};
use support::*;
use tls::Tls;
use yamux_raw::{ACK, DATA, Raw, SYN, WINDOW};

const CONF: &str = "passwords = @DIR@/passwd\nhello stream tcp nowait @USER@ /bin/echo echo hello\ncat stream tcp nowait @USER@ /bin/cat cat\n";
/// Another source than 127.0.0.1, from which tests connect if they do not say otherwise.
const HONEST: &str = "127.0.0.2";
const HOST: &str = "+ Success\r\nWhich VHOST? ";

fn daemon(max_sessions: usize) -> Daemon {
    let conf = format!("max_sessions = {max_sessions}\n{CONF}");
    Daemon::with(&conf).file("passwd", &passwords(&["alice"])).start()
}

fn encrypted(d: &Daemon) -> Tls {
    Tls::start(d.connect().0, "localhost")
}

fn multiplexed(d: &Daemon) -> Raw<std::net::TcpStream> {
    Raw(d.connect().multiplex())
}

/// A client of another source has a session, and keeps it.
fn newcomer(d: &Daemon, from: &str) -> Client {
    let mut c = d.connect_from(from);
    c.send("AUTH\r\nalice\r\ndemopass\r\n");
    c.expect("+ Success\r\nEnter Username: Enter Password: ");
    c.expect("Authentication as alice successful\r\n");
    c
}

/// The connection ends, after whatever comes.
fn ends(mut c: impl Read) {
    let mut all = Vec::new();
    // A reset is an end, too; a wait that takes too long is none.
    let Err(e) = c.read_to_end(&mut all) else { return };
    assert_ne!(e.kind(), std::io::ErrorKind::WouldBlock, "it stands");
}

#[test]
fn every_idle_session_makes_room_the_oldest_first() {
    let d = daemon(10);
    // These stay: somebody has logged in, or a service runs.
    let mut alice = newcomer(&d, "127.0.0.1");
    let mut relayed = encrypted(&d);
    relayed.send(b"cat\r\nx");
    relayed.expect(b"+Go\r\nx");
    let mut served = multiplexed(&d);
    served.data(SYN, 1, "cat\r\n");
    same(served.until(DATA, 0, 1).payload, "+Go\r\n");
    // These do not.
    let mut handshake = d.connect();
    handshake.send([0x16, 3, 1]);
    d.wait_logs("SESSION ", 4);
    let mut parked = encrypted(&d);
    parked.send(b"HOST\r\n\r\n");
    parked.expect(format!("{HOST}Host  selected\r\n").as_bytes());
    let mut typing = d.connect();
    typing.send("AUTH\r\nalice\r\n").expect("+ Success\r\nEnter Username: Enter Password: ");
    let streamless = multiplexed(&d);
    let mut dialogue = multiplexed(&d);
    dialogue.data(SYN, 1, "AUTH\r\n").until(WINDOW, ACK, 1);
    dialogue.until(DATA, 0, 1);
    let resumable = Session::begin(encrypted(&d));
    let mut lost = Session::begin(encrypted(&d));
    lost.open(1, "HOST\r\n");
    lost.lose();
    d.wait_log("LOST session=10 ");

    let mut guests = Vec::new();
    for n in 1..=7 {
        guests.push(newcomer(&d, HONEST));
        let last = d.wait_logs("END ", n).pop().expect("a line");
        let session = format!("END session={} from=127.0.0.1 reason=evicted", n + 3);
        assert!(last.starts_with(&session), "{last}");
    }
    ends(handshake.0);
    ends(parked.0);
    ends(typing.0);
    ends(streamless.0);
    ends(dialogue.0);
    ends(resumable.tls.0);
    // That one is no lost session to which its client could come back.
    assert_eq!(d.log().matches("LOST ").count(), 1, "{}", d.log());

    same(d.connect_from("127.0.0.3").send("HOST\r\n").read_all(), BUSY);
    assert!(d.wait_log("REFUSE ").contains("from=127.0.0.3 reason=sessions"));
    relayed.send(b"y");
    relayed.expect(b"y");
    served.data(0, 1, "y");
    same(served.until(DATA, 0, 1).payload, "y");
    same(alice.send("hello\r\n").read_all(), "+Go\r\nhello\n");
    for mut c in guests {
        same(c.send("hello\r\n").read_all(), "+Go\r\nhello\n");
    }
}

/// Not even while the client hears that it has logged in.
#[test]
fn whoever_has_logged_in_takes_no_share_of_the_idle_sessions() {
    let d = daemon(2);
    for n in 1..=100 {
        let mut idle = d.connect();
        idle.send("HOST\r\n").expect(HOST);
        let mut second = d.connect_from(HONEST);
        let first = newcomer(&d, HONEST);
        second.send("HOST\r\n").expect(HOST);
        ends(idle.0);
        drop((first, second));
        d.wait_logs("END ", 3 * n);
    }
}

#[test]
fn nobody_takes_a_place_of_a_source_that_has_no_more() {
    let d = daemon(3);
    let mut first: Vec<Client> = (0..2).map(|_| d.connect()).collect();
    first.push(d.connect_from(HONEST));
    for c in &mut first {
        c.send("HOST\r\n").expect(HOST);
    }
    same(d.ask("HOST\r\n"), BUSY);
    let mut second = d.connect_from(HONEST);
    second.send("HOST\r\n").expect(HOST);
    assert!(d.wait_log("END ").starts_with("END session=1 from=127.0.0.1 reason=evicted"));
    // Both of this source are needed by it no less than by the other.
    same(d.connect_from(HONEST).send("HOST\r\n").read_all(), BUSY);
    let mut third = d.connect_from("127.0.0.3");
    third.send("HOST\r\n").expect(HOST);
    assert!(d.wait_logs("END ", 2)[1].starts_with("END session=3 from=127.0.0.2 reason=evicted"));
    for mut c in [first.remove(1), second, third] {
        same(c.send("\r\nhello\r\n").read_all(), "Host  selected\r\n+Go\r\nhello\n");
    }
    until("all have ended", || d.log().matches("END ").count() == 5);
}

/// A dialogue in a stream has descriptors of its own, and counts in no `max_sessions`.
#[test]
fn an_idle_session_makes_room_where_no_descriptor_is_left() {
    if !installed("prlimit") {
        return skip("needs prlimit");
    }
    let conf = format!("max_streams_anonymous = 100\n{CONF}");
    let d = Daemon::with(&conf)
        .file("passwd", &passwords(&["alice"]))
        .under(&["prlimit", "--nofile=200:200"]);
    let d = d.start();
    let mut idle = multiplexed(&d);
    // One after the other: of those that are on their way it leaves some to others.
    for stream in (1..160).step_by(2) {
        idle.data(SYN, stream, "HOST\r\n");
        let answers = |f: &yamux_raw::Frame| (f.kind, f.stream) == (yamux_raw::DATA, stream);
        while !answers(&idle.next()) {}
    }
    d.wait_log("REFUSE service= host= from=127.0.0.1 reason=descriptors");
    // The channels of streams that have been promised one may still be on their way.
    until("the idle one makes room", || {
        d.connect_from(HONEST).send("HOST\r\n").read_any_of(1);
        d.log().contains("END session=1 ")
    });
    until("there is room", || d.connect_from(HONEST).send("HOST\r\n").read_any_of(2) == b"+ ");
    assert!(d.wait_log("END session=1 ").contains(" reason=evicted "), "{}", d.log());
}

/// A client that always sends is not read for ever.
#[test]
fn whoever_never_stops_sending_goes_as_well() {
    let d = daemon(1);
    let flood = multiplexed(&d);
    let mut copy = flood.0.try_clone().expect("a copy");
    let sender = std::thread::spawn(move || {
        let pongs = yamux_raw::header(yamux_raw::PING, ACK, 0, 7).repeat(1000);
        while copy.write_all(&pongs).is_ok() {}
    });
    d.wait_log("SESSION ");
    drop(newcomer(&d, HONEST));
    assert!(d.wait_log("END session=1 ").contains("reason=evicted"), "{}", d.log());
    sender.join().expect("it ends");
}
