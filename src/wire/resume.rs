//! RESUME (fived-session(7)): the records of a session that outlives its connections, and the lines
//! that begin and resume it.
//!
//! A record is one byte kind, three bytes length (the most significant first), then that many
//! bytes:
//!
//! | kind | bytes | what |
//! |---|---|---|
//! | 0 | 1 to 65,535 | data: bytes of the yamux stream |
//! | 1 | 8 | how many bytes of data the sender of this record has had in all |
//! | 2 | 0 | the session ends |
//!
//! Anything else ends the session.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::fmt;

/// Bytes of kind and length.
pub const HEADER: usize = 4;
/// The most bytes of data in a record.
pub const DATA_MAX: usize = 65_535;
/// Bytes of a record that says how much its sender has had.
const ACKNOWLEDGEMENT: usize = HEADER + 8;
/// The most bytes of data that a side keeps because the other has not said that it had them.
pub const UNACKNOWLEDGED_MAX: usize = 4 * 1024 * 1024;
/// A side says how much it has had after this many bytes of data at most.
pub const ACKNOWLEDGE_EVERY: u64 = 256 * 1024;
/// The record that ends the session.
pub const END: [u8; HEADER] = [2, 0, 0, 0];
/// Bytes of a session's id.
pub const ID: usize = 16;
/// Bytes of an exporter and of a proof.
pub const KEY: usize = 32;
/// The line that begins a new session, without its line end.
pub const NEW: &str = "new";

/// The head of a record of this many bytes of data, 1 to [`DATA_MAX`].
pub fn data(len: usize) -> [u8; HEADER] {
    debug_assert!((1..=DATA_MAX).contains(&len), "{len} bytes in a record");
    let [.., a, b, c] = (len as u32).to_be_bytes();
    [0, a, b, c]
}

/// The record that says how many bytes of data its sender has had.
pub fn acknowledgement(received: u64) -> [u8; ACKNOWLEDGEMENT] {
    let mut record = [1, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    record[HEADER..].copy_from_slice(&received.to_be_bytes());
    record
}

/// What the next bytes are ([`Decoder::decode`]).
#[derive(Debug, PartialEq, Eq)]
pub enum Part {
    /// Only a piece of a record's head: more bytes are needed.
    More,
    /// This many bytes of data follow here, at least one. [`Decoder::consumed`] takes them.
    Data(usize),
    /// The other side has had this many bytes of data.
    Acknowledged(u64),
    /// The session ends.
    End,
}

/// Bytes that are no record; a sentence says why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRecord(pub &'static str);

/// Reads records, however their bytes are split. It holds no data.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The record's first bytes, as far as they are known: its head, or all of an acknowledgement.
    head: [u8; ACKNOWLEDGEMENT],
    known: usize,
    /// How many bytes of data are still to come.
    left: usize,
}

impl Decoder {
    /// What the next bytes are, after how many others that belong to a head and are done with.
    pub fn decode(&mut self, bytes: &[u8]) -> Result<(usize, Part), NoRecord> {
        let mut taken = 0;
        while self.left == 0 {
            let whole = self.head_len()?;
            if self.known == whole {
                if let Some(part) = self.control() {
                    return Ok((taken, part));
                }
                continue;
            }
            let more = &bytes[taken..];
            let n = more.len().min(whole - self.known);
            if n == 0 {
                return Ok((taken, Part::More));
            }
            self.head[self.known..self.known + n].copy_from_slice(&more[..n]);
            self.known += n;
            taken += n;
        }
        match bytes.len() - taken {
            0 => Ok((taken, Part::More)),
            here => Ok((taken, Part::Data(here.min(self.left)))),
        }
    }

    /// This many bytes of [`Part::Data`] were taken.
    pub fn consumed(&mut self, n: usize) {
        self.left = self.left.saturating_sub(n);
    }

    /// How long the head is that is being read: that of an acknowledgement includes its count.
    fn head_len(&self) -> Result<usize, NoRecord> {
        if self.known < HEADER {
            return Ok(HEADER);
        }
        match (self.head[0], self.len()) {
            (0, 1..=DATA_MAX) | (2, 0) => Ok(HEADER),
            (1, 8) => Ok(ACKNOWLEDGEMENT),
            (0..=2, _) => Err(NoRecord("a record of a length that its kind cannot have")),
            _ => Err(NoRecord("a record of an unknown kind")),
        }
    }

