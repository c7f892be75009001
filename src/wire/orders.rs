//! Orders: what the parent and the net process say to each other. Messages of one fixed size with a
//! version word, over SOCK_SEQPACKET; descriptors travel beside them. Whatever does not decode ends
//! the process that sent it.
//!
//! | channel | net says | the parent says |
//! |---|---|---|
//! | the net process's own | [`FromNet`] | [`ToNet`] |
//! | a session's own | [`Ask`] | [`Answer`] |

#[cfg(test)]
mod tests;

/// Bytes of an order, every one.
pub const ORDER: usize = HEAD + DATA_MAX;
/// Bytes of text, signature or message in an order at most: an RSA signature of 4096 bits.
pub const DATA_MAX: usize = 512;
const HEAD: usize = 32;
/// Changes with every change of these vocabularies: a net process of another build is refused.
const VERSION: u16 = 1;

/// A bounded piece of bytes within an order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Data(Vec<u8>);

impl Data {
    /// None beyond [`DATA_MAX`].
    pub fn new(bytes: &[u8]) -> Option<Data> {
        (bytes.len() <= DATA_MAX).then(|| Data(bytes.to_vec()))
    }

    /// As much of `bytes` as fits; for what only the log reads.
    pub fn cut(bytes: &[u8]) -> Data {
        Data(bytes[..bytes.len().min(DATA_MAX)].to_vec())
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}

/// Why a usable service was not started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    Busy,
    Failed,
    /// Not usable after all: as if it did not exist.
    NotAvailable,
}

/// How somebody wants to log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Password,
    Pubkey,
}

/// Reasons of [`Refused`] that are not the policy's: a line too long; `max_sessions` stand;
/// `max_sessions_per_source` do; `max_connections` wait; no descriptor is left for it.
pub const TOO_LONG: u32 = 100;
pub const SESSIONS: u32 = 101;
pub const SOURCE_SESSIONS: u32 = 102;
pub const CONNECTIONS: u32 = 103;
pub const DESCRIPTORS: u32 = 104;

/// A request that net itself refused, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The service, where there is one of that name.
    pub service: Option<u32>,
    pub host: u32,
    /// A number that [`Ask::Refused`]'s reader turns into a word; the policy's own order.
    pub reason: u32,
    /// Address and port of the client, 18 bytes, and behind it the name that was asked for.
    pub data: Data,
}

/// On the net process's own channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromNet {
    /// Confined, table read: ready for listeners.
    Ready,
    /// With the client's socket: start this service on it.
    Start {
        service: u32,
        host: u32,
    },
    /// With the client's socket and one end of a new channel: a session begins.
    Session,
    Refused(Refused),
    /// Draining, it has left all listeners.
    Left,
    /// Something that the log should say.
    Warn(Data),
    /// With the client's socket: who is that? (a reverse look-up, where the table has rules on
    /// names)
    Name {
        client: u32,
        round: u32,
    },
    /// The answer to [`ToNet::Ping`].
    Pong,
}

/// The parent's answers there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToNet {
    /// With a listening socket: accept from it.
    Listener,
    /// With a client's socket whose service has ended: hear it out, then close.
    Linger,
    /// With the client's socket, back: refuse it.
    Refuse { service: u32, why: Why },
    /// Accept no more, finish what runs, then exit; `last`: fived itself ends, whoever only waits
    /// is closed.
    Drain { last: bool },
    /// The name of a client's address.
    Name { client: u32, round: u32, name: Named },
    /// Somebody waits at a listener: is the loop alive?
    Ping,
}

/// The answer of a look-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// There was none in time.
    Unknown,
    /// The address has no name.
    None,
    Is(Data),
}

impl Named {
    fn number(&self) -> u64 {
        match self {
            Named::Unknown => 0,
            Named::None => 1,
            Named::Is(_) => 2,
        }
    }

    fn data(&self) -> Data {
        match self {
            Named::Is(name) => name.clone(),
            _ => Data::default(),
        }
    }

