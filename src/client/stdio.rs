//! Standard input and output of a call. They are handed to the holder if they can be used without
//! waiting. A terminal is copied by this process: so job control stays with the person's shell, and
//! a stopped terminal makes nobody else wait. So is a file of a file system that may not answer,
//! and any file if this process has a limit of the size of files (RLIMIT_FSIZE), which binds nobody
//! else.

use super::error::{Error, NO_SESSION};
use super::escapes::{Escape, Escapes};
use crate::sys::flow::Waiting;
use crate::sys::poll::{self, Poll};
use crate::sys::{flow, process, socket, undo};
use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

/// Bytes that are copied at once.
const CHUNK: usize = 16 * 1024;

/// Bytes of what is typed that wait for a service that takes no input, at most. A terminal is read
/// meanwhile, so that an escape is noticed.
const TYPED_AHEAD_MAX: usize = 1024 * 1024;

/// How many entries [`Stdio::polls`] returns.
pub const STDIO: usize = 4;

/// What this process copies itself.
#[derive(Default)]
pub struct Stdio {
    /// Standard input, our end of a pair, and bytes that it has not taken yet.
    input: Option<(File, OwnedFd, Vec<u8>)>,
    /// Standard input is a terminal.
    typed: bool,
    /// Of standard output and standard error: our end of a pair, and the descriptor itself.
    outputs: [Option<(OwnedFd, File)>; 2],
    /// Bytes of standard output that were copied.
    copied: usize,
    /// What is looked for in the input, if that is a terminal that passes on each byte.
    pub escapes: Option<Escapes>,
}

/// What could not be copied.
#[derive(Debug)]
pub enum Failed {
    /// Standard input could not be read.
    Input(io::Error),
    /// Standard output, or standard error, is a file that could not be written.
    Output(io::Error),
    /// It is a terminal that is gone.
    Unread,
}

/// Which of them can be copied.
#[derive(Debug, Clone, Copy)]
pub struct Ready {
    input: bool,
    to_service: bool,
    /// How many bytes of standard output have come; 0: its end. What comes later may be for another
    /// state of the terminal.
    output: Option<usize>,
    errors: bool,
}

impl Stdio {
    /// The three descriptors for a holder. `no_input`: /dev/null is the input.
    pub fn open(no_input: bool) -> Result<(Stdio, Vec<OwnedFd>), Error> {
        let mut this = Stdio::default();
        let mut open = || -> io::Result<Vec<OwnedFd>> {
            let input = if no_input {
                process::null()?
            } else {
                io::stdin().as_fd().try_clone_to_owned()?
            };
            let input_end = match flow::without_waiting(input.as_fd(), false)? {
                Some(fd) => fd,
                None => {
                    let (ours, theirs) = socket::pair()?;
                    this.typed = input.is_terminal();
                    this.input = Some((input.into(), ours, Vec::new()));
                    theirs
                }
            };
            let mut fds = vec![input_end];
            let both = [io::stdout().as_fd().try_clone_to_owned()?, errors()?];
            for (output, place) in both.into_iter().zip(&mut this.outputs) {
                fds.push(match flow::without_waiting(output.as_fd(), true)? {
                    Some(fd) => fd,
                    None => {
                        let (ours, theirs) = socket::pair()?;
                        *place = Some((ours, output.into()));
                        theirs
                    }
                });
            }
            Ok(fds)
        };
        let fds = open().map_err(Error::system("standard input, output and error"))?;
        Ok((this, fds))
    }

    /// To be called when the service has started: this process must not keep pipes open that the
    /// service closes.
    pub fn release(&self) {
        // If this fails, the descriptor stays open, and the end of a pipe is seen later.
        if self.input.is_none() {
            let _ = process::redirect_to_null(0);
        }
        // Not standard error: this process may still have something to say.
        if self.outputs[0].is_none() {
            let _ = process::redirect_to_null(1);
        }
    }

    /// Polls standard input, the pair to the service, and the two from it.
    pub fn polls(&self) -> [Poll<'_>; STDIO] {
        let mut polls = [Poll::none(); STDIO];
        if let Some((from, to, held)) = &self.input {
            let most = if self.escapes.is_some() { TYPED_AHEAD_MAX } else { 1 };
            polls[0] = Poll::new(from.as_fd(), held.len() < most, false);
            polls[1] = Poll::new(to.as_fd(), false, !held.is_empty());
        }
        for (output, poll) in self.outputs.iter().zip(&mut polls[2..]) {
            if let Some((from, _)) = output {
                *poll = Poll::new(from.as_fd(), true, false);
            }
        }
        polls
    }

    /// What became of those polls, which are the first.
    pub fn ready(&self, polls: &[Poll]) -> Ready {
        let [input, to_service, output, errors] = [0, 1, 2, 3].map(|n| polls[n]);
        let from = self.outputs[0].as_ref().filter(|_| output.readable());
        Ready {
            input: input.readable(),
            to_service: to_service.writable(),
            output: from.map(|(from, _)| socket::unread(from.as_fd())),
            errors: errors.readable(),
        }
    }

