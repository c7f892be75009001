use super::*;
use proptest::prelude::*;

const NOW: Duration = Duration::from_secs(100);

fn frame(kind: Kind, flags: u16, stream: u32, length: u32) -> Vec<u8> {
    Header::new(kind, flags, stream, length).encode().to_vec()
}

fn data(flags: u16, stream: u32, bytes: &[u8]) -> Vec<u8> {
    [&frame(Kind::Data, flags, stream, bytes.len() as u32), bytes].concat()
}

fn mux() -> Mux {
    Mux::new(Duration::from_secs(30), 8, NOW)
}

/// Everything that these bytes mean, as text; data is taken as delivered where `deliver`.
fn feed(m: &mut Mux, mut bytes: &[u8], deliver: bool) -> Vec<String> {
    let mut seen = Vec::new();
    for _ in 0..10_000 {
        let (n, event) = m.receive(bytes, NOW);
        let got = match event {
            Some(Event::Data(id, d)) => Some((id, d.len())),
            _ => None,
        };
        match event {
            None if n == 0 && bytes.is_empty() => return seen,
            None => {}
            Some(Event::Data(id, d)) => seen.push(format!("data {} {}", id.0, d.len())),
            Some(e) => seen.push(format!("{e:?}")),
        }
        if let (Some((id, n)), true) = (got, deliver) {
            m.delivered(id, n, NOW);
        }
        bytes = &bytes[n..];
    }
    panic!("no end");
}

fn sent(m: &mut Mux) -> Vec<Header> {
    let mut out = Vec::new();
    m.take_control(&mut out);
    out.chunks(HEADER).map(|c| Header::decode(c.try_into().expect("whole")).expect("good")).collect()
}

fn broken(bytes: &[u8]) {
    let mut m = mux();
    let open = frame(Kind::WindowUpdate, SYN, 1, 0);
    let seen = feed(&mut m, &[&open, bytes].concat(), false);
    assert!(seen.last().is_some_and(|e| e.starts_with("Broken")), "{seen:?}");
    assert_eq!(sent(&mut m).last(), Some(&Header::new(Kind::GoAway, 0, 0, 1)));
    assert!(feed(&mut m, &open, false).is_empty(), "nothing follows the end");
}

#[test]
fn a_stream_from_its_opening_to_its_end() {
    let mut m = mux();
    let bytes = [frame(Kind::WindowUpdate, SYN, 1, 0), data(0, 1, b"date\r\n"), data(FIN, 1, b"x")].concat();
    assert_eq!(feed(&mut m, &bytes, true), ["Opened(StreamId(1))", "data 1 6", "data 1 1", "Finished(StreamId(1))"]);
    assert_eq!(sent(&mut m), [Header::new(Kind::WindowUpdate, ACK, 1, 0)]);
    assert_eq!(m.send_window(StreamId(1)), WINDOW as usize);
    assert_eq!(m.data(StreamId(1), 5), Header::new(Kind::Data, 0, 1, 5).encode());
    m.finish(StreamId(1));
    m.finish(StreamId(1));
    assert_eq!(sent(&mut m), [Header::new(Kind::WindowUpdate, FIN, 1, 0)]);
    assert_eq!(m.open_streams(), 0);
}

#[test]
fn a_stream_may_open_with_data_and_end_at_once() {
    let mut m = mux();
    assert_eq!(feed(&mut m, &data(SYN | FIN, 3, b"HELP\n"), true), ["Opened(StreamId(3))", "data 3 5", "Finished(StreamId(3))"]);
    assert_eq!(feed(&mut m, &frame(Kind::WindowUpdate, SYN | FIN, 5, 0), true), ["Opened(StreamId(5))", "Finished(StreamId(5))"]);
}

#[test]
fn credit_is_given_when_half_is_used_and_grows_on_a_fast_stream() {
    let mut m = mux();
    feed(&mut m, &frame(Kind::WindowUpdate, SYN, 1, 0), true);
    sent(&mut m);
    feed(&mut m, &data(0, 1, &vec![0; WINDOW as usize / 2 - 1]), true);
    assert!(sent(&mut m).is_empty());
    feed(&mut m, &data(0, 1, &[0]), true);
    assert_eq!(sent(&mut m), [Header::new(Kind::WindowUpdate, 0, 1, WINDOW / 2 + WINDOW)]);
    for _ in 0..20 {
        let credit = m.streams[&1].credit;
        feed(&mut m, &data(0, 1, &vec![0; credit as usize]), true);
        assert!(m.streams[&1].window <= WINDOW_MAX && m.grown <= SESSION_MAX);
    }
    assert_eq!(m.streams[&1].window, WINDOW_MAX);
}

