//! A value as one word of a line, in the log and in what `five -O` prints: a blank, a control byte
//! and a byte that is not ASCII is `\xNN`, and `\` is `\\`.

use std::fmt::Write as _;

/// A value as one word, however long.
pub fn word(value: &str) -> String {
    let mut out = String::new();
    escape(&mut out, value.as_bytes(), false);
    out
}

/// Adds a value; `blanks`: as a sentence, whose blanks stay.
pub fn escape(out: &mut String, value: &[u8], blanks: bool) {
    for &b in value {
        match b {
            b' ' if blanks => out.push(' '),
            b'\\' => out.push_str("\\\\"),
            b'!'..=b'~' => out.push(char::from(b)),
            _ => {
                let _ = write!(out, "\\x{b:02x}");
            }
        }
    }
}

/// The value that [`word`] has made such a word of. None: it made no such word.
pub fn value(word: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::new(), word.as_bytes());
    loop {
        rest = match rest {
            [] => return String::from_utf8(bytes).ok(),
            [b'\\', b'\\', rest @ ..] => {
                bytes.push(b'\\');
                rest
            }
            [b'\\', b'x', a, b, rest @ ..] => {
                let digit = |d: &u8| char::from(*d).to_digit(16);
                bytes.push(u8::try_from(digit(a)? * 16 + digit(b)?).ok()?);
                rest
            }
            [b'\\', ..] => return None,
            [b @ b'!'..=b'~', rest @ ..] => {
                bytes.push(*b);
                rest
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_one_word_and_says_its_value() {
        assert_eq!(word("a b\n\\x\u{fc}"), "a\\x20b\\x0a\\\\x\\xc3\\xbc");
        for text in ["", "/run/a b", "a\n\tb=\\x20 \u{fc}", "plain"] {
            assert_eq!(value(&word(text)).as_deref(), Some(text));
        }
        for no in ["a b", "\\", "\\x2", "\\x2g", "\\n", "\\xff"] {
            assert_eq!(value(no), None, "{no}");
        }
    }
}
