//! The addresses of upstreams that the table names by a host's name. Children look them up, because
//! a name server may keep whoever asks it waiting: when a table becomes the current one, and every
//! [`EVERY`] after that. A name that has no address any more keeps its last ones.

use crate::log;
use crate::parent::children::Role;
use crate::parent::context::{Context, Timer};
use crate::parent::lookups::LookUps;
use crate::policy::{Backend, Table, Upstream};
use crate::sys::process::Exit;
use crate::wire::lookups;
use crate::wire::roles::LookUp;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

/// How often they are looked up.
const EVERY: Duration = Duration::from_secs(60);
/// How soon look-ups that could not be started are tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// How many children look up at the same time.
const RUNNING: usize = 8;

/// See the module.
#[derive(Default)]
pub struct Hosts {
    known: HashMap<String, Vec<IpAddr>>,
    queue: VecDeque<String>,
    /// The names that are looked up now.
    running: LookUps<String>,
    /// The names of which the log says that they have no address.
    missing: BTreeSet<String>,
    /// When they are looked up next, if a table names any.
    next: Option<Duration>,
}

impl Hosts {
    /// The addresses that were found last.
    pub fn addresses(&self, name: &str) -> &[IpAddr] {
        self.known.get(name).map_or(&[], Vec::as_slice)
    }

    /// Looks up all names of the current table: at once, and again later.
    pub fn look_up(&mut self, cx: &mut Context) {
        let names = names(&cx.config.table);
        self.known.retain(|name, _| names.contains(name));
        self.missing.retain(|name| names.contains(name));
        if let Some(at) = self.next.take() {
            cx.cancel(at, Timer::Hosts);
        }
        if names.is_empty() {
            return self.queue.clear();
        }
        let running: BTreeSet<&String> = self.running.waiting().collect();
        self.queue = names.iter().filter(|n| !running.contains(n)).cloned().collect();
        self.again(cx, EVERY);
        self.start(cx);
    }

    fn again(&mut self, cx: &mut Context, after: Duration) {
        let at = cx.now + after;
        self.next = Some(at);
        cx.at(at, Timer::Hosts);
    }

    fn start(&mut self, cx: &mut Context) {
        while self.running.len() < RUNNING
            && let Some(name) = self.queue.pop_front()
        {
            let asked = LookUp::Host(name.clone());
            if let Err((_, e)) = self.running.start(cx, Role::Host, &asked, name) {
                cx.note_not_started("upstreams", &e);
                if let Some(at) = self.next.take() {
                    cx.cancel(at, Timer::Hosts);
                }
                return self.again(cx, AGAIN);
            }
        }
    }

    /// A look-up has ended; what it printed are the addresses.
    pub fn ended(&mut self, cx: &mut Context, pid: i32, exit: Exit) {
        let Some((name, answer)) = self.running.ended(cx, pid, exit) else { return };
        let text = answer.as_deref().and_then(|bytes| std::str::from_utf8(bytes).ok());
        match text.and_then(lookups::read_addresses) {
            Some(all) if !all.is_empty() => {
                self.missing.remove(&name);
                self.known.insert(name, all);
            }
            _ => {
                if self.missing.insert(name.clone()) {
                    let kept = if self.known.contains_key(&name) {
                        "; fived keeps using its last ones"
                    } else {
                        ""
                    };
                    log::warn(&format!("upstreams: {name}: no address found{kept}"));
                }
            }
        }
        self.start(cx);
    }
}

/// The names that the table's rows redirect to.
fn names(table: &Table) -> BTreeSet<String> {
    let upstreams = table.services().iter().filter_map(|s| match &s.backend {
        Backend::Redirect(all) if !s.attributes.disable => Some(all),
        _ => None,
    });
    upstreams
        .flatten()
        .filter_map(|u| match u {
            Upstream::Name(name, _) => Some(name.clone()),
            Upstream::Address(..) | Upstream::Unix(_) => None,
        })
        .collect()
}
