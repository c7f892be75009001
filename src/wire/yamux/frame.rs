//! yamux's frame header: version, type, flags, stream, length; 12 bytes, big-endian (hashicorp/yamux, spec.md).

/// Bytes of a header.
pub const HEADER: usize = 12;

/// The flags of a frame.
pub const SYN: u16 = 1;
pub const ACK: u16 = 2;
pub const FIN: u16 = 4;
pub const RST: u16 = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Data,
    WindowUpdate,
    Ping,
    GoAway,
}

/// A header, read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub kind: Kind,
    pub flags: u16,
    pub stream: u32,
    /// Bytes that follow, credit, ping's value, or go-away's code.
    pub length: u32,
}

impl Header {
    pub fn new(kind: Kind, flags: u16, stream: u32, length: u32) -> Header {
        Header { kind, flags, stream, length }
    }

    pub fn encode(self) -> [u8; HEADER] {
        let mut b = [0; HEADER];
        b[1] = self.kind as u8;
        b[2..4].copy_from_slice(&self.flags.to_be_bytes());
        b[4..8].copy_from_slice(&self.stream.to_be_bytes());
        b[8..12].copy_from_slice(&self.length.to_be_bytes());
        b
    }

    /// Err: why it is none.
    pub fn decode(b: &[u8; HEADER]) -> Result<Header, &'static str> {
        if b[0] != 0 {
            return Err("version");
        }
        let kind = *[Kind::Data, Kind::WindowUpdate, Kind::Ping, Kind::GoAway].get(usize::from(b[1])).ok_or("type")?;
        let u32_at = |i: usize| u32::from_be_bytes([b[i], b[i + 1], b[i + 2], b[i + 3]]);
        let flags = u16::from_be_bytes([b[2], b[3]]);
        if flags & !(SYN | ACK | FIN | RST) != 0 {
            return Err("flags");
        }
        Ok(Header { kind, flags, stream: u32_at(4), length: u32_at(8) })
    }
}