    /// Copies what has come.
    pub fn copy(&mut self, ready: Ready) -> Result<(), Failed> {
        if ready.input {
            self.read_input().map_err(Failed::Input)?;
        }
        if ready.input || ready.to_service {
            self.send_input();
        }
        let [output, errors] = &mut self.outputs;
        if let Some(come) = ready.output {
            let most = come.clamp(1, CHUNK);
            self.copied += copy_output(output, most).map_err(|e| failed(output, e))?;
        }
        if ready.errors {
            copy_output(errors, CHUNK).map_err(|e| failed(errors, e))?;
        }
        Ok(())
    }

    /// Copies standard output until so many of its bytes were, which have come already.
    pub fn copy_up_to(&mut self, bytes: usize) -> io::Result<()> {
        while self.copied < bytes {
            match copy_output(&mut self.outputs[0], CHUNK.min(bytes - self.copied))? {
                // It is copied by another process.
                0 => return Ok(()),
                n => self.copied += n,
            }
        }
        Ok(())
    }

    /// The escapes that were typed since the last call.
    pub fn escapes_typed(&mut self) -> Vec<Escape> {
        self.escapes.as_mut().map(Escapes::take).unwrap_or_default()
    }

    fn read_input(&mut self) -> io::Result<()> {
        let Some((from, to, held)) = &mut self.input else { return Ok(()) };
        let mut bytes = [0; CHUNK];
        match from.read(&mut bytes) {
            Ok(n @ 1..) => match &mut self.escapes {
                Some(escapes) => held.extend(escapes.pass(&bytes[..n])),
                None => held.extend_from_slice(&bytes[..n]),
            },
            Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            Err(e) if !self.typed => return Err(e),
            // The end, or a terminal that is gone.
            _ => {
                let _ = socket::shutdown_write(to.as_fd());
                self.input = None;
            }
        }
        Ok(())
    }

    fn send_input(&mut self) {
        let Some((_, to, held)) = &mut self.input else { return };
        match socket::send(to.as_fd(), held) {
            Ok(n) => drop(held.drain(..n)),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            // Nobody reads the input any more; the person may still type an escape.
            Err(_) if self.escapes.is_some() => held.clear(),
            Err(_) => self.input = None,
        }
    }

    /// The service has ended: copies the rest of its output.
    pub fn finish(&mut self) -> Result<(), Failed> {
        for output in &mut self.outputs {
            while let Some((from, _)) = output {
                poll::wait(&mut [Poll::new(from.as_fd(), true, false)], None)
                    .and_then(|_| copy_output(output, CHUNK))
                    .map_err(|e| failed(output, e))?;
            }
        }
        Ok(())
    }
}

/// Copies what has come, at most so many bytes, [`CHUNK`] or fewer. Returns how many there were.
fn copy_output(output: &mut Option<(OwnedFd, File)>, most: usize) -> io::Result<usize> {
    let Some((from, to)) = output else { return Ok(0) };
    let mut bytes = [0; CHUNK];
    match socket::receive(from.as_fd(), &mut bytes[..most]) {
        Ok(n @ 1..) => Waiting(to).write_all(&bytes[..n]).map(|()| n),
        Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(0),
        _ => {
            *output = None;
            Ok(0)
        }
    }
}

/// What it means that an output could not be written.
fn failed(output: &Option<(OwnedFd, File)>, e: io::Error) -> Failed {
    let is_file = |(_, to): &(OwnedFd, File)| to.metadata().is_ok_and(|m| m.is_file());
    if output.as_ref().is_some_and(is_file) { Failed::Output(e) } else { Failed::Unread }
}

/// Standard error; nothing, if it is closed.
fn errors() -> io::Result<OwnedFd> {
    io::stderr().as_fd().try_clone_to_owned().or_else(|_| process::null())
}

/// Ends this process by SIGPIPE, like any program whose output nobody reads.
pub fn end_by_sigpipe() -> ! {
    undo::end_by_broken_pipe();
    std::process::exit(NO_SESSION)
}

/// Prints what was asked for.
pub fn print_answer(text: &str) -> Result<(), Error> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => end_by_sigpipe(),
        written => written.map_err(Error::system("standard output")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Between the two this process may hear that the terminal is to be raw for what comes later.
    #[test]
    fn output_is_copied_as_far_as_it_had_come_when_it_was_looked_for() {
        let (ours, theirs) = socket::pair().expect("pair");
        let (output, shown) = socket::pair().expect("pair");
        let outputs = [Some((ours, output.into())), None];
        let mut stdio = Stdio { outputs, ..Stdio::default() };
        let say =
            |bytes: &[u8]| assert_eq!(socket::send(theirs.as_fd(), bytes).ok(), Some(bytes.len()));
        let look = |stdio: &Stdio| {
            let mut polls = stdio.polls();
            poll::wait(&mut polls, None).expect("poll");
            stdio.ready(&polls)
        };
        say(b"banner");
        let ready = look(&stdio);
        say(b"output");
        stdio.copy(ready).expect("copied");
        assert_eq!(stdio.copied, b"banner".len());
        let ready = look(&stdio);
        stdio.copy(ready).expect("copied");
        drop(theirs);
        let ready = look(&stdio);
        stdio.copy(ready).expect("copied");
        assert!(stdio.outputs[0].is_none(), "its end is noticed");
        let mut all = [0; 64];
        let n = socket::receive(shown.as_fd(), &mut all).expect("output");
        assert_eq!(&all[..n], b"banneroutput");
    }
}
