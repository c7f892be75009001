//! Records and lines of RESUME, split anywhere: never more data than came, and a line is read as it is written.
#![no_main]

use fived::wire::resume::{Decoder, Made, Part, Request, read_resumed};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Vec<u8>, u8)| {
    let (bytes, step) = (input.0, usize::from(input.1).max(1));
    if let Some(Request::Claim(claim)) = Request::read(&bytes) {
        assert_eq!(Request::read(claim.line().trim_end().as_bytes()), Some(Request::Claim(claim)));
    }
    if let Some(made) = Made::read(&bytes) {
        assert_eq!(Made::read(made.line().trim_end().as_bytes()), Some(made));
    }
    let _ = read_resumed(&bytes);
    let mut decoder = Decoder::default();
    for segment in bytes.chunks(step) {
        let mut at = 0;
        loop {
            let Ok((taken, part)) = decoder.decode(&segment[at..]) else { return };
            at += taken;
            match part {
                Part::More => break,
                Part::Data(n) => {
                    assert!(n > 0 && at + n <= segment.len());
                    decoder.consumed(n);
                    at += n;
                }
                Part::Acknowledged(_) => {}
                Part::End => return,
            }
        }
        assert_eq!(at, segment.len());
    }
});
