use super::*;
use crate::link::{Link, Tally};
use crate::sys::flow::Flow;
use crate::sys::socket;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};

const SOON: Duration = Duration::from_secs(20);

/// One end of a session, and the events that it got.
struct Side {
    pump: Pump<()>,
    link: Link,
    events: Vec<Event<()>>,
}

impl Side {
    fn new(mux: Mux, socket: OwnedFd) -> Side {
        let mut link = Link::plain(socket);
        link.read_ahead();
        let mut pump = Pump::new(mux);
        pump.start_reading();
        Side { pump, link, events: Vec::new() }
    }

    fn turn(&mut self) {
        self.pump.wait(&mut self.link, &mut [], Duration::ZERO).expect("wait");
        self.pump.serve(&mut self.link);
        self.pump.begin_turn();
        while let Some(event) = self.pump.event(&mut self.link).expect("event") {
            if let Event::Opened(id) = event {
                self.pump.adopt(id, ());
            }
            self.events.push(event);
        }
        assert!(self.pump.tick());
        self.pump.send_queued(&mut self.link).expect("give out");
    }

    fn has(&self, of: impl Fn(&Event<()>) -> bool) -> bool {
        self.events.iter().any(of)
    }

    fn held(&mut self, id: StreamId) -> Vec<u8> {
        self.pump.held(id).map_or(Vec::new(), |(_, bytes)| bytes.to_vec())
    }
}

/// A client and a server, and a stream between them on which the client has sent "hi".
struct Both {
    client: Side,
    server: Side,
    id: StreamId,
}

impl Both {
    fn new() -> Both {
        let (a, b) = socket::pair().expect("pair");
        let now = clock::monotonic();
        let mut client = Side::new(Mux::client(Duration::ZERO, now), a);
        let server = Side::new(Mux::new(Duration::ZERO, 9, now), b);
        let id = client.pump.open(()).expect("a stream");
        client.pump.send_data(id, b"hi");
        let mut both = Both { client, server, id };
        both.until(|b| b.server.held(id) == b"hi");
        assert!(both.server.has(|e| matches!(e, Event::Opened(o) if *o == id)));
        both
    }

    fn until(&mut self, mut done: impl FnMut(&mut Both) -> bool) {
        let end = clock::monotonic() + SOON;
        while !done(self) {
            self.client.turn();
            self.server.turn();
            assert!(clock::monotonic() < end, "{:?} {:?}", self.client.events, self.server.events);
        }
    }

    /// Gives the server's stream a local end; returns the other end of that.
    fn connect(&mut self) -> OwnedFd {
        let (local, other_end) = socket::pair().expect("pair");
        self.server.pump.attach(self.id, LocalEnd::Socket(Flow::of_socket(local)));
        self.server.pump.release(self.id);
        other_end
    }
}

fn read(fd: &OwnedFd) -> Option<Vec<u8>> {
    let mut bytes = [0; 64];
    match socket::receive(fd.as_fd(), &mut bytes) {
        Ok(n) => Some(bytes[..n].to_vec()),
        Err(e) if e.kind() == ErrorKind::WouldBlock => None,
        Err(e) => panic!("{e}"),
    }
}

fn tally(events: &[Event<()>]) -> Option<Tally> {
    events.iter().find_map(|e| if let Event::Closed(s) = e { Some(s.tally()) } else { None })
}

#[test]
fn the_local_end_gets_what_the_owner_has_not_taken_and_each_side_sees_the_others_end() {
    let mut b = Both::new();
    let id = b.id;
    b.server.pump.take(id, 1);
    let other_end = b.connect();
    assert_eq!(read(&other_end).expect("what was left"), b"i");
    socket::send(other_end.as_fd(), b"yo").expect("send");
    b.until(|b| b.client.held(id) == b"yo");
    b.client.pump.finish(id);
    b.until(|_| read(&other_end).is_some_and(|end| end.is_empty()));
    assert!(b.server.has(|e| matches!(e, Event::Finished(_))));
    assert!(!b.server.has(|e| matches!(e, Event::Closed(..))), "it may still send something");
    socket::shutdown_write(other_end.as_fd()).expect("shutdown");
    b.until(|b| b.client.has(|e| matches!(e, Event::Finished(_))));
    let tally = tally(&b.server.events).expect("a tally");
    assert_eq!((tally.received, tally.sent), (1, 2));
    assert!(b.server.pump.is_empty() && b.server.pump.mux().open_streams() == 0);
}

