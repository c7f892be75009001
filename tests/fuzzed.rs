//! Random input at the daemon's real socket: request lines, TLS and frames that are wrong somewhere.
//! Each gets the answer that the protocol has for it, and nobody else notices. What failed is in the
//! message; fuzz/ has the parsers by themselves.

mod support;
#[path = "support/tls.rs"]
mod tls;
#[path = "support/yamux_raw.rs"]
mod yamux_raw;

use ring::rand::{SecureRandom, SystemRandom};
use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use support::*;

/// Nobody here may use what is hidden; what nobody refuses is logged by nobody.
const CONF: &str = "
log_on_success =
log_on_failure =
cps = UNLIMITED
max_sessions_per_source = 1000
max_services_per_source = 1000
max_streams_anonymous = 128
hello  stream tcp nowait @USER@ /bin/echo echo hello
cat    stream tcp nowait @USER@ /bin/cat cat
hidden stream tcp nowait @USER@ /bin/echo echo hidden
 no_access = 0.0.0.0/0
locked stream tcp nowait @USER@ /bin/echo echo locked
 require = tls login
off    stream tcp nowait @USER@ /bin/echo echo off
 disable = yes
";
/// Lines of the log that there are very many of.
const LINES: [&str; 5] = ["REFUSE ", "SESSION ", "END ", "LOGIN ", "PENALTY "];
const HELLO: &str = "+Go\r\nhello\n";
const BUILT_IN: [&str; 8] =
    ["auth", "host", "multiplex", "offer", "pubkey", "resume", "run", "ssl"];
const WORDS: [&str; 16] = [
    "hello",
    "help",
    "hidden",
    "locked",
    "off",
    "auth",
    "host",
    "pubkey",
    "run",
    "offer",
    "resume",
    "GET / HTTP/1.1",
    "PROXY TCP4 1.2.3.4 5.6.7.8 9 1",
    "hello hello",
    "tcpmux/hello",
    "*",
];

/// Random numbers that nobody else has (xorshift).
struct Dice(u64);

impl Dice {
    fn new() -> Dice {
        let mut seed = [0; 8];
        SystemRandom::new().fill(&mut seed).expect("random bytes");
        Dice(u64::from_le_bytes(seed) | 1)
    }

    /// One of `n`.
    fn of(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % n
    }

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.of(256) as u8).collect()
    }

    /// The same with something wrong in it.
    fn spoil(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.of(3) {
            let at = self.of(bytes.len().max(1));
            match self.of(5) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.of(8),
                1 if at < bytes.len() => bytes[at] = self.of(256) as u8,
                2 => bytes.truncate(at),
                3 if at < bytes.len() => drop(bytes.remove(at)),
                _ => {
                    let n = self.of(8);
                    let more = self.bytes(n);
                    bytes.splice(at.min(bytes.len())..at.min(bytes.len()), more);
                }
            }
        }
    }
}

/// `size` of them, by a few threads at a time.
fn each(size: usize, one: impl Fn(&mut Dice, usize) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                let mut dice = Dice::new();
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= size {
                        return;
                    }
                    one(&mut dice, n);
                }
            });
        }
    });
}

/// A request, more often wrong than right.
fn line(dice: &mut Dice) -> Vec<u8> {
    let mut line = match dice.of(8) {
        0 => {
            let n = dice.of(64);
            dice.bytes(n)
        }
        1 => vec![b'x'; 250 + dice.of(12)],
        2 => {
            let n = dice.of(2000);
            (0..n).map(|_| b' ' + dice.of(95) as u8).collect()
        }
        _ => WORDS[dice.of(WORDS.len())].as_bytes().to_vec(),
    };
    if dice.of(4) > 0 {
        dice.spoil(&mut line);
    }
    if dice.of(4) == 0 {
        line.make_ascii_uppercase();
    }
    line.extend_from_slice(
        [&b"\r\n"[..], b"\n", b"\r\n\r\n", b"", b"\r", b"\r\nhello\r\n"][dice.of(6)],
    );
    // The first byte of TLS is another trial's.
    if line.first() == Some(&0x16) {
        line.insert(0, b'x');
    }
    line
}

