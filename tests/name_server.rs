//! A name server that answers at first and then no more: what fived serves meanwhile, that a reload
//! ends all the same, and that the addresses of names stay.

mod support;
#[path = "support/upstream.rs"]
mod upstream;

use nix::sys::signal::Signal;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use support::*;

/// Answers for all names that it knows, each at an address of its own, until it is silenced. From
/// then on it takes the questions and answers none, like a server whose packets are dropped.
struct NameServer {
    at: String,
    silent: Arc<AtomicBool>,
    /// What it was asked since then.
    asked: Arc<Mutex<Vec<String>>>,
}

impl NameServer {
    /// `n`: the last number of its own address; `known`: names and those of theirs, `127.0.0.N`.
    fn new(n: u8, known: &'static [(&'static str, u8)]) -> NameServer {
        let at = format!("{}.{n}", own_network());
        let socket = UdpSocket::bind((&*at, 53)).expect("the name server's port");
        let (silent, asked) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Vec<String>>>::default());
        let (quiet, questions) = (silent.clone(), asked.clone());
        std::thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((n, from)) = socket.recv_from(&mut query) {
                let Some((name, end)) = question(&query[..n]) else { continue };
                if quiet.load(Ordering::SeqCst) {
                    questions.lock().expect("questions").push(name);
                } else {
                    let _ = socket.send_to(&answer(&query[..end], &name, known), from);
                }
            }
        });
        NameServer { at, silent, asked }
    }

    fn silence(&self) {
        self.silent.store(true, Ordering::SeqCst);
    }

    /// Waits until it has been asked for this name since it is silent.
    fn wait_asked(&self, name: &str) {
        until(name, || self.asked.lock().expect("questions").iter().any(|n| n == name));
    }

    fn was_asked(&self, name: &str) -> bool {
        self.asked.lock().expect("questions").iter().any(|n| n == name)
    }

    /// A fived that asks this name server and nobody else.
    fn serve(&self, conf: &str) -> Builder {
        self.run(conf, "exec \"$0\" \"$@\"")
    }

    /// The same, started by this shell command.
    fn run(&self, conf: &str, command: &str) -> Builder {
        let mounts = "mount --bind @DIR@/resolv.conf /etc/resolv.conf && mount --bind @DIR@/nsswitch.conf /etc/nsswitch.conf";
        Daemon::with(conf)
            .file("resolv.conf", &format!("nameserver {}\n", self.at))
            .file("nsswitch.conf", "hosts: dns\n")
            .under(&["unshare", "-m", "sh", "-c", &format!("{mounts} && {command}")])
    }
}

/// The name that is asked for, and where the question ends.
fn question(query: &[u8]) -> Option<(String, usize)> {
    let (mut labels, mut at) = (Vec::new(), 12);
    loop {
        let n = usize::from(*query.get(at)?);
        at += 1;
        if n == 0 {
            return Some((labels.join("."), at + 4)).filter(|(_, end)| *end <= query.len());
        }
        labels.push(String::from_utf8_lossy(query.get(at..at + n)?).into_owned());
        at += n;
    }
}

/// The address of a name, or that there is no such name.
fn answer(query: &[u8], name: &str, known: &[(&str, u8)]) -> Vec<u8> {
    let found = known.iter().find(|(n, _)| *n == name);
    let is_ipv4 = query[query.len() - 3] == 1;
    let (rcode, answers) = match found {
        None => (3, 0),
        Some(_) => (0, u8::from(is_ipv4)),
    };
    let head = [query[0], query[1], 0x81, 0x80 | rcode, 0, 1, 0, answers, 0, 0, 0, 0];
    let mut out = [&head, &query[12..]].concat();
    if let Some((_, number)) = found.filter(|_| is_ipv4) {
        out.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, *number]);
    }
    out
}

fn possible() -> bool {
    let can = root() && installed("unshare");
    if !can {
        skip("needs root and unshare for a resolv.conf of its own");
    }
    can
}

/// A service of xinetd at the address of that name.
fn bound(name: &str) -> String {
    format!(
        "service {name}\n{{\n type = UNLISTED\n port = 0\n bind = {name}\n socket_type = stream\n wait = no\n user = @USER@\n server = /bin/echo\n server_args = this is {name}\n}}\n"
    )
}

fn says(at: SocketAddr) -> String {
    String::from_utf8_lossy(&Client::connect(at).read_all()).into_owned()
}

