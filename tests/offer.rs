//! `offer`, services that run on the computer of whoever offers them.

mod support;
#[path = "support/tls.rs"]
mod tls;
#[path = "support/yamux_client.rs"]
mod yamux_client;
#[path = "support/yamux_raw.rs"]
mod yamux_raw;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use support::*;
use tls::Tls;
use yamux_client::Client as Mux;
use yamux_raw::*;

const OFFERS: &str = "+ Success\r\nOffering web\r\n";
const NOT_OFFERED: &str = "+ Success\r\n- Not offered\r\n";

fn daemon(rows: &str) -> Daemon {
    let users = passwords(&["alice", "bob", "daemon"]);
    Daemon::with(&format!("passwords = @DIR@/passwd\n{rows}")).file("passwd", &users).start()
}

/// A row that these may offer.
fn row(name: &str, offered_by: &str, attributes: &str) -> String {
    format!("{name} stream tcp nowait - offer\n offered_by = {offered_by}\n{attributes}")
}

/// A computer that can only dial out: its user's session, with frames by hand.
struct Computer {
    raw: Raw<TcpStream>,
    number: u64,
    stream: u32,
}

impl Computer {
    fn of(d: &Daemon, user: &str) -> Computer {
        let before = d.log().matches(&format!("LOGIN user={user} ")).count();
        let mut c = d.connect();
        c.send(format!("AUTH\r\n{user}\r\ndemopass\r\nMULTIPLEX\r\n"));
        c.expect("+ Success\r\nEnter Username: Enter Password: ");
        c.expect(format!("Authentication as {user} successful\r\n+ Success\r\n"));
        let line = d.wait_logs(&format!("LOGIN user={user} "), before + 1).pop().expect("a line");
        let number = line.rsplit_once("session=").expect("a session").1;
        Computer { raw: Raw(c.0), number: number.parse().expect("a number"), stream: 1 }
    }

    /// One that offers this.
    fn offering(d: &Daemon, user: &str, name: &str) -> Computer {
        let mut c = Computer::of(d, user);
        let id = c.ask(format!("OFFER\r\n{name}\r\n"));
        c.hears(id, format!("+ Success\r\nOffering {name}\r\n"));
        c
    }

    /// Opens a stream and sends a request: its number.
    fn ask(&mut self, request: impl AsRef<[u8]>) -> u32 {
        let id = self.stream;
        self.stream += 2;
        self.raw.data(SYN, id, request);
        id
    }

    /// These bytes come next on a stream.
    #[track_caller]
    fn hears(&mut self, id: u32, wanted: impl AsRef<[u8]>) {
        let (wanted, mut got) = (wanted.as_ref(), Vec::new());
        while got.len() < wanted.len() {
            let mut frame = self.raw.next();
            if (frame.stream, frame.kind) == (id, DATA) {
                got.append(&mut frame.payload);
                assert_eq!(frame.flags & RST, 0);
            }
        }
        same(got, wanted);
    }

    /// The next stream of the server's, and the line that it begins with.
    #[track_caller]
    fn client(&mut self) -> (u32, String) {
        let id = loop {
            let frame = self.raw.next();
            if (frame.kind, frame.flags) == (WINDOW, SYN) {
                break frame.stream;
            }
        };
        assert_eq!(id % 2, 0);
        let line = self.raw.until(DATA, 0, id).payload;
        (id, String::from_utf8(line).expect("text"))
    }

    /// Takes the next client, and says this to it.
    #[track_caller]
    fn serves(&mut self, hello: &str) -> u32 {
        let (id, _) = self.client();
        self.raw.frame(WINDOW, ACK, id, 0).data(0, id, hello);
        id
    }
}

