//! The command line, five(1).

use super::error::Error;
use super::forward::Forward;
use super::hop::{self, Hop};
use super::messages::Level;
use super::offer::Offer;
use super::syntax::{is_host, is_name, with_port};
use super::terminal::Asks;
use getopts::{Options as Getopts, ParsingStyle};

const USAGE: &str = "five [-46NnqTtvx] [-p port] [-l user] [-H vhost] [-i identity]... [-L forward]... [-J way] [-R offer]... [--accept-new] [user@]host [service]\n       \
     five --plain [-46Nnqv] [-p port] [-L forward]... host [service]\n       five [-NnqTtv] [-H vhost] [-L forward]... [--plain] /path/of/socket [service]\n       \
     five -O check|list|exit|resume [-p port] [-l user] [-J way] [user@]host\n       five -O forward|cancel [-L forward]... [-R offer]... [-p port] [-l user] [-H vhost] [-J way] [user@]host\n       five -h | -V";

/// Every option: its letter, its long name, the name of its value (empty: it takes none), and its
/// description for -h.
const OPTIONS: [(&str, &str, &str, &str); 21] = [
    ("4", "", "", "use IPv4 only"),
    ("6", "", "", "use IPv6 only"),
    ("p", "port", "PORT", "connect to this port (default: 1, tcpmux)"),
    ("l", "login", "USER", "log in as this user; '' logs in nobody"),
    ("H", "host", "VHOST", "use this virtual host of the server; '' is whichever it chooses"),
    ("i", "identity", "FILE", "log in with the key in this file; may be repeated"),
    (
        "L",
        "",
        "FORWARD",
        "listen on [ADDRESS:]PORT:SERVICE, or on the socket PATH:SERVICE, and connect whoever comes there with SERVICE; may be repeated",
    ),
    (
        "J",
        "",
        "WAY",
        "make the session through services of other servers, [USER@]HOST[:PORT]/SERVICE[,...], the nearest first",
    ),
    (
        "R",
        "",
        "OFFER",
        "offer the server a service of this computer, SERVICE:ADDRESS:PORT or SERVICE:/PATH; may be repeated",
    ),
    ("N", "", "", "use no service: only serve -L and -R"),
    ("n", "", "", "read standard input from /dev/null"),
    ("t", "", "", "ask the service for a terminal"),
    ("T", "", "", "ask for no terminal"),
    ("x", "", "", "make a session for this call alone"),
    (
        "O",
        "",
        "ORDER",
        "ask about or change an existing session: check, list, exit, resume, or with -L or -R forward or cancel",
    ),
    ("", "accept-new", "", "trust the key of a server that was never seen before, without asking"),
    (
        "",
        "plain",
        "",
        "speak RFC 1078 alone, without TLS, login or session, also with inetd and xinetd",
    ),
    ("q", "quiet", "", "print no messages, except about a server that is not trusted"),
    ("v", "verbose", "", "print each step"),
    ("h", "help", "", "print this help"),
    ("V", "version", "", "print the version"),
];

/// Which of a host's addresses are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Any,
    V4,
    V6,
}

/// What -O does with an open session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Check,
    List,
    Exit,
    /// Adds the forwards of -L and the offers of -R.
    Forward,
    /// Ends them.
    Cancel,
    /// Tries now to resume the session.
    Resume,
}

impl Order {
    /// As it is typed.
    const NAMES: [(&str, Order); 6] = [
        ("check", Order::Check),
        ("list", Order::List),
        ("exit", Order::Exit),
        ("resume", Order::Resume),
        ("forward", Order::Forward),
        ("cancel", Order::Cancel),
    ];

    /// Does it change the session's forwards?
    fn changes_forwards(self) -> bool {
        matches!(self, Order::Forward | Order::Cancel)
    }
}

