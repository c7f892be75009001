//! What the pump tells its owner of streams.

#[cfg(doc)]
use super::Near;
use super::Stream;
use crate::wire::yamux::StreamId;
use std::io;

/// What a turn brought.
#[derive(Debug)]
pub enum Event<T> {
    /// The peer has opened a stream. (Of a server alone.) It is to be
    /// [adopted](super::Pump::adopt) at once, or [reset](super::Pump::reset).
    Opened(StreamId),
    /// Bytes have come for the owner: [`Pump::held`](super::Pump::held).
    Said(StreamId),
    /// The peer says no more on this stream, and all of it was given on: to the near end, which was
    /// told of the end, or to the owner.
    Finished(StreamId),
    /// The near end takes no more; why. Comes once.
    Unread(StreamId, io::Error),
    /// The near end says no more, and the owner wanted to be asked
    /// ([`Pump::ask_at_end`](super::Pump::ask_at_end)).
    NearOver(StreamId),
    /// Reading the input failed; the peer was not told of any end. (Of [`Near::Flows`] alone: a
    /// socket's error is its end.)
    InputBroke(StreamId),
    /// Nobody reads the output any more; `broken`: it has failed. (Of [`Near::Flows`] alone.) What
    /// becomes of it is the owner's to say, at once: until then it comes again.
    Hung { id: StreamId, broken: bool },
    /// The stream has ended, and is forgotten.
    Closed(StreamId, Box<Stream<T>>),
    /// The peer has reset the stream, which is forgotten: its near end was told nothing. Or the
    /// near end broke, and the peer was told so ([`Pump::pass_resets`](super::Pump::pass_resets)).
    Reset(StreamId, Box<Stream<T>>),
    /// The peer has given the session up, for this reason.
    GivenUp(u32),
    /// The peer has broken the protocol: nothing is read any more. go-away is queued.
    Broken(&'static str),
    /// The peer says no more on the whole link. [`Event::Finished`] follows for its streams.
    Over,
}
