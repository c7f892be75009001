//! A terminal for the service of this call: whether five asks for one, and what it does with the
//! person's own terminal as long as the service has one.

use super::error::Error;
use crate::sys::signal::{Signal, Signals};
use crate::sys::terminal::{self, Raw};
use crate::wire::run::{self, Size};
use std::os::fd::{AsFd, BorrowedFd};

/// The type of a terminal that has none.
const UNKNOWN: &str = "dumb";

/// When five asks for a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    /// If standard input and output are terminals.
    Interactive,
    Always,
    Never,
}

impl Asks {
    /// As -t and -T say; `plain`: there is no RUN.
    pub fn typed(always: bool, never: bool, plain: bool) -> Result<Asks, &'static str> {
        match (always, never) {
            (true, true) => Err("-t and -T exclude each other"),
            (true, false) if plain => Err("--plain excludes -t: RFC 1078 has no terminals"),
            (true, false) => Ok(Asks::Always),
            (false, true) => Ok(Asks::Never),
            (false, false) => Ok(Asks::Interactive),
        }
    }
}

/// A terminal that was asked for.
#[derive(Debug)]
pub struct Terminal {
    wanted: run::Terminal,
    /// Does a person type at standard input?
    typed: bool,
}

impl Terminal {
    /// None: no terminal is asked for. `no_input`: nothing is read from standard input.
    pub fn asked(asks: Asks, no_input: bool) -> Option<Terminal> {
        let typed = !no_input && terminal::is_input();
        let asks = match asks {
            Asks::Always => true,
            Asks::Never => false,
            Asks::Interactive => typed && terminal::is_output(),
        };
        let size = size().unwrap_or(Size { rows: 0, columns: 0 });
        let term = std::env::var("TERM").unwrap_or_default();
        let wanted = run::Terminal::new(&term, size).or_else(|| run::Terminal::new(UNKNOWN, size));
        wanted.filter(|_| asks).map(|wanted| Terminal { wanted, typed })
    }

    /// What the server is asked for.
    pub fn wanted(&self) -> run::Terminal {
        self.wanted.clone()
    }

    /// The service has its terminal. None: nobody types at a terminal here.
    pub fn given(&self) -> Result<Option<Typing>, Error> {
        // Once its input has ended, it is no longer there.
        if self.typed && terminal::is_input() { Typing::new().map(Some) } else { Ok(None) }
    }
}

/// As long as this value lives, the person's terminal passes on every byte, and the signals that
/// would end this process, and that of the terminal's new size, are received here: whatever ends
/// it, the terminal is as it was before.
#[derive(Debug)]
pub struct Typing {
    // The fields are dropped in this order: a signal takes effect after the terminal was restored.
    _raw: Raw,
    signals: Signals,
}

impl Typing {
    fn new() -> Result<Typing, Error> {
        use Signal::{Hup, Int, Quit, Term, Winch};
        // One that was ignored when five started stays ignored.
        let ending = [Int, Term, Hup, Quit].into_iter().filter(|s| !s.is_ignored());
        let all: Vec<Signal> = ending.chain([Winch]).collect();
        let signals = Signals::new(&all).map_err(Error::system("signals"))?;
        Ok(Typing { _raw: Raw::new().map_err(Error::system("standard input"))?, signals })
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }

    /// The next signal that has come.
    pub fn signal(&self) -> Option<Signal> {
        self.signals.next().map(|received| received.signal)
    }
}

/// The size of the person's terminal.
pub fn size() -> Option<Size> {
    terminal::size().map(|(rows, columns)| Size { rows, columns })
}

/// Where in a line the input is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum At {
    #[default]
    Beginning,
    /// After a `~` at the beginning, which was not passed on.
    Tilde,
    Within,
    /// After `~.`: nothing more is passed on.
    End,
}

/// Escapes at the beginning of a line that is typed: `~.` ends five, `~~` is one `~`.
#[derive(Debug, Default)]
pub struct Escapes {
    at: At,
}

impl Escapes {
    /// What of these bytes is for the service.
    pub fn pass(&mut self, typed: &[u8]) -> Vec<u8> {
        let mut passed = Vec::with_capacity(typed.len() + 1);
        for byte in typed {
            self.at = match (self.at, byte) {
                (At::End, _) | (At::Tilde, b'.') => At::End,
                (At::Beginning, b'~') => At::Tilde,
                (at, byte) => {
                    if at == At::Tilde && *byte != b'~' {
                        passed.push(b'~');
                    }
                    passed.push(*byte);
                    if matches!(byte, b'\r' | b'\n') { At::Beginning } else { At::Within }
                }
            };
        }
        passed
    }

    /// Was `~.` typed?
    pub fn have_ended(&self) -> bool {
        self.at == At::End
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_at_the_beginning_of_a_line() {
        for (typed, passed, ended) in [
            ("a~.b", "a~.b", false),
            ("~~.\r~~", "~.\r~", false),
            ("~x~.", "~x~.", false),
            ("~\r~.x", "~\r", true),
            ("a\n~.", "a\n", true),
        ] {
            let (mut whole, mut split) = (Escapes::default(), Escapes::default());
            assert_eq!(whole.pass(typed.as_bytes()), passed.as_bytes(), "{typed:?}");
            let pieces = typed.as_bytes().iter().flat_map(|b| split.pass(&[*b]));
            assert_eq!(pieces.collect::<Vec<_>>(), passed.as_bytes(), "{typed:?}");
            assert_eq!((whole.have_ended(), split.have_ended()), (ended, ended), "{typed:?}");
        }
    }
}
