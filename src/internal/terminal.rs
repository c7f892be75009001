//! The process of a service's terminal: it copies between the terminal and whoever serves the
//! client, and gives the terminal its size.
//!
//! The kernel lets other users of a terminal keep a call on it waiting, for as long as they like,
//! where no signal ends that: whoever asks for its size, or reads it while somebody sets its mode,
//! with memory that somebody else has to provide (userfaultfd(2), FUSE), and its close waits for
//! whoever writes to it. So each terminal has a process of its own, which has nothing else, and for
//! whose end nobody waits.

use crate::sys::flow::Flow;
use crate::sys::poll::{self, Poll};
use crate::sys::pty::{self, Mode};
use crate::sys::{confine, inherit, process, signal, socket};
use crate::wire::roles;
use crate::wire::run::Size;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};

/// Bytes that are read at once, and held for whoever does not take them.
const PIECE: usize = 32 * 1024;
/// What a terminal's line discipline takes for the end of the input, where it reads lines.
const END_OF_INPUT: &[u8] = b"\x04";

/// Runs the process. Returns its exit status: 0 when the relay is over; 111 when it cannot begin.
pub fn main() -> i32 {
    signal::ignore_orders();
    process::limit_malloc_arenas(1);
    match begin() {
        Ok(mut copy) => {
            // Whatever ends it, the terminal hangs up, and the connection ends.
            let _ = copy.run();
            0
        }
        Err(_) => 111,
    }
}

fn begin() -> Result<TerminalCopy, String> {
    let text = |e: io::Error| e.to_string();
    let terminal = inherit::take(roles::TERMINAL_END).map_err(text)?;
    let sizes = inherit::take(roles::SIZES).map_err(text)?;
    let connection = io::stdin().as_fd().try_clone_to_owned().map_err(text)?;
    confine::terminal(roles::helper(inherit::variable)?).map_err(|e| e.to_string())?;
    Ok(TerminalCopy::new(connection, terminal, sizes))
}

/// Whose direction it is, as far as it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Open,
    /// Nothing more comes; what is held is still to be written.
    Ended,
    /// All was written, and what says that it was all.
    Over,
}

/// What was read and not written yet: from there on.
#[derive(Default)]
struct Held {
    bytes: Vec<u8>,
    done: usize,
}

struct TerminalCopy {
    connection: Flow,
    terminal: Flow,
    /// None: no more sizes will come, because the service has ended.
    sizes: Option<Flow>,
    input: (Direction, Held),
    output: (Direction, Held),
    /// What was written to the terminal last has no line end yet.
    in_line: bool,
    /// The end of the input was written to it, which was in that mode.
    end_written: Option<Mode>,
}

impl TerminalCopy {
    fn new(connection: OwnedFd, terminal: OwnedFd, sizes: OwnedFd) -> TerminalCopy {
        TerminalCopy {
            connection: Flow::of_socket(connection),
            terminal: Flow::of_terminal(terminal),
            sizes: Some(Flow::of_socket(sizes)),
            input: (Direction::Open, Held::default()),
            output: (Direction::Open, Held::default()),
            in_line: false,
            end_written: None,
        }
    }

    /// Copies until the service has ended, or its end is closed, and all that came from it was
    /// passed on, and keeps the terminal until the service has ended; or until nobody has the other
    /// end of the connection.
    fn run(&mut self) -> io::Result<()> {
        while self.output.0 != Direction::Over {
            if self.sizes.is_none() && self.passed_rest()? {
                break;
            }
            let [connection, terminal, sizes] = self.wait()?;
            if sizes.readable {
                self.resize();
            }
            if connection.hung {
                self.pass_last_input();
                return Ok(());
            }
            if connection.readable {
                self.receive_input();
            }
            if terminal.writable || connection.readable {
                self.pass_input();
            }
            if terminal.readable {
                self.receive_output();
            }
            if connection.writable || terminal.readable {
                self.pass_output()?;
            }
        }
        self.keep()
    }

    /// Keeps the terminal until net has ended the channel for its sizes, which it does when the
    /// service has ended or the client has left. A program that closes its terminal goes on for a
    /// moment at least: a terminal that hung up now would end it by SIGHUP.
    fn keep(&self) -> io::Result<()> {
        let Some(sizes) = &self.sizes else { return Ok(()) };
        socket::shutdown_both(self.connection.as_fd())?;
        poll::wait(&mut [Poll::hangup(sizes.as_fd())], None)?;
        Ok(())
    }

