//! The settings of fived as a whole (fived.conf(5)). To add a setting, add its entry to
//! [`SETTINGS`].

use super::listen::{LISTEN_MAX, Listen};
use super::proxies::{PROXIES, Proxies};
use super::text::codecs::MODE;
use super::text::entry::{Codec, Printed, entries};
use super::text::lexer::quote;
use super::text::parse::{Wrong, any_of, expected, is_one_path, path};
use super::text::value::{PATH, WORD, YES_NO, count, print_list, read_list, time, yes_or_no};
use std::net::SocketAddr;
use std::time::Duration;

/// Where all places for sessions are taken, a connection is still admitted that only resumes one:
/// one for each lost session, and one for each of at most this many that stand and can be resumed.
/// Both counts are of all sessions, and of each source.
pub const STANDING_MAX: u32 = 8;

/// Streams that have a dialogue, of all sessions of a net process.
pub const DIALOGUES_MAX: u32 = 4096;

entries! {
    /// Every setting of fived as a whole, every default filled in.
    pub struct Settings, SETTINGS {
        /// May be empty: services are reached at ports of their own alone.
        listen: Vec<Listen> = vec![Listen::usual()], LISTEN, Parent;
        /// Of the Unix sockets among them: who may connect.
        listen_mode: u32 = 0o666, MODE, Parent;
        /// From there each connection begins with a header that says who the client is.
        proxy_from: Proxies = Proxies::default(), PROXIES, Net;
        /// The user of the net process.
        user: Option<String> = None, WORD, Parent;
        certificate: Option<String> = None, PATH, Parent;
        key: Option<String> = None, PATH, Parent;
        passwords: Option<String> = None, PATH, Parent;
        pam: Option<String> = None, WORD, Parent;
        state_directory: Option<String> = None, PATH, Parent;
        /// None: yes where PAM checks passwords.
        pam_account: Option<bool> = None, MAYBE, Parent;
        /// A program and its arguments.
        checkpassword: Option<Vec<String>> = None, COMMAND, Parent;
        authorized_keys: Vec<String> =
            vec!["/etc/fived/keys/%u".into(), "%h/.ssh/authorized_keys".into()], PATTERNS, Parent;
        plaintext_login: bool = false, YES_NO, Net;
        request_timeout: Duration = Duration::from_secs(30), time::<1>(), Net;
        login_timeout: Duration = Duration::from_secs(120), time::<1>(), Net;
        keepalive: Duration = Duration::from_secs(60), time::<1>(), Net;
        shutdown_timeout: Duration = Duration::from_secs(30), time::<0>(), Parent;
        login_tries: u32 = 3, count::<1000>(), Net;
        pubkey_tries: u32 = 10, count::<1000>(), Net;
        max_connections: u32 = 10_000, count::<1_000_000>(), Net;
        max_sessions: u32 = 1_000, count::<100_000>(), Net;
        /// For one [`Source`](super::Source).
        max_sessions_per_source: u32 = 100, count::<100_000>(), Net;
        /// Running at a time, all services together.
        max_services: u32 = 2_000, count::<1_000_000>(), Parent;
        /// Of these, started for one [`Source`](super::Source).
        max_services_per_source: u32 = 200, count::<1_000_000>(), Parent;
        max_streams: u32 = 128, count::<65_536>(), Net;
        max_streams_anonymous: u32 = 8, count::<65_536>(), Net;
        /// How long a session that was lost is kept for its client. Zero: RESUME is switched off.
        resume_timeout: Duration = Duration::from_secs(600), time::<0>(), Net;
        /// Where nobody had logged in.
        resume_timeout_anonymous: Duration = Duration::from_secs(60), time::<0>(), Net;
        /// Lost sessions of one user, or of one [`Source`](super::Source) where nobody has logged
        /// in.
        max_lost: u32 = 8, count::<100_000>(), Parent;
        log_type: LogType = LogType::Stderr, LOG_TYPE, Parent;
        mptcp: bool = true, YES_NO, Parent;
        /// Files of inetd.conf(5), and directories of such files, whose rows are served too.
        inetd: Vec<String> = Vec::new(), FILES, Parent;
        /// Files of xinetd.conf(5) whose rows are served too.
        xinetd: Vec<String> = Vec::new(), FILES, Parent;
    }
}

impl Settings {
    /// The addresses where fived itself listens; those of -l, if there are any, go before.
    pub fn own_addresses(&self, given: &[Listen]) -> Vec<SocketAddr> {
        let all = if given.is_empty() { &self.listen } else { given };
        all.iter().filter_map(Listen::internet).collect()
    }

    /// Dialogues in streams of one session at a time, at most. This is more than the number of
    /// streams, because the thread of a dialogue may outlive its stream for a moment.
    pub fn dialogues(&self) -> u32 {
        self.max_streams.max(self.max_streams_anonymous).saturating_mul(2)
    }

    /// Starts that a session of this many streams may have asked for without an answer yet. This is
    /// more than the number of streams, because streams may end before their answers come.
    pub fn unanswered(&self, streams: u32) -> u32 {
        streams.saturating_add(64)
    }

