//! `~/.config/five/config`: what is so for a host unless the command line says otherwise.
//!
//! `[host]` sections of `key = value` lines; lines before the first section are for every host. `#` begins a comment, at a line's
//! start or after white space. Of a key that is given twice for one host the first counts, as in ssh_config(5), and a host's own
//! section goes before what is for every host; `identity`, `forward` and `pin` may be repeated and add up.

use super::forward::Forward;
use super::options::is_name;
use super::trust;
use std::time::Duration;

/// How long a session is held after its last stream, where nothing is said.
pub const PERSIST: Duration = Duration::from_secs(600);

/// What the file says of one host.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Settings {
    pub user: Option<String>,
    pub port: Option<u16>,
    pub identities: Vec<String>,
    pub virtual_host: Option<String>,
    pub pins: Vec<String>,
    pub persist: Option<Duration>,
    pub forwards: Vec<Forward>,
}

/// Reads the whole file, for one host. Err: every mistake in it, `FILE:LINE: WORD: what is wrong, what would be right`.
pub fn read(path: &str, text: &str, host: &str) -> Result<Settings, Vec<String>> {
    let (mut own, mut common, mut mistakes) = (Settings::default(), Settings::default(), Vec::new());
    let mut section: Option<&str> = None;
    for (n, line) in text.lines().enumerate() {
        let line = without_comment(line).trim();
        let mut wrong = |word: &str, what: &str| mistakes.push(format!("{path}:{}: {word}: {what}", n + 1));
        if line.is_empty() {
            continue;
        }
        if let Some(name) = line.strip_prefix('[') {
            match name.strip_suffix(']').map(str::trim).filter(|n| !n.is_empty()) {
                Some(name) => section = Some(name),
                None => wrong(line, "a section is [HOST]"),
            }
            continue;
        }
        let Some((key, value)) = line.split_once('=').map(|(k, v)| (k.trim(), v.trim())) else {
            wrong(line, "a line is KEY = VALUE, or [HOST]");
            continue;
        };
        let mut elsewhere = Settings::default();
        let to = match section {
            None => &mut common,
            Some(name) if name.eq_ignore_ascii_case(host) => &mut own,
            Some(_) => &mut elsewhere,
        };
        if let Err(what) = set(to, key, value) {
            wrong(if what.0 { key } else { value }, what.1);
        }
    }
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    own.identities.append(&mut common.identities);
    own.forwards.append(&mut common.forwards);
    own.pins.append(&mut common.pins);
    Ok(Settings {
        user: own.user.or(common.user),
        port: own.port.or(common.port),
        virtual_host: own.virtual_host.or(common.virtual_host),
        persist: own.persist.or(common.persist),
        ..own
    })
}

fn without_comment(line: &str) -> &str {
    let begins = |(at, _): &(usize, &str)| *at == 0 || line[..*at].ends_with([' ', '\t']);
    line.match_indices('#').find(begins).map_or(line, |(at, _)| &line[..at])
}

/// Err: is it the key (or the value) that is wrong, and what would be right.
fn set(to: &mut Settings, key: &str, value: &str) -> Result<(), (bool, &'static str)> {
    let name = || if is_name(value) { Ok(value.to_string()) } else { Err((false, "a name of 1 to 255 bytes")) };
    match key {
        "user" => keep(&mut to.user, name()?),
        "host" => keep(&mut to.virtual_host, name()?),
        "port" => keep(&mut to.port, value.parse().ok().filter(|p| *p != 0).ok_or((false, "a number from 1 to 65535"))?),
        "persist" => keep(&mut to.persist, duration(value).ok_or((false, "seconds, or 10m, 2h"))?),
        "identity" => to.identities.push(name()?),
        "pin" if trust::is_pin(value) => to.pins.push(value.into()),
        "pin" => return Err((false, "sha256//BASE64, as fived --fingerprint says it")),
        "forward" => to.forwards.push(Forward::read(value).map_err(|_| (false, "[ADDRESS:]PORT:SERVICE or PATH:SERVICE"))?),
        _ => return Err((true, "no such key: user, port, identity, host, pin, persist or forward")),
    }
    Ok(())
}

fn keep<T>(place: &mut Option<T>, value: T) {
    place.get_or_insert(value);
}

/// `90`, `90s`, `10m`, `2h`.
fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = match text.strip_suffix(['s', 'm', 'h']) {
        None => (text, 1),
        Some(number) => (
            number,
            match text.as_bytes().last() {
                Some(b'h') => 3600,
                Some(b'm') => 60,
                _ => 1,
            },
        ),
    };
    let n: u32 = number.parse().ok()?;
    Some(Duration::from_secs(u64::from(n) * unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_its_own_and_everybodys() {
        let text = "user = me # everywhere\n[db.example]\nport=1001\nuser = demo\nidentity = ~/.ssh/a\nidentity = ~/.ssh/b\n\
                    persist = 2h\nforward = 5432:postgres\n[other]\nport = 7\n";
        let s = read("c", text, "DB.example").unwrap();
        assert_eq!((s.user.as_deref(), s.port, s.persist), (Some("demo"), Some(1001), Some(Duration::from_secs(7200))));
        assert_eq!((s.identities.len(), s.forwards.len()), (2, 1));
        assert_eq!(read("c", text, "third").unwrap(), Settings { user: Some("me".into()), ..Settings::default() });
    }

    #[test]
    fn all_mistakes_are_told_with_their_place() {
        let text = "[a]\nport = x\npersist = 3d\ncolour = red\nnonsense\n[\npin = abc\n";
        let told = read("c", text, "b").unwrap_err();
        assert_eq!(
            told,
            [
                "c:2: x: a number from 1 to 65535",
                "c:3: 3d: seconds, or 10m, 2h",
                "c:4: colour: no such key: user, port, identity, host, pin, persist or forward",
                "c:5: nonsense: a line is KEY = VALUE, or [HOST]",
                "c:6: [: a section is [HOST]",
                "c:7: abc: sha256//BASE64, as fived --fingerprint says it",
            ]
        );
    }

    #[test]
    fn durations() {
        for (text, seconds) in [("90", Some(90)), ("90s", Some(90)), ("10m", Some(600)), ("2h", Some(7200)), ("-1", None), ("h", None)] {
            assert_eq!(duration(text).map(|d| d.as_secs()), seconds, "{text}");
        }
    }
}
