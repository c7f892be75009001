//! What each service needs to start, prepared once, so that a start is only system calls.
//!
//! Users and groups that were found are kept until the next reload, but a user who logs in or
//! connects to a Unix socket is looked up again. The parent asks the system's name service itself
//! only while it starts. For a reload a child does (`users`), and later, too (`accounts`), because
//! the name service may never answer.

use crate::policy::{Backend, RlimitKind, Service, ServiceId, Stderr, Table, UserSpec};
use crate::sys::identity::{self, Identity, User};
use crate::sys::local::Address;
use crate::sys::process;
use crate::sys::spawn::{self, CList, Launch, Rlimit, Tried};
use crate::wire::roles;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::CString;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

/// How long the account of a user who has connected to a Unix socket is used without asking again:
/// whoever connects often does not wait each time.
const UID_KEPT: Duration = Duration::from_secs(10);

/// A user of this computer, with all its groups.
#[derive(Debug)]
pub struct Account {
    pub user: User,
    pub groups: Vec<u32>,
}

/// A name that the system's name service did not know when it was asked last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    User(String),
    Group(String),
    /// The user of this number, who has connected to a Unix socket.
    Uid(u32),
}

impl Missing {
    /// What is looked up, whether there is one or not.
    pub fn subject(&self) -> String {
        match self {
            Missing::User(name) => format!("user {name}"),
            Missing::Group(name) => format!("group {name}"),
            Missing::Uid(uid) => format!("uid {uid}"),
        }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Missing::User(name) => write!(f, "{name}: no such user"),
            Missing::Group(name) => write!(f, "{name}: no such group"),
            Missing::Uid(uid) => write!(f, "uid {uid}: no such user"),
        }
    }
}

/// Why a service cannot be prepared.
pub enum Unprepared {
    Missing(Missing),
    /// A sentence.
    Wrong(String),
}

impl fmt::Display for Unprepared {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Unprepared::Missing(name) => name.fmt(f),
            Unprepared::Wrong(text) => f.write_str(text),
        }
    }
}

/// What a service needs to start.
pub struct Prepared {
    /// Or the path of the socket, where a connection is handed over.
    pub program: CString,
    /// Of a daemon that is given its connections.
    pub socket: Option<Address>,
    pub argv: CList,
    pub chroot: Option<CString>,
    pub directory: Option<CString>,
    pub rlimits: Vec<(Rlimit, u64)>,
    pub umask: u32,
    pub nice: i32,
    pub no_new_privs: bool,
    pub stderr: spawn::Stderr,
    pub greeting: Vec<u8>,
    /// What replaces it at a port of its own.
    pub welcome: Vec<u8>,
    /// The user that it runs as; None: the user who logged in.
    pub owner: Option<(Rc<Account>, Identity)>,
    /// Must a child set its user? Only root can.
    pub becomes: bool,
    /// The row's group, where it runs as the user who logged in.
    group: Option<u32>,
    groups: bool,
    /// Of a redirected service: which upstream has its turn.
    pub turn: Cell<usize>,
    /// What was tried last, of a program that is not one of fived's own.
    pub tried: Option<Tried>,
}

/// What the name service says of a user.
pub enum LookUpResult {
    Found(Rc<Account>),
    NotFound,
    /// It did not answer, or could not be asked.
    NoAnswer,
}

/// Which of some numbers users and groups have.
#[derive(Default)]
pub struct Numbers {
    pub users: HashMap<u32, bool>,
    pub groups: HashMap<u32, bool>,
}

/// The account that has a number.
struct KnownUid {
    account: Rc<Account>,
    /// After that the name service is asked again.
    until: Duration,
}

#[derive(Default)]
pub struct Catalog {
    users: RefCell<HashMap<String, Rc<Account>>>,
    groups: RefCell<HashMap<String, u32>>,
    /// The users who have connected to Unix sockets.
    uids: RefCell<HashMap<u32, KnownUid>>,
    prepared: RefCell<HashMap<ServiceId, Rc<Prepared>>>,
    /// None: it asks the name service itself.
    told: Option<Numbers>,
}

impl Catalog {
    /// One that knows what it is told and does not ask the name service, but for other numbers.
    pub fn told(numbers: Numbers) -> Catalog {
        Catalog { told: Some(numbers), ..Catalog::default() }
    }

    /// Has any user that number?
    pub fn is_user(&self, uid: u32) -> bool {
        let told = self.told.as_ref().and_then(|n| n.users.get(&uid).copied());
        told.unwrap_or_else(|| identity::by_uid(uid).is_some())
    }

