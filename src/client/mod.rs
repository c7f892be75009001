//! five: the session client (five(1)). "Your computer connects with another computer; your
//! applications use that session just as they do today."
//!
//! ```text
//! application <-> five <== one session ==> fived <-> service
//! ```
//!
//! The process that a person calls reads options and configuration ([`options`], `config`,
//! `target`), finds the session's holder or makes the session (`rendezvous`), hands its standard
//! input and output over (`caller`, `stdio`) and waits to be told how it ended. It sends nothing to
//! a server that is not trusted (`trust`), reads no private key (`keys`), and forks while it has
//! one thread: the holder (`holder`) is the copy that has the session.
//!
//! | file | noun |
//! |---|---|
//! | `options.rs`, `config.rs`, `target.rs` | what is wanted |
//! | `dial.rs`, `server.rs`, `trust.rs`, `known_hosts.rs` | a connection, TLS on it, to whom |
//! | `keys.rs`, `open.rs` | logging in; a whole session |
//! | `rendezvous.rs`, `holder/` | one session a computer |
//! | `caller.rs`, `stdio.rs`, `forward.rs` | calls on it |
//! | `plain.rs` | RFC 1078 alone |

mod caller;
mod config;
mod dial;
pub mod error;
mod forward;
mod holder;
mod keys;
mod known_hosts;
mod messages;
mod open;
pub mod options;
mod paths;
mod plain;
mod rendezvous;
mod server;
mod stdio;
mod target;
mod trust;

use crate::sys::poll::{self, Poll};
use crate::sys::signal::{self, Signal, Signals};
use crate::sys::{message, process, socket};
use crate::wire::builtins::{self, HELP};
use crate::wire::handover::{Ask, MESSAGE_MAX, Tell};
use crate::wire::reply;
use caller::{Caller, Ended, News};
use error::Error;
use forward::Listener;
use open::Request;
use options::{Options, Order, Wanted};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use stdio::Stdio;
use target::Target;

/// What a user should know who is refused a service and has not logged in.
const HINT_NOBODY: &str = " (nobody is logged in: -l USER may change that)";
/// Bytes of a list of services at most: a table of 100,000 names is shorter.
const LIST_MAX: usize = 8 * 1024 * 1024;

/// The program's whole life; its exit status.
pub fn main(words: &[String]) -> i32 {
    process::keep_memory_private();
    signal::heed_children();
    let o = match options::read(words) {
        Ok(Wanted::Help) => return print(&options::help()),
        Ok(Wanted::Version) => return print(concat!("five ", env!("CARGO_PKG_VERSION"), "\n")),
        Ok(Wanted::Run(o)) => o,
        Err(error) => return tell(&error),
    };
    messages::set(match (o.quiet, o.steps) {
        (_, true) => messages::Level::Steps,
        (true, false) => messages::Level::Quiet,
        (false, false) => messages::Level::Usual,
    });
    match run(&o) {
        Ok(()) => 0,
        Err(error) => tell(&error),
    }
}

fn tell(error: &Error) -> i32 {
    say("", error);
    error.status()
}

/// What went wrong, after what it is about.
fn say(about: &str, error: &Error) {
    let text = format!("{about}{error}");
    if error.is_distrust() { messages::insist(&text) } else { messages::say(&text) }
}

fn print(text: &str) -> i32 {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => 0,
        Err(_) => error::NO_SESSION,
    }
}

fn run(o: &Options) -> Result<(), Error> {
    let t = Target::new(o)?;
    if let Some(order) = o.order {
        return self::order(&t, order);
    }
    let stays = o.only_forward || !o.forwards.is_empty();
    match &o.service {
        None if !stays => list(&t, o.plain),
        service => serve(&t, o, service.as_deref()),
    }
}

/// What standing sessions are asked for (-O): the one that takes calls, and those that drain.
fn order(t: &Target, order: Order) -> Result<(), Error> {
    let mut none = true;
    for holder in rendezvous::find_all(&t.socket()?)? {
        none &= !ask(t, &holder, order)?;
    }
    if none { Err(Error::NoSession { place: t.who() }) } else { Ok(()) }
}