/// Is this the answer to such a request?
fn right(request: &[u8], answer: &[u8], builtins: &str) -> bool {
    let end = request.iter().position(|b| *b == b'\n');
    let name = end.map(|end| request[..end].strip_suffix(b"\r").unwrap_or(&request[..end]));
    let long = |name: &[u8]| name.len() > 255;
    match name.map(<[u8]>::to_ascii_lowercase) {
        // The carriage return may be half of a line end.
        None if long(request.strip_suffix(b"\r").unwrap_or(request)) => {
            answer == TOO_LONG.as_bytes()
        }
        None => answer.is_empty(),
        Some(name) if long(&name) => answer == TOO_LONG.as_bytes(),
        Some(name) if name == b"hello" => answer == HELLO.as_bytes(),
        Some(name) if name == b"help" => answer == format!("hello\r\ncat\r\n{builtins}").as_bytes(),
        Some(name) if BUILT_IN.iter().any(|b| b.as_bytes() == name) => {
            answer.starts_with(b"+ ")
                || answer.starts_with(b"- ")
                || answer == NOT_AVAILABLE.as_bytes()
        }
        Some(_) => answer == NOT_AVAILABLE.as_bytes(),
    }
}

/// Its processes are those that they were, and none has grown; it has nothing to say.
fn unharmed(d: &Daemon, before: (i32, u64)) {
    same(d.ask("hello\r\n"), HELLO);
    let (net, memory) = grown(d);
    assert_eq!(net, before.0, "it is the same net: {}", d.log());
    assert!(memory < before.1 + 8 * 1024, "{} -> {memory} KiB", before.1);
    assert!(!d.log().contains("WARN") && !d.log().contains("ERROR"), "{}", d.log());
}

fn grown(d: &Daemon) -> (i32, u64) {
    (d.net_pid(), proc::rss(d.net_pid()) + proc::rss(d.parent_pid()))
}

#[test]
fn every_request_line_gets_its_answer() {
    let size = trial_size("requests", 4000, 1_000_000);
    let d = Daemon::with(CONF).unkept(&LINES).start();
    let served = AtomicUsize::new(0);
    let one = |dice: &mut Dice, n: usize| {
        let request = line(dice);
        // Many addresses have many ports.
        let mut c = d.connect_from(&format!("127.0.{}.{}", n / 200 % 200, 1 + n % 200));
        let half = dice.of(request.len().max(1));
        if dice.of(4) == 0 {
            c.try_send(&request[..half]).try_send(&request[half..]);
        } else {
            c.try_send(&request);
        }
        let _ = c.0.shutdown(std::net::Shutdown::Write);
        // What a service leaves unread when it ends is a reset, after its answer.
        let answer = c.read_any();
        let (sent, heard) = (request.escape_ascii(), answer.escape_ascii());
        assert!(right(&request, &answer, BUILTINS), "{sent} was answered {heard}");
        served.fetch_add(usize::from(answer == HELLO.as_bytes()), Ordering::Relaxed);
    };
    each(500, one);
    let before = grown(&d);
    served.store(0, Ordering::Relaxed);
    each(size, one);
    unharmed(&d, before);
    let served = served.into_inner();
    trial(
        "requests",
        format!("{size} random lines, {served} of them of a service, each has its answer"),
    );
}

/// What a client that wants TLS sends first.
fn client_hello() -> Vec<u8> {
    let name = rustls::pki_types::ServerName::try_from("nobody.example").expect("a name");
    let config = tls::config(&[b"tcpmux"]);
    let mut hello = Vec::new();
    let mut conn = rustls::ClientConnection::new(config, name).expect("a client");
    conn.write_tls(&mut hello).expect("a hello");
    hello
}

/// All that comes until it ends; it must end.
fn to_the_end(mut c: impl Read, sent: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    if let Err(e) = c.read_to_end(&mut all) {
        assert!(e.kind() != std::io::ErrorKind::WouldBlock, "no end: {}", sent.escape_ascii());
    }
    all
}

#[test]
fn junk_in_tls_ends_its_connection_and_no_other() {
    let size = trial_size("tls-junk", 300, 30_000);
    let d = Daemon::with(CONF).unkept(&LINES).start();
    let mut honest = tls::Tls::start(d.connect().0, "nobody.example");
    honest.send(b"cat\r\n");
    honest.expect(GO.as_bytes());
    each(100, |dice, _| junk(&d, dice));
    let before = grown(&d);
    each(size, |dice, _| junk(&d, dice));
    honest.send(b"undisturbed");
    honest.expect(b"undisturbed");
    unharmed(&d, before);
    trial("tls-junk", format!("{size} connections with junk in TLS, each ended, and no other"));
}

