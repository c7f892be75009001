//! A row: `name type protocol wait user program arguments...`, as in inetd.conf(5).

use super::attributes::Attributes;
use super::table::HostScope;
use super::values::Wrong;
use super::words::Word;
use crate::wire::builtins;
use std::net::IpAddr;
use std::sync::Arc;

/// Which clients a row serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Any,
    V4,
    V6,
}

impl Family {
    pub fn has(self, peer: IpAddr) -> bool {
        match self {
            Family::Any => true,
            Family::V4 => peer.is_ipv4(),
            Family::V6 => peer.is_ipv6(),
        }
    }

    /// Is there a client that both serve?
    pub fn meets(self, other: Family) -> bool {
        self == Family::Any || other == Family::Any || self == other
    }

    pub fn protocol(self) -> &'static str {
        match self {
            Family::Any => "tcp",
            Family::V4 => "tcp4",
            Family::V6 => "tcp6",
        }
    }
}

/// Whom a service runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserSpec {
    Named {
        user: String,
        group: Option<String>,
    },
    /// `*`: who logged in.
    Login,
}

/// fived's own services (RFC 862, 863, 864, 867, 868; `status`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Internal {
    Echo,
    Discard,
    Chargen,
    Daytime,
    Time,
    Status,
}

const INTERNALS: [(Internal, &str); 6] = [
    (Internal::Echo, "echo"),
    (Internal::Discard, "discard"),
    (Internal::Chargen, "chargen"),
    (Internal::Daytime, "daytime"),
    (Internal::Time, "time"),
    (Internal::Status, "status"),
];

impl Internal {
    pub fn as_str(self) -> &'static str {
        INTERNALS[self as usize].1
    }

    fn named(name: &str) -> Option<Internal> {
        INTERNALS.iter().find(|(_, n)| n.eq_ignore_ascii_case(name)).map(|(i, _)| *i)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    Path(String),
    Internal(Internal),
}

/// A service, as its row and the defaults before it say.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// As configured, without `tcpmux/`.
    pub name: String,
    /// fived answers for it; else it answers for itself.
    pub announce: bool,
    pub host: HostScope,
    pub family: Family,
    pub user: UserSpec,
    pub program: Program,
    /// The first is `argv[0]`.
    pub arguments: Vec<String>,
    pub file: Arc<str>,
    pub line: usize,
    /// Starts a minute (`nowait:N`), and starts a minute for one source (`nowait/a/N/b`).
    pub per_minute: Option<u32>,
    pub per_source_minute: Option<u32>,
    pub attributes: Arc<Attributes>,
}

impl Service {
    /// The group that it runs as, where the row says one; `user:group` goes before the attribute.
    pub fn group(&self) -> Option<&str> {
        match &self.user {
            UserSpec::Named { group: Some(g), .. } => Some(g),
            _ => self.attributes.group.as_deref(),
        }
    }

    /// A name that inetd or xinetd would take for a port: a number, `*:NUMBER` or `HOST:NAME`. What
    /// would stand after `port =`.
    pub fn port_for_a_name(&self) -> Option<&str> {
        let number = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
        match self.name.rsplit_once(':') {
            None => number(&self.name).then_some(&*self.name),
            Some((_, "")) => None,
            Some(("*", port)) => Some(port),
            Some((host, port)) => {
                (host == "localhost" || host.contains('.') || number(port)).then_some(&*self.name)
            }
        }
    }

    /// Must somebody have logged in?
    pub fn needs_login(&self) -> bool {
        self.attributes.require_login
            || !self.attributes.users.0.is_empty()
            || self.user == UserSpec::Login
    }
}

/// A row's fixed columns.
const COLUMNS: &str = "name, type, protocol, wait, user, program";

/// Reads a row. The suffixes of `nowait` go into `attributes` where there is one of that meaning.
/// Err: every word that is wrong.
pub fn read(
    words: &[Word],
    host: HostScope,
    file: &Arc<str>,
    line: usize,
    defaults: &Attributes,
) -> Result<(Service, Attributes), Wrong> {
    let mut wrong = Vec::new();
    let Some(first) = words.first() else { return Err(Wrong(wrong)) };
    let [name, kind, protocol, wait, user, program, arguments @ ..] = words else {
        let what = format!("{} words; a row has at least six ({COLUMNS})", words.len());
        return Err((first.text.clone(), what).into());
    };
    if let Some(other) = not_served(&kind.text, &protocol.text, &wait.text) {
        return Err(other.into());
    }
    let mut keep = |r: Result<(), (String, String)>| wrong.extend(r.err());
    let mut attributes = defaults.clone();
    let (plain, announce) = service_name(&name.text);
    keep(check_name(plain, &name.text));
    keep(match kind.text.as_str() {
        "stream" => Ok(()),
        "tcp" | "tcp4" | "tcp6" => Err((
            kind.text.clone(),
            "not a socket type; stream would be right, and the protocol behind it".into(),
        )),
        _ => Err((kind.text.clone(), "not a socket type; stream would be right".into())),
    });
    let family = match protocol.text.as_str() {
        "tcp" | "tcp46" => Family::Any,
        "tcp4" => Family::V4,
        "tcp6" => Family::V6,
        p => {
            keep(Err((p.into(), "unknown; tcp, tcp4, tcp6 or tcp46 would be right".into())));
            Family::Any
        }
    };
    let mut per = (None, None);
    keep(nowait(&wait.text, &mut attributes, &mut per));
    let user = user_spec(&user.text).unwrap_or_else(|e| {
        keep(Err(e));
        UserSpec::Login
    });
    let mut arguments: Vec<String> = arguments.iter().map(|w| w.text.clone()).collect();
    let program = match program.text.as_str() {
        "internal" if plain.eq_ignore_ascii_case("tcpmux") => {
            keep(Err((name.text.clone(), "fived is tcpmux itself; leave this row out".into())));
            Program::Internal(Internal::Echo)
        }
        "internal" => {
            let which = arguments.first().map_or(plain, String::as_str);
            Program::Internal(Internal::named(which).unwrap_or_else(|| {
                let names: Vec<&str> = INTERNALS.iter().map(|(_, n)| *n).collect();
                keep(Err((
                    which.into(),
                    format!("no internal service; {} would be right", names.join(", ")),
                )));
                Internal::Echo
            }))
        }
        path if path.starts_with('/') => Program::Path(path.into()),
        other => {
            keep(Err((
                other.into(),
                "not an absolute path; one that begins with /, or `internal`, would be right"
                    .into(),
            )));
            Program::Path(other.into())
        }
    };
    if let (Program::Path(path), true) = (&program, arguments.is_empty()) {
        arguments.push(path.rsplit('/').next().unwrap_or(path).into());
    }
    if !wrong.is_empty() {
        return Err(Wrong(wrong));
    }
    let service = Service {
        name: plain.into(),
        announce,
        host,
        family,
        user,
        program,
        arguments,
        file: file.clone(),
        line,
        per_minute: per.0,
        per_source_minute: per.1,
        attributes: Arc::default(),
    };
    Ok((service, attributes))
}