#[test]
fn a_reload_ends_and_the_names_of_bind_keep_their_addresses() {
    if !possible() {
        return;
    }
    let names = NameServer::new(61, &[("a.test", 61), ("b.test", 62)]);
    let rows = "xinetd = @DIR@/xinetd.conf\n\
        hello stream tcp nowait @USER@ /bin/echo echo hello\n\
        cat stream tcp nowait @USER@ /bin/cat cat\n";
    let d = names.serve(rows).file("xinetd.conf", &(bound("a.test") + &bound("b.test"))).start();
    let at = d.ports::<2>();
    assert_eq!(at.map(|a| a.ip().to_string()), ["127.0.0.61", "127.0.0.62"]);
    assert_eq!(at.map(says), ["this is a.test\n", "this is b.test\n"]);

    // Two that run: one on its own connection, and one that net relays.
    let mut plain = d.connect();
    plain.send("cat\r\n").expect(GO);
    names.silence();
    // More names than there is time for.
    let new: String = (0..20).map(|n| bound(&format!("new{n}.test"))).collect();
    d.place.write("xinetd.conf", &(bound("a.test") + &bound("b.test") + &new), 0o644);
    d.place.write(
        "fived.conf",
        &format!("state_directory = @DIR@/state\n{rows}later stream tcp nowait @USER@ /bin/echo echo later\n"),
        0o644,
    );
    d.signal(Signal::SIGHUP);
    names.wait_asked("a.test");
    // What runs goes on, and what net does alone is answered; whoever wants a service is served
    // when the configuration has been read.
    plain.send("still here\n").expect("still here\n");
    same(d.ask("HELP\r\n").first_chunk::<5>().expect("an answer"), "hello");
    let mut waits = d.connect();
    waits.send("hello\r\n");
    d.wait_log("RELOAD ");
    waits.expect("+Go\r\nhello\n").end();
    until("the new table is served", || d.ask("later\r\n") == b"+Go\r\nlater\n");
    plain.send("and now\n").expect("and now\n");

    // The names keep their addresses, and the log says of each why; new ones have none.
    assert_eq!(at.map(says), ["this is a.test\n", "this is b.test\n"]);
    for name in ["a.test", "b.test"] {
        let line = d.wait_log(&format!("WARN bind: {name}: no answer within "));
        assert!(line.ends_with(": fived keeps using its last addresses"), "{line}");
    }
    let lines = d.wait_logs("expected an address or the name of a host, found \"new", 20);
    assert!(lines.iter().all(|l| l.starts_with("WARN ") && l.contains(": bind: ")), "{lines:?}");
    // There was no time for all of them.
    assert!(lines[19].contains("no time was left to look it up"), "{lines:?}");
    assert!(!names.was_asked("new19.test"));

    // The addresses stay at the next reload, too.
    d.place.write("xinetd.conf", &(bound("a.test") + &bound("b.test")), 0o644);
    d.reload(rows);
    assert_eq!(at.map(says), ["this is a.test\n", "this is b.test\n"]);
    d.wait_logs("WARN bind: a.test: no answer within ", 2);
}

/// Rows that redirect, and rows with rules on names: a reload waits for neither.
#[test]
fn upstreams_keep_their_addresses_and_a_reload_does_not_wait_for_them() {
    if !possible() {
        return;
    }
    let web = upstream::at("127.0.0.63:0", "web");
    let names = NameServer::new(62, &[("up.test", 63)]);
    let rows = format!(
        "hello stream tcp nowait @USER@ /bin/echo echo hello\n\
         web stream tcp nowait @USER@ redirect up.test:{}\n",
        web.port()
    );
    let d = names.serve(&rows).start();
    let web_says = || d.connect().send("web\r\n").half_close().read_any();
    until("its address is known", || web_says().starts_with(b"+Go\r\nthis is web\n"));
    names.silence();
    let more = "new stream tcp nowait @USER@ redirect new.test:80\n\
        named stream tcp nowait @USER@ /bin/echo echo named\n only_from = .example.org\n";
    d.reload(&format!("{rows}{more}"));
    until("the new table is served", || d.ask("new\r\n") == FAILED.as_bytes());
    // The net process of the old table accepts nobody any more.
    d.net_pid();
    for name in ["up.test", "new.test"] {
        names.wait_asked(name);
    }
    // Whose name decides waits for it, and is answered although another reload comes.
    let mut waits = d.connect_from("127.0.0.64");
    waits.send("named\r\n");
    names.wait_asked("64.0.0.127.in-addr.arpa");
    same(d.ask("hello\r\n"), "+Go\r\nhello\n");
    assert!(web_says().starts_with(b"+Go\r\nthis is web\n"));
    d.reload(&format!("{rows}{more}"));
    waits.expect(NOT_AVAILABLE).end();
    d.wait_log("REFUSE service=named host= from=127.0.0.64 reason=address");
    // The log says which names it cannot find, and which it keeps.
    d.wait_log("WARN upstreams: up.test: no address found; fived keeps using its last ones");
    let line = d.wait_log("WARN upstreams: new.test: no address found");
    assert!(line.ends_with("found"), "{line}");
    assert!(web_says().starts_with(b"+Go\r\nthis is web\n"));
    same(d.ask("hello\r\n"), "+Go\r\nhello\n");
}