#[test]
fn what_is_held_gets_no_credit() {
    let mut m = mux();
    feed(&mut m, &frame(Kind::WindowUpdate, SYN, 1, 0), false);
    feed(&mut m, &data(0, 1, &vec![0; WINDOW as usize]), false);
    assert_eq!(sent(&mut m).len(), 1);
    broken(&data(0, 1, &vec![0; WINDOW as usize + 1]));
}

#[test]
fn one_stream_too_many_is_reset_with_its_bytes() {
    let mut m = Mux::new(Duration::from_secs(30), 1, NOW);
    feed(&mut m, &frame(Kind::WindowUpdate, SYN, 1, 0), true);
    sent(&mut m);
    assert!(feed(&mut m, &data(SYN, 3, b"lost"), true).is_empty());
    assert_eq!(sent(&mut m), [Header::new(Kind::WindowUpdate, RST, 3, 0)]);
    assert_eq!(feed(&mut m, &data(0, 1, b"there"), true), ["data 1 5"]);
}

#[test]
fn a_reset_is_told_and_frames_on_their_way_are_thrown_away() {
    let mut m = mux();
    feed(&mut m, &frame(Kind::WindowUpdate, SYN, 1, 0), true);
    assert_eq!(feed(&mut m, &frame(Kind::WindowUpdate, RST, 1, 0), true), ["Reset(StreamId(1))"]);
    assert!(feed(&mut m, &[data(0, 1, b"late"), frame(Kind::WindowUpdate, 0, 1, 5), data(FIN, 1, b"")].concat(), true).is_empty());
    assert_eq!(m.open_streams(), 0);
}