/// Both are sent at once, and whoever reads them is woken once.
#[test]
fn the_end_goes_with_the_last_bytes() {
    let mut b = Both::new();
    let (id, far) = (b.id, b.connect());
    b.server.pump.release(id);
    socket::send(far.as_fd(), b"bye").expect("send");
    socket::shutdown_write(far.as_fd()).expect("shutdown");
    b.server.turn();
    b.client.turn();
    assert_eq!(b.client.held(id), b"bye");
    assert!(b.client.has(|e| matches!(e, Event::Finished(_))));
}

/// The link was read until its buffer was full, so more might follow at once, and TCP was told so;
/// but that was all, or what follows is a reset.
#[test]
fn a_local_end_gets_all_that_has_come_in_a_turn() {
    for reset in [false, true] {
        let mut b = Both::new();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let to = listener.local_addr().expect("it is bound");
        let mut far = std::net::TcpStream::connect(to).expect("it listens");
        far.set_nonblocking(true).expect("set");
        let local = listener.accept().expect("a client").0.into();
        b.server.pump.attach(b.id, LocalEnd::Socket(Flow::of_socket(local)));
        b.server.pump.release(b.id);
        let other = b.client.pump.open(()).expect("a stream");
        b.until(|b| b.server.pump.stream(other).is_some());
        let frames = [&[(other, PIECE); 7][..], &[(other, 4000), (b.id, 12_388)]].concat();
        frames.iter().for_each(|(id, n)| b.client.pump.send_data(*id, &vec![7; *n]));
        if reset {
            b.client.pump.reset_at_once(b.id);
        }
        b.client.turn();
        assert!(b.client.pump.is_sent(&b.client.link), "the socket takes it at once");
        b.server.turn();
        assert_eq!(b.server.has(|e| matches!(e, Event::Reset(_))), reset);
        let (mut bytes, mut got) = (vec![0; 300_000], 0);
        while let Ok(n) = far.read(&mut bytes) {
            got += n;
        }
        assert_eq!(got, 2 + 12_388, "reset: {reset}");
    }
}

#[test]
fn a_local_end_that_is_gone_ends_its_stream_and_what_comes_is_discarded() {
    let mut b = Both::new();
    let id = b.id;
    let other_end = b.connect();
    socket::send(other_end.as_fd(), b"last").expect("send");
    drop(other_end);
    b.client.pump.send_data(id, b"more");
    b.until(|b| b.client.has(|e| matches!(e, Event::Finished(_))));
    assert_eq!(b.client.held(id), b"last");
    b.until(|b| tally(&b.server.events).is_some());
    // The peer sends on for a while, and its windows are granted again.
    for _ in 0..40 {
        b.until(|b| b.client.pump.mux().send_window(id) >= PIECE);
        b.client.pump.send_data(id, &[7; PIECE]);
    }
    b.client.pump.finish(id);
    b.until(|b| b.server.pump.mux().open_streams() == 0);
    assert!(!b.client.has(|e| matches!(e, Event::Reset(..))));
}

