//! Bytes in every way that they can go through fived: each arrives, in its order, however slow its
//! client is, and whatever others send at the same time.

mod support;
#[path = "support/tls.rs"]
mod tls;
#[path = "support/upstream.rs"]
mod upstream;
#[path = "support/yamux_client.rs"]
mod yamux_client;
#[path = "support/yamux_raw.rs"]
mod yamux_raw;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;
use support::*;
use tls::Tls;

const CONF: &str = "
log_on_success =
cps = UNLIMITED
max_connections = 20000
max_sessions = 10000
max_sessions_per_source = 10000
max_services = 20000
max_services_per_source = 10000
max_streams_anonymous = 100
instances = UNLIMITED
cat   stream tcp nowait @USER@ /bin/cat cat
hello stream tcp nowait @USER@ /bin/echo echo hello
zeros stream tcp nowait @USER@ /bin/dd dd if=/dev/zero bs=64k status=none
";
const HELLO: &str = "+Go\r\nhello\n";

/// Bytes that no two places have in common for long (xorshift).
struct Bytes(u64);

impl Bytes {
    fn next(&mut self, n: usize) -> Vec<u8> {
        let mut all = Vec::with_capacity(n);
        while all.len() < n {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            all.extend_from_slice(&self.0.to_le_bytes());
        }
        all.truncate(n);
        all
    }
}

/// Sends so many bytes to what gives them back, in pieces of many sizes, and compares.
fn echoed(way: &str, c: &mut (impl Read + Write), size: usize) {
    let (mut sent, mut bytes) = (0, Bytes(0x9e37_79b9_7f4a_7c15));
    let mut back = vec![0; 1 << 16];
    while sent < size {
        let n = (bytes.0 as usize % back.len() + 1).min(size - sent);
        let piece = bytes.next(n);
        c.write_all(&piece).and_then(|()| c.flush()).unwrap_or_else(|e| panic!("{way}: {e}"));
        c.read_exact(&mut back[..n]).unwrap_or_else(|e| panic!("{way}: {e} at {sent}"));
        assert!(back[..n] == piece, "{way}: other bytes after {sent}");
        sent += n;
    }
}

#[test]
fn every_byte_comes_back_in_every_way() {
    let mebibytes = trial_size("exact", 2, 64);
    let size = mebibytes << 20;
    let server = upstream::tcp(|mut c| {
        c.set_nodelay(true).expect("nodelay");
        let mut back = c.try_clone().expect("a copy");
        let _ = std::io::copy(&mut c, &mut back);
        let _ = c.shutdown(Shutdown::Write);
    });
    let conf = format!("{CONF}there stream tcp nowait @USER@ redirect {server}\n");
    let d = Daemon::with(&conf).start();
    let mut ways = 0;
    for name in ["cat", "there"] {
        let request = format!("{name}\r\n");
        let mut c = d.connect();
        c.send(&request).expect(GO);
        echoed(&format!("{name}, plain"), &mut c.0, size);
        c.half_close().end();

        // Both directions at once, and nobody waits for an answer.
        let mut c = d.connect();
        c.send(&request).expect(GO);
        let mut to = c.0.try_clone().expect("a copy");
        let writer = std::thread::spawn(move || {
            let mut bytes = Bytes(7);
            (0..size >> 16).for_each(|_| to.write_all(&bytes.next(1 << 16)).expect("send"));
            to.shutdown(Shutdown::Write).expect("half-close");
        });
        let mut bytes = Bytes(7);
        for n in 0..size >> 16 {
            let mut back = vec![0; 1 << 16];
            c.0.read_exact(&mut back).expect("more of it");
            assert!(back == bytes.next(1 << 16), "{name}: other bytes after {n} pieces");
        }
        c.end();
        writer.join().expect("all is sent");

        let mut t = Tls::start(d.connect().0, "nobody.example");
        t.send(request.as_bytes());
        t.expect(GO.as_bytes());
        echoed(&format!("{name}, TLS"), &mut t.0, size);

        let mut t = Tls::start(d.connect().0, "nobody.example");
        t.send(b"MULTIPLEX\r\n");
        t.expect(b"+ Success\r\n");
        let mux = yamux_client::Client::new(t.0);
        let mut stream = mux.ask(&request);
        stream.expect(GO);
        echoed(&format!("{name}, a stream in TLS"), &mut stream, size);
        ways += 4;
    }
    trial(
        "exact",
        format!("{mebibytes} MiB there and back in each of {ways} ways, every byte as it was sent"),
    );
}

/// What a slow client sends, and what it must have heard in the end.
enum Slow {
    Plain(Client),
    InTls(Box<Tls>),
    Stream(yamux_raw::Raw<std::net::TcpStream>),
}

const WORDS: &[u8] = b"cat\r\nslow and steady";
const BACK: &[u8] = b"+Go\r\nslow and steady";

impl Slow {
    fn new(d: &Daemon, n: usize) -> Slow {
        let mut c = d.connect_from(&format!("127.0.{}.{}", 1 + n / 200, 1 + n % 200));
        match n % 3 {
            0 => Slow::Plain(c),
            1 => Slow::InTls(Box::new(Tls::start(c.0, "nobody.example"))),
            _ => {
                c.send("MULTIPLEX\r\n").expect("+ Success\r\n");
                let mut r = yamux_raw::Raw(c.0);
                r.data(yamux_raw::SYN, 1, "");
                Slow::Stream(r)
            }
        }
    }

