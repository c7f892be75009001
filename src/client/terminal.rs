//! A terminal for the service of this call: whether five asks for one, and what it does with the
//! person's own terminal as long as the service has one.

use super::error::Error;
use crate::sys::signal::{self, Signal, Signals};
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
/// stop and continue this process, and that of the terminal's new size, are received here: whatever
/// ends or stops it, the terminal is as it was before.
#[derive(Debug)]
pub struct Typing {
    // The fields are dropped in this order: a signal takes effect after the terminal was restored.
    raw: Raw,
    signals: Signals,
}

impl Typing {
    fn new() -> Result<Typing, Error> {
        wait_for_foreground();
        let signals = signals()?;
        Ok(Typing { raw: Raw::new().map_err(Error::system("standard input"))?, signals })
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }

    /// The next signal that has come.
    pub fn signal(&self) -> Option<Signal> {
        self.signals.next().map(|received| received.signal)
    }

    /// Restores the terminal and stops; goes on when this process, or the job, is continued.
    /// `whole_job`: so do all processes of the job, as after Control-Z.
    pub fn suspend(self, whole_job: bool) -> Result<Typing, Error> {
        drop(self);
        if whole_job {
            signal::raise_in_job(Signal::TSTP)
        } else {
            signal::raise(Signal::TSTP)
        }
        Typing::new()
    }

    /// This process was continued after something had stopped it without asking (SIGSTOP). The
    /// person's shell may have changed the terminal meanwhile, and may be using it.
    pub fn continued(self) -> Result<Typing, Error> {
        let Typing { raw, signals: received } = self;
        drop(received);
        wait_for_foreground();
        let signals = signals()?;
        raw.again().map_err(Error::system("standard input"))?;
        Ok(Typing { raw, signals })
    }
}

/// Those that are received, once they are blocked for this process.
fn signals() -> Result<Signals, Error> {
    let all = Signal::stopping().into_iter().chain([Signal::WINCH, Signal::CONT]);
    Signals::new(&all.collect::<Vec<_>>()).map_err(Error::system("signals"))
}

/// If another job has the terminal, this one stops, as when it used the terminal itself; but no
/// signal is blocked now, so one that is to end this process does.
fn wait_for_foreground() {
    if !terminal::is_in_foreground() {
        signal::raise_in_job(Signal::TTOU);
    }
}

/// The size of the person's terminal.
pub fn size() -> Option<Size> {
    terminal::size().map(|(rows, columns)| Size { rows, columns })
}
