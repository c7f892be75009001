//! The parent: binds, decides, starts, reaps, writes the log. It never reads a byte that came from
//! the network, and parses only orders of one fixed size.
//!
//! | file | noun |
//! |---|---|
//! | `options.rs` `tasks.rs` | the command line, and what it can ask for besides serving |
//! | `ask.rs` | `--reload`: another fived's SIGHUP, and its answer |
//! | `config.rs` `disk.rs` `keys.rs` `catalog.rs` | one configuration: its files, its private keys, what each service needs |
//! | `inspector.rs` | keys, looked at by a process that may see them |
//! | `own_users.rs` | whom fived's own processes run as |
//! | `programs.rs` | the rows' programs, looked at for the warnings |
//! | `run.rs` `queue.rs` | the loop, and whose turn it is |
//! | `context.rs` | what all parts work with: clock, timers, tokens, spawner |
//! | `pipeline.rs` `arrival.rs` | the one way, and whatever goes it |
//! | `backend/` `environment.rs` | what a service's connection is handed to, laid out |
//! | `services.rs` `running.rs` | what starts and what runs, until its last line |
//! | `channel.rs` `net.rs` `nets.rs` `session.rs` `sessions.rs` `standing.rs` | who gives orders, and what is known of them |
//! | `words.rs` `watch.rs` | what net processes say for the log; one that stands still |
//! | `signers.rs` `starts.rs` | the keys processes; how often a process may be started |
//! | `logins.rs` `tries.rs` `places.rs` | who may log in, one try each, and which may run |
//! | `penalties.rs` `accepted.rs` `notices.rs` | what failures cost, what was signed already, what is said of files of keys |
//! | `names.rs` | names of addresses, where a rule asks for them |
//! | `lookup.rs` | the processes that look something up |
//! | `accounts.rs` | users and groups that the configuration did not know when it was read |
//! | `pairs.rs` | the two ends of a connection that net relays |
//! | `children.rs` `descriptors.rs` | the processes, and how near the last descriptor is |
//! | `lines.rs` | the log's lines that tell of clients |
//! | `listeners.rs` `ports.rs` | the sockets of the door, and those of ports of services' own |
//! | `reload.rs` `state.rs` | SIGHUP, SIGUSR1 |
//!
//! No part calls another: each returns what it wants, and `pipeline` takes it there.

mod accepted;
mod accounts;
mod arrival;
mod ask;
mod backend;
mod catalog;
mod channel;
mod children;
mod config;
mod context;
mod descriptors;
mod disk;
mod environment;
mod inspector;
mod keys;
mod lines;
mod listeners;
mod logins;
mod lookup;
mod names;
mod net;
mod nets;
mod notices;
pub mod options;
mod own_users;
mod pairs;
mod penalties;
mod pipeline;
mod places;
mod ports;
mod programs;
mod queue;
mod reload;
mod run;
mod running;
mod services;
mod session;
mod sessions;
mod signers;
mod standing;
mod starts;
mod state;
mod tasks;
mod tries;
mod watch;
mod words;

use crate::log;
use crate::policy::{LogType, SocketKind};
use crate::sys::identity;
use crate::sys::notify;
use crate::sys::output::Output;
use crate::sys::process::{self, Detached};
use crate::sys::rights::{self, Right};
use crate::sys::signal::{Signal, Signals};
use crate::sys::spawn::Spawner;
use config::Read;
use context::Context;
use listeners::Listeners;
use options::{Options, Task};
use pairs::Pairs;
use ports::Ports;
use run::Parent;

/// Wrong or missing configuration, wrong use.
const WRONG: i32 = 1;
/// Refused by the system.
const REFUSED: i32 = 111;

/// What ends a start, told once by its caller.
struct Stop(i32, Vec<String>);

impl Stop {
    fn system(what: &str) -> impl FnOnce(std::io::Error) -> Stop {
        move |e| Stop(REFUSED, vec![format!("{what}: {e}")])
    }
}

/// fived as it is called. Returns its exit status (fived(8)).
pub fn main(words: &[String]) -> i32 {
    let options = match Options::read(words) {
        Ok(o) => o,
        Err(e) => {
            eprintln!("fived: {e}");
            return WRONG;
        }
    };
    if options.task != Task::Serve {
        return tasks::run(&options);
    }
    match serve(options) {
        Ok(()) => 0,
        Err(Stop(status, lines)) => {
            lines.iter().for_each(|l| log::say(l));
            log::finish(200);
            status
        }
    }
}

fn anywhere(path: &str) -> Result<String, Stop> {
    let path = std::path::absolute(path).map_err(Stop::system(path))?;
    Ok(path.to_string_lossy().into_owned())
}

/// Each start that is under way reserves a descriptor; of so many it may have one.
const DESCRIPTORS_A_START: u64 = 16;

