//! The built-ins: names in a request that are not services, and where each may be used. One row for
//! each name; HELP, the reader of requests, net's decision, the table's check of names and five's
//! list all come from this one table.

use super::reply;

/// Asks for the names of the services.
pub const HELP: &str = "HELP";

/// The built-ins but HELP, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Builtin {
    Auth,
    Host,
    Multiplex,
    Offer,
    Pubkey,
    Resume,
    Run,
    Ssl,
}

/// Where a built-in may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    Allowed,
    /// Never; this is the reply.
    Refused(&'static [u8]),
    /// Where the server has a certificate. Elsewhere the name does not exist.
    WithCertificate,
    /// Only in a stream; elsewhere this is the reply.
    InStream(&'static [u8]),
    /// Where a login without TLS is allowed; elsewhere this is the reply.
    WithPlainLogin(&'static [u8]),
    /// Where the server keeps sessions that are lost. Elsewhere the name does not exist.
    WithResume,
    /// Never; this is the reply where the server keeps sessions that are lost. Elsewhere the name
    /// does not exist.
    RefusedWithResume(&'static [u8]),
}

/// A row.
#[derive(Debug)]
pub struct Row {
    pub name: &'static str,
    /// None: it is HELP, which changes nothing.
    pub builtin: Option<Builtin>,
    /// On a connection without TLS, and in the streams on it.
    pub plain: Rule,
    /// On a connection with TLS, and in the streams on it.
    pub tls: Rule,
    /// In a stream of MULTIPLEX, where the rule for its connection must allow it too.
    pub stream: Rule,
    pub listed: Listed,
}

/// Is a built-in in HELP's answer?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listed {
    Never,
    /// Where it may be used.
    Usable,
    /// Where it may be used, for users who may offer a service.
    Offerers,
}

/// What the rules depend on in the session in which a built-in is named.
#[derive(Debug, Clone, Copy)]
pub struct Conditions {
    /// The request came on a stream of MULTIPLEX.
    pub stream: bool,
    /// The connection is encrypted.
    pub tls: bool,
    /// The server has a certificate.
    pub certificate: bool,
    /// A login without TLS is allowed: the client is on this machine, or a setting allows it.
    pub plain_login: bool,
    /// The user who logged in may offer a service of the session's host.
    pub offers: bool,
    /// The server keeps sessions that are lost.
    pub resume: bool,
}

use Rule::{
    Allowed, InStream, Refused, RefusedWithResume, WithCertificate, WithPlainLogin, WithResume,
};

/// All of them; those that are listed are in HELP's order.
pub const BUILTINS: [Row; 9] = [
    Row {
        name: HELP,
        builtin: None,
        plain: Allowed,
        tls: Allowed,
        stream: Allowed,
        listed: Listed::Never,
    },
    Row {
        name: "AUTH",
        builtin: Some(Builtin::Auth),
        plain: WithPlainLogin(reply::AUTH_NEEDS_SSL),
        tls: Allowed,
        stream: Allowed,
        listed: Listed::Usable,
    },
    Row {
        name: "HOST",
        builtin: Some(Builtin::Host),
        plain: Allowed,
        tls: Allowed,
        stream: Allowed,
        listed: Listed::Usable,
    },
    Row {
        name: "MULTIPLEX",
        builtin: Some(Builtin::Multiplex),
        plain: Allowed,
        tls: Allowed,
        stream: Refused(reply::NOT_INSIDE_MULTIPLEX),
        listed: Listed::Usable,
    },
    Row {
        name: "OFFER",
        builtin: Some(Builtin::Offer),
        plain: InStream(reply::OFFER_NEEDS_MULTIPLEX),
        tls: InStream(reply::OFFER_NEEDS_MULTIPLEX),
        stream: Allowed,
        listed: Listed::Offerers,
    },
    Row {
        name: "PUBKEY",
        builtin: Some(Builtin::Pubkey),
        plain: WithPlainLogin(reply::PUBKEY_NEEDS_SSL),
        tls: Allowed,
        stream: Allowed,
        listed: Listed::Usable,
    },
    Row {
        name: "RESUME",
        builtin: Some(Builtin::Resume),
        plain: RefusedWithResume(reply::RESUME_NEEDS_SSL),
        tls: WithResume,
        stream: RefusedWithResume(reply::NOT_INSIDE_MULTIPLEX),
        listed: Listed::Usable,
    },
    Row {
        name: "RUN",
        builtin: Some(Builtin::Run),
        plain: Allowed,
        tls: Allowed,
        stream: Allowed,
        listed: Listed::Usable,
    },
    Row {
        name: "SSL",
        builtin: Some(Builtin::Ssl),
        plain: WithCertificate,
        tls: Refused(reply::ALREADY_ENCRYPTED),
        stream: Refused(reply::NOT_INSIDE_MULTIPLEX),
        listed: Listed::Usable,
    },
];

/// The row of that name, which is compared without regard to ASCII case.
pub fn named(name: &[u8]) -> Option<&'static Row> {
    BUILTINS.iter().find(|row| row.name.as_bytes().eq_ignore_ascii_case(name))
}

/// The names that HELP lists in such a session, in its order.
pub fn listed(session: Conditions) -> impl Iterator<Item = &'static str> {
    let listed = move |row: &&Row| match row.listed {
        Listed::Never => false,
        Listed::Usable => true,
        Listed::Offerers => session.offers,
    };
    let usable = move |row: &&Row| row.refusal(session).is_none();
    BUILTINS.iter().filter(listed).filter(usable).map(|row| row.name)
}

