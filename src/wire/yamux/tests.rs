//! What the engine answers to frames, one rule at a time.

use super::*;

mod client;

pub(super) const NOW: Duration = Duration::from_secs(1000);
const LATER: Duration = Duration::from_secs(1001);

pub(super) fn session() -> Mux {
    Mux::new(Duration::from_secs(30), 4, NOW)
}

pub(super) fn frame(kind: Kind, flags: u16, stream: u32, length: u32) -> Vec<u8> {
    let header = Header { kind, flags, stream, length };
    header.encode().to_vec()
}

fn data(flags: u16, stream: u32, payload: &[u8]) -> Vec<u8> {
    [&frame(Kind::Data, flags, stream, payload.len() as u32), payload].concat()
}

/// The events that the bytes cause, as text; data is joined however it was split.
pub(super) fn receive_all(mux: &mut Mux, mut bytes: &[u8]) -> Vec<String> {
    let (mut events, mut before): (Vec<String>, _) = (vec![], None);
    loop {
        let (taken, event) = mux.receive(bytes, NOW);
        bytes = &bytes[taken..];
        let text = match event {
            None => break,
            Some(Event::Data(id, part)) if before == Some(id) => {
                let last = events.len() - 1;
                events[last].push_str(&String::from_utf8_lossy(part));
                continue;
            }
            Some(Event::Data(id, part)) => {
                before = Some(id);
                events.push(format!("{id}: {}", String::from_utf8_lossy(part)));
                continue;
            }
            Some(Event::Opened(id)) => format!("{id} opened"),
            Some(Event::Accepted(id)) => format!("{id} accepted"),
            Some(Event::Finished(id)) => format!("{id} finished"),
            Some(Event::Reset(id)) => format!("{id} reset"),
            Some(Event::GoAway(code)) => format!("go-away {code}"),
            Some(Event::Broken(why)) => why.to_string(),
        };
        before = None;
        events.push(text);
    }
    assert!(bytes.is_empty());
    events
}

/// The control frames that are queued.
pub(super) fn control(mux: &mut Mux) -> Vec<(Kind, u16, u32, u32)> {
    let mut out = Vec::new();
    mux.take_control(&mut out);
    assert_eq!(mux.control_queued(), 0);
    let frames = out.chunks(HEADER).map(|bytes| {
        assert_eq!(bytes[0], 0);
        let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        let kind = [Kind::Data, Kind::Window, Kind::Ping, Kind::GoAway][usize::from(bytes[1])];
        let flags = u16::from_be_bytes([bytes[2], bytes[3]]);
        (kind, flags, number(4), number(8))
    });
    frames.collect()
}

fn drained(mux: &mut Mux, bytes: &[u8], now: Duration) {
    assert_eq!(mux.receive(bytes, now), (bytes.len(), None));
}

#[test]
fn a_stream_from_its_opening_to_both_ends() {
    let mut mux = session();
    let bytes = [data(SYN, 1, b"date\r\n"), data(FIN, 1, b"more")].concat();
    assert_eq!(receive_all(&mut mux, &bytes), ["1 opened", "1: date\r\nmore", "1 finished"]);
    assert_eq!(control(&mut mux), [(Kind::Window, ACK, 1, 0)]);
    let id = StreamId(1);
    assert_eq!(mux.send_window(id), 256 * 1024);
    let header = mux.data(id, 3);
    assert_eq!(header, [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 3]);
    assert_eq!(mux.send_window(id), 256 * 1024 - 3);
    mux.finish(id);
    mux.finish(id);
    assert_eq!(control(&mut mux), [(Kind::Window, FIN, 1, 0)]);
    assert_eq!((mux.open_streams(), mux.send_window(id)), (0, 0));
}

#[test]
fn every_way_to_open_a_stream() {
    let mut mux = session();
    let go = frame(Kind::Window, SYN, 5, 1024);
    let lazy = data(SYN | FIN, 1, b"");
    assert_eq!(receive_all(&mut mux, &[go, lazy].concat()), ["5 opened", "1 opened", "1 finished"]);
    assert_eq!(mux.send_window(StreamId(5)), 257 * 1024);
    assert_eq!(control(&mut mux), [(Kind::Window, ACK, 5, 0), (Kind::Window, ACK, 1, 0)]);
    // A stream that never opened may be given up: the yamux crate does so without SYN.
    let bytes = [data(FIN, 3, b""), data(RST, 7, b""), frame(Kind::Window, 0, 9, 1)];
    assert_eq!(receive_all(&mut mux, &bytes.concat()), [] as [&str; 0]);
    assert!(control(&mut mux).is_empty());
}

