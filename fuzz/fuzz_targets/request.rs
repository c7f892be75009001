//! A stranger's first bytes, split anywhere: a line is found where it ends, and never more than its bound is held.
#![no_main]

use fived::wire::line::{Fed, Line};
use fived::wire::request::{self, NAME_MAX, Request};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Vec<u8>, u8)| {
    let (bytes, step) = (input.0, usize::from(input.1).max(1));
    let mut line = Line::new(NAME_MAX);
    for segment in bytes.chunks(step) {
        match line.feed(segment) {
            Fed::More => {}
            Fed::TooLong => return,
            Fed::Line { text, taken } => {
                assert!(text.len() <= NAME_MAX && taken <= segment.len());
                if let Request::Name(name) = request::read(text) {
                    assert!(name.iter().all(|b| (b' '..=b'~').contains(b)));
                }
                return;
            }
        }
    }
});
