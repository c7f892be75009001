//! The records of RUN, of either side, split anywhere: what is decoded does not depend on the cuts, and no more data is
//! handed out than has come.
#![no_main]

use fived::wire::run::{self, CONTROL_MAX, Decoder, Part, Sender};
use libfuzzer_sys::fuzz_target;

/// The data, and how many parts were no data.
fn decode(from: Sender, bytes: &[u8], step: usize) -> (Vec<u8>, usize) {
    let (mut decoder, mut data, mut parts) = (Decoder::new(from), Vec::new(), 0);
    for mut segment in bytes.chunks(step) {
        loop {
            let (taken, part) = decoder.next(segment);
            segment = &segment[taken..];
            match part {
                Part::More => {
                    assert!(segment.is_empty());
                    break;
                }
                Part::Broken => return (data, parts),
                Part::Banner(some) | Part::Data(_, some) => {
                    assert!(!some.is_empty() && segment.starts_with(some));
                    let n = some.len().div_ceil(2);
                    data.extend_from_slice(&some[..n]);
                    decoder.took(n);
                    segment = &segment[n..];
                }
                Part::End | Part::Size(_) | Part::Terminal | Part::Status(_) => parts += 1,
            }
        }
    }
    assert!(data.len() + parts * (CONTROL_MAX / 2) <= bytes.len());
    (data, parts)
}

fuzz_target!(|input: (Vec<u8>, u8, bool)| {
    let (bytes, step) = (&input.0, usize::from(input.1).max(1));
    let from = if input.2 { Sender::Client } else { Sender::Server };
    assert_eq!(decode(from, bytes, step), decode(from, bytes, usize::MAX));
    let (name, terminal) = run::read_line(bytes);
    assert!(bytes.starts_with(name) && terminal.is_some() == (name.len() < bytes.len()));
});
