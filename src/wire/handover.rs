//! The messages between `five` and the holder of its session, over a SOCK_SEQPACKET on this
//! computer. Both ends belong to the same user; still, a message that cannot be read ends the
//! conversation.
//!
//! The tag names one of the caller's calls; the caller chooses it. With `Open` come up to three
//! descriptors: an input and an output, or one that is both; and one for standard error (RUN). With
//! `Forward` come one or two listeners.

use super::run::{self, Size, Status, Way};

/// The version of these messages; part of the socket's name, so that programs of different versions
/// do not meet.
pub const VERSION: u32 = 7;
/// The most bytes of a message.
pub const MESSAGE_MAX: usize = 20 * 1024;
/// The most bytes of input in one message.
pub const INPUT_MAX: usize = 16 * 1024;

/// When a call is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverWhen {
    /// The service has sent its last byte.
    ServiceEnds,
    /// The service has sent its last byte, and so has the input.
    BothEnd,
}

/// From a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Connect these descriptors with a service (or HELP's list). `host`: a virtual host; empty for
    /// that of the session.
    Open { tag: u32, over: OverWhen, help: bool, host: String, service: String, way: Way },
    /// Input that was read before that call's `Open`.
    Input { tag: u32, bytes: Vec<u8> },
    /// The terminal of that call's caller has another size.
    Resized { tag: u32, size: Size },
    /// Is there a session? The answer is `State`.
    Check,
    /// What is running? The answer is a `State` for each, then `Done`.
    List,
    /// End the session. The end of the channel is the answer.
    Exit,
    /// Accept applications on these listeners, which are those of a forward as -L writes it, with
    /// an absolute path; `host` as in `Open`. The answer is `Done` or `Refused`.
    Forward { host: String, forward: String },
    /// Serve an application, which has connected to a forward of a session that has ended. What was
    /// read of it came before, as `Input` with the tag 0. The answer is `Done` or `Refused`.
    Adopt { host: String, service: String },
    /// Close the listeners of this forward. The answer is `Done` or `Refused`.
    Cancel { forward: String },
    /// Offer this service, as -R writes it, with an address or an absolute path; `host` as in
    /// `Open`. With a tag it is a call that lasts as long as the offer. With the tag 0 it lasts
    /// until it is withdrawn, and the answer is `Done` or `Refused`.
    Offer { tag: u32, host: String, offer: String },
    /// End this offer. The answer is `Done` or `Refused`.
    Withdraw { offer: String },
    /// If the session has lost its connection, try now to resume it. The answer is `Done` or
    /// `Refused`, after the attempt.
    Resume,
}

/// From the holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The holder has accepted the call: from now on its input may have been read.
    Taken {
        tag: u32,
    },
    /// The service has the call.
    Started {
        tag: u32,
    },
    /// The service has a terminal. This many bytes of the output, the first ones, are a banner.
    Terminal {
        tag: u32,
        banner: u32,
    },
    /// The server accepts no more streams: the call waits until one is free.
    Waiting {
        tag: u32,
    },
    /// The session has no connection that works: the call waits until it has one. The text says
    /// why. `distrust`: what answers there is not the server that was meant.
    Away {
        tag: u32,
        distrust: bool,
        text: String,
    },
    /// The service was refused, or an order that has no tag; why.
    Refused {
        tag: u32,
        text: String,
    },
    /// The service has ended; how, if the server tells that.
    Ended {
        tag: u32,
        status: Option<Status>,
    },
    /// Nobody reads the call's output any more.
    OutputClosed {
        tag: u32,
    },
    /// The call's connection failed; how.
    Lost {
        tag: u32,
        text: String,
    },
    /// The session has ended, and nothing was done for the call: another session can do it. The
    /// input that was read has been sent back before. With the tag 0 it is about no call: the
    /// session takes no new ones.
    Gone {
        tag: u32,
    },
    Input {
        tag: u32,
        bytes: Vec<u8>,
    },
    /// A line to be shown to the user.
    State {
        text: String,
    },
    /// What has become of the session, for -v.
    Step {
        text: String,
    },
    Done,
}

/// Encodes a message: its kind, its tag, its flags, and two strings, the first with its length
/// before it.
fn message(kind: u8, tag: u32, flags: u8, first: &[u8], rest: &[u8]) -> Vec<u8> {
    let first = &first[..first.len().min(u8::MAX.into())];
    [&[kind, flags, first.len() as u8], &tag.to_le_bytes()[..], first, rest].concat()
}

type Parts<'a> = (u8, u32, u8, &'a [u8], &'a [u8]);

fn parts(bytes: &[u8]) -> Option<Parts<'_>> {
    let ([kind, flags, length], rest) = bytes.split_first_chunk()?;
    let (tag, rest) = rest.split_first_chunk()?;
    let (first, rest) = rest.split_at_checked(usize::from(*length))?;
    Some((*kind, u32::from_le_bytes(*tag), *flags, first, rest))
}