    /// Waits until something can be done at the connection, at the terminal, or about its size.
    fn wait(&self) -> io::Result<[Ready; 3]> {
        let reads = |(direction, held): &(Direction, Held)| {
            *direction == Direction::Open && held.is_empty()
        };
        let (from_peer, from_terminal) = (reads(&self.input), reads(&self.output));
        let (to_terminal, to_peer) = (!self.input.1.is_empty(), !self.output.1.is_empty());
        let connection = self.connection.as_fd();
        let mut polls = [
            // That nobody has its other end any more is always of interest.
            match from_peer {
                true => Poll::new(connection, true, to_peer),
                false => Poll::end(connection, false, to_peer),
            },
            Poll::new(self.terminal.as_fd(), from_terminal, to_terminal),
            self.sizes.as_ref().map_or(Poll::none(), |sizes| Poll::new(sizes.as_fd(), true, false)),
        ];
        poll::wait(&mut polls, None)?;
        Ok(polls.map(|p| Ready { readable: p.readable(), writable: p.writable(), hung: p.hung() }))
    }

    /// Gives the terminal the last of the sizes that have come.
    fn resize(&mut self) {
        let (mut last, mut size) = (None, [0; 4]);
        let read = loop {
            match self.sizes.as_ref().map(|sizes| sizes.read(&mut size)) {
                Some(Ok(4)) => last = Some(Size::from_bytes(size)),
                read => break read,
            }
        };
        if !matches!(read, Some(Err(e)) if e.kind() == ErrorKind::WouldBlock) {
            self.sizes = None;
        }
        if let Some(Size { rows, columns }) = last {
            // This fails where it has hung up, which is noticed when it is read.
            let _ = pty::resize(self.terminal.as_fd(), rows, columns);
        }
    }

    fn receive_input(&mut self) {
        if !self.input.1.is_filled_from(&self.connection) {
            self.input.0 = Direction::Ended;
        }
    }

    /// Writes to the terminal what it takes, and the end of the input after all of it.
    fn pass_input(&mut self) {
        let (direction, held) = &mut self.input;
        let last = held.bytes.last().copied();
        if held.is_written_to(&self.terminal).is_err() {
            // The service's end is closed, which is noticed when it is read.
            held.clear();
        }
        if !held.is_empty() {
            return;
        }
        if let Some(last) = last {
            self.in_line = !b"\r\n".contains(&last);
        }
        held.clear();
        if *direction == Direction::Ended {
            *direction = Direction::Over;
            self.write_end();
        }
    }

    /// The client has left: what it has sent before is written as far as the terminal takes it.
    /// That is no end of the input: the terminal hangs up.
    fn pass_last_input(&mut self) {
        while self.input.1.is_written_to(&self.terminal).is_ok()
            && self.input.1.is_empty()
            && self.input.0 == Direction::Open
        {
            self.receive_input();
        }
    }

    fn receive_output(&mut self) {
        if !self.output.1.is_filled_from(&self.terminal) {
            self.output.0 = Direction::Ended;
            return;
        }
        // An end of the input that the terminal had before its mode changed is no end any more: it
        // is written again.
        if self.end_written.is_some_and(|before| self.mode().is_some_and(|now| now != before)) {
            self.write_end();
        }
    }

    /// The service has ended: there is all that it has written. What it has left in the background
    /// may go on, and keeps nobody waiting. False: some of it was not taken yet.
    fn passed_rest(&mut self) -> io::Result<bool> {
        while self.output.0 == Direction::Open && self.output.1.is_empty() {
            self.output.1.is_filled_from(&self.terminal);
            if self.output.1.is_empty() {
                self.output.0 = Direction::Ended;
            }
            self.pass_output()?;
        }
        Ok(self.output.0 == Direction::Over)
    }

    fn pass_output(&mut self) -> io::Result<()> {
        let (direction, held) = &mut self.output;
        held.is_written_to(&self.connection)?;
        if held.is_empty() {
            held.clear();
            if *direction == Direction::Ended {
                *direction = Direction::Over;
            }
        }
        Ok(())
    }

    /// None: it has hung up, which is noticed when it is read.
    fn mode(&self) -> Option<Mode> {
        pty::mode(self.terminal.as_fd()).ok()
    }

