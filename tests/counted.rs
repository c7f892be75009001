//! Bytes to services and from them: `EXIT`, `status` and `metrics` count the same in every way in
//! which fived relays a service: all that the service reads and writes, its standard error too, and
//! nothing that fived says itself.

mod support;
#[path = "support/tls.rs"]
mod tls;
#[path = "support/upstream.rs"]
mod upstream;
#[path = "support/yamux_client.rs"]
mod yamux_client;

use std::io::{BufRead, BufReader, Read, Write};
use support::*;
use tls::Tls;
use yamux_client::Client as Mux;

const CONF: &str = "
passwords = @DIR@/passwd
log_on_success = EXIT TRAFFIC
cps = UNLIMITED
status stream tcp nowait @USER@ internal
cat    stream tcp nowait @USER@ /bin/cat cat
 tls_port = 127.0.0.1:0
reply  stream tcp nowait @USER@ /bin/cat cat
 reply = Welcome to a longer reply
silent stream tcp nowait @USER@ /bin/cat cat
 reply =
banner stream tcp nowait @USER@ /bin/cat cat
 banner = @DIR@/banner
 banner_success = @DIR@/long
 tls_port = 127.0.0.1:0
pair   stream tcp nowait @USER@ /bin/cat cat
 socket = unix
tcpmux/own stream tcp nowait @USER@ /bin/sh sh -c 'printf \"+own\\r\\n\"; exec cat'
errors stream tcp nowait @USER@ /bin/sh sh -c 'cat; echo wrong >&2'
little stream tcp nowait @USER@ /usr/bin/printf printf abc
there  stream tcp nowait @USER@ redirect @THERE@
mine   stream tcp nowait - offer
 offered_by = alice
";
const WORDS: &str = "twelve bytes";

/// What that service reads and writes of [`WORDS`].
fn carries(name: &str) -> [u64; 2] {
    match name {
        "own" => [12, 12 + 6],
        "errors" => [12, 12 + 6],
        "little" => [0, 3],
        "mine" => [12, 3 + 12],
        _ => [12, 12],
    }
}

/// A connection, or a stream, whatever is below it.
enum Way {
    Plain(Client),
    Tls(Box<Tls>),
    Stream(yamux_client::Stream),
}

impl Way {
    /// Asks for a service, has it read all, and reads to the end.
    fn ask(mut self, name: Option<&str>, run: bool) {
        let words = if name == Some("little") { "" } else { WORDS };
        let n = words.len() as u8;
        let input = match run {
            true => [&[0, 0, 0, n][..], words.as_bytes(), &[1, 0, 0, 0]].concat(),
            false => words.as_bytes().to_vec(),
        };
        let name = name.map_or(String::new(), |name| format!("{name}\r\n"));
        let request = [if run { b"RUN\r\n" } else { &b""[..] }, name.as_bytes(), &input].concat();
        let said = match &mut self {
            Way::Plain(c) => c.send(&request).half_close().read_all(),
            Way::Tls(t) => {
                t.send(&request);
                t.half_close();
                t.read_all()
            }
            Way::Stream(s) => {
                s.write_all(&request).expect("request");
                s.finish().read_all()
            }
        };
        let wanted = if words.is_empty() { "abc" } else { words };
        assert!(String::from_utf8_lossy(&said).contains(wanted), "{name}: {said:?}");
    }
}

fn tls(d: &Daemon) -> Tls {
    Tls::start(d.connect().0, "nobody.example")
}

fn multiplexed(d: &Daemon, encrypted: bool) -> Mux {
    if !encrypted {
        return Mux::new(d.connect().multiplex());
    }
    let mut t = tls(d);
    t.send(b"MULTIPLEX\r\n");
    t.expect(b"+ Success\r\n");
    Mux::new(t.0)
}

/// Bytes to services and from them, until now.
fn relayed(d: &Daemon) -> [u64; 2] {
    let status = String::from_utf8(d.ask("status\r\n")).expect("UTF-8");
    ["bytes_in=", "bytes_out="].map(|name| {
        let line = status.lines().find_map(|l| l.strip_prefix(name)).expect("a line");
        line.parse::<u64>().expect("a number")
    })
}

