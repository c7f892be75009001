//! The file with the parent's process id (`-p`).

use std::fs::File;
use std::io::Read;

/// Bytes of such a file at most: a number, and some blanks.
const SIZE_MAX: u64 = 32;

/// A file that was written. It is removed when this is dropped.
pub struct Pidfile(String);

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

    pub fn write(path: &str) -> Result<Pidfile, String> {
        std::fs::write(path, format!("{}\n", std::process::id()))
            .map_err(|e| format!("{path}: {e}"))?;
        Ok(Pidfile(path.into()))
    }
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        // Another fived may have written its own id to it. If somebody has removed the file, there
        // is nothing to do.
        if std::fs::read(&self.0)
            .is_ok_and(|id| id == format!("{}\n", std::process::id()).as_bytes())
        {
            let _ = std::fs::remove_file(&self.0);
        }
    }
}
