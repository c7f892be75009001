//! The start of the daemon: from the command line to the loop, and the message to whoever started
//! it that it is ready.

use super::backend::socket_pairs::SocketPairs;
use super::config::keys::Make;
use super::config::own_users;
use super::config::{self, Config, Purpose, Read};
use super::context::Context;
use super::listeners::Listeners;
use super::listeners::bind_error::of_limit;
use super::listeners::bound::Bound;
use super::log_file;
use super::options::Options;
use super::pidfile::Pidfile;
use super::ports::Ports;
use super::ports::bind_again;
use super::ports::port_listeners::PortListeners;
use super::ports::systemd_sockets::SystemdSockets;
use super::run::Parent;
use super::services::turns;
use super::status::{SYSTEM, USAGE};
use crate::log;
use crate::policy::{SocketKind, Table};
use crate::sys::foreign;
use crate::sys::identity;
use crate::sys::notify;
use crate::sys::process::{self, Detached};
use crate::sys::reaper;
use crate::sys::rights::{self, Right};
use crate::sys::signal::{self, Signal, Signals};
use crate::sys::spawn::Spawner;

/// Why fived cannot start: the exit status, and the lines that say why.
pub struct Stop(pub i32, pub Vec<String>);

impl Stop {
    fn system(what: &str) -> impl FnOnce(std::io::Error) -> Stop {
        move |e| Stop(SYSTEM, vec![format!("{what}: {e}{}", of_limit(&e))])
    }

    fn refused(why: String) -> Stop {
        Stop(SYSTEM, vec![why])
    }
}

/// Each pending start of a service reserves two descriptors. For one start there must be this many
/// descriptors in all.
const DESCRIPTORS_A_START: u64 = 32;

/// Those that the daemon takes (fived(8)). With SIGQUIT scripts end xinetd.
fn signals(options: &Options) -> Vec<Signal> {
    let mut all =
        vec![Signal::CHLD, Signal::HUP, Signal::TERM, Signal::INT, Signal::USR1, Signal::USR2];
    all.extend(options.as_xinetd.then_some(Signal::QUIT));
    all
}

/// Serves until a signal ends it. Err: it cannot serve.
pub fn serve(options: Options) -> Result<(), Stop> {
    let mut made = Vec::new();
    start(options, &mut made).map_err(|Stop(status, why)| Stop(status, [made, why].concat()))
}

/// Serves. `made`: lines about what was made for the configuration, as long as they are not logged.
fn start(mut options: Options, made: &mut Vec<String>) -> Result<(), Stop> {
    log::debug(options.debug);
    // A log that cannot be written ends nothing.
    signal::ignore_file_size();
    if options.background {
        // A daemon's working directory is `/`, so paths are made absolute before it changes.
        for path in &mut options.origin.paths {
            *path = absolute(path)?;
        }
        options.pidfile = options.pidfile.as_deref().map(absolute).transpose()?;
    }
    if let Some(path) = &options.pidfile {
        Pidfile::check(path).map_err(|why| Stop(USAGE, vec![why]))?;
    }
    process::own_program();
    foreign::close_elsewhere();
    let rights = missing_rights()?;
    if let Err(e) = identity::take_own_groups() {
        // Each service gets its own groups all the same, or does not start.
        log::warn(&format!("groups: {e}"));
    }
    let mut spawner = spawner()?;
    let (given, mut listeners, make) = inherited()?;
    let (origin, listen, handed) = (&options.origin, &options.listen, listeners.handed());
    let purpose = Purpose { origin, listen, handed: &handed, make, before: None };
    let Read { config, warnings, .. } =
        config::read(purpose, &mut spawner, made).map_err(|e| Stop(e.status(), e.lines()))?;
    let mut ports = Ports::default();
    let in_vain = given.in_vain(&config.ports.plain);
    if !in_vain.is_empty() {
        return Err(Stop(SYSTEM, in_vain));
    }
    ports.listeners.given = given;
    let missing = bind(&config, &options, &mut ports.listeners, &mut listeners)?;
    let detached = detach(&options, &config.table)?;
    reaper::begin();
    let pidfile =
        options.pidfile.as_deref().map(Pidfile::write).transpose().map_err(Stop::refused)?;
    let signals = Signals::new(&signals(&options)).map_err(Stop::system("signals"))?;
    options.notes.iter().chain(&warnings).chain(&missing).for_each(|w| log::warn(w));
    warn_of_rights(&rights);
    config.keys.notes.iter().for_each(|n| log::warn(n));
    made.drain(..).for_each(|n| log::say(&n));
    let mut parent = Context::new(options, config, spawner)
        .and_then(|cx| Parent::new(cx, listeners, signals))
        .map_err(Stop::system("poll"))?;
    parent.cx.pidfile = pidfile;
    parent.ports = ports;
    parent.ports.listeners.watch(&mut parent.cx).map_err(Stop::system("poll"))?;
    parent.ports.again_later(&mut parent.cx, !missing.is_empty());
    open_pairs(&mut parent, &rights);
    let config = parent.cx.config.clone();
    parent.announce = Some(Box::new(move || ready(detached, &config.table)));
    let ended = parent.run().map_err(Stop::refused);
    parent.end();
    ended
}