    /// Within this time a client that is here now begins its last service. It has one request and
    /// one login on its connection. After these its session may be lost for a while, or it has as
    /// many in a stream that it opened before it was told to open no more.
    pub fn begins_within(&self) -> Duration {
        let kept = self.resume_timeout.max(self.resume_timeout_anonymous);
        let dialogue = self.request_timeout.saturating_add(self.login_timeout);
        dialogue.saturating_add(kept.max(dialogue))
    }

    /// The PAM service whose account phase is asked after a login by key.
    pub fn account_service(&self) -> Option<&str> {
        self.pam.as_deref().filter(|_| self.pam_account.unwrap_or(true))
    }

    /// Fills in the settings whose defaults depend on others.
    pub fn complete(mut self) -> Settings {
        self.pam_account.get_or_insert(self.pam.is_some());
        self
    }
}

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

const LISTEN: Codec<Vec<Listen>> = Codec {
    list: true,
    read: |addresses, given| {
        read_list(addresses, given.operator, given.words, |w| Listen::read(w).map(|a| vec![a]))?;
        if addresses.len() > LISTEN_MAX {
            return Err(given.wrong(format!(
                "too many addresses: expected at most {LISTEN_MAX}, found {}",
                addresses.len()
            )));
        }
        Ok(())
    },
    print: |addresses| print_list(addresses),
};

const MAYBE: Codec<Option<bool>> = Codec {
    list: false,
    read: |value, given| (YES_NO.read)(value.get_or_insert_default(), given),
    print: |value| value.map_or(Printed::Nothing, |v| Printed::Words(yes_or_no(v).into())),
};

const COMMAND: Codec<Option<Vec<String>>> = Codec {
    list: false,
    read: |value, given| {
        let first = given.words.first();
        path(first.ok_or_else(|| given.wrong("expected a program, found none"))?)?;
        *value = Some(given.words.iter().map(|w| w.to_string()).collect());
        Ok(())
    },
    print: |value| value.as_ref().map_or(Printed::Nothing, |words| print_list(words)),
};

const PATTERNS: Codec<Vec<String>> = Codec {
    list: true,
    read: |patterns, given| {
        let good = |w: &str| {
            (w.starts_with('/') || w.starts_with("%h/"))
                && !w.contains(char::is_whitespace)
                && is_one_path(w)
                && without_others(w)
        };
        let what = "a path that begins with / or %h/, with no other % than %u, without blanks and with blanks alone before the next";
        read_list(patterns, given.operator, given.words, |w| {
            if good(w) { Ok(vec![w.to_string()]) } else { Err(expected(what, w)) }
        })
    },
    print: |patterns| print_list(patterns),
};

/// Is each `%` one of a sign that stands for something? `%h` is one at the beginning alone.
fn without_others(pattern: &str) -> bool {
    let rest = pattern.strip_prefix("%h").unwrap_or(pattern);
    rest.split('%').skip(1).all(|after| after.starts_with('u'))
}

/// Files of other programs. They are printed as the rows that were read from them.
const FILES: Codec<Vec<String>> = Codec {
    list: true,
    read: |files, given| {
        read_list(files, given.operator, given.words, |w| {
            if !is_one_path(w) {
                return Err(expected("absolute paths with blanks between them", w));
            }
            path(w).map(|p| vec![p]).map_err(|wrong| wrong.what)
        })
    },
    print: |_| Printed::Nothing,
};

const LOG_TYPE: Codec<LogType> = Codec {
    list: false,
    read: |value, given| {
        *value = log_type(given.name, given.words)?;
        Ok(())
    },
    print: |value| Printed::Words(value.to_string()),
};

/// Reads a log type. `name`: the name of the setting.
fn log_type(name: &str, words: &[&str]) -> Result<LogType, Wrong> {
    const WHAT: &str = "STDERR, `SYSLOG facility [level]` or `FILE path`";
    let none = || Wrong::new(name, format!("expected {WHAT}, found no value"));
    let first = words.first().ok_or_else(none)?;
    let at = |all: &[&str], w: &str| {
        let found = all.iter().position(|n| n.eq_ignore_ascii_case(w)).map(|i| i as u8);
        found.ok_or_else(|| Wrong::expected(any_of(all.iter().copied()), w))
    };
    match (first.to_ascii_uppercase().as_str(), &words[1..]) {
        ("STDERR", []) => Ok(LogType::Stderr),
        ("SYSLOG", [facility]) => {
            Ok(LogType::Syslog { facility: at(&FACILITIES, facility)?, level: LogType::INFO })
        }
        ("SYSLOG", [facility, level]) => {
            Ok(LogType::Syslog { facility: at(&FACILITIES, facility)?, level: at(&LEVELS, level)? })
        }
        ("FILE", [file]) => Ok(LogType::File(path(file)?)),
        _ => Err(Wrong::expected(WHAT, &words.join(" "))),
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
            LogType::File(p) => write!(f, "FILE {}", quote(p)),
        }
    }
}
