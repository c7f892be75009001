//! The parent: binds, decides, starts, reaps, writes the log. It never reads a byte that came from
//! the network, and parses only orders of one fixed size.
//!
//! | file | noun |
//! |---|---|
//! | `run` `ready` `queue` `timers` | the loop; whose order is served next; what is done when a timer expires |
//! | `context` `tokens` `descriptors` `children` | what every part uses: the clock, timers, the poll, the spawner; what the poll watches; which descriptors are left; what each child is |
//! | `channel` | a channel on which orders come and answers go |
//! | `start` `pidfile` | from the command line to the loop; the file with its process id |
//! | `options` `status` `tasks` | the command line, the exit statuses, and what fived is called for |
//! | `config` | one configuration, read whole |
//! | `signals` `reload` `shutdown` | each signal; SIGHUP; those that end fived |
//! | `pipeline` `arrival` `addresses` `answers` | the way of each request, from its arrival to its end; between whom it is; what is told of it |
//! | `dispatch` `reaping` | orders, each routed to its part; what ends, and what ends with it |
//! | `nets` `start_limit` | net processes; how often a process may be started again |
//! | `listeners` | the sockets of fived's own port, and of services' ports where TLS is expected |
//! | `ports` | services' other ports, from which the parent accepts itself |
//! | `client_sockets` | between whom a client's socket is that net hands over |
//! | `proxied` `local_clients` | clients of load balancers: who they are; clients of Unix sockets: which user each is |
//! | `sessions` | sessions, and those that outlive their connections |
//! | `logins` | logins, and what failures cost |
//! | `signers` | the keys processes |
//! | `sensors` | sources that are barred because they touched a sensor |
//! | `lookups` | what children ask the system's name service, name servers and hosts_access(5) |
//! | `backend` | what a service's connection is handed to |
//! | `services` | services: those that start, and those that run |
//! | `relays` | services that ran already |
//! | `offers` | services that sessions offer |
//! | `reports` | what fived tells about itself |
//! | `lines` `refusals` `log_file` | the lines of the log about clients; those about refused ones, which are bounded; where the log goes |
//!
//! A noun with a directory of its own has its map there. No part calls another: each returns its
//! requests, and `pipeline` and `dispatch` route them.

mod addresses;
mod answers;
mod arrival;
mod backend;
mod channel;
mod children;
mod client_sockets;
mod config;
mod context;
mod descriptors;
mod dispatch;
mod lines;
mod listeners;
mod local_clients;
mod log_file;
mod logins;
mod lookups;
mod nets;
mod offers;
pub mod options;
mod pidfile;
mod pipeline;
mod ports;
mod proxied;
mod queue;
mod ready;
mod reaping;
mod refusals;
mod relays;
mod reload;
mod reports;
mod run;
mod sensors;
mod services;
mod sessions;
mod shutdown;
mod signals;
mod signers;
mod start;
mod start_limit;
mod status;
mod tasks;
mod timers;
mod tokens;

use options::Options;

/// fived as it is called, by this name or path. Returns its exit status (fived(8)).
pub fn main(called: &str, words: &[String]) -> i32 {
    match options::inetd::read(called, words).unwrap_or_else(|| Options::read(words)) {
        Ok(options) => tasks::run(options),
        Err(e) => {
            status::print_error(&format!("fived: {e}"));
            status::USAGE
        }
    }
}