    fn from_raw(number: u64, data: Data) -> Option<Named> {
        [Named::Unknown, Named::None, Named::Is(data)]
            .into_iter()
            .nth(usize::try_from(number).ok()?)
    }
}

/// On a session's channel, from its thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Sign a handshake with the key of that chain, by that scheme (RFC 8446, 4.2.3).
    Sign {
        chain: u32,
        scheme: u16,
        message: Data,
    },
    /// The handshake is done: the suite, the server name asked for.
    Encrypted {
        suite: u16,
        name: Data,
    },
    /// May this source try to log in now?
    MayLogin {
        method: Method,
    },
    /// With one end of a socket pair, for the login child: is it that user?
    Verify {
        method: Method,
        user: Data,
    },
    /// With the connection: start this service on it.
    Start {
        service: u32,
        host: u32,
        tag: u32,
    },
    /// With one end of a new channel: a stream that changes its own facts; it begins with this
    /// session's.
    Branch {
        host: u32,
    },
    Refused(Refused),
    /// A relayed connection is over: bytes to the service, bytes from it.
    Tally {
        tag: u32,
        to: u64,
        from: u64,
    },
    /// Why the session ends; the log's word.
    End(Data),
    /// What is the name of its client's address?
    Name,
}

/// The parent's answers there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Signed(Data),
    NotSigned,
    /// Whether a login may be tried.
    Login(May),
    /// The verdict of a try (`wire::login::Verdict` as its exit status), and of a good one the
    /// groups that it is in.
    Verdict {
        status: u32,
        superuser: bool,
        groups: [u64; 4],
    },
    Started {
        tag: u32,
    },
    Refused {
        tag: u32,
        service: u32,
        why: Why,
    },
    /// A new table stands: take no new streams. `last`: fived itself ends.
    GoAway {
        last: bool,
    },
    /// No place for this session: too many stand over all net processes. Nothing that it says is
    /// heard.
    Full,
    Name(Named),
}

/// Whether a login may be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum May {
    /// `password_first`: the back end wants a name and a password and asks nothing else; the try
    /// begins when both are there.
    Try { password_first: bool },
    /// A penalty lasts, for so many seconds more; or there is no room, for so many.
    Later { seconds: u32 },
    /// Neither encrypted nor near, or tried too often.
    Never,
}

/// One message of a vocabulary.
pub trait Message: Sized {
    fn raw(&self) -> Raw;
    fn from_raw(raw: Raw) -> Option<Self>;

    fn encode(&self) -> [u8; ORDER] {
        let r = self.raw();
        let mut b = [0; ORDER];
        b[0..2].copy_from_slice(&VERSION.to_le_bytes());
        b[2..4].copy_from_slice(&r.kind.to_le_bytes());
        b[4..8].copy_from_slice(&r.a.to_le_bytes());
        b[8..12].copy_from_slice(&r.b.to_le_bytes());
        b[12..16].copy_from_slice(&(r.data.0.len() as u32).to_le_bytes());
        b[16..24].copy_from_slice(&r.c.to_le_bytes());
        b[24..32].copy_from_slice(&r.d.to_le_bytes());
        b[HEAD..HEAD + r.data.0.len()].copy_from_slice(&r.data.0);
        b
    }

    /// None for anything but a whole message of this vocabulary and version.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let b: &[u8; ORDER] = bytes.try_into().ok()?;
        let u16_at = |i: usize| u16::from_le_bytes([b[i], b[i + 1]]);
        let u32_at = |i: usize| u32::from_le_bytes([b[i], b[i + 1], b[i + 2], b[i + 3]]);
        let u64_at = |i: usize| u64::from(u32_at(i)) | u64::from(u32_at(i + 4)) << 32;
        let len = u32_at(12) as usize;
        if u16_at(0) != VERSION || len > DATA_MAX {
            return None;
        }
        let data = Data(b[HEAD..HEAD + len].to_vec());
        Self::from_raw(Raw {
            kind: u16_at(2),
            a: u32_at(4),
            b: u32_at(8),
            c: u64_at(16),
            d: u64_at(24),
            data,
        })
    }
}

