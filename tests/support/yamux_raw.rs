//! Frames by hand, for what no client sends: over any blocking connection, whose own timeouts bound
//! every wait.

#![allow(dead_code)] // Each test file uses its own part of this.

use std::io::{self, Read, Write};

pub const DATA: u8 = 0;
pub const WINDOW: u8 = 1;
pub const PING: u8 = 2;
pub const GO_AWAY: u8 = 3;
pub const SYN: u16 = 1;
pub const ACK: u16 = 2;
pub const FIN: u16 = 4;
pub const RST: u16 = 8;

/// A frame that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u16,
    pub stream: u32,
    /// Of data the number of bytes.
    pub length: u32,
    pub payload: Vec<u8>,
}

/// A header, whatever it says.
pub fn header(kind: u8, flags: u16, stream: u32, length: u32) -> [u8; 12] {
    let mut h = [0, kind, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    h[2..4].copy_from_slice(&flags.to_be_bytes());
    h[4..8].copy_from_slice(&stream.to_be_bytes());
    h[8..].copy_from_slice(&length.to_be_bytes());
    h
}

/// A connection that has just heard `+ Success`.
pub struct Raw<T>(pub T);

impl<T: Read + Write> Raw<T> {
    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.write_all(bytes).expect("send");
        self.0.flush().expect("send");
        self
    }

    #[track_caller]
    pub fn frame(&mut self, kind: u8, flags: u16, stream: u32, length: u32) -> &mut Self {
        self.send(&header(kind, flags, stream, length))
    }

    #[track_caller]
    pub fn data(&mut self, flags: u16, stream: u32, payload: impl AsRef<[u8]>) -> &mut Self {
        let payload = payload.as_ref();
        let length = u32::try_from(payload.len()).expect("a frame's length");
        self.send(&[&header(DATA, flags, stream, length)[..], payload].concat())
    }

    /// The next frame; None at the end of the connection.
    pub fn try_next(&mut self) -> io::Result<Option<Frame>> {
        let mut h = [0; 12];
        let first = loop {
            match self.0.read(&mut h) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                first => break first?,
            }
        };
        if first == 0 {
            return Ok(None);
        }
        self.0.read_exact(&mut h[first..])?;
        let number = |at: usize| u32::from_be_bytes([h[at], h[at + 1], h[at + 2], h[at + 3]]);
        let (kind, length) = (h[1], number(8));
        let mut payload = vec![0; if kind == DATA { length as usize } else { 0 }];
        self.0.read_exact(&mut payload)?;
        assert_eq!(h[0], 0, "version");
        Ok(Some(Frame {
            kind,
            flags: u16::from_be_bytes([h[2], h[3]]),
            stream: number(4),
            length,
            payload,
        }))
    }

    #[track_caller]
    pub fn next(&mut self) -> Frame {
        self.try_next().expect("frame").expect("a frame, not the end")
    }

    /// The next frame of that kind, flags and stream; what comes before is thrown away.
    #[track_caller]
    pub fn until(&mut self, kind: u8, flags: u16, stream: u32) -> Frame {
        loop {
            let frame = self.next();
            if (frame.kind, frame.flags, frame.stream) == (kind, flags, stream) {
                return frame;
            }
        }
    }

    /// All that a stream says, up to its FIN or RST; which of them it was.
    #[track_caller]
    pub fn stream(&mut self, id: u32) -> (Vec<u8>, u16) {
        let mut all = Vec::new();
        loop {
            let mut frame = self.next();
            if frame.stream == id && matches!(frame.kind, DATA | WINDOW) {
                all.append(&mut frame.payload);
                if frame.flags & (FIN | RST) != 0 {
                    return (all, frame.flags & (FIN | RST));
                }
            }
        }
    }

    /// The server says go-away with that code, and the connection ends.
    #[track_caller]
    pub fn ends(&mut self, code: u32) {
        assert_eq!(self.until(GO_AWAY, 0, 0).length, code);
        // A reset is an end, too: what was sent after the mistake is not read.
        if let Ok(Some(frame)) = self.try_next() {
            panic!("after go-away: {frame:?}");
        }
    }
}
