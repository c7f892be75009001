//! The net process: reads what strangers send, and can do nothing else.
//!
//! It is this program, started again by the parent with three descriptors: the channel for orders,
//! the configuration in a sealed file without a name, and the log. It maps the page of its
//! gauges, which the parent reads (`sys::gauges`), confines itself (`sys::confine`), reads the
//! configuration, sends `Ready`, receives the listeners, and serves. Clients that have not sent
//! their request yet share one loop, thousands of them (`waiting`); each session has a thread of
//! its own (`session`), and gives it back while it waits for its next request: one thread waits for
//! all of those (`parked`).
//!
//! | file | noun |
//! |---|---|
//! | `world` | what one configuration means to this process; shared by its threads |
//! | `waiting` | the loop: accept, wait for a request, answer it or hand the client on |
//! | `clients` `sources` | the clients that wait, their deadlines, and which source has most of them |
//! | `answers` | answers that clients have not read yet |
//! | `order_queue` | orders to the parent, sent without ever waiting for it: sources take turns |
//! | `request` | what a request gets |
//! | `session` `service` | a session's thread: its requests, and the service that it becomes |
//! | `session_state` | what a session knows, and the lines that it exchanges with its client |
//! | `counted` | by which number the parent knows a connection that is copied here |
//! | `handover` | how a stream that changed its own facts gets its service |
//! | `builtins` | HELP, HOST, AUTH, PUBKEY, SSL, MULTIPLEX, RESUME, RUN: a file each |
//! | `lost` `resume` `connections` | a session whose connection is lost, and how it gets another one |
//! | `channel` | a session's channel to the parent |
//! | `end` | why a session ends, and what ends its waits |
//! | `tls` | certificates, and the signatures that the parent is asked for |
//! | `session_counts` | how many sessions there are, in all and from each source |
//! | `idle_sessions` | those that make room for others |
//! | `relays` | connections of plain clients to servers that are already running |
//! | `returned` | sockets that only the parent may close |
//! | `threads` | threads for sessions |
//! | `parked` | the sessions that only wait for their next request |
//! | `descriptors` | how many descriptors are left, and which are reserved |

mod answers;
mod builtins;
mod channel;
mod clients;
mod connections;
mod counted;
mod descriptors;
mod end;
mod handover;
mod idle_sessions;
mod lost;
mod order_queue;
mod parked;
mod relays;
pub mod request;
mod resume;
mod returned;
mod service;
pub mod session;
mod session_counts;
pub mod session_state;
mod sources;
mod threads;
pub mod tls;
mod waiting;
pub mod world;

use crate::log;
use crate::sys::{clock, confine, gauges, inherit, local, memfd, message, process, signal};
use crate::wire::orders::{Message, ORDER, ToNet};
use crate::wire::roles;
use descriptors::Descriptors;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use world::World;

/// Runs this process. Returns its exit status: 0 when the parent told it to end, 111 when it
/// cannot go on.
pub fn main() -> i32 {
    signal::ignore_orders();
    // A session allocates during its handshake and then sleeps. With an arena for every few
    // threads, the memory that each has freed would stay unused in its arena.
    process::limit_malloc_arenas(2);
    let role = roles::Net::read(inherit::variable);
    log::debug(role.as_ref().map_or(0, |role| role.debug));
    match role.and_then(|role| serve(role.ids)) {
        Ok(()) => 0,
        Err(e) => {
            log::warn(&format!("net: {e}"));
            log::finish(100);
            111
        }
    }
}

/// `ids`: the user and groups to change to; None: stay as started, by an ordinary user.
fn serve(ids: Option<roles::Ids>) -> Result<(), String> {
    let context = |what: &'static str| move |e: std::io::Error| format!("{what}: {e}");
    let channel = inherit::take(roles::CHANNEL).map_err(context("orders' channel"))?;
    let archive = inherit::take(roles::CONFIGURATION).map_err(context("configuration"))?;
    process::raise_nofile().map_err(context("descriptor limit"))?;
    let descriptors = Arc::new(Descriptors::new());
    channel::prepare().map_err(context("a socket pair"))?;
    // No file can be mapped afterwards.
    count(channel.as_fd()).map_err(context("the first order"))?;
    // The file of the time zone is read now: the empty root has none.
    clock::load_zone();
    local::can_refuse_rights();
    // Clients wait for this thread alone, however many sessions are busy.
    process::go_first();
    confine::net(ids).map_err(|e| e.to_string())?;
    let archive = memfd::read(archive.as_fd()).map_err(context("configuration"))?;
    let world = World::read(&archive, (descriptors, Arc::new(channel)))?;
    waiting::Loop::new(Arc::new(world)).and_then(waiting::Loop::run).map_err(context("loop"))
}

/// Waits for the parent's first order: with it comes where this process counts.
fn count(channel: BorrowedFd) -> std::io::Result<()> {
    let mut bytes = [0; ORDER];
    let (n, mut fds) = message::receive_waiting(channel, &mut bytes)?;
    match ToNet::accept(&bytes[..n], fds.count(), &()) {
        // The parent would wait for what is counted there.
        Some(ToNet::Gauges) if fds.lost() => Err(std::io::Error::other("no descriptor is left")),
        Some(ToNet::Gauges) => fds.take().map_or(Ok(()), |page| gauges::count_in(page.our_own())),
        _ => Err(std::io::ErrorKind::InvalidData.into()),
    }
}