#[test]
fn clients_reach_what_a_computer_offers() {
    let log = " log_on_success = PID HOST EXIT DURATION TRAFFIC\n";
    let ports = " port = 127.0.0.1:0\n tls_port = 127.0.0.1:0\n";
    let d = daemon(&row("Web", "alice", &format!("{log}{ports}")));
    let mut a = Computer::offering(&d, "alice", "Web");
    let number = a.number;
    let mut c = d.connect();
    let port = c.0.local_addr().expect("an address").port();
    c.send("web\r\nhello");
    let (id, line) = a.client();
    assert_eq!((id, line), (2, format!("Web 127.0.0.1 {port} -\r\n")));
    // Nobody is told of a service before somebody takes the client.
    assert!(c.silent(50));
    a.raw.frame(WINDOW, ACK, id, 0);
    c.expect(GO);
    a.hears(id, "hello");
    a.raw.data(0, id, "this is ");
    c.expect("this is ").send(" again").half_close();
    a.hears(id, " again");
    a.raw.until(WINDOW, FIN, id);
    a.raw.data(FIN, id, "web");
    same(c.read_all(), "web");
    d.wait_log(&format!("START service=Web host= to={number} from=127.0.0.1 session="));
    let line = d.wait_log(&format!("EXIT service=Web to={number} duration="));
    assert!(line.contains(" in=11 out=11 session="), "{line}");
    d.wait_log(&format!("OFFER service=Web host= from=127.0.0.1 session={number} user=alice"));

    // At ports of its own there is no request, and no reply line.
    let at = Client::connect(d.port(0)).0;
    let (mut plain, mut tls) = (Client(at), Tls::start(Client::connect(d.port(1)).0, "x.example"));
    a.serves("hi");
    plain.expect("hi");
    a.serves("hi");
    tls.expect(b"hi");

    // Inside TLS and in a stream, by who has logged in there; the service speaks first.
    let mut t = Tls::start(d.connect().0, "x.example");
    t.send(b"AUTH\r\nbob\r\ndemopass\r\nweb\r\nhello");
    let (id, line) = a.client();
    assert!(line.starts_with("Web 127.0.0.1 ") && line.ends_with(" bob\r\n"), "{line}");
    a.raw.data(ACK, id, "hi");
    a.hears(id, "hello");
    t.expect(b"+ Success\r\nEnter Username: Enter Password: ");
    t.expect(b"Authentication as bob successful\r\n+Go\r\nhi");
    t.half_close();
    a.raw.until(WINDOW, FIN, id);
    a.raw.data(FIN, id, "bye");
    same(t.read_all(), "bye");

    let mut m = d.connect();
    m.send("MULTIPLEX\r\n").expect("+ Success\r\n");
    let m = Mux::new(m.0);
    let mut s = m.ask("web\r\nhello");
    let id = a.serves("hi");
    s.expect(GO).expect("hi");
    a.hears(id, "hello");
    s.finish();
    a.raw.until(WINDOW, FIN, id);
    a.raw.data(FIN, id, "bye");
    same(s.read_all(), "bye");
    for line in d.wait_logs(&format!("EXIT service=Web to={number} duration="), 3) {
        assert!(line.contains(" in=11 out=11 ") || line.contains(" in=5 out=5 "), "{line}");
    }
    // The stream of the offer ends, and with it the offer.
    a.raw.frame(WINDOW, FIN, 1, 0);
    d.wait_log(&format!("WITHDRAW service=Web host= from=127.0.0.1 session={number} user=alice"));
    same(d.ask("web\r\n"), FAILED);
    assert!(d.wait_log("REFUSE service=Web ").contains("nobody offers it"));
}

#[test]
fn what_may_not_be_offered_is_as_what_is_not_there() {
    let rows = row("web", "alice @daemon !bob", "")
        + "echo stream tcp nowait @USER@ internal\n"
        + &row("off", "alice", " disable = yes\n")
        + "[other]\n"
        + &row("there", "alice bob", "");
    let d = daemon(&rows);
    same(d.ask("OFFER\r\nweb\r\n"), "- OFFER needs MULTIPLEX\r\n");
    let login = "AUTH\r\nalice\r\ndemopass\r\n";
    let output = d.ask(format!("{login}OFFER\r\nweb\r\n"));
    assert!(output.ends_with(b"- OFFER needs MULTIPLEX\r\n"));
    let mut m = d.connect();
    m.send("MULTIPLEX\r\n").expect("+ Success\r\n");
    let m = Mux::new(m.0);
    // Nobody has logged in.
    for name in ["web", "nothing", "echo", ""] {
        same(m.ask(format!("OFFER\r\n{name}\r\n")).finish().read_all(), NOT_OFFERED);
    }
    same(m.ask("HELP\r\n").read_all(), "web\r\necho\r\nAUTH\r\nHOST\r\nPUBKEY\r\nRUN\r\n");
    // A login of the stream alone.
    for (user, may) in [("alice", true), ("daemon", true), ("bob", false)] {
        let mut s = m.ask(format!("AUTH\r\n{user}\r\ndemopass\r\n"));
        s.expect("+ Success\r\nEnter Username: Enter Password: ");
        s.expect(format!("Authentication as {user} successful\r\n"));
        for name in ["off", "there", "echo"] {
            s.write_all(format!("OFFER\r\n{name}\r\n").as_bytes()).expect("write");
            s.expect(NOT_OFFERED);
        }
        s.write_all(b"OFFER\r\nWEB\r\n").expect("write");
        s.expect(if may { OFFERS } else { NOT_OFFERED });
        if !may {
            s.write_all(b"HELP\r\n").expect("write");
            same(s.read_all(), "web\r\necho\r\nAUTH\r\nHOST\r\nPUBKEY\r\nRUN\r\n");
        }
    }
    let line = d.wait_log("REFUSE service=nothing ");
    assert!(line.contains(" reason=offer "), "{line}");
    // Each once in a session; and in another host.
    let mut a = Computer::of(&d, "alice");
    let id = a.ask("HELP\r\n");
    a.hears(id, "web\r\necho\r\nAUTH\r\nHOST\r\nOFFER\r\nPUBKEY\r\nRUN\r\n");
    for output in [OFFERS, NOT_OFFERED] {
        let id = a.ask("OFFER\r\nweb\r\n");
        a.hears(id, output);
    }
    let id = a.ask("HOST\r\nother\r\nOFFER\r\nthere\r\n");
    a.hears(id, "+ Success\r\nWhich VHOST? Host other selected\r\n+ Success\r\nOffering there\r\n");
    let mut c = d.connect();
    c.send("HOST\r\nother\r\nthere\r\n")
        .expect("+ Success\r\nWhich VHOST? Host other selected\r\n");
    a.serves("hi");
    c.expect(GO).expect("hi");
}