#[test]
fn one_stream_more_is_reset_and_what_it_says_is_thrown_away() {
    let mut mux = session();
    for n in [1, 3, 5, 7] {
        receive_all(&mut mux, &data(SYN, n, b""));
    }
    control(&mut mux);
    let bytes = [data(SYN, 9, b"HELP\r\n"), data(FIN, 9, b"late"), data(0, 7, b"x")].concat();
    assert_eq!(receive_all(&mut mux, &bytes), ["7: x"]);
    assert_eq!(control(&mut mux), [(Kind::Window, RST, 9, 0)]);
    mux.reset(StreamId(1), NOW);
    mux.set_max_streams(5);
    assert_eq!(receive_all(&mut mux, &data(SYN, 11, b"")), ["11 opened"]);
    assert_eq!(mux.open_streams(), 4);
}

#[test]
fn what_breaks_the_protocol_ends_it_once() {
    let full = vec![b'x'; 256 * 1024];
    for (bytes, why) in [
        (vec![9; HEADER], "another version of yamux"),
        (data(SYN, 1, b""), "an open stream opened again"),
        (data(SYN, 3, b""), "a stream number used twice"),
        (data(0, 1, &[&full[..], b"x"].concat()), "data beyond the window"),
        (frame(Kind::Data, SYN, 7, 256 * 1024 + 1), "data beyond the window"),
        (frame(Kind::Data, RST, 1, u32::MAX), "data beyond the window"),
        (frame(Kind::Data, 0, 3, 256 * 1024 + 1), "data beyond the window"),
        (frame(Kind::Data, 0, 9, 1), "data of a stream that was never opened"),
        (data(0, 5, b"x"), "data or an end after the end"),
        (data(FIN, 5, b""), "data or an end after the end"),
        (frame(Kind::Window, FIN, 5, 0), "data or an end after the end"),
        (frame(Kind::Window, 0, 1, u32::MAX), "a window too large"),
        (frame(Kind::Window, SYN, 7, u32::MAX), "a window too large"),
    ] {
        let mut mux = session();
        let begin = [data(SYN, 1, b""), data(SYN, 3, b""), data(SYN | FIN, 5, b"")];
        receive_all(&mut mux, &begin.concat());
        mux.reset(StreamId(3), NOW);
        control(&mut mux);
        let events = receive_all(&mut mux, &[&bytes[..], &[7; 99]].concat());
        assert_eq!(events, [why]);
        assert_eq!(control(&mut mux), [(Kind::GoAway, 0, 0, 1)]);
        assert!(receive_all(&mut mux, &data(SYN, 21, b"")).is_empty());
        mux.go_away(NOW);
        assert_eq!(mux.tick(NOW * 9), None);
        assert!(control(&mut mux).is_empty());
    }
}

#[test]
fn what_crosses_a_reset_is_taken_up_to_the_window() {
    let mut mux = session();
    let most = INITIAL_WINDOW as usize;
    receive_all(&mut mux, &data(SYN, 1, b"12345"));
    mux.reset(StreamId(1), NOW);
    assert_eq!(control(&mut mux)[1], (Kind::Window, RST, 1, 0));
    let bytes = [
        data(0, 1, &vec![0; most - 6]),
        frame(Kind::Window, 0, 1, u32::MAX),
        data(0, 1, b"6"),
        data(RST, 1, b""),
    ];
    assert!(receive_all(&mut mux, &bytes.concat()).is_empty());
    assert_eq!(receive_all(&mut mux, &data(0, 1, b"7")), ["data beyond the window"]);
}

#[test]
fn nothing_comes_after_an_end_also_when_the_stream_is_forgotten() {
    for (end, after) in [
        (data(SYN | FIN, 1, b"x"), data(0, 1, b"y")),
        ([data(SYN, 1, b""), data(FIN, 1, b"x")].concat(), frame(Kind::Window, FIN, 1, 0)),
        ([data(SYN, 1, b""), frame(Kind::Window, FIN, 1, 0)].concat(), data(FIN, 1, b"")),
    ] {
        let mut mux = session();
        receive_all(&mut mux, &end);
        mux.finish(StreamId(1));
        assert_eq!(mux.open_streams(), 0);
        // It may still grant window, and reset the stream.
        assert!(
            receive_all(
                &mut mux,
                &[frame(Kind::Window, 0, 1, 9), frame(Kind::Window, RST, 1, 0)].concat()
            )
            .is_empty()
        );
        assert_eq!(receive_all(&mut mux, &after), ["data or an end after the end"]);
    }
    // The first FIN may have crossed our reset; the second cannot have.
    let mut mux = session();
    receive_all(&mut mux, &data(SYN, 1, b"x"));
    mux.reset(StreamId(1), NOW);
    assert!(receive_all(&mut mux, &frame(Kind::Window, FIN, 1, 0)).is_empty());
    assert_eq!(
        receive_all(&mut mux, &frame(Kind::Window, FIN, 1, 0)),
        ["data or an end after the end"]
    );
}

