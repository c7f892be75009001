//! A stranger's frames, split anywhere, in a session whose caller does everything that a caller does: nothing panics, and what is
//! held and queued has its bounds.
#![no_main]

use fived::wire::yamux::{Event, HEADER, INITIAL_WINDOW, Mux, PIECE, SESSION_WINDOW};
use libfuzzer_sys::fuzz_target;
use std::time::Duration;

const STREAMS: u32 = 8;

fuzz_target!(|input: (Vec<u8>, u8, Vec<u8>)| {
    let (bytes, step, acts) = (input.0, usize::from(input.1).max(1), input.2);
    let (mut now, mut acts) = (Duration::from_secs(1), acts.into_iter().cycle());
    let mut mux = Mux::new(Duration::from_secs(30), STREAMS, now);
    let (mut held, mut out) = (0u64, Vec::new());
    for mut segment in bytes.chunks(step) {
        let queued = mux.control_queued();
        let (length, mut events) = (segment.len(), 0);
        loop {
            let (taken, event) = mux.receive(segment, now);
            segment = &segment[taken..];
            events += 1;
            let (id, n) = match event {
                None => break,
                Some(Event::Broken(_)) => return,
                Some(Event::GoAway(_)) => continue,
                Some(Event::Data(id, data)) => (id, data.len()),
                Some(
                    Event::Opened(id)
                    | Event::Accepted(id)
                    | Event::Finished(id)
                    | Event::Reset(id),
                ) => (id, 0),
            };
            held += n as u64;
            let act = acts.next().unwrap_or(0);
            match act % 8 {
                0 => mux.finish(id),
                1 => mux.reset(id, now),
                2 => mux.drain(id, now),
                3 => {
                    let n = mux.send_window(id).min(PIECE);
                    if n > 0 {
                        assert_eq!(mux.data(id, n).len(), HEADER);
                    }
                }
                4 => drop(mux.open(now)),
                _ => mux.delivered(id, usize::MAX, now),
            }
            now += Duration::from_millis(u64::from(act));
            if mux.tick(now).is_some() {
                return;
            }
        }
        assert!(segment.is_empty());
        // An answer to each frame; by each event an end or a beginning, credit, and two pings; the
        // ends of drains.
        let most = length / HEADER + 1 + 4 * events + 2 * STREAMS as usize;
        assert!(mux.control_queued() <= queued + HEADER * most);
        assert!(mux.open_streams() <= 2 * STREAMS as usize);
        out.clear();
        mux.take_control(&mut out);
        assert!(held <= bytes.len() as u64);
    }
    assert!(SESSION_WINDOW >= u64::from(STREAMS * INITIAL_WINDOW));
});
