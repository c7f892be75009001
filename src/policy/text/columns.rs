//! The columns of a row: `name type protocol wait user program arguments...`, as in inetd.conf(5).

use super::super::backend::{Backend, SENSOR, Upstream};
use super::super::endpoint::{Endpoint, Family, ProgramSocket, SOCKET_PATH_MAX};
use super::super::users::UserSpec;
use super::parse::{Wrong, any_of};
use crate::wire::internal::Internal;
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

/// What the suffixes of `nowait` say; None: no limit.
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
    pub fn read(words: &[&str]) -> Result<Columns, Vec<Wrong>> {
        let Some(first) = words.first() else { return Err(Vec::new()) };
        let [name, kind, protocol, wait, user, program, arguments @ ..] = words else {
            let what =
                format!("expected a row of at least six words ({COLUMNS}), found {}", words.len());
            return Err(Wrong::new(first, what).into());
        };
        if let Some(other) = not_served(kind, protocol) {
            return Err(other.into());
        }
        let (plain, announce) = service_name(name);
        let named = check_name(plain, name);
        let datagrams = *kind == "dgram";
        let kind = socket_type(kind);
        let family = family(protocol, datagrams);
        let socket = match (datagrams, is_wait(wait)) {
            (true, _) => ProgramSocket::Datagrams,
            (false, true) => ProgramSocket::Listener,
            (false, false) => ProgramSocket::Connection,
        };
        let wait = if socket.waits() { read_wait(wait) } else { nowait(wait) };
        let backend = backend(plain, name, program, arguments);
        let user = user_spec(user).and_then(|spec| match (&backend, spec) {
            (Ok(Backend::Offer), UserSpec::None) | (Err(_), UserSpec::None) => Ok(UserSpec::None),
            (Ok(Backend::Offer), _) => {
                Err(Wrong::expected("`-`, because an offered service does not run here", user))
            }
            (_, UserSpec::None) => Err(Wrong::expected("a user: user, user:group or *", user)),
            (_, spec) => Ok(spec),
        });
        match (named, kind, family, wait, user, backend) {
            (Ok(()), Ok(()), Ok(family), Ok(wait), Ok(user), Ok(backend)) => Ok(Columns {
                name: plain.into(),
                endpoint: Endpoint { family, announce, socket },
                user,
                backend,
                wait,
            }),
            (named, kind, family, wait, user, backend) => {
                let wrong =
                    [named.err(), kind.err(), family.err(), wait.err(), user.err(), backend.err()];
                Err(wrong.into_iter().flatten().collect())
            }
        }
    }
}

impl Columns {
    /// What inetd's and xinetd's own services of datagrams do, and fived's do not.
    pub fn answers_less(&self) -> Option<&'static str> {
        use Internal::{Chargen, Daytime, Time};
        let less = matches!(self.backend, Backend::Internal(Chargen | Daytime | Time));
        (less && self.endpoint.socket == ProgramSocket::Datagrams).then_some(
            "no answer is larger than the datagram that asks for it: an empty one gets none",
        )
    }
}

fn socket_type(word: &str) -> Result<(), Wrong> {
    match word {
        "stream" | "dgram" => Ok(()),
        "tcp" | "tcp4" | "tcp6" => Err(Wrong::expected("stream, and the protocol after it", word)),
        _ => Err(Wrong::expected("the socket type stream or dgram", word)),
    }
}

fn family(word: &str, datagrams: bool) -> Result<Family, Wrong> {
    match (word, datagrams) {
        ("tcp" | "tcp46", false) | ("udp" | "udp46", true) => Ok(Family::Any),
        ("tcp4", false) | ("udp4", true) => Ok(Family::V4),
        ("tcp6", false) | ("udp6", true) => Ok(Family::V6),
        ("unix", false) => Ok(Family::Unix),
        (_, true) => Err(Wrong::expected("udp, udp4, udp6 or udp46", word)),
        (_, false) => Err(Wrong::expected("tcp, tcp4, tcp6, tcp46 or unix", word)),
    }
}

/// `name`: the service's, written as `word`.
fn backend(name: &str, word: &str, program: &str, arguments: &[&str]) -> Result<Backend, Wrong> {
    match program {
        "internal" => {
            // A program may have that name, and net is told of each program as of an internal one.
            let which = arguments.first().copied().unwrap_or(name);
            if which.eq_ignore_ascii_case("tcpmux") {
                let what = "expected no row of tcpmux, which fived itself is, found one";
                return Err(Wrong::new(word, what));
            }
            if which.eq_ignore_ascii_case(SENSOR) {
                return Ok(Backend::Sensor);
            }
            Internal::named(which).map(Backend::Internal).ok_or_else(|| {
                let names = any_of(Internal::names().chain([SENSOR]));
                Wrong::expected(format!("an internal service ({names})"), which)
            })
        }
        "redirect" if arguments.is_empty() => Err(Wrong::new(
            program,
            "expected an upstream after it (HOST:PORT, [IPV6-ADDRESS]:PORT or /path), found none",
        )),
        "redirect" => {
            let read = |w: &&str| Upstream::read(w).map_err(|what| Wrong::new(w, what));
            arguments.iter().map(read).collect::<Result<_, _>>().map(Backend::Redirect)
        }
        "handover" => match arguments {
            [path] if path.starts_with('/') && path.len() <= SOCKET_PATH_MAX => {
                Ok(Backend::Handover { path: path.to_string() })
            }
            [path] => {
                let what = "the absolute path of a Unix socket, 107 bytes at most";
                Err(Wrong::expected(what, path))
            }
            _ => {
                let what = "expected the path of one Unix socket after it, found";
                Err(Wrong::new(program, format!("{what} {} words", arguments.len())))
            }
        },
        "offer" if arguments.is_empty() => Ok(Backend::Offer),
        "offer" => Err(Wrong::new(
            program,
            format!("expected nothing after it, found {:?}", arguments.join(" ")),
        )),
        path if path.starts_with('/') => {
            let own_name = [path.rsplit('/').next().unwrap_or(path)];
            let arguments = if arguments.is_empty() { &own_name } else { arguments };
            let arguments = arguments.iter().map(|w| w.to_string()).collect();
            Ok(Backend::Exec { program: path.into(), arguments })
        }
        other => {
            let what = "an absolute path, `internal`, `redirect`, `handover` or `offer`";
            Err(Wrong::expected(what, other))
        }
    }
}

