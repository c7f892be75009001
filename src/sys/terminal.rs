//! Asks the person at the terminal.

use super::poll::{self, Poll};
use super::signal::{self, Signal, Signals};
use super::undo::{self, Settings};
use super::{check, count};
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

/// Bytes of an answer at most; crypt(3) takes no more.
pub const PASSWORD_MAX: usize = 512;

/// Asks on the terminal and gives one line, without its end; nothing that is typed is shown. Where
/// standard input is not a terminal, the line comes from there and nothing is asked. A signal that
/// interrupts it (SIGINT and the like) takes effect after the terminal was restored. Errors:
/// UnexpectedEof without a line, InvalidData for more than [`PASSWORD_MAX`] bytes.
pub fn read_password(prompt: &str) -> io::Result<Vec<u8>> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return line(stdin.as_fd(), |_| Ok(()));
    }
    let tty = match terminal() {
        Ok(tty) => tty,
        Err(_) => File::from(stdin.as_fd().try_clone_to_owned()?),
    };
    answer(&tty, prompt, Echo::Off)
}

/// Does standard input come from a terminal?
pub fn is_input() -> bool {
    io::stdin().is_terminal()
}

/// Does standard output go to a terminal?
pub fn is_output() -> bool {
    io::stdout().is_terminal()
}

/// May this process's job use the terminal of standard input, or has another job of its shell taken
/// that over? Where standard input is not this process's controlling terminal: it may.
pub fn is_in_foreground() -> bool {
    undo::is_ours(0)
}

/// Rows and columns of the terminal that standard output goes to, or input comes from. None: there
/// is none.
pub fn size() -> Option<(u16, u16)> {
    super::pty::size(io::stdout().as_fd()).or_else(|_| super::pty::size(io::stdin().as_fd())).ok()
}

/// The next line of standard input, if it has come already; it does not wait. None: no line has
/// come, or not all of it. Errors: as [`read_password`].
pub fn waiting_line() -> io::Result<Option<Vec<u8>>> {
    let there =
        |fd: BorrowedFd| match poll::wait(&mut [Poll::new(fd, true, false)], Some(Duration::ZERO))?
        {
            0 => Err(io::Error::from(io::ErrorKind::WouldBlock)),
            _ => Ok(()),
        };
    match line(io::stdin().as_fd(), there) {
        Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::UnexpectedEof) => {
            Ok(None)
        }
        found => found.map(Some),
    }
}

/// Does the terminal show what is typed?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Echo {
    On,
    Off,
}

/// Asks on the terminal of this process, wherever standard input comes from. Errors: as
/// [`read_password`], and whatever opening `/dev/tty` says where there is no terminal.
pub fn question(prompt: &str, echo: Echo) -> io::Result<Vec<u8>> {
    answer(&terminal()?, prompt, echo)
}

/// The terminal of standard input passes on what is typed byte by byte, and changes nothing of what
/// is written to it, for as long as this value lives.
#[derive(Debug)]
pub struct Raw {
    settings: Settings,
}

impl Raw {
    /// Errors: ENOTTY, if standard input is no terminal.
    pub fn new() -> io::Result<Raw> {
        let this = Raw { settings: Settings::of(0)? };
        this.again()?;
        Ok(this)
    }

    /// Does it again, after somebody else has changed the terminal.
    pub fn again(&self) -> io::Result<()> {
        let mut raw = self.settings.before;
        // SAFETY: one termios is changed.
        unsafe { libc::cfmakeraw(&mut raw) };
        // SAFETY: one termios is read.
        check(unsafe { libc::tcsetattr(0, libc::TCSANOW, &raw) }).map(drop)
    }
}

/// Is standard error a terminal that changes nothing of what is written to it? A line there begins
/// where the one before it has ended.
pub fn errors_are_raw() -> bool {
    undo::termios(libc::STDERR_FILENO).is_ok_and(|t| t.c_oflag & libc::OPOST == 0)
}

/// This process's terminal, for another program that asks there; and its settings, which it gets
/// back if that program is killed before it has restored them. None: there is no terminal.
pub fn lend() -> Option<(Settings, File)> {
    let tty = terminal().ok()?;
    Settings::of(tty.as_raw_fd()).ok().map(|settings| (settings, tty))
}

/// Has this process a terminal?
pub fn is_there() -> bool {
    terminal().is_ok()
}

fn terminal() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open("/dev/tty")
}