/// The fields that every message is made of.
#[derive(Debug, Default)]
pub struct Raw {
    pub(super) kind: u16,
    pub(super) a: u32,
    pub(super) b: u32,
    pub(super) c: u64,
    pub(super) d: u64,
    pub(super) data: Data,
}

pub(super) fn raw(kind: u16, a: u32, b: u32) -> Raw {
    Raw { kind, a, b, ..Raw::default() }
}

pub(super) fn with(kind: u16, a: u32, b: u32, data: &Data) -> Raw {
    Raw { data: data.clone(), ..raw(kind, a, b) }
}

const NOBODY: u32 = u32::MAX;

impl Refused {
    fn raw(&self, kind: u16) -> Raw {
        Raw {
            c: u64::from(self.reason),
            ..with(kind, self.service.unwrap_or(NOBODY), self.host, &self.data)
        }
    }

    fn from_raw(r: Raw) -> Option<Self> {
        let service = (r.a != NOBODY).then_some(r.a);
        Some(Refused { service, host: r.b, reason: u32::try_from(r.c).ok()?, data: r.data })
    }
}

impl Message for FromNet {
    fn raw(&self) -> Raw {
        match self {
            FromNet::Ready => raw(0x101, 0, 0),
            FromNet::Start { service, host } => raw(0x102, *service, *host),
            FromNet::Session => raw(0x103, 0, 0),
            FromNet::Refused(r) => r.raw(0x104),
            FromNet::Warn(d) => with(0x105, 0, 0, d),
            FromNet::Name { client, round } => raw(0x106, *client, *round),
            FromNet::Pong => raw(0x107, 0, 0),
            FromNet::Left => raw(0x108, 0, 0),
        }
    }

    fn from_raw(r: Raw) -> Option<Self> {
        Some(match r.kind {
            0x101 => FromNet::Ready,
            0x102 => FromNet::Start { service: r.a, host: r.b },
            0x103 => FromNet::Session,
            0x104 => FromNet::Refused(Refused::from_raw(r)?),
            0x105 => FromNet::Warn(r.data),
            0x106 => FromNet::Name { client: r.a, round: r.b },
            0x107 => FromNet::Pong,
            0x108 => FromNet::Left,
            _ => return None,
        })
    }
}

impl Message for ToNet {
    fn raw(&self) -> Raw {
        match self {
            ToNet::Listener => raw(0x201, 0, 0),
            ToNet::Linger => raw(0x206, 0, 0),
            ToNet::Refuse { service, why } => raw(0x202, *service, why.number()),
            ToNet::Drain { last } => raw(0x203, u32::from(*last), 0),
            ToNet::Name { client, round, name } => {
                Raw { c: name.number(), ..with(0x204, *client, *round, &name.data()) }
            }
            ToNet::Ping => raw(0x205, 0, 0),
        }
    }

    fn from_raw(r: Raw) -> Option<Self> {
        Some(match r.kind {
            0x201 => ToNet::Listener,
            0x206 => ToNet::Linger,
            0x202 => ToNet::Refuse { service: r.a, why: Why::from_number(r.b)? },
            0x203 => ToNet::Drain { last: flag(r.a)? },
            0x204 => ToNet::Name { client: r.a, round: r.b, name: Named::from_raw(r.c, r.data)? },
            0x205 => ToNet::Ping,
            _ => return None,
        })
    }
}

impl Message for Ask {
    fn raw(&self) -> Raw {
        match self {
            Ask::Sign { chain, scheme, message } => {
                with(0x301, *chain, u32::from(*scheme), message)
            }
            Ask::Encrypted { suite, name } => with(0x302, u32::from(*suite), 0, name),
            Ask::MayLogin { method } => raw(0x303, method.number(), 0),
            Ask::Verify { method, user } => with(0x304, method.number(), 0, user),
            Ask::Start { service, host, tag } => {
                Raw { c: u64::from(*tag), ..raw(0x305, *service, *host) }
            }
            Ask::Branch { host } => raw(0x306, *host, 0),
            Ask::Refused(r) => r.raw(0x307),
            Ask::Tally { tag, to, from } => Raw { c: *to, d: *from, ..raw(0x308, *tag, 0) },
            Ask::End(d) => with(0x309, 0, 0, d),
            Ask::Name => raw(0x30a, 0, 0),
        }
    }