#[test]
fn final_bytes_are_sent_whole_and_nothing_is_received_meanwhile() {
    let mut b = Both::new();
    let id = b.id;
    let words = vec![9; 3 * 256 * 1024];
    b.server.pump.close_with(id, words.clone());
    let mut all = Vec::new();
    let end = clock::monotonic() + SOON;
    while !b.client.has(|e| matches!(e, Event::Finished(_))) {
        assert!(clock::monotonic() < end, "{} bytes", all.len());
        b.client.turn();
        b.server.turn();
        let some = b.client.held(id);
        b.client.pump.take(id, some.len());
        all.extend(some);
    }
    assert!(all == words && tally(&b.server.events).is_some());
    assert!(!b.server.has(|e| matches!(e, Event::OutputFailed(..))));
}

#[test]
fn what_was_sent_too_early_is_kept_and_returned_with_its_local_end() {
    let mut b = Both::new();
    let id = b.id;
    let (local, other_end) = socket::pair().expect("pair");
    let input = Flow::of_socket(local);
    b.client.pump.keep(id, b"hi".to_vec());
    b.client.pump.attach(id, LocalEnd::Flows { input: Some(input), output: None });
    let mut given = 0;
    b.until(|b| {
        while let Ok(n) = socket::send(other_end.as_fd(), &[5; 4096]) {
            given += n;
        }
        b.server.held(id).len() == KEPT_MAX
    });
    assert!(given > KEPT_MAX, "more was there");
    b.server.pump.reset(id);
    b.until(|b| b.client.has(|e| matches!(e, Event::Reset(..))));
    let Some(Event::Reset(stream)) = b.client.events.pop() else { panic!("no reset") };
    let ((), local, kept) = stream.into_parts();
    assert!(kept.len() == KEPT_MAX && kept.starts_with(b"hi"));
    assert!(matches!(local, LocalEnd::Flows { input: Some(_), .. }));
}

#[test]
fn the_end_of_the_link_ends_every_stream() {
    let mut b = Both::new();
    let other_end = b.connect();
    socket::shutdown_write(b.client.link.socket()).expect("shutdown");
    b.until(|b| b.server.pump.is_over());
    let order: Vec<bool> =
        b.server.events.iter().map(|e| matches!(e, Event::LinkFinished)).collect();
    assert!(order.contains(&true) && order.last() == Some(&false), "its streams come after it");
    assert_eq!(read(&other_end).expect("what came before"), b"hi");
    assert_eq!(read(&other_end).expect("the end"), b"");
}

#[test]
fn events_of_local_ends_come_before_the_error_of_the_link() {
    let mut b = Both::new();
    b.server.pump.close_with(b.id, Vec::new());
    b.server.pump.send_queued(&mut b.server.link).expect("give out");
    b.server.pump.failed = Some(Error::Truncated);
    assert!(matches!(b.server.pump.event(&mut b.server.link), Ok(Some(Event::Closed(..)))));
    assert!(matches!(b.server.pump.event(&mut b.server.link), Err(Error::Truncated)));
}

#[test]
fn one_frame_of_each_local_end_is_sent_in_turn() {
    let mut b = Both::new();
    let other = b.client.pump.open(()).expect("a stream");
    let mut ends = Vec::new();
    for id in [b.id, other] {
        let (local, end) = socket::pair().expect("pair");
        let local = LocalEnd::Flows { input: Some(Flow::of_socket(local)), output: None };
        b.client.pump.attach(id, local);
        // As a service or a program sends it: all at once.
        let all = vec![3; 3 * PIECE];
        assert_eq!(socket::send(end.as_fd(), &all).expect("send"), all.len());
        ends.push(end);
    }
    b.server.events.clear();
    b.until(|b| [b.id, other].iter().all(|id| b.server.held(*id).len() >= 3 * PIECE));
    let mut order: Vec<StreamId> = b
        .server
        .events
        .iter()
        .filter_map(|e| if let Event::Received(id) = e { Some(*id) } else { None })
        .collect();
    order.dedup();
    assert_eq!(order.len(), 6, "{order:?}");
}