fn answer(tty: &File, prompt: &str, echo: Echo) -> io::Result<Vec<u8>> {
    loop {
        match ask(tty, prompt, echo) {
            Err(Halt::Signal(s)) => {
                // The terminal and the signal's effect are restored by now.
                signal::raise(s);
                if s != Signal::TSTP {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                // After it was stopped and continued (fg), it asks again.
            }
            Err(Halt::Error(e)) => return Err(e),
            Ok(answer) => return Ok(answer),
        }
    }
}

/// What ends a question without an answer.
enum Halt {
    Signal(Signal),
    Error(io::Error),
}

impl From<io::Error> for Halt {
    fn from(e: io::Error) -> Halt {
        Halt::Error(e)
    }
}

fn ask(mut tty: &File, prompt: &str, echo: Echo) -> Result<Vec<u8>, Halt> {
    let signals = Signals::new(&Signal::ending_or_stopping())?;
    let echo_off = if echo == Echo::Off { Some(echo_off(tty.as_fd())?) } else { None };
    tty.write_all(prompt.as_bytes())?;
    let mut received = None;
    let answer = line(tty.as_fd(), |fd| {
        let mut both = [Poll::new(fd, true, false), Poll::new(signals.as_fd(), true, false)];
        poll::wait(&mut both, None)?;
        received = signals.next().map(|r| r.signal);
        match received {
            Some(_) => Err(io::ErrorKind::Interrupted.into()),
            None => Ok(()),
        }
    });
    if echo_off.is_some() || received.is_some() || answer.is_err() {
        drop(echo_off);
        // The end of the line was not echoed either, and Control-D never is.
        tty.write_all(b"\n")?;
    }
    match received {
        Some(signal) => Err(Halt::Signal(signal)),
        None => Ok(answer?),
    }
}

/// Reads byte by byte, so that what follows the line stays for the next question.
fn line(fd: BorrowedFd, mut wait: impl FnMut(BorrowedFd) -> io::Result<()>) -> io::Result<Vec<u8>> {
    let mut answer = Vec::with_capacity(PASSWORD_MAX);
    loop {
        wait(fd)?;
        let mut byte = 0u8;
        // SAFETY: one byte is written, for which there is room.
        match count(unsafe { libc::read(fd.as_raw_fd(), (&raw mut byte).cast(), 1) }) {
            Ok(0) if answer.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(0) => return Ok(answer),
            Ok(_) if byte == b'\n' => {
                if answer.last() == Some(&b'\r') {
                    answer.pop();
                }
                return Ok(answer);
            }
            Ok(_) if answer.len() == PASSWORD_MAX => return Err(io::ErrorKind::InvalidData.into()),
            Ok(_) => answer.push(byte),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// The terminal shows nothing that is typed, for as long as the settings live that are returned.
fn echo_off(fd: BorrowedFd) -> io::Result<Settings> {
    let settings = Settings::of(fd.as_raw_fd())?;
    let mut changed = settings.before;
    changed.c_lflag &= !(libc::ECHO | libc::ECHOE | libc::ECHOK | libc::ECHONL);
    changed.c_lflag |= libc::ICANON;
    // SAFETY: one termios is read. TCSAFLUSH discards what was typed before the question.
    check(unsafe { libc::tcsetattr(fd.as_raw_fd(), libc::TCSAFLUSH, &changed) })?;
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::super::socket;
    use super::*;
    use std::io::Read;
    use std::os::fd::{FromRawFd, OwnedFd};

    /// A terminal's two ends: ours, and the one that asks.
    fn terminal() -> (File, File) {
        let (mut ours, mut theirs) = (-1, -1);
        let (name, mode, size) = (std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: two descriptors are written; they are nobody else's.
        unsafe {
            assert_eq!(libc::openpty(&mut ours, &mut theirs, name, mode, size), 0);
            (File::from_raw_fd(ours), File::from_raw_fd(theirs))
        }
    }

    fn echoes(fd: &File) -> bool {
        // SAFETY: the call fills the termios.
        let flags = unsafe {
            let mut t: libc::termios = std::mem::zeroed();
            libc::tcgetattr(fd.as_raw_fd(), &mut t);
            t.c_lflag
        };
        flags & libc::ECHO != 0
    }

    fn prompted(mut ours: &File) {
        let mut b = [0; 10];
        ours.read_exact(&mut b).unwrap();
        assert_eq!(&b, b"Password: ");
    }

    #[test]
    fn an_answer_is_not_shown() {
        let (ours, theirs) = terminal();
        let asked =
            std::thread::spawn(move || (ask(&theirs, "Password: ", Echo::Off).ok(), theirs));
        prompted(&ours);
        (&ours).write_all(b"secret\n").unwrap();
        let (answer, theirs) = asked.join().unwrap();
        assert_eq!(answer.unwrap(), b"secret");
        assert!(echoes(&theirs));
        let mut shown = [0; 2];
        (&ours).read_exact(&mut shown).unwrap();
        assert_eq!(&shown, b"\r\n");
    }

    #[test]
    fn a_signal_finds_the_terminal_as_it_was() {
        for signal in [Signal::INT, Signal::USR1] {
            let (ours, theirs) = terminal();
            let asked = std::thread::spawn(move || {
                // The signal comes to this thread, which blocks it for as long as it asks.
                // SAFETY: a question without memory.
                let me = unsafe { libc::pthread_self() };
                let typist = std::thread::spawn(move || {
                    prompted(&ours);
                    // SAFETY: the thread lives: it joins this one.
                    unsafe { libc::pthread_kill(me, signal.number()) };
                    ours
                });
                let halted = ask(&theirs, "Password: ", Echo::Off);
                let ours = typist.join().unwrap();
                (matches!(halted, Err(Halt::Signal(s)) if s == signal), theirs, ours)
            });
            let (halted, theirs, _near) = asked.join().unwrap();
            assert!(halted && echoes(&theirs));
        }
    }

    #[test]
    fn lines_of_a_pipe_come_one_by_one() {
        let (ours, theirs) = socket::pair().unwrap();
        let next = |fd: &OwnedFd| line(fd.as_fd(), |_| Ok(()));
        socket::send(ours.as_fd(), b"one\r\ntwo\n\nthree").unwrap();
        socket::send(ours.as_fd(), &[b'x'; PASSWORD_MAX]).unwrap();
        assert_eq!(next(&theirs).unwrap(), b"one");
        assert_eq!(next(&theirs).unwrap(), b"two");
        assert_eq!(next(&theirs).unwrap(), b"");
        assert_eq!(next(&theirs).unwrap_err().kind(), io::ErrorKind::InvalidData);
        drop(ours);
        assert_eq!(next(&theirs).unwrap().len(), 4);
        assert_eq!(next(&theirs).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