/// An offer that its user may make, and that cannot be made all the same.
#[test]
fn an_offer_too_many_is_in_the_log() {
    let d = daemon(&row("web", "alice", ""));
    let mut a = Computer::offering(&d, "alice", "web");
    let id = a.ask("OFFER\r\nweb\r\n");
    a.hears(id, NOT_OFFERED);
    let line = d.wait_log("REFUSE service=web ");
    assert!(line.contains(" reason=offer "), "{line}");
}

#[test]
fn one_session_offers_64_services_and_one_user_256() {
    let rows: String = (0..257).map(|n| row(&format!("web{n}"), "alice bob", "")).collect();
    let d = daemon(&rows);
    let all = |user, names: std::ops::Range<i32>| {
        let mut c = Computer::of(&d, user);
        for n in names {
            let id = c.ask(format!("OFFER\r\nweb{n}\r\n"));
            c.hears(id, format!("+ Success\r\nOffering web{n}\r\n"));
        }
        c
    };
    let mut first = all("alice", 0..64);
    let id = first.ask("OFFER\r\nweb256\r\n");
    first.hears(id, NOT_OFFERED);
    let _more = [1, 2, 3].map(|n| all("alice", n * 64..n * 64 + 64));
    let mut fifth = Computer::of(&d, "alice");
    let id = fifth.ask("OFFER\r\nweb256\r\n");
    fifth.hears(id, NOT_OFFERED);
    // Others have their own.
    all("bob", 256..257);
    // One that has ended makes room.
    first.raw.frame(WINDOW, FIN, 1, 0);
    d.wait_log("WITHDRAW service=web0 ");
    let id = fifth.ask("OFFER\r\nweb256\r\n");
    fifth.hears(id, "+ Success\r\nOffering web256\r\n");
}

#[test]
fn run_of_an_offered_service_ends_with_0() {
    let d = daemon(&row("web", "alice", ""));
    let mut a = Computer::offering(&d, "alice", "web");
    let asked = [b"RUN\r\nweb\r\n", &[0, 0, 0, 1, b'x', 1, 0, 0, 0][..]].concat();
    let records = [0, 0, 0, 3, b'b', b'y', b'e', 1, 0, 0, 0, 3, 0, 0, 4, 0, 0, 0, 0];
    let answer = [b"+ Success\r\n+Go\r\n", &records[..]].concat();
    let mut serves = || {
        let id = a.serves("");
        a.hears(id, "x");
        a.raw.until(WINDOW, FIN, id);
        a.raw.data(FIN, id, "bye");
    };
    let mut c = d.connect();
    c.send(&asked);
    serves();
    same(c.read_all(), &answer);
    let mut m = d.connect();
    m.send("MULTIPLEX\r\n").expect("+ Success\r\n");
    let m = Mux::new(m.0);
    let mut s = m.ask(&asked);
    serves();
    same(s.read_all(), &answer);
}

#[test]
fn those_who_offer_take_turns() {
    let d = daemon(&row("web", "alice bob", " connect_timeout = 5\n"));
    same(d.ask("web\r\n"), FAILED);
    let mut one = Computer::offering(&d, "alice", "web");
    let mut two = Computer::offering(&d, "bob", "web");
    let mut clients = Vec::new();
    for _ in 0..2 {
        for computer in [&mut one, &mut two] {
            let mut c = d.connect();
            c.send("web\r\n");
            let id = computer.serves("hi");
            c.expect(GO).expect("hi");
            clients.push((c, id));
        }
    }
    // One refuses: the other is asked, and is asked first for a while.
    let mut c = d.connect();
    c.send("web\r\n");
    let (id, _) = one.client();
    one.raw.frame(WINDOW, RST, id, 0);
    let id = two.serves("two");
    c.expect(GO).expect("two");
    clients.push((c, id));
    let mut c = d.connect();
    c.send("web\r\n");
    let id = two.serves("two");
    c.expect(GO).expect("two");
    clients.push((c, id));
    // Both refuse, one of them by saying nothing; what it says later is nobody's.
    let mut c = d.connect();
    c.send("web\r\n");
    let (late, _) = two.client();
    two.raw.until(WINDOW, RST, late);
    let (id, _) = one.client();
    one.raw.frame(WINDOW, RST, id, 0);
    same(c.read_all(), FAILED);
    two.raw.data(ACK, late, "late");
    let line = d.wait_log("REFUSE service=web host= from=127.0.0.1 reason=failed session=");
    let line = d.wait_logs("REFUSE service=web ", 2).pop().unwrap_or(line);
    assert!(line.contains("no answer in time") && line.contains("refused"), "{line}");
    // One ends its offer: its clients go on to their end, and the other has all that come.
    one.raw.frame(WINDOW, FIN, 1, 0);
    d.wait_log("WITHDRAW service=web ");
    for (c, id) in &mut clients[..1] {
        one.raw.data(0, *id, "still");
        c.expect("still").send("here");
        one.hears(*id, "here");
    }
    for _ in 0..2 {
        let mut c = d.connect();
        c.send("web\r\n");
        two.serves("two");
        c.expect(GO).expect("two");
    }
    // Its session ends while a client waits for it, and with it those that are served.
    let mut c = d.connect();
    c.send("web\r\n");
    two.client();
    drop(two);
    same(c.read_all(), FAILED);
    let (served, _) = &mut clients[1];
    assert!(served.read_any().is_empty());
    d.wait_logs("EXIT service=web ", 5);
}

