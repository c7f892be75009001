//! A session, as the parent knows it.

use super::resumables::Resumable;
use crate::parent::addresses::Addresses;
use crate::parent::arrival::{Arrival, Requester, Run, StreamTag, Who};
use crate::parent::backend::environment::Tls;
use crate::parent::channel::{Broken, Channel};
use crate::parent::config::Config;
use crate::parent::config::catalog::Account;
use crate::parent::tokens::{NetToken, SessionToken};
use crate::policy::{Facts, HostId, Login, Peer, PeerName, Reached, ServiceId};
use crate::sys::shared::Shared;
use crate::sys::socket;
use crate::wire::orders::{Data, OWN_CONNECTION, SessionPhase};
use crate::wire::pubkey::Kind;
use crate::wire::run::Way;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;

/// The user who logged in.
pub struct User {
    pub login: Login,
    /// None: the name is not a user of this computer.
    pub account: Option<Rc<Account>>,
    pub method: &'static str,
}

/// The user who has connected to a Unix socket, who is logged in by that. None: it is another
/// client, or no account of this computer (as far as is known) has that number.
pub fn local_user(config: &Config, peer: Peer) -> Option<User> {
    let Peer::User(uid) = peer else { return None };
    let account = config.catalog.account_of(uid)?;
    Some(User { login: config.login_of(&account), account: Some(account), method: PEER })
}

/// How the log and services are told that the system itself said who the user is.
const PEER: &str = "peer";

/// What the parent knows about a session, or about a stream that has facts of its own.
pub struct SessionRecord {
    pub channel: Channel,
    /// Net has closed its end of the channel: nobody hears an answer to the orders that are left.
    pub hung_up: bool,
    pub config: Rc<Config>,
    /// The net process that serves it.
    pub net: NetToken,
    pub number: u64,
    /// The token of its session, if this is a stream.
    pub parent: Option<SessionToken>,
    /// The tag by which its session knows it, if this is a stream.
    pub tag: u32,
    pub addresses: Addresses,
    /// What its client's own socket is known by ([`socket::cookie`]). None: a stream has none.
    pub socket: Option<u64>,
    /// The name of its client's address.
    pub name: PeerName,
    pub host: HostId,
    /// The number of the services' own port to which the client came; None: it names its service.
    pub tls_port: Option<u32>,
    pub tls: Option<Rc<Tls>>,
    pub user: Option<Rc<User>>,
    pub since: Duration,
    /// Bytes to services and from them, where relays counted them.
    pub traffic: (u64, u64),
    pub step: Step,
    /// Tries to log in that did not succeed, by method.
    pub tries: [u32; 2],
    /// How many of them got a penalty.
    pub failures: u32,
    /// How many of its streams have facts of their own.
    pub branches: u32,
    /// Of a session that outlives its connections.
    pub resumable: Option<Box<Resumable>>,
    /// Why it ended, according to net.
    pub end_reason: Option<String>,
}

impl SessionRecord {
    /// Has it no connection now? It may be resumed.
    pub fn is_lost(&self) -> bool {
        self.resumable.as_ref().is_some_and(|r| r.lost.is_some())
    }
}

/// What a session waits for, or has got last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Idle,
    /// It waits for the signature of its handshake.
    Signing,
    /// It has the signature, and its handshake is not complete yet.
    Signed,
    /// A try to log in waits or runs.
    LoggingIn,
}

/// A client that asks for a session: it has named a built-in, or expects TLS.
pub struct SessionRequest {
    /// The net process that has it.
    pub net: NetToken,
    /// That net process takes no new streams.
    pub drains: bool,
    pub config: Rc<Config>,
    pub addresses: Addresses,
    /// The name of its address.
    pub name: PeerName,
    pub socket: Shared,
    /// The pair through which net asks for the session's channel.
    pub pair: Shared,
    /// As in [`SessionRecord`].
    pub tls_port: Option<u32>,
}

/// Which session it is, and between which addresses.
pub struct NewSession {
    /// The net process that serves it.
    pub net: NetToken,
    pub number: u64,
    pub addresses: Addresses,
    /// As in [`SessionRecord`].
    pub socket: Option<u64>,
    /// The name of its client's address.
    pub name: PeerName,
    /// As in [`SessionRecord`].
    pub tls_port: Option<u32>,
}

impl SessionRecord {
    /// A new session: its host is the default one, and nobody is logged in but the user who has
    /// connected to a Unix socket.
    pub fn new(
        channel: Channel,
        config: Rc<Config>,
        new: NewSession,
        since: Duration,
    ) -> SessionRecord {
        let user = local_user(&config, new.addresses.peer()).map(Rc::new);
        SessionRecord {
            channel,
            hung_up: false,
            config,
            net: new.net,
            number: new.number,
            parent: None,
            tag: OWN_CONNECTION,
            addresses: new.addresses,
            socket: new.socket,
            name: new.name,
            host: HostId::DEFAULT,
            tls_port: new.tls_port,
            tls: None,
            user,
            since,
            traffic: (0, 0),
            step: Step::Idle,
            tries: [0; 2],
            failures: 0,
            branches: 0,
            resumable: None,
            end_reason: None,
        }
    }

