//! Any bytes; and conversations with a client that keeps to the protocol and checks that the engine
//! does so too.

use super::tests::{NOW, control, frame, receive_all, session};
use super::*;
use proptest::prelude::*;

/// Frames that are nearly right, so that random ones get far.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let length = prop_oneof![0u32..40, Just(0), Just(262_144), Just(u32::MAX)];
    let one = (0u8..4, 0u16..16, 0u32..9, length, 0usize..50);
    let one = one.prop_map(|(kind, flags, stream, length, payload)| {
        let kind = [Kind::Data, Kind::Window, Kind::Ping, Kind::GoAway][usize::from(kind)];
        let flags = if flags > 12 { SYN } else { flags };
        let payload =
            if kind == Kind::Data && length < 40 { length as usize } else { payload / 49 };
        [frame(kind, flags, stream, length), vec![b'x'; payload]].concat()
    });
    proptest::collection::vec(one, 0..40).prop_map(|all| all.concat())
}

proptest! {
    #[test]
    fn any_bytes_keep_every_bound(
        bytes in prop_oneof![frames(), proptest::collection::vec(any::<u8>(), 0..200)],
    ) {
        let mut mux = session();
        receive_all(&mut mux, &bytes);
        prop_assert!(mux.open_streams() <= 4);
        prop_assert!(mux.control_queued() <= bytes.len());
        let windows: u64 = mux.streams.values().map(|s| u64::from(s.window)).sum();
        prop_assert_eq!(windows, mux.windows);
    }

    #[test]
    fn splitting_changes_nothing(
        bytes in frames(),
        cuts in proptest::collection::vec(0usize..300, 0..6),
    ) {
        let mut whole = session();
        let events = receive_all(&mut whole, &bytes);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(bytes.len())).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let (mut split, mut parts) = (session(), Vec::<String>::new());
        for w in cuts.windows(2) {
            for event in receive_all(&mut split, &bytes[w[0]..w[1]]) {
                let goes_on = event.split_once(": ").filter(|(id, _)| parts.last().is_some_and(|p| p.starts_with(&format!("{id}: "))));
                match (goes_on, parts.last_mut()) {
                    (Some((_, more)), Some(last)) => last.push_str(more),
                    _ => parts.push(event),
                }
            }
        }
        prop_assert_eq!(parts, events);
        prop_assert_eq!(control(&mut split), control(&mut whole));
    }
}

/// A stream, as its client and as the server's caller see it.
#[derive(Debug, Default)]
struct Both {
    id: u32,
    /// What the client may send, and what it has sent.
    window: u32,
    sent: u32,
    ended: bool,
    /// How much the client has allowed the server to send and has not received.
    open_window: u32,
    acknowledged: bool,
    got_end: bool,
    /// The client has left the stream, or knows that it was reset.
    gone: bool,
    /// The server's caller knows the stream; how much it has received, and how much delivered.
    known: bool,
    got: u32,
    delivered: u32,
    told_end: bool,
    drained: bool,
    finished: bool,
}

struct Conversation {
    mux: Mux,
    now: Duration,
    streams: Vec<Both>,
    /// Bytes on their way to the client.
    wire: Vec<u8>,
    pings: VecDeque<u32>,
    refused: u32,
}

fn byte(stream: u32, at: u32) -> u8 {
    (at.wrapping_mul(31) ^ stream) as u8
}

impl Conversation {
    /// The client sends bytes, which the server receives in two pieces.
    fn say(&mut self, bytes: &[u8], cut: usize) {
        let (first, second) = bytes.split_at(cut % (bytes.len() + 1));
        for mut part in [first, second] {
            loop {
                let (taken, event) = self.mux.receive(part, self.now);
                part = &part[taken..];
                let Some(event) = event else { break };
                self.handle(event);
            }
        }
    }

