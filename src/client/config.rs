//! `~/.config/five/config`: settings for hosts, which the command line overrides.
//!
//! `[PATTERN ...]` sections of `key = value` lines; `*` and `?` in a pattern stand for any
//! characters and for any one, `!PATTERN` takes hosts out again. Lines before the first section are
//! for every host. `#` begins a comment, at a line's start or after white space. Of a key that is
//! given twice for one host the first counts, as in ssh_config(5), where the lines for every host
//! come last; `identity`, `forward`, `offer` and `pin` may be repeated and add up.

use super::forward::Forward;
use super::hop::{self, Hop};
use super::offer::{self, Offer};
use super::syntax::{is_host, is_name, is_pin, with_port, without_comment};
use crate::wire::pattern;
use std::time::Duration;

/// How long a session is held after its last stream, by default.
pub const PERSIST: Duration = Duration::from_secs(600);

/// The settings of one host.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The host's real name or address, if what was typed is an alias.
    pub hostname: Option<String>,
    pub user: Option<String>,
    pub port: Option<u16>,
    pub identities: Vec<String>,
    pub virtual_host: Option<String>,
    pub pins: Vec<String>,
    pub persist: Option<Duration>,
    pub forwards: Vec<Forward>,
    pub offers: Vec<Offer>,
    /// Is the session's connection Multipath TCP?
    pub mptcp: Option<bool>,
    /// The gates on the way there, the nearest first.
    pub via: Option<Vec<Hop>>,
}

/// Reads the whole file, for one host as it was typed. Err: all mistakes in it, `FILE:LINE: WORD:
/// what is expected`.
pub fn read(path: &str, text: &str, host: &str) -> Result<Settings, Vec<String>> {
    let (mut own, mut common, mut mistakes) =
        (Settings::default(), Settings::default(), Vec::new());
    // None: before the first section. Otherwise: does the section apply to the host?
    let mut section: Option<bool> = None;
    for (n, line) in text.lines().enumerate() {
        let line = without_comment(line).trim();
        let mut wrong =
            |word: &str, what: &str| mistakes.push(format!("{path}:{}: {word}: {what}", n + 1));
        if line.is_empty() {
            continue;
        }
        if let Some(patterns) = line.strip_prefix('[') {
            section =
                Some(match patterns.strip_suffix(']').map(str::trim).filter(|p| !p.is_empty()) {
                    Some(patterns) => {
                        patterns.split_whitespace().filter(|p| !is_pattern(p)).for_each(|p| {
                            wrong(p, "expected a host as it is typed, without its port or brackets")
                        });
                        applies(patterns, host)
                    }
                    None => {
                        wrong(line, "expected a section, [HOST]");
                        false
                    }
                });
            continue;
        }
        let Some((key, value)) = line.split_once('=').map(|(k, v)| (k.trim(), v.trim())) else {
            wrong(line, "expected KEY = VALUE, or a section, [HOST]");
            continue;
        };
        let mut elsewhere = Settings::default();
        let to = match section {
            None => &mut common,
            Some(true) => &mut own,
            Some(false) => &mut elsewhere,
        };
        if let Err(what) = set(to, key, value, host) {
            wrong(if what.0 || value.is_empty() { key } else { value }, what.1);
        }
    }
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    own.identities.append(&mut common.identities);
    own.forwards.append(&mut common.forwards);
    own.offers.append(&mut common.offers);
    own.pins.append(&mut common.pins);
    Ok(Settings {
        hostname: own.hostname.or(common.hostname),
        user: own.user.or(common.user),
        port: own.port.or(common.port),
        virtual_host: own.virtual_host.or(common.virtual_host),
        persist: own.persist.or(common.persist),
        mptcp: own.mptcp.or(common.mptcp),
        via: own.via.or(common.via),
        ..own
    })
}

/// May a host match this? Brackets are no part of one, nor is its port.
fn is_pattern(pattern: &str) -> bool {
    let bare = pattern.strip_prefix('!').unwrap_or(pattern);
    (bare.contains(['*', '?']) || is_host(bare)) && !bare.contains(['[', ']'])
}