/// Spoils a handshake, or what follows it.
fn junk(d: &Daemon, dice: &mut Dice) {
    let mut c = d.connect();
    if dice.of(2) == 0 {
        c.send("SSL\r\n").expect("+ Success\r\n");
    }
    if dice.of(4) == 0 {
        // After the handshake: a record with something in it that nobody has encrypted.
        let mut t = tls::Tls::start(c.0, "nobody.example");
        let n = 1 + dice.of(300);
        let (kind, body) = (20 + dice.of(5) as u8, dice.bytes(n));
        let record = [&[kind, 3, 3], &(n as u16).to_be_bytes()[..], &body].concat();
        let tcp = &mut t.0.sock;
        let _ = tcp.write_all(&record).and_then(|()| tcp.shutdown(std::net::Shutdown::Write));
        to_the_end(tcp, &record);
        return;
    }
    let mut hello = client_hello();
    dice.spoil(&mut hello);
    if hello.first() != Some(&0x16) {
        hello.insert(0, 0x16);
    }
    c.try_send(&hello);
    let _ = c.0.shutdown(std::net::Shutdown::Write);
    let answer = to_the_end(&mut c.0, &hello);
    // A part of a handshake, an alert, or nothing: no word that is not TLS's.
    assert!(
        matches!(answer.first(), None | Some(0x15 | 0x16)),
        "{}: {}",
        hello.escape_ascii(),
        answer.escape_ascii()
    );
}

/// A frame, wrong in some way or right.
fn frame(dice: &mut Dice) -> Vec<u8> {
    use yamux_raw::header;
    let kind = if dice.of(20) == 0 { dice.of(256) } else { dice.of(4) } as u8;
    let flags = if dice.of(20) == 0 { dice.of(65_536) } else { dice.of(16) } as u16;
    let stream = match dice.of(10) {
        0 => 0,
        1 => dice.of(1 << 32) as u32,
        _ => 1 + 2 * dice.of(8) as u32,
    };
    let body = match dice.of(4) {
        0 => b"hello\r\n".to_vec(),
        1 => b"cat\r\nsomething".to_vec(),
        2 => line(dice),
        _ => Vec::new(),
    };
    let length = match dice.of(10) {
        0 => dice.of(1 << 32) as u32,
        1 => dice.of(1 << 20) as u32,
        _ => body.len() as u32,
    };
    let mut bytes = header(kind, flags, stream, length).to_vec();
    if kind == yamux_raw::DATA {
        bytes.extend_from_slice(&body);
    }
    if dice.of(50) == 0 {
        dice.spoil(&mut bytes);
    }
    bytes
}

#[test]
fn frames_of_any_kind_end_their_session_at_most() {
    let size = trial_size("frames", 300, 30_000);
    let d = Daemon::with(CONF).unkept(&LINES).start();
    let mut tcp = d.connect();
    tcp.send("MULTIPLEX\r\n").expect("+ Success\r\n");
    let mut honest = yamux_raw::Raw(tcp.0);
    honest.data(yamux_raw::SYN, 1, "cat\r\n");
    let frames = AtomicUsize::new(0);
    let session = |dice: &mut Dice, _| {
        let mut c = d.connect();
        c.send("MULTIPLEX\r\n").expect("+ Success\r\n");
        let n = 1 + dice.of(40);
        let sent: Vec<u8> = (0..n).flat_map(|_| frame(dice)).collect();
        frames.fetch_add(n, Ordering::Relaxed);
        c.try_send(&sent);
        let _ = c.0.shutdown(std::net::Shutdown::Write);
        let heard = to_the_end(&mut c.0, &sent);
        well_formed(&heard, &sent);
    };
    each(100, session);
    let before = grown(&d);
    frames.store(0, Ordering::Relaxed);
    each(size, session);
    honest.data(0, 1, "undisturbed");
    let mut heard = Vec::new();
    while !heard.ends_with(b"undisturbed") {
        heard.append(&mut honest.next().payload);
    }
    unharmed(&d, before);
    let frames = frames.into_inner();
    trial("frames", format!("{size} sessions of {frames} random frames, each ended, and no other"));
}

/// What the server says is frames, to the last one, which a reset may have cut.
fn well_formed(heard: &[u8], sent: &[u8]) {
    let mut c = yamux_raw::Raw(std::io::Cursor::new(heard.to_vec()));
    while let Ok(Some(f)) = c.try_next() {
        let code = f.kind == yamux_raw::GO_AWAY;
        assert!(
            f.kind <= 3 && f.flags < 16 && (!code || f.length <= 2),
            "{f:?} after {}",
            sent.escape_ascii()
        );
    }
}