#[test]
fn a_reset_in_the_middle_of_a_frame() {
    let mut mux = session();
    let bytes = data(SYN, 1, b"half and half");
    assert_eq!(receive_all(&mut mux, &bytes[..16]), ["1 opened", "1: half"]);
    mux.reset(StreamId(1), NOW);
    let rest = [&bytes[16..], &data(SYN, 3, b"next")].concat();
    assert_eq!(receive_all(&mut mux, &rest), ["3 opened", "3: next"]);
}

#[test]
fn credit_for_what_was_delivered_and_nothing_else() {
    let mut mux = session();
    let half = INITIAL_WINDOW as usize / 2;
    receive_all(&mut mux, &data(SYN, 1, &vec![0; half * 2]));
    control(&mut mux);
    mux.delivered(StreamId(1), half - 1, LATER);
    assert_eq!(mux.control_queued(), 0);
    mux.delivered(StreamId(1), 1, LATER);
    // The first credit also measures the round trip.
    assert_eq!(control(&mut mux), [(Kind::Window, 0, 1, half as u32), (Kind::Ping, SYN, 0, 1)]);
    mux.delivered(StreamId(1), usize::MAX, LATER);
    assert_eq!(control(&mut mux), [(Kind::Window, 0, 1, half as u32)]);
    mux.delivered(StreamId(1), usize::MAX, LATER);
    mux.delivered(StreamId(3), usize::MAX, LATER);
    assert!(control(&mut mux).is_empty());
    // After the client's end nobody needs any.
    receive_all(&mut mux, &data(FIN, 1, &vec![0; half]));
    mux.delivered(StreamId(1), half, LATER);
    assert!(control(&mut mux).is_empty());
}

#[test]
fn all_windows_together_have_a_bound() {
    let mut mux = Mux::new(Duration::ZERO, 128, NOW);
    for n in 0..8 {
        receive_all(&mut mux, &data(SYN, 2 * n + 1, b""));
    }
    for _ in 0..400 {
        for n in 0..8 {
            receive_all(&mut mux, &data(0, 2 * n + 1, &vec![0; 128 * 1024]));
            mux.delivered(StreamId(2 * n + 1), 128 * 1024, NOW);
        }
    }
    let windows = |mux: &Mux| mux.streams.values().map(|s| u64::from(s.window)).sum::<u64>();
    assert_eq!(windows(&mux), SESSION_WINDOW);
    assert_eq!(windows(&mux), mux.windows);
    (0..8).for_each(|n| mux.reset(StreamId(2 * n + 1), NOW));
    assert_eq!(mux.windows, 0);
}

#[test]
fn a_drained_stream_ends_with_its_client() {
    let mut mux = session();
    receive_all(&mut mux, &data(SYN, 1, &[0; 100]));
    mux.drain(StreamId(1), NOW);
    assert_eq!(control(&mut mux)[1..], [(Kind::Window, FIN, 1, 0)]);
    drained(&mut mux, &data(0, 1, &vec![0; 200 * 1024]), NOW);
    assert_eq!(control(&mut mux)[0], (Kind::Window, 0, 1, 200 * 1024 + 100));
    assert_eq!(mux.next_deadline(), NOW + DRAIN_TIME);
    drained(&mut mux, &data(FIN, 1, b"bye"), NOW);
    assert_eq!(mux.open_streams(), 0);
    assert_eq!(mux.tick(NOW + DRAIN_TIME - Duration::from_secs(1)), None);
    assert!(control(&mut mux).is_empty());
}

#[test]
fn a_drain_has_an_end_in_time_and_in_bytes() {
    let mut mux = session();
    receive_all(&mut mux, &[data(SYN, 1, b""), data(SYN, 3, b"")].concat());
    mux.finish(StreamId(1));
    // After our FIN a reset is a drain.
    mux.reset(StreamId(1), NOW);
    mux.drain(StreamId(3), LATER);
    mux.drain(StreamId(3), LATER * 2);
    control(&mut mux);
    let mut sent = 0;
    while mux.open_streams() == 2 {
        drained(&mut mux, &data(0, 1, &[0; 1024]), LATER);
        sent += 1024;
    }
    assert_eq!(sent, DRAIN_BYTES);
    assert_eq!(control(&mut mux).pop(), Some((Kind::Window, RST, 1, 0)));
    assert_eq!(mux.next_deadline(), LATER + Duration::from_secs(30));
    drained(&mut mux, &data(0, 3, b"x"), LATER + Duration::from_secs(29));
    assert_eq!(mux.tick(LATER + DRAIN_TIME), None);
    assert_eq!(control(&mut mux), [(Kind::Window, RST, 3, 0)]);
    assert_eq!(mux.open_streams(), 0);
}

