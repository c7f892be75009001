//! The request (RFC 1078): what a name asks for.

use super::builtins::{self, Builtin};

/// The most bytes of a name.
pub const NAME_MAX: usize = 255;
/// The most bytes of a line in a dialogue.
pub const DIALOGUE_MAX: usize = 512;
/// The most bytes of PUBKEY's signature line.
pub const SIGNATURE_MAX: usize = 8 * 1024;

/// A request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request<'a> {
    Help,
    Builtin(Builtin),
    /// May be the name of a service.
    Name(&'a [u8]),
    /// Cannot be a name: empty, or with a control or 8-bit byte in it.
    NoName(&'a [u8]),
}

/// Reads the text of a request line. Names are compared without regard to ASCII case; blanks count.
pub fn read(text: &[u8]) -> Request<'_> {
    if text.is_empty() || text.len() > NAME_MAX || text.iter().any(|b| !(b' '..=b'~').contains(b)) {
        return Request::NoName(text);
    }
    match builtins::named(text) {
        Some(row) => row.builtin.map_or(Request::Help, Request::Builtin),
        None => Request::Name(text),
    }
}

/// Reads the name of a service where no other request is understood. None: it cannot be such a
/// name, or is that of a built-in.
pub fn read_name(text: &[u8]) -> Option<&[u8]> {
    match read(text) {
        Request::Name(name) => Some(name),
        Request::Help | Request::Builtin(_) | Request::NoName(_) => None,
    }
}

/// The line of a request for that name.
pub fn line(name: &str) -> Vec<u8> {
    format!("{name}\r\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are() {
        assert_eq!(read(b"help"), Request::Help);
        assert_eq!(read(b"SsL"), Request::Builtin(Builtin::Ssl));
        assert_eq!(read(b"DATE"), Request::Name(b"DATE"));
        assert_eq!(read(b"date "), Request::Name(b"date "));
        assert_eq!(
            [b"date", b"help", b"auth", b"a\0te"].map(|n| read_name(n).is_some()),
            [true, false, false, false]
        );
        assert_eq!(read(b""), Request::NoName(b""));
        assert_eq!(read(b"da\rte"), Request::NoName(b"da\rte"));
        assert_eq!(read(b"d\xc3\xa4te"), Request::NoName(b"d\xc3\xa4te"));
    }
}