/// Does a section with these patterns apply to the host?
fn applies(patterns: &str, host: &str) -> bool {
    pattern::apply(patterns.split_whitespace(), |p| pattern::matches(p, host))
}

/// Sets one key. Err: whether the key is wrong (else the value), and what is expected.
fn set(to: &mut Settings, key: &str, value: &str, host: &str) -> Result<(), (bool, &'static str)> {
    let name = || {
        if is_name(value) {
            Ok(value.to_string())
        } else {
            Err((false, "expected 1 to 255 bytes without control characters"))
        }
    };
    match key {
        "hostname" => keep(&mut to.hostname, hostname(value, host)?),
        "user" => keep(&mut to.user, name()?),
        "host" => keep(&mut to.virtual_host, name()?),
        "port" => keep(
            &mut to.port,
            value
                .parse()
                .ok()
                .filter(|p| *p != 0)
                .ok_or((false, "expected a number from 1 to 65535"))?,
        ),
        "persist" => keep(
            &mut to.persist,
            duration(value).ok_or((false, "expected a time (90, 90s, 5m, 2h, 1d)"))?,
        ),
        "identity" => to.identities.push(name()?),
        "pin" if is_pin(value) => to.pins.push(value.into()),
        "pin" => return Err((false, "expected sha256//BASE64, as fived --fingerprint prints it")),
        "forward" => to.forwards.push(
            Forward::read(value)
                .map_err(|_| (false, "expected [ADDRESS:]PORT:SERVICE or PATH:SERVICE"))?,
        ),
        "offer" => to.offers.push(Offer::read(value).map_err(|_| (false, offer::EXPECTED))?),
        "mptcp" => keep(
            &mut to.mptcp,
            match value {
                "yes" => true,
                "no" => false,
                _ => return Err((false, "expected yes or no")),
            },
        ),
        "via" => keep(&mut to.via, hop::read(value).ok_or((false, hop::EXPECTED))?),
        _ => {
            return Err((
                true,
                "expected one of the keys hostname, user, port, identity, host, pin, persist, forward, offer, mptcp or via",
            ));
        }
    }
    Ok(())
}

/// The value of `hostname`: a name or an address, in which `%h` is what was typed. An address may
/// have a zone (RFC 4007), after `%` too.
fn hostname(value: &str, host: &str) -> Result<String, (bool, &'static str)> {
    let bare = value.strip_prefix('[').and_then(|v| v.strip_suffix(']')).unwrap_or(value);
    let name = if bare.contains(':') { bare.to_string() } else { bare.replace("%h", host) };
    match () {
        () if with_port(value).is_some() => {
            Err((false, "expected a name or an address alone: `port = N` says the port"))
        }
        () if !is_host(&name) => Err((false, "expected the name or the address of a host")),
        () => Ok(name),
    }
}

fn keep<T>(place: &mut Option<T>, value: T) {
    place.get_or_insert(value);
}

