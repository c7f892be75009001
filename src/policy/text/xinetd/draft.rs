//! A row of xinetd.conf(5) while it is read: what its attributes say that becomes a column or a
//! port of fived's row, and not one of its attributes.

use super::super::super::places::Place;
use super::super::entry::Operator;
use std::net::IpAddr;
use std::sync::Arc;

/// A value, as it is written.
pub struct Value<'a> {
    pub file: &'a Arc<str>,
    pub line: usize,
    pub operator: Operator,
    pub words: &'a [&'a str],
}

impl Value<'_> {
    pub fn place(&self) -> Place {
        (self.file.clone(), self.line)
    }
}

/// A word of `type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    Rpc,
    Internal,
    Unlisted,
    Special,
    Tcpmux,
    TcpmuxPlus,
}

/// `socket_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Stream,
    Dgram,
    Raw,
    Seqpacket,
}

/// The words of `flags` that change something.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    pub line: usize,
    /// One that fived does not serve.
    pub not_served: Option<&'static str>,
    pub name_in_args: bool,
    pub nodelay: bool,
    pub no_libwrap: bool,
    pub sensor: bool,
    pub v4: bool,
    pub v6: bool,
}

impl Flags {
    /// Both together mean either.
    pub fn only_v4(&self) -> bool {
        self.v4 && !self.v6
    }
}

/// Where a service is switched off: at a line of its block, or of `defaults`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SwitchedOff {
    Itself(usize),
    ByDefaults(Place),
}

/// What the lines so far say, those of `defaults` first. A number beside a value is its line.
#[derive(Debug, Clone, Default)]
pub struct Draft {
    pub id: Option<String>,
    pub types: Vec<Type>,
    pub types_line: usize,
    pub flags: Flags,
    /// The line of `disable = yes`.
    pub disable: Option<usize>,
    pub kind: Option<(Kind, usize)>,
    pub protocol: Option<(String, usize)>,
    pub wait: Option<(bool, usize)>,
    pub user: Option<(String, usize)>,
    pub server: Option<(String, usize)>,
    pub arguments: Vec<String>,
    pub port: Option<(u16, usize)>,
    /// Host, port and line.
    pub redirect: Option<(String, String, usize)>,
    /// Seconds, or UNLIMITED.
    pub deny_time: Option<String>,
    /// A daemon's name.
    pub libwrap: Option<String>,
    pub bind: Option<(String, usize)>,
    pub v6only: Option<(bool, usize)>,
    /// Of `defaults`: the ids of the only services that are on, and where the last of them are; and
    /// those of services that are off.
    pub enabled: Option<(Vec<String>, Place)>,
    pub disabled: Vec<(String, Place)>,
}

impl Draft {
    /// The draft of a service whose block begins at that line. What it has of these defaults is
    /// said there: their lines may be of another file.
    pub fn inherited(&self, line: usize) -> Draft {
        let (bind, v6only) = (self.bind.clone(), self.v6only);
        Draft {
            bind: bind.map(|(word, _)| (word, line)),
            v6only: v6only.map(|(only, _)| (only, line)),
            ..self.clone()
        }
    }

    /// The value of fived's `libwrap`: the daemon's name by which xinetd asks hosts.allow and
    /// hosts.deny.
    pub fn libwrap(&self, name: &str) -> String {
        let named_first = self.arguments.first().filter(|_| self.flags.name_in_args);
        let file_name = |w: &String| w.rsplit('/').next().unwrap_or_default().to_string();
        match &self.libwrap {
            _ if self.flags.no_libwrap => "no".into(),
            Some(daemon) => daemon.clone(),
            None if self.internal() || self.redirect.is_some() => name.into(),
            None => named_first.map_or_else(|| "yes".into(), file_name),
        }
    }

    /// Has it a socket of IPv4 alone, as far as its text says?
    pub fn only_v4(&self) -> bool {
        let address = self.bind.as_ref().and_then(|(word, _)| word.parse().ok());
        self.flags.only_v4() || address.is_some_and(|a: IpAddr| a.is_ipv4())
    }

    pub fn is(&self, one: Type) -> bool {
        self.types.contains(&one)
    }

    /// Is it reached by its name at the TCPMUX port?
    pub fn by_name(&self) -> bool {
        self.is(Type::Tcpmux) || self.is(Type::TcpmuxPlus)
    }

    /// Is it a service of xinetd itself?
    pub fn internal(&self) -> bool {
        self.is(Type::Internal) || self.flags.sensor
    }

    /// What switches off the service with this id; None: nothing does.
    pub fn switched_off(&self, id: &str) -> Option<SwitchedOff> {
        let is = |named: &str| named.eq_ignore_ascii_case(id);
        let disabled = || self.disabled.iter().rfind(|(id, _)| is(id)).map(|(_, at)| at.clone());
        let enabled = || self.enabled.as_ref().filter(|(ids, _)| !ids.iter().any(|id| is(id)));
        let by_defaults = || disabled().or_else(|| enabled().map(|(_, at)| at.clone()));
        let itself = self.disable.map(SwitchedOff::Itself);
        itself.or_else(|| by_defaults().map(SwitchedOff::ByDefaults))
    }
}