#[test]
fn fived_starts_without_a_name_server() {
    if !possible() {
        return;
    }
    let names = NameServer::new(63, &[("a.test", 65)]);
    names.silence();
    let rows = "xinetd = @DIR@/xinetd.conf\n\
        hello stream tcp nowait @USER@ /bin/echo echo hello\n\
        web stream tcp nowait @USER@ redirect up.test:80\n";
    let d = names.serve(rows).file("xinetd.conf", &bound("a.test")).start();
    let line = d.wait_log("found \"a.test\": no answer within 3 s");
    assert!(line.starts_with("WARN ") && line.contains("xinetd.conf:"), "{line}");
    same(d.ask("hello\r\n"), "+Go\r\nhello\n");
    same(d.ask("web\r\n"), FAILED);
    d.wait_log("WARN upstreams: up.test: no address found");
    // Later there is a server: the next reload finds it.
    names.silent.store(false, Ordering::SeqCst);
    d.reload(rows);
    assert_eq!(says(d.port(0)), "this is a.test\n");
}

/// An option of the program that fived replaces: where its rows listen.
#[test]
fn fived_says_in_time_that_the_host_of_an_option_has_no_address() {
    if !possible() {
        return;
    }
    let names = NameServer::new(64, &[("here.test", 66)]);
    names.silence();
    let command = "ln -s \"$0\" @DIR@/inetd && exec @DIR@/inetd -i -a here.test @DIR@/inetd.conf";
    let b = names.run("", command).file("inetd.conf", "0 stream tcp nowait @USER@ /bin/echo\n");
    let (code, err) = b.fails();
    assert!(code != 0 && err.contains("-a here.test: "), "{code} {err}");
    assert!(err.contains("a host's name: no answer within 3 s"), "{err}");
}

/// All of them are answered at once when the name has not come in time, and there are more than
/// the parent would hold for a net process that is slow to take them.
#[test]
fn a_crowd_that_waits_for_one_name_is_answered_as_net_can_take_it() {
    const CROWD: usize = 5000;
    if !possible() {
        return;
    }
    if !descriptors(10_000) {
        return skip("needs 10000 descriptors");
    }
    let names = NameServer::new(67, &[]);
    names.silence();
    let rows = "named stream tcp nowait @USER@ /bin/echo echo named\n only_from = .a.test\n";
    let d = names.serve(&format!("max_connections = 20000\n{rows}")).start();
    let net = d.net_pid();
    let mut session = d.connect();
    session.send("MULTIPLEX\r\n").expect("+ Success\r\n");
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        let mut c = d.connect();
        c.send("named\r\n");
        crowd.push(c);
    }
    for c in &mut crowd {
        same(c.read_all(), NOT_AVAILABLE);
    }
    assert!(session.silent(10), "its session stands");
    assert_eq!(d.net_pid(), net, "no other one was started");
}

/// Clients at ports of services' own wait in the parent, which has places for 256 of them.
#[test]
fn a_source_whose_name_is_slow_leaves_places_for_others() {
    if !possible() {
        return;
    }
    let names = NameServer::new(68, &[]);
    names.silence();
    let rows = "named stream tcp nowait @USER@ /bin/echo echo named\n only_from = .a.test\n port = 127.0.0.1:0\n";
    let d = names.serve(rows).start();
    let from = |n| connect_from(std::net::Ipv4Addr::new(127, 0, 0, n).into(), d.port(0));
    let _crowd: Vec<Client> = (0..300).map(|_| from(2)).collect();
    d.wait_log("REFUSE service=named host= from=127.0.0.2 reason=connections");
    from(3).end();
    d.wait_log("REFUSE service=named host= from=127.0.0.3 reason=address");
}