    fn len(&self) -> usize {
        let [_, a, b, c, ..] = self.head;
        u32::from_be_bytes([0, a, b, c]) as usize
    }

    /// The head is complete. None: data follows.
    fn control(&mut self) -> Option<Part> {
        self.known = 0;
        match self.head {
            [0, ..] => {
                self.left = self.len();
                None
            }
            [1, _, _, _, count @ ..] => Some(Part::Acknowledged(u64::from_be_bytes(count))),
            _ => Some(Part::End),
        }
    }
}

/// What names a session: 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Id(pub [u8; ID]);

impl Id {
    fn read(text: &str) -> Option<Id> {
        let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        digits.then(|| u128::from_str_radix(text, 16).ok().map(|n| Id(n.to_be_bytes())))?
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// The key of a session's proofs. No log shows it: with the id it is all that a claim needs.
#[derive(Clone, PartialEq, Eq)]
pub struct ProofKey(pub [u8; KEY]);

impl fmt::Debug for ProofKey {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("ProofKey")
    }
}

/// The client's line: that a session is to go on, on this connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub id: Id,
    /// How many bytes of data the client has had.
    pub received: u64,
    pub proof: [u8; KEY],
}

/// What a client asks for after RESUME.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    New,
    Claim(Claim),
}

impl Request {
    /// Reads the client's line, without its line end. None: it is neither.
    pub fn read(line: &[u8]) -> Option<Request> {
        if line == NEW.as_bytes() {
            return Some(Request::New);
        }
        let mut words = std::str::from_utf8(line).ok()?.split(' ');
        let (id, received, proof) = (words.next()?, words.next()?, words.next()?);
        let proof = STANDARD.decode(proof).ok()?.try_into().ok()?;
        let claim = Claim { id: Id::read(id)?, received: number(received)?, proof };
        words.next().is_none().then_some(Request::Claim(claim))
    }
}

impl Claim {
    /// The line, with its line end.
    pub fn line(&self) -> String {
        format!("{} {} {}\r\n", self.id, self.received, STANDARD.encode(self.proof))
    }
}

/// The server's line after `new`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Made {
    pub id: Id,
    /// How long the session is kept when it is lost.
    pub seconds: u64,
}

impl Made {
    /// The line, with its line end.
    pub fn line(&self) -> String {
        format!("{} {}\r\n", self.id, self.seconds)
    }

    /// Reads the line, without its line end.
    pub fn read(line: &[u8]) -> Option<Made> {
        let (id, seconds) = std::str::from_utf8(line).ok()?.split_once(' ')?;
        Some(Made { id: Id::read(id)?, seconds: number(seconds)? })
    }
}

/// The server's line after a claim that it accepts, with its line end. (If it does not:
/// [`reply::NO_SUCH_SESSION`](super::reply::NO_SUCH_SESSION).)
pub fn resumed(received: u64) -> String {
    format!("Resumed {received}\r\n")
}

/// Reads that line, without its line end: how many bytes of data the server has had.
pub fn read_resumed(line: &[u8]) -> Option<u64> {
    number(std::str::from_utf8(line).ok()?.strip_prefix("Resumed ")?)
}

