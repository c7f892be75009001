//! A program for each connection, or a daemon that is given it: what the child is to do, laid out
//! before it is made.

use super::environment::{self, Remote};
use crate::parent::addresses::Addresses;
use crate::parent::arrival::{Arrival, Requester, StartError};
use crate::parent::config::catalog::{Account, Prepared};
use crate::policy::{Backend, ProgramSocket, Reached, Service};
use crate::sys::gauges::OtherCopy;
use crate::sys::identity::{Identity, effective_uid};
use crate::sys::spawn::{BadWord, CList, Env, Instead, Launch, Passed, Stderr};
use crate::wire::run::{Size, Terminal};
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

/// What fived itself sends to the client.
#[derive(Debug, Clone, Copy)]
enum Greets {
    /// The reply line, and banners.
    Wholly,
    /// Banners: at a port of its own nobody has sent a request.
    ByBanners,
    /// Nothing: the program gets no connection but the socket itself; or the client gets records,
    /// and net writes what goes before them.
    Not,
}

/// Everything that a start needs.
pub struct Plan {
    /// The user that the service runs as.
    pub uid: u32,
    prepared: Rc<Prepared>,
    /// The identity, where it is that of the user who logged in.
    own: Option<Identity>,
    env: CList,
    /// What a daemon is told that is given the connection.
    message: Option<Vec<u8>>,
    /// None: `/`.
    directory: Option<CString>,
    /// That is the home of whoever logged in, which need not exist: as for sshd(8), `/` will do.
    is_home: bool,
    report: Option<OwnedFd>,
    greets: Greets,
    /// The size of its terminal, if it gets one.
    terminal: Option<Size>,
    /// It gets the socket of a client that may send it descriptors.
    takes_rights: bool,
    /// It gets a client's own socket.
    is_given_client: bool,
    /// Another process has that, too, and closes it.
    other_copy: Option<OtherCopy>,
}

impl Plan {
    /// Prepares what an arrival's service needs. `report`: where its process waits
    /// for what it prints, if that is told by fived.
    /// Err: why the service cannot be started.
    pub fn new(
        a: &Arrival,
        prepared: Rc<Prepared>,
        report: Option<OwnedFd>,
    ) -> Result<Plan, StartError> {
        let (config, who) = (&a.config, &a.who);
        let service = config.table.service(a.service).ok_or("no such service")?;
        let (account, own) = owner(a, &prepared)?;
        let message = match prepared.socket {
            Some(_) => Some(environment::message(service, &remote(a))?),
            None => None,
        };
        let terminal = terminal(a, service);
        let bad = |e: BadWord| StartError::from(format!("the environment: {e}"));
        Ok(Plan {
            uid: account.user.uid,
            env: match message {
                None => environment::of(service, &account.user, &remote(a)).map_err(bad)?,
                // There is no program.
                Some(_) => Env::new().finish(),
            },
            message,
            directory: directory(service, &prepared, account),
            is_home: prepared.owner.is_none() && prepared.directory.is_none(),
            own,
            report,
            terminal: terminal.map(|t| t.size),
            is_given_client: a.client.is_some() && !matches!(who.requester, Requester::Wait(_)),
            takes_rights: a.client.is_some() && matches!(who.addresses, Addresses::Unix(_)),
            greets: match (who.requester, who.facts.reached) {
                (Requester::Wait(_), _) => Greets::Not,
                _ if a.run.is_some() => Greets::Not,
                (_, Reached::ByName) => Greets::Wholly,
                (_, Reached::AtPort | Reached::AtTlsPort) => Greets::ByBanners,
            },
            prepared,
            other_copy: None,
        })
    }

    /// The service begins when this copy of the client's socket is closed.
    pub fn must_be_closed(&mut self, copy: Option<OtherCopy>) {
        self.other_copy = copy;
    }

    /// Is the connection given to a daemon, so that no process of its own is left?
    pub fn hands_over(&self) -> bool {
        self.message.is_some()
    }

    /// The size of the terminal that it gets, if it gets one.
    pub fn terminal(&self) -> Option<Size> {
        self.terminal
    }

    /// Where its standard error goes.
    pub fn stderr(&self) -> Stderr {
        self.prepared.stderr
    }