/// Not by its sessions, of which it has as many as it likes.
#[test]
fn a_user_who_does_not_answer_holds_up_few_clients_and_not_for_long() {
    use std::time::{Duration, Instant};
    let (timeout, last_for) = (Duration::from_secs(3), Duration::from_secs(5));
    let d = daemon(&row("web", "alice bob", " connect_timeout = 3\n"));
    let silent: Vec<_> = (0..5).map(|_| Computer::offering(&d, "bob", "web")).collect();
    silent.iter().for_each(|c| c.raw.0.set_nonblocking(true).expect("nonblocking"));
    // How many clients his sessions were told of; none of them reads it.
    let asked = || -> usize {
        let of = |c: &Computer| {
            let mut bytes = [0; 4096];
            let n = c.raw.0.peek(&mut bytes).unwrap_or_default();
            String::from_utf8_lossy(&bytes[..n]).matches("web 127.0.0.1 ").count()
        };
        silent.iter().map(of).sum()
    };
    // Nobody else offers it: a client does not wait for all of them.
    let began = Instant::now();
    same(d.ask("web\r\n"), FAILED);
    assert!(began.elapsed() > 2 * timeout, "{:?}", began.elapsed());
    let line = d.wait_log("REFUSE service=web ");
    assert_eq!(line.matches("no answer in time").count(), 3, "{line}");
    assert!(line.ends_with("; no time is left for others"), "{line}");
    assert_eq!(asked(), 3);
    let mut alice = Computer::offering(&d, "alice", "web");
    std::thread::spawn(move || {
        while let Ok(Some(frame)) = alice.raw.try_next() {
            if (frame.kind, frame.flags) == (WINDOW, SYN) {
                alice.raw.frame(WINDOW, ACK, frame.stream, 0).data(FIN, frame.stream, "hi");
            }
        }
    });
    let client = || {
        let mut c = d.connect();
        c.send("web\r\n");
        c
    };
    let served = |c: &mut Client| same(c.read_all(), "+Go\r\nhi");
    // He has been asked last for a while since then, which may be over on a slow machine.
    for _ in 0..4 {
        served(&mut client());
        assert!(asked() == 3 || began.elapsed() > 3 * timeout + last_for, "{}", d.log());
    }
    std::thread::sleep(last_for);
    // One waits for him now, the others do not, and it does not wait for his other sessions.
    let (before, mut first) = (asked(), client());
    until("he is asked", || asked() > before);
    for _ in 0..4 {
        served(&mut client());
        assert!(asked() == before + 1 || !first.silent(1), "{}", d.log());
    }
    let before = asked();
    served(&mut first);
    assert_eq!(asked(), before, "{}", d.log());
}