#[test]
fn what_breaks_the_protocol_ends_the_session() {
    broken(&frame(Kind::WindowUpdate, SYN, 1, 0));
    broken(&frame(Kind::WindowUpdate, SYN, 2, 0));
    broken(&frame(Kind::Data, SYN, 0, 0));
    broken(&[data(FIN, 1, b""), data(FIN, 1, b"")].concat());
    broken(&[data(FIN, 1, b""), data(0, 1, b"x")].concat());
    broken(&[1; HEADER]);
    broken(&[0, 9, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
    broken(&[0, 0, 0, 16, 0, 0, 0, 1, 0, 0, 0, 0]);
    broken(&frame(Kind::Ping, SYN, 1, 0));
    broken(&frame(Kind::GoAway, 0, 1, 0));
}

/// CVE-2026-32314 (rust yamux): the length of the frame that opens a stream was checked behind making its state.
#[test]
fn cve_2026_32314_a_length_that_lies_makes_no_state() {
    let mut m = mux();
    let seen = feed(&mut m, &frame(Kind::Data, SYN, 1, u32::MAX), false);
    assert!(seen[0].starts_with("Broken") && m.open_streams() == 0);
    let mut m = mux();
    let seen = feed(&mut m, &frame(Kind::Data, SYN, 1, WINDOW + 1), false);
    assert!(seen[0].starts_with("Broken") && m.open_streams() == 0);
}

/// CVE-2026-31814 (rust yamux): credit that overflows.
#[test]
fn cve_2026_31814_credit_that_overflows() {
    broken(&frame(Kind::WindowUpdate, 0, 1, u32::MAX));
}

/// CVE-2024-32984 (rust yamux): frames that ask for answers, without reading them, filled the memory.
#[test]
fn cve_2024_32984_whoever_asks_without_reading_is_no_longer_read() {
    let mut m = mux();
    let mut read = 0;
    while m.control_queued() <= CONTROL_MAX {
        feed(&mut m, &frame(Kind::Ping, SYN, 0, read), true);
        read += 1;
    }
    assert!(read as usize <= CONTROL_MAX / HEADER + 1);
}

#[test]
fn a_ping_is_answered_and_silence_is_asked_about_and_ends() {
    let mut m = mux();
    feed(&mut m, &[frame(Kind::Ping, SYN, 0, 77), frame(Kind::Ping, ACK, 0, 1)].concat(), true);
    assert_eq!(sent(&mut m), [Header::new(Kind::Ping, ACK, 0, 77)]);
    let s = |n| NOW + Duration::from_secs(n);
    assert_eq!(m.next_deadline(), s(30));
    assert!(m.tick(s(30)).is_none());
    assert_eq!(sent(&mut m), [Header::new(Kind::Ping, SYN, 0, 1)]);
    assert_eq!(m.next_deadline(), s(60));
    assert!(m.tick(s(60)).is_none() && sent(&mut m).len() == 1);
    assert!(matches!(m.tick(s(90)), Some(Event::Broken("silence"))));
}

#[test]
fn behind_a_service_that_has_gone_bytes_are_thrown_away_for_a_while() {
    let mut m = mux();
    feed(&mut m, &frame(Kind::WindowUpdate, SYN, 1, 0), true);
    m.drain(StreamId(1), NOW);
    sent(&mut m);
    let mut thrown = 0;
    while m.open_streams() == 1 {
        assert!(feed(&mut m, &data(0, 1, &vec![0; PIECE]), true).is_empty());
        thrown += PIECE as u32;
    }
    assert!(thrown > DRAIN_BYTES && thrown <= DRAIN_BYTES + PIECE as u32);
    assert_eq!(sent(&mut m).last(), Some(&Header::new(Kind::WindowUpdate, RST, 1, 0)));

    feed(&mut m, &frame(Kind::WindowUpdate, SYN, 3, 0), true);
    m.drain(StreamId(3), NOW);
    assert!(m.tick(NOW + DRAIN_TIME).is_none_or(|e| e == Event::Broken("silence")));

    let mut m = mux();
    feed(&mut m, &frame(Kind::WindowUpdate, SYN, 5, 0), true);
    m.drain(StreamId(5), NOW);
    assert!(feed(&mut m, &data(FIN, 5, b"last"), true).is_empty());
    assert_eq!(m.open_streams(), 0);
    assert!(sent(&mut m).iter().all(|h| h.flags & RST == 0));
}

#[test]
fn after_go_away_nothing_new_and_all_that_was() {
    let mut m = mux();
    feed(&mut m, &frame(Kind::WindowUpdate, SYN, 1, 0), true);
    m.go_away();
    m.go_away();
    assert!(feed(&mut m, &frame(Kind::WindowUpdate, SYN, 3, 0), true).is_empty());
    assert_eq!(feed(&mut m, &data(0, 1, b"on"), true), ["data 1 2"]);
    let seen = sent(&mut m);
    assert_eq!(seen.iter().filter(|h| h.kind == Kind::GoAway).count(), 1);
    assert!(seen.contains(&Header::new(Kind::WindowUpdate, RST, 3, 0)));
    assert_eq!(feed(&mut m, &frame(Kind::GoAway, 0, 0, 0), true), ["GoAway(0)"]);
}

fn some_frame() -> impl Strategy<Value = Vec<u8>> {
    let flags = prop_oneof![Just(0), Just(SYN), Just(FIN), Just(RST), Just(SYN | FIN), 0u16..16];
    (0u8..5, flags, 0u32..8, prop_oneof![0u32..40, any::<u32>()], 0usize..40).prop_map(|(kind, flags, stream, length, n)| {
        let kinds = [Kind::Data, Kind::WindowUpdate, Kind::Ping, Kind::GoAway];
        match kinds.get(usize::from(kind)) {
            Some(Kind::Data) => data(flags, stream, &vec![7; n]),
            Some(k) => frame(*k, flags, stream, length),
            None => vec![kind; n],
        }
    })
}

/// Events with pieces of data put together, so that splitting does not show.
fn joined(events: Vec<String>) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for e in events {
        let parts: Vec<&str> = e.split(' ').collect();
        if let (["data", id, n], Some(last)) = (&parts[..], out.last_mut())
            && let Some(before) = last.strip_prefix(&format!("data {id} ")).and_then(|b| b.parse::<usize>().ok())
        {
            *last = format!("data {id} {}", before + n.parse::<usize>().expect("number"));
            continue;
        }
        if !e.ends_with(" 0") {
            out.push(e);
        }
    }
    out
}

proptest! {
    #[test]
    fn splitting_changes_nothing(frames in proptest::collection::vec(some_frame(), 0..20), step in 1usize..50) {
        let bytes = frames.concat();
        let (mut a, mut b) = (mux(), mux());
        let whole = feed(&mut a, &bytes, true);
        let mut parts = Vec::new();
        for chunk in bytes.chunks(step) {
            parts.extend(feed(&mut b, chunk, true));
        }
        prop_assert_eq!(joined(whole), joined(parts));
        prop_assert_eq!(sent(&mut a), sent(&mut b));
        prop_assert!(a.open_streams() <= 8);
    }
}
