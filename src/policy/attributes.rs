//! What a row may say of its service (fived.conf(5)); names and meanings are xinetd.conf(5)'s where
//! xinetd has them.

use super::Files;
use super::access::{self, Access};
use super::facts::{Hours, Users, Who, Whom};
use super::values::{Wrong, each, limit, number, octal, one, path, seconds, variable, yes};
use super::words::Word;
use std::sync::Arc;

/// Bytes of a banner's file at most.
pub const BANNER_MAX: usize = 16 * 1024;
/// Bytes of `reply` at most.
const REPLY_MAX: usize = 255;

/// Every attribute.
pub const NAMES: [&str; 35] = [
    "require",
    "users",
    "only_from",
    "no_access",
    "access_times",
    "instances",
    "per_source",
    "cps",
    "max_load",
    "nice",
    "umask",
    "rlimit_as",
    "rlimit_cpu",
    "rlimit_data",
    "rlimit_files",
    "rlimit_stack",
    "group",
    "groups",
    "env",
    "passenv",
    "directory",
    "chroot",
    "stderr",
    "no_new_privs",
    "lingering_close",
    "socket",
    "banner",
    "banner_success",
    "banner_fail",
    "reply",
    "hidden",
    "disable",
    "log_on_success",
    "log_on_failure",
    "server_timeout",
];

/// How a value is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    Set,
    Add,
    Remove,
}

impl Operator {
    pub fn read(word: &Word) -> Option<Operator> {
        match word.text.as_str() {
            _ if word.quoted => None,
            "=" => Some(Operator::Set),
            "+=" => Some(Operator::Add),
            "-=" => Some(Operator::Remove),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RlimitKind {
    As,
    Cpu,
    Data,
    Files,
    Stack,
}

/// Where descriptor 2 of a service goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stderr {
    Socket,
    Log,
    Null,
}

/// What the service of a connection that fived relays gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketKind {
    /// A TCP socket whose peer is the client, where the system allows it.
    Inet,
    /// One end of a Unix socket pair.
    Unix,
}

impl SocketKind {
    pub fn as_str(self) -> &'static str {
        match self {
            SocketKind::Inet => "inet",
            SocketKind::Unix => "unix",
        }
    }

    fn read(word: &Word) -> Result<SocketKind, (String, String)> {
        let all = [SocketKind::Inet, SocketKind::Unix];
        let found = all.into_iter().find(|k| word.text.eq_ignore_ascii_case(k.as_str()));
        found.ok_or_else(|| {
            (word.text.clone(), format!("expected inet or unix, found {:?}", word.text))
        })
    }
}

/// What the lines START and EXIT tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogSuccess {
    pub pid: bool,
    pub host: bool,
    pub userid: bool,
    pub exit: bool,
    pub duration: bool,
    pub traffic: bool,
}

impl LogSuccess {
    /// Is anything to be told at all?
    pub fn any(&self) -> bool {
        *self != LogSuccess::default()
    }
}

/// What the line REFUSE tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogFailure {
    pub host: bool,
    pub userid: bool,
    pub attempt: bool,
}

/// A file that is sent behind a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Banner {
    pub path: String,
    pub text: Arc<[u8]>,
}

/// Everything that a row may say, every default filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Attributes {
    pub require_tls: bool,
    pub require_login: bool,
    pub users: Users,
    pub access: Access,
    pub access_times: Vec<Hours>,
    /// Running at a time; None: no limit.
    pub instances: Option<u32>,
    /// Running at a time for one source.
    pub per_source: Option<u32>,
    /// Starts a second, and for how many seconds nobody is served above it.
    pub cps: Option<(u32, u32)>,
    pub max_load: Option<f64>,
    pub nice: i32,
    pub umask: u32,
    pub rlimits: Vec<(RlimitKind, u64)>,
    pub group: Option<String>,
    pub groups: bool,
    pub env: Vec<(String, String)>,
    pub passenv: Vec<String>,
    pub directory: Option<String>,
    pub chroot: Option<String>,
    pub stderr: Stderr,
    pub no_new_privs: bool,
    /// After the service has ended its client is heard out, so that what still comes is no reset
    /// for it.
    pub lingering_close: bool,
    pub socket: SocketKind,
    pub banner: Option<Banner>,
    pub banner_success: Option<Banner>,
    pub banner_fail: Option<Banner>,
    pub reply: String,
    pub hidden: bool,
    pub disable: bool,
    pub log_on_success: LogSuccess,
    pub log_on_failure: LogFailure,
    /// Seconds that a service may run.
    pub server_timeout: Option<u32>,
}