impl Row {
    /// The reply where it may not be used. None: it may.
    pub fn refusal(&self, session: Conditions) -> Option<&'static [u8]> {
        let connection = if session.tls { self.tls } else { self.plain };
        let inside = if session.stream { self.stream } else { Allowed };
        inside.refusal(session).or_else(|| connection.refusal(session))
    }

    /// Was it refused only because the connection is not encrypted? Then somebody would have sent a
    /// password in the clear, or has done so.
    pub fn lacks_tls(&self, session: Conditions) -> bool {
        matches!(self.plain, WithPlainLogin(answer) if self.refusal(session) == Some(answer))
    }
}

impl Rule {
    fn refusal(self, session: Conditions) -> Option<&'static [u8]> {
        match self {
            Allowed => None,
            Refused(answer) => Some(answer),
            InStream(answer) => (!session.stream).then_some(answer),
            WithCertificate => (!session.certificate).then_some(reply::NOT_AVAILABLE),
            WithPlainLogin(answer) => (!session.plain_login).then_some(answer),
            WithResume => (!session.resume).then_some(reply::NOT_AVAILABLE),
            RefusedWithResume(answer) if session.resume => Some(answer),
            RefusedWithResume(_) => Some(reply::NOT_AVAILABLE),
        }
    }
}

impl Builtin {
    /// Its row.
    pub fn row(self) -> &'static Row {
        let own = |row: &&Row| row.builtin == Some(self);
        BUILTINS.iter().find(own).expect("every built-in has a row: a test says so")
    }

    pub fn as_str(self) -> &'static str {
        self.row().name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Builtin; 8] = [
        Builtin::Auth,
        Builtin::Host,
        Builtin::Multiplex,
        Builtin::Offer,
        Builtin::Pubkey,
        Builtin::Resume,
        Builtin::Run,
        Builtin::Ssl,
    ];
    const CONDITIONS: Conditions = Conditions {
        stream: false,
        tls: false,
        certificate: true,
        plain_login: true,
        offers: false,
        resume: true,
    };

    #[test]
    fn every_built_in_has_a_row() {
        for builtin in ALL {
            assert_eq!(builtin.row().builtin, Some(builtin));
        }
        assert_eq!(BUILTINS.len(), ALL.len() + 1);
    }

    #[test]
    fn help_names_what_may_be_used() {
        let names = |s: Conditions| listed(s).collect::<Vec<_>>().join(" ");
        assert_eq!(names(CONDITIONS), "AUTH HOST MULTIPLEX PUBKEY RUN SSL");
        let tls = Conditions { tls: true, ..CONDITIONS };
        assert_eq!(names(tls), "AUTH HOST MULTIPLEX PUBKEY RESUME RUN");
        assert_eq!(names(Conditions { resume: false, ..tls }), "AUTH HOST MULTIPLEX PUBKEY RUN");
        assert_eq!(names(Conditions { stream: true, ..CONDITIONS }), "AUTH HOST PUBKEY RUN");
        let offers = Conditions { offers: true, ..CONDITIONS };
        assert_eq!(names(offers), names(CONDITIONS));
        assert_eq!(names(Conditions { stream: true, ..offers }), "AUTH HOST OFFER PUBKEY RUN");
        let elsewhere = Conditions { certificate: false, plain_login: false, ..CONDITIONS };
        assert_eq!(names(elsewhere), "HOST MULTIPLEX RUN");
    }

    #[test]
    fn a_refusal_says_why() {
        let elsewhere = Conditions { plain_login: false, ..CONDITIONS };
        let of = |b: Builtin, s| (b.row().refusal(s), b.row().lacks_tls(s));
        assert_eq!(of(Builtin::Auth, elsewhere), (Some(reply::AUTH_NEEDS_SSL), true));
        assert_eq!(of(Builtin::Offer, elsewhere), (Some(reply::OFFER_NEEDS_MULTIPLEX), false));
        let inside = Conditions { stream: true, ..elsewhere };
        assert_eq!(of(Builtin::Offer, inside), (None, false));
        assert_eq!(of(Builtin::Pubkey, inside), (Some(reply::PUBKEY_NEEDS_SSL), true));
        assert_eq!(of(Builtin::Ssl, inside), (Some(reply::NOT_INSIDE_MULTIPLEX), false));
        let encrypted = Conditions { tls: true, ..elsewhere };
        assert_eq!(of(Builtin::Auth, encrypted), (None, false));
        assert_eq!(of(Builtin::Ssl, encrypted), (Some(reply::ALREADY_ENCRYPTED), false));
        assert_eq!(of(Builtin::Resume, CONDITIONS), (Some(reply::RESUME_NEEDS_SSL), false));
        assert_eq!(of(Builtin::Resume, encrypted), (None, false));
        let inside = Conditions { stream: true, ..encrypted };
        assert_eq!(of(Builtin::Resume, inside), (Some(reply::NOT_INSIDE_MULTIPLEX), false));
        for off in [CONDITIONS, encrypted, inside].map(|s| Conditions { resume: false, ..s }) {
            assert_eq!(of(Builtin::Resume, off), (Some(reply::NOT_AVAILABLE), false));
        }
        let none = Conditions { certificate: false, ..CONDITIONS };
        assert_eq!(of(Builtin::Ssl, none), (Some(reply::NOT_AVAILABLE), false));
    }
}