    fn send(&mut self, byte: &[u8]) {
        match self {
            Slow::Plain(c) => drop(c.send(byte)),
            Slow::InTls(t) => t.send(byte),
            Slow::Stream(r) => drop(r.data(0, 1, byte)),
        }
    }

    fn hear(mut self) {
        match &mut self {
            Slow::Plain(c) => drop(c.expect(BACK)),
            Slow::InTls(t) => t.expect(BACK),
            Slow::Stream(r) => {
                let mut all = Vec::new();
                while all.len() < BACK.len() {
                    all.append(&mut r.next().payload);
                }
                same(all, BACK);
            }
        }
    }
}

/// A byte each, one client after the other: all of them are served in the end, and others at once.
#[test]
fn slow_clients_are_served_and_hold_up_nobody() {
    let n = trial_size("slow", 60, 1500);
    if !descriptors(4 * n as u64 + 500) {
        return skip("needs more descriptors (ulimit -n)");
    }
    let d = Daemon::with(&format!("request_timeout = 600\n{CONF}")).start();
    let mut all: Vec<Slow> = (0..n).map(|n| Slow::new(&d, n)).collect();
    let mut longest = std::time::Duration::ZERO;
    for byte in WORDS.chunks(1) {
        all.iter_mut().for_each(|c| c.send(byte));
        let begun = Instant::now();
        same(d.ask("hello\r\n"), HELLO);
        longest = longest.max(begun.elapsed());
    }
    all.into_iter().for_each(Slow::hear);
    let longest = longest.as_millis();
    trial(
        "slow",
        format!("{n} clients of a byte at a time are served; others meanwhile within {longest} ms"),
    );
}

/// Whoever asks for little is served while others take all that they can get.
#[test]
fn who_takes_much_leaves_others_their_share() {
    let n = trial_size("fair", 30, 300);
    let d = Daemon::with(CONF).start();
    let (over, taken) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut times = Vec::new();
    std::thread::scope(|s| {
        for kind in 0..4 {
            let (d, over, taken) = (&d, &over, &taken);
            s.spawn(move || greedy(d, kind, over, taken));
        }
        let asked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until("they have begun", || taken.load(Ordering::Relaxed) > 1 << 20);
            for n in 0..n {
                let begun = Instant::now();
                let c = d.connect_from("127.0.0.3");
                match n % 3 {
                    0 => same({ c }.send("hello\r\n").read_all(), HELLO),
                    1 => {
                        let mut t = Tls::start(c.0, "nobody.example");
                        t.send(b"hello\r\n");
                        same(t.read_all(), HELLO);
                    }
                    _ => {
                        let mut c = c;
                        c.send("MULTIPLEX\r\n").expect("+ Success\r\n");
                        let mut r = yamux_raw::Raw(c.0);
                        r.data(yamux_raw::SYN, 1, "hello\r\n");
                        same(r.stream(1).0, HELLO);
                    }
                }
                times.push(begun.elapsed());
            }
        }));
        over.store(true, Ordering::Relaxed);
        asked.unwrap_or_else(|why| std::panic::resume_unwind(why));
    });
    times.sort();
    let (half, last) = (times[n / 2].as_millis(), times[n - 1].as_millis());
    let mebibytes = taken.into_inner() >> 20;
    trial(
        "fair",
        format!(
            "{n} short requests beside {mebibytes} MiB to others: half of them within {half} ms, all within {last} ms"
        ),
    );
}

/// Takes what it can get until it is over.
fn greedy(d: &Daemon, kind: usize, over: &AtomicBool, taken: &AtomicU64) {
    let c = d.connect_from("127.0.0.2");
    let count = |n: usize| {
        taken.fetch_add(n as u64, Ordering::Relaxed);
        !over.load(Ordering::Relaxed)
    };
    let mut part = vec![0; 1 << 16];
    match kind {
        0 => {
            let mut c = c;
            c.send("zeros\r\n");
            while count(c.0.read(&mut part).expect("more of it")) {}
        }
        1 | 2 => {
            let mut t = Tls::start(c.0, "nobody.example");
            t.send(b"zeros\r\n");
            while count(t.0.read(&mut part).expect("more of it")) {}
        }
        _ => streams(c, count),
    }
}

/// The streams of one session have equal shares of it, too.
fn streams(mut c: Client, count: impl Fn(usize) -> bool) {
    const STREAMS: usize = 8;
    c.send("MULTIPLEX\r\n").expect("+ Success\r\n");
    let mut r = yamux_raw::Raw(c.0);
    for n in 0..STREAMS as u32 {
        r.data(yamux_raw::SYN, 2 * n + 1, "zeros\r\n");
    }
    let (mut had, mut begun) = ([0; STREAMS], false);
    loop {
        let f = r.next();
        if f.kind != yamux_raw::DATA || f.payload.is_empty() {
            continue;
        }
        had[f.stream as usize / 2] += f.payload.len();
        // A service that begins later has less before.
        if !begun && !had.contains(&0) {
            (had, begun) = ([0; STREAMS], true);
        }
        r.frame(yamux_raw::WINDOW, 0, f.stream, f.length);
        if !count(f.payload.len()) {
            break;
        }
    }
    let (least, most) = (had.iter().min().expect("streams"), had.iter().max().expect("streams"));
    // A short test says nothing.
    assert!(!begun || *most < 16 << 20 || most / least.max(&1) < 8, "{had:?}");
}
