//! What fived hands to its own roles, which are this program, started again: the `argv[0]` of each,
//! its descriptors besides the three standard ones, and its variables.
//!
//! The parent writes a role's variables and the role reads them: both are here. A role always comes
//! from the same build; where orders follow, their version word ensures that ([`super::orders`]).

#[cfg(test)]
mod tests;

use super::peer::Peer;
use super::pubkey::Kind;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};

/// `argv[0]` of a net process.
pub const NET: &str = "fived-net";
/// `argv[0]` of a keys process.
pub const KEYS: &str = "fived-keys";
/// `argv[0]` of a login child.
pub const LOGIN: &str = "fived-login";
/// `argv[0]` of the process of a service's terminal.
pub const TERMINAL: &str = "fived-terminal";
/// `argv[0]` of an internal service. `argv[1]` is its name, or one of the next six; `argv[2]`, if
/// there is one, how many datagrams of one sender it answers at most.
pub const SERVICE: &str = "fived-service";

/// Not a service: looks up the name of an address ([`LookUp::Address`]).
pub const NAME: &str = "name";
/// Not a service: looks up the addresses of a host ([`LookUp::Host`]).
pub const HOST: &str = "host";
/// Not a service: looks up a user, or the number of a group ([`LookUp::User`], [`LookUp::Group`]).
pub const ACCOUNT: &str = "account";
/// Not a service: looks up users, groups and names of ports, whatever is asked on its standard
/// input.
pub const ENTRIES: &str = "entries";
/// Not a service: asks the rules of hosts_access(5) ([`LookUp::Libwrap`]); without a request it
/// reports why they cannot be asked.
pub const LIBWRAP: &str = "libwrap";
/// Not a service: checks what is wrong with programs.
pub const PROGRAMS: &str = "programs";

/// The descriptor of a role's channel to the parent; of a login child's channel to the session.
pub const CHANNEL: i32 = 3;
/// Net: the descriptor of the sealed file with its configuration.
pub const CONFIGURATION: i32 = 4;
/// Login: the descriptor of its channel to the parent.
pub const REPORTS: i32 = 4;
/// The process of a terminal: the end of the terminal that is not the service's.
pub const TERMINAL_END: i32 = 3;
/// The same: where the terminal's sizes come from ([`super::run::Size::bytes`]).
pub const SIZES: i32 = 4;
/// The internal services `status` and `metrics`: the channel on which a sealed file with the text
/// comes when that is complete.
pub const STATUS: i32 = 3;

/// Environment variables, each a name and a value.
pub type Variables = Vec<(&'static str, Vec<u8>)>;

/// A uid and a gid.
pub type Ids = (u32, u32);

const DEBUG: &str = "FIVED_DEBUG";
const UID: &str = "FIVED_UID";
const GID: &str = "FIVED_GID";
const IDS: [&str; 2] = [UID, GID];
const HELPER_IDS: [&str; 2] = ["FIVED_HELPER_UID", "FIVED_HELPER_GID"];
const METHOD: &str = "FIVED_METHOD";
const USER: &str = "FIVED_USER";
const GROUP: &str = "FIVED_GROUP";
const ADDRESS: &str = "FIVED_ADDRESS";
const DAEMON: &str = "FIVED_DAEMON";
const CLIENT: &str = "FIVED_CLIENT";
const SERVER: &str = "FIVED_SERVER";
const UPSTREAM: &str = "FIVED_UPSTREAM";
const KIND: &str = "FIVED_KIND";
const FROM: &str = "FIVED_FROM";
const AUTHORIZED_KEYS: &str = "FIVED_KEYS";
const PASSWORDS: &str = "FIVED_PASSWORDS";
const PAM: &str = "FIVED_PAM";
const CHECKPASSWORD: &str = "FIVED_CHECKPASSWORD";

/// What a net process is given. (The C library and the time zone have variables of their own.)
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Net {
    /// How often `-d` was given.
    pub debug: usize,
    /// The user and group that it becomes. None: an ordinary user started fived, and it stays that
    /// user.
    pub ids: Option<Ids>,
}

impl Net {
    pub fn variables(&self) -> Variables {
        [vec![variable(DEBUG, self.debug)], ids(IDS, self.ids)].concat()
    }

    /// `get` returns the value of a variable. Err: which one is wrong.
    pub fn read(get: impl Fn(&str) -> Option<Vec<u8>>) -> Result<Net, String> {
        let debug = text(&get, DEBUG).and_then(|n| n.parse().ok()).unwrap_or(0);
        Ok(Net { debug, ids: read_ids(IDS, &get)? })
    }
}

/// What a login child has to find out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    /// Does the password prove that this is the user?
    Password,
    /// Does the key prove that this is the user?
    Key,
    /// A key has proved that this is the user: does PAM admit the account? Nobody talks to this
    /// child.
    Account,
}

