//! What the pump tells its owner of streams.

#[cfg(doc)]
use super::LocalEnd;
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
    Received(StreamId),
    /// The peer says no more on this stream, and all of it was given on: to the local end, which was
    /// told of the end, or to the owner.
    Finished(StreamId),
    /// The local end takes no more; why. Comes once.
    OutputFailed(StreamId, io::Error),
    /// The local end says no more, and the owner wanted to be asked
    /// ([`Pump::ask_at_end`](super::Pump::ask_at_end)).
    LocalFinished(StreamId),
    /// Reading the input failed; the peer was not told of any end. (Of [`LocalEnd::Flows`] alone: a
    /// socket's error is its end.)
    InputFailed(StreamId),
    /// Nobody reads the output any more; `broken`: it has failed. (Of [`LocalEnd::Flows`] alone.) What
    /// becomes of it is the owner's to say, at once: until then it comes again.
    OutputHungUp { id: StreamId, broken: bool },
    /// The stream has ended, and is forgotten.
    Closed(StreamId, Box<Stream<T>>),
    /// The peer has reset the stream, which is forgotten: its local end was told nothing. Or the
    /// local end broke, and the peer was told so ([`Pump::pass_resets`](super::Pump::pass_resets)).
    Reset(StreamId, Box<Stream<T>>),
    /// The peer has given the session up, for this reason.
    GoAway(u32),
    /// The peer has broken the protocol: nothing is read any more. go-away is queued.
    ProtocolError(&'static str),
    /// The peer says no more on the whole link. [`Event::Finished`] follows for its streams.
    LinkFinished,
}