/// A time as in fived.conf(5): a number of seconds, or one with `s`, `m`, `h` or `d` after it.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(['s', 'm', 'h', 'd']);
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    let number: u32 = digits.parse().ok().filter(|_| digits.bytes().all(|b| b.is_ascii_digit()))?;
    Some(Duration::from_secs(u64::from(number) * unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_its_own_and_everybodys() {
        let text = "user = me # everywhere\n[db.example]\nport=1001\nuser = demo\nidentity = ~/.ssh/a\nidentity = ~/.ssh/b\n\
                    persist = 2h\nforward = 5432:postgres\noffer = web:127.0.0.1:80\n[other]\nport = 7\n";
        let s = read("c", text, "DB.example").unwrap();
        assert_eq!(
            (s.user.as_deref(), s.port, s.persist),
            (Some("demo"), Some(1001), Some(Duration::from_secs(7200)))
        );
        assert_eq!((s.identities.len(), s.forwards.len(), s.offers.len()), (2, 1, 1));
        assert_eq!(
            read("c", text, "third").unwrap(),
            Settings { user: Some("me".into()), ..Settings::default() }
        );
    }

    #[test]
    fn all_mistakes_are_listed_with_their_place() {
        let text = "[a]\nport = x\npersist = 3y\ncolour = red\nnonsense\n[\npin = abc\nhostname = h:7\nhostname = a:b\nmptcp = maybe\nvia = gate\n[[::1] !h:7 b]\n";
        let mistakes = read("c", text, "b").unwrap_err();
        assert_eq!(
            mistakes,
            [
                "c:2: x: expected a number from 1 to 65535",
                "c:3: 3y: expected a time (90, 90s, 5m, 2h, 1d)",
                "c:4: colour: expected one of the keys hostname, user, port, identity, host, pin, persist, forward, offer, mptcp or via",
                "c:5: nonsense: expected KEY = VALUE, or a section, [HOST]",
                "c:6: [: expected a section, [HOST]",
                "c:7: abc: expected sha256//BASE64, as fived --fingerprint prints it",
                "c:8: h:7: expected a name or an address alone: `port = N` says the port",
                "c:9: a:b: expected the name or the address of a host",
                "c:10: maybe: expected yes or no",
                "c:11: gate: expected [USER@]HOST[:PORT]/SERVICE, at most 16 separated by commas, or none",
                "c:12: [::1]: expected a host as it is typed, without its port or brackets",
                "c:12: !h:7: expected a host as it is typed, without its port or brackets",
            ]
        );
    }

    #[test]
    fn patterns_are_as_in_ssh_config() {
        for (patterns, host, fit) in [
            ("db*.example", "db1.EXAMPLE", true),
            ("db*.example", "db.example.org", false),
            ("a b?", "b1", true),
            ("a b?", "b", false),
            ("*", "fe80::1%lo", true),
            ("* !*.lab", "x.lab", false),
            ("!x", "y", false),
            ("*a*a*a*b", &"a".repeat(200), false),
            ("::1", "::1", true),
        ] {
            assert_eq!(applies(patterns, host), fit, "[{patterns}] {host}");
        }
        // The first that fits counts, the lines for every host come last.
        let text = "port = 1\nuser = all\n[web1]\nport = 2\n[web* db]\nport = 3\nidentity = a\n[*]\nidentity = b\nuser = any\n";
        let of = |host| {
            read("c", text, host)
                .map(|s| (s.port, s.user.unwrap(), s.identities.join(" ")))
                .unwrap()
        };
        assert_eq!(of("web1"), (Some(2), "any".into(), "a b".into()));
        assert_eq!(of("web2"), (Some(3), "any".into(), "a b".into()));
        assert_eq!(of("mail"), (Some(1), "any".into(), "b".into()));
    }

    #[test]
    fn a_hosts_name_may_be_an_address() {
        let of = |value: &str| {
            read("c", &format!("[a*]\nhostname = {value}\n"), "ab")
                .map(|s| s.hostname.unwrap())
                .ok()
        };
        for (value, name) in [
            ("10.0.0.5", "10.0.0.5"),
            ("[::1]", "::1"),
            ("fe80::1%hub", "fe80::1%hub"),
            ("%h.example", "ab.example"),
            ("x_y", "x_y"),
        ] {
            assert_eq!(of(value).as_deref(), Some(name));
        }
        assert_eq!((of("a b"), of("-x"), of("[::1]:7")), (None, None, None));
    }

    #[test]
    fn durations() {
        let good = [("90", 90), ("90s", 90), ("10m", 600), ("2h", 7200), ("1d", 86_400), ("0", 0)];
        let bad = ["-1", "+1", "h", "", "3y", "1 m", "m1", "1mm", "1h30m", "99999999999"];
        for (text, seconds) in
            good.map(|(t, s)| (t, Some(s))).into_iter().chain(bad.map(|t| (t, None)))
        {
            assert_eq!(duration(text).map(|d| d.as_secs()), seconds, "{text}");
        }
    }
}
