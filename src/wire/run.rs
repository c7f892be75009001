//! RUN: what follows its answer are records, and not the bytes of the service alone. A record has a
//! head of [`HEAD`] bytes, its kind and the length of what follows (most significant byte first).
//!
//! | kind | the client sends | the server sends |
//! |---|---|---|
//! | 0 | input | output |
//! | 1 | the end of the input (no bytes) | the end of the output (no bytes) |
//! | 2 | a new size of the terminal: rows, columns (two bytes each) | standard error |
//! | 3 | | the end: four bytes, see [`Status`] |
//!
//! Where the service has a terminal, the server's first record is an empty one of kind 0.
//!
//! Between the server's answer and its first record may come a banner, a text as it is. Nothing
//! says how long it is: it ends before the first byte that is a kind of the server's records.
//!
//! Data of the service and what is told about it are never mixed: whoever sends a record decides
//! its kind, and nothing within the data of a record means anything.

mod size;

pub use size::Size;

/// Bytes of a record's head.
pub const HEAD: usize = 4;
/// The most bytes of data in a record.
pub const DATA_MAX: usize = 0xff_ffff;
/// The most bytes of the longest record without data of a service.
pub const CONTROL_MAX: usize = HEAD + 4;
/// The most bytes of a terminal's name (TERM).
pub const TERM_MAX: usize = 64;

const MAIN: u8 = 0;
const END: u8 = 1;
/// From the client.
const SIZE: u8 = 2;
/// From the server.
const ERRORS: u8 = 2;
const STATUS: u8 = 3;
/// After this number come those of signals.
const SIGNALS: u32 = 256;

/// Who sends the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    Client,
    Server,
}

/// Which data of a service a record has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// Its input, or its output.
    Main,
    /// Its standard error.
    Errors,
}

/// How a service ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It ended by itself, with this exit status (0 to 255).
    Exited(u8),
    /// A signal of this number ended it.
    Killed(u8),
}

/// A terminal that a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terminal {
    /// The variable TERM: 1 to [`TERM_MAX`] letters, digits, and `+ - . _`.
    term: String,
    pub size: Size,
}

/// How a client asks for a service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Way {
    /// By its name alone: its bytes follow as they are.
    #[default]
    Plain,
    /// By RUN.
    Run,
    /// By RUN, with a terminal if the service may have one.
    Terminal(Terminal),
}

/// What the next bytes are.
#[derive(Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// The record is not complete: all bytes were taken.
    More,
    /// Of the banner before the server's first record, at least one byte. Like data, it is not
    /// taken yet.
    Banner(&'a [u8]),
    /// Data, not taken yet: [`Decoder::took`] says how much of it was.
    Data(Data, &'a [u8]),
    /// The input, or the output, has ended.
    End,
    Size(Size),
    /// The service has a terminal.
    Terminal,
    Status(Status),
    /// This is no record, or not one that this side may send now. Nothing more is decoded.
    Broken,
}

impl Status {
    /// As the record has it.
    pub fn number(self) -> u32 {
        match self {
            Status::Exited(n) => n.into(),
            Status::Killed(n) => SIGNALS + u32::from(n),
        }
    }

    pub fn from_number(n: u32) -> Option<Status> {
        let own = |n: u32| u8::try_from(n).ok();
        match n.checked_sub(SIGNALS) {
            None => own(n).map(Status::Exited),
            Some(n) => own(n).filter(|n| (1..128).contains(n)).map(Status::Killed),
        }
    }

    /// The exit status that a shell gives such an end: that of the program, or 128 and the signal.
    pub fn code(self) -> i32 {
        match self {
            Status::Exited(n) => n.into(),
            Status::Killed(n) => 128 + i32::from(n),
        }
    }
}

impl Terminal {
    /// None: no terminal has such a name.
    pub fn new(term: &str, size: Size) -> Option<Terminal> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"+-._".contains(&b);
        let good = (1..=TERM_MAX).contains(&term.len()) && term.bytes().all(allowed);
        good.then(|| Terminal { term: term.into(), size })
    }

    pub fn term(&self) -> &str {
        &self.term
    }
}

