//! What holds for fived as a whole (fived.conf(5)).

use super::attributes::Operator;
use super::values::{Wrong, each, number, one, path, seconds, yes};
use super::words::Word;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// Every setting.
pub const NAMES: [&str; 28] = [
    "listen",
    "user",
    "certificate",
    "key",
    "passwords",
    "pam",
    "pam_account",
    "checkpassword",
    "authorized_keys",
    "plaintext_login",
    "request_timeout",
    "login_timeout",
    "login_tries",
    "pubkey_tries",
    "keepalive",
    "max_connections",
    "max_sessions",
    "max_sessions_per_source",
    "max_services",
    "max_services_per_source",
    "max_streams",
    "max_streams_anonymous",
    "shutdown_timeout",
    "state_directory",
    "log_type",
    "mptcp",
    "include",
    "includedir",
];
/// The port of tcpmux (RFC 1078).
const PORT: u16 = 1;
/// Seconds of any timeout at most: a week.
const SECONDS_MAX: u32 = 7 * 86_400;

/// Where the log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogType {
    /// Standard error; syslog in the background.
    Stderr,
    /// Numbers of RFC 5424, 6.2.1.
    Syslog {
        facility: u8,
        level: u8,
    },
    File(String),
}

impl LogType {
    pub const DAEMON: u8 = 3;
    pub const INFO: u8 = 6;
}

const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
    "ftp", "ntp", "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4",
    "local5", "local6", "local7",
];
const LEVELS: [&str; 8] = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];

#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub listen: Vec<SocketAddr>,
    /// Of the network process.
    pub user: Option<String>,
    pub certificate: Option<String>,
    pub key: Option<String>,
    pub passwords: Option<String>,
    pub pam: Option<String>,
    /// None: where PAM is asked for passwords.
    pub pam_account: Option<bool>,
    /// A program and its arguments.
    pub checkpassword: Option<Vec<String>>,
    pub authorized_keys: Vec<String>,
    pub plaintext_login: bool,
    pub request_timeout: Duration,
    pub login_timeout: Duration,
    pub login_tries: u32,
    pub pubkey_tries: u32,
    pub keepalive: Duration,
    pub max_connections: u32,
    pub max_sessions: u32,
    /// Of one [`Source`](super::Source).
    pub max_sessions_per_source: u32,
    /// Running at a time, of the whole table.
    pub max_services: u32,
    /// Of these, started for one [`Source`](super::Source).
    pub max_services_per_source: u32,
    pub max_streams: u32,
    pub max_streams_anonymous: u32,
    pub shutdown_timeout: Duration,
    pub state_directory: Option<String>,
    pub log_type: LogType,
    pub mptcp: bool,
}

impl Default for Settings {
    fn default() -> Self {
        let s = Duration::from_secs;
        Settings {
            listen: vec![(Ipv6Addr::UNSPECIFIED, PORT).into()],
            user: None,
            certificate: None,
            key: None,
            passwords: None,
            pam: None,
            pam_account: None,
            checkpassword: None,
            authorized_keys: vec!["/etc/fived/keys/%u".into(), "%h/.ssh/authorized_keys".into()],
            plaintext_login: false,
            request_timeout: s(30),
            login_timeout: s(120),
            login_tries: 3,
            pubkey_tries: 10,
            keepalive: s(60),
            max_connections: 10_000,
            max_sessions: 1_000,
            max_sessions_per_source: 100,
            max_services: 2_000,
            max_services_per_source: 200,
            max_streams: 128,
            max_streams_anonymous: 8,
            shutdown_timeout: s(30),
            state_directory: None,
            log_type: LogType::Stderr,
            mptcp: true,
        }
    }
}

/// Addresses to listen on, at most.
pub const LISTEN_MAX: usize = 64;

impl Settings {
    /// Dialogues in streams of one session at a time, at most. Streams are counted by their frames,
    /// dialogues by their threads, and one that has ended may have a thread for a moment longer.
    pub fn dialogues(&self) -> u32 {
        self.max_streams.max(self.max_streams_anonymous).saturating_mul(2)
    }

