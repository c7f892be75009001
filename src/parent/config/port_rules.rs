//! The mistakes that concern all ports of a row: what cannot be together; and a warning.

use crate::policy::{
    Access, Backend, Family, Grammar, Libwrap, ProgramSocket, Service, ServiceId, Table, UserSpec,
};

/// Reports them, one line each. A row of inetd.conf or xinetd.conf that has one is right there, but
/// fived does not serve it: it is switched off. One that is switched off already may be anything.
/// A warning about others follows.
pub fn check(table: &mut Table, wrong: &mut Vec<String>, warnings: &mut Vec<String>) {
    let mut off = Vec::new();
    for (n, s) in table.services().iter().enumerate().filter(|(_, s)| !s.attributes.disable) {
        for (word, what) in mistakes(s) {
            let at = format!("{}: {word}", s.place(word, |_| true));
            if s.grammar == Grammar::Fived {
                wrong.push(format!("{at}: {what}"));
            } else {
                warnings.push(format!("{at}: not served: {what}"));
                off.push(ServiceId(n as u32));
            }
        }
    }
    off.into_iter().for_each(|id| table.switch_off(id));
    warnings.extend(behind_balancers(table));
}

/// Those of a row that is served, each with the word that is wrong.
fn mistakes(s: &Service) -> Vec<(&str, String)> {
    let a = &*s.attributes;
    let mut wrong = Vec::new();
    if let Some(what) = waits_for_no_program(s) {
        // What else is wrong with it depends on what it is meant to be.
        return vec![(&*s.name, what)];
    }
    if !a.tcpmux && a.port.is_empty() && a.tls_port.is_empty() {
        let what = if s.endpoint.family == Family::Unix {
            "expected `port = /path` (a row of `unix` is reached at its paths alone)"
        } else if s.endpoint.socket.waits() {
            "expected a `port` (a row of `wait` is reached at its ports alone)"
        } else {
            "expected a `port` (with `tcpmux = no` there is no other way to it)"
        };
        wrong.push((&*s.name, format!("{what}, found none")));
    }
    wait_rules(s, &mut wrong);
    if s.endpoint.socket.waits() && !a.tls_port.is_empty() {
        let what = "expected a row of `nowait`, found one of `wait`: its program accepts by itself";
        wrong.push(("tls_port", what.to_string()));
    }
    if s.endpoint.family == Family::Unix {
        if s.endpoint.socket.waits() && (a.require.tls || s.needs_login()) {
            let what =
                "expected a row that everybody may use (the program of `wait` accepts by itself)";
            let what = format!("{what}, found {}", restriction(s));
            wrong.push((&*s.name, what));
        }
    } else if !a.port.is_empty() && (a.require.tls || s.needs_login()) {
        let what = "expected a row that everybody may use (nobody logs in or encrypts at a port of its own)";
        let what = format!("{what}, found {}", restriction(s));
        wrong.push((&*s.name, what));
    } else if !a.tls_port.is_empty() && s.needs_login() {
        let what = "expected a row that needs no login, for nobody logs in at a port of its own";
        let what = format!("{what}, found {}", restriction(s));
        wrong.push((&*s.name, what));
    }
    wrong
}

/// What keeps some from a row, and where that is written: perhaps among the defaults, far away.
fn restriction(s: &Service) -> String {
    let row = format!("{}:{}", s.file, s.line);
    let given = |attribute| Some(s.place(attribute, |_| true)).filter(|at| *at != row);
    let of = |attribute| given(attribute).map(|at| format!("`{attribute}` at {at}"));
    match &s.user {
        UserSpec::Login => "the user `*`".into(),
        _ => of("users").or_else(|| of("require")).unwrap_or_else(|| "`require`".into()),
    }
}

/// Rows whose programs accept what load balancers connect, one line each.
fn behind_balancers(table: &Table) -> impl Iterator<Item = String> {
    let balanced = !table.settings.proxy_from.is_empty();
    let accepts = move |s: &&Service| {
        let endpoint = &s.endpoint;
        let by_itself = endpoint.socket == ProgramSocket::Listener && !s.attributes.disable;
        balanced && by_itself && endpoint.family != Family::Unix
    };
    table.services().iter().filter(accepts).map(|s| {
        format!(
            "{}:{}: {}: its program accepts by itself, so it gets the header of a load balancer (`proxy_from`) as input",
            s.file, s.line, s.name
        )
    })
}

/// Has a row of `wait` no program that could get its socket?
fn waits_for_no_program(s: &Service) -> Option<String> {
    let has_one = match &s.backend {
        Backend::Exec { .. } => true,
        Backend::Internal(i) => i.has_datagrams() && s.endpoint.socket == ProgramSocket::Datagrams,
        Backend::Redirect(_) | Backend::Sensor | Backend::Offer | Backend::Handover { .. } => false,
    };
    let found = match &s.backend {
        Backend::Redirect(_) => "`redirect`",
        Backend::Handover { .. } => "`handover`",
        Backend::Offer => "`offer`",
        Backend::Exec { .. } | Backend::Internal(_) | Backend::Sensor => "none",
    };
    let what = format!("expected a program for a row of `wait`, found {found}");
    (s.endpoint.socket.waits() && !has_one).then_some(what)
}

/// What a row of `stream` and `wait` cannot have: its program accepts by itself.
fn wait_rules<'a>(s: &'a Service, wrong: &mut Vec<(&'a str, String)>) {
    let mut wrong = |word: &'a str, what: &str| wrong.push((word, what.to_string()));
    let a = &*s.attributes;
    if s.endpoint.socket != ProgramSocket::Listener {
        return;
    }
    let alone = "expected a row of `nowait`, found one of `wait`: its program accepts by itself";
    let only_from = Access { no_access: &[], ..a.access() };
    if !only_from.is_open() {
        wrong("only_from", alone);
    }
    if !a.no_access.is_empty() {
        wrong("no_access", alone);
    }
    if a.libwrap != Libwrap::No {
        wrong("libwrap", alone);
    }
}
