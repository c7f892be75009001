//! A mistake in a configuration, as the user reads it.

use std::fmt;

/// Mistakes of each weight that are reported at most.
const MAX: usize = 1000;

/// How a mistake ends for which one line alone is left out.
pub const LINE_LEFT_OUT: &str = ": the line is left out";

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
    /// all; or a file of a directory is not read.
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
    /// Not one mistake, but how many more there are.
    pub rest: bool,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        visible(f, &self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        f.write_str(": ")?;
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
    /// For each weight where the first stands that is not among `all`.
    rest: [Option<(String, usize)>; 3],
    /// Of those that are pushed from now on.
    pub weight: Weight,
}

impl Mistakes {
    pub fn push(&mut self, file: &str, line: usize, word: &str, what: impl Into<String>) {
        let (weight, rest) = (self.weight, false);
        let count = &mut self.counts[weight as usize];
        *count += 1;
        if *count > MAX {
            self.rest[weight as usize].get_or_insert_with(|| (file.into(), line));
            return;
        }
        let (file, word, what) = (file.into(), word.into(), what.into());
        self.all.push(Mistake { file, line, word, what, weight, rest });
    }

    /// All of these, with their own weights.
    pub fn append(&mut self, others: Mistakes) {
        for Mistake { file, line, word, what, weight, .. } in others.all {
            self.push_as(weight, &file, line, &word, what);
        }
        for (n, rest) in others.rest.into_iter().enumerate().filter(|(_, rest)| rest.is_some()) {
            self.counts[n] += others.counts[n] - MAX;
            self.rest[n] = self.rest[n].take().or(rest);
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

    /// Those after the first `n` for which a row is left out, and not a line of it, end with this
    /// text.
    pub fn end_after(&mut self, n: usize, text: &str) {
        let says = |m: &Mistake| m.what.ends_with(text) || m.what.ends_with(LINE_LEFT_OUT);
        let row = |m: &&mut Mistake| m.weight == Weight::LeftOut && !says(m);
        self.all[n..].iter_mut().filter(row).for_each(|m| m.what += text);
    }

    /// Sorts those after the first `n` by their lines.
    pub fn sort_after(&mut self, n: usize) {
        self.all[n..].sort_by_key(|m| m.line);
    }

    /// Them, and of each weight how many more there are, if there are.
    pub fn into_vec(mut self) -> Vec<Mistake> {
        for weight in [Weight::Refused, Weight::LeftOut, Weight::Noted] {
            let n = weight as usize;
            if let Some((file, line)) = self.rest[n].take() {
                let what = format!(
                    "expected at most {MAX} lines about a configuration, found {} more, which are not shown, from this line on",
                    self.counts[n] - MAX
                );
                let word = String::new();
                self.all.push(Mistake { file, line, word, what, weight, rest: true });
            }
        }
        self.all
    }
}
