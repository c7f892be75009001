//! What a configuration asks this computer: its files, read from the disk, and names of ports,
//! programs and hosts.

use super::error::ConfigError;
use super::name_service::TimeLeft;
use super::own_users::OwnUsers;
use super::port_names::{Numbers, PortNames};
use super::programs;
use crate::policy::Files;
use crate::sys::directory_calls;
use crate::sys::file;
use crate::sys::libwrap;
use crate::sys::network;
use crate::sys::socket::is_scarcity;
use crate::sys::spawn::PATH;
use crate::wire::lookups;
use crate::wire::roles::LookUp;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

/// Addresses by the names of their hosts.
pub type Addresses = HashMap<String, Vec<IpAddr>>;

/// See the module.
#[derive(Debug, Default)]
pub struct Disk<'a> {
    /// Has the first file been read?
    first_read: bool,
    /// The first file or directory for which there were no descriptors, or no memory.
    refused: Option<String>,
    /// The users of the configuration that stands.
    before: Option<OwnUsers>,
    /// The addresses that it was read with.
    last: Option<&'a Addresses>,
    /// The hosts that were looked up.
    hosts: HashMap<String, Result<Vec<IpAddr>, String>>,
    /// For them.
    left: TimeLeft,
    /// What the administrator should know about the hosts, and the files, one line each.
    warnings: Vec<String>,
    pub ports: PortNames<'a>,
}

/// Asks the disk about a path. `serves`: somebody may wait for fived already, and nobody who keeps
/// the path's directory locked is to keep it waiting. `TimedOut`: there is no answer in time.
pub fn ask<T: Send + 'static>(
    serves: bool,
    path: &Path,
    what: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    match serves {
        true => directory_calls::make(path, &[], |_| what()),
        false => what(),
    }
}

impl<'a> Disk<'a> {
    /// For a configuration that is to take the place of another one, whose users and addresses
    /// these are.
    pub fn new(
        before: Option<OwnUsers>,
        last: Option<&'a Addresses>,
        ports: PortNames<'a>,
    ) -> Disk<'a> {
        let (hosts, warnings, left) = (HashMap::new(), Vec::new(), TimeLeft::default());
        Disk { first_read: false, refused: None, before, last, hosts, warnings, left, ports }
    }

    /// See [`ask`].
    fn ask<T: Send + 'static>(
        &self,
        path: &Path,
        what: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        ask(self.last.is_some(), path, what)
    }

    /// Could all of the configuration be read, as far as the system is concerned?
    pub fn has_all(&mut self) -> Result<(), ConfigError> {
        self.refused.take().map_or(Ok(()), |what| Err(ConfigError::System(what)))
    }

    fn failed(&mut self, path: &str, e: &io::Error) -> String {
        if is_scarcity(e) {
            self.refused.get_or_insert_with(|| format!("{path}: {e}"));
        }
        e.to_string()
    }

    /// Whoever can write a file or a directory of the configuration decides what root runs. A pipe
    /// is read once: `cat /etc/fived.conf | sudo fived -t -f /dev/stdin`.
    fn warn_of_others(&mut self, path: &str) {
        let at = PathBuf::from(path);
        let found = self.ask(Path::new(path), move || fs::metadata(at));
        let found = found.ok().filter(|found| found.is_file() || found.is_dir());
        let why = found.and_then(|found| file::others_write(&found));
        let line = why.map(|why| format!("{path}: {why}"));
        self.warnings.extend(line.filter(|line| !self.warnings.contains(line)));
    }

    /// About the files that were read, and the hosts that were looked up, since they were taken
    /// last.
    pub fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// Of the hosts that were looked up, and the numbers of ports.
    pub fn found(self) -> (Addresses, Numbers) {
        let hosts = self.hosts.into_iter();
        let hosts = hosts.filter_map(|(name, found)| Some((name, found.ok()?))).collect();
        (hosts, self.ports.numbers())
    }

    /// Asks the resolver, in a process of another user: its answer may be a stranger's.
    fn look_up(&mut self, name: &str) -> Result<Vec<IpAddr>, String> {
        let within = self.left.for_next().ok_or("no time was left to look it up")?;
        let asked = LookUp::Host(name.into());
        let mut program = programs::program(asked.name());
        let variables = asked.variables();
        let variables = variables.iter().map(|(name, value)| (name, OsStr::from_bytes(value)));
        program.env_clear().envs(variables).stdin(Stdio::null());
        programs::by_helper(&mut program, OwnUsers::for_look_up(self.before)?);
        let began = Instant::now();
        let answer = programs::answer(&mut program, within);
        self.left.took(began.elapsed(), matches!(answer, Ok((_, Some(_)))));
        let (text, late) = answer.map_err(|e| e.to_string())?;
        let none = || late.unwrap_or_else(|| "no address found".into());
        lookups::read_addresses(&text).filter(|all| !all.is_empty()).ok_or_else(none)
    }
}