#[test]
fn the_rules_and_limits_of_the_row_hold() {
    let rows = row("one", "alice", " instances = 1\n")
        + &row("far", "alice", " only_from = 192.0.2.1\n")
        + &row("short", "alice", " server_timeout = 3\n")
        + &row("in", "alice", " users = bob\n banner = @DIR@/banner\n");
    let users = passwords(&["alice", "bob"]);
    let d = Daemon::with(&format!("passwords = @DIR@/passwd\nmax_streams = 3\n{rows}"))
        .file("passwd", &users)
        .file("banner", "hello\n")
        .start();
    let mut a = Computer::of(&d, "alice");
    for name in ["one", "short", "in"] {
        let id = a.ask(format!("OFFER\r\n{name}\r\n"));
        a.hears(id, format!("+ Success\r\nOffering {name}\r\n"));
    }
    let mut first = d.connect();
    first.send("one\r\n");
    // It counts while it waits, and then.
    let (id, _) = a.client();
    same(d.ask("one\r\n"), BUSY);
    a.raw.frame(WINDOW, ACK, id, 0);
    first.expect(GO);
    same(d.ask("one\r\n"), BUSY);
    same(d.ask("far\r\n"), NOT_AVAILABLE);
    same(d.ask("in\r\n"), NOT_AVAILABLE);
    let mut c = d.connect();
    c.send("AUTH\r\nbob\r\ndemopass\r\nin\r\n");
    c.expect("+ Success\r\nEnter Username: Enter Password: Authentication as bob successful\r\n");
    let inside = a.serves("hi");
    c.expect(GO).expect("hello\nhi");
    // As many streams of the server's as of the client's, and no more.
    let mut short = d.connect_from("127.0.0.2");
    short.send("short\r\n");
    let third = a.serves("hi");
    short.expect(GO).expect("hi");
    same(d.connect_from("127.0.0.3").send("short\r\n").read_all(), BUSY);
    assert!(d.wait_log("REFUSE service=short ").contains(" reason=max_streams "));
    // A time limit of the row.
    short.end();
    a.raw.until(WINDOW, FIN, third);
    a.raw.frame(WINDOW, FIN, third, 0);
    d.wait_log("EXIT service=short ");
    // A reset is passed on, either way.
    a.raw.frame(WINDOW, RST, inside, 0);
    assert!(c.0.read(&mut [0]).is_err());
    reset(&first.0);
    a.raw.until(WINDOW, RST, id);
    let mut again = d.connect();
    again.send("one\r\n");
    a.serves("again");
    again.expect(GO).expect("again");
}

/// Of the streams of one session, for all services that it offers, a client that waits and one that
/// is served have one each. A source may have no more of them than are left.
#[test]
fn one_source_leaves_streams_to_others() {
    let rows = row("web", "alice", "") + &row("other", "alice", "");
    let d = daemon(&format!("max_streams = 4\n{rows}"));
    let mut a = Computer::offering(&d, "alice", "web");
    let id = a.ask("OFFER\r\nother\r\n");
    a.hears(id, "+ Success\r\nOffering other\r\n");
    let from = |n: u8, name: &str| {
        let mut c = d.connect_from(&format!("127.0.0.{n}"));
        c.send(format!("{name}\r\n"));
        c
    };
    let served = |a: &mut Computer, mut c: Client| {
        let id = a.serves("hi");
        c.expect(GO).expect("hi");
        (c, id)
    };
    let ended = |a: &mut Computer, (mut c, id): (Client, u32)| {
        c.half_close();
        a.raw.until(WINDOW, FIN, id);
        a.raw.data(FIN, id, "bye");
        same(c.read_all(), "bye");
    };
    let first = served(&mut a, from(2, "web"));
    let _waits = from(2, "other");
    a.client();
    for name in ["web", "other"] {
        same(from(2, name).read_all(), BUSY);
    }
    let mut m = from(2, "MULTIPLEX");
    m.expect("+ Success\r\n");
    let m = Mux::new(m.0);
    same(m.ask("web\r\n").read_all(), BUSY);
    let line = d.wait_log("REFUSE service=web host= from=127.0.0.2 reason=max_streams session=");
    let why = format!("session {}: too many of its clients are from this source", a.number);
    assert!(line.ends_with(&why), "{line}");
    let third = served(&mut a, from(3, "web"));
    same(from(3, "web").read_all(), BUSY);
    let _fourth = served(&mut a, from(4, "other"));
    same(from(5, "web").read_all(), BUSY);
    ended(&mut a, first);
    ended(&mut a, third);
    d.wait_logs("EXIT service=web ", 2);
    // One of a session counts as one of a connection.
    let mut s = m.ask("web\r\n");
    let id = a.serves("hi");
    s.expect(GO).expect("hi");
    same(from(2, "web").read_all(), BUSY);
    s.finish();
    a.raw.until(WINDOW, FIN, id);
    a.raw.data(FIN, id, "bye");
    same(s.read_all(), "bye");
    d.wait_logs("EXIT service=web ", 3);
    served(&mut a, from(2, "web"));
}

/// Its offers stand as long as their streams, but it takes nobody any more.
#[test]
fn who_has_sent_go_away_is_passed_over() {
    let d = daemon(&row("web", "alice bob", ""));
    let mut a = Computer::offering(&d, "alice", "web");
    a.raw.frame(GO_AWAY, 0, 0, 0);
    // It is read before what follows.
    a.raw.frame(PING, SYN, 0, 7);
    while a.raw.next().kind != PING {}
    same(d.ask("web\r\n"), FAILED);
    let mut b = Computer::offering(&d, "bob", "web");
    for _ in 0..2 {
        let mut c = d.connect();
        c.send("web\r\n");
        b.serves("hi");
        c.expect(GO).expect("hi");
    }
}

