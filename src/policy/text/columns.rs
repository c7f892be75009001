//! The columns of a row: `name type protocol wait user program arguments...`, as in inetd.conf(5).

use super::super::backend::{Backend, Internal};
use super::super::endpoint::{Endpoint, Family};
use super::super::users::UserSpec;
use super::parse::Wrong;
use crate::wire::builtins;
use std::net::IpAddr;

/// What the columns of a row say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns {
    /// Without `tcpmux/`.
    pub name: String,
    pub endpoint: Endpoint,
    pub user: UserSpec,
    pub backend: Backend,
    pub wait: Nowait,
}

/// What the suffixes of `nowait` say; a limit that is None is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Nowait {
    /// Starts a minute.
    pub per_minute: Option<u32>,
    /// Starts a minute for one source.
    pub per_source_minute: Option<u32>,
    /// Given: goes before the default of the attribute `instances`.
    pub instances: Option<Option<u32>>,
    /// Given: goes before the default of the attribute `per_source`.
    pub per_source: Option<Option<u32>>,
}

/// The columns, as a message names them.
const COLUMNS: &str = "name, type, protocol, wait, user, program";

impl Columns {
    /// Reads the words of a row. Err: every word that is wrong.
    pub fn read(words: &[&str]) -> Result<Columns, Wrong> {
        let Some(first) = words.first() else { return Err(Wrong(Vec::new())) };
        let [name, kind, protocol, wait, user, program, arguments @ ..] = words else {
            let what = format!("{} words; a row has at least six ({COLUMNS})", words.len());
            return Err((first.to_string(), what).into());
        };
        if let Some(other) = not_served(kind, protocol, wait) {
            return Err(other.into());
        }
        let (plain, announce) = service_name(name);
        let named = check_name(plain, name);
        let kind = socket_type(kind);
        let family = family(protocol);
        let wait = nowait(wait);
        let user = user_spec(user);
        let backend = backend(plain, name, program, arguments);
        match (named, kind, family, wait, user, backend) {
            (Ok(()), Ok(()), Ok(family), Ok(wait), Ok(user), Ok(backend)) => Ok(Columns {
                name: plain.into(),
                endpoint: Endpoint { family, announce },
                user,
                backend,
                wait,
            }),
            (named, kind, family, wait, user, backend) => {
                let wrong =
                    [named.err(), kind.err(), family.err(), wait.err(), user.err(), backend.err()];
                Err(Wrong(wrong.into_iter().flatten().collect()))
            }
        }
    }
}

fn socket_type(word: &str) -> Result<(), (String, String)> {
    match word {
        "stream" => Ok(()),
        "tcp" | "tcp4" | "tcp6" => Err((
            word.into(),
            "not a socket type; stream would be right, and the protocol behind it".into(),
        )),
        _ => Err((word.into(), "not a socket type; stream would be right".into())),
    }
}

fn family(word: &str) -> Result<Family, (String, String)> {
    match word {
        "tcp" | "tcp46" => Ok(Family::Any),
        "tcp4" => Ok(Family::V4),
        "tcp6" => Ok(Family::V6),
        _ => Err((word.into(), "unknown; tcp, tcp4, tcp6 or tcp46 would be right".into())),
    }
}

/// `name`: the service's, written as `word`.
fn backend(
    name: &str,
    word: &str,
    program: &str,
    arguments: &[&str],
) -> Result<Backend, (String, String)> {
    match program {
        "internal" if name.eq_ignore_ascii_case("tcpmux") => {
            Err((word.into(), "fived is tcpmux itself; leave this row out".into()))
        }
        "internal" => {
            let which = arguments.first().copied().unwrap_or(name);
            Internal::named(which).map(Backend::Internal).ok_or_else(|| {
                let names: Vec<&str> = Internal::names().collect();
                (which.into(), format!("no internal service; {} would be right", names.join(", ")))
            })
        }
        path if path.starts_with('/') => {
            let own_name = [path.rsplit('/').next().unwrap_or(path)];
            let arguments = if arguments.is_empty() { &own_name } else { arguments };
            let arguments = arguments.iter().map(|w| w.to_string()).collect();
            Ok(Backend::Exec { program: path.into(), arguments })
        }
        other => Err((
            other.into(),
            "not an absolute path; one that begins with /, or `internal`, would be right".into(),
        )),
    }
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

/// `name`: that of `word`, without `tcpmux/`.
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

fn nowait(text: &str) -> Result<Nowait, (String, String)> {
    const RIGHT: &str = "nowait, nowait:N or nowait/max-child/max-per-ip-per-minute/max-child-per-ip would be right";
    let wrong = |why: &str| Err((text.to_string(), format!("{why}; {RIGHT}")));
    let Some(rest) = text.strip_prefix("nowait") else {
        return wrong("unknown");
    };
    let number = |t: &str| t.parse::<u32>().ok().filter(|_| t.bytes().all(|b| b.is_ascii_digit()));
    // 0 is no limit.
    let some = |n: u32| (n > 0).then_some(n);
    match rest.as_bytes().first() {
        None => Ok(Nowait::default()),
        Some(b'.' | b':') => match number(&rest[1..]) {
            Some(n) => Ok(Nowait { per_minute: some(n), ..Nowait::default() }),
            None => wrong("not a number of starts a minute"),
        },
        Some(b'/') => {
            let numbers: Option<Vec<u32>> = rest[1..].split('/').map(number).collect();
            let Some(n) = numbers.filter(|n| n.len() <= 3) else {
                return wrong("not one to three limits");
            };
            Ok(Nowait {
                per_minute: None,
                instances: Some(some(n[0])),
                per_source_minute: n.get(1).copied().and_then(some),
                per_source: n.get(2).copied().map(some),
            })
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