/// Binds all that the configuration listens on. Returns the ports of inetd.conf and xinetd.conf
/// that could not be, one line each. Err: one of another row, or all of them: another program
/// serves them.
fn bind(
    config: &Config,
    options: &Options,
    ports: &mut PortListeners,
    listeners: &mut Listeners,
) -> Result<Vec<String>, Stop> {
    let mut bound = Bound::new(config, options, ports, listeners).map_err(|l| Stop(SYSTEM, l))?;
    let missing = std::mem::take(&mut bound.missing);
    bound.adopt(config, options, ports, listeners);
    if !missing.is_empty() && listeners.all().is_empty() && ports.addresses().next().is_none() {
        return Err(Stop(SYSTEM, missing));
    }
    Ok(bind_again::warnings(missing))
}

/// The sockets of the service manager: those for rows, fived's own listeners, and whether a
/// certificate is made, because there may be such listeners.
fn inherited() -> Result<(SystemdSockets, Listeners, Make), Stop> {
    let handed = notify::listen_fds().map_err(Stop::system("LISTEN_FDS"))?;
    let make = if handed.is_empty() { Make::WhereTls } else { Make::Always };
    let (given, handed) = SystemdSockets::of(handed);
    let listeners = Listeners::inherited(handed).map_err(Stop::refused)?;
    Ok((given, listeners, make))
}

fn absolute(path: &str) -> Result<String, Stop> {
    let path = std::path::absolute(path).map_err(Stop::system(path))?;
    Ok(path.to_string_lossy().into_owned())
}

/// The rights of root that fived does not have. Err: one of them is vital.
fn missing_rights() -> Result<Vec<Right>, Stop> {
    if let Some(lacks) = rights::namespace_lacks(&own_users::NUMBERS) {
        return Err(Stop::refused(format!(
            "user namespace: {lacks}: map 65536 users and groups into it (newuidmap, newgidmap), or start fived as an ordinary user"
        )));
    }
    let missing = rights::missing().map_err(Stop::system("capabilities"))?;
    match missing.iter().find(|r| r.vital) {
        None => Ok(missing),
        Some(vital) => Err(Stop::refused(format!(
            "{} is missing: {}; give fived that right, or start it as an ordinary user",
            vital.name, vital.without
        ))),
    }
}

fn warn_of_rights(missing: &[Right]) {
    if !missing.is_empty() {
        let each: Vec<String> =
            missing.iter().map(|r| format!("{}: {}", r.name, r.without)).collect();
        log::warn(&format!("fived does not have all rights of root: {}", each.join("; ")));
    }
}

/// Makes the spawner. It must be made before anything else opens a descriptor, because it reserves
/// the lowest ones, which a child copies.
fn spawner() -> Result<Spawner, Stop> {
    let limit = process::raise_nofile().map_err(Stop::system("descriptor limit"))?;
    let starts = turns::STARTING
        .min(usize::try_from(limit / DESCRIPTORS_A_START).unwrap_or(usize::MAX))
        .max(1);
    Spawner::new(starts).map_err(Stop::system("descriptors"))
}

/// Without `-b`, opens the log. With `-b`, goes on in the background, and keeps the lines of the
/// log until fived serves.
fn detach(options: &Options, table: &Table) -> Result<Option<Detached>, Stop> {
    if !options.background {
        log_file::open(table, false).map_err(Stop::refused)?;
        return Ok(None);
    }
    let detached = process::daemonize().map_err(Stop::system("background"))?;
    std::env::set_current_dir("/").map_err(Stop::system("/"))?;
    // Whoever waits for the start must see these lines first.
    log::keep();
    Ok(Some(detached))
}

/// Opens the network namespace in which the socket pairs for `socket = inet` are made. Warns if
/// there is none and that matters.
fn open_pairs(parent: &mut Parent, missing: &[Right]) {
    let wants_inet =
        parent.cx.config.table.services().iter().any(|s| s.attributes.socket == SocketKind::Inet);
    match SocketPairs::open() {
        Ok(pairs) => parent.pairs = pairs,
        Err(e) => {
            // If a right of root is missing, there was a warning about that. An ordinary user never
            // has a namespace, and is warned only if a row needs one.
            let matters = wants_inet || identity::effective_uid() == 0;
            if matters && !missing.iter().any(Right::makes_namespaces) {
                log::warn(&format!(
                    "network namespace: {e}: services of encrypted and multiplexed connections \
                     get Unix sockets"
                ));
            }
        }
    }
}

/// Clients can connect now. In the background, opens the log and lets the process that was called
/// exit.
fn ready(detached: Option<Detached>, table: &Table) {
    let Some(detached) = detached else { return };
    log::flush();
    if let Err(e) = log_file::open(table, true) {
        log::warn(&e);
    }
    detached.ready();
}