#[test]
fn silence_is_asked_about_and_then_ends() {
    let mut mux = session();
    let at = |seconds| NOW + Duration::from_secs(seconds);
    assert_eq!((mux.next_deadline(), mux.tick(at(30))), (at(30), None));
    assert_eq!(control(&mut mux), [(Kind::Ping, SYN, 0, 1)]);
    assert_eq!(mux.receive(&[0], at(40)), (1, None));
    assert_eq!(mux.next_deadline(), at(70));
    assert_eq!(mux.tick(at(70)), None);
    assert_eq!(mux.tick(at(100)), None);
    mux.peer_is_alive(at(101));
    assert_eq!(mux.tick(at(190)), None);
    assert_eq!(mux.tick(at(191)), Some(Event::Broken("silence")));
    assert_eq!(Mux::new(Duration::ZERO, 1, NOW).next_deadline(), Duration::MAX);
}

#[test]
fn go_away_ends_new_streams_and_nothing_else() {
    for ours in [true, false] {
        let mut mux = session();
        receive_all(&mut mux, &data(SYN, 1, b""));
        control(&mut mux);
        if ours {
            mux.go_away(NOW);
            mux.go_away(NOW);
            assert_eq!(control(&mut mux), [(Kind::GoAway, 0, 0, 0), (Kind::Ping, SYN, 0, 1)]);
            // It has read both.
            assert!(receive_all(&mut mux, &frame(Kind::Ping, ACK, 0, 1)).is_empty());
        } else {
            let events = receive_all(&mut mux, &frame(Kind::GoAway, 0, 0, 0));
            assert_eq!(events, ["go-away 0"]);
            mux.go_away(NOW);
            assert_eq!(control(&mut mux), [(Kind::GoAway, 0, 0, 0)]);
        }
        assert!(mux.is_going_away() && !mux.is_over());
        let bytes = [data(SYN, 3, b"date"), data(0, 1, b"on")].concat();
        assert_eq!(receive_all(&mut mux, &bytes), ["1: on"]);
        assert_eq!(control(&mut mux), [(Kind::Window, RST, 3, 0)]);
        mux.finish(StreamId(1));
        assert_eq!(receive_all(&mut mux, &data(FIN, 1, b"")), ["1 finished"]);
        assert!(mux.is_over());
    }
}

#[test]
fn what_crosses_go_away_is_served() {
    let mut mux = session();
    mux.go_away(NOW);
    assert!(mux.is_going_away() && !mux.is_over());
    control(&mut mux);
    assert_eq!(
        receive_all(&mut mux, &[data(SYN, 1, b"date"), frame(Kind::Ping, ACK, 0, 7)].concat()),
        ["1 opened", "1: date"]
    );
    assert_eq!(
        receive_all(&mut mux, &[frame(Kind::Ping, ACK, 0, 1), data(SYN, 3, b"")].concat()),
        [""; 0]
    );
    assert_eq!(control(&mut mux), [(Kind::Window, ACK, 1, 0), (Kind::Window, RST, 3, 0)]);
    // A client that does not answer pings is waited for until then.
    let mut mux = session();
    mux.go_away(NOW);
    assert_eq!(mux.next_deadline(), NOW + GO_AWAY_TIME);
    mux.tick(NOW + GO_AWAY_TIME);
    assert!(mux.is_over());
    // A client that has sent go-away itself opens no more.
    let mut mux = session();
    mux.go_away(NOW);
    receive_all(&mut mux, &frame(Kind::GoAway, 0, 0, 0));
    assert!(mux.is_over());
}

#[test]
fn pings_are_answered_and_foreign_answers_mean_nothing() {
    let mut mux = session();
    let bytes = [frame(Kind::Ping, SYN, 0, 77), frame(Kind::Ping, ACK, 0, 5)];
    assert!(receive_all(&mut mux, &bytes.concat()).is_empty());
    assert_eq!(control(&mut mux), [(Kind::Ping, ACK, 0, 77)]);
}

#[test]
fn windows_that_are_kept_do_not_grow() {
    for keep in [false, true] {
        let mut mux = session();
        if keep {
            mux.keep_windows();
        }
        receive_all(&mut mux, &frame(Kind::Window, SYN, 1, 0));
        for _ in 0..64 {
            receive_all(&mut mux, &[frame(Kind::Data, 0, 1, 65_536), vec![0; 65_536]].concat());
            mux.delivered(StreamId(1), 65_536, NOW);
        }
        assert_eq!(mux.windows, u64::from(if keep { INITIAL_WINDOW } else { STREAM_WINDOW }));
    }
}