fn number(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

/// What a proof is the HMAC-SHA-256 of. Its key is the exporter of the session's first connection
/// ([`labels::RESUME_EXPORTER`](super::labels::RESUME_EXPORTER)); `exporter` is that of the new
/// one. So the proof is worth nothing on any other connection.
pub fn proof_text(id: Id, received: u64, exporter: &[u8; KEY]) -> String {
    format!("fived resume 1\n{id}\n{received}\n{}\n", STANDARD.encode(exporter))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All records in these bytes: data as `D` and its bytes, `A` and a count, `E`.
    fn read(decoder: &mut Decoder, mut bytes: &[u8]) -> Result<Vec<(char, Vec<u8>)>, NoRecord> {
        let mut all = Vec::new();
        loop {
            let (taken, part) = decoder.decode(bytes)?;
            bytes = &bytes[taken..];
            match part {
                Part::More => return Ok(all),
                Part::Data(n) => {
                    all.push(('D', bytes[..n].to_vec()));
                    decoder.consumed(n);
                    bytes = &bytes[n..];
                }
                Part::Acknowledged(n) => all.push(('A', n.to_be_bytes().to_vec())),
                Part::End => all.push(('E', Vec::new())),
            }
        }
    }

    #[test]
    fn records_are_as_the_manual_says() {
        assert_eq!(data(1), [0, 0, 0, 1]);
        assert_eq!(data(65_535), [0, 0, 255, 255]);
        assert_eq!(acknowledgement(258), [1, 0, 0, 8, 0, 0, 0, 0, 0, 0, 1, 2]);
        let bytes = [&data(3)[..], b"abc", &acknowledgement(7), &END].concat();
        let all = [('D', b"abc".to_vec()), ('A', vec![0, 0, 0, 0, 0, 0, 0, 7]), ('E', vec![])];
        assert_eq!(read(&mut Decoder::default(), &bytes), Ok(all.to_vec()));
    }

    #[test]
    fn anything_else_is_no_record() {
        for wrong in [[0, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 7], [2, 0, 0, 1], [3, 0, 0, 0]] {
            assert!(read(&mut Decoder::default(), &wrong).is_err(), "{wrong:?}");
            assert!(read(&mut Decoder::default(), &wrong[..3]).is_ok());
        }
    }

    #[test]
    fn lines_are_read_as_they_are_written() {
        let id = Id(std::array::from_fn(|i| i as u8));
        let text = "000102030405060708090a0b0c0d0e0f";
        assert_eq!(id.to_string(), text);
        let claim = Claim { id, received: 12, proof: [1; KEY] };
        let line = claim.line();
        assert_eq!(line, format!("{text} 12 AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\r\n"));
        assert_eq!(Request::read(line.trim_end().as_bytes()), Some(Request::Claim(claim)));
        assert_eq!(Request::read(b"new"), Some(Request::New));
        for wrong in ["", "new ", "NEW", &format!("{text} 12"), &line, &line.trim_end()[1..]] {
            assert_eq!(Request::read(wrong.as_bytes()), None, "{wrong:?}");
        }
        for wrong in ["-1", "+1", "", "18446744073709551616"] {
            let line = line.trim_end().replace(" 12 ", &format!(" {wrong} "));
            assert_eq!(Request::read(line.as_bytes()), None, "{line:?}");
        }
        let made = Made { id, seconds: 600 };
        assert_eq!(made.line(), format!("{text} 600\r\n"));
        assert_eq!(Made::read(made.line().trim_end().as_bytes()), Some(made));
        assert_eq!(resumed(70), "Resumed 70\r\n");
        assert_eq!(read_resumed(b"Resumed 70"), Some(70));
        assert_eq!(read_resumed(b"- No such session"), None);
        let exporter = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        let proved = format!("fived resume 1\n{text}\n12\n{exporter}\n");
        assert_eq!(proof_text(id, 12, &[0; KEY]), proved);
    }

    proptest! {
        #[test]
        fn splitting_changes_nothing(
            records in proptest::collection::vec((0u8..3, 1usize..40, any::<u64>()), 0..20),
            spoil in proptest::option::of((any::<u16>(), any::<u8>())),
            cuts in proptest::collection::vec(any::<u16>(), 0..20),
        ) {
            let mut bytes: Vec<u8> = records.iter().flat_map(|(kind, len, count)| match kind {
                0 => [&data(*len)[..], &vec![*count as u8; *len]].concat(),
                1 => acknowledgement(*count).to_vec(),
                _ => END.to_vec(),
            }).collect();
            if let Some((at, byte)) = spoil.filter(|_| !bytes.is_empty()) {
                let at = usize::from(at) % bytes.len();
                bytes[at] = byte;
            }
            let flat = |all: Result<Vec<(char, Vec<u8>)>, NoRecord>| all.map(|all| {
                all.into_iter().fold(Vec::<(char, Vec<u8>)>::new(), |mut to, (kind, bytes)| {
                    match to.last_mut().filter(|(k, _)| *k == 'D' && kind == 'D') {
                        Some((_, last)) => last.extend(bytes),
                        None => to.push((kind, bytes)),
                    }
                    to
                })
            });
            let whole = flat(read(&mut Decoder::default(), &bytes));
            let mut cuts: Vec<usize> =
                cuts.into_iter().map(|c| usize::from(c) % (bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut decoder = Decoder::default();
            let parts: Result<Vec<_>, NoRecord> =
                cuts.windows(2).map(|w| read(&mut decoder, &bytes[w[0]..w[1]])).collect();
            prop_assert_eq!(flat(parts.map(|p| p.concat())), whole);
        }
    }
}