    fn from_raw(r: Raw) -> Option<Self> {
        Some(match r.kind {
            0x301 => Ask::Sign { chain: r.a, scheme: u16::try_from(r.b).ok()?, message: r.data },
            0x302 => Ask::Encrypted { suite: u16::try_from(r.a).ok()?, name: r.data },
            0x303 => Ask::MayLogin { method: Method::from_number(r.a)? },
            0x304 => Ask::Verify { method: Method::from_number(r.a)?, user: r.data },
            0x305 => Ask::Start { service: r.a, host: r.b, tag: u32::try_from(r.c).ok()? },
            0x306 => Ask::Branch { host: r.a },
            0x307 => Ask::Refused(Refused::from_raw(r)?),
            0x308 => Ask::Tally { tag: r.a, to: r.c, from: r.d },
            0x309 => Ask::End(r.data),
            0x30a => Ask::Name,
            _ => return None,
        })
    }
}

impl Message for Answer {
    fn raw(&self) -> Raw {
        match self {
            Answer::Signed(d) => with(0x401, 0, 0, d),
            Answer::NotSigned => raw(0x402, 0, 0),
            Answer::Login(May::Try { password_first }) => raw(0x403, 0, u32::from(*password_first)),
            Answer::Login(May::Later { seconds }) => raw(0x403, 1, *seconds),
            Answer::Login(May::Never) => raw(0x403, 2, 0),
            Answer::Verdict { status, superuser, groups } => {
                let data = groups.iter().flat_map(|g| g.to_le_bytes()).collect();
                with(0x404, *status, u32::from(*superuser), &Data(data))
            }
            Answer::Started { tag } => raw(0x405, *tag, 0),
            Answer::Refused { tag, service, why } => {
                Raw { c: u64::from(why.number()), ..raw(0x406, *tag, *service) }
            }
            Answer::GoAway { last } => raw(0x407, u32::from(*last), 0),
            Answer::Full => raw(0x408, 0, 0),
            Answer::Name(name) => Raw { c: name.number(), ..with(0x409, 0, 0, &name.data()) },
        }
    }

    fn from_raw(r: Raw) -> Option<Self> {
        Some(match r.kind {
            0x401 => Answer::Signed(r.data),
            0x402 => Answer::NotSigned,
            0x403 => Answer::Login(match r.a {
                0 => May::Try { password_first: flag(r.b)? },
                1 => May::Later { seconds: r.b },
                2 => May::Never,
                _ => return None,
            }),
            0x404 => {
                let words: &[u8; 32] = r.data.bytes().try_into().ok()?;
                let mut groups = [0; 4];
                for (g, w) in groups.iter_mut().zip(words.chunks_exact(8)) {
                    *g = w.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b));
                }
                Answer::Verdict { status: r.a, superuser: flag(r.b)?, groups }
            }
            0x405 => Answer::Started { tag: r.a },
            0x406 => Answer::Refused {
                tag: r.a,
                service: r.b,
                why: Why::from_number(u32::try_from(r.c).ok()?)?,
            },
            0x407 => Answer::GoAway { last: flag(r.a)? },
            0x408 => Answer::Full,
            0x409 => Answer::Name(Named::from_raw(r.c, r.data)?),
            _ => return None,
        })
    }
}

fn flag(n: u32) -> Option<bool> {
    (n <= 1).then_some(n == 1)
}

impl Why {
    fn number(self) -> u32 {
        self as u32
    }

    fn from_number(n: u32) -> Option<Why> {
        [Why::Busy, Why::Failed, Why::NotAvailable].get(n as usize).copied()
    }
}

impl Method {
    fn number(self) -> u32 {
        self as u32
    }

    fn from_number(n: u32) -> Option<Method> {
        [Method::Password, Method::Pubkey].get(n as usize).copied()
    }
}
