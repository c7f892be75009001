//! The parent: binds, decides, starts, reaps, writes the log. It never reads a byte that came from
//! the network, and parses only orders of one fixed size.
//!
//! | file | noun |
//! |---|---|
//! | `options` `by_name` `status` `tasks` | the command line, the exit statuses, and what fived is called for |
//! | `start` `pidfile` | from the command line to the loop; the file with its process id |
//! | `ask` | `--reload`: sends SIGHUP to the running fived and prints its answer |
//! | `config` `config_error` | one configuration, read whole, or why it could not be read |
//! | `reached` | whether any client can reach anything of it |
//! | `disk` `keys` `catalog` | its files, its private keys, what each service needs to start |
//! | `self_signed` `certificate` | the certificate that fived makes for itself; what is known about one |
//! | `inspector` | private keys are checked by a keys process, because the parent never decodes them |
//! | `name_service` | a child that asks the name service while a configuration is read again |
//! | `asked` `port_names` | its users and groups, and its names of ports, as that child says them |
//! | `own_users` | the users that fived's own processes run as |
//! | `programs` | which rows' programs cannot run, for warnings |
//! | `banners` | which banners clients of RUN cannot tell from records, for warnings |
//! | `run` `ready` `queue` | the loop, and whose order is served next |
//! | `context` | what every part uses: the clock, timers, tokens, the spawner |
//! | `pipeline` `arrival` `addresses` `answering` | the way of each request, from its arrival to its end; between whom it is; what is told of it |
//! | `dispatch` `ended` | orders, each routed to its part; what ends, and what ends with it |
//! | `redirect` `relays` `hosts` | services that ran already: connected, relayed; addresses of names |
//! | `relay_threads` | the threads of net processes that relay |
//! | `offered` `offer` `offers` `offerers` | services that sessions offer: a client is handed to one; an offer; who offers what, and who waits; whose turn it is |
//! | `offer_waiting` `offer_search` `offer_index` `offer_streams` | a client that waits; who is asked next; which clients wait for which session; which source has how many streams |
//! | `backend` `environment` | the program that a connection is handed to, laid out |
//! | `services` `starting` `running` | services: all of them, those that start, those that run |
//! | `unbound` | ports of inetd.conf and xinetd.conf that could not be bound, until they can be |
//! | `lingering` | the lingering close of sockets that services have had |
//! | `undelivered` | sockets of services that have ended, until net has all of their output |
//! | `turns` `deferred` `held_up` | how many may be starting, and who waits for them; those that wait for their turn; whose starts are held up |
//! | `channel` | a channel on which orders come and answers go |
//! | `handed` | clients' sockets that a net process is handed |
//! | `net` `nets` `net_end` `net_log` `net_gauges` `watchdog` | net processes, their ends, their lines for the log, what they count, and one that hangs |
//! | `session` `sessions` `session_counts` | sessions, and how many a client address may have |
//! | `signers` `starts` | the keys processes; how often a process may be started again |
//! | `logins` `tries` `slots` | logins: one process for each try, and how many may run |
//! | `penalties` `sensors` `replay` `notices` | how long sources are barred after failures, or because they touched a sensor, signatures that were accepted before, warnings about files of keys |
//! | `names` | the names of clients' addresses, where a rule asks for them |
//! | `accounts` | users and groups that were unknown when the configuration was read |
//! | `wrap` `decisions` | rules of hosts_access(5), where a row asks for them; what they said about senders of datagrams |
//! | `lookup` | the processes that ask the system's name service |
//! | `resumables` `resumption` | the sessions that outlive their connections, and the orders about them |
//! | `socket_pairs` | the two ends of a connection that net relays |
//! | `children` `descriptors` | what each child is; which descriptors are left |
//! | `lines` `refusals` `log_file` | the lines of the log about clients; those about datagrams, which are bounded; where the log goes |
//! | `local_clients` | clients of Unix sockets: which user each is |
//! | `listener` | a listening socket that net processes have, too |
//! | `listeners` | the sockets of fived's own port |
//! | `waits` | a port whose program gets the socket itself |
//! | `proxied` `client_sockets` | who the clients are that net hands over, also those of load balancers; between whom a socket is |
//! | `tls_ports` | those of services' own ports where TLS is expected |
//! | `ports` `port_listener` `port_listeners` `row_ports` `wanted_port` `port_rules` | services' own ports: who comes there, each socket and all of them, which rows name them, and how |
//! | `own_addresses` | those of fived's own port, which no row may have |
//! | `claims` | which listener each port of a new table goes on with |
//! | `given_paths` `socket_directories` | Unix sockets that the service manager has bound; who else can put one in the place of another |
//! | `bound` `bind_error` | all that a configuration listens on, bound; why an address could not be |
//! | `reloads` | those who asked for a reload and wait for its outcome |
//! | `signals` `reload` `state` `ending` | each signal; SIGHUP, SIGUSR1, and those that end it |
//! | `reports` `reporting` | what fived tells about itself, a few rows in a turn of the loop |
//! | `metrics` `tallies` | what the service `metrics` prints, and its counts |
//!
//! No part calls another: each returns its requests, and `pipeline` and `dispatch` route them.

mod accounts;
mod addresses;
mod answering;
mod arrival;
mod ask;
mod asked;
mod backend;
mod banners;
mod bind_error;
mod bound;
mod by_name;
mod catalog;
mod certificate;
mod channel;
mod children;
mod claims;
mod client_sockets;
mod config;
mod config_error;
mod context;
mod decisions;
mod deferred;
mod descriptors;
mod disk;
mod dispatch;
mod ended;
mod ending;
mod environment;
mod given_paths;
mod handed;
mod held_up;
mod hosts;
mod inspector;
mod keys;
mod lines;
mod lingering;
mod listener;
mod listeners;
mod local_clients;
mod log_file;
mod logins;
mod lookup;
mod metrics;
mod name_service;
mod names;
mod net;
mod net_end;
mod net_gauges;
mod net_log;
mod nets;
mod notices;
mod offer;
mod offer_index;
mod offer_search;
mod offer_streams;
mod offer_waiting;
mod offered;
mod offerers;
mod offers;
pub mod options;
mod own_addresses;
mod own_users;
mod penalties;
mod pidfile;
mod pipeline;
mod port_listener;
mod port_listeners;
mod port_names;
mod port_rules;
mod ports;
mod programs;
mod proxied;
mod queue;
mod reached;
mod ready;
mod redirect;
mod refusals;
mod relay_threads;
mod relays;
mod reload;
mod reloads;
mod replay;
mod reporting;
mod reports;
mod resumables;
mod resumption;
mod row_ports;
mod run;
mod running;
mod self_signed;
mod sensors;
mod services;
mod session;
mod session_counts;
mod sessions;
mod signals;
mod signers;
mod slots;
mod socket_directories;
mod socket_pairs;
mod start;
mod starting;
mod starts;
mod state;
mod status;
mod tallies;
mod tasks;
mod tls_ports;
mod tries;
mod turns;
mod unbound;
mod undelivered;
mod waits;
mod wanted_port;
mod watchdog;
mod wrap;

use options::Options;

/// fived as it is called, by this name or path. Returns its exit status (fived(8)).
pub fn main(called: &str, words: &[String]) -> i32 {
    match by_name::read(called, words).unwrap_or_else(|| Options::read(words)) {
        Ok(options) => tasks::run(options),
        Err(e) => {
            status::print_error(&format!("fived: {e}"));
            status::USAGE
        }
    }
}