impl Way {
    /// After RUN: with a terminal or without.
    pub fn run(terminal: Option<Terminal>) -> Way {
        terminal.map_or(Way::Run, Way::Terminal)
    }

    pub fn is_run(&self) -> bool {
        *self != Way::Plain
    }

    /// The terminal that it asks for.
    pub fn terminal(&self) -> Option<&Terminal> {
        match self {
            Way::Terminal(terminal) => Some(terminal),
            Way::Plain | Way::Run => None,
        }
    }

    /// The terminal that is asked for, if one is.
    pub fn terminal_mut(&mut self) -> Option<&mut Terminal> {
        if let Way::Terminal(terminal) = self { Some(terminal) } else { None }
    }
}

/// The line after RUN: the service's name, and the terminal that the client asks for.
pub fn line(name: &str, terminal: Option<&Terminal>) -> Vec<u8> {
    let mut line = name.to_string();
    if let Some(Terminal { term, size }) = terminal {
        line += &format!(" pty {term} {} {}", size.rows, size.columns);
    }
    line += "\r\n";
    line.into_bytes()
}

/// Reads that line, without its end. What is no request for a terminal belongs to the name.
pub fn read_line(text: &[u8]) -> (&[u8], Option<Terminal>) {
    match terminal_of(text) {
        Some((name, terminal)) => (name, Some(terminal)),
        None => (text, None),
    }
}

fn terminal_of(text: &[u8]) -> Option<(&[u8], Terminal)> {
    let mut words = text.rsplitn(5, |b| *b == b' ');
    let mut word = || std::str::from_utf8(words.next()?).ok();
    let (columns, rows, term, pty) = (number(word()?)?, number(word()?)?, word()?, word()?);
    let terminal = Terminal::new(term, Size { rows, columns }).filter(|_| pty == "pty")?;
    Some((words.next()?, terminal))
}

/// A number as [`line`] writes it: no sign, no zeros before it.
fn number(word: &str) -> Option<u16> {
    word.parse().ok().filter(|n: &u16| n.to_string() == word)
}

/// The head of a record with this many bytes of data, [`DATA_MAX`] at most.
pub fn head(data: Data, bytes: usize) -> [u8; HEAD] {
    debug_assert!(bytes <= DATA_MAX, "a record that is too long");
    let kind = match data {
        Data::Main => MAIN,
        Data::Errors => ERRORS,
    };
    head_of(kind, bytes as u32)
}

/// The record that ends the input, or the output.
pub fn end() -> Vec<u8> {
    head_of(END, 0).to_vec()
}

/// The server's first record, if the service has a terminal.
pub fn terminal() -> Vec<u8> {
    head_of(MAIN, 0).to_vec()
}

/// The record with a new size of the client's terminal.
pub fn size(size: Size) -> Vec<u8> {
    [head_of(SIZE, 4), size.bytes()].concat()
}

/// The record of the service's end.
pub fn status(status: Status) -> Vec<u8> {
    [head_of(STATUS, 4), status.number().to_be_bytes()].concat()
}

/// Is it a kind of record that the server sends? A banner that has such a byte ends there for every
/// client of RUN.
pub fn is_kind_of_server(byte: u8) -> bool {
    matches!(byte, MAIN | END | ERRORS | STATUS)
}

fn head_of(kind: u8, bytes: u32) -> [u8; HEAD] {
    let [_, length @ ..] = bytes.to_be_bytes();
    let mut head = [kind; HEAD];
    head[1..].copy_from_slice(&length);
    head
}

/// What the record that is being read is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Its head, or the few bytes of a record without data, this many of which have come.
    Control(usize),
    /// Its data, this many bytes of which are still to come.
    Data(Data, u32),
    Broken,
}

/// How much the sender has sent of what it sends in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Progress {
    /// No record has come.
    Nothing,
    Open,
    /// The input, or the output, has ended.
    Ended,
    /// The status has come.
    Over,
}

/// Reads the records of one side, split anywhere.
#[derive(Debug)]
pub struct Decoder {
    from: Sender,
    state: State,
    control: [u8; CONTROL_MAX],
    progress: Progress,
}