impl Default for Attributes {
    fn default() -> Self {
        Attributes {
            require_tls: false,
            require_login: false,
            users: Users::default(),
            access: Access::default(),
            access_times: Vec::new(),
            instances: None,
            per_source: None,
            cps: None,
            max_load: None,
            nice: 0,
            umask: 0o022,
            rlimits: Vec::new(),
            group: None,
            groups: true,
            env: Vec::new(),
            passenv: Vec::new(),
            directory: None,
            chroot: None,
            stderr: Stderr::Socket,
            no_new_privs: false,
            lingering_close: false,
            socket: SocketKind::Inet,
            banner: None,
            banner_success: None,
            banner_fail: None,
            reply: "Go".into(),
            hidden: false,
            disable: false,
            log_on_success: LogSuccess {
                pid: true,
                host: true,
                exit: true,
                duration: true,
                userid: false,
                traffic: false,
            },
            log_on_failure: LogFailure { host: true, userid: false, attempt: false },
            server_timeout: None,
        }
    }
}

/// What reading a value needs besides its words.
pub struct Context<'a> {
    pub files: &'a mut dyn Files,
    /// The groups that the table has named so far.
    pub groups: &'a mut Vec<String>,
}

impl Attributes {
    /// What fived itself sends when the service is started; empty where the service answers for
    /// itself.
    pub fn greeting(&self, announce: bool) -> Vec<u8> {
        if !announce {
            return Vec::new();
        }
        let text = |b: &Option<Banner>| b.as_ref().map_or(Arc::default(), |b| b.text.clone());
        [b"+", self.reply.as_bytes(), b"\r\n", &text(&self.banner), &text(&self.banner_success)]
            .concat()
    }

    /// What follows `busy` and `failed`.
    pub fn tail(&self) -> Vec<u8> {
        [&self.banner, &self.banner_fail]
            .into_iter()
            .flatten()
            .flat_map(|b| b.text.iter().copied())
            .collect()
    }

    /// Sets one. None: there is no such attribute. Err: every word that is wrong.
    pub fn set(
        &mut self,
        name: &str,
        op: Operator,
        words: &[Word],
        cx: &mut Context,
    ) -> Option<Result<(), Wrong>> {
        if !NAMES.contains(&name) {
            return None;
        }
        Some(self.try_set(name, op, words, cx))
    }

