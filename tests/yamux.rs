//! The engine and the yamux crate as its client, over a socket pair: what one says the other
//! understands.

#[path = "support/yamux_client.rs"]
mod yamux_client;
#[path = "support/yamux_raw.rs"]
mod yamux_raw;

use fived::wire::yamux::{CONTROL_MAX, Event, Mux, PIECE, StreamId};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};
use yamux_client::Client;
use yamux_raw::{ACK, DATA, FIN, GO_AWAY, PING, RST, Raw, SYN, WINDOW};

const STREAMS: u32 = 64;
/// Bytes of frames that wait to be written; above it no stream is served.
const OUT: usize = 256 * 1024;

/// A session whose every stream is an echo; one whose first byte is `#` is never read, one that
/// begins with `!` ends at once.
struct Echo {
    connection: UnixStream,
    mux: Mux,
    streams: BTreeMap<StreamId, Received>,
    out: Vec<u8>,
    begun: Instant,
    part: Arc<AtomicBool>,
}

#[derive(Default)]
struct Received {
    first: Option<u8>,
    bytes: Vec<u8>,
    over: bool,
}

/// Starts an echo; the client's end, and a switch for go-away.
fn echo() -> (UnixStream, Arc<AtomicBool>) {
    let (ours, theirs) = UnixStream::pair().expect("pair");
    theirs.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
    ours.set_nonblocking(true).expect("nonblocking");
    let part = Arc::new(AtomicBool::new(false));
    let mux = Mux::new(Duration::from_secs(30), STREAMS, Duration::ZERO);
    let echo = Echo {
        connection: ours,
        mux,
        streams: BTreeMap::new(),
        out: Vec::new(),
        begun: Instant::now(),
        part: part.clone(),
    };
    thread::spawn(move || echo.run());
    (theirs, part)
}

impl Echo {
    fn run(mut self) {
        let mut buffer = vec![0; 64 * 1024];
        while self.turn(&mut buffer).is_some() {
            let read = if self.mux.control_queued() <= CONTROL_MAX {
                PollFlags::POLLIN
            } else {
                PollFlags::empty()
            };
            let write = if self.out.is_empty() { PollFlags::empty() } else { PollFlags::POLLOUT };
            let _ = poll(
                &mut [PollFd::new(self.connection.as_fd(), read | write)],
                PollTimeout::from(20u8),
            );
        }
    }

    /// None at the end.
    fn turn(&mut self, buffer: &mut [u8]) -> Option<()> {
        if self.part.load(Relaxed) {
            self.mux.go_away(Duration::ZERO);
        }
        let mut goes_on = true;
        if self.mux.control_queued() <= CONTROL_MAX {
            match self.connection.read(buffer) {
                Ok(0) => return None,
                Ok(n) => goes_on = self.receive(&buffer[..n]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return None,
            }
        }
        self.say();
        while !self.out.is_empty() {
            match self.connection.write(&self.out) {
                Ok(n) => drop(self.out.drain(..n)),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return None,
            }
        }
        goes_on.then_some(())
    }

    fn receive(&mut self, mut bytes: &[u8]) -> bool {
        let now = self.begun.elapsed();
        loop {
            let (taken, event) = self.mux.receive(bytes, now);
            bytes = &bytes[taken..];
            match event {
                None => return true,
                Some(Event::Opened(id)) => drop(self.streams.insert(id, Received::default())),
                Some(Event::Data(id, data)) => {
                    let stream = self.streams.get_mut(&id).expect("an open stream");
                    stream.bytes.extend_from_slice(data);
                    if *stream.first.get_or_insert(data[0]) == b'!' {
                        self.streams.remove(&id);
                        self.mux.drain(id, now);
                    }
                }
                Some(Event::Finished(id)) => {
                    self.streams.get_mut(&id).expect("an open stream").over = true
                }
                Some(Event::Reset(id)) => drop(self.streams.remove(&id)),
                Some(Event::Accepted(_) | Event::GoAway(_)) => {}
                Some(Event::Broken(why)) => {
                    println!("broken: {why}");
                    return false;
                }
            }
        }
    }

    fn say(&mut self) {
        let now = self.begun.elapsed();
        let mut more = true;
        while std::mem::take(&mut more) && self.out.len() < OUT {
            self.mux.take_control(&mut self.out);
            for (id, stream) in self.streams.iter_mut().filter(|(_, s)| s.first != Some(b'#')) {
                let n = stream.bytes.len().min(PIECE).min(self.mux.send_window(*id));
                if n > 0 {
                    self.out.extend(self.mux.data(*id, n));
                    self.out.extend(stream.bytes.drain(..n));
                    self.mux.delivered(*id, n, now);
                    more = true;
                }
                if stream.over && stream.bytes.is_empty() {
                    self.mux.finish(*id);
                    more = true;
                }
            }
            self.streams.retain(|_, s| !(s.over && s.bytes.is_empty()));
        }
        if self.out.len() < OUT {
            self.mux.take_control(&mut self.out);
        }
    }
}

fn noise(seed: u64, n: usize) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = std::iter::repeat_with(move || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x.to_le_bytes()
    });
    let mut all = vec![b'0'];
    all.extend(next.flatten().take(n));
    all
}

