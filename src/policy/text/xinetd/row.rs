//! From the draft of a row to its columns and its port.

use super::super::super::backend::{Backend, Upstream};
use super::super::super::endpoint::{Endpoint, Family};
use super::super::super::users::UserSpec;
use super::super::columns::{Columns, Nowait, check_name};
use super::super::entry::Files;
use super::draft::{Draft, Kind, Type};
use super::remark::{Kind as Is, Remarks};
use crate::wire::internal::Internal;
use std::net::IpAddr;

/// What services of xinetd's own run as where no user is given.
const NOBODY: &str = "nobody";

/// What a row is made from.
pub struct Row<'a> {
    pub name: &'a str,
    pub id: &'a str,
    /// Of its block.
    pub line: usize,
    pub draft: &'a Draft,
    pub files: &'a mut dyn Files,
    pub remarks: &'a mut Remarks,
}

impl Row<'_> {
    fn broken(&mut self, line: usize, word: &str, what: impl Into<String>) {
        self.remarks.push(Is::Broken, line, word, what);
    }

    fn not_served(&mut self, line: usize, word: &str, what: impl Into<String>) {
        self.remarks.push(Is::NotServed, line, word, what);
    }

    fn differs(&mut self, line: usize, word: &str, what: impl Into<String>) {
        self.remarks.push(Is::Differs, line, word, what);
    }

    /// Its columns, and what stands after `port =`. None: there can be no row.
    pub fn make(mut self) -> (Option<Columns>, Option<String>) {
        let protocol = self.protocol();
        self.not_served_words();
        let address = self.address();
        let family = self.family(address);
        let port = protocol.and_then(|p| self.port(p)).map(|n| match address {
            None => n.to_string(),
            Some(IpAddr::V4(a)) => format!("{a}:{n}"),
            Some(IpAddr::V6(a)) => format!("[{a}]:{n}"),
        });
        let by_name = self.draft.by_name();
        let name = if by_name { self.name } else { self.id };
        if let Err(wrong) = check_name(name, name) {
            self.broken(self.line, &wrong.word, wrong.what);
            return (None, port);
        }
        let (user, backend) = (self.user(), self.backend());
        let (Some(user), Some(backend)) = (user, backend) else { return (None, port) };
        let columns = Columns {
            name: name.into(),
            endpoint: Endpoint { family, announce: !self.draft.is(Type::Tcpmux) },
            user,
            backend,
            wait: Nowait::default(),
        };
        (Some(columns), port)
    }

    /// `tcp` or `udp`, from `socket_type` and `protocol`: each follows from the other.
    fn protocol(&mut self) -> Option<&'static str> {
        let (draft, line) = (self.draft, self.line);
        let word = draft.protocol.as_deref().map(str::to_ascii_lowercase);
        let kind = draft.kind.or(match word.as_deref() {
            Some("tcp") => Some((Kind::Stream, line)),
            Some("udp") => Some((Kind::Dgram, line)),
            Some(_) | None => None,
        });
        let Some((kind, at)) = kind else {
            self.broken(line, self.name, "expected a `socket_type`, found none");
            return None;
        };
        let usual = match kind {
            Kind::Stream => "tcp",
            Kind::Dgram => "udp",
            Kind::Raw | Kind::Seqpacket => {
                let word = if kind == Kind::Raw { "raw" } else { "seqpacket" };
                self.not_served(at, word, "a service of this socket type");
                return None;
            }
        };
        if let Some(word) = word.filter(|w| w != usual) {
            self.broken(at, "protocol", format!("expected {usual}, found {word:?}"));
        }
        let Some((wait, at)) = draft.wait else {
            self.broken(line, self.name, "expected `wait = yes` or `wait = no`, found none");
            return Some(usual);
        };
        match kind {
            Kind::Dgram if !wait => {
                self.broken(at, "wait", "expected yes for a dgram service, found no");
            }
            Kind::Dgram => self.not_served(at, "dgram", "a datagram service"),
            Kind::Stream if wait => {
                self.not_served(at, "wait", "a server that accepts its connections itself");
            }
            Kind::Stream | Kind::Raw | Kind::Seqpacket => {}
        }
        if draft.by_name() && (usual, wait) != ("tcp", false) {
            let what = "expected stream, tcp and `wait = no` for a TCPMUX service, found another";
            self.broken(at, self.name, what);
        }
        Some(usual)
    }

    /// Words of rows that are not served, or not as xinetd does.
    fn not_served_words(&mut self) {
        let (draft, line) = (self.draft, self.draft.flags.line);
        for (one, word, what) in [
            (Type::Rpc, "RPC", "there is no portmapper"),
            (Type::Special, "SPECIAL", "a service of xinetd's own"),
        ] {
            if draft.is(one) {
                self.not_served(draft.types_line, word, what);
            }
        }
        if let Some(word) = draft.flags.not_served {
            self.not_served(line, word, "a flag that fived does not have");
        }
        for (set, word, what) in [
            (draft.flags.nodelay, "NODELAY", "fived does not set TCP_NODELAY"),
            (draft.flags.keepalive, "KEEPALIVE", "fived does not set SO_KEEPALIVE"),
        ] {
            if set {
                self.differs(line, word, what);
            }
        }
        if draft.by_name() && !draft.is(Type::Unlisted) {
            let what = "it is served; xinetd does so only with UNLISTED beside it";
            self.differs(draft.types_line, "type", what);
        }
    }

    /// `bind`: None is every address.
    fn address(&mut self) -> Option<IpAddr> {
        let word = self.draft.bind.as_deref()?;
        match word.parse() {
            Ok(address) => Some(address),
            Err(_) => {
                let what = format!("expected an address, found {word:?}");
                self.broken(self.line, "bind", what);
                None
            }
        }
    }

    fn family(&mut self, address: Option<IpAddr>) -> Family {
        let flags = &self.draft.flags;
        let only_v4 = flags.v4 && !flags.v6;
        if only_v4 && address.is_some_and(|a| a.is_ipv6()) {
            let what = "expected an IPv4 address in `bind`, found one of IPv6";
            self.broken(self.draft.flags.line, "IPv4", what);
        }
        if only_v4 || address.is_some_and(|a| a.is_ipv4()) {
            return Family::V4;
        }
        match self.draft.v6only {
            None => Family::Any,
            Some((true, _)) => Family::V6,
            Some((false, _)) => Family::Any,
        }
    }

    /// The number of its port; None: it is reached by its name, or not at all.
    fn port(&mut self, protocol: &str) -> Option<u16> {
        let draft = self.draft;
        if draft.by_name() || draft.is(Type::Rpc) {
            return None;
        }
        let given = draft.port.map(|(n, _)| n);
        if draft.is(Type::Unlisted) {
            if given.is_none() {
                self.broken(self.line, self.name, "expected a `port` for UNLISTED, found none");
            }
            return given;
        }
        let listed = self.files.port(self.name, protocol);
        let line = draft.port.map_or(self.line, |(_, line)| line);
        match (given, listed) {
            (None, None) | (Some(_), None) => {
                let what = format!(
                    "expected a name of services(5) for {protocol}, or UNLISTED in `type` and a `port`, found {:?}",
                    self.name
                );
                self.broken(line, self.name, what);
            }
            (Some(n), Some(listed)) if n != listed => {
                let what = format!(
                    "expected {listed}, as in services(5), or UNLISTED in `type`, found {n}"
                );
                self.broken(line, "port", what);
            }
            (Some(_) | None, Some(_)) => {}
        }
        given.or(listed)
    }

    fn user(&mut self) -> Option<UserSpec> {
        let word = match &self.draft.user {
            Some(word) => word.as_str(),
            None if self.draft.internal() => NOBODY,
            None => {
                self.broken(self.line, self.name, "expected a `user`, found none");
                return None;
            }
        };
        if word == "*" || word.contains(['.', ':', '/']) {
            let what = format!("expected a user's name without . : and /, found {word:?}");
            self.broken(self.line, "user", what);
            return None;
        }
        Some(UserSpec::Named { user: word.into(), group: None })
    }

    fn backend(&mut self) -> Option<Backend> {
        let draft = self.draft;
        if draft.flags.sensor {
            return Some(Backend::Sensor);
        }
        if let Some((host, port, line)) = &draft.redirect {
            return self.redirect(host, port, *line);
        }
        if draft.internal() {
            let known = Internal::named(self.name).filter(|i| *i != Internal::Status);
            if known.is_none() {
                let what = "expected echo, discard, chargen, daytime or time for INTERNAL";
                self.broken(self.line, self.name, format!("{what}, found {:?}", self.name));
            }
            return known.map(Backend::Internal);
        }
        let Some(program) = &draft.server else {
            self.broken(self.line, self.name, "expected a `server`, found none");
            return None;
        };
        if !program.starts_with('/') {
            let what = format!("expected an absolute path, found {program:?}");
            self.broken(self.line, "server", what);
            return None;
        }
        let own_name = program.rsplit('/').next().unwrap_or_default().to_string();
        let first = (!draft.flags.name_in_args).then_some(own_name);
        let arguments: Vec<String> = first.into_iter().chain(draft.arguments.clone()).collect();
        if arguments.is_empty() {
            self.broken(draft.flags.line, "NAMEINARGS", "expected `server_args`, found none");
            return None;
        }
        Some(Backend::Exec { program: program.clone(), arguments })
    }

    /// A server that runs already; its port may be a name of services(5).
    fn redirect(&mut self, host: &str, port: &str, line: usize) -> Option<Backend> {
        let number = self.files.port(port, "tcp").map(|n| n.to_string());
        let port = number.as_deref().unwrap_or(port);
        let v6 = host.contains(':');
        let word = if v6 { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        match Upstream::read(&word) {
            Ok(upstream) => Some(Backend::Redirect(vec![upstream])),
            Err(what) => {
                self.broken(line, "redirect", what);
                None
            }
        }
    }
}