fn text(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}

impl Ask {
    /// Can a holder answer it that has no session any more, but forwards?
    pub fn is_about_forwards(&self) -> bool {
        matches!(self, Ask::List | Ask::Exit | Ask::Cancel { .. })
    }

    pub fn encode(&self) -> Vec<u8> {
        match self {
            Ask::Open { tag, over, help, host, service, way } => {
                let line = run::line(service, way.terminal());
                let name = if way.is_run() { &line } else { service.as_bytes() };
                let flags = u8::from(*over == OverWhen::BothEnd)
                    | u8::from(*help) << 1
                    | u8::from(way.is_run()) << 2;
                message(1, *tag, flags, host.as_bytes(), name)
            }
            Ask::Input { tag, bytes } => message(2, *tag, 0, &[], bytes),
            Ask::Check => message(3, 0, 0, &[], &[]),
            Ask::List => message(4, 0, 0, &[], &[]),
            Ask::Exit => message(5, 0, 0, &[], &[]),
            Ask::Forward { host, forward } => message(6, 0, 0, host.as_bytes(), forward.as_bytes()),
            Ask::Adopt { host, service } => message(12, 0, 0, host.as_bytes(), service.as_bytes()),
            Ask::Cancel { forward } => message(7, 0, 0, &[], forward.as_bytes()),
            Ask::Offer { tag, host, offer } => {
                message(8, *tag, 0, host.as_bytes(), offer.as_bytes())
            }
            Ask::Withdraw { offer } => message(9, 0, 0, &[], offer.as_bytes()),
            Ask::Resume => message(10, 0, 0, &[], &[]),
            Ask::Resized { tag, size } => {
                let (rows, columns) = (size.rows.to_le_bytes(), size.columns.to_le_bytes());
                message(11, *tag, 0, &[], &[rows, columns].concat())
            }
        }
    }

    /// None: it is not a message.
    pub fn decode(bytes: &[u8]) -> Option<Ask> {
        Some(match parts(bytes)? {
            (1, tag, flags @ 0..8, host, name) => {
                let (service, way) = match flags & 4 {
                    0 => (name, Way::Plain),
                    // As it is sent to the server, line end and all.
                    _ => {
                        let (service, terminal) = run::read_line(name.strip_suffix(b"\r\n")?);
                        (service, Way::run(terminal))
                    }
                };
                Ask::Open {
                    tag,
                    over: if flags & 1 == 0 { OverWhen::ServiceEnds } else { OverWhen::BothEnd },
                    help: flags & 2 != 0,
                    host: text(host)?,
                    service: text(service)?,
                    way,
                }
            }
            (2, tag, 0, [], bytes) => Ask::Input { tag, bytes: bytes.into() },
            (3, 0, 0, [], []) => Ask::Check,
            (4, 0, 0, [], []) => Ask::List,
            (5, 0, 0, [], []) => Ask::Exit,
            (6, 0, 0, host, forward) => Ask::Forward { host: text(host)?, forward: text(forward)? },
            (7, 0, 0, [], forward) => Ask::Cancel { forward: text(forward)? },
            (8, tag, 0, host, offer) => Ask::Offer { tag, host: text(host)?, offer: text(offer)? },
            (9, 0, 0, [], offer) => Ask::Withdraw { offer: text(offer)? },
            (10, 0, 0, [], []) => Ask::Resume,
            (11, tag, 0, [], [a, b, c, d]) => {
                let (rows, columns) = (u16::from_le_bytes([*a, *b]), u16::from_le_bytes([*c, *d]));
                Ask::Resized { tag, size: Size { rows, columns } }
            }
            (12, 0, 0, host, service) => Ask::Adopt { host: text(host)?, service: text(service)? },
            _ => return None,
        })
    }
}

