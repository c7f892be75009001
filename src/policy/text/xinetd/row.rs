//! From the draft of a row to its columns and its port.

use super::super::super::backend::{SENSOR, Upstream};
use super::super::super::endpoint::Family;
use super::super::columns::{Columns, check_name};
use super::super::entry::Files;
use super::super::parse::Wrong;
use super::draft::{Draft, Kind, Type};
use super::remark::{Kind as Is, Remarks};
use crate::wire::internal::Internal;
use std::net::IpAddr;

/// The user of xinetd's own services whose row gives none.
const NOBODY: &str = "nobody";

/// Stands before the name of a service that sends its own reply, in fived.conf(5).
const MUX: &str = "tcpmux/";

/// The columns before the user, as fived.conf(5) has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Form {
    kind: &'static str,
    protocol: &'static str,
    wait: &'static str,
}

impl Form {
    const USUAL: Form = Form { kind: "stream", protocol: "tcp", wait: "nowait" };

    /// Line, word and reason, where fived does not serve it.
    fn not_served(self, draft: &Draft) -> (usize, &'static str, &'static str) {
        if self.kind == "dgram" {
            return (draft.kind.map_or(0, |(_, line)| line), self.kind, "a datagram service");
        }
        let line = draft.wait.map_or(0, |(_, line)| line);
        (line, self.wait, "a server that accepts its connections itself")
    }
}

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

/// What is wrong with the flag IPv4 beside an address of the other family.
pub const NOT_IPV4: &str = "expected an IPv4 address in `bind`, found one of IPv6";

