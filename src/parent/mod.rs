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
mod log_file;
mod logins;
mod lookup;
mod names;
mod net;
mod nets;
mod not_read;
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
mod start;
mod starts;
mod state;
mod status;
mod tasks;
mod tries;
mod watch;
mod words;

use crate::log;
use options::{Options, Task};
use start::Stop;

/// fived as it is called. Returns its exit status (fived(8)).
pub fn main(words: &[String]) -> i32 {
    let options = match Options::read(words) {
        Ok(o) => o,
        Err(e) => {
            eprintln!("fived: {e}");
            return status::WRONG;
        }
    };
    if options.task != Task::Serve {
        return tasks::run(&options);
    }
    match start::serve(options) {
        Ok(()) => 0,
        Err(Stop(status, lines)) => {
            lines.iter().for_each(|l| log::say(l));
            log::finish(200);
            status
        }
    }
}