/// Neither before it is taken, when only the kernel knows of it, nor then.
#[test]
fn a_client_that_goes_away_while_it_waits_leaves_nothing() {
    let log = " log_on_success = EXIT TRAFFIC\n";
    let d = daemon(&row("web", "alice", &format!(" instances = 1\n connect_timeout = 60\n{log}")));
    let mut a = Computer::offering(&d, "alice", "web");
    for n in 1..4 {
        let mut c = d.connect();
        c.send("web\r\n");
        let (id, _) = a.client();
        same(d.ask("web\r\n"), BUSY);
        reset(&c.0);
        a.raw.frame(WINDOW, ACK, id, 0);
        a.raw.until(WINDOW, RST, id);
        let line = d.wait_logs("EXIT service=web ", n).pop().expect("a line");
        assert!(line.contains(" in=0 out=0"), "{line}");
    }
    let mut c = d.connect();
    c.send("web\r\n");
    a.serves("hi");
    c.expect(GO).expect("hi");
}

/// What the client of an offered service has; in a session it has one end of a pair of fived's.
enum Caller {
    Plain(Client),
    Tls(Box<Tls>),
    Stream(Raw<TcpStream>),
}

/// Which request, and how the client is connected.
const CALLERS: [(&str, &str); 6] = [
    ("web\r\n", "plain"),
    ("web\r\n", "tls"),
    ("web\r\n", "stream"),
    ("RUN\r\nweb\r\n", "plain"),
    ("RUN\r\nweb\r\n", "tls"),
    ("RUN\r\nweb\r\n", "stream"),
];

impl Caller {
    fn ask(d: &Daemon, (request, how): (&str, &str)) -> Caller {
        let mut c = d.connect();
        match how {
            "plain" => {
                c.send(request);
                Caller::Plain(c)
            }
            "tls" => {
                let mut t = Tls::start(c.0, "x.example");
                t.send(request.as_bytes());
                Caller::Tls(Box::new(t))
            }
            _ => {
                c.send("MULTIPLEX\r\n").expect("+ Success\r\n");
                let mut raw = Raw(c.0);
                raw.data(SYN, 1, request);
                Caller::Stream(raw)
            }
        }
    }

    fn expect(&mut self, wanted: &[u8]) {
        match self {
            Caller::Plain(c) => drop(c.expect(wanted)),
            Caller::Tls(t) => t.expect(wanted),
            Caller::Stream(raw) => {
                let mut got = Vec::new();
                while got.len() < wanted.len() {
                    let mut frame = raw.next();
                    assert_eq!(frame.flags & (FIN | RST), 0, "{frame:?}");
                    if frame.kind == DATA {
                        got.append(&mut frame.payload);
                    }
                }
                same(got, wanted);
            }
        }
    }

    /// What comes up to the end, which is to be none in order.
    #[track_caller]
    fn breaks(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        match self {
            Caller::Plain(c) => drop(c.0.read_to_end(&mut all).expect_err("a reset")),
            Caller::Tls(t) => drop(t.0.read_to_end(&mut all).expect_err("a truncation")),
            Caller::Stream(raw) => {
                let (bytes, flag) = raw.stream(1);
                assert_eq!(flag, RST);
                all = bytes;
            }
        }
        all
    }

    /// Leaves without an end in order.
    fn breaks_off(self) -> Option<Raw<TcpStream>> {
        match self {
            Caller::Plain(c) => reset(&c.0),
            Caller::Tls(t) => reset(&t.0.sock),
            Caller::Stream(mut raw) => {
                raw.frame(WINDOW, RST, 1, 0);
                return Some(raw);
            }
        }
        None
    }
}

/// However its client is connected, and whatever breaks: an end in order would be taken for one.
#[test]
fn a_break_is_passed_on_to_clients_in_sessions_too() {
    let d = daemon(&row("web", "alice", ""));
    for (n, caller) in CALLERS.into_iter().enumerate() {
        let (request, how) = caller;
        let greeting = if request.starts_with("RUN") { "+ Success\r\n+Go\r\n" } else { GO };
        let said = if request.starts_with("RUN") { "\0\0\0\x07partial" } else { "partial" };
        let said = [greeting, said].concat();
        // The stream of whoever offers it is reset, after bytes.
        let mut a = Computer::offering(&d, "alice", "web");
        let mut c = Caller::ask(&d, caller);
        let id = a.serves("partial");
        c.expect(said.as_bytes());
        a.raw.data(0, id, "more").frame(WINDOW, RST, id, 0);
        let rest = c.breaks();
        assert!(rest.ends_with(b"more"), "{request} {how}: {rest:?}");
        // Its session breaks off.
        let mut c = Caller::ask(&d, caller);
        a.serves("partial");
        c.expect(said.as_bytes());
        reset(&a.raw.0);
        assert!(c.breaks().is_empty(), "{request} {how}");
        // The client breaks off.
        d.wait_logs("WITHDRAW service=web ", 2 * n + 1);
        let mut a = Computer::offering(&d, "alice", "web");
        let mut c = Caller::ask(&d, caller);
        let id = a.serves("partial");
        c.expect(said.as_bytes());
        let session = c.breaks_off();
        let (_, flag) = a.raw.stream(id);
        assert_eq!(flag, RST, "{request} {how}");
        drop((a, session));
        d.wait_logs("WITHDRAW service=web ", 2 * n + 2);
    }
}

