//! Hands text to another process as a file in memory that nobody can change any more
//! (memfd_create(2)).

use super::check;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// Bytes of such a file at most.
pub const SIZE_MAX: u64 = 1 << 30;

/// A sealed file of these bytes, with its offset at the beginning.
pub fn sealed(bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = Unsealed::new()?;
    file.write(bytes)?;
    file.seal()
}

/// Such a file while it is written, piece by piece.
#[derive(Debug)]
pub struct Unsealed(File);

impl Unsealed {
    /// An empty one.
    pub fn new() -> io::Result<Unsealed> {
        let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
        // SAFETY: the name is a C string.
        let fd = check(unsafe { libc::memfd_create(c"fived".as_ptr(), flags) })?;
        // SAFETY: the descriptor was just made and is nobody else's.
        Ok(Unsealed(File::from(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    /// Writes these bytes after the others.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    /// From now on nobody can change it. Its offset is at the beginning.
    pub fn seal(mut self) -> io::Result<OwnedFd> {
        self.0.rewind()?;
        let seals =
            libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
        // SAFETY: F_ADD_SEALS takes an int.
        check(unsafe { libc::fcntl(self.0.as_raw_fd(), libc::F_ADD_SEALS, seals) })?;
        Ok(self.0.into())
    }
}

/// All of its bytes, whatever the descriptor's offset.
pub fn read(fd: BorrowedFd) -> io::Result<Vec<u8>> {
    let file = File::from(fd.try_clone_to_owned()?);
    let size = file.metadata()?.len();
    if size > SIZE_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    // Not more than SIZE_MAX, which fits.
    let mut bytes = vec![0; size as usize];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn is_read_twice_and_never_written() {
        let fd = sealed(b"text").unwrap();
        assert_eq!(read(fd.as_fd()).unwrap(), b"text");
        assert_eq!(read(fd.as_fd()).unwrap(), b"text");
        let file = File::from(fd);
        assert!(file.write_at(b"T", 0).is_err() && file.set_len(0).is_err());
    }
}