    fn handle(&mut self, event: Event<'_>) {
        let of =
            |streams: &[Both], id: StreamId| streams.iter().position(|s| s.id == id.0).unwrap();
        match event {
            Event::Opened(id) => {
                let s = of(&self.streams, id);
                self.streams[s].known = true;
            }
            Event::Data(id, bytes) => {
                let s = of(&self.streams, id);
                let s = &mut self.streams[s];
                assert!(s.known && !s.drained && !s.told_end);
                for b in bytes {
                    assert_eq!(*b, byte(s.id, s.got));
                    s.got += 1;
                }
            }
            Event::Finished(id) => {
                let s = of(&self.streams, id);
                let s = &mut self.streams[s];
                assert!(s.known && !s.drained && !s.told_end);
                assert_eq!(s.got, s.sent);
                s.told_end = true;
            }
            Event::Reset(id) => {
                let s = of(&self.streams, id);
                let s = &mut self.streams[s];
                assert!(s.known && !s.drained && s.gone);
                s.known = false;
            }
            other => panic!("{other:?}"),
        }
    }

    /// The client reads everything that is on its way.
    fn read(&mut self) {
        self.mux.take_control(&mut self.wire);
        let mut wire = std::mem::take(&mut self.wire);
        while !wire.is_empty() {
            // Only control frames are left in the engine: data frames are written after them.
            let (kind, flags, id, length) = (
                wire[1],
                u16::from(wire[3]),
                u32::from(wire[7]),
                u32::from_be_bytes([wire[8], wire[9], wire[10], wire[11]]),
            );
            let payload = if kind == 0 { length as usize } else { 0 };
            wire.drain(..HEADER + payload);
            match (kind, flags) {
                (2, SYN) => self.say(&frame(Kind::Ping, ACK, 0, length), 5),
                (2, ACK) => assert_eq!(self.pings.pop_front(), Some(length)),
                (3, _) => panic!("go-away"),
                _ => {
                    let s = self.streams.iter_mut().find(|s| s.id == id).unwrap();
                    self.refused += s.read(kind, flags, length);
                }
            }
        }
    }
}

impl Both {
    /// Handles a frame of the server; returns 1 if it refuses the stream.
    fn read(&mut self, kind: u8, flags: u16, length: u32) -> u32 {
        match (kind, flags) {
            (1, ACK) => assert!(!std::mem::replace(&mut self.acknowledged, true)),
            (1, RST) => {
                assert!(!self.got_end || self.drained, "RST after FIN");
                self.gone = true;
                return u32::from(!self.acknowledged);
            }
            (1, FIN) => assert!(self.acknowledged && !std::mem::replace(&mut self.got_end, true)),
            (1, 0) => {
                self.window += length;
                assert!(self.acknowledged && self.window <= STREAM_WINDOW);
            }
            (0, 0) => {
                assert!(self.acknowledged && !self.got_end);
                assert!(length as usize <= PIECE && length > 0);
                self.open_window = self.open_window.checked_sub(length).unwrap();
            }
            other => panic!("{other:?}"),
        }
        0
    }
}

impl Conversation {
    fn step(&mut self, act: u8, pick: usize, much: u32) {
        self.now += Duration::from_millis(u64::from(much % 50));
        if act == 0 && self.streams.len() < 100 {
            return self.open(much, pick);
        }
        let Some(s) = self.streams.len().checked_sub(1).map(|n| pick % (n + 1)) else {
            return;
        };
        match act {
            ..=7 => self.client(s, act, pick, much),
            _ => self.server(s, act, much),
        }
    }

    /// What the client does.
    fn client(&mut self, s: usize, act: u8, pick: usize, much: u32) {
        let s = &mut self.streams[s];
        let (id, sends) = (StreamId(s.id), !s.gone && !s.ended);
        match act {
            1..=4 if sends => {
                let n = much.min(s.window);
                let payload: Vec<u8> = (s.sent..s.sent + n).map(|at| byte(id.0, at)).collect();
                s.window -= n;
                s.sent += n;
                s.ended = much.is_multiple_of(16);
                let flags = if s.ended { FIN } else { 0 };
                self.say(&[frame(Kind::Data, flags, id.0, n), payload].concat(), pick);
            }
            5 if sends => {
                s.gone = true;
                self.say(&frame(Kind::Window, RST, id.0, 0), pick);
            }
            6 if !s.gone => {
                s.open_window += much;
                self.say(&frame(Kind::Window, 0, id.0, much), pick);
            }
            7 => {
                self.pings.push_back(much);
                self.say(&frame(Kind::Ping, SYN, 0, much), pick);
            }
            _ => {}
        }
    }

