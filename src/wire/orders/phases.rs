//! Which order may be sent when, as data: one row for each order, as in OpenSSH's monitor
//! (monitor.c, `struct mon_table`). Each table is for one channel and one direction. What comes in
//! another phase, or with another number of descriptors, is a forbidden order: its sender is ended.

use std::ops::RangeInclusive;

/// The numbers of the orders.
pub mod kind {
    pub const READY: u16 = 0x101;
    pub const START: u16 = 0x102;
    pub const SESSION: u16 = 0x103;
    pub const REFUSED: u16 = 0x104;
    pub const UNLOGGED: u16 = 0x105;
    pub const NAME: u16 = 0x106;
    pub const PONG: u16 = 0x107;
    pub const LISTENERS_CLOSED: u16 = 0x108;
    pub const START_ON_CLIENT: u16 = 0x109;
    pub const CLOSE: u16 = 0x10a;
    pub const AT_PORT: u16 = 0x10f;
    pub const LISTENER: u16 = 0x201;
    pub const REFUSE: u16 = 0x202;
    pub const DRAIN: u16 = 0x203;
    pub const NAMED: u16 = 0x204;
    pub const PING: u16 = 0x205;
    pub const LINGER: u16 = 0x206;
    pub const RELAYS: u16 = 0x207;
    pub const CLIENT: u16 = 0x208;
    pub const GAUGES: u16 = 0x209;
    pub const HEADER: u16 = 0x20f;
    pub const SIGN: u16 = 0x301;
    pub const ENCRYPTED: u16 = 0x302;
    pub const MAY_LOGIN: u16 = 0x303;
    pub const VERIFY: u16 = 0x304;
    pub const START_IN_SESSION: u16 = 0x305;
    pub const BRANCH: u16 = 0x306;
    pub const REFUSED_IN_SESSION: u16 = 0x307;
    pub const TALLY: u16 = 0x308;
    pub const END: u16 = 0x309;
    pub const NAME_IN_SESSION: u16 = 0x30a;
    pub const RELAY_ENDED_IN_SESSION: u16 = 0x30b;
    pub const OFFER: u16 = 0x321;
    pub const OFFER_ENDED: u16 = 0x322;
    pub const OFFER_TAKEN: u16 = 0x323;
    pub const OFFER_REFUSED: u16 = 0x324;
    pub const OFFER_RETURNED: u16 = 0x325;
    pub const RESUMABLE: u16 = 0x331;
    pub const LOST: u16 = 0x332;
    pub const RESUME: u16 = 0x333;
    pub const RESUMED: u16 = 0x334;
    pub const SIGNED: u16 = 0x401;
    pub const NOT_SIGNED: u16 = 0x402;
    pub const LOGIN: u16 = 0x403;
    pub const RESULT: u16 = 0x404;
    pub const STARTED: u16 = 0x405;
    pub const NOT_STARTED: u16 = 0x406;
    pub const GO_AWAY: u16 = 0x407;
    pub const FULL: u16 = 0x408;
    pub const NAMED_IN_SESSION: u16 = 0x409;
    pub const ENDED: u16 = 0x40a;
    pub const OFFERED: u16 = 0x421;
    pub const NOT_OFFERED: u16 = 0x422;
    pub const OFFER_CLIENT: u16 = 0x423;
    pub const OFFER_CONNECT: u16 = 0x424;
    pub const OFFER_CANCEL: u16 = 0x425;
    pub const NAMED_RESUMABLE: u16 = 0x431;
    pub const CLAIMED: u16 = 0x432;
    pub const RESUMPTION: u16 = 0x433;
    pub const FORGET: u16 = 0x434;
    pub const END_NOW: u16 = 0x435;
    pub const CHANNEL: u16 = 0x436;
    pub const BRANCHED: u16 = 0x437;
    pub const PAIRS: u16 = 0x501;
    pub const SERVE: u16 = 0x502;
    pub const SIGN_FOR: u16 = 0x503;
    pub const PAIR: u16 = 0x601;
    pub const WRONG: u16 = 0x602;
    pub const SIGNED_FOR: u16 = 0x603;
    pub const NOT_SIGNED_FOR: u16 = 0x604;
    pub const RELAY: u16 = 0x701;
    pub const TWO_RELAYS: u16 = 0x702;
    pub const RELAYS_ENDED: u16 = 0x801;
}

