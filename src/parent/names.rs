//! Names of addresses, where a rule asks for them: looked up by a child that has no rights, remembered for a while.
//!
//! What a name server says is a stranger's word: a child as net's user reads it, and this process only compares what the
//! child printed.

use super::catalog::{self, INTERNAL};
use super::channel::Broken;
use super::children::Role;
use super::run::Parent;
use crate::policy::Facts;
use crate::sys::identity::Identity;
use crate::sys::spawn::{BadWord, CList, Env, Launch, Stderr};
use crate::sys::{process, socket};
use crate::wire::orders::{Data, ToNet};
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// The internal role that looks a name up; no row can name it.
pub const LOOK_UP: &str = "name";
/// How long an answer is good, and how many are kept.
const GOOD: Duration = Duration::from_secs(60);
const KEPT: usize = 4096;
/// Children at once, and addresses that wait for one.
const RUNNING: usize = 16;
const WAITING: usize = 1024;
/// Bytes of a name (RFC 1035).
const NAME_MAX: usize = 255;

/// A client of a net process that waits for its name.
struct Asker {
    net: usize,
    client: u32,
    round: u32,
}

#[derive(Default)]
pub struct Names {
    known: HashMap<IpAddr, (Duration, Option<String>)>,
    asked: HashMap<IpAddr, Vec<Asker>>,
    queue: VecDeque<IpAddr>,
    /// The children that look up, by process id.
    running: HashMap<i32, (IpAddr, OwnedFd)>,
}

impl Parent {
    /// The facts of a peer, with its name where the table has rules on names and it was looked up.
    pub fn name_in(&self, facts: &mut Facts) {
        if let Some((until, name)) = self.names.known.get(&facts.peer)
            && *until > self.now
        {
            facts.peer_name.clone_from(name);
        }
    }

    /// A net process wants to know who a client is.
    pub fn ask_name(&mut self, net: usize, client: u32, round: u32, address: IpAddr) -> Result<(), Broken> {
        let asker = Asker { net, client, round };
        if let Some((until, name)) = self.names.known.get(&address)
            && *until > self.now
        {
            let name = name.clone();
            return self.tell_name(&asker, name.as_deref());
        }
        if let Some(askers) = self.names.asked.get_mut(&address) {
            askers.push(asker);
            return Ok(());
        }
        if self.names.queue.len() >= WAITING {
            // Nobody knows: rules on names do not match.
            return self.tell_name(&asker, None);
        }
        self.names.asked.insert(address, vec![asker]);
        self.names.queue.push_back(address);
        self.look_up();
        Ok(())
    }

    fn look_up(&mut self) {
        while self.names.running.len() < RUNNING
            && let Some(address) = self.names.queue.pop_front()
        {
            match self.start_look_up(address) {
                Ok((pid, pipe)) => {
                    self.names.running.insert(pid, (address, pipe));
                }
                Err(e) => {
                    crate::log::warn(&format!("name of {address}: {e}"));
                    self.named(address, None);
                }
            }
        }
    }

    fn start_look_up(&mut self, address: IpAddr) -> Result<(i32, OwnedFd), String> {
        let (ours, theirs) = socket::pair().map_err(|e| e.to_string())?;
        let null = process::null().map_err(|e| e.to_string())?;
        let words = |e: BadWord| e.to_string();
        let argv = CList::new([INTERNAL, LOOK_UP]).map_err(words)?;
        let mut env = Env::new();
        env.push("FIVED_ADDRESS", address.to_string().as_bytes()).map_err(words)?;
        let env = env.finish();
        let identity = self.config.net.map(|(uid, gid)| Identity { uid, gid, groups: Vec::new() });
        let launch =
            Launch { identity: identity.as_ref(), stderr: Stderr::Null, connection: theirs.as_fd(), ..catalog::role(&argv, &env, &null) };
        let child = self.spawner.start(&launch).map_err(|f| f.to_string())?;
        self.children.add(child.pid, Role::Name);
        Ok((child.pid, ours))
    }

    /// A look-up has ended; what it printed is the name.
    pub fn look_up_ended(&mut self, pid: i32) {
        let Some((address, pipe)) = self.names.running.remove(&pid) else { return };
        let mut bytes = [0; NAME_MAX + 1];
        let n = socket::receive(pipe.as_fd(), &mut bytes).unwrap_or(0);
        let name = (1..=NAME_MAX).contains(&n).then(|| String::from_utf8(bytes[..n].to_vec()).ok()).flatten();
        self.named(address, name);
        self.look_up();
    }

    fn named(&mut self, address: IpAddr, name: Option<String>) {
        if self.names.known.len() >= KEPT {
            let now = self.now;
            self.names.known.retain(|_, (until, _)| *until > now);
            if self.names.known.len() >= KEPT {
                self.names.known.clear();
            }
        }
        self.names.known.insert(address, (self.now + GOOD, name.clone()));
        for asker in self.names.asked.remove(&address).unwrap_or_default() {
            if let Err(why) = self.tell_name(&asker, name.as_deref()) {
                self.net_broken(asker.net, why);
            }
        }
    }

    fn tell_name(&mut self, asker: &Asker, name: Option<&str>) -> Result<(), Broken> {
        let Some(net) = self.nets.get_mut(&asker.net) else { return Ok(()) };
        let name = Data::cut(name.unwrap_or("").as_bytes());
        net.channel.send(self.poll.registry(), &ToNet::Name { client: asker.client, round: asker.round, name }, None)
    }
}