/// What was counted so far.
struct Counts<'a> {
    daemon: &'a Daemon,
    relayed: [u64; 2],
    /// Services that have ended, each as often as it did.
    ended: Vec<String>,
    wrong: Vec<String>,
}

impl Counts<'_> {
    /// One more service has ended. `logs`: what it carried is logged, too.
    fn check(&mut self, way: &str, name: &str, logs: bool) {
        self.ended.push(name.into());
        let n = self.ended.iter().filter(|ended| *ended == name).count();
        let lines = self.daemon.wait_logs(&format!("EXIT service={name} "), n);
        let (line, [to, from]) = (&lines[n - 1], carries(name));
        let now = relayed(self.daemon);
        let more = [0, 1].map(|i| now[i] - self.relayed[i]);
        self.relayed = now;
        let logged = !logs || line.contains(&format!(" in={to} out={from} "));
        if !logged || more != [to, from] {
            self.wrong.push(format!("{way}, {name}: {more:?} are counted, and logged: {line}"));
        }
    }
}

/// Says back what its clients say.
fn serve_offers(clients: std::sync::mpsc::Receiver<yamux_client::Stream>) {
    for client in clients {
        std::thread::spawn(move || {
            let (from, mut to) = client.both();
            let (mut from, mut line) = (BufReader::new(from), String::new());
            from.read_line(&mut line).expect("who it is");
            // Not before it is written to, a stream is taken.
            to.write_all(b"hi ").expect("said");
            let mut all = Vec::new();
            from.read_to_end(&mut all).expect("all of it");
            to.write_all(&all).expect("said");
            to.finish();
        });
    }
}

#[test]
fn what_a_service_carries_is_counted_alike_in_every_way() {
    let there = upstream::echo();
    let d = Daemon::with(&CONF.replace("@THERE@", &there.to_string()))
        .file("passwd", &passwords(&["alice"]))
        .file("banner", "Good day.\n")
        .file("long", &"All of this is a banner. ".repeat(200))
        .start();
    let mut c = d.connect();
    c.send("AUTH\r\nalice\r\ndemopass\r\nMULTIPLEX\r\n");
    c.expect("+ Success\r\nEnter Username: Enter Password: ");
    c.expect("Authentication as alice successful\r\n+ Success\r\n");
    let (computer, clients) = Mux::accepting(c.0);
    std::thread::spawn(move || serve_offers(clients));
    let mut offer = computer.ask("OFFER\r\nmine\r\n");
    offer.expect("+ Success\r\nOffering mine\r\n");

    let mut counts = Counts { daemon: &d, relayed: [0; 2], ended: Vec::new(), wrong: Vec::new() };
    let muxes = [false, true].map(|encrypted| multiplexed(&d, encrypted));
    for name in
        ["cat", "reply", "silent", "banner", "pair", "own", "errors", "little", "there", "mine"]
    {
        let relays = matches!(name, "there" | "mine");
        for run in [false, true] {
            let mut ask = |what: &str, way: Way, logs: bool| {
                way.ask(Some(name), run);
                counts.check(&format!("{what}{}", if run { ", RUN" } else { "" }), name, logs);
            };
            // Without RUN a program has a plain client's own socket, of which nothing is counted.
            if run || relays {
                ask("plain", Way::Plain(d.connect()), true);
            }
            ask("TLS", Way::Tls(tls(&d).into()), true);
            for (mux, what) in muxes.iter().zip(["a stream", "a stream in TLS"]) {
                ask(what, Way::Stream(mux.open()), true);
                let mut branch = mux.ask("HOST\r\n\r\n");
                branch.expect("+ Success\r\nWhich VHOST? ");
                let mut byte = [0];
                while byte != *b"\n" {
                    branch.read_exact(&mut byte).expect("a host");
                }
                // Of a program that a thread of the stream got, nobody logs what it carried.
                ask(&format!("{what} with a host"), Way::Stream(branch), relays);
            }
        }
    }
    for (n, name) in ["cat", "banner"].into_iter().enumerate() {
        let at = Client::connect(d.port(n)).0;
        Way::Tls(Tls::start(at, "nobody.example").into()).ask(None, false);
        counts.check("at a port of its own", name, true);
    }
    assert!(counts.wrong.is_empty(), "{:#?}", counts.wrong);
}
