//! What went wrong in other implementations of yamux, one test each, named by what it was called
//! there.
//!
//! The engine alone, by its public face; a real session's own tests send the same frames through a
//! real connection.

use fived::wire::yamux::{
    CONTROL_MAX, Event, HEADER, INITIAL_WINDOW, Mux, SESSION_WINDOW, STREAM_WINDOW,
};
use std::time::Duration;

const DATA: u8 = 0;
const WINDOW: u8 = 1;
const PING: u8 = 2;
const SYN: u8 = 1;
const FIN: u8 = 4;
const RST: u8 = 8;
const NOW: Duration = Duration::from_secs(1);

fn frame(kind: u8, flags: u8, stream: u32, length: u32) -> [u8; HEADER] {
    let mut frame = [0, kind, 0, flags, 0, 0, 0, 0, 0, 0, 0, 0];
    frame[4..8].copy_from_slice(&stream.to_be_bytes());
    frame[8..].copy_from_slice(&length.to_be_bytes());
    frame
}

fn session() -> Mux {
    Mux::new(Duration::from_secs(30), 8, NOW)
}

/// Everything is taken; true where the session goes on.
fn goes_on(mux: &mut Mux, mut bytes: &[u8]) -> bool {
    loop {
        let (taken, event) = mux.receive(bytes, NOW);
        bytes = &bytes[taken..];
        match event {
            None => return true,
            Some(Event::Broken(_)) => return false,
            Some(_) => {}
        }
    }
}

fn ends_with_go_away(mux: &mut Mux, bytes: &[u8]) {
    let mut out = Vec::new();
    mux.take_control(&mut out);
    assert!(!goes_on(mux, bytes));
    out.clear();
    mux.take_control(&mut out);
    assert_eq!(out, [0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
}

/// The yamux crate before 0.13.2 queued frames without a bound for a peer that pings, or opens, and
/// does not read.
#[test]
fn cve_2024_32984_asking_without_reading() {
    for flood in [
        frame(PING, SYN, 0, 9).to_vec(),
        [frame(WINDOW, SYN, 1, 0), frame(WINDOW, RST, 1, 0)].concat(),
    ] {
        let (mut mux, mut id, mut heard) = (session(), 1u32, 0);
        // What the session's thread does: it reads while the queue is short, at most so much at a
        // time.
        while mux.control_queued() <= CONTROL_MAX && heard < 100_000_000 {
            let mut some = Vec::new();
            while some.len() < 16 * 1024 {
                let mut flood = flood.clone();
                if flood[1] == WINDOW {
                    flood[4..8].copy_from_slice(&id.to_be_bytes());
                    flood[16..20].copy_from_slice(&id.to_be_bytes());
                    id += 2;
                }
                some.extend(flood);
            }
            heard += some.len();
            assert!(goes_on(&mut mux, &some));
        }
        assert!(mux.control_queued() <= CONTROL_MAX + 16 * 1024 + 2 * HEADER);
        assert!(mux.open_streams() <= 1);
    }
}

/// The yamux crate before 0.13.10 made a stream, saw that its first body was more than the window,
/// and panicked over what it had made.
#[test]
fn cve_2026_32314_a_first_body_larger_than_the_window() {
    for length in [INITIAL_WINDOW + 1, u32::MAX] {
        let mut mux = session();
        ends_with_go_away(&mut mux, &frame(DATA, SYN, 1, length));
        assert_eq!(mux.open_streams(), 0);
    }
    assert!(goes_on(&mut session(), &frame(DATA, SYN, 1, INITIAL_WINDOW)));
}

/// The yamux crate before 0.13.9 added a peer's credit without looking.
#[test]
fn cve_2026_31814_credit_beyond_all_numbers() {
    for flags in [SYN, SYN | FIN] {
        ends_with_go_away(&mut session(), &frame(WINDOW, flags, 1, u32::MAX - INITIAL_WINDOW + 1));
    }
    let mut mux = session();
    assert!(goes_on(&mut mux, &frame(WINDOW, SYN, 1, u32::MAX - INITIAL_WINDOW)));
    ends_with_go_away(&mut mux, &frame(WINDOW, FIN, 1, 1));
}

/// libp2p before 0.18.1 (Go) and 0.45.1 (Rust) kept state for whatever a peer opened.
#[test]
fn cve_2022_23492_and_23486_opening_without_end() {
    let mut mux = session();
    for n in 0..100_000 {
        let alive = goes_on(
            &mut mux,
            &[frame(WINDOW, SYN, 2 * n + 1, 0), frame(DATA, 0, 2 * n + 1, 0)].concat(),
        );
        assert!(alive);
        let mut out = Vec::new();
        mux.take_control(&mut out);
        assert_eq!(out.len(), HEADER);
        assert_eq!(out[3], if n < 8 { 2 } else { RST });
    }
    assert_eq!(mux.open_streams(), 8);
}

/// hashicorp/yamux (GHSA-29qp-crvh-w22m): whoever waits for a peer that has fallen silent waits for
/// ever.
#[test]
fn ghsa_29qp_crvh_w22m_a_peer_that_stalls() {
    let mut mux = session();
    assert!(goes_on(&mut mux, &frame(WINDOW, SYN, 1, 0)));
    let (mut now, mut pings) = (NOW, 0);
    let end = loop {
        now = now.max(mux.next_deadline());
        let mut out = Vec::new();
        let event = mux.tick(now);
        mux.take_control(&mut out);
        pings += out.chunks(HEADER).filter(|f| f[1] == PING).count();
        if event.is_some() {
            break event;
        }
    };
    assert_eq!(end, Some(Event::Broken("silence")));
    assert_eq!((pings, now), (2, NOW + Duration::from_secs(90)));
}

/// rust-yamux#188: windows that grow and bounds that do not. All that a client may make its server
/// hold is what was granted.
#[test]
fn rust_yamux_188_windows_and_bounds_agree() {
    let mut mux = Mux::new(Duration::from_secs(30), 8, NOW);
    let mut may: Vec<u64> = vec![INITIAL_WINDOW.into(); 8];
    let payload = vec![0; 64 * 1024];
    for n in 0..8 {
        assert!(goes_on(&mut mux, &frame(WINDOW, SYN, 2 * n + 1, 0)));
    }
    for _ in 0..2000 {
        for n in 0..8u32 {
            if may[n as usize] < 64 * 1024 {
                continue;
            }
            may[n as usize] -= 64 * 1024;
            let mut bytes: &[u8] = &[&frame(DATA, 0, 2 * n + 1, 64 * 1024)[..], &payload].concat();
            loop {
                let (taken, event) = mux.receive(bytes, NOW);
                bytes = &bytes[taken..];
                match event {
                    None => break,
                    Some(Event::Data(id, data)) => mux.delivered(id, data.len(), NOW),
                    other => panic!("{other:?}"),
                }
            }
        }
        let mut out = Vec::new();
        mux.take_control(&mut out);
        for f in out.chunks(HEADER).filter(|f| f[1] == WINDOW) {
            may[usize::from(f[7]) / 2] += u64::from(u32::from_be_bytes([f[8], f[9], f[10], f[11]]));
        }
        assert!(may.iter().all(|m| *m <= u64::from(STREAM_WINDOW)));
        assert!(may.iter().sum::<u64>() <= SESSION_WINDOW);
    }
    assert!(may.iter().any(|m| *m > u64::from(INITIAL_WINDOW)));
    // One byte more than was granted ends it.
    ends_with_go_away(&mut mux, &frame(DATA, 0, 1, may[0] as u32 + 1));
}
