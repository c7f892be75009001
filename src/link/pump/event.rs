//! What the pump reports to its owner.

#[cfg(doc)]
use super::LocalEnd;
use super::Stream;
use crate::wire::yamux::StreamId;
use std::io;

/// What happened to a stream, or to the link.
#[derive(Debug)]
pub enum Event<T> {
    /// The peer has opened a stream (reported to a server only). The owner must
    /// [adopt](super::Pump::adopt) it at once, or [reset](super::Pump::reset) it.
    Opened(StreamId),
    /// The peer has taken a stream that this side has opened (reported to a server only).
    Accepted(StreamId),
    /// Bytes have come that the owner reads itself: [`Pump::held`](super::Pump::held).
    Received(StreamId),
    /// The peer has finished sending on this stream, and everything it sent was passed on: to the
    /// local end, whose output is then closed, or to the owner.
    Finished(StreamId),
    /// Writing to the local end failed, with this error: it takes no more. Reported once.
    OutputFailed(StreamId, io::Error),
    /// The local end has finished sending, and the owner had called
    /// [`Pump::ask_at_end`](super::Pump::ask_at_end).
    LocalFinished(StreamId),
    /// Reading the input failed, with this error; the peer was not told that it has ended. (Of
    /// [`LocalEnd::Flows`] only: an error of a socket counts as its end.)
    InputFailed(StreamId, io::Error),
    /// The reader of the output is gone; `broken`: the descriptor reports an error. (Of
    /// [`LocalEnd::Flows`] only.) The owner must decide at once what follows: until then this is
    /// reported again in every turn.
    OutputHungUp { id: StreamId, broken: bool },
    /// The peer has told that the service of RUN has a terminal. What came with that waits for
    /// [`Pump::pass_rest`](super::Pump::pass_rest), which the owner calls at once.
    Terminal(StreamId),
    /// The stream has ended, and the pump has forgotten it.
    Closed(Box<Stream<T>>),
    /// The peer has reset the stream, and the pump has forgotten it; its local end has not been
    /// told. Or the local end failed, and the pump has reset the stream
    /// ([`Pump::pass_resets`](super::Pump::pass_resets)).
    Reset(Box<Stream<T>>),
    /// The peer has sent go-away with this code, which is not 0: it has given up the session.
    GoAway(u32),
    /// The peer has broken the protocol: nothing more is read. A go-away frame is queued.
    ProtocolError(&'static str),
    /// The peer has closed its sending direction of the whole link. [`Event::Finished`] follows for
    /// each stream.
    LinkFinished,
}
