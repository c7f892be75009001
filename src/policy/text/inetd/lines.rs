//! Lines of inetd.conf(5): which of them is a row, an address for the rows after it, or a policy of
//! IPsec, and the words of each.

/// What stands on a line and on the lines that continue it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Of the file, from 1: where it begins.
    pub number: usize,
    pub what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// `ADDR[,ADDR]:` alone on its line: where the rows after it listen.
    Addresses(String),
    /// `#@ POLICY`: a policy of IPsec for the rows after it; `#@` alone (false) ends it.
    Ipsec(bool),
    Row(Vec<String>),
    /// A row that cannot be split into words: the first of them, and why not.
    Unread(String, &'static str),
}

/// Splits a file. A line that begins with a blank continues the row above it; one that begins
/// with `#`, blanks before it or not, is a comment. A `#` that stands later is an argument, as it
/// is under inetd.
pub fn lines(bytes: &[u8]) -> Vec<Line> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut all: Vec<Line> = Vec::new();
    // True while an indented line continues the last entry of `all`.
    let mut open = false;
    for (i, raw) in bytes.split(|&b| b == b'\n').enumerate() {
        let number = i + 1;
        let raw = raw.strip_suffix(b"\r").unwrap_or(raw);
        if let Some(policy) = raw.strip_prefix(b"#@") {
            all.push(Line { number, what: What::Ipsec(!policy.trim_ascii().is_empty()) });
        }
        let text = raw.trim_ascii();
        let indented = raw.first().is_some_and(|b| matches!(b, b' ' | b'\t'));
        open &= indented;
        if text.is_empty() || text.starts_with(b"#") {
            continue;
        }
        let words = words(text);
        match (all.last_mut().filter(|_| open), words) {
            (Some(Line { what: What::Row(row), .. }), Ok(more)) => row.extend(more),
            // One line that cannot be read makes its whole row unreadable.
            (Some(Line { what: What::Unread(..), .. }), _) => {}
            (Some(line), Err(why)) => line.what = unread(text, why),
            (_, Err(why)) => all.push(Line { number, what: unread(text, why) }),
            (_, Ok(row)) => {
                let what = match &row[..] {
                    [one] if one.ends_with(':') => {
                        What::Addresses(one[..one.len() - 1].to_string())
                    }
                    _ => What::Row(row),
                };
                all.push(Line { number, what });
            }
        }
        open = all.last().is_some_and(|l| matches!(l.what, What::Row(_) | What::Unread(..)));
    }
    all
}

fn unread(text: &[u8], why: &'static str) -> What {
    let first = text.split(|b| b.is_ascii_whitespace()).next().unwrap_or_default();
    What::Unread(String::from_utf8_lossy(first).into_owned(), why)
}

/// The words of a line: blanks separate them, and a word that begins with a quote ends with that
/// quote. A quote within a word is one of its characters.
fn words(line: &[u8]) -> Result<Vec<String>, &'static str> {
    let text = std::str::from_utf8(line).map_err(|_| "expected UTF-8, found other bytes")?;
    if text.contains(|c: char| c.is_control() && c != '\t') {
        return Err("expected printable text, found a control character");
    }
    let (mut words, mut rest) = (Vec::new(), text);
    loop {
        rest = rest.trim_start_matches([' ', '\t']);
        let Some(first) = rest.chars().next() else { return Ok(words) };
        let (word, after) = if matches!(first, '"' | '\'') {
            let open = "expected a closing quote, found the end of the line";
            rest[1..].split_once(first).ok_or(open)?
        } else {
            rest.split_at(rest.find([' ', '\t']).unwrap_or(rest.len()))
        };
        words.push(word.into());
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rows(text: &str) -> Vec<(usize, String)> {
        let row = |l: Line| match l.what {
            What::Row(words) => (l.number, words.join("|")),
            other => (l.number, format!("{other:?}")),
        };
        lines(text.as_bytes()).into_iter().map(row).collect()
    }

    #[test]
    fn rows_go_on_at_indented_lines() {
        let text = "# a\r\n  first row\r\n\n\ta b\n\t# comment\n  \n c \"d e\" 'f'g\n# x\n h\n::1:\ni # j\n";
        let wanted = [
            (2, "first|row".into()),
            (4, "a|b|c|d e|f|g".into()),
            (9, "h".into()),
            (10, r#"Addresses("::1")"#.into()),
            (11, "i|#|j".into()),
        ];
        assert_eq!(rows(text), wanted);
    }

    #[test]
    fn what_cannot_be_split_is_one_row() {
        let text = "a 'b\n  c\nd\n  \"e\nf \x01\n";
        let wanted = [
            (1, r#"Unread("a", "expected a closing quote, found the end of the line")"#.into()),
            (3, r#"Unread("\"e", "expected a closing quote, found the end of the line")"#.into()),
            (5, r#"Unread("f", "expected printable text, found a control character")"#.into()),
        ];
        assert_eq!(rows(text), wanted);
        assert_eq!(rows("#@ in ipsec ah/require\na b\n#@\n")[0], (1, "Ipsec(true)".into()));
        assert!(matches!(&lines(b"a \xff")[0].what, What::Unread(..)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_split(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let all = lines(&bytes);
            prop_assert!(all.is_sorted_by_key(|l| l.number));
        }
    }
}
