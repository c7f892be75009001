//! The processes that the parent started and has not reaped: what each is.

use std::collections::HashMap;

/// What a child is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Service,
    /// A net process, by its token.
    Net(usize),
    /// A keys process, by its token.
    Keys(usize),
    /// Looks up the name of an address.
    Name,
    /// Looks up a user or a group.
    Account,
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

    /// What the child was that has ended. None: a process that fived did not start, and that became
    /// its child when the one that started it ended.
    pub fn remove(&mut self, pid: i32) -> Option<Role> {
        self.0.remove(&pid)
    }
}
