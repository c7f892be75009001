//! The processes that ask the system's name service. The parent never asks it itself while it
//! serves, because the name service may wait for a network.

use super::catalog;
use super::children::Role;
use super::context::Context;
use super::descriptors::ChildError;
use crate::sys::spawn::{CList, Child, Env, Launch, Stderr};
use crate::wire::roles::{self, LookUp};
use std::os::fd::{AsFd, OwnedFd};

/// Starts one, which becomes the helper's user. Returns its child, and the parent's end of the
/// socket pair on which it answers.
pub fn start(cx: &mut Context, asked: &LookUp, role: Role) -> Result<(Child, OwnedFd), ChildError> {
    let (ours, theirs) = cx.descriptors.pair()?;
    let argv = CList::new([roles::SERVICE, asked.name()])?;
    let mut env = Env::new();
    env.extend(asked.variables())?;
    env.extend(roles::helper_variables(cx.config.own_users.map(|o| o.helper)))?;
    let env = env.finish();
    let launch = Launch {
        stderr: Stderr::Null,
        connection: Some(theirs.as_fd()),
        ..catalog::role(&argv, &env)
    };
    let child = cx.spawner.start(&launch)?;
    cx.children.add(child.pid, role);
    Ok((child, ours))
}
