//! The configuration's files, read from the disk and noted in an archive for the net process.

use crate::policy::Files;
use crate::sys::file;
use crate::wire::archive::Archive;
use std::fs;

/// Reads the disk, remembers what it read.
#[derive(Debug, Default)]
pub struct Disk {
    pub archive: Archive,
}

impl Files for Disk {
    fn read(&mut self, path: &str) -> Result<Vec<u8>, String> {
        // The first one is the administrator's own word: `fived -t -f /dev/stdin`.
        let found = if self.archive.files.is_empty() { file::read_any(path) } else { file::read(path) };
        let found = found.map_err(|e| e.to_string());
        self.archive.files.push((path.into(), found.clone()));
        found
    }

    fn list(&mut self, directory: &str) -> Result<Vec<String>, String> {
        let found = names(directory).map_err(|e| e.to_string());
        self.archive.lists.push((directory.into(), found.clone()));
        found
    }
}

fn names(directory: &str) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        // As xinetd: what is no regular file is not meant. A link that leads nowhere is, and is said when it is read.
        let other = fs::metadata(entry.path()).is_ok_and(|m| !m.is_file());
        if let (Ok(name), false) = (entry.file_name().into_string(), other) {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}