impl Files for Disk<'_> {
    fn read(&mut self, path: &str) -> Result<Vec<u8>, String> {
        // The administrator names the first file, and it need not be a regular one: `fived -t -f
        // /dev/stdin`.
        let (is_first, at) = (!std::mem::replace(&mut self.first_read, true), PathBuf::from(path));
        let found = self.ask(Path::new(path), move || match is_first {
            // A pipe takes its time, and has a limit of its own.
            true if fs::metadata(&at)?.is_file() => file::read(at).map(Some),
            true => Ok(None),
            false => file::read(at).map(Some),
        });
        let found = found.and_then(|read| read.map_or_else(|| file::read_any(path), Ok));
        self.warn_of_others(path);
        found.map_err(|e| self.failed(path, &e))
    }

    fn list(&mut self, directory: &str) -> Result<Vec<String>, String> {
        self.warn_of_others(directory);
        let at = PathBuf::from(directory);
        let names = self.ask(&at.join("x"), move || names(&at));
        names.map_err(|e| self.failed(directory, &e))
    }

    fn port(&mut self, name: &str, protocol: &str) -> Option<u16> {
        self.ports.number(name, protocol)
    }

    fn has_access_rules(&mut self) -> bool {
        // A file that cannot be read may have one.
        self.ask(Path::new(libwrap::RULES[0]), libwrap::has_rules).unwrap_or(true)
    }

    fn host(&mut self, name: &str) -> Result<Vec<IpAddr>, String> {
        if let Some(known) = self.hosts.get(name) {
            return known.clone();
        }
        // One that has none now keeps those that it had: a name server may be down.
        let known = self.last.and_then(|last| last.get(name)).cloned();
        let found = match (self.look_up(name), known) {
            (Err(why), Some(known)) => {
                let kept = "fived keeps using its last addresses";
                self.warnings.push(format!("bind: {name}: {why}: {kept}"));
                Ok(known)
            }
            (found, _) => found,
        };
        self.hosts.insert(name.into(), found.clone());
        found
    }

    fn has_v6_loopback(&mut self) -> bool {
        network::has_address(Ipv6Addr::LOCALHOST.into())
    }

    fn program(&mut self, name: &str) -> Option<String> {
        let executable = |path: &String| {
            let at = PathBuf::from(path);
            let found = self.ask(Path::new(path), move || fs::metadata(at));
            found.is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
        };
        PATH.split(':').map(|directory| format!("{directory}/{name}")).find(executable)
    }
}

fn names(directory: &Path) -> io::Result<Vec<String>> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_is_not_found_keeps_its_last_addresses() {
        let known = vec![IpAddr::from([192, 0, 2, 1])];
        let last = Addresses::from([("known".into(), known.clone())]);
        let mut disk = Disk::new(None, Some(&last), PortNames::default());
        // Nothing is looked up then.
        disk.left = TimeLeft::none();
        assert_eq!(disk.host("known"), Ok(known));
        assert!(disk.host("new").is_err_and(|why| why.contains("no time")));
        assert!(disk.take_warnings()[0].starts_with("bind: known: no time"));
        assert_eq!(disk.found().0, last);
    }
}