/// The address of `bind`, which may be the name of a host. None: there is no `bind`. Err: the line,
/// and what is wrong with it.
pub fn bind_address(
    draft: &Draft,
    files: &mut dyn Files,
) -> Option<Result<IpAddr, (usize, String)>> {
    let (word, line) = draft.bind.as_ref()?;
    if let Ok(address) = word.parse() {
        return Some(Ok(address));
    }
    // The look-up would lose the interface of such an address.
    if word.contains('%') {
        let what = format!("expected an address without an interface, found {word:?}");
        return Some(Err((*line, what)));
    }
    let unknown = |why| format!("expected an address or the name of a host, found {word:?}: {why}");
    let v6 = draft.flags.v6;
    let choose = |all: Vec<IpAddr>| match all[..] {
        [only] => Some(only),
        _ => all.into_iter().find(|a| a.is_ipv6() == v6),
    };
    let family = if v6 { "IPv6" } else { "IPv4" };
    let none = || format!("it has several addresses, and none of {family}");
    let found = files.host(word).and_then(|all| choose(all).ok_or_else(none));
    Some(found.map_err(|why| (*line, unknown(why))))
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
        let form = self.form();
        self.not_served_words();
        let address = self.address();
        let family = self.family(address);
        let protocol = form.as_ref().map(|f| f.protocol);
        let port = protocol.and_then(|p| self.port(p)).map(|n| match address {
            None => n.to_string(),
            Some(IpAddr::V4(a)) => format!("{a}:{n}"),
            Some(IpAddr::V6(a)) => format!("[{a}]:{n}"),
        });
        let columns = self.columns(form, family);
        (columns, port)
    }

    /// Reads the columns as those of fived.conf(5), so that every rule for them holds here too.
    fn columns(&mut self, form: Option<Form>, family: Family) -> Option<Columns> {
        let by_name = self.draft.by_name();
        let name = if by_name { self.name } else { self.id };
        let head = name.get(..MUX.len()).is_some_and(|h| h.eq_ignore_ascii_case(MUX));
        if let Err(wrong) = check_name(name, name) {
            self.broken(self.line, &wrong.word, wrong.what);
            return None;
        }
        if head {
            self.broken(self.line, name, format!("expected a name without {MUX}, found {name:?}"));
            return None;
        }
        let own_reply = by_name && self.draft.is(Type::Tcpmux);
        let name = if own_reply { format!("{MUX}{name}") } else { name.to_string() };
        let (user, program) = (self.user(), self.program());
        let (user, program) = (user?, program?);
        let read = |kind: &str, protocol: &str, wait: &str| {
            let protocol = format!("{protocol}{}", &family.protocol()["tcp".len()..]);
            let words = [name.as_str(), kind, &protocol, wait, &user];
            let program = program.iter().map(String::as_str);
            Columns::read(&words.into_iter().chain(program).collect::<Vec<_>>())
        };
        let usual = read("stream", "tcp", "nowait");
        let Some(form) = form.filter(|f| *f != Form::USUAL) else {
            return usual.map_err(|all| self.all_broken(all)).ok();
        };
        if self.draft.flags.sensor {
            let what = "a sensor of datagrams, or one that accepts by itself";
            self.not_served(self.draft.flags.line, "SENSOR", what);
        }
        match (read(form.kind, form.protocol, form.wait), usual) {
            (Ok(columns), _) => Some(columns),
            // fived does not serve it. Its row is in the table, switched off.
            (Err(_), Ok(columns)) => {
                let (line, word, what) = form.not_served(self.draft);
                self.not_served(line, word, what);
                Some(columns)
            }
            (Err(_), Err(all)) => {
                self.all_broken(all);
                None
            }
        }
    }

    fn all_broken(&mut self, all: Vec<Wrong>) {
        for wrong in all {
            self.broken(self.line, &wrong.word, wrong.what);
        }
    }

    /// `socket_type`, `protocol` and `wait`. One of the first two may be missing: it follows from
    /// the other.
    fn form(&mut self) -> Option<Form> {
        let (draft, line) = (self.draft, self.line);
        let given = draft.protocol.as_ref().map(|(word, at)| (word.to_ascii_lowercase(), *at));
        let kind = draft.kind.or(match given.as_ref().map(|(word, _)| word.as_str()) {
            Some("tcp") => Some((Kind::Stream, line)),
            Some("udp") => Some((Kind::Dgram, line)),
            Some(_) | None => None,
        });
        let Some((kind, at)) = kind else {
            self.broken(line, self.name, "expected a `socket_type`, found none");
            return None;
        };
        let (kind, usual) = match kind {
            Kind::Stream => ("stream", "tcp"),
            Kind::Dgram => ("dgram", "udp"),
            Kind::Raw | Kind::Seqpacket => {
                let word = if kind == Kind::Raw { "raw" } else { "seqpacket" };
                self.not_served(at, word, "a service of this socket type");
                return None;
            }
        };
        if let Some((word, at)) = given.filter(|(word, _)| word != usual) {
            self.broken(at, "protocol", format!("expected {usual}, found {word:?}"));
        }
        let Some((wait, at)) = draft.wait else {
            self.broken(line, self.name, "expected `wait = yes` or `wait = no`, found none");
            return None;
        };
        if kind == "dgram" && !wait {
            self.broken(at, "wait", "expected yes for a dgram service, found no");
            return None;
        }
        if draft.by_name() && (usual, wait) != ("tcp", false) {
            let what =
                "expected stream, tcp and `wait = no` for a TCPMUX service, found other values";
            self.broken(at, self.name, what);
            return None;
        }
        let wait = if wait { "wait" } else { "nowait" };
        Some(Form { kind, protocol: usual, wait })
    }

    /// Words of rows that are not served, or not as xinetd does.
    fn not_served_words(&mut self) {
        let (draft, line) = (self.draft, self.draft.flags.line);
        for (one, word, what) in [
            (Type::Rpc, "RPC", "fived does not register it with rpcbind"),
            (Type::Special, "SPECIAL", "a service of xinetd's own"),
        ] {
            if draft.is(one) {
                self.not_served(draft.types_line, word, what);
            }
        }
        if let Some(word) = draft.flags.not_served {
            self.not_served(line, word, "a flag that fived does not have");
        }
        if draft.flags.nodelay {
            self.differs(line, "NODELAY", "fived does not set TCP_NODELAY");
        }
        if draft.by_name() && !draft.is(Type::Unlisted) {
            let what =
                "the service is reached by its name; in xinetd it is so only with UNLISTED as well";
            self.differs(draft.types_line, "type", what);
        }
    }

    /// `bind`: None is every address.
    fn address(&mut self) -> Option<IpAddr> {
        let found = bind_address(self.draft, self.files)?;
        found.map_err(|(line, what)| self.broken(line, "bind", what)).ok()
    }

    fn family(&mut self, address: Option<IpAddr>) -> Family {
        let only_v4 = self.draft.flags.only_v4();
        if only_v4 && address.is_some_and(|a| a.is_ipv6()) {
            self.broken(self.draft.flags.line, "IPv4", NOT_IPV4);
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

    fn user(&mut self) -> Option<String> {
        let (word, line) = match &self.draft.user {
            Some((word, line)) => (word.as_str(), *line),
            None if self.draft.internal() => (NOBODY, self.line),
            None => {
                self.broken(self.line, self.name, "expected a `user`, found none");
                return None;
            }
        };
        if word == "*" || word.contains([':', '/']) {
            let what = format!("expected a user's name without : and /, found {word:?}");
            self.broken(line, "user", what);
            return None;
        }
        // Without a colon a dot would end the user's name.
        Some(if word.contains('.') { format!("{word}:") } else { word.into() })
    }

    /// The columns from the program on.
    fn program(&mut self) -> Option<Vec<String>> {
        let draft = self.draft;
        let words = |all: [&str; 2]| Some(all.map(String::from).to_vec());
        if draft.flags.sensor {
            return words(["internal", SENSOR]);
        }
        if let Some((host, port, line)) = &draft.redirect {
            return words(["redirect", &self.upstream(host, port, *line)?]);
        }
        if draft.internal() {
            let known = Internal::named(self.name).filter(|i| i.has_datagrams());
            if known.is_none() {
                let what = "expected echo, discard, chargen, daytime or time for INTERNAL";
                self.broken(self.line, self.name, format!("{what}, found {:?}", self.name));
            }
            return words(["internal", known?.as_str()]);
        }
        let Some((program, line)) = &draft.server else {
            self.broken(self.line, self.name, "expected a `server`, found none");
            return None;
        };
        if !program.starts_with('/') {
            let what = format!("expected an absolute path, found {program:?}");
            self.broken(*line, "server", what);
            return None;
        }
        let own_name = program.rsplit('/').next().unwrap_or_default().to_string();
        let first = (!draft.flags.name_in_args).then_some(own_name);
        if draft.flags.name_in_args && draft.arguments.is_empty() {
            self.broken(draft.flags.line, "NAMEINARGS", "expected `server_args`, found none");
            return None;
        }
        let arguments = first.into_iter().chain(draft.arguments.clone());
        Some([program.clone()].into_iter().chain(arguments).collect())
    }

    /// A server that runs already; its port may be a name of services(5).
    fn upstream(&mut self, host: &str, port: &str, line: usize) -> Option<String> {
        let is_number = port.bytes().all(|b| b.is_ascii_digit());
        let named = if is_number { None } else { self.files.port(port, "tcp") };
        let number = named.map(|n| n.to_string());
        let port = number.as_deref().unwrap_or(port);
        let v6 = host.contains(':');
        let word = if v6 { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        match Upstream::read(&word) {
            Ok(upstream) => Some(upstream.to_string()),
            Err(what) => {
                self.broken(line, "redirect", what);
                None
            }
        }
    }
}
