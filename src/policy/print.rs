//! `-T`: the effective table, every default filled in, in the file's own grammar: read again, it is
//! the same table.

use super::attributes::{Attributes, Banner, RlimitKind, Stderr};
use super::rows::{Program, Service, UserSpec};
use super::table::{HostId, HostScope, Table};
use super::words::quote;
use std::collections::HashSet;
use std::fmt::Write;

impl Table {
    pub fn print(&self) -> String {
        let mut out = String::new();
        self.settings(&mut out);
        self.rows(&mut out, &HashSet::new());
        out
    }

    /// The same grammar, and as short as can be: what every row has anyhow is left out. Services,
    /// hosts and groups have the same numbers when it is read.
    pub(super) fn print_short(&self) -> String {
        let mut out = String::new();
        self.settings(&mut out);
        // A group's number is its place among those that the text names.
        put(
            &mut out,
            format_args!(
                "users ={}\nusers =\n",
                self.groups()
                    .iter()
                    .map(|g| format!(" {}", quote(&format!("@{g}"))))
                    .collect::<String>()
            ),
        );
        let mut usual = String::new();
        if let Some(s) = self.services().first() {
            attributes(&mut usual, s, &Attributes::default());
        }
        let usual: HashSet<&str> = usual.lines().filter(|l| !l.starts_with("\trequire ")).collect();
        self.rows(&mut out, &usual);
        out
    }

    /// The rows below their headings, without lines that are `usual`.
    fn rows(&self, out: &mut String, usual: &HashSet<&str>) {
        let (mut told, mut scope) = (HostId::DEFAULT, HostScope::Host(HostId::DEFAULT));
        // The sections as they follow each other in the file, for HELP has that order.
        for s in self.services() {
            match s.host {
                same if same == scope => {}
                HostScope::All => out.push_str("\n[*]\n"),
                HostScope::Host(id) => self.headings(out, &mut told, id),
            }
            scope = s.host;
            row(out, s);
            let mut lines = String::new();
            attributes(&mut lines, s, &s.attributes);
            lines
                .split_inclusive('\n')
                .filter(|l| !usual.contains(l.trim_end_matches('\n')))
                .for_each(|l| out.push_str(l));
        }
        self.headings(out, &mut told, HostId(self.hosts().len() as u32 - 1));
    }

    /// The sections behind the last that was told, up to this one.
    fn headings(&self, out: &mut String, told: &mut HostId, last: HostId) {
        for h in self.hosts().iter().take(last.0 as usize + 1).skip(told.0 as usize + 1) {
            put(out, format_args!("\n[{}]\n", h.names.join(" ")));
            for (key, value) in [("certificate", &h.certificate), ("key", &h.key)] {
                if let Some(v) = value {
                    put(out, format_args!("{key} = {}\n", quote(v)));
                }
            }
        }
        *told = last;
    }

