//! A client of RESUME that tests drive by hand: it has one connection or none.

#![allow(dead_code)] // Each test file uses its own part of this.

use crate::support::same;
use crate::tls::Tls;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use std::collections::HashMap;
use std::io::Read;
use std::net::TcpStream;

const SYN: u16 = 1;
const FIN: u16 = 4;
const RST: u16 = 8;

/// A session, whether it has a connection now or not.
pub struct Session {
    pub tls: Tls,
    pub id: String,
    pub seconds: u64,
    pub key: [u8; 32],
    pub received: u64,
    /// Does it say so after each record? And how much the server says to have had.
    pub acknowledges: bool,
    pub acknowledged: u64,
    /// All data that was ever sent.
    pub sent: Vec<u8>,
    /// Bytes of frames, and what has come on each stream.
    frames: Vec<u8>,
    came: HashMap<u32, Vec<u8>>,
    pub ended: Vec<u32>,
    /// It has no connection.
    lost: bool,
}

/// The exporter of a connection.
pub fn exporter(tls: &Tls) -> [u8; 32] {
    let (label, out) = (b"EXPORTER-fived-resume", [0; 32]);
    tls.0.conn.export_keying_material(out, label, Some(&[])).expect("exporter")
}

/// A line that proves the session with this key, on this connection.
pub fn claim(tls: &Tls, id: &str, received: u64, key: &[u8]) -> String {
    let exporter = STANDARD.encode(exporter(tls));
    let text = format!("fived resume 1\n{id}\n{received}\n{exporter}\n");
    let proof = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes());
    format!("{id} {received} {}\r\n", STANDARD.encode(proof))
}

pub fn line(tls: &mut Tls) -> String {
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        let mut byte = [0];
        tls.0.read_exact(&mut byte).expect("a line");
        line.extend(byte);
    }
    String::from_utf8(line).expect("text")
}

fn frame(kind: u8, flags: u16, stream: u32, length: u32) -> Vec<u8> {
    [&[0, kind][..], &flags.to_be_bytes(), &stream.to_be_bytes(), &length.to_be_bytes()].concat()
}

impl Session {
    /// A new session on a connection; it may have logged in.
    pub fn begin(mut tls: Tls) -> Session {
        tls.send(b"RESUME\r\nnew\r\n");
        same(line(&mut tls), "+ Success\r\n");
        let (key, made) = (exporter(&tls), line(&mut tls));
        let (id, seconds) = made.trim_end().split_once(' ').expect("two words");
        let (id, seconds) = (id.to_string(), seconds.parse().expect("seconds"));
        let (sent, frames, came, ended) = Default::default();
        let (received, acknowledges, acknowledged, lost) = (0, true, 0, false);
        Session {
            tls,
            id,
            seconds,
            key,
            received,
            acknowledges,
            acknowledged,
            sent,
            frames,
            came,
            ended,
            lost,
        }
    }

    pub fn record(&mut self, kind: u8, data: &[u8]) {
        let length = (data.len() as u32).to_be_bytes();
        self.tls.send(&[&[kind], &length[1..], data].concat());
    }

    pub fn acknowledge(&mut self) {
        self.record(1, &self.received.to_be_bytes());
    }

    fn data(&mut self, data: &[u8]) {
        self.sent.extend(data);
        if !self.lost {
            // No record may be longer than 65,535 bytes.
            data.chunks(60_000).for_each(|piece| self.record(0, piece));
        }
    }

    /// Begins a stream with that number.
    pub fn open(&mut self, stream: u32, request: &str) {
        let head = frame(0, SYN, stream, request.len() as u32);
        self.data(&[&head[..], request.as_bytes()].concat());
    }

    pub fn send(&mut self, stream: u32, bytes: &[u8]) {
        self.data(&[&frame(0, 0, stream, bytes.len() as u32), bytes].concat());
    }

    pub fn finish(&mut self, stream: u32) {
        self.data(&frame(1, FIN, stream, 0));
    }

