//! The frame header of yamux (hashicorp/yamux, spec.md): twelve bytes, version 0, everything big
//! endian.
//!
//! A header that is wrong in itself is refused here, before its stream is looked up.

use crate::wire::resume;

/// Bytes of a header.
pub const HEADER: usize = 12;
/// The longest payload of a frame that is sent, in bytes. With the frame's head, and with that of a
/// resumable link's record, it fills one record of TLS: so its receiver has it in one part, and
/// passes it on with one system call.
pub const PIECE: usize = 16 * 1024 - resume::HEADER - HEADER;
/// Bytes of such a frame.
pub const FRAME: usize = HEADER + PIECE;

pub(super) const SYN: u16 = 1;
pub(super) const ACK: u16 = 2;
pub(super) const FIN: u16 = 4;
pub(super) const RST: u16 = 8;

/// The kind of a frame, and what its length means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// This many bytes follow.
    Data = 0,
    /// This many more bytes may be sent.
    Window = 1,
    /// A number that the peer sends back.
    Ping = 2,
    /// The reason: 0 normal, 1 protocol error, 2 internal error.
    GoAway = 3,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub kind: Kind,
    pub flags: u16,
    /// 0: the session itself.
    pub stream: u32,
    pub length: u32,
}

impl Header {
    pub fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    pub fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[1] = self.kind as u8;
        bytes[2..4].copy_from_slice(&self.flags.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.stream.to_be_bytes());
        bytes[8..].copy_from_slice(&self.length.to_be_bytes());
        bytes
    }

    /// Decodes the header of a frame from the peer.
    ///
    /// # Errors
    /// What is wrong with it: another version, an unknown kind or flag, flags that contradict each
    /// other, a stream number in a frame about the session or none in one about a stream.
    pub fn decode(bytes: &[u8; HEADER]) -> Result<Header, &'static str> {
        let [version, kind, f0, f1, s0, s1, s2, s3, l0, l1, l2, l3] = *bytes;
        if version != 0 {
            return Err("another version of yamux");
        }
        let kind = match kind {
            0 => Kind::Data,
            1 => Kind::Window,
            2 => Kind::Ping,
            3 => Kind::GoAway,
            _ => return Err("an unknown kind of frame"),
        };
        let header = Header {
            kind,
            flags: u16::from_be_bytes([f0, f1]),
            stream: u32::from_be_bytes([s0, s1, s2, s3]),
            length: u32::from_be_bytes([l0, l1, l2, l3]),
        };
        header.check().map(|()| header)
    }

    fn check(&self) -> Result<(), &'static str> {
        let of_a_stream = matches!(self.kind, Kind::Data | Kind::Window);
        let flags_mean_something = match self.kind {
            Kind::Data | Kind::Window => {
                self.flags & !(SYN | ACK | FIN | RST) == 0
                    && !(self.has(SYN) && self.has(ACK | RST))
            }
            Kind::Ping => self.flags == SYN || self.flags == ACK,
            Kind::GoAway => self.flags == 0,
        };
        if !flags_mean_something {
            Err("invalid flags")
        } else if of_a_stream && self.stream == 0 {
            Err("no stream number in a frame about a stream")
        } else if !of_a_stream && self.stream != 0 {
            Err("a stream number in a frame about the session")
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_header_is_what_the_specification_says() {
        let bytes = [0, 1, 0, 1, 0, 0, 0, 3, 0, 4, 0, 0];
        let header = Header::decode(&bytes).unwrap();
        assert_eq!(header, Header { kind: Kind::Window, flags: SYN, stream: 3, length: 0x40000 });
        assert_eq!(header.encode(), bytes);
    }

    #[test]
    fn a_malformed_header_is_refused() {
        for (bytes, why) in [
            ([1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0], "another version"),
            ([0, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0], "unknown kind"),
            ([0, 0, 0, 16, 0, 0, 0, 1, 0, 0, 0, 0], "flags"),
            ([0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0], "flags"),
            ([0, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0, 0], "flags"),
            ([0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], "flags"),
            ([0, 2, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0], "flags"),
            ([0, 3, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0], "flags"),
            ([0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], "no stream number"),
            ([0, 2, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0], "session"),
            ([0, 3, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0], "session"),
        ] {
            let error = Header::decode(&bytes).unwrap_err();
            assert!(error.contains(why), "{bytes:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_was_written(
            bytes in any::<[u8; HEADER]>(),
            kind in 0u8..4,
            flags in 0u8..16,
        ) {
            let mut likely = bytes;
            likely[..4].copy_from_slice(&[0, kind, 0, flags]);
            for bytes in [bytes, likely] {
                if let Ok(header) = Header::decode(&bytes) {
                    prop_assert_eq!(header.encode(), bytes);
                }
            }
        }
    }
}
