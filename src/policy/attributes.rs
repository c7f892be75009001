//! The attributes of a row (fived.conf(5)). Names and meanings are those of xinetd.conf(5) where
//! xinetd has them. To add an attribute, add its entry to [`ATTRIBUTES`].

use super::access::Access;
use super::banner::Banner;
use super::client_pattern::ClientPattern;
use super::endpoint::{Endpoint, Owner, Port};
use super::hours::Hours;
use super::libwrap::Libwrap;
use super::text::codecs::{
    BACKLOG, BANNER, CLIENT_PATTERNS, CPS, DENY_TIME, ENV, HOURS, LIBWRAP, LOAD, MODE, NICE,
    OFFERED_BY, ONLY_FROM, OWNER, PASSENV, PORTS, PROXY, REPLY, RLIMIT, RLIMIT_CPU, RLIMIT_FILES,
    UMASK, USERS,
};
use super::text::entry::entries;
use super::text::value::{
    Choice, Flags, LIMIT, PATH, TIME_LIMIT, WORD, YES_NO, choice, flags, time,
};
use super::users::{UserSpec, Users};
use crate::wire::proxy::Version as ProxyVersion;
use crate::wire::reply;
use std::sync::Arc;
use std::time::Duration;

entries! {
    /// All attributes of a row, every default filled in.
    pub struct Attributes, ATTRIBUTES {
        require: Require = Require::default(), flags(), Net;
        users: Users = Users::default(), USERS, Net;
        /// None: from everywhere.
        only_from: Option<Vec<ClientPattern>> = None, ONLY_FROM, Net;
        no_access: Vec<ClientPattern> = Vec::new(), CLIENT_PATTERNS, Net;
        /// Empty: always.
        access_times: Vec<Hours> = Vec::new(), HOURS, Net;
        /// Seconds for which a sensor has a client refused; None: until fived ends.
        deny_time: Option<u32> = Some(0), DENY_TIME, Parent;
        libwrap: Libwrap = Libwrap::No, LIBWRAP, Parent;
        /// Running at a time; None: no limit.
        instances: Option<u32> = None, LIMIT, Parent;
        /// Running at a time for one source; None: no limit.
        per_source: Option<u32> = None, LIMIT, Parent;
        /// Starts a second, and for how many seconds nobody is served after more than that.
        cps: Option<(u32, u32)> = None, CPS, Parent;
        /// Load average above which nobody is served.
        max_load: Option<f64> = None, LOAD, Parent;
        nice: i32 = 0, NICE, Parent;
        umask: u32 = 0o022, UMASK, Parent;
        /// Bytes, like all of these except `rlimit_cpu` (seconds) and `rlimit_files` (descriptors).
        /// None: the same as fived's own; `u64::MAX`: unlimited.
        rlimit_as: Option<u64> = None, RLIMIT, Parent;
        rlimit_cpu: Option<u64> = None, RLIMIT_CPU, Parent;
        rlimit_data: Option<u64> = None, RLIMIT, Parent;
        rlimit_files: Option<u64> = None, RLIMIT_FILES, Parent;
        rlimit_stack: Option<u64> = None, RLIMIT, Parent;
        group: Option<String> = None, WORD, Parent;
        /// Does the service get its user's supplementary groups?
        groups: bool = true, YES_NO, Parent;
        env: Vec<(String, String)> = Vec::new(), ENV, Parent;
        /// Variables of fived's own environment that the service gets.
        passenv: Vec<String> = Vec::new(), PASSENV, Parent;
        /// None: the home directory of the user who logged in.
        directory: Option<String> = None, PATH, Parent;
        chroot: Option<String> = None, PATH, Parent;
        stderr: Stderr = Stderr::Socket, choice(), Parent;
        /// May a client have it on a terminal (RUN)?
        pty: bool = false, YES_NO, Parent;
        no_new_privs: bool = false, YES_NO, Parent;
        /// After the service has ended, does fived read and discard what the client still sends, so
        /// that the client sees no reset?
        lingering_close: bool = false, YES_NO, Parent;
        /// Ports where clients reach it without a request.
        port: Vec<Port> = Vec::new(), PORTS, Parent;
        /// Ports where clients reach it after a TLS handshake.
        tls_port: Vec<Port> = Vec::new(), PORTS, Net;
        /// Is it reached by its name, too?
        tcpmux: bool = true, YES_NO, Net;
        /// Connections that wait at its ports; None: as many as the system allows.
        backlog: Option<u32> = None, BACKLOG, Parent;
        /// Of its Unix sockets: who may connect.
        socket_mode: u32 = 0o666, MODE, Parent;
        /// None: the user and group that fived runs as.
        socket_owner: Option<Owner> = None, OWNER, Parent;
        socket: SocketKind = SocketKind::Inet, choice(), Parent;
        /// How long each upstream of a redirected service may take to accept a connection.
        connect_timeout: Duration = Duration::from_secs(5), time::<1>(), Parent;
        /// Who may offer the service; empty: nobody.
        offered_by: Users = Users::default(), OFFERED_BY, Net;
        /// What an upstream is told of the client, before anything else; None: nothing.
        proxy: Option<ProxyVersion> = None, PROXY, Parent;
        banner: Option<Banner> = None, BANNER, Net;
        /// Only the parent sends it.
        banner_success: Option<Banner> = None, BANNER, Parent;
        banner_fail: Option<Banner> = None, BANNER, Net;
        reply: String = "Go".into(), REPLY, Parent;
        hidden: bool = false, YES_NO, Net;
        disable: bool = false, YES_NO, Net;
        log_on_success: LogSuccess = LogSuccess::USUAL, flags(), Parent;
        log_on_failure: LogFailure = LogFailure::USUAL, flags(), Parent;
        /// Seconds that a service may run.
        server_timeout: Option<u32> = None, TIME_LIMIT, Parent;
    }
}

