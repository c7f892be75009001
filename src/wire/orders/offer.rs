//! The bytes of [`Answer::OfferClient`](super::Answer::OfferClient): those with which the stream
//! begins, and those that the client gets first, one after the other.

use super::{DATA_MAX, Data};

/// Both in one, and where the second begins; 0: there is no second.
pub(super) fn joined(first: &Data, greeting: Option<&Data>) -> (Data, u32) {
    let Some(greeting) = greeting else { return (first.clone(), 0) };
    let whole = [first.bytes(), greeting.bytes()].concat();
    (Data::truncate(&whole), first.bytes().len() as u32)
}

/// The reverse. None: there is no such place in it.
pub(super) fn split(whole: &Data, at: u32) -> Option<(Data, Option<Data>)> {
    if at == 0 {
        return Some((whole.clone(), None));
    }
    let (first, greeting) = whole.bytes().split_at_checked(at as usize)?;
    Some((Data::truncate(first), Some(Data::truncate(greeting))))
}

/// Do these fit into one order?
pub fn fits(first: &Data, greeting: &[u8]) -> bool {
    first.bytes().len() + greeting.len() <= DATA_MAX
}