    /// What the server's owner does, and what the client reads.
    fn server(&mut self, s: usize, act: u8, much: u32) {
        let s = &mut self.streams[s];
        let (id, receives) = (StreamId(s.id), s.known && !s.finished);
        match act {
            8..=10 => {
                let n = (s.got - s.delivered).min(much * 4);
                s.delivered += n;
                self.mux.delivered(id, n as usize, self.now);
            }
            11 | 12 if receives => {
                let n = self.mux.send_window(id).min(PIECE).min(much as usize);
                if n > 0 {
                    self.mux.take_control(&mut self.wire);
                    self.wire.extend(self.mux.data(id, n));
                    self.wire.resize(self.wire.len() + n, 0);
                }
            }
            13 if receives => {
                s.finished = true;
                self.mux.finish(id);
            }
            14 if s.known => {
                s.drained |= s.finished;
                s.known = false;
                self.mux.reset(id, self.now);
            }
            15 if s.known => {
                (s.drained, s.finished, s.known) = (true, true, false);
                self.mux.drain(id, self.now);
            }
            16 => assert_eq!(self.mux.tick(self.now), None),
            17..=19 => self.read(),
            _ => {}
        }
    }

    fn open(&mut self, much: u32, pick: usize) {
        // In pairs, the second number first.
        let n = self.streams.len() as u32;
        let id = if n.is_multiple_of(2) { 2 * n + 3 } else { 2 * n - 1 };
        let credit = much % 3 * 1000;
        self.streams.push(Both {
            id,
            window: INITIAL_WINDOW,
            open_window: INITIAL_WINDOW + credit,
            ..Both::default()
        });
        self.say(&frame(Kind::Window, SYN, id, credit), pick);
    }
}

/// Steps of one conversation, less one. Miri is a few hundred times slower: there it is short, and
/// PROPTEST_CASES says how many there are (Makefile).
const STEPS: usize = if cfg!(miri) { 30 } else { 300 };

proptest! {
    #![proptest_config(match cfg!(miri) {
        true => ProptestConfig::default(),
        false => ProptestConfig::with_cases(400),
    })]

    #[test]
    fn a_client_that_keeps_to_the_protocol_is_served(
        steps in proptest::collection::vec((0u8..20, 0usize..1000, 1u32..60_000), 1..STEPS),
    ) {
        let mut c = Conversation {
            mux: session(),
            now: NOW,
            streams: Vec::new(),
            wire: Vec::new(),
            pings: VecDeque::new(),
            refused: 0,
        };
        for (act, pick, much) in steps {
            c.step(act, pick, much);
            prop_assert!(c.mux.open_streams() <= 4);
        }
        // All streams end.
        c.read();
        for i in 0..c.streams.len() {
            let s = &mut c.streams[i];
            let id = s.id;
            if !s.gone && !std::mem::replace(&mut s.ended, true) {
                c.say(&frame(Kind::Data, FIN, id, 0), 0);
            }
            c.mux.finish(StreamId(id));
        }
        c.read();
        prop_assert!(c.pings.is_empty());
        prop_assert_eq!(c.mux.open_streams(), 0);
        prop_assert_eq!((c.mux.windows, c.mux.drains.len()), (0, 0));
        for s in &c.streams {
            prop_assert!(s.acknowledged || s.gone);
            prop_assert!(s.gone || s.got_end);
        }
        prop_assert!(c.refused as usize <= c.streams.len());
    }
}