    /// Has any group that number?
    pub fn is_group(&self, gid: u32) -> bool {
        let told = self.told.as_ref().and_then(|n| n.groups.get(&gid).copied());
        told.unwrap_or_else(|| identity::is_group(gid))
    }

    pub fn user(&self, name: &str) -> Option<User> {
        self.account(name).map(|a| a.user.clone())
    }

    pub fn account(&self, name: &str) -> Option<Rc<Account>> {
        if let Some(a) = self.users.borrow().get(name) {
            return Some(a.clone());
        }
        if self.told.is_some() {
            return None;
        }
        let user = identity::lookup(name).or_else(|| identity::by_number(name))?;
        let account = Rc::new(Account { groups: identity::groups_of(&user), user });
        self.users.borrow_mut().insert(name.into(), account.clone());
        Some(account)
    }

    /// As [`Catalog::account`], without asking the name service.
    pub fn known_account(&self, name: &str) -> Option<Rc<Account>> {
        self.users.borrow().get(name).cloned()
    }

    /// As [`Catalog::group`], without asking the name service.
    pub fn known_group(&self, name: &str) -> Option<u32> {
        self.groups.borrow().get(name).copied()
    }

    pub fn learn_user(&self, name: &str, account: Rc<Account>) {
        self.users.borrow_mut().insert(name.into(), account);
    }

    /// Keeps what another one knows of users about whom this one has not asked (`users`): they have
    /// logged in, or connected to Unix sockets, and are looked up when they come again. That may
    /// have no answer.
    pub fn keep_others(&self, of: &Catalog, asked: impl Fn(&str) -> bool) {
        for (name, account) in of.users.borrow().iter().filter(|(name, _)| !asked(name)) {
            self.learn_user(name, account.clone());
        }
        for (uid, known) in of.uids.borrow().iter() {
            let (account, until) = (known.account.clone(), Duration::ZERO);
            self.uids.borrow_mut().insert(*uid, KnownUid { account, until });
        }
    }

    /// There is no user of that name any more.
    pub fn forget_user(&self, name: &str) {
        self.users.borrow_mut().remove(name);
    }

    /// The account of a user who has connected to a Unix socket, as far as it is known.
    pub fn account_of(&self, uid: u32) -> Option<Rc<Account>> {
        self.uids.borrow().get(&uid).map(|known| known.account.clone())
    }

    /// Was it looked up a moment ago? Else the name service is to be asked again.
    pub fn is_fresh(&self, uid: u32, now: Duration) -> bool {
        self.uids.borrow().get(&uid).is_some_and(|known| now < known.until)
    }

    /// Keeps what the name service has said of the user of that number. Without an answer it stays
    /// as it was.
    pub fn learn_uid(&self, uid: u32, said: &LookUpResult, now: Duration) {
        let (mut uids, until) = (self.uids.borrow_mut(), now + UID_KEPT);
        match said {
            LookUpResult::Found(account) if account.user.uid == uid => {
                uids.insert(uid, KnownUid { account: account.clone(), until });
            }
            LookUpResult::Found(_) | LookUpResult::NotFound => drop(uids.remove(&uid)),
            LookUpResult::NoAnswer => {
                uids.entry(uid).and_modify(|known| known.until = until);
            }
        }
    }

    pub fn learn_group(&self, name: &str, gid: u32) {
        self.groups.borrow_mut().insert(name.into(), gid);
    }

    pub fn group(&self, name: &str) -> Option<u32> {
        if let Some(&g) = self.groups.borrow().get(name) {
            return Some(g);
        }
        if self.told.is_some() {
            return None;
        }
        let gid = identity::group(name).or_else(|| identity::number(name))?;
        self.groups.borrow_mut().insert(name.into(), gid);
        Some(gid)
    }

    /// What the service needs to start. This never asks the name service.
    pub fn prepared(&self, table: &Table, id: ServiceId) -> Result<Rc<Prepared>, Unprepared> {
        if let Some(p) = self.prepared.borrow().get(&id) {
            return Ok(p.clone());
        }
        let service =
            table.service(id).ok_or_else(|| Unprepared::Wrong("no such service".into()))?;
        let prepared = Rc::new(self.prepare(service, table.decided_at_a_time(id))?);
        self.prepared.borrow_mut().insert(id, prepared.clone());
        Ok(prepared)
    }