#[test]
fn a_reload_leaves_offers_and_asks_again_who_may() {
    let first = row("web", "alice @daemon", "") + &row("old", "alice", "");
    let d = daemon(&first);
    let reload = |name: &str, web: &str| {
        let rows = row(name, "alice", "") + &row("web", web, "");
        d.reload(&format!("passwords = @DIR@/passwd\n{rows}"));
        until("the new table", || d.help().iter().any(|service| service == name));
    };
    let mut a = Computer::offering(&d, "alice", "web");
    let id = a.ask("OFFER\r\nold\r\n");
    a.hears(id, "+ Success\r\nOffering old\r\n");
    let mut b = Computer::offering(&d, "daemon", "web");
    let served = |name: &str, by: &mut Computer| {
        let mut c = d.connect();
        c.send(format!("{name}\r\n"));
        by.serves("hi");
        c.expect(GO).expect("hi");
    };
    // In another place of the table, and of one group that nobody knew before.
    reload("new", "alice @daemon");
    served("web", &mut a);
    served("web", &mut b);
    served("web", &mut a);
    same(d.ask("old\r\n"), NOT_AVAILABLE);
    same(d.ask("new\r\n"), FAILED);
    reload("newer", "@daemon");
    served("web", &mut b);
    served("web", &mut b);
    reload("newest", "alice daemon !@adm");
    same(d.ask("web\r\n"), FAILED);
    // Neither of them was asked.
    let lines = d.wait_logs("REFUSE service=web ", 1);
    assert!(lines[0].ends_with(" nobody offers it"), "{lines:?}");
}

#[test]
fn a_session_that_ends_while_it_offers_ends_nothing_else() {
    let d = daemon(&row("web", "alice", ""));
    let net = d.net_pid();
    for n in 0..24 {
        let mut a = Computer::of(&d, "alice");
        a.ask("OFFER\r\nweb\r\n");
        if n % 3 == 1 {
            // Its stream ends first.
            a.raw.frame(WINDOW, RST, 1, 0);
        } else if n % 3 == 2 {
            a.raw.until(DATA, 0, 1);
        }
    }
    d.wait_logs("END session=", 24);
    until("no offer is left", || {
        let log = d.log();
        log.matches("OFFER service=web ").count() == log.matches("WITHDRAW service=web ").count()
    });
    same(d.ask("web\r\n"), FAILED);
    assert_eq!(d.net_pid(), net);
}

/// hashicorp/yamux itself is the client whose computer serves: each client's bytes come back.
#[test]
fn hashicorp_yamux_takes_clients() {
    let sources = "/usr/share/gocode";
    let library = std::path::Path::new(sources).join("src/github.com/hashicorp/yamux");
    if !(installed("go") && library.exists()) {
        return skip("go or golang-github-hashicorp-yamux-dev is not installed");
    }
    let d = daemon(&row("web", "alice", ""));
    let dir = d.place.path.display();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/yamux_offer.go");
    let build = format!(
        "GO111MODULE=off GOPATH={sources} GOCACHE={dir}/cache go build -o {dir}/offer {source}"
    );
    assert!(Command::new("sh").args(["-c", &build]).status().expect("sh").success());
    let address = d.address().to_string();
    let login = ["alice", "demopass", "web"];
    let mut computer = Command::new(format!("{dir}/offer"))
        .arg(address)
        .args(login)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    d.wait_log("OFFER service=web ");
    let echoed = |size: usize| {
        let mut c = d.connect();
        c.send("web\r\n").expect(GO);
        let bytes: Vec<u8> = (0..size).map(|i| ((i * i) >> 3) as u8).collect();
        let (mut writer, whole) = (c.0.try_clone().expect("a copy"), bytes.clone());
        let writes = std::thread::spawn(move || {
            writer.write_all(&whole).expect("write");
            writer.shutdown(std::net::Shutdown::Write).expect("half-close");
        });
        let (head, back) = c
            .read_all()
            .split_at_checked(12)
            .map(|(a, b)| (a.to_vec(), b.to_vec()))
            .expect("bytes");
        same(head, "hello nobody");
        assert!(back == bytes, "{} of {size} bytes", back.len());
        writes.join().expect("written");
    };
    std::thread::scope(|s| {
        for n in 0..20 {
            let echoed = &echoed;
            s.spawn(move || echoed(n * 50_000));
        }
    });
    echoed(10_000_000);
    drop(computer.stdin.take());
    let out = computer.wait_with_output().expect("its end");
    assert_eq!(String::from_utf8_lossy(&out.stdout), "ok\n");
    d.wait_log("WITHDRAW service=web ");
}

