//! The configuration's files, read from the disk and noted in an archive for the net process.

use crate::policy::Files;
use crate::wire::archive::Archive;
use std::fs;
use std::io::Read;

/// Bytes of one file at most; a table of 100,000 rows is a tenth of it.
const FILE_MAX: u64 = 64 * 1024 * 1024;

/// Reads the disk, remembers what it read.
#[derive(Debug, Default)]
pub struct Disk {
    pub archive: Archive,
}

impl Files for Disk {
    fn read(&mut self, path: &str) -> Result<Vec<u8>, String> {
        let found = read(path).map_err(|e| e.to_string());
        self.archive.files.push((path.into(), found.clone()));
        found
    }

    fn list(&mut self, directory: &str) -> Result<Vec<String>, String> {
        let found = names(directory).map_err(|e| e.to_string());
        self.archive.lists.push((directory.into(), found.clone()));
        found
    }
}

fn read(path: &str) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    fs::File::open(path)?.take(FILE_MAX + 1).read_to_end(&mut content)?;
    if content.len() as u64 > FILE_MAX {
        return Err(std::io::Error::other(format!("longer than {FILE_MAX} bytes")));
    }
    Ok(content)
}

fn names(directory: &str) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if let (Ok(name), false) = (entry.file_name().into_string(), entry.path().is_dir()) {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}