impl Notice {
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Notice::Started { tag } => message(1, *tag, 0, &[], &[]),
            Notice::Waiting { tag } => message(2, *tag, 0, &[], &[]),
            Notice::Refused { tag, text } => message(3, *tag, 0, &[], text.as_bytes()),
            Notice::Ended { tag, status } => {
                let number = status.map(|status| status.number().to_le_bytes());
                message(4, *tag, 0, &[], number.as_ref().map_or(&[], |n| &n[..]))
            }
            Notice::OutputClosed { tag } => message(5, *tag, 0, &[], &[]),
            Notice::Lost { tag, text } => message(6, *tag, 0, &[], text.as_bytes()),
            Notice::Gone { tag } => message(7, *tag, 0, &[], &[]),
            Notice::Input { tag, bytes } => message(8, *tag, 0, &[], bytes),
            Notice::State { text } => message(9, 0, 0, &[], text.as_bytes()),
            Notice::Done => message(10, 0, 0, &[], &[]),
            Notice::Taken { tag } => message(11, *tag, 0, &[], &[]),
            Notice::Away { tag, distrust, text } => {
                message(12, *tag, u8::from(*distrust), &[], text.as_bytes())
            }
            Notice::Terminal { tag, banner: 0 } => message(14, *tag, 0, &[], &[]),
            Notice::Terminal { tag, banner } => message(14, *tag, 0, &[], &banner.to_le_bytes()),
            Notice::Step { text } => message(13, 0, 0, &[], text.as_bytes()),
        }
    }

    /// None: it is not a message.
    pub fn decode(bytes: &[u8]) -> Option<Notice> {
        Some(match parts(bytes)? {
            (1, tag, 0, [], []) => Notice::Started { tag },
            (2, tag, 0, [], []) => Notice::Waiting { tag },
            (3, tag, 0, [], why) => Notice::Refused { tag, text: text(why)? },
            (4, tag, 0, [], []) => Notice::Ended { tag, status: None },
            (4, tag, 0, [], number) => {
                let number = u32::from_le_bytes(number.try_into().ok()?);
                Notice::Ended { tag, status: Some(Status::from_number(number)?) }
            }
            (5, tag, 0, [], []) => Notice::OutputClosed { tag },
            (6, tag, 0, [], why) => Notice::Lost { tag, text: text(why)? },
            (7, tag, 0, [], []) => Notice::Gone { tag },
            (8, tag, 0, [], bytes) => Notice::Input { tag, bytes: bytes.into() },
            (9, 0, 0, [], line) => Notice::State { text: text(line)? },
            (10, 0, 0, [], []) => Notice::Done,
            (11, tag, 0, [], []) => Notice::Taken { tag },
            (12, tag, flags @ 0..2, [], why) => {
                Notice::Away { tag, distrust: flags != 0, text: text(why)? }
            }
            (14, tag, 0, [], []) => Notice::Terminal { tag, banner: 0 },
            (14, tag, 0, [], number) => {
                Notice::Terminal { tag, banner: u32::from_le_bytes(number.try_into().ok()?) }
            }
            (13, 0, 0, [], line) => Notice::Step { text: text(line)? },
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::run::{Size, Terminal};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_sent_is_received() {
        let open = |over, help| Ask::Open {
            tag: 7,
            over,
            help,
            host: "main".into(),
            service: "date".into(),
            way: Way::Plain,
        };
        let size = Size { rows: 24, columns: 80 };
        let run = |terminal| Ask::Open {
            tag: 7,
            over: OverWhen::ServiceEnds,
            help: false,
            host: String::new(),
            service: "shell".into(),
            way: Way::run(terminal),
        };
        for ask in [
            open(OverWhen::BothEnd, false),
            open(OverWhen::ServiceEnds, true),
            run(None),
            run(Terminal::new("xterm", size)),
            Ask::Input { tag: 1, bytes: vec![0, 255] },
            Ask::Check,
            Ask::List,
            Ask::Exit,
            Ask::Forward { host: "main".into(), forward: "/run/x:date".into() },
            Ask::Adopt { host: "main".into(), service: "date".into() },
            Ask::Cancel { forward: "13:date".into() },
            Ask::Offer { tag: 7, host: "main".into(), offer: "web:/run/x".into() },
            Ask::Withdraw { offer: "web:/run/x".into() },
            Ask::Resume,
            Ask::Resized { tag: 7, size },
        ] {
            assert_eq!(Ask::decode(&ask.encode()), Some(ask));
        }
        for notice in [
            Notice::Taken { tag: 9 },
            Notice::Started { tag: 1 },
            Notice::Terminal { tag: 1, banner: 0 },
            Notice::Terminal { tag: 1, banner: 300 },
            Notice::Waiting { tag: 2 },
            Notice::Away { tag: 2, distrust: false, text: "no answer".into() },
            Notice::Away { tag: 2, distrust: true, text: "another key".into() },
            Notice::Refused { tag: 3, text: "busy".into() },
            Notice::Ended { tag: 4, status: None },
            Notice::Ended { tag: 4, status: Some(Status::Killed(9)) },
            Notice::OutputClosed { tag: 5 },
            Notice::Lost { tag: 6, text: "gone".into() },
            Notice::Gone { tag: 7 },
            Notice::Input { tag: 8, bytes: vec![9] },
            Notice::State { text: "x=1".into() },
            Notice::Step { text: "lost".into() },
            Notice::Done,
        ] {
            assert_eq!(Notice::decode(&notice.encode()), Some(notice));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_none(
            bytes in proptest::collection::vec(any::<u8>(), 0..40),
            kind in 0u8..16,
        ) {
            for bytes in [bytes.clone(), [&[kind, 0, 0], &bytes[..]].concat()] {
                if let Some(ask) = Ask::decode(&bytes) {
                    prop_assert_eq!(ask.encode(), bytes.clone());
                }
                if let Some(notice) = Notice::decode(&bytes) {
                    prop_assert_eq!(notice.encode(), bytes);
                }
            }
        }
    }
}
