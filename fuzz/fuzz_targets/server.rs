//! What five reads: a server's answers and frames, an agent's messages, another five's.
#![no_main]

use fived::wire::agent;
use fived::wire::answer::{AnswerReader, Outcome};
use fived::wire::handover::{Ask, Notice};
use fived::wire::yamux::{Event, Mux};
use libfuzzer_sys::fuzz_target;
use std::time::Duration;

fuzz_target!(|input: (Vec<u8>, u8, bool, bool)| {
    let (bytes, step, host, help) = (input.0, usize::from(input.1).max(1), input.2, input.3);
    let _ = agent::keys(&bytes);
    let _ = agent::signature(&bytes);
    if let Some(ask) = Ask::decode(&bytes) {
        assert_eq!(ask.encode(), bytes);
    }
    if let Some(notice) = Notice::decode(&bytes) {
        assert_eq!(notice.encode(), bytes);
    }
    let offers = bytes.len().is_multiple_of(2);
    let mut answer = if offers { AnswerReader::offer(host) } else { AnswerReader::new(host, help) };
    for segment in bytes.chunks(step) {
        let (taken, outcome) = answer.feed(segment);
        assert!(taken <= segment.len());
        if outcome != Outcome::More {
            break;
        }
    }
    let now = Duration::from_secs(1);
    let mut mux = Mux::client(Duration::ZERO, now);
    if offers {
        mux.set_max_streams(3);
    }
    let first = mux.open(now);
    assert!(mux.open(now) != first);
    for mut segment in bytes.chunks(step) {
        loop {
            let (taken, event) = mux.receive(segment, now);
            segment = &segment[taken..];
            match event {
                None => break,
                Some(Event::Broken(_)) => return,
                Some(Event::Opened(id)) => {
                    assert!(offers, "a server opens no streams");
                    mux.accept(id);
                }
                Some(Event::Data(id, data)) => mux.delivered(id, data.len(), now),
                Some(_) => {}
            }
        }
        assert!(mux.open_streams() <= if offers { 5 } else { 2 });
    }
});