    /// Starts that a session of so many streams has asked for and has no answer to, at most:
    /// streams come and go sooner than answers.
    pub fn unanswered(&self, streams: u32) -> u32 {
        streams.saturating_add(64)
    }

    /// The service of PAM whose account phase follows a good key.
    pub fn account_service(&self) -> Option<&str> {
        self.pam.as_deref().filter(|_| self.pam_account.unwrap_or(true))
    }

    /// Sets one. None: there is no such setting. Err: every word that is wrong.
    pub fn set(&mut self, name: &str, op: Operator, words: &[Word]) -> Option<Result<(), Wrong>> {
        if !NAMES.contains(&name) || name.starts_with("include") {
            return None;
        }
        Some(self.try_set(name, op, words))
    }

    fn try_set(&mut self, name: &str, op: Operator, words: &[Word]) -> Result<(), Wrong> {
        let wrong = |what: &str| Wrong::from((name.to_string(), what.to_string()));
        if op != Operator::Set && !matches!(name, "listen" | "authorized_keys") {
            return Err(wrong("takes one value; `=` would be right"));
        }
        let text = |words: &[Word]| one(name, words).map(|w| Some(w.text.clone()));
        let file = |words: &[Word]| one(name, words).and_then(path).map(Some);
        let time = |words: &[Word], least: u32| {
            one(name, words)
                .and_then(|w| seconds(w, least..=SECONDS_MAX))
                .map(|n| Duration::from_secs(n.into()))
        };
        let count = |words: &[Word], most: i64| {
            one(name, words).and_then(|w| number(w, 1..=most)).map(|n| n as u32)
        };
        match name {
            "listen" => {
                change(op, &mut self.listen, each(words, |w| listen(w).map(|a| vec![a]))?);
                if self.listen.len() > LISTEN_MAX {
                    return Err(wrong("too many addresses; 64 at most would be right"));
                }
                if self.listen.is_empty() {
                    return Err(wrong(
                        "nowhere to listen; an address such as [::]:1 would be right",
                    ));
                }
            }
            "user" => self.user = text(words)?,
            "certificate" => self.certificate = file(words)?,
            "key" => self.key = file(words)?,
            "passwords" => self.passwords = file(words)?,
            "pam" => self.pam = text(words)?,
            "pam_account" => self.pam_account = Some(yes(one(name, words)?)?),
            "checkpassword" => {
                path(
                    words
                        .first()
                        .ok_or_else(|| wrong("no program behind it; one would be right"))?,
                )?;
                self.checkpassword = Some(words.iter().map(|w| w.text.clone()).collect());
            }
            "authorized_keys" => change(op, &mut self.authorized_keys, patterns(words)?),
            "plaintext_login" => self.plaintext_login = yes(one(name, words)?)?,
            "request_timeout" => self.request_timeout = time(words, 1)?,
            "login_timeout" => self.login_timeout = time(words, 1)?,
            "login_tries" => self.login_tries = count(words, 1000)?,
            "pubkey_tries" => self.pubkey_tries = count(words, 1000)?,
            "keepalive" => self.keepalive = time(words, 1)?,
            "max_connections" => self.max_connections = count(words, 1_000_000)?,
            "max_sessions" => self.max_sessions = count(words, 100_000)?,
            "max_sessions_per_source" => self.max_sessions_per_source = count(words, 100_000)?,
            "max_services" => self.max_services = count(words, 1_000_000)?,
            "max_services_per_source" => self.max_services_per_source = count(words, 1_000_000)?,
            "max_streams" => self.max_streams = count(words, 65_536)?,
            "max_streams_anonymous" => self.max_streams_anonymous = count(words, 65_536)?,
            "shutdown_timeout" => self.shutdown_timeout = time(words, 0)?,
            "state_directory" => self.state_directory = file(words)?,
            "log_type" => self.log_type = log_type(words)?,
            _ => self.mptcp = yes(one(name, words)?)?,
        }
        Ok(())
    }
}

