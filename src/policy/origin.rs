//! Where a table is read from, and whose words it is written in.

use std::fmt;
use std::net::IpAddr;

/// The program whose grammar a file has, and with whose meaning it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grammar {
    /// fived.conf(5).
    Fived,
    /// inetd.conf(5).
    Inetd,
    /// xinetd.conf(5).
    Xinetd,
}

/// The files that the administrator named, all of one grammar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub grammar: Grammar,
    /// At least one.
    pub paths: Vec<String>,
    /// What options of the command line say of settings and attributes. They are defaults, which
    /// the files may overrule.
    pub given: Vec<GivenOption>,
    /// Starts a minute, at most, of the rows of inetd.conf(5) that do not say it themselves.
    pub per_minute: Option<u32>,
    /// Where the rows of inetd.conf(5) listen that name no address themselves. None given: at every
    /// address.
    pub addresses: Vec<IpAddr>,
}

/// An option that says what a line of fived.conf(5) could say, too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenOption {
    /// As it was written.
    pub option: String,
    /// Of a setting or attribute.
    pub name: String,
    pub words: Vec<String>,
}

impl Origin {
    /// One file.
    pub fn new(grammar: Grammar, path: impl Into<String>) -> Origin {
        Origin::of(grammar, vec![path.into()])
    }

    /// Files.
    pub fn of(grammar: Grammar, paths: Vec<String>) -> Origin {
        Origin { grammar, paths, given: Vec::new(), per_minute: None, addresses: Vec::new() }
    }
}

/// As the log names it.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.paths.join(" "))
    }
}