/// Asks one holder. False: it has just ended.
fn ask(t: &Target, holder: &rendezvous::Channel, order: Order) -> Result<bool, Error> {
    let ask = match order {
        Order::Check => Ask::Check,
        Order::List => Ask::List,
        Order::Exit => Ask::Exit,
    };
    let silent = |why| Err(Error::Lost { what: t.who(), why });
    if let Some(why) = holder.stopped() {
        return silent(why);
    }
    if message::send_message(holder.fd.as_fd(), &ask.encode(), &[], true).is_err() {
        return Ok(false);
    }
    let mut bytes = [0; MESSAGE_MAX];
    loop {
        let mut polls = [Poll::new(holder.fd.as_fd(), true, false)];
        if poll::wait(&mut polls, Some(rendezvous::HOLDER_TIMEOUT))
            .map_err(Error::system("poll"))?
            == 0
        {
            return silent(holder.stopped().unwrap_or_else(|| rendezvous::SILENT.into()));
        }
        let tell = match message::receive_message(holder.fd.as_fd(), &mut bytes, true) {
            Ok((n @ 1.., _)) => Tell::decode(&bytes[..n]),
            _ => None,
        };
        match tell {
            Some(Tell::State { text }) => {
                print(&format!("{text}\n"));
                if order == Order::Check {
                    return Ok(true);
                }
            }
            Some(Tell::Done) => return Ok(true),
            // Its end is what was asked for.
            None => return Ok(order == Order::Exit),
            Some(_) => return Ok(false),
        }
    }
}

/// The services there, one a line.
fn list(t: &Target, plain: bool) -> Result<(), Error> {
    let all = if plain { plain::list(t)? } else { names(t)? };
    let (mut shown, all) = (String::new(), String::from_utf8_lossy(&all));
    // xinetd knows no HELP. No name has a blank.
    if let Some(said) =
        all.lines().next().and_then(|l| l.strip_prefix('-')).filter(|l| l.contains(' '))
    {
        return Err(Error::Service {
            service: HELP.into(),
            said: crate::wire::answer::words(said.as_bytes()),
            hint: "",
        });
    }
    for name in all.lines() {
        // xinetd lists itself and puts a NUL at the end.
        let name = name.trim_matches('\0');
        let builtin = builtins::named(name.as_bytes()).is_some_and(|row| row.listed);
        if !name.is_empty() && !builtin && !name.chars().any(char::is_control) {
            shown.push_str(name);
            shown.push('\n');
        }
    }
    match std::io::stdout().write_all(shown.as_bytes()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => die_unread(),
        written => written.map_err(Error::system("standard output")),
    }
}

/// What HELP says.
fn names(t: &Target) -> Result<Vec<u8>, Error> {
    let here = || Error::system("socket");
    let (near, far) = socket::pair().map_err(here())?;
    let mut caller = Caller::new(t);
    let input = process::null().map_err(here())?;
    let request = Request { host: t.virtual_host.clone(), service: None };
    let tag = caller.call(request, false, vec![input, far])?;
    let (mut near, mut all) = (UnixStream::from(near), Vec::new());
    loop {
        let mut polls: Vec<Poll> = caller.polls().collect();
        polls.push(Poll::new(near.as_fd(), true, false));
        poll::wait(&mut polls, caller.timeout()).map_err(Error::system("poll"))?;
        let said = polls.last().is_some_and(Poll::readable);
        drop(polls);
        let mut bytes = [0; 4096];
        if said {
            let n = near.read(&mut bytes).map_err(here())?;
            all.extend_from_slice(&bytes[..n]);
            if all.len() > LIST_MAX {
                return Err(Error::NotFived {
                    place: t.place(),
                    said: "a list without end".into(),
                });
            }
        }
        for (_, news) in caller.hear().into_iter().filter(|(told, _)| *told == tag) {
            if let News::Ended(ended) = news? {
                near.read_to_end(&mut all).map_err(here())?;
                return judged(t, HELP, ended).map(|()| all);
            }
        }
    }
}

/// A call's end as this program's.
fn judged(t: &Target, service: &str, ended: Ended) -> Result<(), Error> {
    match ended {
        Ended::Well => Ok(()),
        Ended::Unread => die_unread(),
        Ended::Lost(why) => Err(Error::Lost { what: t.place(), why }),
        Ended::Refused(said) => {
            let unknown = said.starts_with(reply::refusal(reply::NOT_AVAILABLE));
            let hint = if unknown && t.user.is_none() { HINT_NOBODY } else { "" };
            Err(Error::Service { service: service.into(), said, hint })
        }
    }
}

/// Ends as every program does whose output nobody reads: by SIGPIPE.
fn die_unread() -> ! {
    signal::die_of_broken_pipe();
    std::process::exit(error::NO_SESSION)
}