    /// Writes the end of the input to the terminal. If that takes nothing now, its reader has more
    /// than enough to read.
    fn write_end(&mut self) {
        let Some(mode) = self.mode() else { return };
        if mode == Mode::Lines && self.in_line {
            // The first one ends only that line.
            let _ = self.terminal.write(END_OF_INPUT);
        }
        let _ = self.terminal.write(END_OF_INPUT);
        (self.in_line, self.end_written) = (false, Some(mode));
    }
}

/// What can be done at a descriptor.
struct Ready {
    readable: bool,
    writable: bool,
    /// Both directions have ended.
    hung: bool,
}

impl Held {
    fn is_empty(&self) -> bool {
        self.done == self.bytes.len()
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.done = 0;
    }

    /// Reads what has come, into an empty one. False: nothing more will come.
    fn is_filled_from(&mut self, from: &Flow) -> bool {
        self.bytes.resize(PIECE, 0);
        self.done = 0;
        let read = from.read(&mut self.bytes);
        self.bytes.truncate(*read.as_ref().unwrap_or(&0));
        match read {
            Ok(n) => n > 0,
            Err(e) => matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }

    /// Writes as much of it as is taken now. Err: nothing will be taken any more.
    fn is_written_to(&mut self, to: &Flow) -> io::Result<()> {
        while !self.is_empty() {
            match to.write(&self.bytes[self.done..]) {
                Ok(n) => self.done += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::socket;
    use std::fs::File;
    use std::io::{Read, Write};
    use std::thread::{JoinHandle, spawn};

    /// The other ends of such a copy, and the copy, which runs.
    struct Ends {
        client: File,
        service: File,
        sizes: Option<OwnedFd>,
        copy: JoinHandle<io::Result<()>>,
    }

    fn ends() -> Ends {
        let (client, connection) = socket::pair().expect("a pair");
        let (sizes, theirs) = socket::seqpacket().expect("a pair");
        let uid = crate::sys::identity::effective_uid();
        let (terminal, service) = pty::open(uid, 24, 80).expect("a terminal");
        let mut copy = TerminalCopy::new(connection, terminal, theirs);
        let copy = spawn(move || copy.run());
        Ends { client: client.into(), service: service.into(), sizes: Some(sizes), copy }
    }

    fn read(from: &mut File, most: usize) -> Vec<u8> {
        let mut bytes = vec![0; most];
        let n = from.read(&mut bytes).expect("bytes");
        bytes.truncate(n);
        bytes
    }

    #[test]
    fn both_ways_with_the_last_size_until_the_service_has_ended() {
        let Ends { mut client, mut service, sizes, copy } = ends();
        for rows in [30, 40] {
            let size = Size { rows, columns: 132 }.bytes();
            socket::send(sizes.as_ref().expect("there").as_fd(), &size).expect("sent");
        }
        client.write_all(b"one\n").expect("taken");
        assert_eq!(read(&mut service, 9), b"one\n");
        let mut echo = [0; 5];
        client.read_exact(&mut echo).expect("an echo");
        assert_eq!(&echo, b"one\r\n");
        assert_eq!(pty::size(service.as_fd()).expect("a size"), (40, 132));
        service.write_all(&[b'x'; 3000]).expect("taken");
        // It has ended, and somebody else has its terminal.
        drop(sizes);
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).expect("all of it");
        assert_eq!(rest, [b'x'; 3000]);
        copy.join().expect("the end").expect("all was passed on");
    }

    #[test]
    fn the_end_of_the_input_is_typed_and_whoever_leaves_hangs_up() {
        let Ends { mut client, mut service, sizes: _sizes, copy } = ends();
        client.write_all(b"in a line").expect("taken");
        socket::shutdown_write(client.as_fd()).expect("ended");
        assert_eq!(read(&mut service, 99), b"in a line");
        assert_eq!(read(&mut service, 99), b"");
        service.write_all(b"more").expect("taken");
        drop(client);
        // It may have had output for the client.
        let ended = copy.join().expect("the end").map_err(|e| e.kind());
        assert!(matches!(ended, Ok(()) | Err(ErrorKind::BrokenPipe)), "{ended:?}");
        let e = service.write_all(b"x").expect_err("it has hung up");
        assert_eq!(e.raw_os_error(), Some(5), "{e}");
    }
}
