//! All of it at once: a hundred streams of a MULTIPLEX session inside TLS, after AUTH and HOST, to
//! a hundred services, under reloads, with a stream among them that stands still.

mod support;
#[path = "support/tls.rs"]
mod tls;
#[path = "support/yamux_raw.rs"]
mod yamux_raw;

use ring::digest::{Context, SHA256, digest};
use std::collections::BTreeMap;
use support::*;
use tls::Tls;
use yamux_raw::{DATA, FIN, GO_AWAY, RST, Raw, SYN, WINDOW};

const SERVICES: u32 = 100;
/// What every stream is sent in all: rounds of a piece for each, within its first window.
const ROUNDS: u32 = 40;
const PIECE: usize = 2000;
const INITIAL_WINDOW: usize = 256 * 1024;

/// Bytes that no other stream and no other round has.
fn piece(stream: u32, round: u32, n: usize) -> Vec<u8> {
    let seed = stream.wrapping_mul(1_000_003).wrapping_add(round).wrapping_mul(2_654_435_761) | 1;
    let mut x = seed;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        x as u8
    };
    (0..n).map(|_| next()).collect()
}

/// What a stream has said.
#[derive(Default)]
struct Heard {
    line: Vec<u8>,
    bytes: usize,
    hash: Option<Context>,
    over: bool,
}

impl Heard {
    /// The service's first two lines, and then what comes back.
    fn take(&mut self, mut payload: &[u8]) {
        while self.line.iter().filter(|b| **b == b'\n').count() < 2 {
            let Some((first, rest)) = payload.split_first() else { return };
            self.line.push(*first);
            payload = rest;
        }
        self.bytes += payload.len();
        self.hash.get_or_insert_with(|| Context::new(&SHA256)).update(payload);
    }
}

#[test]
fn a_hundred_streams_to_a_hundred_services_under_reload() {
    let script = "echo $FIVED_SERVICE host=$FIVED_HOST user=$FIVED_USER,$FIVED_AUTH tls=$SSL_PROTOCOL,$SSL_TLS_SNI_SERVERNAME; exec cat";
    let rows: Vec<String> = (0..SERVICES)
        .map(|i| {
            format!(
                "s{i} stream tcp nowait @USER@ /bin/sh sh -c '{script}'\n require = tls login\n"
            )
        })
        .collect();
    let conf = format!(
        "passwords = @DIR@/passwd\n[x.example]\nstalled stream tcp nowait @USER@ /bin/sh sh -c 'echo more than the window; exec cat'\n{}",
        rows.concat()
    );
    let d = Daemon::with(&conf).file("passwd", &passwords(&["demo"])).start();

    let mut c = d.connect();
    c.send("SSL\r\n").expect("+ Success\r\n");
    let mut c = Tls::start(c.0, "other.example");
    c.send(b"AUTH\r\ndemo\r\ndemopass\r\nHOST\r\nX.Example\r\nMULTIPLEX\r\n");
    c.expect(b"+ Success\r\nEnter Username: Enter Password: Authentication as demo successful\r\n");
    c.expect(b"+ Success\r\nWhich VHOST? Host x.example selected\r\n+ Success\r\n");
    let mut r = Raw(c.0);

    // Its service says as much as the client takes, and then nothing until the client takes more.
    let stalled = 2 * SERVICES + 1;
    let held = piece(stalled, 0, INITIAL_WINDOW - "stalled\r\n".len());
    r.data(SYN, stalled, "stalled\r\n").data(0, stalled, &held);
    let mut heard = BTreeMap::<u32, Heard>::new();
    let mut stood_still = Vec::new();
    let mut gone_away = 0;
    let listen = |r: &mut Raw<_>,
                  heard: &mut BTreeMap<u32, Heard>,
                  stood_still: &mut Vec<u8>,
                  gone_away: &mut u32| {
        let f = r.next();
        assert!(f.flags & RST == 0, "{f:?}");
        match (f.kind, f.stream) {
            (GO_AWAY, _) => {
                assert_eq!(f.length, 0);
                *gone_away += 1;
            }
            (DATA, s) if s == stalled => stood_still.extend(f.payload),
            (DATA | WINDOW, s) => {
                let stream = heard.entry(s).or_default();
                stream.take(&f.payload);
                stream.over |= f.flags & FIN != 0;
            }
            _ => {}
        }
    };
    for i in 0..SERVICES {
        r.data(SYN, 2 * i + 1, format!("s{i}\r\n"));
    }
    for round in 0..ROUNDS {
        if round % 15 == 10 {
            d.reload(&conf);
        }
        while round == 20 && gone_away == 0 {
            listen(&mut r, &mut heard, &mut stood_still, &mut gone_away);
        }
        for i in 0..SERVICES {
            r.data(0, 2 * i + 1, piece(i, round, PIECE));
        }
        let wanted = (round as usize + 1) * PIECE;
        while heard.len() <= SERVICES as usize
            && (0..SERVICES).any(|i| heard.get(&(2 * i + 1)).is_none_or(|h| h.bytes < wanted))
        {
            listen(&mut r, &mut heard, &mut stood_still, &mut gone_away);
        }
    }
    assert_eq!(gone_away, 1);
    // Nothing of the streams that went on waited for the one that did not; and nothing of that one
    // is lost.
    assert_eq!(stood_still.len(), INITIAL_WINDOW);
    r.frame(WINDOW, 0, stalled, 1000);
    let all = [b"+Go\r\nmore than the window\n", &held[..]].concat();
    while stood_still.len() < all.len() {
        listen(&mut r, &mut heard, &mut stood_still, &mut gone_away);
    }
    assert_eq!(digest(&SHA256, &stood_still).as_ref(), digest(&SHA256, &all).as_ref());

    for i in 0..=SERVICES {
        r.frame(WINDOW, FIN, 2 * i + 1, 0);
    }
    heard.remove(&stalled);
    while heard.values().any(|h| !h.over) || heard.len() < SERVICES as usize {
        listen(&mut r, &mut heard, &mut stood_still, &mut gone_away);
    }
    heard.remove(&stalled);
    for i in 0..SERVICES {
        let h = heard.remove(&(2 * i + 1)).expect("a stream");
        same(
            h.line,
            format!("+Go\r\ns{i} host=x.example user=demo,password tls=TLSv1.3,other.example\n"),
        );
        let sent: Vec<u8> = (0..ROUNDS).flat_map(|round| piece(i, round, PIECE)).collect();
        assert_eq!(
            h.hash.expect("bytes").finish().as_ref(),
            digest(&SHA256, &sent).as_ref(),
            "s{i}"
        );
    }
    assert!(heard.is_empty(), "{:?}", heard.keys());
    // The old table's session ends with its last stream, in order.
    while r.try_next().expect("close_notify").is_some() {}
    drop(r);
    d.wait_log("reason=drained");
}