    /// The next record, handled. False: the session has ended.
    pub fn receive(&mut self) -> bool {
        let mut head = [0; 4];
        self.tls.0.read_exact(&mut head).expect("a record");
        let length = u32::from_be_bytes([0, head[1], head[2], head[3]]);
        let mut data = vec![0; length as usize];
        self.tls.0.read_exact(&mut data).expect("a record");
        match head[0] {
            0 => {
                self.received += data.len() as u64;
                self.frames.extend(data);
                self.frames();
                if self.acknowledges {
                    self.acknowledge();
                }
            }
            1 => {
                let count = u64::from_be_bytes(data.try_into().expect("8 bytes"));
                assert!(count <= self.sent.len() as u64);
                self.acknowledged = count;
            }
            2 => return false,
            other => panic!("a record of kind {other}"),
        }
        true
    }

    fn frames(&mut self) {
        while let Some(head) = self.frames.first_chunk::<12>() {
            let word = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().expect("4"));
            let (kind, flags, stream, length) = (head[1], head[3], word(4), word(8));
            let body = if kind == 0 { length as usize } else { 0 };
            if self.frames.len() < 12 + body {
                return;
            }
            let rest = self.frames.split_off(12 + body);
            let body = std::mem::replace(&mut self.frames, rest).split_off(12);
            if !body.is_empty() {
                let window = frame(1, 0, stream, length);
                self.came.entry(stream).or_default().extend(body);
                self.data(&window);
            }
            if kind == 2 && flags == SYN as u8 {
                self.data(&frame(2, 2, 0, length));
            }
            if flags & (FIN | RST) as u8 != 0 {
                self.ended.push(stream);
            }
        }
    }

    /// Waits for these bytes on a stream.
    #[track_caller]
    pub fn expect(&mut self, stream: u32, bytes: &str) {
        while self.came.get(&stream).map_or(0, Vec::len) < bytes.len() {
            assert!(self.receive(), "the session ended");
        }
        same(self.came.remove(&stream).expect("bytes"), bytes);
    }

    /// Waits for a line on a stream.
    #[track_caller]
    pub fn line_of(&mut self, stream: u32) -> String {
        while !self.came.get(&stream).is_some_and(|b| b.ends_with(b"\n")) {
            assert!(self.receive(), "the session ended");
        }
        String::from_utf8(self.came.remove(&stream).expect("bytes")).expect("text")
    }

    /// Takes a stream that the server has begun.
    pub fn accept(&mut self, stream: u32) {
        self.data(&frame(1, 2, stream, 0));
    }

    /// Waits until a stream has ended; what has come on it.
    pub fn rest(&mut self, stream: u32) -> String {
        while !self.ended.contains(&stream) {
            assert!(self.receive(), "the session ended");
        }
        String::from_utf8(self.came.remove(&stream).unwrap_or_default()).expect("text")
    }

    /// The connection breaks without a word.
    pub fn lose(&mut self) {
        self.lost = true;
        let _ = self.tls.0.sock.shutdown(std::net::Shutdown::Both);
    }

    /// Asks to go on, on this connection; the answer.
    pub fn claim(&self, tls: &mut Tls) -> String {
        tls.send(
            format!("RESUME\r\n{}", claim(tls, &self.id, self.received, &self.key)).as_bytes(),
        );
        same(line(tls), "+ Success\r\n");
        line(tls)
    }

    /// Goes on, on this connection.
    pub fn resume(&mut self, tcp: TcpStream) {
        let mut tls = Tls::start(tcp, "localhost");
        let answer = self.claim(&mut tls);
        self.go_on(tls, &answer);
    }

    /// Goes on after this answer to its claim.
    pub fn go_on(&mut self, tls: Tls, answer: &str) {
        let had = answer.strip_prefix("Resumed ").unwrap_or_else(|| panic!("{answer}"));
        let had: usize = had.trim_end().parse().expect("a number");
        (self.tls, self.lost) = (tls, false);
        let rest = self.sent[had..].to_vec();
        if !rest.is_empty() {
            self.record(0, &rest);
        }
    }
}
