//! What a login child sends and receives, over SOCK_SEQPACKET: [`LoginMessage`] with the session's
//! thread, [`Report`] to the parent alone. The child's result is not among it: that is its exit
//! status, which only the parent reads.

use super::pubkey::CHALLENGE;
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;

/// The most bytes of a message: a signature line and its challenge.
pub const MESSAGE_MAX: usize = 9 * 1024;

/// The result of a try to log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginResult {
    Yes,
    No,
    /// The key is good, but not this user's.
    NotAKey,
    BadSignature,
    /// The signature is good, but another session has used it already. Only the parent can find
    /// that out.
    UsedSignature,
    /// The proof is good, but nobody logs in with this account: it has expired, PAM does not admit
    /// it, or its user has another name.
    NoAccount,
    /// The child took too long, and the parent has ended it.
    Timeout,
    /// The back end cannot decide now.
    Later,
}

const LOGIN_RESULTS: [(LoginResult, i32, &str); 8] = [
    // Not 0, with which others' code in the child may end it.
    (LoginResult::Yes, 42, "yes"),
    (LoginResult::No, 1, "no"),
    (LoginResult::NotAKey, 2, "not-a-key"),
    (LoginResult::BadSignature, 3, "bad-signature"),
    (LoginResult::UsedSignature, 4, "used-signature"),
    (LoginResult::NoAccount, 5, "no-account"),
    (LoginResult::Timeout, 6, "timeout"),
    (LoginResult::Later, 111, "later"),
];

impl LoginResult {
    /// From an exit status. Any status that is not listed counts as a failure.
    pub fn from_status(status: i32) -> LoginResult {
        LOGIN_RESULTS.iter().find(|(_, s, _)| *s == status).map_or(LoginResult::Later, |v| v.0)
    }

    pub fn status(self) -> i32 {
        LOGIN_RESULTS[self as usize].1
    }

    pub fn as_str(self) -> &'static str {
        LOGIN_RESULTS[self as usize].2
    }
}

/// A message. Text is bytes: users may type anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoginMessage {
    /// From the child: show this prompt, and send the line that the user types.
    Prompt(Vec<u8>),
    /// From the child: show this text.
    Text(Vec<u8>),
    /// From the session: a line.
    Line(Vec<u8>),
    /// From the session: what was to be signed, and the signature as it came.
    Signature { challenge: [u8; CHALLENGE], text: Vec<u8> },
}

impl LoginMessage {
    /// None: it is longer than [`MESSAGE_MAX`].
    pub fn encode(&self) -> Option<Vec<u8>> {
        let (kind, head, text): (u8, &[u8], &[u8]) = match self {
            LoginMessage::Prompt(t) => (1, &[], t),
            LoginMessage::Text(t) => (2, &[], t),
            LoginMessage::Line(t) => (3, &[], t),
            LoginMessage::Signature { challenge, text } => (4, challenge, text),
        };
        let all = [&[kind], head, text].concat();
        (all.len() <= MESSAGE_MAX).then_some(all)
    }

    /// None: it is not a message.
    pub fn decode(bytes: &[u8]) -> Option<LoginMessage> {
        let (kind, rest) = bytes.split_first().filter(|_| bytes.len() <= MESSAGE_MAX)?;
        Some(match kind {
            1 => LoginMessage::Prompt(rest.into()),
            2 => LoginMessage::Text(rest.into()),
            3 => LoginMessage::Line(rest.into()),
            4 => {
                let (challenge, text) = rest.split_first_chunk()?;
                LoginMessage::Signature { challenge: *challenge, text: text.into() }
            }
            _ => return None,
        })
    }
}

/// The most bytes of a report.
pub const REPORT_MAX: usize = 2 * REPORT_TEXT + 3;
/// The most reports of one child.
pub const REPORTS_MAX: usize = 8;
/// The most bytes of each text in a report; more is cut off.
const REPORT_TEXT: usize = 512;
/// Bytes of a SHA-256 hash.
pub const HASH: usize = 32;

/// What a login child reports to the parent besides its result, over a socket pair that only these
/// two have: the parent reads it after the child has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// The signature is good, and the key is this user's: SHA-256 of the text that was signed, and
    /// of the public key. A [`LoginResult::Yes`] by a key is ignored without this report.
    Signed { text: [u8; HASH], key: [u8; HASH] },
    /// A file of keys is ignored, and why: a sentence.
    NotCounted { path: Vec<u8>, why: Vec<u8> },
    /// The signature is good, but the key is not this user's: SHA-256 of the public key.
    OtherKey { key: [u8; HASH] },
    /// Why the login failed, for an administrator who runs fived with -d. Every failed try sends
    /// exactly one, so that no failure takes more work than another.
    Why(Vec<u8>),
}

/// The SHA-256 of a public key, as sshd(8) writes it.
pub fn fingerprint(key: &[u8; HASH]) -> String {
    format!("SHA256:{}", STANDARD_NO_PAD.encode(key))
}

impl Report {
    pub fn encode(&self) -> Vec<u8> {
        let cut = |text: &[u8]| text[..text.len().min(REPORT_TEXT)].to_vec();
        match self {
            Report::Signed { text, key } => [&[1], &text[..], key].concat(),
            Report::NotCounted { path, why } => {
                let path = cut(path);
                [&[2][..], &(path.len() as u16).to_be_bytes(), &path, &cut(why)].concat()
            }
            Report::OtherKey { key } => [&[3], &key[..]].concat(),
            Report::Why(why) => [&[4], &cut(why)[..]].concat(),
        }
    }

    /// None: it is not a report.
    pub fn decode(bytes: &[u8]) -> Option<Report> {
        let (kind, rest) = bytes.split_first().filter(|_| bytes.len() <= REPORT_MAX)?;
        Some(match kind {
            1 => {
                let (text, key) = rest.split_first_chunk()?;
                Report::Signed { text: *text, key: key.try_into().ok()? }
            }
            2 => {
                let (length, rest) = rest.split_first_chunk()?;
                let (path, why) =
                    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
                let fits = path.len() <= REPORT_TEXT && why.len() <= REPORT_TEXT;
                fits.then(|| Report::NotCounted { path: path.into(), why: why.into() })?
            }
            3 => Report::OtherKey { key: rest.try_into().ok()? },
            4 => Report::Why((rest.len() <= REPORT_TEXT).then(|| rest.into())?),
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
        for (v, status, word) in LOGIN_RESULTS {
            assert_eq!(
                (LoginResult::from_status(status), v.status(), v.as_str()),
                (v, status, word)
            );
        }
        assert_eq!(LoginResult::from_status(77), LoginResult::Later);
        assert_eq!(LoginResult::from_status(0), LoginResult::Later);
    }

    #[test]
    fn a_report_is_cut_to_its_room() {
        let long = Report::NotCounted { path: vec![b'p'; 9999], why: vec![b'w'; 9999] }.encode();
        assert_eq!(long.len(), REPORT_MAX);
        assert!(matches!(
            Report::decode(&long),
            Some(Report::NotCounted { path, why }) if path.len() == 512 && why.len() == 512
        ));
        let signed = Report::Signed { text: [1; HASH], key: [2; HASH] };
        assert_eq!(Report::decode(&signed.encode()), Some(signed));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_report_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            if let Some(report) = Report::decode(&bytes) {
                prop_assert_eq!(report.encode(), bytes);
            }
        }

        #[test]
        fn any_bytes_are_a_message_or_none(
            bytes in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            if let Some(message) = LoginMessage::decode(&bytes) {
                prop_assert_eq!(message.encode(), Some(bytes));
            }
        }
    }
}