    fn settings(&self, out: &mut String) {
        let s = &self.settings;
        let mut line = |key: &str, value: String| put(out, format_args!("{key} = {value}\n"));
        let list = |all: &[String]| all.iter().map(|w| quote(w)).collect::<Vec<_>>().join(" ");
        line("listen", s.listen.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
        for (key, value) in [
            ("user", &s.user),
            ("certificate", &s.certificate),
            ("key", &s.key),
            ("passwords", &s.passwords),
            ("pam", &s.pam),
            ("state_directory", &s.state_directory),
        ] {
            if let Some(v) = value {
                line(key, quote(v));
            }
        }
        line("pam_account", yes(s.account_service().is_some()));
        if let Some(v) = &s.checkpassword {
            line("checkpassword", v.iter().map(|w| quote(w)).collect::<Vec<_>>().join(" "));
        }
        line("authorized_keys", list(&s.authorized_keys));
        line("plaintext_login", yes(s.plaintext_login));
        for (key, value) in [
            ("request_timeout", s.request_timeout),
            ("login_timeout", s.login_timeout),
            ("keepalive", s.keepalive),
            ("shutdown_timeout", s.shutdown_timeout),
        ] {
            line(key, value.as_secs().to_string());
        }
        for (key, value) in [
            ("login_tries", s.login_tries),
            ("pubkey_tries", s.pubkey_tries),
            ("max_connections", s.max_connections),
            ("max_sessions", s.max_sessions),
            ("max_sessions_per_source", s.max_sessions_per_source),
            ("max_services", s.max_services),
            ("max_services_per_source", s.max_services_per_source),
            ("max_streams", s.max_streams),
            ("max_streams_anonymous", s.max_streams_anonymous),
        ] {
            line(key, value.to_string());
        }
        line("log_type", s.log_type.to_string());
        line("mptcp", yes(s.mptcp));
    }
}

fn put(out: &mut String, text: std::fmt::Arguments) {
    // Writing to a string cannot fail.
    let _ = out.write_fmt(text);
}

fn yes(b: bool) -> String {
    if b { "yes".into() } else { "no".into() }
}

fn row(out: &mut String, s: &Service) {
    let name = if s.announce { quote(&s.name) } else { format!("tcpmux/{}", quote(&s.name)) };
    let wait = match (s.per_minute, s.per_source_minute) {
        (Some(n), _) => format!("nowait:{n}"),
        // The other limits stand below as attributes.
        (None, Some(n)) => format!("nowait/0/{n}"),
        (None, None) => "nowait".into(),
    };
    let user = match &s.user {
        UserSpec::Login => "*".into(),
        UserSpec::Named { user, group: None } => quote(user),
        UserSpec::Named { user, group: Some(g) } => quote(&format!("{user}:{g}")),
    };
    let program = match &s.program {
        Program::Path(p) => quote(p),
        Program::Internal(i) => format!("internal {}", i.as_str()),
    };
    put(out, format_args!("\n{name} stream {} {wait} {user} {program}", s.family.protocol()));
    if let Program::Path(_) = s.program {
        s.arguments.iter().for_each(|a| put(out, format_args!(" {}", quote(a))));
    }
    out.push('\n');
}

fn attributes(out: &mut String, s: &Service, a: &Attributes) {
    let mut line = |key: &str, value: String| {
        put(out, format_args!("\t{key} ={}{value}\n", if value.is_empty() { "" } else { " " }))
    };
    let limit = |n: Option<u32>| n.map_or("UNLIMITED".into(), |n| n.to_string());
    let words = |all: &[(&str, bool)]| {
        all.iter().filter(|(_, on)| *on).map(|(n, _)| *n).collect::<Vec<_>>().join(" ")
    };
    fn all<T: ToString>(list: &[T]) -> String {
        list.iter().map(|v| quote(&v.to_string())).collect::<Vec<_>>().join(" ")
    }
    line("require", words(&[("tls", a.require_tls), ("login", s.needs_login())]));
    line("users", all(&a.users.0));
    line("only_from", a.access.only_from.as_ref().map_or("0.0.0.0/0 ::/0".into(), |l| all(l)));
    line("no_access", all(&a.access.no_access));
    line("access_times", all(&a.access_times));
    line("instances", limit(a.instances));
    line("per_source", limit(a.per_source));
    line("cps", a.cps.map_or("UNLIMITED".into(), |(rate, s)| format!("{rate} {s}")));
    line("max_load", a.max_load.map_or("UNLIMITED".into(), |l| l.to_string()));
    line("nice", a.nice.to_string());
    line("umask", format!("{:03o}", a.umask));
    for (kind, n) in &a.rlimits {
        let name = match kind {
            RlimitKind::As => "rlimit_as",
            RlimitKind::Cpu => "rlimit_cpu",
            RlimitKind::Data => "rlimit_data",
            RlimitKind::Files => "rlimit_files",
            RlimitKind::Stack => "rlimit_stack",
        };
        line(name, if *n == u64::MAX { "UNLIMITED".into() } else { n.to_string() });
    }
    if let Some(g) = &a.group {
        line("group", quote(g));
    }
    line("groups", yes(a.groups));
    line(
        "env",
        a.env.iter().map(|(k, v)| format!("{k}={}", quote(v))).collect::<Vec<_>>().join(" "),
    );
    line("passenv", all(&a.passenv));
    for (key, value) in [
        ("directory", a.directory.as_deref().or((s.user != UserSpec::Login).then_some("/"))),
        ("chroot", a.chroot.as_deref()),
    ] {
        if let Some(v) = value {
            line(key, quote(v));
        }
    }
    line(
        "stderr",
        match a.stderr {
            Stderr::Socket => "socket".into(),
            Stderr::Log => "log".into(),
            Stderr::Null => "null".into(),
        },
    );
    line("no_new_privs", yes(a.no_new_privs));
    line("lingering_close", yes(a.lingering_close));
    line("socket", a.socket.as_str().into());
    let banner = |b: &Option<Banner>| b.as_ref().map(|b| quote(&b.path));
    for (key, value) in [
        ("banner", banner(&a.banner)),
        ("banner_success", banner(&a.banner_success)),
        ("banner_fail", banner(&a.banner_fail)),
    ] {
        if let Some(v) = value {
            line(key, v);
        }
    }
    line("reply", if a.reply.is_empty() { String::new() } else { quote(&a.reply) });
    line("hidden", yes(a.hidden));
    line("disable", yes(a.disable));
    let (l, f) = (&a.log_on_success, &a.log_on_failure);
    line(
        "log_on_success",
        words(&[
            ("PID", l.pid),
            ("HOST", l.host),
            ("USERID", l.userid),
            ("EXIT", l.exit),
            ("DURATION", l.duration),
            ("TRAFFIC", l.traffic),
        ]),
    );
    line(
        "log_on_failure",
        words(&[("HOST", f.host), ("USERID", f.userid), ("ATTEMPT", f.attempt)]),
    );
    line("server_timeout", limit(a.server_timeout));
}