#[test]
fn every_byte_comes_back_and_then_the_end() {
    let client = Client::new(echo().0);
    let mut stream = client.ask("hello\r\n");
    stream.expect("hello\r\n");
    stream.finish().finish();
    assert!(stream.read_all().is_empty());
}

#[test]
fn many_streams_at_once_and_one_that_stands_still() {
    let client = Arc::new(Client::new(echo().0));
    // As much as its window takes, and nobody reads it.
    let mut stalled = client.open();
    stalled.write_all(&vec![b'#'; 256 * 1024]).expect("a window");
    let each = |n: u64| {
        let client = client.clone();
        thread::spawn(move || {
            let sent = noise(n, 3_000_000);
            let mut stream = client.open();
            let mut got = Vec::new();
            // The echo takes no more than it can give back.
            for part in sent.chunks(100_000) {
                stream.write_all(part).expect("write");
                let at = got.len();
                got.resize(at + part.len(), 0);
                stream.read_exact(&mut got[at..]).expect("read");
            }
            stream.finish();
            assert!(stream.read_all().is_empty());
            assert!(got == sent);
        })
    };
    let all: Vec<_> = (1..20).map(each).collect();
    all.into_iter().for_each(|t| t.join().expect("stream"));
}

#[test]
fn streams_given_up_before_they_were_opened_harm_nobody() {
    let client = Client::new(echo().0);
    let late = client.open();
    drop(client.open());
    client.open().finish();
    client.ask("x").expect("x");
    let mut late = late;
    late.write_all(b"late").expect("write");
    late.expect("late");
    // Reset while there is something under way. The crate's resets overtake no other stream's
    // frames: fewer than may be open.
    for _ in 0..10 {
        for _ in 0..STREAMS / 4 {
            client.ask(vec![b'x'; 50_000]);
        }
        client.ask("still here").expect("still here");
    }
}

#[test]
fn a_service_that_goes_away_is_drained() {
    let client = Client::new(echo().0);
    let mut stream = client.ask("!");
    assert!(stream.read_all().is_empty());
    // Half of what is thrown away at most.
    stream.write_all(&vec![0; 4 << 20]).expect("thrown away");
    stream.finish();
    client.ask("x").expect("x");
}

#[test]
fn one_stream_too_many_is_reset() {
    let client = Client::new(echo().0);
    let mut open: Vec<_> = (0..STREAMS).map(|_| client.ask("x")).collect();
    for stream in &mut open {
        stream.expect("x");
    }
    assert!(client.ask("x").read_all().is_empty());
    open.pop();
    // The reset of the one that was dropped is on its way before.
    client.ask("y").expect("y");
}

#[test]
fn go_away_is_the_end_for_the_crate() {
    let (connection, part) = echo();
    let client = Client::new(connection);
    let mut stream = client.ask("x");
    stream.expect("x");
    assert!(!client.ended());
    part.store(true, Relaxed);
    // It ends a session at any go-away; hashicorp's goes on with what is open.
    assert!(stream.read_all().is_empty());
    assert!(client.end().contains("closed"));
}

#[test]
fn frames_by_hand() {
    let mut raw = Raw(echo().0);
    raw.data(SYN, 1, "hello");
    assert_eq!(raw.until(WINDOW, ACK, 1).length, 0);
    assert_eq!(raw.until(DATA, 0, 1).payload, b"hello");
    raw.frame(PING, SYN, 0, 77);
    assert_eq!(raw.until(PING, ACK, 0).length, 77);
    raw.data(FIN, 1, " again");
    assert_eq!(raw.stream(1), (b" again".to_vec(), FIN));
    raw.frame(WINDOW, SYN, 3, 0).frame(WINDOW, RST, 3, 0);
    assert_eq!(raw.next().flags, ACK);
    raw.frame(GO_AWAY, 0, 0, 0).frame(WINDOW, SYN, 5, 0);
    assert_eq!(raw.stream(5), (vec![], RST));
    raw.frame(WINDOW, SYN, 2, 0).ends(1);
}
