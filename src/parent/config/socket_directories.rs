//! Who else can write to the directory of a Unix socket, and so put a socket of their own there,
//! with which fived's clients would speak.

use super::catalog::Catalog;
use super::disk::ask;
use super::row_ports::Port;
use crate::policy::{Table, UserSpec};
use crate::sys::identity;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A warning for each socket whose directory others can write to: neither root, nor the user who
/// started fived, nor those whose the row or its socket is.
/// `serves`: see [`ask`].
pub fn warnings(ports: &[Port], table: &Table, catalog: &Catalog, serves: bool) -> Vec<String> {
    let of = |port: &Port| {
        let wanted = port.at.path()?;
        let directory = Path::new(&wanted.path).parent()?;
        // One that does not exist is told where the socket is to be made.
        let at = directory.to_path_buf();
        let is = ask(serves, directory, || std::fs::metadata(at)).ok()?;
        let row = port.service.and_then(|id| table.service(id));
        let named = row.and_then(|row| match &row.user {
            UserSpec::Named { user, .. } => catalog.user(user),
            UserSpec::Login | UserSpec::None => None,
        });
        let (mut users, mut groups) = (vec![0, identity::effective_uid()], vec![0]);
        groups.push(identity::effective_gid());
        users.extend(named.map(|u| u.uid).into_iter().chain(wanted.owner.map(|(uid, _)| uid)));
        groups.extend(wanted.owner.map(|(_, gid)| gid));
        let who = others(&is, &users, &groups)?;
        let word = if row.is_some() { "port" } else { "listen" };
        Some(format!(
            "{}: {word}: {}: {who} can write to its directory, and put another socket in its place: expected a directory where only root can write",
            port.place, wanted.path
        ))
    };
    ports.iter().filter_map(of).collect()
}

/// Who can write to a directory, apart from these users and groups.
fn others(directory: &Metadata, users: &[u32], groups: &[u32]) -> Option<String> {
    let (uid, gid, mode) = (directory.uid(), directory.gid(), directory.mode());
    match mode {
        _ if mode & 0o002 != 0 => Some("everybody".into()),
        _ if !users.contains(&uid) => Some(format!("the user with uid {uid}")),
        _ if mode & 0o020 != 0 && !groups.contains(&gid) => Some(format!("the group {gid}")),
        _ => None,
    }
}
