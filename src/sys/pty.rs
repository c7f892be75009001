//! Pseudo-terminals (pty(7)): one end for a service, the other for whoever serves its client.

use super::check;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Makes a terminal: our end, which never waits, and the service's. The service's end belongs to
/// this user, if that is another than this process's; its group and mode are as the file system
/// (devpts) makes them, so that whoever may write to terminals (the group `tty`) may do so.
pub fn open(uid: u32, rows: u16, columns: u16) -> io::Result<(OwnedFd, OwnedFd)> {
    let how = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: a C string.
    let ours = owned(unsafe { libc::open(c"/dev/ptmx".as_ptr(), how | libc::O_NONBLOCK) })?;
    let unlocked: libc::c_int = 0;
    // SAFETY: one int is read.
    check(unsafe { libc::ioctl(ours.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) })?;
    // SAFETY: no memory is handed over. The service's end is opened without a path, so it is that
    // of this terminal, wherever devpts is.
    let theirs = owned(unsafe { libc::ioctl(ours.as_raw_fd(), libc::TIOCGPTPEER as _, how) })?;
    resize(ours.as_fd(), rows, columns)?;
    // SAFETY: no memory is handed over.
    if uid != unsafe { libc::geteuid() } {
        // SAFETY: no memory is handed over.
        check(unsafe { libc::fchown(theirs.as_raw_fd(), uid, libc::gid_t::MAX) })?;
    }
    Ok((ours, theirs))
}

/// Gives a terminal another size; its foreground processes get SIGWINCH.
pub fn resize(terminal: BorrowedFd, rows: u16, columns: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let fd = terminal.as_raw_fd();
    // SAFETY: one winsize is read.
    check(unsafe { libc::ioctl(fd, libc::TIOCSWINSZ, &raw const size) }).map(drop)
}

/// The size of a terminal: rows and columns.
pub fn size(terminal: BorrowedFd) -> io::Result<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: one winsize is written.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) })?;
    Ok((size.ws_row, size.ws_col))
}

/// What a terminal hands to whoever reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Whole lines, and the end of the input where Control-D is typed (ICANON).
    Lines,
    /// Every byte as it comes.
    Keys,
}

/// The mode of a terminal; either end may be asked.
pub fn mode(terminal: BorrowedFd) -> io::Result<Mode> {
    let mut settings = MaybeUninit::<libc::termios>::zeroed();
    // SAFETY: the kernel writes one termios of its own, which is shorter.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TCGETS, settings.as_mut_ptr()) })?;
    // SAFETY: all zeros are a termios.
    let settings = unsafe { settings.assume_init() };
    Ok(if settings.c_lflag & libc::ICANON == 0 { Mode::Keys } else { Mode::Lines })
}

fn owned(raw: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: it was just made and is nobody else's.
    check(raw).map(|raw| unsafe { OwnedFd::from_raw_fd(raw) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{IsTerminal, Read, Write};

    #[test]
    fn both_ends_are_of_one_terminal() {
        // SAFETY: no memory is handed over.
        let me = unsafe { libc::geteuid() };
        let (ours, theirs) = open(me, 24, 300).unwrap();
        assert!(theirs.as_fd().is_terminal());
        assert_eq!(size(theirs.as_fd()).unwrap(), (24, 300));
        resize(ours.as_fd(), 50, 132).unwrap();
        assert_eq!(size(theirs.as_fd()).unwrap(), (50, 132));
        assert_eq!(mode(ours.as_fd()).unwrap(), Mode::Lines);
        let mut settings = MaybeUninit::<libc::termios>::zeroed();
        // SAFETY: one termios is written, and read; all zeros are one.
        unsafe {
            assert_eq!(libc::tcgetattr(theirs.as_raw_fd(), settings.as_mut_ptr()), 0);
            let mut raw = settings.assume_init();
            libc::cfmakeraw(&mut raw);
            assert_eq!(libc::tcsetattr(theirs.as_raw_fd(), libc::TCSANOW, &raw), 0);
            assert_eq!(mode(ours.as_fd()).unwrap(), Mode::Keys);
            assert_eq!(libc::tcsetattr(theirs.as_raw_fd(), libc::TCSANOW, settings.as_ptr()), 0);
        }
        assert_eq!(mode(ours.as_fd()).unwrap(), Mode::Lines);
        let (mut ours, mut theirs) = (File::from(ours), File::from(theirs));
        theirs.write_all(b"one\n").unwrap();
        let mut shown = [0; 8];
        let n = ours.read(&mut shown).unwrap();
        assert_eq!(&shown[..n], b"one\r\n");
        drop(theirs);
        assert_eq!(ours.read(&mut shown).unwrap_err().raw_os_error(), Some(libc::EIO));
    }
}
