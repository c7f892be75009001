//! What a session's thread and a login child say to each other, over SOCK_SEQPACKET. The child's verdict is not among it: that is
//! its exit status, which only the parent reads.

/// Bytes of a message at most: a signature line and its challenge.
pub const MESSAGE_MAX: usize = 9 * 1024;
/// Bytes of a challenge.
pub const CHALLENGE: usize = 32;

/// What a try came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Yes,
    No,
    /// The key is good, but not this user's.
    NotAKey,
    BadSignature,
    /// The back end cannot say.
    Later,
}

const VERDICTS: [(Verdict, i32, &str); 5] = [
    (Verdict::Yes, 0, "yes"),
    (Verdict::No, 1, "no"),
    (Verdict::NotAKey, 2, "not-a-key"),
    (Verdict::BadSignature, 3, "bad-signature"),
    (Verdict::Later, 111, "later"),
];

impl Verdict {
    /// Of an exit status. Whatever is none of ours is no success.
    pub fn from_status(status: i32) -> Verdict {
        VERDICTS.iter().find(|(_, s, _)| *s == status).map_or(Verdict::Later, |v| v.0)
    }

    pub fn status(self) -> i32 {
        VERDICTS[self as usize].1
    }

    pub fn as_str(self) -> &'static str {
        VERDICTS[self as usize].2
    }
}

/// A message. Text is bytes: people type what they like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Say {
    /// From the child: ask this, and send the line that comes.
    Ask(Vec<u8>),
    /// From the child: tell this.
    Tell(Vec<u8>),
    /// From the session: a line.
    Line(Vec<u8>),
    /// From the session: what was to be signed, and the signature as it came.
    Signature { challenge: [u8; CHALLENGE], text: Vec<u8> },
}

impl Say {
    /// None: longer than [`MESSAGE_MAX`].
    pub fn encode(&self) -> Option<Vec<u8>> {
        let (kind, head, text): (u8, &[u8], &[u8]) = match self {
            Say::Ask(t) => (1, &[], t),
            Say::Tell(t) => (2, &[], t),
            Say::Line(t) => (3, &[], t),
            Say::Signature { challenge, text } => (4, challenge, text),
        };
        let all = [&[kind], head, text].concat();
        (all.len() <= MESSAGE_MAX).then_some(all)
    }

    /// None: no message.
    pub fn decode(bytes: &[u8]) -> Option<Say> {
        let (kind, rest) = bytes.split_first().filter(|_| bytes.len() <= MESSAGE_MAX)?;
        Some(match kind {
            1 => Say::Ask(rest.into()),
            2 => Say::Tell(rest.into()),
            3 => Say::Line(rest.into()),
            4 => {
                let (challenge, text) = rest.split_first_chunk()?;
                Say::Signature { challenge: *challenge, text: text.into() }
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_verdict_is_its_status() {
        for (v, status, word) in VERDICTS {
            assert_eq!((Verdict::from_status(status), v.status(), v.as_str()), (v, status, word));
        }
        assert_eq!(Verdict::from_status(77), Verdict::Later);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            if let Some(say) = Say::decode(&bytes) {
                prop_assert_eq!(say.encode(), Some(bytes));
            }
        }
    }
}
