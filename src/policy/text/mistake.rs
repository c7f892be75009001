//! A mistake in a configuration, as the user reads it.

use std::fmt;

/// Mistakes that are reported at most.
const MAX: usize = 1000;

/// One mistake: `FILE:LINE: WORD: what is wrong`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    pub file: String,
    /// From 1; 0: the file as a whole.
    pub line: usize,
    /// May be empty.
    pub word: String,
    pub what: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        visible(f, &self.file)?;
        write!(f, ":{}: ", self.line)?;
        if !self.word.is_empty() {
            visible(f, &self.word)?;
            f.write_str(": ")?;
        }
        f.write_str(&self.what)
    }
}

/// As it stands in the file, but for what would not be seen.
fn visible(f: &mut fmt::Formatter, text: &str) -> fmt::Result {
    text.chars().try_for_each(|c| {
        if matches!(c, '\'' | '"' | '\\') {
            write!(f, "{c}")
        } else {
            write!(f, "{}", c.escape_debug())
        }
    })
}

/// The mistakes of a configuration, in the order of its text; the first [`MAX`] of them.
#[derive(Debug, Default)]
pub struct Mistakes(Vec<Mistake>);

impl Mistakes {
    pub fn push(&mut self, file: &str, line: usize, word: &str, what: impl Into<String>) {
        if self.0.len() < MAX {
            let (file, word, what) = (file.into(), word.into(), what.into());
            self.0.push(Mistake { file, line, word, what });
        }
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Puts those after the first `n` into the order of their lines.
    pub fn sort_after(&mut self, n: usize) {
        self.0[n..].sort_by_key(|m| m.line);
    }

    pub fn into_vec(self) -> Vec<Mistake> {
        self.0
    }
}
