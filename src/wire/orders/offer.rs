//! Orders about services that sessions offer.

use super::phases::kind;
use super::{DATA_MAX, Data, Raw, flag, raw, with};

/// What a session says of a service that it offers, or one of its streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfferAsk {
    /// The user of this stream offers this service.
    Begin { service: u32, host: u32 },
    /// The stream that made this offer has ended.
    End { offer: u32 },
    /// Whoever offers the service takes this client ([`OfferClient::Open`]).
    Taken { client: u32 },
    /// It does not, or the client was taken back ([`OfferClient::Cancel`]): this process has the
    /// client's connection no more. `busy`: no stream could be opened to ask.
    Refused { client: u32, busy: bool },
    /// This process has the client's connection no more, and still asks whoever offers the service:
    /// the connection must come once the client is taken ([`OfferClient::Connect`]).
    Returned { client: u32 },
}

impl OfferAsk {
    pub(super) fn raw(&self) -> Raw {
        match *self {
            OfferAsk::Begin { service, host } => raw(kind::OFFER, service, host),
            OfferAsk::End { offer } => raw(kind::OFFER_ENDED, offer, 0),
            OfferAsk::Taken { client } => raw(kind::OFFER_TAKEN, client, 0),
            OfferAsk::Refused { client, busy } => raw(kind::OFFER_REFUSED, client, busy.into()),
            OfferAsk::Returned { client } => raw(kind::OFFER_RETURNED, client, 0),
        }
    }

    pub(super) fn from_raw(r: &Raw) -> Option<OfferAsk> {
        Some(match r.kind {
            kind::OFFER => OfferAsk::Begin { service: r.a, host: r.b },
            kind::OFFER_ENDED => OfferAsk::End { offer: r.a },
            kind::OFFER_TAKEN => OfferAsk::Taken { client: r.a },
            kind::OFFER_REFUSED => OfferAsk::Refused { client: r.a, busy: flag(r.b)? },
            kind::OFFER_RETURNED => OfferAsk::Returned { client: r.a },
            _ => return None,
        })
    }
}

/// What is to be done for a client of a service that this session offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OfferClient {
    /// Open a stream for it, which begins with these bytes. `greeting`: the client's connection
    /// comes with this, and as soon as the client is taken it gets these bytes and is copied; the
    /// relay has the client's number. Until then nothing is read from it or written to it. None:
    /// [`OfferClient::Connect`] follows.
    Open { first: Data, greeting: Option<Data> },
    /// With the connection of the client, which was told that its service begins. `relay`: the
    /// number of this relay; 0: another process counts its bytes.
    Connect { relay: u32 },
    /// Nobody waits for its stream any more. The answer is [`OfferAsk::Refused`], or
    /// [`OfferAsk::Taken`] where that had been sent before.
    Cancel,
}

impl OfferClient {
    pub(super) fn raw(&self, client: u32) -> Raw {
        match self {
            OfferClient::Open { first, greeting } => {
                let (whole, length) = joined(first, greeting.as_ref());
                with(kind::OFFER_CLIENT, client, length, &whole)
            }
            OfferClient::Connect { relay } => raw(kind::OFFER_CONNECT, client, *relay),
            OfferClient::Cancel => raw(kind::OFFER_CANCEL, client, 0),
        }
    }

    pub(super) fn from_raw(r: &Raw) -> Option<OfferClient> {
        Some(match r.kind {
            kind::OFFER_CLIENT => {
                let (first, greeting) = split(&r.data, r.b)?;
                OfferClient::Open { first, greeting }
            }
            kind::OFFER_CONNECT => OfferClient::Connect { relay: r.b },
            kind::OFFER_CANCEL => OfferClient::Cancel,
            _ => return None,
        })
    }
}

/// The bytes of [`OfferClient::Open`]: those with which the stream begins, and those that the
/// client gets first, one after the other. Returns them as one, and where the second begin; 0:
/// there are none.
fn joined(first: &Data, greeting: Option<&Data>) -> (Data, u32) {
    let Some(greeting) = greeting else { return (first.clone(), 0) };
    let whole = [first.bytes(), greeting.bytes()].concat();
    (Data::truncate(&whole), first.bytes().len() as u32)
}

/// The reverse. None: there is no such place in it.
fn split(whole: &Data, at: u32) -> Option<(Data, Option<Data>)> {
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
