//! The net process: reads what strangers send, and can do nothing else.
//!
//! It is this program, started anew by the parent with three descriptors: the orders' channel, the
//! configuration in a sealed file without a name, and the log. It confines itself before it reads
//! any of them (`sys::confine`), says `Ready`, is handed the listeners, and serves: thousands of
//! clients that only wait in one loop (`waiting`), each session in a thread of its own (`session`),
//! but for those that wait for their next request: one thread for all of them (`parked`).
//!
//! | file | noun |
//! |---|---|
//! | `waiting.rs` | the loop: accept, wait for a request, answer or hand on |
//! | `descriptors.rs` | how near the last descriptor is |
//! | `clients.rs` `sources.rs` | the clients that wait, their deadlines, and which source has most of them |
//! | `outbox.rs` | orders to the parent, in their order, without ever waiting for it |
//! | `request.rs` | what a request gets |
//! | `standing.rs` | how many sessions stand, in all and of each source |
//! | `parked.rs` | the sessions that only wait for their next request |
//! | `handover.rs` | how a stream with facts of its own gets its service |
//! | `session.rs` ... | a session's thread: its requests, and the service that it becomes |
//! | `builtins` | HELP, HOST, AUTH, PUBKEY, SSL, MULTIPLEX: a file each |

mod answers;
mod builtins;
mod channel;
mod clients;
mod descriptors;
mod end;
mod handover;
mod outbox;
mod parked;
pub mod request;
pub mod session;
mod sources;
mod standing;
pub mod tls;
mod waiting;

use crate::log;
use crate::policy::{Extract, Table};
use crate::sys::{clock, confine, inherit, memfd, process};
use crate::wire::archive::Archive;
use crate::wire::roles;
use descriptors::Descriptors;
use std::os::fd::AsFd;
use std::sync::Arc;

/// All that one configuration means to the net process; shared by its threads, never changed.
pub struct World {
    pub table: Table,
    /// None where there is no certificate at all.
    pub tls: Option<tls::Tls>,
    /// The sessions that stand, parked ones too.
    pub sessions: standing::Sessions,
    pub descriptors: Arc<Descriptors>,
    /// None where the system had no thread for it: every session keeps its own then.
    pub parking: Option<parked::Parking>,
}

/// The process's whole life. Returns its exit status: 0 when it was told to end, 111 when it cannot
/// go on.
pub fn main() -> i32 {
    process::set_name(roles::NET);
    // A session allocates during its handshake and then sleeps: an arena for each few of them would
    // keep what that left behind.
    process::limit_malloc_arenas(2);
    let told = roles::Net::read(inherit::variable);
    log::debug(told.as_ref().map_or(0, |told| told.debug));
    match told.and_then(|told| serve(told.ids)) {
        Ok(()) => 0,
        Err(e) => {
            log::warn(&format!("net: {e}"));
            log::finish(100);
            111
        }
    }
}

/// `ids`: whom the parent wants this process to be; None: as started, by an ordinary user.
fn serve(ids: Option<roles::Ids>) -> Result<(), String> {
    let said = |what: &'static str| move |e: std::io::Error| format!("{what}: {e}");
    let channel = inherit::take(roles::CHANNEL).map_err(said("orders' channel"))?;
    let archive = inherit::take(roles::CONFIGURATION).map_err(said("configuration"))?;
    process::raise_nofile().map_err(said("descriptor limit"))?;
    let descriptors = Arc::new(Descriptors::new());
    // The time zone's file is read now: the empty root has none.
    clock::load_zone();
    confine::net(ids).map_err(|e| e.to_string())?;
    let archive = memfd::read(archive.as_fd()).map_err(said("configuration"))?;
    let world = world(&archive, descriptors)?;
    waiting::Loop::new(Arc::new(world), channel).and_then(waiting::Loop::run).map_err(said("loop"))
}

fn world(bytes: &[u8], descriptors: Arc<Descriptors>) -> Result<World, String> {
    let mut archive = Archive::decode(bytes).ok_or("the configuration's archive cannot be read")?;
    let table = Extract::read(archive.files.drain(..).collect())?;
    let tls = tls::configure(&archive, &table)?;
    let parking = parked::Parking::open()
        .inspect_err(|e| log::warn(&format!("net: no thread for parked sessions: {e}")))
        .ok();
    Ok(World { table, tls, sessions: standing::Sessions::default(), descriptors, parking })
}