fn change<T: PartialEq>(op: Operator, list: &mut Vec<T>, values: Vec<T>) {
    match op {
        Operator::Set => *list = values,
        Operator::Add => list.extend(values),
        Operator::Remove => list.retain(|v| !values.contains(v)),
    }
}

fn patterns(words: &[Word]) -> Result<Vec<String>, Wrong> {
    let good =
        |w: &str| (w.starts_with('/') || w.starts_with("%h/")) && !w.contains(char::is_whitespace);
    let wrong = || {
        "not a pattern of paths; one that begins with / or %h/, without blanks, would be right"
            .to_string()
    };
    each(words, |w| good(w).then(|| vec![w.to_string()]).ok_or_else(wrong))
}

/// Reads an address to listen on: `ADDRESS:PORT`, `[IPV6]:PORT`, `*:PORT`, a port alone, or an
/// address alone (port 1). Err: what would be right.
pub fn listen(text: &str) -> Result<SocketAddr, String> {
    let any = IpAddr::from(Ipv6Addr::UNSPECIFIED);
    let port = |p: &str| p.parse::<u16>().ok().filter(|_| p.bytes().all(|b| b.is_ascii_digit()));
    if let Ok(a) = text.parse() {
        return Ok(a);
    }
    if let Some(p) = port(text.strip_prefix("*:").unwrap_or(text)) {
        return Ok((any, p).into());
    }
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    match bare.parse::<IpAddr>() {
        Ok(ip) => Ok((ip, PORT).into()),
        Err(_) => Err("not an address; one such as 127.0.0.1:1 or [::]:1 would be right".into()),
    }
}

fn log_type(words: &[Word]) -> Result<LogType, (String, String)> {
    const RIGHT: &str = "unknown; STDERR, `SYSLOG facility [level]` or `FILE path` would be right";
    let wrong = |w: &Word| (w.text.clone(), RIGHT.to_string());
    let first = words.first().ok_or_else(|| ("log_type".to_string(), RIGHT.to_string()))?;
    let at = |all: &[&str], w: &Word| {
        all.iter().position(|n| n.eq_ignore_ascii_case(&w.text)).map(|i| i as u8).ok_or_else(|| {
            (w.text.clone(), format!("unknown; one of {} would be right", all.join(" ")))
        })
    };
    match (first.text.to_ascii_uppercase().as_str(), &words[1..]) {
        ("STDERR", []) => Ok(LogType::Stderr),
        ("SYSLOG", [facility]) => {
            Ok(LogType::Syslog { facility: at(&FACILITIES, facility)?, level: LogType::INFO })
        }
        ("SYSLOG", [facility, level]) => {
            Ok(LogType::Syslog { facility: at(&FACILITIES, facility)?, level: at(&LEVELS, level)? })
        }
        ("FILE", [file]) => Ok(LogType::File(path(file)?)),
        _ => Err(wrong(first)),
    }
}

impl std::fmt::Display for LogType {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            LogType::Stderr => f.write_str("STDERR"),
            LogType::Syslog { facility, level } => {
                write!(
                    f,
                    "SYSLOG {} {}",
                    FACILITIES[usize::from(*facility)],
                    LEVELS[usize::from(*level)]
                )
            }
            LogType::File(p) => write!(f, "FILE {}", super::words::quote(p)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_to_listen_on() {
        for (text, wanted) in [
            ("[::]:1", "[::]:1"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("*:7", "[::]:7"),
            ("1001", "[::]:1001"),
            ("127.0.0.1", "127.0.0.1:1"),
            ("::1", "[::1]:1"),
            ("[::1]", "[::1]:1"),
        ] {
            assert_eq!(listen(text).expect(text).to_string(), wanted);
        }
        for bad in ["host:1", "1.2.3.4:99999", "+1", "", "[::1"] {
            assert!(listen(bad).is_err(), "{bad}");
        }
    }
}
