//! SSH's wire format (RFC 4251, 5), in which keys, signatures and messages of agents are written.

/// The bytes that are left to read.
pub(super) struct SshReader<'a>(pub &'a [u8]);

impl<'a> SshReader<'a> {
    pub fn u8(&mut self) -> Option<u8> {
        let (n, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*n)
    }

    pub fn u32(&mut self) -> Option<u32> {
        let (n, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*n))
    }

    pub fn string(&mut self) -> Option<&'a [u8]> {
        let n = self.u32()? as usize;
        let (s, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(s)
    }

    /// A positive integer, without leading zeros.
    pub fn positive(&mut self) -> Option<&'a [u8]> {
        let s = self.string()?;
        let first = s.iter().position(|&b| b != 0)?;
        (s[0] < 0x80).then_some(&s[first..])
    }
}

/// A byte string, with its length before it.
pub(super) fn put(out: &mut Vec<u8>, string: &[u8]) {
    // No caller has 4 GiB.
    out.extend_from_slice(&(string.len() as u32).to_be_bytes());
    out.extend_from_slice(string);
}