    fn try_set(
        &mut self,
        name: &str,
        op: Operator,
        words: &[Word],
        cx: &mut Context,
    ) -> Result<(), Wrong> {
        let list = matches!(
            name,
            "require"
                | "users"
                | "only_from"
                | "no_access"
                | "access_times"
                | "env"
                | "passenv"
                | "log_on_success"
                | "log_on_failure"
        );
        if op != Operator::Set && !list {
            return Err(
                (name.to_string(), "takes one value; `=` would be right".to_string()).into()
            );
        }
        match name {
            "require" => flags(
                op,
                words,
                &mut [("tls", &mut self.require_tls), ("login", &mut self.require_login)],
            )?,
            "users" => {
                let any = !self.users.0.is_empty();
                edit(op, &mut self.users.0, each(words, |w| who(w, cx.groups).map(|w| vec![w]))?);
                // Without names it is open to who is nobody: that is said, not left over.
                if op == Operator::Remove && any && self.users.0.is_empty() {
                    return Err((
                        name.to_string(),
                        "nobody is left of it; `users =` would be right for everybody".to_string(),
                    )
                        .into());
                }
            }
            "only_from" => {
                edit(op, self.access.only_from.get_or_insert_default(), each(words, access::read)?)
            }
            "no_access" => edit(op, &mut self.access.no_access, each(words, access::read)?),
            "access_times" => {
                let hours = each(words, |w| {
                    Hours::read(w)
                        .map(|h| vec![h])
                        .ok_or_else(|| "not a span of hours; HH:MM-HH:MM would be right".into())
                })?;
                edit(op, &mut self.access_times, hours);
            }
            "instances" => self.instances = limit(one(name, words)?)?,
            "per_source" => self.per_source = limit(one(name, words)?)?,
            "cps" => self.cps = cps(name, words)?,
            "max_load" => self.max_load = load(one(name, words)?)?,
            "nice" => self.nice = number(one(name, words)?, -20..=19)? as i32,
            "umask" => self.umask = octal(one(name, words)?)?,
            "rlimit_as" => self.rlimit(RlimitKind::As, one(name, words)?)?,
            "rlimit_cpu" => self.rlimit(RlimitKind::Cpu, one(name, words)?)?,
            "rlimit_data" => self.rlimit(RlimitKind::Data, one(name, words)?)?,
            "rlimit_files" => self.rlimit(RlimitKind::Files, one(name, words)?)?,
            "rlimit_stack" => self.rlimit(RlimitKind::Stack, one(name, words)?)?,
            "group" => self.group = Some(one(name, words)?.text.clone()),
            "groups" => self.groups = yes(one(name, words)?)?,
            "env" => self.edit_env(op, words)?,
            "passenv" => edit(
                op,
                &mut self.passenv,
                each(words, |w| variable(w).map(|()| vec![w.to_string()]))?,
            ),
            "directory" => self.directory = Some(path(one(name, words)?)?),
            "chroot" => self.chroot = Some(path(one(name, words)?)?),
            "stderr" => self.stderr = stderr(one(name, words)?)?,
            "no_new_privs" => self.no_new_privs = yes(one(name, words)?)?,
            "lingering_close" => self.lingering_close = yes(one(name, words)?)?,
            "socket" => self.socket = SocketKind::read(one(name, words)?)?,
            "banner" => self.banner = banner(one(name, words)?, cx.files)?,
            "banner_success" => self.banner_success = banner(one(name, words)?, cx.files)?,
            "banner_fail" => self.banner_fail = banner(one(name, words)?, cx.files)?,
            "reply" => self.reply = reply(name, words)?,
            "hidden" => self.hidden = yes(one(name, words)?)?,
            "disable" => self.disable = yes(one(name, words)?)?,
            "log_on_success" => {
                let l = &mut self.log_on_success;
                let flag = &mut [
                    ("PID", &mut l.pid),
                    ("HOST", &mut l.host),
                    ("USERID", &mut l.userid),
                    ("EXIT", &mut l.exit),
                    ("DURATION", &mut l.duration),
                    ("TRAFFIC", &mut l.traffic),
                ];
                flags(op, words, flag)?;
            }
            "log_on_failure" => {
                let l = &mut self.log_on_failure;
                flags(
                    op,
                    words,
                    &mut [
                        ("HOST", &mut l.host),
                        ("USERID", &mut l.userid),
                        ("ATTEMPT", &mut l.attempt),
                    ],
                )?;
            }
            _ => self.server_timeout = time_limit(one(name, words)?)?,
        }
        Ok(())
    }

    fn rlimit(&mut self, kind: RlimitKind, word: &Word) -> Result<(), (String, String)> {
        self.rlimits.retain(|(k, _)| *k != kind);
        if word.text.eq_ignore_ascii_case("UNLIMITED") {
            self.rlimits.push((kind, u64::MAX));
            return Ok(());
        }
        let text = word.text.as_str();
        let (digits, unit) = match text.as_bytes().last() {
            Some(b'K' | b'k') => (&text[..text.len() - 1], 1 << 10),
            Some(b'M' | b'm') => (&text[..text.len() - 1], 1 << 20),
            _ => (text, 1),
        };
        let n = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit));
        let n = n.ok_or_else(|| {
            (
                text.to_string(),
                "not a limit; a number, perhaps with K or M, or UNLIMITED would be right"
                    .to_string(),
            )
        })?;
        self.rlimits.push((kind, n));
        Ok(())
    }

    fn edit_env(&mut self, op: Operator, words: &[Word]) -> Result<(), Wrong> {
        let pair = |w: &str| {
            let (name, value) = match w.split_once('=') {
                Some(pair) => pair,
                None if op == Operator::Remove => (w, ""),
                None => return Err("no value; NAME=value would be right".into()),
            };
            variable(name).map(|()| vec![(name.to_string(), value.to_string())])
        };
        let pairs = each(words, pair)?;
        if op == Operator::Set {
            self.env.clear();
        }
        self.env.retain(|(k, _)| !pairs.iter().any(|(name, _)| name == k));
        if op != Operator::Remove {
            self.env.extend(pairs);
        }
        Ok(())
    }
}

fn edit<T: PartialEq>(op: Operator, list: &mut Vec<T>, values: Vec<T>) {
    match op {
        Operator::Set => *list = values,
        Operator::Add => list.extend(values),
        Operator::Remove => list.retain(|v| !values.contains(v)),
    }
}