/// The crate acknowledges a stream with the first bytes that are written to it.
#[test]
fn the_yamux_crate_takes_clients() {
    let d = daemon(&row("web", "alice", ""));
    let mut c = d.connect();
    c.send("AUTH\r\nalice\r\ndemopass\r\nMULTIPLEX\r\n");
    c.expect("+ Success\r\nEnter Username: Enter Password: ");
    c.expect("Authentication as alice successful\r\n+ Success\r\n");
    let (computer, inbound) = Mux::accepting(c.0);
    let mut offer = computer.ask("OFFER\r\nweb\r\n");
    offer.expect(OFFERS);
    for n in 0..3 {
        let mut c = d.connect();
        c.send("web\r\nhello");
        let mut s = inbound.recv_timeout(TIMEOUT).expect("a stream");
        s.expect("web 127.0.0.1 ");
        s.write_all(format!("number {n}").as_bytes()).expect("write");
        c.expect(format!("{GO}number {n}")).half_close();
        assert!(s.read_all().ends_with(b" -\r\nhello"));
        s.write_all(b" bye").expect("write");
        s.finish();
        same(c.read_all(), " bye");
    }
    assert!(!computer.ended());
    offer.finish();
    d.wait_log("WITHDRAW service=web ");
}

#[test]
fn mistakes_are_told() {
    let place = Place::new();
    for (row, wanted) in [
        ("web stream tcp nowait - offer\n", "offered_by: expected the users who may offer"),
        (
            "web stream tcp nowait nobody offer\n",
            "nobody: expected `-`, because an offered service",
        ),
        ("web stream tcp nowait - offer now\n", "offer: expected nothing after it, found \"now\""),
        ("web stream tcp nowait - /bin/cat\n", "-: expected a user"),
        ("OFFER stream tcp nowait nobody /bin/cat\n", "OFFER: expected a service's own name"),
        (
            "web stream tcp nowait - offer\n offered_by = a\n proxy = v2\n",
            "proxy: expected a row of `redirect`, which alone has upstreams, found v2",
        ),
        (
            "web stream tcp nowait @USER@ /bin/cat\n offered_by = alice\n",
            "offered_by: expected a row of `offer`, which alone others offer, found alice",
        ),
        (
            "web stream tcp nowait - offer\n offered_by = a\n deny_time = 5\n",
            "deny_time: expected a row of `internal sensor`, which alone denies, found 5",
        ),
    ] {
        let row = &row.replace("@USER@", &user());
        let conf = place.write("fived.conf", row, 0o644);
        let (code, _, output) = run(&["-t", "-f", &conf]);
        assert!(code == 1 && output.contains(wanted), "{row}: {output}");
    }
    let conf = place.write("fived.conf", &row("web", "alice @staff", ""), 0o644);
    let (code, printed, output) = run(&["-T", "-f", &conf]);
    assert!(code == 0, "{output}");
    assert!(printed.contains("\nweb stream tcp nowait - offer\n"), "{printed}");
    assert!(printed.contains("\toffered_by = alice @staff\n"), "{printed}");
}

/// Of one that was in a session, too, whose connection nobody but fived has.
#[test]
fn a_client_that_has_gone_has_no_stream() {
    let d = daemon(&format!("max_streams = 4\n{}", row("web", "alice", "")));
    let mut a = Computer::offering(&d, "alice", "web");
    for how in [RST, FIN] {
        for n in 0..8 {
            let mut c = d.connect_from("127.0.0.2");
            c.send("MULTIPLEX\r\n").expect("+ Success\r\n");
            let mut c = Raw(c.0);
            c.data(SYN, 1, "web\r\nhello");
            let id = a.serves("hi");
            while !c.until(DATA, 0, 1).payload.ends_with(b"hi") {}
            c.frame(WINDOW, how, 1, 0);
            if how == FIN {
                a.raw.until(WINDOW, FIN, id);
                c.frame(WINDOW, RST, 1, 0);
            }
            d.wait_logs("EXIT service=web ", n + 1);
        }
        let mut c = d.connect_from("127.0.0.3");
        c.send("web\r\n");
        a.serves("hi");
        c.expect(GO).expect("hi");
    }
}

/// For RUN it is no end in order: nobody learns that the service has ended with 0.
#[test]
fn who_is_served_by_run_is_told_no_status_when_the_time_is_over() {
    let rows = row("short", "alice", " server_timeout = 1\n");
    let d = Daemon::with(&format!("passwords = @DIR@/passwd\n{rows}"))
        .file("passwd", &passwords(&["alice"]))
        .start();
    let mut a = Computer::of(&d, "alice");
    let id = a.ask("OFFER\r\nshort\r\n");
    a.hears(id, "+ Success\r\nOffering short\r\n");
    let mut c = d.connect();
    c.send("RUN\r\nshort\r\n");
    a.serves("hi");
    let mut all = Vec::new();
    let _ = c.0.read_to_end(&mut all);
    // The output, perhaps its end, and no record of a status.
    let ended = all.strip_suffix(b"\x01\0\0\0").unwrap_or(&all);
    same(ended, "+ Success\r\n+Go\r\n\0\0\0\u{2}hi");
    assert!(d.wait_log("EXIT service=short ").contains(" reason=server_timeout "));
}
