//! A net process: what is known of it, and how its child is made.

use crate::parent::addresses::Addresses;
use crate::parent::channel::{Broken, Channel};
use crate::parent::config::Config;
use crate::parent::config::catalog;
use crate::parent::context::Context;
use crate::parent::listeners::Listeners;
use crate::parent::tokens::{NetLogToken, SessionToken};
use crate::policy::{HostId, ServiceId};
use crate::sys::bounded_calls::BoundedCalls;
use crate::sys::gauges::{Gauges, HandedOver, OtherCopy};
use crate::sys::message::Fds;
use crate::sys::shared::Shared;
use crate::sys::spawn::{BadWord, CList, Child, Env, Launch, Stderr};
use crate::wire::orders::{ClientAddresses, FromNet, NetPhase, Refused, ToNet};
use crate::wire::roles;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

/// How long the parent waits for a call that takes the lock of a client's socket. Each client is
/// lost whose call takes longer, so it is long even for a computer that is busy.
const CALL_MAX: Duration = Duration::from_secs(1);

/// What a net process is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Starting,
    Serving,
    /// It finishes what it has.
    Draining,
    /// It has sent its last order, and waits for the answers to the earlier ones.
    Finished,
    /// The parent has sent it the last of those, so it will end.
    Released,
    /// It hung and the parent killed it. Another replaces it at once, even if the kernel cannot end
    /// this one yet.
    Killed,
}

/// Its copies of the listeners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerCopies {
    NotGiven,
    Given,
    Closed,
}

/// The listeners where a client can have come, as a net process says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CameTo {
    /// One of fived's own.
    Own,
    /// The services' own port of this number.
    Tls(u32),
    /// Any of both.
    Any,
}

/// Is its process there?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessState {
    Running,
    /// The parent has ended it for an error, which is logged. Its orders do not count any more: it
    /// may live for as long as somebody keeps the kernel from ending it, and others may have its
    /// channel.
    BeingEnded,
    /// It has ended. Its last orders may still be read.
    Ended,
}

/// What an order of a net process asks other parts to do.
pub enum Request {
    /// Nothing: the order was for this part alone.
    Done,
    /// A plain connection asks for a service.
    /// `said`, here and below: its addresses, as net says them.
    Start { config: Rc<Config>, service: ServiceId, client: Shared, said: ClientAddresses },
    /// A client asked for a built-in, or for TLS.
    Session(NewClient),
    /// A session of this net process asks for a service on its client's own socket. None: the
    /// parent had no descriptor for that.
    StartOnClient { session: SessionToken, what: (ServiceId, HostId), client: Option<Shared> },
    /// A load balancer that came to a service's own port has said who its client is.
    AtPort { config: Rc<Config>, client: Shared, said: ClientAddresses },
    /// Net refused a request itself.
    Refused(Rc<Config>, Refused),
    /// A rule asks for the name of this client's address.
    Name {
        config: Rc<Config>,
        /// By both of them net knows the client again.
        client: u32,
        generation: u32,
        socket: Shared,
        said: ClientAddresses,
    },
    /// It serves from now on.
    Serves,
}

/// A client that a net process has handed over to begin a session.
pub struct NewClient {
    pub config: Rc<Config>,
    pub socket: Shared,
    /// The pair through which net asks for the session's channel.
    pub pair: Shared,
    /// The number of the services' own port to which the client came.
    pub tls_port: Option<u32>,
    /// Its addresses, as net says them.
    pub said: ClientAddresses,
}

/// What the parent knows about a net process.
pub struct Net {
    pub child: Child,
    pub channel: Channel,
    pub config: Rc<Config>,
    pub state: State,
    /// When the parent sent it a ping, if it has sent no order since.
    pub pinged: Option<Duration>,
    /// The parent has told it something since its last order: a client may wait for it.
    pub unheard: bool,
    /// A socket that is closed when the process has closed its own.
    pub closing: Option<Shared>,
    /// The token of the socket that its lines for the log come over (`log_lines`).
    pub log: NetLogToken,
    pub listeners: ListenerCopies,
    /// It drains, and none of its clients begins anything after this time.
    pub begins_until: Option<Duration>,
    /// Where they listen: at fived's own ports, and at services' own ports by number.
    pub own_ports: Vec<SocketAddr>,
    pub tls_ports: Vec<SocketAddr>,
    pub process: ProcessState,
    /// Makes the calls that take the locks of sockets that this process has, too.
    pub calls: BoundedCalls,
    /// What it counts. None: there was no memory for that.
    pub gauges: Option<Rc<Gauges>>,
    /// How many clients' sockets its loop has handed over, each of which it closes then.
    pub handed_over: u64,
}

impl Net {
    /// One whose process has just been started.
    pub fn new(child: Child, channel: Channel, config: Rc<Config>, log: NetLogToken) -> Net {
        let mut calls = BoundedCalls::default();
        calls.guard_for(CALL_MAX);
        Net {
            child,
            channel,
            config,
            state: State::Starting,
            pinged: None,
            unheard: false,
            closing: None,
            log,
            listeners: ListenerCopies::NotGiven,
            begins_until: None,
            own_ports: Vec::new(),
            tls_ports: Vec::new(),
            process: ProcessState::Running,
            calls,
            gauges: None,
            handed_over: 0,
        }
    }

