//! Standard input and output of a call. They are handed to the holder if they can be used without
//! waiting. A terminal is copied by this process: so job control stays with the person's shell, and
//! a stopped terminal makes nobody else wait.

use super::error::{Error, NO_SESSION};
use crate::sys::poll::{self, Poll};
use crate::sys::{flow, process, signal, socket};
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

/// Bytes that are copied at once.
const CHUNK: usize = 16 * 1024;

/// What this process copies itself.
#[derive(Default)]
pub struct Stdio {
    /// Standard input, the pair's near end, and bytes that it has not taken yet.
    input: Option<(File, OwnedFd, Vec<u8>)>,
    /// The pair's near end, and standard output.
    output: Option<(OwnedFd, File)>,
}

impl Stdio {
    /// The two descriptors for a holder. `no_input`: /dev/null is the input.
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
                    this.input = Some((input.into(), ours, Vec::new()));
                    theirs
                }
            };
            let output = io::stdout().as_fd().try_clone_to_owned()?;
            let output_end = match flow::without_waiting(output.as_fd(), true)? {
                Some(fd) => fd,
                None => {
                    let (ours, theirs) = socket::pair()?;
                    this.output = Some((ours, output.into()));
                    theirs
                }
            };
            Ok(vec![input_end, output_end])
        };
        let fds = open().map_err(Error::system("standard input and output"))?;
        Ok((this, fds))
    }

    /// To be called when the service has started: this process must not keep pipes open that the
    /// service closes.
    pub fn release(&self) {
        // If this fails, the descriptor stays open, and the end of a pipe is seen later.
        if self.input.is_none() {
            let _ = process::redirect_to_null(0);
        }
        if self.output.is_none() {
            let _ = process::redirect_to_null(1);
        }
    }

    /// Polls standard input, the pair to the service, and the pair from it.
    pub fn polls(&self) -> [Poll<'_>; 3] {
        let mut polls = [Poll::none(); 3];
        if let Some((from, to, held)) = &self.input {
            polls[0] = Poll::new(from.as_fd(), held.is_empty(), false);
            polls[1] = Poll::new(to.as_fd(), false, !held.is_empty());
        }
        if let Some((from, _)) = &self.output {
            polls[2] = Poll::new(from.as_fd(), true, false);
        }
        polls
    }

    /// Copies what has come. Err: standard output cannot be written.
    pub fn copy(&mut self, [input, to_service, output]: [bool; 3]) -> io::Result<()> {
        if input {
            self.read_input();
        }
        if input || to_service {
            self.send_input();
        }
        if output { self.copy_output() } else { Ok(()) }
    }

    fn read_input(&mut self) {
        let Some((from, to, held)) = &mut self.input else { return };
        let mut bytes = [0; CHUNK];
        match from.read(&mut bytes) {
            Ok(n @ 1..) => held.extend_from_slice(&bytes[..n]),
            Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            // The end, or a terminal that is gone.
            _ => {
                let _ = socket::shutdown_write(to.as_fd());
                self.input = None;
            }
        }
    }

    fn send_input(&mut self) {
        let Some((_, to, held)) = &mut self.input else { return };
        match socket::send(to.as_fd(), held) {
            Ok(n) => drop(held.drain(..n)),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            // Nobody reads the input any more.
            Err(_) => self.input = None,
        }
    }

    fn copy_output(&mut self) -> io::Result<()> {
        let Some((from, to)) = &mut self.output else { return Ok(()) };
        let mut bytes = [0; CHUNK];
        match socket::receive(from.as_fd(), &mut bytes) {
            Ok(n @ 1..) => to.write_all(&bytes[..n]),
            Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(()),
            _ => {
                self.output = None;
                Ok(())
            }
        }
    }

    /// The service has ended: copies the rest of its output.
    pub fn finish(&mut self) -> io::Result<()> {
        while let Some((from, _)) = &self.output {
            poll::wait(&mut [Poll::new(from.as_fd(), true, false)], None)?;
            self.copy_output()?;
        }
        Ok(())
    }
}

/// Ends this process by SIGPIPE, like any program whose output nobody reads.
pub fn end_by_sigpipe() -> ! {
    signal::end_by_broken_pipe();
    std::process::exit(NO_SESSION)
}

/// Prints a text, and returns the exit status.
pub fn print(text: &str) -> i32 {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => 0,
        Err(_) => NO_SESSION,
    }
}
