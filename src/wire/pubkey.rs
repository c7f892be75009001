//! PUBKEY (fived-session(7)): the text that is signed, and the line that the signature comes in.

/// Bytes of a challenge.
pub const CHALLENGE: usize = 32;

/// The kind of connection that the challenge belongs to. It is part of the signed text: a server
/// that presents the TLS exporter of another connection as its own plain challenge gets a signature
/// that is not valid inside TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The challenge is the exporter of the TLS connection.
    Tls,
    /// The challenge is random.
    Plain,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Tls => "tls",
            Kind::Plain => "plain",
        }
    }

    /// None: it is neither of the two words.
    pub fn from_word(word: &str) -> Option<Kind> {
        [Kind::Tls, Kind::Plain].into_iter().find(|k| k.as_str() == word)
    }
}

/// The text that a client signs to log in as `user`, on such a connection with such a challenge
/// (base64).
pub fn text(kind: Kind, user: &[u8], challenge: &str) -> Vec<u8> {
    let kind = kind.as_str().as_bytes();
    [b"fived pubkey ", kind, b" 1\nuser ", user, b"\nchallenge ", challenge.as_bytes(), b"\n"]
        .concat()
}

/// The answer to the challenge, without its line end: `USER SIGNATURE`.
pub fn answer(user: &str, signature: &str) -> String {
    format!("{user} {signature}")
}

/// Splits an answer into user and signature. A user's name may contain blanks, a signature cannot.
/// Without any blank there is no signature.
pub fn read_answer(line: &[u8]) -> (&[u8], &[u8]) {
    match line.iter().rposition(|&b| b == b' ') {
        Some(i) => (&line[..i], &line[i + 1..]),
        None => (line, &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_says_the_kind() {
        assert_eq!(
            text(Kind::Plain, b"ann b", "AAA="),
            b"fived pubkey plain 1\nuser ann b\nchallenge AAA=\n"
        );
        assert_eq!(
            text(Kind::Tls, b"ann", "AAA="),
            b"fived pubkey tls 1\nuser ann\nchallenge AAA=\n"
        );
        assert_eq!(
            [Kind::from_word("tls"), Kind::from_word("plain")],
            [Some(Kind::Tls), Some(Kind::Plain)]
        );
        assert_eq!(Kind::from_word("TLS"), None);
    }

    #[test]
    fn an_answer_is_read_as_it_was_written() {
        assert_eq!(read_answer(answer("ann b", "AAAA").as_bytes()), (&b"ann b"[..], &b"AAAA"[..]));
        assert_eq!(read_answer(b"ann"), (&b"ann"[..], &b""[..]));
    }
}