fn serve(mut options: Options) -> Result<(), Stop> {
    log::debug(options.debug);
    if options.background {
        // Whoever detaches holds no directory: what was named is found from anywhere.
        options.config = anywhere(&options.config)?;
        options.pidfile = options.pidfile.as_deref().map(anywhere).transpose()?;
    }
    process::own_program();
    let missing = rights::missing().map_err(Stop::system("capabilities"))?;
    if let Some(vital) = missing.iter().find(|r| r.vital) {
        let what = format!(
            "{} is missing: {}; give fived that right, or start it as an ordinary user",
            vital.name, vital.without
        );
        return Err(Stop(REFUSED, vec![what]));
    }
    if let Err(e) = identity::take_own_groups() {
        // Where that is forbidden each service is given its groups all the same, or does not start.
        log::warn(&format!("groups: {e}"));
    }
    // First of all: the descriptors that a child's own will be put at.
    let limit = process::raise_nofile().map_err(Stop::system("descriptor limit"))?;
    let starts = services::STARTING
        .min(usize::try_from(limit / DESCRIPTORS_A_START).unwrap_or(usize::MAX))
        .max(1);
    let mut spawner = Spawner::new(starts).map_err(Stop::system("descriptors"))?;
    let handed = notify::listen_fds().map_err(Stop::system("LISTEN_FDS"))?;
    let Read { config, warnings } = config::read(&options.config, true, None, &mut spawner)
        .map_err(|e| Stop(e.status(), e.lines()))?;
    let mut listeners = Listeners::inherited(handed).map_err(|e| Stop(REFUSED, vec![e]))?;
    let settings = &config.table.settings;
    let unheard = !options.listen.is_empty() && listeners.addresses().next().is_some();
    let wanted = if options.listen.is_empty() { &settings.listen } else { &options.listen };
    listeners.rebound(wanted, settings.mptcp).map_err(|e| Stop(REFUSED, vec![e]))?;
    let mut ports = Ports::default();
    let door: Vec<_> = listeners.addresses().zip(listeners.sockets()).collect();
    let fresh = ports.bind(&config.ports, &door).map_err(|e| Stop(REFUSED, vec![e]))?;
    ports.adopt(&config.ports, fresh);
    drop(door);
    let detached = if options.background {
        Some(process::daemonize().map_err(Stop::system("background"))?)
    } else {
        None
    };
    if detached.is_some() {
        std::env::set_current_dir("/").map_err(Stop::system("/"))?;
    }
    match detached {
        // What the start has to say is told to whoever waits for it, and then to the log.
        Some(_) => log::keep(),
        None => open_log(&settings.log_type, false).map_err(|e| Stop(REFUSED, vec![e]))?,
    }
    let pidfile = options
        .pidfile
        .as_deref()
        .map(Pidfile::write)
        .transpose()
        .map_err(|e| Stop(REFUSED, vec![e]))?;
    let signals =
        Signals::new(&[Signal::Child, Signal::Hup, Signal::Term, Signal::Int, Signal::Usr1])
            .map_err(Stop::system("signals"))?;
    warnings.iter().for_each(|w| log::warn(w));
    if !missing.is_empty() {
        let each: Vec<String> =
            missing.iter().map(|r| format!("{}: {}", r.name, r.without)).collect();
        log::warn(&format!("fived does not have all rights of root: {}", each.join("; ")));
    }
    if unheard {
        log::warn("-l is not used, because the service manager handed over sockets (LISTEN_FDS)");
    }
    config.keys.notes.iter().for_each(|n| log::say(n));
    let log_type = settings.log_type.clone();
    let mut parent = Context::new(options, config, spawner)
        .and_then(|cx| Parent::new(cx, listeners, signals))
        .map_err(Stop::system("poll"))?;
    parent.ports = ports;
    parent.ports.watch(&mut parent.cx).map_err(Stop::system("poll"))?;
    let wants_inet =
        parent.cx.config.table.services().iter().any(|s| s.attributes.socket == SocketKind::Inet);
    match Pairs::open() {
        Ok(pairs) => parent.pairs = pairs,
        Err(e) => {
            // A right of root that is missing was said above. An ordinary user has none of this,
            // and is told where it matters.
            let matters = wants_inet || identity::effective_uid() == 0;
            if matters && !missing.iter().any(Right::makes_namespaces) {
                log::warn(&format!(
                    "network namespace: {e}: network processes have none of their own, and \
                     services of encrypted and multiplexed connections get Unix sockets"
                ));
            }
        }
    }
    parent.announce = Some(Box::new(move || ready(detached, &log_type)));
    let ended = parent.run().map_err(|e| Stop(REFUSED, vec![e]));
    parent.end();
    drop(pidfile);
    ended
}

/// Somebody can connect: whoever waits in the foreground is told, and syslog has the log from now
/// on.
fn ready(detached: Option<Detached>, log_type: &LogType) {
    let Some(detached) = detached else { return };
    log::flush();
    if let Err(e) = open_log(log_type, true) {
        log::warn(&e);
    }
    detached.ready();
}

/// Opens what `log_type` names; a file anew, for it may have been moved away.
fn open_log(log_type: &LogType, background: bool) -> Result<(), String> {
    const SYSLOG: LogType = LogType::Syslog { facility: LogType::DAEMON, level: LogType::INFO };
    let output = match if background && *log_type == LogType::Stderr { &SYSLOG } else { log_type } {
        LogType::Stderr => Output::stderr(),
        LogType::Syslog { facility, level } => {
            Output::syslog(*facility, *level).map_err(|e| format!("log_type: SYSLOG: {e}"))?
        }
        LogType::File(path) => Output::file(path).map_err(|e| format!("log_type: {path}: {e}"))?,
    };
    log::open(output);
    Ok(())
}

/// The file that holds this process's id, for as long as it runs.
struct Pidfile(String);

impl Pidfile {
    fn write(path: &str) -> Result<Pidfile, String> {
        std::fs::write(path, format!("{}\n", std::process::id()))
            .map_err(|e| format!("{path}: {e}"))?;
        Ok(Pidfile(path.into()))
    }
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        // Another one may have written its own over it. Where it is gone already there is nothing
        // to take away.
        if std::fs::read(&self.0)
            .is_ok_and(|id| id == format!("{}\n", std::process::id()).as_bytes())
        {
            let _ = std::fs::remove_file(&self.0);
        }
    }
}