const ASKS: [(Asks, &str); 3] =
    [(Asks::Password, "password"), (Asks::Key, "pubkey"), (Asks::Account, "account")];

/// What a login child is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    pub asks: Asks,
    /// As it was typed: a name is bytes until the child has looked it up.
    pub user: Vec<u8>,
    /// The client.
    pub from: Peer,
    /// The kind of the session's connection, as the parent knows it.
    pub kind: Kind,
    /// The setting `authorized_keys`.
    pub keys: String,
    /// The settings of the same names.
    pub passwords: Option<String>,
    pub pam: Option<String>,
    pub checkpassword: Option<String>,
    /// The user and group that it becomes. None: an ordinary user started fived, and it stays that
    /// user.
    pub ids: Option<Ids>,
}

impl Login {
    pub fn variables(&self) -> Variables {
        // A name with a NUL byte in it can be neither a user's nor a variable.
        let user = if self.user.contains(&0) { Vec::new() } else { self.user.clone() };
        let asks = ASKS.iter().find(|a| a.0 == self.asks).map_or("", |a| a.1);
        let mut all = vec![
            variable(METHOD, asks),
            (USER, user),
            variable(KIND, self.kind.as_str()),
            variable(FROM, self.from),
            variable(AUTHORIZED_KEYS, &self.keys),
        ];
        let others =
            [(PASSWORDS, &self.passwords), (PAM, &self.pam), (CHECKPASSWORD, &self.checkpassword)];
        all.extend(others.into_iter().filter_map(|(name, v)| Some(variable(name, v.as_ref()?))));
        all.extend(ids(IDS, self.ids));
        all
    }

    /// `get` returns the value of a variable. Err: which one is wrong.
    pub fn read(get: impl Fn(&str) -> Option<Vec<u8>>) -> Result<Login, String> {
        let asks = text(&get, METHOD);
        let asks = ASKS
            .iter()
            .find(|a| Some(a.1) == asks.as_deref())
            .ok_or_else(|| format!("{METHOD}={asks:?}: not a method"))?;
        let from = text(&get, FROM).and_then(|a| a.parse().ok());
        let kind = text(&get, KIND).and_then(|k| Kind::from_word(&k));
        Ok(Login {
            asks: asks.0,
            user: get(USER).unwrap_or_default(),
            from: from.ok_or_else(|| format!("{FROM}: not a client"))?,
            kind: kind.ok_or_else(|| format!("{KIND}: not a kind of connection"))?,
            keys: text(&get, AUTHORIZED_KEYS).unwrap_or_default(),
            passwords: text(&get, PASSWORDS),
            pam: text(&get, PAM),
            checkpassword: text(&get, CHECKPASSWORD),
            ids: read_ids(IDS, &get)?,
        })
    }
}

/// The user and group that a process becomes before it looks anything up. None: an ordinary user
/// started fived, and it stays that user.
pub fn helper_variables(helper: Option<Ids>) -> Variables {
    ids(HELPER_IDS, helper)
}

