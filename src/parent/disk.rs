//! What a configuration asks this computer: its files, read from the disk, and names of ports,
//! programs and hosts.

use super::own_users::OwnUsers;
use super::programs;
use crate::policy::Files;
use crate::sys::spawn::PATH;
use crate::sys::{file, port};
use crate::wire::lookups;
use crate::wire::roles::LookUp;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::Duration;

/// How long the address of a host is waited for after another was not found in time: long enough
/// for what /etc/hosts has. Reading a configuration must not take long.
const HURRIED: Duration = Duration::from_millis(500);

/// See the module.
#[derive(Debug, Default)]
pub struct Disk {
    /// Has the first file been read?
    first_read: bool,
    /// The users of the configuration that stands.
    before: Option<OwnUsers>,
    /// The hosts that were looked up.
    hosts: HashMap<String, Result<Vec<IpAddr>, String>>,
    /// One of them was not found in time.
    late: bool,
}

impl Disk {
    pub fn new(before: Option<OwnUsers>) -> Disk {
        Disk { before, ..Disk::default() }
    }

    /// Asks the resolver, in a process of another user: its answer may be a stranger's.
    fn look_up(&mut self, name: &str) -> Result<Vec<IpAddr>, String> {
        let asked = LookUp::Host(name.into());
        let mut program = programs::program(asked.name());
        let variables = asked.variables();
        let variables = variables.iter().map(|(name, value)| (name, OsStr::from_bytes(value)));
        program.env_clear().envs(variables).stdin(Stdio::null());
        if let Some((uid, gid)) = OwnUsers::for_look_up(self.before)? {
            program.uid(uid).gid(gid);
        }
        let within = if self.late { HURRIED } else { programs::ANSWER_TIMEOUT };
        let (text, late) = programs::answer(&mut program, within).map_err(|e| e.to_string())?;
        self.late |= late.is_some();
        let none = || late.unwrap_or_else(|| "no address found".into());
        lookups::read_addresses(&text).filter(|all| !all.is_empty()).ok_or_else(none)
    }
}

impl Files for Disk {
    fn read(&mut self, path: &str) -> Result<Vec<u8>, String> {
        // The administrator names the first file, and it need not be a regular one: `fived -t -f
        // /dev/stdin`.
        let found = if std::mem::replace(&mut self.first_read, true) {
            file::read(path)
        } else {
            file::read_any(path)
        };
        found.map_err(|e| e.to_string())
    }

    fn list(&mut self, directory: &str) -> Result<Vec<String>, String> {
        names(directory).map_err(|e| e.to_string())
    }

    fn port(&mut self, name: &str, protocol: &str) -> Option<u16> {
        port::named(name, protocol)
    }

    fn host(&mut self, name: &str) -> Result<Vec<IpAddr>, String> {
        if let Some(known) = self.hosts.get(name) {
            return known.clone();
        }
        let found = self.look_up(name);
        self.hosts.insert(name.into(), found.clone());
        found
    }

    fn program(&mut self, name: &str) -> Option<String> {
        let executable = |path: &String| {
            fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
        };
        PATH.split(':').map(|directory| format!("{directory}/{name}")).find(executable)
    }
}

fn names(directory: &str) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        // As xinetd does, this skips what is not a regular file. A symbolic link to nothing stays:
        // reading it fails, and the administrator sees that.
        let other = fs::metadata(entry.path()).is_ok_and(|m| !m.is_file());
        if let (Ok(name), false) = (entry.file_name().into_string(), other) {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}
