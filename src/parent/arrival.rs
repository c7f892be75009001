//! A client that asks for a service, with the facts that the parent itself knows. A request begins
//! with it (`Arrival → permit → deliver → ended`), and the log needs parts of it until the end.

use super::addresses::Addresses;
use super::backend::environment::Tls;
use super::config::Config;
use super::config::catalog::Account;
use super::tokens::{NetToken, PortToken, SessionToken};
use crate::policy::{Facts, Peer, ServiceId};
use crate::sys::clock;
use crate::sys::shared::Shared;
use crate::sys::spawn::Passed;
use crate::wire::orders::{Extras, Why};
use crate::wire::run::Terminal;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

/// A relayed connection: its session, and its tag in that session. All of a session are next to
/// each other in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamTag {
    pub session: SessionToken,
    pub tag: u32,
}

/// Who asks for a service, and is told what becomes of that.
#[derive(Debug, Clone, Copy)]
pub enum Requester {
    /// A net process: a plain connection. The net process is answered only if the request is
    /// refused.
    Net(NetToken),
    /// A session, and its tag for this connection.
    Session(StreamTag),
    /// The service's own port: the client itself connected there. The net process that has read its
    /// load balancer's header, and has its socket, too.
    Port(Option<NetToken>),
    /// The service's own port: the program gets the socket itself (`wait`). The client is the
    /// sender of the first datagram, or nobody.
    Wait(PortToken),
}

/// The client, as far as the parent itself knows it.
pub struct Who {
    pub addresses: Addresses,
    pub facts: Facts,
    /// The session's number.
    pub number: u64,
    /// The user who logged in: the account, if it is one of this computer, and the method.
    pub account: Option<(Option<Rc<Account>>, &'static str)>,
    pub tls: Option<Rc<Tls>>,
    pub requester: Requester,
}

/// A connection that asks for a service of this configuration.
pub struct Arrival {
    pub config: Rc<Config>,
    pub service: ServiceId,
    pub who: Who,
    /// The client's own socket. None: net relays, and the parent makes a socket pair.
    pub client: Option<Shared>,
    /// The rules of hosts_access(5) allow it, or none are asked (`hosts_access`).
    pub passed_libwrap: bool,
    /// None: its bytes alone go to the client.
    pub run: Option<Run>,
}

/// What RUN asks for besides a service.
pub struct Run {
    /// The terminal that the client would like.
    pub terminal: Option<Terminal>,
    /// The session that is told how the service ended, and the tag that it knows it by.
    pub reports_to: StreamTag,
}

impl Arrival {
    /// What the log needs of it.
    pub fn record(&self) -> Record {
        let who = &self.who;
        Record {
            peer: who.addresses.peer(),
            host: self
                .config
                .table
                .host(who.facts.host)
                .map_or_else(String::new, |h| h.name.clone()),
            number: who.number,
            user: who.facts.login.as_ref().map(|l| l.name.clone()),
            requester: who.requester,
            reports_to: self.run.as_ref().map(|run| run.reports_to),
            // A turn of the loop serves many: the last of them have all of their time, too.
            at: clock::monotonic(),
        }
    }
}

/// A client at a Unix socket of fived's own, which has sent nothing that anybody has read.
pub struct LocalClient {
    pub socket: Shared,
    pub peer: Peer,
    /// The configuration for which its user was looked up.
    pub asked_for: Option<Rc<Config>>,
}

impl LocalClient {
    pub fn new(socket: Shared, addresses: &Addresses) -> LocalClient {
        LocalClient { socket, peer: addresses.peer(), asked_for: None }
    }
}

/// What the log needs of an arrival.
pub struct Record {
    pub peer: Peer,
    pub host: String,
    /// The session's number.
    pub number: u64,
    pub user: Option<String>,
    pub requester: Requester,
    /// As in [`Run`].
    pub reports_to: Option<StreamTag>,
    pub at: Duration,
}

/// Why nothing was started.
pub struct StartError {
    /// The answer to the client. None: no answer can be sent any more.
    pub reply: Option<Why>,
    pub reason: &'static str,
    pub text: Option<String>,
}

impl StartError {
    /// The system lacks something, or a limit is reached.
    pub fn busy(reason: &'static str, text: Option<String>) -> StartError {
        StartError { reply: Some(Why::Busy), reason, text }
    }

    /// No descriptor could be made for it.
    pub fn no_descriptor(e: io::Error) -> StartError {
        StartError::busy("descriptors", Some(e.to_string()))
    }

    /// Nobody is left who waits for it.
    pub fn gone() -> StartError {
        StartError { reply: None, reason: "gone", text: None }
    }
}

impl From<String> for StartError {
    /// The service cannot be started as it is configured.
    fn from(text: String) -> StartError {
        StartError { reply: Some(Why::Failed), reason: "failed", text: Some(text) }
    }
}

impl From<&str> for StartError {
    fn from(text: &str) -> StartError {
        text.to_string().into()
    }
}

/// What a service gets, and net's ends of it.
pub struct Given {
    /// Its connection: the client's own socket, one end of a pair, or a terminal. Its standard
    /// error, where that is neither the connection nor fived's.
    pub passed: Passed,
    pub net_ends: NetEnds,
}

/// Those ends of a service's connections that net copies from and to.
#[derive(Default)]
pub struct NetEnds {
    /// None: the service has the client's own socket.
    pub connection: Option<Shared>,
    /// Of its standard error; or, where it has a terminal, of the channel for that one's sizes.
    pub second: Option<OwnedFd>,
    /// It has a terminal, whose process has the other end of the connection.
    pub terminal: bool,
    /// How many bytes of fived's own come first on the connection.
    pub greeting: u32,
    /// The service is a daemon that was running already.
    pub server: bool,
}

impl NetEnds {
    /// What net is told of them. `tells_end`: it will be told how the service ends, too.
    pub fn extras(&self, tells_end: bool) -> Extras {
        let NetEnds { terminal, greeting, server, .. } = *self;
        let errors = self.second.is_some() && !terminal;
        Extras { tells_end, errors, terminal, server, greeting, ends_at: None }
    }
}

/// What goes back to the requester.
#[derive(Default)]
pub struct Returned {
    /// The client's own socket.
    pub client: Option<Shared>,
    pub net_ends: NetEnds,
    /// The session will be told how the service ends.
    pub tells_end: bool,
}

/// What became of an arrival, for its requester.
pub struct StartOutcome {
    pub requester: Requester,
    pub service: ServiceId,
    /// Err: the answer to the client, if one can be sent.
    pub result: Result<(), Option<Why>>,
    /// What the client is told: at a port of its own where it was refused; by RUN where the service
    /// was started, because the service itself cannot tell it.
    pub text: Vec<u8>,
    pub returned: Returned,
}