/// What [`helper_variables`] wrote. Err: which one is wrong.
pub fn helper(get: impl Fn(&str) -> Option<Vec<u8>>) -> Result<Option<Ids>, String> {
    read_ids(HELPER_IDS, get)
}

/// What a process has to look up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LookUp {
    /// The name of this address.
    Address(IpAddr),
    /// The addresses of this host.
    Host(String),
    /// Who the user of this name or number is.
    User(String),
    /// The number of the group with this name or number.
    Group(String),
    /// Who the user of this number is.
    Uid(u32),
    /// May a client use the daemon of that name here, by hosts_access(5)? The client's address and
    /// this computer's. None: the client has none, for it came to a Unix socket.
    Libwrap { daemon: String, addresses: Option<(SocketAddr, SocketAddr)> },
}

impl LookUp {
    /// `argv[1]` of the process that looks it up.
    pub fn name(&self) -> &'static str {
        match self {
            LookUp::Address(_) => NAME,
            LookUp::Host(_) => HOST,
            LookUp::User(_) | LookUp::Group(_) | LookUp::Uid(_) => ACCOUNT,
            LookUp::Libwrap { .. } => LIBWRAP,
        }
    }

    pub fn variables(&self) -> Variables {
        match self {
            LookUp::Address(address) => vec![variable(ADDRESS, address)],
            LookUp::Host(name) => vec![variable(UPSTREAM, name)],
            LookUp::User(name) => vec![variable(USER, name)],
            LookUp::Group(name) => vec![variable(GROUP, name)],
            LookUp::Uid(uid) => vec![variable(UID, uid)],
            LookUp::Libwrap { daemon, addresses } => {
                let mut all = vec![variable(DAEMON, daemon)];
                if let Some((client, server)) = addresses {
                    all.extend([variable(CLIENT, client), variable(SERVER, server)]);
                }
                all
            }
        }
    }

    /// `get` returns the value of a variable. None: there is nothing to look up.
    pub fn read(get: impl Fn(&str) -> Option<Vec<u8>>) -> Option<LookUp> {
        let address = text(&get, ADDRESS).and_then(|a| a.parse().ok()).map(LookUp::Address);
        let host = || text(&get, UPSTREAM).map(LookUp::Host);
        let user = || text(&get, USER).map(LookUp::User);
        let group = || text(&get, GROUP).map(LookUp::Group);
        let uid = || text(&get, UID).and_then(|n| n.parse().ok()).map(LookUp::Uid);
        address.or_else(host).or_else(user).or_else(group).or_else(uid).or_else(|| {
            let daemon = text(&get, DAEMON)?;
            let address = |name| Some(text(&get, name)?.parse::<SocketAddr>());
            let addresses = match (address(CLIENT), address(SERVER)) {
                (None, None) => None,
                (client, server) => Some((client?.ok()?, server?.ok()?)),
            };
            Some(LookUp::Libwrap { daemon, addresses })
        })
    }
}

fn variable(name: &'static str, value: impl Display) -> (&'static str, Vec<u8>) {
    (name, value.to_string().into_bytes())
}

fn ids(names: [&'static str; 2], ids: Option<Ids>) -> Variables {
    ids.map_or_else(Vec::new, |(uid, gid)| vec![variable(names[0], uid), variable(names[1], gid)])
}

fn text(get: impl Fn(&str) -> Option<Vec<u8>>, name: &str) -> Option<String> {
    get(name).and_then(|value| String::from_utf8(value).ok())
}

fn read_ids(
    names: [&str; 2],
    get: impl Fn(&str) -> Option<Vec<u8>>,
) -> Result<Option<Ids>, String> {
    let number = |name: &str| {
        let read = |n: String| n.parse::<u32>().map_err(|_| format!("{name}={n}: not a number"));
        text(&get, name).map(read).transpose()
    };
    Ok(number(names[0])?.zip(number(names[1])?))
}