    /// A stream of this session that has facts of its own. At first they are the session's.
    /// `parent`: the session's token, and its tag for the stream.
    pub fn branch(
        &self,
        channel: Channel,
        (parent, tag): (SessionToken, u32),
        host: HostId,
        since: Duration,
    ) -> SessionRecord {
        let new = NewSession {
            net: self.net,
            number: self.number,
            addresses: self.addresses.clone(),
            socket: None,
            name: self.name.clone(),
            tls_port: self.tls_port,
        };
        let mut own = SessionRecord::new(channel, self.config.clone(), new, since);
        (own.parent, own.tag, own.host) = (Some(parent), tag, host);
        (own.tls, own.user) = (self.tls.clone(), self.user.clone());
        own
    }

    /// Its request for a service, with the facts that the parent knows. Err: there is no such
    /// service or host, or not at the port to which the client came; or `client` is not the
    /// client's own socket. (A program would get whatever it is, outside of net's confinement.)
    pub fn arrival(
        &mut self,
        minute: u16,
        stream: StreamTag,
        (service, host, way): (ServiceId, HostId, Way),
        client: Option<Shared>,
    ) -> Result<Arrival, Broken> {
        let config = self.config.clone();
        if client.as_ref().is_some_and(|c| !self.is_own_socket(c)) {
            return Err(Broken::Forbidden);
        }
        let reports_to = self.parent.map_or(stream, |session| StreamTag { session, tag: self.tag });
        let run = match way {
            Way::Plain => None,
            Way::Run => Some(Run { terminal: None, reports_to }),
            Way::Terminal(terminal) => Some(Run { terminal: Some(terminal), reports_to }),
        };
        if config.table.host(host).is_none() || config.table.service(service).is_none() {
            return Err(Broken::Forbidden);
        }
        let reached = match self.tls_port {
            None => Reached::ByName,
            Some(n) => {
                let port = config.ports.tls.get(n as usize).ok_or(Broken::Forbidden)?;
                // Net chooses among those that share the port, after the handshake.
                if self.tls.is_none() || !port.services.contains(&service) {
                    return Err(Broken::Forbidden);
                }
                Reached::AtTlsPort
            }
        };
        self.host = host;
        let user = self.user.clone();
        let facts = Facts {
            peer: self.addresses.peer(),
            host,
            encrypted: self.is_encrypted(),
            login: user.as_ref().map(|u| u.login.clone()),
            minute,
            peer_name: self.name.clone(),
            reached,
        };
        let who = Who {
            addresses: self.addresses.clone(),
            facts,
            number: self.number,
            account: user.as_ref().map(|u| (u.account.clone(), u.method)),
            tls: self.tls.clone(),
            requester: Requester::Session(stream),
        };
        Ok(Arrival { config, service, who, client, passed_libwrap: false, run })
    }

    /// Notes that its TLS handshake is complete. Err: the suite or the name cannot be right.
    pub fn encrypted(&mut self, suite: u16, name: &Data) -> Result<(), Broken> {
        let suite = match suite {
            0x1301 => "TLS_AES_128_GCM_SHA256",
            0x1302 => "TLS_AES_256_GCM_SHA384",
            0x1303 => "TLS_CHACHA20_POLY1305_SHA256",
            _ => return Err(Broken::Forbidden),
        };
        let server_name = name.text().ok_or(Broken::Forbidden)?.to_string();
        self.host = self.config.table.host_named(name.bytes()).unwrap_or(HostId::DEFAULT);
        self.user = None;
        self.tls = Some(Rc::new(Tls { suite, server_name }));
        self.step = Step::Idle;
        Ok(())
    }

    /// Notes the bytes of a relay that has ended: to the service, and from it.
    pub fn add_traffic(&mut self, to: u64, from: u64) {
        let (before_to, before_from) = self.traffic;
        self.traffic = (before_to.saturating_add(to), before_from.saturating_add(from));
    }

    /// Is it the client's own socket, and may a service get it: does nothing but the client's bytes
    /// come from it?
    fn is_own_socket(&self, fd: &Shared) -> bool {
        self.tls.is_none() && self.socket.is_some() && socket::cookie(fd.as_fd()) == self.socket
    }

    /// Can nobody listen to what it sends? With TLS, or through a Unix socket.
    pub fn is_encrypted(&self) -> bool {
        self.tls.is_some() || matches!(self.addresses, Addresses::Unix(_))
    }

    /// Which orders it may give now.
    pub fn phase(&self) -> SessionPhase {
        match (self.step, self.is_encrypted(), self.parent) {
            (Step::LoggingIn, ..) => SessionPhase::LoggingIn,
            (Step::Signing, ..) => SessionPhase::Signing,
            (Step::Signed, ..) => SessionPhase::Signed,
            (Step::Idle, _, Some(_)) => SessionPhase::Stream,
            (Step::Idle, true, None) => SessionPhase::Encrypted,
            (Step::Idle, false, None) => SessionPhase::Plain,
        }
    }

    /// The kind of connection that the text of a login signature names.
    pub fn kind(&self) -> Kind {
        if self.tls.is_some() { Kind::Tls } else { Kind::Plain }
    }
}
