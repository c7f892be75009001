//! What the processes of fived may say to each other: any bytes decode to an order that encodes to the same order, or to none. The
//! configuration's archive too.
#![no_main]

use fived::wire::archive::Archive;
use fived::wire::orders::{Answer, Ask, DATA_MAX, FromNet, FromRelays, Message, ORDER, ToNet, ToRelays};
use fived::wire::signing::{FromKeys, ToKeys};
use libfuzzer_sys::fuzz_target;

/// Each order of a channel, with these fields and this text, whatever follows its kind.
fn again<M: Message + PartialEq + std::fmt::Debug>(rest: &[u8]) {
    let mut order = FromNet::Ready.encode();
    let n = rest.len().min(ORDER - 4);
    order[4..4 + n].copy_from_slice(&rest[..n]);
    let length = u16::from_le_bytes([order[12], order[13]]) % (DATA_MAX as u16 + 1);
    order[12..16].copy_from_slice(&u32::from(length).to_le_bytes());
    for row in M::ROWS {
        order[2..4].copy_from_slice(&row.kind.to_le_bytes());
        if let Some(order) = M::decode(&order) {
            assert_eq!(M::decode(&order.encode()), Some(order));
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    again::<FromNet>(bytes);
    again::<ToNet>(bytes);
    again::<Ask>(bytes);
    again::<Answer>(bytes);
    again::<FromRelays>(bytes);
    again::<ToRelays>(bytes);
    again::<FromKeys>(bytes);
    again::<ToKeys>(bytes);
    if let Some(archive) = Archive::decode(bytes) {
        assert_eq!(Archive::decode(&archive.encode()), Some(archive));
    }
});
