//! The file with the parent's process id (`-p`).

use crate::sys::{directory_calls, file};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Bytes of such a file at most: a number, and some blanks.
const SIZE_MAX: u64 = 32;

/// A file that was written. It is removed when this is dropped.
pub struct Pidfile {
    path: String,
    /// Locked: no other fived takes the file.
    file: Option<File>,
}

impl Pidfile {
    /// May this file be overwritten? One that has anything but a number in it was given by mistake:
    /// it may be the configuration itself. Err: one line.
    pub fn check(path: &str) -> Result<(), String> {
        // One that cannot be read is said when it is written. A device or a pipe holds nothing.
        if !std::fs::metadata(path).is_ok_and(|file| file.is_file()) {
            return Ok(());
        }
        let mut text = Vec::new();
        let read = File::open(path).and_then(|f| f.take(SIZE_MAX + 1).read_to_end(&mut text));
        let (id, size) = (text.trim_ascii(), text.len() as u64);
        match read {
            Ok(_) if size <= SIZE_MAX && id.iter().all(u8::is_ascii_digit) => Ok(()),
            Ok(_) => Err(format!(
                "{path}: expected a pidfile (none yet, an empty one, or one with a process id alone), found another file, which is left as it is"
            )),
            Err(e) => Err(format!("{path}: {e}")),
        }
    }

    /// Err: one line; it may be that another fived has the file.
    pub fn write(path: &str) -> Result<Pidfile, String> {
        let wrong = |e: std::io::Error| format!("{path}: {e}");
        let mut file = loop {
            let how = File::options().write(true).create(true).truncate(false).open(path);
            let file = how.map_err(wrong)?;
            let opened = file.metadata().map_err(wrong)?;
            if !opened.is_file() {
                break file;
            }
            if !file::lock(&file).map_err(wrong)? {
                let id = std::fs::read_to_string(path).unwrap_or_default();
                return Err(format!(
                    "{path}: expected the pidfile of no running fived, found that of process {}",
                    id.trim()
                ));
            }
            // A fived that ended meanwhile may have removed it.
            let is_there =
                |m: std::fs::Metadata| (m.dev(), m.ino()) == (opened.dev(), opened.ino());
            if std::fs::metadata(path).is_ok_and(is_there) {
                file.set_len(0).map_err(wrong)?;
                break file;
            }
        };
        writeln!(file, "{}", std::process::id()).map_err(wrong)?;
        Ok(Pidfile { path: path.into(), file: Some(file) })
    }

    /// Another fived may have the file from now on.
    pub fn give_up(&mut self) {
        self.file = None;
    }
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        let (path, own) = (PathBuf::from(&self.path), format!("{}\n", std::process::id()));
        directory_calls::make_late(Path::new(&self.path), &[], move |_| {
            // Another fived may have written its own id to it. If somebody has removed the file,
            // there is nothing to do.
            if std::fs::read(&path).is_ok_and(|id| id == own.as_bytes()) {
                let _ = std::fs::remove_file(&path);
            }
        });
    }
}
