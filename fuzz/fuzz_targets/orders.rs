//! What net may say to the parent, and back: any bytes decode to an order that encodes to the same order, or to none. The
//! configuration's archive too.
#![no_main]

use fived::wire::archive::Archive;
use fived::wire::orders::{Answer, Ask, FromNet, Message, ToNet};
use libfuzzer_sys::fuzz_target;

fn again<M: Message + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    if let Some(order) = M::decode(bytes) {
        assert_eq!(M::decode(&order.encode()), Some(order));
    }
}

fuzz_target!(|bytes: &[u8]| {
    again::<FromNet>(bytes);
    again::<ToNet>(bytes);
    again::<Ask>(bytes);
    again::<Answer>(bytes);
    if let Some(archive) = Archive::decode(bytes) {
        assert_eq!(Archive::decode(&archive.encode()), Some(archive));
    }
});
