//! Splits a line into words, as a shell does: blanks separate words, `"..."`, `'...'` and `\` quote,
//! and `#` at the beginning of a word begins a comment.

/// A word, and whether any of it was quoted. A quoted operator or bracket is ordinary text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    pub text: String,
    pub quoted: bool,
}

impl Word {
    /// Is it this, unquoted?
    pub fn is(&self, text: &str) -> bool {
        !self.quoted && self.text == text
    }
}

/// Splits a line. Err: a quotation does not end, or there is a control character.
pub fn split(line: &str) -> Result<Vec<Word>, &'static str> {
    let (mut words, mut chars) = (Vec::new(), line.chars().peekable());
    loop {
        while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
        match chars.peek() {
            None | Some('#') => return Ok(words),
            Some(_) => words.push(word(&mut chars)?),
        }
    }
}

fn word(chars: &mut std::iter::Peekable<std::str::Chars>) -> Result<Word, &'static str> {
    const OPEN: &str = "expected a closing quote, found the end of the line";
    let mut w = Word { text: String::new(), quoted: false };
    while let Some(c) = chars.next_if(|c| !c.is_ascii_whitespace()) {
        match c {
            '\\' => {
                w.quoted = true;
                w.text.push(chars.next().ok_or(
                    "expected a character after the backslash, found the end of the line",
                )?);
            }
            '\'' => {
                w.quoted = true;
                loop {
                    match chars.next().ok_or(OPEN)? {
                        '\'' => break,
                        c => w.text.push(c),
                    }
                }
            }
            '"' => {
                w.quoted = true;
                loop {
                    match chars.next().ok_or(OPEN)? {
                        '"' => break,
                        '\\' => w.text.push(chars.next().ok_or(OPEN)?),
                        c => w.text.push(c),
                    }
                }
            }
            c => w.text.push(c),
        }
    }
    if w.text.contains(|c: char| c.is_control() && c != '\t') {
        return Err("expected printable text, found a control character");
    }
    Ok(w)
}

/// Quotes a word so that [`split`] returns it unchanged.
pub fn quote(text: &str) -> String {
    let plain =
        |c: char| !c.is_ascii_whitespace() && !matches!(c, '\'' | '"' | '\\' | '#' | '[' | '=');
    if !text.is_empty() && text.chars().all(plain) {
        text.into()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(line: &str) -> Vec<String> {
        split(line).expect("good").into_iter().map(|w| w.text).collect()
    }

    #[test]
    fn quotes_as_a_shell_does() {
        assert_eq!(
            texts(r#"sh -c "two words" 'a "b" \' a" b"c \# x#y # comment"#),
            ["sh", "-c", "two words", r#"a "b" \"#, "a bc", "#", "x#y"]
        );
        assert_eq!(texts(r#""" 'x'\''y' "a\"b""#), ["", "x'y", "a\"b"]);
        assert!(split("'open").is_err() && split("\"open\\\"").is_err() && split("x\\").is_err());
    }

    proptest! {
        #[test]
        fn a_quoted_word_is_itself(text in "[ -~\t]{0,20}") {
            prop_assert_eq!(texts(&quote(&text)), [text]);
        }
        #[test]
        fn any_line_is_split_or_refused(line in "\\PC{0,60}") {
            let _ = split(&line);
        }
    }
}