    /// `at_a_time`: datagrams of one sender that a process answers at most, if that is bounded.
    fn prepare(&self, s: &Service, at_a_time: Option<u32>) -> Result<Prepared, Unprepared> {
        let a = &s.attributes;
        let group = match s.group() {
            Some(name) => Some(
                self.known_group(name)
                    .ok_or_else(|| Unprepared::Missing(Missing::Group(name.into())))?,
            ),
            None => None,
        };
        let owner = match &s.user {
            UserSpec::Login | UserSpec::None => None,
            UserSpec::Named { user, .. } => {
                let account = self
                    .known_account(user)
                    .ok_or_else(|| Unprepared::Missing(Missing::User(user.clone())))?;
                let identity = identity_of(&account, group, a.groups);
                Some((account, identity))
            }
        };
        let ChildProgram { program, argv, foreign, socket } =
            ChildProgram::of(&s.backend, at_a_time)?;
        Ok(Prepared {
            program,
            socket,
            argv,
            // fived's own program is not in that directory, and its services open no file.
            chroot: a.chroot.as_deref().filter(|_| foreign).map(c_string).transpose()?,
            directory: a.directory.as_deref().map(c_string).transpose()?,
            umask: a.umask,
            nice: a.nice,
            no_new_privs: a.no_new_privs,
            rlimits: a.rlimits().map(|(k, n)| (rlimit(k), n)).collect(),
            stderr: match a.stderr {
                Stderr::Socket => spawn::Stderr::Connection,
                Stderr::Log => spawn::Stderr::Ours,
                Stderr::Null => spawn::Stderr::Null,
            },
            greeting: a.greeting(s.endpoint.announce),
            welcome: a.welcome(),
            owner,
            becomes: identity::effective_uid() == 0,
            group,
            groups: a.groups,
            tried: foreign.then(Tried::default),
            turn: Cell::new(0),
        })
    }
}

/// What the child of a service runs, or does.
struct ChildProgram {
    program: CString,
    argv: CList,
    /// It is not one of fived's own.
    foreign: bool,
    /// As in [`Prepared`].
    socket: Option<Address>,
}

impl ChildProgram {
    fn of(backend: &Backend, at_a_time: Option<u32>) -> Result<ChildProgram, Unprepared> {
        let (program, words, foreign) = match backend {
            Backend::Exec { program, arguments } => (c_string(program)?, arguments.clone(), true),
            Backend::Internal(i) => {
                let mut words = vec![roles::SERVICE.to_string(), i.as_str().to_string()];
                words.extend(at_a_time.map(|n| n.to_string()));
                (process::own_link().to_owned(), words, false)
            }
            Backend::Handover { path } => (c_string(path)?, Vec::new(), false),
            // No program is started: whom it runs as is whom Unix sockets are connected as.
            Backend::Redirect(_) | Backend::Sensor | Backend::Offer => {
                (CString::default(), Vec::new(), false)
            }
        };
        let socket = match backend {
            Backend::Handover { path } => {
                let address = Address::of(path.as_ref());
                Some(address.map_err(|e| Unprepared::Wrong(e.to_string()))?)
            }
            Backend::Exec { .. }
            | Backend::Internal(_)
            | Backend::Redirect(_)
            | Backend::Sensor
            | Backend::Offer => None,
        };
        let argv = CList::new(words).map_err(|e| Unprepared::Wrong(e.to_string()))?;
        Ok(ChildProgram { program, argv, foreign, socket })
    }
}

fn c_string(text: &str) -> Result<CString, Unprepared> {
    CString::new(text).map_err(|_| Unprepared::Wrong(format!("{text:?}: a zero byte in it")))
}

impl Prepared {
    /// The identity that it runs with for this user, who has logged in.
    pub fn identity_of(&self, account: &Account) -> Identity {
        identity_of(account, self.group, self.groups)
    }
}

/// How to launch fived itself in another role: as the same user, without a connection, and with the
/// parent's standard error.
pub fn role<'a>(argv: &'a CList, env: &'a CList) -> Launch<'a> {
    Launch::new(process::own_program(), argv, env)
}

fn identity_of(account: &Account, group: Option<u32>, groups: bool) -> Identity {
    let gid = group.unwrap_or(account.user.gid);
    // The supplementary groups contain the primary one too, as initgroups(3) sets them.
    let mut all = if groups { account.groups.clone() } else { Vec::new() };
    if groups && let Some(first) = all.iter_mut().find(|g| **g == account.user.gid) {
        *first = gid;
    }
    Identity { uid: account.user.uid, gid, groups: all }
}

fn rlimit(kind: RlimitKind) -> Rlimit {
    match kind {
        RlimitKind::As => Rlimit::As,
        RlimitKind::Cpu => Rlimit::Cpu,
        RlimitKind::Data => Rlimit::Data,
        RlimitKind::Files => Rlimit::Files,
        RlimitKind::Stack => Rlimit::Stack,
    }
}