fn flags(op: Operator, words: &[Word], all: &mut [(&str, &mut bool)]) -> Result<(), Wrong> {
    if op == Operator::Set {
        all.iter_mut().for_each(|(_, f)| **f = false);
    }
    let set = |w: &str| match all.iter_mut().find(|(n, _)| n.eq_ignore_ascii_case(w)) {
        Some((_, f)) => {
            **f = op != Operator::Remove;
            Ok(vec![()])
        }
        None => {
            let names: Vec<&str> = all.iter().map(|(n, _)| *n).collect();
            Err(format!("unknown; {} would be right", names.join(", ")))
        }
    };
    each(words, set).map(drop)
}

fn who(word: &str, groups: &mut Vec<String>) -> Result<Who, String> {
    let (no, name) = word.strip_prefix('!').map_or((false, word), |name| (true, name));
    let what = match name.strip_prefix('@') {
        _ if name.is_empty() || name == "@" => {
            return Err("no name; a user, @group, !user or !@group would be right".into());
        }
        None => Whom::Name(name.into()),
        Some(group) => {
            let at = groups.iter().position(|g| g == group).unwrap_or_else(|| {
                groups.push(group.into());
                groups.len() - 1
            });
            if at >= super::facts::GROUPS_MAX {
                return Err(format!("more than {} groups in one table", super::facts::GROUPS_MAX));
            }
            Whom::Group(group.into(), at)
        }
    };
    Ok(Who { no, what })
}

/// A time; None: UNLIMITED.
fn time_limit(word: &Word) -> Result<Option<u32>, (String, String)> {
    if word.text.eq_ignore_ascii_case("UNLIMITED") {
        Ok(None)
    } else {
        seconds(word, 1..=u32::MAX).map(Some)
    }
}

fn cps(name: &str, words: &[Word]) -> Result<Option<(u32, u32)>, Wrong> {
    const RIGHT: &str = "not a rate; `RATE`, `RATE SECONDS` or UNLIMITED would be right";
    let rate = |w: &Word| {
        w.text
            .parse()
            .ok()
            .filter(|&n: &u32| n > 0)
            .ok_or_else(|| Wrong::from((w.text.clone(), RIGHT.to_string())))
    };
    match words {
        [w] if w.text.eq_ignore_ascii_case("UNLIMITED") => Ok(None),
        [n] => Ok(Some((rate(n)?, 10))),
        [n, time] => match (rate(n), seconds(time, 1..=u32::MAX)) {
            (Ok(n), Ok(time)) => Ok(Some((n, time))),
            (n, time) => {
                Err(Wrong(n.err().into_iter().flat_map(|w| w.0).chain(time.err()).collect()))
            }
        },
        _ => Err((name.to_string(), RIGHT.to_string()).into()),
    }
}

fn load(word: &Word) -> Result<Option<f64>, (String, String)> {
    if word.text.eq_ignore_ascii_case("UNLIMITED") {
        return Ok(None);
    }
    let n = word.text.parse().ok().filter(|n: &f64| n.is_finite() && *n > 0.0);
    n.map(Some).ok_or_else(|| {
        (
            word.text.clone(),
            "not a load average; a number such as 2.5, or UNLIMITED, would be right".into(),
        )
    })
}

fn stderr(word: &Word) -> Result<Stderr, (String, String)> {
    match word.text.as_str() {
        "socket" => Ok(Stderr::Socket),
        "log" => Ok(Stderr::Log),
        "null" => Ok(Stderr::Null),
        _ => Err((word.text.clone(), "unknown; socket, log or null would be right".into())),
    }
}

fn banner(word: &Word, files: &mut dyn Files) -> Result<Option<Banner>, (String, String)> {
    let path = path(word)?;
    let text = files.read(&path).map_err(|e| (path.clone(), e))?;
    if text.len() > BANNER_MAX {
        return Err((path, format!("{} bytes; a banner has at most {BANNER_MAX}", text.len())));
    }
    Ok(Some(Banner { path, text: text.into() }))
}

fn reply(name: &str, words: &[Word]) -> Result<String, (String, String)> {
    let text = words.iter().map(|w| w.text.as_str()).collect::<Vec<_>>().join(" ");
    let bad = |w: &&Word| !w.text.bytes().all(|b| (b' '..=b'~').contains(&b));
    let word = words
        .iter()
        .find(bad)
        .map(|w| w.text.clone())
        .or((text.len() > REPLY_MAX).then(|| name.to_string()));
    match word {
        Some(word) => Err((
            word,
            format!("not a reply; at most {REPLY_MAX} printable characters would be right"),
        )),
        None => Ok(text),
    }
}