impl Decoder {
    /// Reads what this side sends.
    pub fn new(from: Sender) -> Decoder {
        let (state, control) = (State::Control(0), [0; CONTROL_MAX]);
        Decoder { from, state, control, progress: Progress::Nothing }
    }

    /// Reads the next bytes: how many of them it took (data is taken by the caller), and what they
    /// are. To be called until it says `More` or `Broken`.
    pub fn next<'a>(&mut self, bytes: &'a [u8]) -> (usize, Part<'a>) {
        let mut at = 0;
        loop {
            match self.state {
                State::Broken => return (at, Part::Broken),
                State::Data(_, 0) => self.state = State::Control(0),
                State::Data(..) if at == bytes.len() => return (at, Part::More),
                State::Data(data, left) => {
                    let n = (bytes.len() - at).min(left as usize);
                    return (at, Part::Data(data, &bytes[at..at + n]));
                }
                State::Control(have) => {
                    let banner = self.banner(&bytes[at..]);
                    if !banner.is_empty() {
                        return (at, Part::Banner(banner));
                    }
                    let wanted = if have < HEAD { HEAD } else { CONTROL_MAX };
                    let n = (wanted - have).min(bytes.len() - at);
                    self.control[have..have + n].copy_from_slice(&bytes[at..at + n]);
                    (at, self.state) = (at + n, State::Control(have + n));
                    if have + n < wanted {
                        return (at, Part::More);
                    }
                    if let Some(part) = self.complete(have + n) {
                        return (at, part);
                    }
                }
            }
        }
    }

    /// How these bytes begin that is no record yet.
    fn banner<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let begun = (self.progress, self.state) != (Progress::Nothing, State::Control(0));
        if begun || self.from == Sender::Client {
            return &[];
        }
        &bytes[..bytes.iter().position(|b| is_kind_of_server(*b)).unwrap_or(bytes.len())]
    }

    /// This many bytes of the data, or of the banner, were taken.
    pub fn took(&mut self, n: usize) {
        if let State::Data(_, left) = &mut self.state {
            *left = left.saturating_sub(u32::try_from(n).unwrap_or(u32::MAX));
        }
    }

    /// The data that is to be taken next, if a record of data has begun.
    pub fn waits_with(&self) -> Option<Data> {
        match self.state {
            State::Data(data, 1..) => Some(data),
            _ => None,
        }
    }

    /// Has the input, or the output, ended?
    pub fn has_ended(&self) -> bool {
        self.progress >= Progress::Ended
    }

    /// Does a record end here, so that nothing is missing if the sender sends no more?
    pub fn is_between(&self) -> bool {
        matches!(self.state, State::Control(0) | State::Data(_, 0))
    }

    /// A head, or a record without data, is complete. None: there is more to read.
    fn complete(&mut self, have: usize) -> Option<Part<'static>> {
        let [kind, a, b, c, rest @ ..] = self.control;
        let length = u32::from_be_bytes([0, a, b, c]);
        self.state = State::Control(0);
        let before = self.progress;
        self.progress = before.max(Progress::Open);
        match (self.from, kind, length) {
            _ if before == Progress::Over => {}
            (Sender::Server, MAIN, 0) if before == Progress::Nothing => {
                return Some(Part::Terminal);
            }
            (_, MAIN, _) if before < Progress::Ended => {
                self.state = State::Data(Data::Main, length);
                return None;
            }
            (_, END, 0) if before < Progress::Ended => {
                self.progress = Progress::Ended;
                return Some(Part::End);
            }
            (Sender::Server, ERRORS, _) => {
                self.state = State::Data(Data::Errors, length);
                return None;
            }
            (Sender::Client, SIZE, 4) | (Sender::Server, STATUS, 4) if have == HEAD => {
                self.state = State::Control(have);
                return None;
            }
            (Sender::Client, SIZE, 4) => {
                return Some(Part::Size(Size::from_bytes(rest)));
            }
            (Sender::Server, STATUS, 4) if before == Progress::Ended => {
                if let Some(status) = Status::from_number(u32::from_be_bytes(rest)) {
                    self.progress = Progress::Over;
                    return Some(Part::Status(status));
                }
            }
            _ => {}
        }
        self.state = State::Broken;
        Some(Part::Broken)
    }
}

#[cfg(test)]
mod tests;