/// A row that inetd serves and fived does not: one reason for the whole row, so that nobody
/// corrects three words of it in vain.
fn not_served(kind: &str, protocol: &str) -> Option<Wrong> {
    let (word, what) = match (kind, protocol) {
        (_, p) if p.starts_with("rpc/") => (p, "an RPC service"),
        ("raw" | "rdm" | "seqpacket", _) => (kind, "a service of that socket type"),
        ("dgram", "unix") => (protocol, "a service of datagrams on a Unix socket"),
        _ => return None,
    };
    let form = "expected a row of the form `NAME stream tcp nowait ...`, `NAME stream unix nowait ...` or `NAME dgram udp wait ...`";
    Some(Wrong::new(word, format!("{form}, found {what}, which fived does not serve")))
}

/// The name without `tcpmux/`, and whether fived sends the reply line.
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
pub fn check_name(name: &str, word: &str) -> Result<(), Wrong> {
    if let Some((address, rest)) = name.rsplit_once(':')
        && address.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok()
    {
        let what = format!(
            "expected a name, which is the same at every address (with only_from for who may come), found an address before {rest:?}"
        );
        return Err(Wrong::new(word, what));
    }
    if name.is_empty() || name.len() > 255 || !name.bytes().all(|b| (b'!'..=b'~').contains(&b)) {
        let what = "a name of 1 to 255 printable characters without blanks";
        return Err(Wrong::expected(what, word));
    }
    Ok(())
}

fn is_wait(text: &str) -> bool {
    text == "wait" || text.starts_with("wait.") || text.starts_with("wait:")
}

/// `wait`, `wait:N` or `wait.N`: N starts a minute; 0 is no limit.
fn read_wait(text: &str) -> Result<Nowait, Wrong> {
    let wrong = || Err(Wrong::expected("wait or wait:N (one program has the socket)", text));
    let Some(rest) = text.strip_prefix("wait") else { return wrong() };
    let per_minute = match rest.strip_prefix([':', '.']) {
        None if rest.is_empty() => None,
        Some(n) if n.bytes().all(|b| b.is_ascii_digit()) => match n.parse::<u32>() {
            Ok(n) => Some(n).filter(|n| *n > 0),
            Err(_) => return wrong(),
        },
        _ => return wrong(),
    };
    Ok(Nowait { per_minute, ..Nowait::default() })
}

fn nowait(text: &str) -> Result<Nowait, Wrong> {
    const WHAT: &str =
        "wait, nowait, nowait:N or nowait/max-child/max-per-ip-per-minute/max-child-per-ip";
    let wrong = || Err(Wrong::expected(WHAT, text));
    let Some(rest) = text.strip_prefix("nowait") else {
        return wrong();
    };
    let number = |t: &str| t.parse::<u32>().ok().filter(|_| t.bytes().all(|b| b.is_ascii_digit()));
    // 0 is no limit.
    let some = |n: u32| (n > 0).then_some(n);
    match rest.as_bytes().first() {
        None => Ok(Nowait::default()),
        Some(b'.' | b':') => match number(&rest[1..]) {
            Some(n) => Ok(Nowait { per_minute: some(n), ..Nowait::default() }),
            None => wrong(),
        },
        Some(b'/') => {
            let numbers: Option<Vec<u32>> = rest[1..].split('/').map(number).collect();
            let Some(n) = numbers.filter(|n| n.len() <= 3) else {
                return wrong();
            };
            Ok(Nowait {
                per_minute: None,
                instances: Some(some(n[0])),
                per_source_minute: n.get(1).copied().and_then(some),
                per_source: n.get(2).copied().map(some),
            })
        }
        Some(_) => wrong(),
    }
}

fn user_spec(text: &str) -> Result<UserSpec, Wrong> {
    // The login class of BSD has no meaning here.
    let text = text.split_once('/').map_or(text, |(user, _)| user);
    match text {
        "*" => return Ok(UserSpec::Login),
        "-" => return Ok(UserSpec::None),
        _ => {}
    }
    // A user's name may have a dot in it, so a colon goes before. Nothing after it, as for
    // chown(1), is the user's own group.
    let (user, group) = match (text.split_once(':'), text.split_once('.')) {
        (Some((user, "")), _) if user != "-" => (user, None),
        (Some((user, group)), _) | (None, Some((user, group))) => (user, Some(group)),
        (None, None) => (text, None),
    };
    if user.is_empty() || user == "*" || group.is_some_and(str::is_empty) {
        return Err(Wrong::expected("a user: user, user:group or *", text));
    }
    Ok(UserSpec::Named { user: user.into(), group: group.map(Into::into) })
}