/// State of a net process, as the parent knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetPhase {
    /// It has no listener yet.
    Starting,
    /// It has the listeners.
    Serving,
    /// It was told to accept no more clients, or was ended: orders about earlier clients are still
    /// carried out.
    Draining,
}

/// May a session in this phase give [`FromNet::StartOnClient`](super::FromNet::StartOnClient)?
pub fn may_start_on_client(phase: SessionPhase) -> bool {
    IDLE.contains(&phase)
}

/// State of a session, as the parent knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionPhase {
    /// On a connection without TLS.
    Plain,
    /// It waits for the signature of its handshake.
    Signing,
    /// It has the signature, and the handshake is not finished.
    Signed,
    /// Its handshake is finished.
    Encrypted,
    /// It is a stream that changes its own facts, whatever its connection is.
    Stream,
    /// It waits for the result of a login; a stream can be here too.
    LoggingIn,
}

/// State of a keys process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeysPhase {
    /// It reports about each pair that it is handed.
    Learning,
    /// It signs. Reports about its keys may still be on their way.
    Signing,
}

/// One order.
#[derive(Debug)]
pub struct Row<P: 'static> {
    pub kind: u16,
    /// How many descriptors come with it.
    pub descriptors: RangeInclusive<usize>,
    /// In which phases it is allowed.
    pub phases: &'static [P],
}

impl<P: PartialEq> Row<P> {
    /// Is it allowed in this phase, with this many descriptors? `None`: it came with some, but they
    /// were lost, because the receiver had none free.
    pub fn allows(&self, phase: &P, descriptors: Option<usize>) -> bool {
        self.phases.contains(phase) && descriptors.is_none_or(|n| self.descriptors.contains(&n))
    }
}

const fn row<P>(kind: u16, descriptors: usize, phases: &'static [P]) -> Row<P> {
    Row { kind, descriptors: descriptors..=descriptors, phases }
}

/// An order that may come with a descriptor or without.
const fn optional<P>(kind: u16, phases: &'static [P]) -> Row<P> {
    Row { kind, descriptors: 0..=1, phases }
}

use KeysPhase as Keys;
use NetPhase::{Draining, Serving, Starting};
use SessionPhase::{Encrypted, LoggingIn, Plain, Signed, Signing, Stream};

/// A channel whose receiver distinguishes no phases.
const ALWAYS: &[()] = &[()];
/// Of a session: whenever it waits for nothing.
const IDLE: &[SessionPhase] = &[Plain, Encrypted, Stream];

/// From a net process to the parent, on its own channel.
pub const FROM_NET: [Row<NetPhase>; 11] = [
    row(kind::READY, 0, &[Starting, Draining]),
    row(kind::START, 1, &[Serving, Draining]),
    row(kind::SESSION, 2, &[Serving, Draining]),
    row(kind::START_ON_CLIENT, 1, &[Serving, Draining]),
    row(kind::AT_PORT, 1, &[Serving, Draining]),
    row(kind::REFUSED, 0, &[Serving, Draining]),
    row(kind::UNLOGGED, 0, &[Serving, Draining]),
    row(kind::NAME, 1, &[Serving, Draining]),
    row(kind::PONG, 0, &[Serving, Draining]),
    row(kind::LISTENERS_CLOSED, 0, &[Draining]),
    optional(kind::CLOSE, &[Serving, Draining]),
];

/// From the parent to a net process, on its own channel.
pub const TO_NET: [Row<()>; 10] = [
    row(kind::LISTENER, 1, ALWAYS),
    row(kind::REFUSE, 1, ALWAYS),
    row(kind::DRAIN, 0, ALWAYS),
    row(kind::NAMED, 0, ALWAYS),
    row(kind::PING, 0, ALWAYS),
    row(kind::HEADER, 1, ALWAYS),
    row(kind::LINGER, 1, ALWAYS),
    row(kind::RELAYS, 1, ALWAYS),
    row(kind::CLIENT, 1, ALWAYS),
    // The first one. Without a page: there was no memory for one.
    optional(kind::GAUGES, ALWAYS),
];

/// From the parent to a thread of a net process that relays.
pub const TO_RELAYS: [Row<()>; 2] = [row(kind::RELAY, 2, ALWAYS), row(kind::TWO_RELAYS, 4, ALWAYS)];

