//! Where a table is read from, and whose words it is written in.

use std::fmt;

/// The program whose grammar a file has, and with whose meaning it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grammar {
    /// fived.conf(5).
    Fived,
    /// xinetd.conf(5).
    Xinetd,
}

/// The files that the administrator named, all of one grammar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub grammar: Grammar,
    /// At least one.
    pub paths: Vec<String>,
}

impl Origin {
    /// One file.
    pub fn new(grammar: Grammar, path: impl Into<String>) -> Origin {
        Origin { grammar, paths: vec![path.into()] }
    }
}

/// As the log names it.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.paths.join(" "))
    }
}