/// A service on standard input and output, forwards, or both; forwards alone until a signal comes.
fn serve(t: &Target, o: &Options, service: Option<&str>) -> Result<(), Error> {
    let listeners = listen(o, t)?;
    if o.plain {
        return serve_plainly(t, o, service, &listeners);
    }
    let mut caller = Caller::new(t);
    let request =
        |service: &str| Request { host: t.virtual_host.clone(), service: Some(service.into()) };
    let (mut stdio, mut own, mut all) = (Stdio::default(), None, Forwarded::new());
    if let Some(service) = service {
        let (ours, fds) = Stdio::open(o.no_input)?;
        stdio = ours;
        own = Some(caller.call(request(service), false, fds)?);
    } else {
        caller.connect()?;
    }
    // Sockets in the file system must not stay behind.
    let signals = if listeners.is_empty() { None } else { Some(stops()?) };
    loop {
        let mut polls: Vec<Poll> = stdio.polls().to_vec();
        polls.push(signals.as_ref().map_or(Poll::none(), |s| Poll::new(s.as_fd(), true, false)));
        polls.extend(listeners.iter().map(|l| Poll::new(l.fd.as_fd(), true, false)));
        polls.extend(caller.polls());
        poll::wait(&mut polls, caller.timeout()).map_err(Error::system("poll"))?;
        let ready = [polls[0].readable(), polls[1].writable(), polls[2].readable()];
        let (told, arrived) = (
            polls[3].readable(),
            polls[4..4 + listeners.len()].iter().map(Poll::readable).collect::<Vec<_>>(),
        );
        drop(polls);
        if stdio.copy(ready).is_err() {
            die_unread();
        }
        if told && let Some(came) = signals.as_ref().and_then(Signals::next) {
            drop((listeners, signals));
            signal::raise(came.signal);
            return Ok(());
        }
        for l in listeners.iter().zip(arrived).filter(|(_, k)| *k).map(|(l, _)| l) {
            forward(&mut caller, l, request(&l.service), &mut all);
        }
        for (tag, news) in caller.hear() {
            if own == Some(tag) {
                match news? {
                    News::Started => {
                        messages::step(&format!("{}: started", service.unwrap_or_default()));
                        stdio.let_go();
                    }
                    News::Ended(ended) => {
                        if stdio.finish().is_err() {
                            die_unread();
                        }
                        return judged(t, service.unwrap_or_default(), ended);
                    }
                }
            } else {
                forwarded(t, tag, news, &mut all);
            }
        }
    }
}

/// What ends forwards. Whatever started us may have had some ignored (nohup): they stay so, a
/// blocked one would be heard.
fn stops() -> Result<Signals, Error> {
    let handled = [Signal::Int, Signal::Term, Signal::Hup].into_iter().filter(|s| !s.is_ignored());
    Signals::new(&handled.collect::<Vec<_>>()).map_err(Error::system("signals"))
}

/// The listeners of the command line. Those of the configuration are the holder's; with --plain,
/// where there is no holder, they are this process's as well.
fn listen(o: &Options, t: &Target) -> Result<Vec<Listener>, Error> {
    let mut all = Vec::new();
    for f in &o.forwards {
        all.extend(Listener::open(f)?);
    }
    if o.plain {
        all.extend(forward::open_all(&t.forwards));
    }
    all.iter().for_each(Listener::announce);
    Ok(all)
}

/// Connections of applications, by their calls' tags: what each is called in messages, and its
/// service.
type Forwarded = BTreeMap<u32, (String, String)>;

/// An application has connected to a forward.
fn forward(caller: &mut Caller, l: &Listener, request: Request, all: &mut Forwarded) {
    let Some(app) = l.accept_or_rest() else { return };
    match caller.call(request, true, vec![app]) {
        Ok(tag) => drop(all.insert(tag, (l.name.clone(), l.service.clone()))),
        Err(error) => say(&format!("{}: ", l.name), &error),
    }
}

/// What became of an application's connection: its end is told to the application itself, more only
/// where something is wrong.
fn forwarded(t: &Target, tag: u32, news: Result<News, Error>, all: &mut Forwarded) {
    if matches!(news, Ok(News::Started)) {
        return;
    }
    let Some((name, service)) = all.remove(&tag) else { return };
    let ended = match news {
        Ok(News::Ended(Ended::Unread) | News::Started) => Ok(()),
        Ok(News::Ended(ended)) => judged(t, &service, ended),
        Err(error) => Err(error),
    };
    if let Err(error) = ended {
        say(&format!("{name}: "), &error);
    }
}

fn serve_plainly(
    t: &Target,
    o: &Options,
    service: Option<&str>,
    listeners: &[Listener],
) -> Result<(), Error> {
    std::thread::scope(|scope| match service {
        None => plain::forwards(t, listeners),
        Some(service) => {
            if !listeners.is_empty() {
                scope.spawn(|| {
                    plain::forwards(t, listeners).map_err(|error| messages::say(&error.to_string()))
                });
            }
            let ended = plain::service(t, service, o.no_input);
            // The forwards end with the service, whatever is on them.
            std::process::exit(ended.map_or_else(|error| tell(&error), |()| 0))
        }
    })
}