    /// What the client of RUN gets before the records.
    pub fn greeting(&self) -> &[u8] {
        &self.prepared.greeting
    }

    /// `passed`: None, where the launch is only asked what it is.
    pub fn launch<'a>(&'a self, passed: Option<&'a Passed>) -> Launch<'a> {
        let Plan { prepared: p, own, env, directory, report, .. } = self;
        Launch {
            program: &p.program,
            argv: &p.argv,
            env,
            identity: own.as_ref().or(p.owner.as_ref().map(|o| &o.1)).filter(|_| p.becomes),
            chroot: p.chroot.as_deref(),
            directory: directory.as_deref().unwrap_or(c"/"),
            or_root: self.is_home,
            umask: p.umask,
            nice: p.nice,
            rlimits: &p.rlimits,
            no_new_privs: p.no_new_privs,
            stderr: p.stderr,
            check: p.tried.as_ref(),
            greeting: match self.greets {
                Greets::Wholly => &p.greeting,
                Greets::ByBanners => &p.welcome,
                Greets::Not => b"",
            },
            connection: passed.map(|p| p.connection.as_fd()),
            other_copy: self.other_copy.as_ref(),
            takes_rights: self.takes_rights,
            marks: self.is_given_client,
            errors: passed.and_then(|p| p.errors.as_ref()).map(AsFd::as_fd),
            terminal: self.terminal.is_some(),
            extra: report.as_ref().map(AsFd::as_fd),
            second: None,
            new_session: true,
            instead: p
                .socket
                .as_ref()
                .zip(self.message.as_deref())
                .map(|(to, message)| Instead::HandOver { to, message }),
        }
    }
}

/// Whom an arrival's service runs as: the account, and its identity where it is that of the user
/// who logged in. Err: nobody that it may run as.
pub fn owner<'a>(
    a: &'a Arrival,
    prepared: &'a Prepared,
) -> Result<(&'a Rc<Account>, Option<Identity>), StartError> {
    let (account, own) = match (&prepared.owner, &a.who.account) {
        (Some((account, _)), _) => (account, None),
        (None, Some((Some(account), _))) => (account, Some(prepared.identity_of(account))),
        (None, _) => return Err("who logged in is no user of this computer".into()),
    };
    if a.config.own_users.is_some_and(|o| o.has(account.user.uid)) {
        return Err("that user is fived's own, and no service may run as it".into());
    }
    if !prepared.becomes && account.user.uid != effective_uid() {
        return Err("fived was not started by root, so it cannot run as another user".into());
    }
    Ok((account, own))
}

/// The terminal that it gets: one that the client asks for, and the row allows. A daemon that is
/// given the connection, and fived's own services, need the connection itself.
fn terminal<'a>(a: &'a Arrival, service: &Service) -> Option<&'a Terminal> {
    let may = service.attributes.pty && matches!(service.backend, Backend::Exec { .. });
    a.run.as_ref()?.terminal.as_ref().filter(|_| may)
}

fn remote(a: &Arrival) -> Remote<'_> {
    let who = &a.who;
    let method = who.account.as_ref().map(|(_, method)| *method);
    let service = a.config.table.service(a.service);
    Remote {
        run: a.run.is_some(),
        term: service.and_then(|s| terminal(a, s)).map(Terminal::term),
        addresses: &who.addresses,
        datagrams: service.is_some_and(|s| s.endpoint.socket == ProgramSocket::Datagrams),
        host: a.config.table.host(who.facts.host).map_or("", |h| h.name.as_str()),
        session: who.number,
        login: who.facts.login.as_ref().map(|l| l.name.as_str()).zip(method),
        tls: who.tls.as_deref(),
    }
}

/// The directory that the service starts in. None: `/`.
fn directory(service: &Service, prepared: &Prepared, account: &Account) -> Option<CString> {
    match &prepared.directory {
        // fived's own services open no file, so a directory that does not answer must not delay
        // them.
        _ if matches!(service.backend, Backend::Internal(_)) => None,
        None if prepared.owner.is_none() => CString::new(account.user.home.as_str()).ok(),
        given => given.clone(),
    }
}
