//! What fived is called for: it serves, or checks a configuration, prints it, decides a query, or
//! makes a line for the password file.

use super::config::certificate::Pair;
use super::config::keys::Make;
use super::config::{self, Config, Purpose, Read};
use super::log_file;
use super::options::{Inspection, Options, Task, help};
use super::start::{self, Stop};
use super::status::{SYSTEM, USAGE, print_error};
use crate::log;
use crate::policy::{Facts, Grammar, HostId, PeerName, Query, Reached};
use crate::sys::spawn::Spawner;
use crate::sys::{clock, identity};
use crate::wire::peer::Peer;
use std::io::{self, BufRead, Write};

/// Does what fived was called for. Returns the exit status (fived(8)).
pub fn run(options: Options) -> i32 {
    let done = match &options.task {
        Task::Serve => return serve(options),
        Task::Inspect(what) => return inspect(&options, what),
        Task::Reload => return super::reload::ask::reload(options.pidfile.as_deref()),
        Task::Help => say(&help()),
        Task::Usage(usage) => say(&format!("{usage}\n")),
        Task::Version => say(&format!("fived {}\n", env!("CARGO_PKG_VERSION"))),
        Task::Passwd(name) => match crate::login::passwd_line(name) {
            Ok(line) => say(&format!("{line}\n")),
            Err(e) => {
                print_error(&format!("fived: {e}"));
                return USAGE;
            }
        },
    };
    status_of(done)
}

/// The exit status of what was printed.
fn status_of(done: io::Result<i32>) -> i32 {
    match done {
        Ok(status) => status,
        // The reader has closed the pipe, as head(1) does. That is no failure of fived.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(e) => {
            print_error(&format!("fived: {e}"));
            SYSTEM
        }
    }
}

fn serve(options: Options) -> i32 {
    match start::serve(options) {
        Ok(()) => 0,
        Err(Stop(status, lines)) => {
            lines.iter().for_each(|l| log::say(l));
            log::finish(200);
            status
        }
    }
}

/// Reads the configuration and says this of it.
fn inspect(options: &Options, what: &Inspection) -> i32 {
    let fingerprint = *what == Inspection::Fingerprint;
    let mut spawner = match Spawner::new(1) {
        Ok(spawner) => spawner,
        Err(e) => return status_of(Err(e)),
    };
    let mut made = Vec::new();
    let make = if fingerprint { Make::Always } else { Make::Never };
    let (origin, listen) = (&options.origin, &options.listen);
    let purpose = Purpose { origin, listen, handed: &[], make, before: None };
    let read = config::read(purpose, &mut spawner, &mut made);
    made.iter().for_each(|m| print_error(m));
    match read {
        Ok(read) => status_of(tell(what, read)),
        Err(e) => {
            let status = e.status();
            e.lines().iter().for_each(|line| print_error(line));
            if fingerprint && identity::effective_uid() != 0 {
                // five tells people to run this, on a computer where they may be nobody in
                // particular.
                print_error("fived: run --fingerprint as root for the fived that root runs");
            }
            status
        }
    }
}

/// A line for each certificate; that of a host names it.
fn fingerprints(config: &Config) -> Vec<String> {
    let keys = &config.keys;
    let line = |(pair, number): (&Pair, u32)| {
        let hosts = keys.chosen.iter().zip(config.table.hosts()).filter(|(n, _)| **n == number);
        // The default host's is that of all hosts without one.
        let names = hosts.flat_map(|(_, host)| &host.names).filter(|_| number > 0);
        let words = names.fold(pair.fingerprint(), |words, name| format!("{words} {name}"));
        format!("{words}\n")
    };
    keys.pairs.iter().zip(0..).map(line).collect()
}

fn tell(what: &Inspection, read: Read) -> io::Result<i32> {
    let Read { config, warnings, left_out } = read;
    match what {
        Inspection::Test => {
            warnings.iter().for_each(|w| print_error(&format!("warning: {w}")));
            let log = log_file::check(&config.table);
            log.iter().for_each(|wrong| print_error(wrong));
            if left_out || log.is_some() {
                return Ok(USAGE);
            }
            say("configuration OK\n")
        }
        Inspection::Fingerprint => {
            warnings.iter().for_each(|w| print_error(w));
            if let Some(why) = config.keys.why_unkept() {
                // The key is lost when this command ends: no server will have it, so nobody is to
                // be told its fingerprint.
                print_error(&format!(
                    "{why}: no certificate can be kept there, so there is no fingerprint to print"
                ));
                return Ok(SYSTEM);
            }
            config.keys.notes.iter().for_each(|n| print_error(n));
            fingerprints(&config).iter().try_for_each(|line| say(line).map(drop))?;
            Ok(0)
        }
        Inspection::Decide(query) if query == "-" => {
            for line in io::stdin().lock().split(b'\n') {
                let line = line?;
                let line = line.strip_suffix(b"\r").unwrap_or(&line);
                let text = std::str::from_utf8(line).map_err(|_| "not UTF-8".to_string());
                let answer = text
                    .and_then(|text| decide(&config, text))
                    .unwrap_or_else(|e| format!("error {e}"));
                say(&format!("{answer}\n"))?;
            }
            Ok(0)
        }
        Inspection::Decide(query) => match decide(&config, query) {
            Ok(answer) => say(&format!("{answer}\n")),
            Err(e) => {
                print_error(&format!("fived: -C: {e}"));
                Ok(USAGE)
            }
        },
        Inspection::Table => {
            // What is printed may serve otherwise than the program whose file was read.
            let (origin, s) = (&config.origin, &config.table.settings);
            if origin.grammar != Grammar::Fived || !s.inetd.is_empty() || !s.xinetd.is_empty() {
                warnings.iter().for_each(|w| print_error(&format!("warning: {w}")));
            }
            say(&config.effective().print())
        }
    }
}

fn say(text: &str) -> io::Result<i32> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(0)
}

/// The policy's decision about a query, for a client with exactly the facts in it.
fn decide(config: &config::Config, text: &str) -> Result<String, String> {
    let query = Query::read(text)?;
    let host = match &query.host {
        None => HostId::DEFAULT,
        Some(name) => config
            .table
            .host_named(name.as_bytes())
            .ok_or_else(|| format!("host={name}: no such host"))?,
    };
    let own = || Peer::Address(config.table.own_address(&query, host));
    let peer = query.peer.unwrap_or_else(own);
    // Who connects to a Unix socket counts as encrypted, and is logged in as the process's user.
    let (here, account) = match peer {
        Peer::User(uid) => (true, identity::by_uid(uid).map(|u| u.name)),
        Peer::Nobody | Peer::Address(_) => (false, None),
    };
    let login = query.user.as_deref().or(account.as_deref()).map(|name| {
        let account = config.catalog.account(name).filter(|a| a.user.name == name);
        config.login(name, account.as_deref())
    });
    let facts = Facts {
        peer,
        host,
        encrypted: query.tls || here,
        login,
        minute: clock::minute_of_day(),
        peer_name: PeerName::None,
        reached: Reached::ByName,
    };
    Ok(config.table.decide(&query, &facts))
}