/// What was typed. The configuration sets the rest.
#[derive(Debug)]
pub struct Options {
    pub host: String,
    /// Empty: no login, whatever the configuration says.
    pub user: Option<String>,
    pub service: Option<String>,
    pub port: Option<u16>,
    /// Empty: the default one, whatever the configuration says.
    pub virtual_host: Option<String>,
    pub identities: Vec<String>,
    pub forwards: Vec<Forward>,
    /// None: the way that the configuration says.
    pub way: Option<Vec<Hop>>,
    pub offers: Vec<Offer>,
    pub order: Option<Order>,
    pub family: Family,
    pub only_forward: bool,
    pub no_input: bool,
    pub terminal: Asks,
    pub level: Level,
    pub unshared: bool,
    pub plain: bool,
    pub accept_new: bool,
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Wanted {
    Help,
    Version,
    Run(Box<Options>),
}

/// The table, for getopts.
fn parser() -> Getopts {
    let mut g = Getopts::new();
    g.parsing_style(ParsingStyle::FloatingFrees);
    for (short, long, value, meaning) in OPTIONS {
        // All may be repeated: an alias may contain one already.
        match value {
            "" => g.optflagmulti(short, long, meaning),
            _ => g.optmulti(short, long, meaning, value),
        };
    }
    g
}

/// An error of the command line, with the usage.
pub fn usage(what: impl std::fmt::Display) -> Error {
    Error::Usage(format!("{what}\nusage: {USAGE}"))
}

/// What -h prints: the usage, and what each option means.
pub fn help() -> String {
    parser().usage(&format!("usage: {USAGE}"))
}

/// Reads the words after the program's name.
pub fn read(words: &[String]) -> Result<Wanted, Error> {
    let g = parser();
    let m = g.parse(words).map_err(|e| usage(e.to_string()))?;
    if m.opt_present("h") {
        return Ok(Wanted::Help);
    }
    if m.opt_present("V") {
        return Ok(Wanted::Version);
    }
    // Of an option with one value the first counts, as in ssh(1): an alias may contain it.
    let first = |name: &str| m.opt_strs(name).into_iter().next();
    let wrong = |what: String| Err(usage(what));
    let (place, service) = match m.free.as_slice() {
        [] => return wrong("expected a host".into()),
        [place] => (place, None),
        [place, service] => (place, Some(service.clone())),
        [_, _, more, ..] => return wrong(format!("{more}: a service takes no arguments")),
    };
    let (at, host) = user_and_host(place)?;
    let plain = m.opt_present("plain");
    let o = Options {
        host: host.to_string(),
        user: first("l").or(at),
        service,
        port: first("p").map(|p| port(&p)).transpose()?,
        virtual_host: first("H"),
        identities: m.opt_strs("i"),
        forwards: m
            .opt_strs("L")
            .iter()
            .map(|f| Forward::read(f).map_err(usage))
            .collect::<Result<_, _>>()?,
        way: first("J").map(|w| way(&w)).transpose()?,
        offers: m
            .opt_strs("R")
            .iter()
            .map(|f| Offer::read(f).map_err(usage))
            .collect::<Result<_, _>>()?,
        order: first("O").map(|o| order(&o)).transpose()?,
        family: family(m.opt_present("4"), m.opt_present("6"))?,
        only_forward: m.opt_present("N"),
        no_input: m.opt_present("n"),
        terminal: Asks::typed(m.opt_present("t"), m.opt_present("T"), plain).map_err(usage)?,
        level: level(m.opt_present("q"), m.opt_present("v")),
        unshared: m.opt_present("x"),
        // A list of a socket of this computer, and forwards there, need no session.
        plain: plain || is_path(host) && m.free.len() == 1 && !m.opt_present("H"),
        accept_new: m.opt_present("accept-new"),
    };
    check(&o)?;
    Ok(Wanted::Run(Box::new(o)))
}

/// Is this host the path of a Unix socket?
pub fn is_path(host: &str) -> bool {
    host.starts_with('/')
}

/// `[USER@]HOST`: a user's name may contain an @, a host's name cannot.
fn user_and_host(place: &str) -> Result<(Option<String>, &str), Error> {
    if is_path(place) {
        return Ok((None, place));
    }
    let (user, host) =
        place.rsplit_once('@').map_or((None, place), |(user, host)| (Some(user.to_string()), host));
    if let Some((host, port)) = with_port(host) {
        let user = user.map_or(String::new(), |user| format!("{user}@"));
        return Err(usage(format!(
            "{place}: the port is an option of its own: five -p {port} {user}{host}"
        )));
    }
    Ok((user, host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host)))
}

fn way(text: &str) -> Result<Vec<Hop>, Error> {
    hop::read(text).ok_or_else(|| usage(format!("-J {text}: {}", hop::EXPECTED)))
}

fn order(text: &str) -> Result<Order, Error> {
    let known = Order::NAMES.iter().find(|(name, _)| *name == text);
    known.map(|(_, order)| *order).ok_or_else(|| {
        let (last, others) = Order::NAMES.split_last().expect("there are orders");
        let others = others.iter().map(|o| o.0).collect::<Vec<_>>().join(", ");
        usage(format!("-O {text}: expected {others} or {}", last.0))
    })
}

fn family(four: bool, six: bool) -> Result<Family, Error> {
    match (four, six) {
        (true, true) => Err(usage("-4 and -6 exclude each other")),
        (true, false) => Ok(Family::V4),
        (false, true) => Ok(Family::V6),
        (false, false) => Ok(Family::Any),
    }
}

fn level(quiet: bool, verbose: bool) -> Level {
    match (quiet, verbose) {
        (_, true) => Level::Verbose,
        (true, false) => Level::Quiet,
        (false, false) => Level::Normal,
    }
}

fn port(text: &str) -> Result<u16, Error> {
    text.parse()
        .ok()
        .filter(|p| *p != 0)
        .ok_or_else(|| usage(format!("-p {text}: expected a number from 1 to 65535")))
}

