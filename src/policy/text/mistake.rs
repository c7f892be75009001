//! A mistake in a configuration, as the user reads it.

use std::fmt;

/// Mistakes of each weight that are reported at most.
const MAX: usize = 1000;

/// What follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Weight {
    /// The configuration is not used.
    #[default]
    Refused,
    /// A row of a file of another program: the row is left out or switched off, or a line of it is
    /// left out, as that program does; the other rows are served.
    LeftOut,
    /// fived serves a row of another program's file in another way than that program, or not at
    /// all.
    Noted,
}

/// One mistake: `FILE:LINE: WORD: what is wrong`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    pub file: String,
    /// Counted from 1; 0: the file as a whole.
    pub line: usize,
    /// May be empty.
    pub word: String,
    pub what: String,
    pub weight: Weight,
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

/// Writes text as it is in the file, with escapes for invisible characters.
fn visible(f: &mut fmt::Formatter, text: &str) -> fmt::Result {
    text.chars().try_for_each(|c| {
        if matches!(c, '\'' | '"' | '\\') {
            write!(f, "{c}")
        } else {
            write!(f, "{}", c.escape_debug())
        }
    })
}

/// The mistakes of a configuration, in the order of its text; the first [`MAX`] of each weight.
#[derive(Debug, Default)]
pub struct Mistakes {
    all: Vec<Mistake>,
    /// How many there are of each weight.
    counts: [usize; 3],
    /// Of those that are pushed from now on.
    pub weight: Weight,
}

impl Mistakes {
    pub fn push(&mut self, file: &str, line: usize, word: &str, what: impl Into<String>) {
        let count = &mut self.counts[self.weight as usize];
        if *count < MAX {
            *count += 1;
            let (file, word, what) = (file.into(), word.into(), what.into());
            self.all.push(Mistake { file, line, word, what, weight: self.weight });
        }
    }

    /// One of another weight than those that are pushed.
    pub fn push_as(
        &mut self,
        weight: Weight,
        file: &str,
        line: usize,
        word: &str,
        what: impl Into<String>,
    ) {
        let usual = std::mem::replace(&mut self.weight, weight);
        self.push(file, line, word, what);
        self.weight = usual;
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Sorts those after the first `n` by their lines.
    pub fn sort_after(&mut self, n: usize) {
        self.all[n..].sort_by_key(|m| m.line);
    }

    pub fn into_vec(self) -> Vec<Mistake> {
        self.all
    }
}