/// From such a thread.
pub const FROM_RELAYS: [Row<()>; 1] = [row(kind::RELAYS_ENDED, 0, ALWAYS)];

/// From a session to the parent, on the session's channel. No descriptor comes there: net's system
/// call filter lets it send one on its own channel alone.
pub const ASK: [Row<SessionPhase>; 20] = [
    row(kind::SIGN, 0, &[Plain]),
    row(kind::ENCRYPTED, 0, &[Signed]),
    row(kind::MAY_LOGIN, 0, IDLE),
    row(kind::VERIFY, 0, IDLE),
    row(kind::START_IN_SESSION, 0, IDLE),
    row(kind::BRANCH, 0, &[Plain, Encrypted]),
    row(kind::REFUSED_IN_SESSION, 0, IDLE),
    row(kind::TALLY, 0, IDLE),
    row(kind::END, 0, &[Plain, Signing, Signed, Encrypted, Stream, LoggingIn]),
    row(kind::NAME_IN_SESSION, 0, IDLE),
    row(kind::RELAY_ENDED_IN_SESSION, 0, IDLE),
    // Only a stream makes an offer. Its clients' streams are its connection's.
    row(kind::OFFER, 0, &[Stream]),
    row(kind::OFFER_ENDED, 0, IDLE),
    row(kind::OFFER_TAKEN, 0, &[Plain, Encrypted]),
    row(kind::OFFER_REFUSED, 0, &[Plain, Encrypted]),
    row(kind::OFFER_RETURNED, 0, &[Plain, Encrypted]),
    row(kind::RESUMABLE, 0, &[Encrypted]),
    row(kind::LOST, 0, &[Encrypted]),
    row(kind::RESUME, 0, &[Encrypted]),
    row(kind::RESUMED, 0, &[Encrypted]),
];

/// From the parent to a session, on the session's channel.
pub const ANSWER: [Row<()>; 22] = [
    row(kind::SIGNED, 0, ALWAYS),
    row(kind::NOT_SIGNED, 0, ALWAYS),
    row(kind::LOGIN, 0, ALWAYS),
    row(kind::RESULT, 0, ALWAYS),
    // With net's end of the connection that the parent has made; that of a service's standard
    // error, or of the channel to its terminal's process; and a file with the bytes that the client
    // gets first, where they do not fit.
    Row { kind: kind::STARTED, descriptors: 0..=3, phases: ALWAYS },
    row(kind::NOT_STARTED, 0, ALWAYS),
    row(kind::GO_AWAY, 0, ALWAYS),
    row(kind::FULL, 0, ALWAYS),
    row(kind::NAMED_IN_SESSION, 0, ALWAYS),
    row(kind::OFFERED, 0, ALWAYS),
    row(kind::NOT_OFFERED, 0, ALWAYS),
    // With the client's connection, where the parent has that already.
    optional(kind::OFFER_CLIENT, ALWAYS),
    row(kind::OFFER_CONNECT, 1, ALWAYS),
    row(kind::OFFER_CANCEL, 0, ALWAYS),
    row(kind::ENDED, 0, ALWAYS),
    row(kind::NAMED_RESUMABLE, 0, ALWAYS),
    // With one end of a socket pair, where another net process has the session.
    optional(kind::CLAIMED, ALWAYS),
    // With one end of a socket pair, where another net process has the client's connection.
    optional(kind::RESUMPTION, ALWAYS),
    row(kind::FORGET, 0, ALWAYS),
    row(kind::END_NOW, 0, ALWAYS),
    row(kind::CHANNEL, 1, ALWAYS),
    // Without a channel: there is none.
    optional(kind::BRANCHED, ALWAYS),
];

/// From the parent to a keys process.
pub const TO_KEYS: [Row<KeysPhase>; 3] = [
    row(kind::PAIRS, 1, &[Keys::Learning]),
    row(kind::SERVE, 0, &[Keys::Learning]),
    row(kind::SIGN_FOR, 0, &[Keys::Signing]),
];

/// From a keys process to the parent.
pub const FROM_KEYS: [Row<KeysPhase>; 4] = [
    row(kind::PAIR, 0, &[Keys::Learning, Keys::Signing]),
    row(kind::WRONG, 0, &[Keys::Learning]),
    row(kind::SIGNED_FOR, 0, &[Keys::Signing]),
    row(kind::NOT_SIGNED_FOR, 0, &[Keys::Signing]),
];
