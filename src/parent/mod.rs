//! The parent: binds, decides, starts, reaps, writes the log. It never reads a byte that came from
//! the network, and parses only orders of one fixed size.
//!
//! | file | noun |
//! |---|---|
//! | `options` `status` `tasks` | the command line, the exit statuses, and the tasks besides serving |
//! | `start` | from the command line to the loop |
//! | `ask` | `--reload`: sends SIGHUP to the running fived and prints its answer |
//! | `config` `not_read` | one configuration, read whole, or why there is none |
//! | `disk` `keys` `catalog` | its files, its private keys, what each service needs to start |
//! | `own_pair` `certificate` | the certificate that fived makes for itself; what is known of one |
//! | `inspector` | private keys are checked by a keys process, because this one never reads them |
//! | `own_users` | the users that fived's own processes run as |
//! | `programs` | which programs of rows cannot run, for warnings |
//! | `run` `queue` | the loop, and whose order is served next |
//! | `context` | what every part uses: clock, timers, tokens, spawner |
//! | `pipeline` `arrival` | the way of each request, from its arrival to its end |
//! | `dispatch` `ended` | orders, each taken to its part; what ends, and what ends with it |
//! | `backend` `environment` | the program that a connection is handed to, laid out |
//! | `services` `starting` `running` | services: all of them, those that start, those that run |
//! | `channel` | a channel on which orders come and answers go |
//! | `net` `nets` `words` `watch` | net processes, their lines for the log, and one that hangs |
//! | `session` `sessions` `standing` | sessions, and how many a client address may have |
//! | `signers` `starts` | the keys processes; how often a process may be started again |
//! | `logins` `tries` `slots` | logins: one process for each try, and how many may run |
//! | `penalties` `replay` `notices` | how long sources are barred after failures, signatures that were accepted before, warnings about files of keys |
//! | `names` | the names of clients' addresses, where a rule asks for them |
//! | `accounts` | users and groups that were unknown when the configuration was read |
//! | `lookup` | the processes that ask the system's name service |
//! | `pairs` | the two ends of a connection that net relays |
//! | `children` `descriptors` | which process is what; how few descriptors are left |
//! | `lines` `log_file` | the lines of the log about clients; where the log goes |
//! | `listeners` | the sockets of fived's own port |
//! | `ports` `row_ports` | the sockets of services' own ports, and which rows ask for them |
//! | `reload` `state` | SIGHUP and SIGUSR1 |
//!
//! No part calls another: each returns what it wants, and `pipeline` and `dispatch` take it to the
//! part that does it.

mod accounts;
mod arrival;
mod ask;
mod backend;
mod catalog;
mod certificate;
mod channel;
mod children;
mod config;
mod context;
mod descriptors;
mod disk;
mod dispatch;
mod ended;
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
mod own_pair;
mod own_users;
mod pairs;
mod penalties;
mod pipeline;
mod ports;
mod programs;
mod queue;
mod reload;
mod replay;
mod row_ports;
mod run;
mod running;
mod services;
mod session;
mod sessions;
mod signers;
mod slots;
mod standing;
mod start;
mod starting;
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
