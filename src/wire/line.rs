//! Reads one line of bounded length from segments that may be split anywhere.
//!
//! A line ends with LF or CRLF. Its text is at most `max` bytes without that end. What follows the
//! end is left alone: it belongs to the next reader. A line that comes in one segment takes no
//! memory.

/// What a segment contained.
#[derive(Debug, PartialEq, Eq)]
pub enum Fed<'a> {
    /// No line end yet; the whole segment was taken.
    More,
    /// A line, without its end; `taken` bytes of this segment belong to it.
    Line { text: &'a [u8], taken: usize },
    /// The text is longer than the bound, whatever follows.
    TooLong,
}

/// The part of a line that has come so far.
#[derive(Debug)]
pub struct Line {
    max: usize,
    held: Vec<u8>,
    whole: bool,
}

impl Line {
    /// A line of at most `max` bytes of text.
    pub fn new(max: usize) -> Self {
        Line { max, held: Vec::new(), whole: false }
    }

    /// Takes the next segment.
    pub fn feed<'a>(&'a mut self, segment: &'a [u8]) -> Fed<'a> {
        if self.whole {
            self.held.clear();
            self.whole = false;
        }
        let end = segment.iter().position(|&b| b == b'\n');
        let part = &segment[..end.unwrap_or(segment.len())];
        if self.held.len() + part.len() > self.max + 1 {
            return Fed::TooLong;
        }
        let Some(end) = end else {
            self.held.extend_from_slice(part);
            let full = self.held.len() > self.max && self.held.last() != Some(&b'\r');
            return if full { Fed::TooLong } else { Fed::More };
        };
        let text = if self.held.is_empty() {
            part
        } else {
            self.held.extend_from_slice(part);
            self.whole = true;
            &self.held
        };
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if text.len() > self.max { Fed::TooLong } else { Fed::Line { text, taken: end + 1 } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(max: usize, segments: &[&[u8]]) -> Result<(Vec<u8>, Vec<u8>), bool> {
        let mut line = Line::new(max);
        for (i, s) in segments.iter().enumerate() {
            match line.feed(s) {
                Fed::More => {}
                Fed::TooLong => return Err(true),
                Fed::Line { text, taken } => {
                    let rest = [&s[taken..], &segments[i + 1..].concat()].concat();
                    return Ok((text.to_vec(), rest));
                }
            }
        }
        Err(false)
    }

    #[test]
    fn ends_with_lf_or_crlf_and_leaves_the_rest() {
        assert_eq!(all(9, &[b"date\r\nrest"]), Ok((b"date".to_vec(), b"rest".to_vec())));
        assert_eq!(all(9, &[b"da", b"te\r", b"\n\n"]), Ok((b"date".to_vec(), b"\n".to_vec())));
        assert_eq!(all(9, &[b"\n"]), Ok((vec![], vec![])));
        assert_eq!(all(9, &[b"a\rb\r\r\n"]), Ok((b"a\rb\r".to_vec(), vec![])));
    }

    #[test]
    fn the_bound_is_of_the_text_alone() {
        assert_eq!(all(4, &[b"date\r\n"]), Ok((b"date".to_vec(), vec![])));
        assert_eq!(all(4, &[b"date\r"]), Err(false));
        assert_eq!(all(4, &[b"date\r", b"\n"]), Ok((b"date".to_vec(), vec![])));
        assert_eq!(all(4, &[b"dates"]), Err(true));
        assert_eq!(all(4, &[b"dates\n"]), Err(true));
        assert_eq!(all(4, &[b"date\r", b"x"]), Err(true));
    }

    proptest! {
        #[test]
        fn splitting_changes_nothing(
            text in proptest::collection::vec(any::<u8>(), 0..40),
            cuts in proptest::collection::vec(0usize..40, 0..5),
        ) {
            let whole = all(16, &[&text]);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let parts: Vec<&[u8]> = cuts.windows(2).map(|w| &text[w[0]..w[1]]).collect();
            prop_assert_eq!(all(16, &parts), whole);
        }
    }
}