/// Rejects contradictions.
fn check(o: &Options) -> Result<(), Error> {
    let wrong = |what: &str| Err(usage(what));
    let some = |name: &Option<String>| name.clone().filter(|n| !n.is_empty());
    if is_path(&o.host) {
        let of_session = [
            o.user.is_some(),
            !o.identities.is_empty(),
            !o.offers.is_empty(),
            o.order.is_some(),
            o.port.is_some(),
            o.way.is_some(),
            o.family != Family::Any,
        ];
        if of_session.contains(&true) {
            return wrong(
                "a socket of this computer excludes -l, -i, -J, -O, -R, -p, -4 and -6: the system itself says who you are",
            );
        }
    } else if !is_host(&o.host) {
        return wrong(&format!("{:?}: expected the name or the address of a host", o.host));
    }
    for (what, name) in [
        ("service", o.service.clone()),
        ("user", some(&o.user)),
        ("virtual host", some(&o.virtual_host)),
    ] {
        if let Some(name) = name.filter(|n| !is_name(n)) {
            return wrong(&format!(
                "{name:?}: expected the name of a {what}, 1 to 255 bytes without control characters"
            ));
        }
    }
    if o.only_forward && o.service.is_some() {
        return wrong("-N excludes a service");
    }
    if let Some(order) = o.order {
        if o.service.is_some() || o.only_forward {
            return wrong("-O excludes a service and -N");
        }
        match (order.changes_forwards(), o.forwards.is_empty() && o.offers.is_empty()) {
            (true, true) => return wrong("-O forward and -O cancel need -L or -R"),
            (false, false) => return wrong("with -L or -R, -O is forward or cancel"),
            _ => {}
        }
    }
    if o.plain && !o.offers.is_empty() {
        return wrong("--plain excludes -R: RFC 1078 has no offers");
    }
    if o.plain
        && (some(&o.user).or(some(&o.virtual_host)).is_some()
            || !o.identities.is_empty()
            || o.way.as_ref().is_some_and(|way| !way.is_empty())
            || o.order.is_some())
    {
        return wrong("--plain excludes a user, -H, -i, -J and -O: RFC 1078 has none of them");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(line: &str) -> Result<Options, String> {
        let words: Vec<String> = line.split(' ').map(String::from).collect();
        match read(&words) {
            Ok(Wanted::Run(o)) => Ok(*o),
            Ok(other) => Err(format!("{other:?}")),
            Err(e) => Err(e.to_string().lines().next().unwrap_or_default().to_string()),
        }
    }

    #[test]
    fn as_ssh_has_them() {
        let o = typed("-vp 1001 demo@example.org date -n").unwrap();
        assert_eq!(
            (o.host.as_str(), o.user.as_deref(), o.service.as_deref()),
            ("example.org", Some("demo"), Some("date"))
        );
        assert!(o.level == Level::Verbose && o.no_input && o.port == Some(1001));
        assert_eq!(typed("-l a b@c").unwrap().user.as_deref(), Some("a"));
        assert_eq!(
            typed("me@corp@[::1]").map(|o| (o.user, o.host)),
            Ok((Some("me@corp".into()), "::1".into()))
        );
        assert_eq!(
            typed("-qq -p 7 -p 8 h").map(|o| (o.level, o.port)),
            Ok((Level::Quiet, Some(7)))
        );
        assert_eq!(typed("-L 1:a -L 2:b -N h").unwrap().forwards.len(), 2);
        assert_eq!(typed("-R web:/x -R b:h:1 -N h").unwrap().offers.len(), 2);
    }

    #[test]
    fn contradictions_are_reported() {
        for (line, what) in [
            ("-p 0 h", "-p 0: expected a number from 1 to 65535"),
            ("h s t", "t: a service takes no arguments"),
            ("-O stop h", "-O stop: expected check, list, exit, resume, forward or cancel"),
            ("-O forward h", "-O forward and -O cancel need -L or -R"),
            ("-O list -L 1:a h", "with -L or -R, -O is forward or cancel"),
            ("-R web:80 h", "-R web:80: expected SERVICE:ADDRESS:PORT or SERVICE:/PATH"),
            ("--plain -R web:/x h", "--plain excludes -R: RFC 1078 has no offers"),
            ("-t -T h s", "-t and -T exclude each other"),
            ("-t --plain h s", "--plain excludes -t: RFC 1078 has no terminals"),
            ("-N h s", "-N excludes a service"),
            (
                "--plain u@h s",
                "--plain excludes a user, -H, -i, -J and -O: RFC 1078 has none of them",
            ),
            (
                "-J gate h",
                "-J gate: expected [USER@]HOST[:PORT]/SERVICE, at most 16 separated by commas, or none",
            ),
            ("-4 -6 h", "-4 and -6 exclude each other"),
            ("h:1001 s", "h:1001: the port is an option of its own: five -p 1001 h"),
            ("me@[::1]:7", "me@[::1]:7: the port is an option of its own: five -p 7 me@::1"),
            ("h:date", "\"h:date\": expected the name or the address of a host"),
        ] {
            assert_eq!(typed(line).unwrap_err(), what, "{line}");
        }
        assert!(typed("-L x h").is_err() && typed("u@").is_err() && typed("fe80::1%eth0").is_ok());
    }
}