/// A row that inetd serves and fived does not: one reason for the whole row, so that nobody mends
/// three words of it in vain.
fn not_served(kind: &str, protocol: &str, wait: &str) -> Option<(String, String)> {
    let wait = wait == "wait" || wait.starts_with("wait.") || wait.starts_with("wait:");
    let (word, what) = match (kind, protocol) {
        (_, p) if p.starts_with("rpc/") => (p, "an RPC service"),
        ("dgram", _) => (kind, "a datagram service"),
        ("raw" | "rdm" | "seqpacket", _) => (kind, "a service of that socket type"),
        ("stream", p) if p.starts_with("udp") => (p, "a datagram service"),
        ("stream", "unix") => (protocol, "a service on a Unix socket"),
        ("stream", p) if wait && p.starts_with("tcp") => {
            ("wait", "a server that accepts its connections itself")
        }
        _ => return None,
    };
    Some((
        word.into(),
        format!(
            "expected a row of the form `NAME stream tcp nowait ...`, found {what}, which fived does not serve"
        ),
    ))
}

/// Without `tcpmux/`; and does fived answer for it?
fn service_name(text: &str) -> (&str, bool) {
    match text.split_at_checked(7) {
        Some((head, rest)) if head.eq_ignore_ascii_case("tcpmux/") => {
            match rest.strip_prefix('+') {
                Some(name) => (name, true),
                None => (rest, false),
            }
        }
        _ => (text, true),
    }
}

fn check_name(name: &str, word: &str) -> Result<(), (String, String)> {
    let wrong = |what: &str| Err((word.to_string(), what.to_string()));
    if builtins::named(name.as_bytes()).is_some() {
        return wrong("the name of a built-in; any other would be right");
    }
    if let Some((address, rest)) = name.rsplit_once(':')
        && address.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok()
    {
        let what = format!(
            "expected a name, which is the same at every address (with only_from for who may come), found an address before {rest:?}"
        );
        return Err((word.to_string(), what));
    }
    if name.is_empty() || name.len() > 255 || !name.bytes().all(|b| (b'!'..=b'~').contains(&b)) {
        return wrong(
            "not a service's name; 1 to 255 printable characters without blanks would be right",
        );
    }
    Ok(())
}

fn nowait(
    text: &str,
    a: &mut Attributes,
    per: &mut (Option<u32>, Option<u32>),
) -> Result<(), (String, String)> {
    const RIGHT: &str = "nowait, nowait:N or nowait/max-child/max-per-ip-per-minute/max-child-per-ip would be right";
    let wrong = |why: &str| Err((text.to_string(), format!("{why}; {RIGHT}")));
    let Some(rest) = text.strip_prefix("nowait") else {
        return wrong("unknown");
    };
    let number = |t: &str| t.parse::<u32>().ok().filter(|_| t.bytes().all(|b| b.is_ascii_digit()));
    let some = |n: u32| (n > 0).then_some(n);
    match rest.as_bytes().first() {
        None => Ok(()),
        Some(b'.' | b':') => match number(&rest[1..]) {
            Some(n) => {
                per.0 = some(n);
                Ok(())
            }
            None => wrong("not a number of starts a minute"),
        },
        Some(b'/') => {
            let numbers: Option<Vec<u32>> = rest[1..].split('/').map(number).collect();
            let Some(n) = numbers.filter(|n| n.len() <= 3) else {
                return wrong("not one to three limits");
            };
            // 0 is no limit.
            a.instances = some(n[0]);
            per.1 = n.get(1).copied().and_then(some);
            if let Some(&most) = n.get(2) {
                a.per_source = some(most);
            }
            Ok(())
        }
        Some(_) => wrong("unknown"),
    }
}

fn user_spec(text: &str) -> Result<UserSpec, (String, String)> {
    // The login class of BSD has no meaning here.
    let text = text.split_once('/').map_or(text, |(user, _)| user);
    if text == "*" {
        return Ok(UserSpec::Login);
    }
    let (user, group) = match text.split_once([':', '.']) {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    if user.is_empty() || user == "*" || group.is_some_and(str::is_empty) {
        return Err((text.into(), "not a user; user, user:group or * would be right".into()));
    }
    Ok(UserSpec::Named { user: user.into(), group: group.map(Into::into) })
}
