//! The remarks about a block: what is wrong in it, left out, or served in another way.

use super::super::mistake::{Mistakes, Weight};

/// What follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The block cannot be served as it stands.
    Broken,
    /// The line has no effect; xinetd leaves it out too.
    Ignored,
    /// The row says something that fived does not serve.
    NotServed,
    /// The row is served, in another way than xinetd does.
    Differs,
}

#[derive(Debug, Clone)]
pub struct Remark {
    pub kind: Kind,
    pub line: usize,
    pub word: String,
    pub what: String,
}

/// The remarks of a block.
#[derive(Debug, Default)]
pub struct Remarks(Vec<Remark>);

/// How a mistake ends for which a service is not served.
pub const SWITCHED_OFF: &str = ": the service is switched off";

impl Remarks {
    pub fn push(&mut self, kind: Kind, line: usize, word: &str, what: impl Into<String>) {
        self.0.push(Remark { kind, line, word: word.into(), what: what.into() });
    }

    /// Is a row of them switched off?
    pub fn switch_off(&self) -> bool {
        self.0.iter().any(|r| matches!(r.kind, Kind::Broken | Kind::NotServed))
    }

    /// Reports them, in the order of their lines. `broken`: the weight of what is broken. Of a row
    /// that its file switches off (`off`) only mistakes are reported: how it would be served
    /// concerns nobody.
    pub fn tell(mut self, mistakes: &mut Mistakes, file: &str, broken: Weight, off: bool) {
        self.0.sort_by_key(|r| r.line);
        for Remark { kind, line, word, what } in self.0 {
            let (weight, what) = match kind {
                Kind::Broken if !off && broken == Weight::LeftOut => {
                    (broken, format!("{what}{SWITCHED_OFF}"))
                }
                Kind::Broken if !off => (broken, what),
                Kind::Ignored if !off => (Weight::LeftOut, what),
                Kind::Broken | Kind::Ignored => (Weight::Noted, what),
                Kind::NotServed | Kind::Differs if off => continue,
                Kind::NotServed => (Weight::Noted, format!("not served: {what}")),
                Kind::Differs => (Weight::Noted, what),
            };
            mistakes.push_as(weight, file, line, &word, what);
        }
    }
}
