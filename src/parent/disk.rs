//! The configuration's files, read from the disk.

use crate::policy::Files;
use crate::sys::spawn::PATH;
use crate::sys::{file, port};
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// See the module.
#[derive(Debug, Default)]
pub struct Disk {
    /// Has the first file been read?
    first_read: bool,
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