#[test]
fn a_replacement_first_gets_what_its_predecessor_had_received_and_only_its_bytes_count() {
    let mut b = Both::new();
    let id = b.id;
    b.server.pump.take(id, 2);
    let before = b.connect();
    b.server.pump.ask_at_end(id);
    // More than the local end takes, so that some of it is held.
    let mut said = Vec::new();
    while b.server.pump.stream(id).is_some_and(|s| s.held().len() <= PIECE) {
        b.until(|b| b.client.pump.mux().send_window(id) >= PIECE);
        let piece: Vec<u8> = (0..PIECE).map(|n| ((said.len() + n) % 251) as u8).collect();
        b.client.pump.send_data(id, &piece);
        said.extend(piece);
        b.client.turn();
        b.server.turn();
    }
    b.client.pump.finish(id);
    socket::send(before.as_fd(), b"so far").expect("send");
    socket::shutdown_write(before.as_fd()).expect("shutdown");
    b.until(|b| b.server.has(|e| matches!(e, Event::LocalFinished(o) if *o == id)));
    b.until(|b| b.client.held(id) == b"so far");
    assert!(!b.client.has(|e| matches!(e, Event::Finished(_))));
    let mut first = Vec::new();
    while let Some(bytes) = read(&before) {
        first.extend(bytes);
    }
    let (local, other_end) = socket::pair().expect("pair");
    b.server.pump.count(id, Tally::default());
    b.server.pump.replace(id, LocalEnd::Socket(Flow::of_socket(local)), &first);
    let mut all = Vec::new();
    b.until(|_| {
        let mut bytes = [0; PIECE];
        match socket::receive(other_end.as_fd(), &mut bytes) {
            Ok(n) => all.extend_from_slice(&bytes[..n]),
            Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock),
        }
        all.len() >= said.len()
    });
    assert!(all == said, "{} bytes of {}", all.len(), said.len());
    b.until(|_| read(&other_end).is_some_and(|end| end.is_empty()));
    socket::send(other_end.as_fd(), b" and on").expect("send");
    drop(other_end);
    b.until(|b| tally(&b.server.events).is_some());
    let tally = tally(&b.server.events);
    let tally = tally.expect("a tally");
    assert_eq!((tally.received, tally.sent), (said.len() as u64, 7));
    b.until(|b| b.client.has(|e| matches!(e, Event::Finished(_))));
    assert_eq!(b.client.held(id), b"so far and on");
}

#[test]
fn what_is_to_be_told_waits_until_the_queue_has_room() {
    let mut b = Both::new();
    let id = b.id;
    b.client.pump.run(id, Run::of_caller(None, false));
    b.client.turn();
    // The server takes nothing meanwhile.
    while b.client.pump.out.taken() < OUT_MAX || !b.client.pump.has_backlog(&b.client.link) {
        let other = b.client.pump.open(()).expect("a stream");
        b.client.pump.send_data(other, &[7; 250_000]);
        b.client.turn();
    }
    b.client.pump.finish(id);
    b.client.turn();
    b.until(|b| b.server.held(id) == [&b"hi"[..], &crate::wire::run::end()].concat());
    b.until(|b| b.server.has(|e| matches!(e, Event::Finished(_))));
}

#[test]
fn the_owner_hears_of_a_terminal_before_its_output_is_passed_on() {
    use crate::wire::run::{Data, head, terminal};
    let mut b = Both::new();
    let (local, end) = socket::pair().expect("pair");
    b.client.pump.run(b.id, Run::of_caller(None, true));
    b.client.pump.attach(b.id, LocalEnd::Socket(Flow::of_socket(local)));
    b.client.pump.release(b.id);
    let said = [b"banner", &terminal()[..], &head(Data::Main, 6), b"output"].concat();
    b.server.pump.send_data(b.id, &said);
    b.until(|b| b.client.has(|e| matches!(e, Event::Terminal(_))));
    assert_eq!(read(&end).expect("bytes"), b"banner");
    b.client.pump.pass_rest(b.id);
    assert_eq!(read(&end).expect("bytes"), b"output");
}