impl Attributes {
    /// Fills in the attributes whose defaults depend on others, on the user that the service runs
    /// as, and on how it is reached.
    pub fn of_row(mut self, user: &UserSpec, endpoint: &Endpoint) -> Attributes {
        if endpoint.has_ports_alone() {
            self.tcpmux = false;
        }
        let named = *user != UserSpec::Login;
        self.require.login |= !named || !self.users.0.is_empty();
        if named {
            self.directory.get_or_insert_with(|| "/".into());
        }
        self
    }

    /// The rules on clients' addresses.
    pub fn access(&self) -> Access<'_> {
        Access { only_from: self.only_from.as_deref(), no_access: &self.no_access }
    }

    /// The resource limits that are set.
    pub fn rlimits(&self) -> impl Iterator<Item = (RlimitKind, u64)> {
        let all = [
            (RlimitKind::As, self.rlimit_as),
            (RlimitKind::Cpu, self.rlimit_cpu),
            (RlimitKind::Data, self.rlimit_data),
            (RlimitKind::Files, self.rlimit_files),
            (RlimitKind::Stack, self.rlimit_stack),
        ];
        all.into_iter().filter_map(|(kind, limit)| Some((kind, limit?)))
    }

    /// What fived itself sends before the service starts. It is empty if the program sends the
    /// reply line (`announce` is false).
    pub fn greeting(&self, announce: bool) -> Vec<u8> {
        if !announce {
            return Vec::new();
        }
        [reply::ACCEPTED, self.reply.as_bytes(), b"\r\n", &self.welcome()].concat()
    }

    /// What fived itself sends before the service starts at a port of its own: only the banners.
    pub fn welcome(&self) -> Vec<u8> {
        let text = |b: &Option<Banner>| b.as_ref().map_or(Arc::default(), |b| b.text.clone());
        [&*text(&self.banner), &*text(&self.banner_success)].concat()
    }

    /// The banners that follow the replies `busy` and `failed`.
    pub fn tail(&self) -> Vec<u8> {
        [&self.banner, &self.banner_fail]
            .into_iter()
            .flatten()
            .flat_map(|b| b.text.iter().copied())
            .collect()
    }

    /// May a plain connection stay open for a while after fived has sent its last byte?
    pub fn may_linger(&self) -> bool {
        self.lingering_close || self.banner.is_some() || self.banner_fail.is_some()
    }
}

/// What a session must be to use the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Require {
    /// Encrypted.
    pub tls: bool,
    /// Logged in. A row with `users`, or that runs as `*`, implies it.
    pub login: bool,
}

impl Flags for Require {
    fn flags(&mut self) -> Vec<(&'static str, &mut bool)> {
        vec![("tls", &mut self.tls), ("login", &mut self.login)]
    }
}

/// A resource limit (setrlimit(2)).
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

impl Choice for Stderr {
    const ALL: &'static [(Stderr, &'static str)] =
        &[(Stderr::Socket, "socket"), (Stderr::Log, "log"), (Stderr::Null, "null")];
}

/// The kind of socket that a service gets whose connection fived relays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketKind {
    /// A TCP socket whose peer is the client, where the system allows it.
    Inet,
    /// One end of a Unix socket pair.
    Unix,
}

impl Choice for SocketKind {
    const ALL: &'static [(SocketKind, &'static str)] =
        &[(SocketKind::Inet, "inet"), (SocketKind::Unix, "unix")];
}

/// What the log lines START and EXIT contain.
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
    const USUAL: LogSuccess = LogSuccess {
        pid: true,
        host: true,
        userid: false,
        exit: true,
        duration: true,
        traffic: false,
    };

    /// Are there such lines at all?
    pub fn any(&self) -> bool {
        *self != LogSuccess::default()
    }
}

impl Flags for LogSuccess {
    fn flags(&mut self) -> Vec<(&'static str, &mut bool)> {
        vec![
            ("PID", &mut self.pid),
            ("HOST", &mut self.host),
            ("USERID", &mut self.userid),
            ("EXIT", &mut self.exit),
            ("DURATION", &mut self.duration),
            ("TRAFFIC", &mut self.traffic),
        ]
    }
}

/// What the log line REFUSE contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogFailure {
    pub host: bool,
    pub userid: bool,
    pub attempt: bool,
}

impl LogFailure {
    const USUAL: LogFailure = LogFailure { host: true, userid: false, attempt: false };
}

impl Flags for LogFailure {
    fn flags(&mut self) -> Vec<(&'static str, &mut bool)> {
        vec![("HOST", &mut self.host), ("USERID", &mut self.userid), ("ATTEMPT", &mut self.attempt)]
    }
}
