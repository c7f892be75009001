//! What each process is that the parent has started and not reaped yet.

use super::tokens::{KeysToken, NetToken};
use std::collections::HashMap;

/// What a child is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Service,
    /// A net process.
    Net(NetToken),
    /// A keys process.
    Keys(KeysToken),
    /// Looks up the name of an address.
    Name,
    /// Looks up the addresses of a host.
    Host,
    /// Looks up a user or a group.
    Account,
    /// Asks the rules of hosts_access(5).
    HostsAccess,
    /// Serves a service's terminal.
    Terminal,
    /// A login child, by the number of its try.
    Login(u64),
}

/// By process id.
#[derive(Debug, Default)]
pub struct Children(HashMap<i32, Role>);

impl Children {
    pub fn add(&mut self, pid: i32, role: Role) {
        self.0.insert(pid, role);
    }

    /// Forgets a child that has ended, and returns what it was. None: it has not become one of
    /// these, or all that it was for was done before its end.
    pub fn remove(&mut self, pid: i32) -> Option<Role> {
        self.0.remove(&pid)
    }
}