    /// What tells whether it has closed its copy of the client's socket that it has handed over
    /// last, or of this session's. None: it does not count.
    pub fn copy(&self, session: Option<SessionToken>) -> Option<OtherCopy> {
        let before = HandedOver::Loop(self.handed_over.saturating_sub(1));
        let of = session.map_or(before, |s| HandedOver::Session(s.number()));
        self.gauges.clone().map(|gauges| OtherCopy::new(gauges, of))
    }

    /// Which orders it may give now.
    pub fn phase(&self) -> NetPhase {
        match self.state {
            State::Starting => NetPhase::Starting,
            State::Serving => NetPhase::Serving,
            State::Draining | State::Finished | State::Released | State::Killed => {
                NetPhase::Draining
            }
        }
    }

    /// Its next order, and what comes with it. None: there is none now.
    pub fn receive(&mut self, cx: &mut Context) -> Result<Option<(FromNet, Fds)>, Broken> {
        if self.process == ProcessState::BeingEnded || self.channel.is_behind() {
            // While net does not read its answers, the parent reads no order of it, because orders
            // bring clients' sockets with them.
            return Ok(None);
        }
        if !cx.can_receive(&self.channel) || self.channel.is_held_up() {
            self.channel.try_again();
            return Ok(None);
        }
        let received = self.channel.receive::<FromNet>(&self.phase())?;
        if let Some((order, _)) = &received {
            (self.pinged, self.unheard) = (None, false);
            let hands_over = matches!(order, FromNet::Start { .. } | FromNet::AtPort { .. });
            self.handed_over += u64::from(hands_over);
        }
        Ok(received)
    }

    /// Hands it the listeners.
    pub fn give(&mut self, cx: &Context, listeners: &Listeners) -> Result<(), Broken> {
        self.own_ports = listeners.addresses().collect();
        self.tls_ports = listeners.tls.addresses().collect();
        let own = listeners.sockets().map(|socket| (None, socket));
        let tls = listeners.tls.sockets().zip(0..).map(|(socket, n)| (Some(n), socket));
        for (tls_port, socket) in own.chain(tls) {
            self.channel.send(cx.registry(), &ToNet::Listener { tls_port }, &[socket])?;
        }
        Ok(())
    }

    /// Can the client between these addresses have come there? (No other socket can have a
    /// listener's address: one that a user of this computer has connected elsewhere, and that is no
    /// client from there, has another.)
    pub fn admits(&self, own: &Addresses, came_to: CameTo) -> bool {
        // A client of a Unix socket has no address.
        let Some((_, local)) = own.internet() else { return true };
        let takes = |l: &SocketAddr| {
            let ip = l.ip().to_canonical();
            l.port() == local.port() && (ip == local.ip() || ip.is_unspecified())
        };
        let at_own = || self.own_ports.iter().any(takes);
        match came_to {
            CameTo::Tls(n) => self.tls_ports.get(n as usize).is_some_and(takes),
            CameTo::Own => at_own(),
            CameTo::Any => at_own() || self.tls_ports.iter().any(takes),
        }
    }

    /// Kills it, and with it every connection that it relays.
    pub fn end(&self) {
        self.child.kill();
    }
}

/// Starts one. `channel`: its end of the channel; `log`: its standard error.
pub fn spawn(
    cx: &mut Context,
    config: &Config,
    channel: &OwnedFd,
    log: &OwnedFd,
) -> Result<Child, String> {
    let text = |e: BadWord| e.to_string();
    let argv = CList::new([roles::NET]).map_err(text)?;
    let env = environment(cx.options.debug, config).map_err(text)?;
    let launch = Launch {
        stderr: Stderr::Connection,
        connection: Some(log.as_fd()),
        extra: Some(channel.as_fd()),
        second: Some(config.archive.as_fd()),
        ..catalog::role(&argv, &env)
    };
    cx.spawner.start(&launch).map_err(|f| f.to_string())
}

/// glibc keeps freed memory for each thread, and that would be most of what a session's thread
/// holds while it waits. It also keeps the stacks of up to 40 MiB of threads that have ended: a few
/// are enough, because net keeps a few threads itself (`net::threads`).
const TUNABLES: &[u8] = b"glibc.malloc.tcache_count=0:glibc.pthread.stack_cache_size=1048576";

fn environment(debug: usize, config: &Config) -> Result<CList, BadWord> {
    let mut env = Env::new();
    let role = roles::Net { debug, ids: config.own_users.map(|o| o.net) };
    env.extend(role.variables())?;
    env.push("GLIBC_TUNABLES", TUNABLES)?;
    for name in ["RUST_LOG", "TZ"] {
        if let Ok(value) = std::env::var(name) {
            env.push(name, value.as_bytes())?;
        }
    }
    Ok(env.finish())
}
