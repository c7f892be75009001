//! The messages between the parent and the keys process: orders like those of [`super::orders`],
//! and the file in which the private keys are handed over.

use super::orders::phases::{self, KeysPhase, Row, kind};
use super::orders::{Data, Message, Raw, raw, with};

/// To the keys process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToKeys {
    /// With a sealed file of such pairs ([`encode`]): check each of them. They are numbered from 0
    /// on.
    Pairs,
    /// No more pairs follow: sign from now on.
    Serve,
    /// Sign a handshake with the key of that pair, by that scheme (RFC 8446, 4.2.3). `number` is
    /// chosen by the parent.
    Sign { number: u64, pair: u32, scheme: u16, message: Data },
}

/// From the keys process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromKeys {
    /// About a good pair, in their order: the hash of its public key, and the schemes that it can
    /// sign by.
    Pair {
        hash: [u8; 32],
        schemes: Vec<u16>,
    },
    /// About a bad pair: what is wrong with it, as one sentence.
    Wrong(Data),
    Signed {
        number: u64,
        signature: Data,
    },
    NotSigned {
        number: u64,
    },
}

impl Message for ToKeys {
    type Phase = KeysPhase;
    const ROWS: &'static [Row<KeysPhase>] = &phases::TO_KEYS;

    fn raw(&self) -> Raw {
        match self {
            ToKeys::Pairs => raw(kind::PAIRS, 0, 0),
            ToKeys::Serve => raw(kind::SERVE, 0, 0),
            ToKeys::Sign { number, pair, scheme, message } => {
                Raw { c: *number, ..with(kind::SIGN_FOR, *pair, u32::from(*scheme), message) }
            }
        }
    }

    fn from_raw(r: Raw) -> Option<Self> {
        Some(match r.kind {
            kind::PAIRS => ToKeys::Pairs,
            kind::SERVE => ToKeys::Serve,
            kind::SIGN_FOR => ToKeys::Sign {
                number: r.c,
                pair: r.a,
                scheme: u16::try_from(r.b).ok()?,
                message: r.data,
            },
            _ => return None,
        })
    }
}

impl Message for FromKeys {
    type Phase = KeysPhase;
    const ROWS: &'static [Row<KeysPhase>] = &phases::FROM_KEYS;

    fn raw(&self) -> Raw {
        match self {
            FromKeys::Pair { hash, schemes } => {
                let all: Vec<u8> = hash
                    .iter()
                    .copied()
                    .chain(schemes.iter().flat_map(|s| s.to_le_bytes()))
                    .collect();
                with(kind::PAIR, 0, 0, &Data::truncate(&all))
            }
            FromKeys::Wrong(why) => with(kind::WRONG, 0, 0, why),
            FromKeys::Signed { number, signature } => {
                Raw { c: *number, ..with(kind::SIGNED_FOR, 0, 0, signature) }
            }
            FromKeys::NotSigned { number } => Raw { c: *number, ..raw(kind::NOT_SIGNED_FOR, 0, 0) },
        }
    }

    fn from_raw(r: Raw) -> Option<Self> {
        Some(match r.kind {
            kind::PAIR => {
                let (hash, schemes) = r.data.bytes().split_first_chunk()?;
                FromKeys::Pair {
                    hash: *hash,
                    schemes: schemes
                        .chunks_exact(2)
                        .map(|s| u16::from_le_bytes([s[0], s[1]]))
                        .collect(),
                }
            }
            kind::WRONG => FromKeys::Wrong(r.data),
            kind::SIGNED_FOR => FromKeys::Signed { number: r.c, signature: r.data },
            kind::NOT_SIGNED_FOR => FromKeys::NotSigned { number: r.c },
            _ => return None,
        })
    }
}

/// Encodes pairs as one byte string: of each the server's own certificate (DER) and its key (PEM).
/// It is allocated once, so that wiping it wipes every copy.
pub fn encode(pairs: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut all = Vec::with_capacity(pairs.iter().map(|(c, k)| 8 + c.len() + k.len()).sum());
    for part in pairs.iter().flat_map(|(c, k)| [c, k]) {
        // Files are far below 4 GiB.
        all.extend_from_slice(&(part.len() as u32).to_le_bytes());
        all.extend_from_slice(part);
    }
    all
}

/// None: the bytes are not such a string.
pub fn decode(mut bytes: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut part = || {
        let (len, rest) = bytes.split_first_chunk()?;
        let (part, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        bytes = rest;
        Some((part, rest.is_empty()))
    };
    let mut pairs = Vec::new();
    loop {
        let (certificate, (key, last)) = (part()?.0, part()?);
        pairs.push((certificate, key));
        if last {
            return Some(pairs);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_comes_as_it_was_given() {
        let data = Data::truncate(b"some text");
        for m in [
            ToKeys::Pairs,
            ToKeys::Serve,
            ToKeys::Sign { number: u64::MAX, pair: 1, scheme: kind::LOGIN, message: data.clone() },
        ] {
            assert_eq!(ToKeys::ROWS.iter().filter(|row| row.kind == m.raw().kind).count(), 1);
            assert_eq!(ToKeys::decode(&m.encode()), Some(m));
        }
        for m in [
            FromKeys::Pair { hash: [7; 32], schemes: vec![kind::LOGIN, 0x807] },
            FromKeys::Wrong(data.clone()),
            FromKeys::Signed { number: 1, signature: data.clone() },
            FromKeys::NotSigned { number: 2 },
        ] {
            assert_eq!(FromKeys::ROWS.iter().filter(|row| row.kind == m.raw().kind).count(), 1);
            assert_eq!(FromKeys::decode(&m.encode()), Some(m));
        }
        assert_eq!(ToKeys::decode(&FromKeys::NotSigned { number: 2 }.encode()), None);
    }

    #[test]
    fn pairs_come_as_they_were_given() {
        let pairs: [(&[u8], &[u8]); 2] = [(b"certificate", b"key"), (b"", b"another")];
        let text = encode(&pairs);
        assert_eq!(text.len(), text.capacity());
        assert_eq!(decode(&text).as_deref(), Some(&pairs[..]));
        (0..text.len())
            .for_each(|n| assert!(decode(&text[..n]).is_none_or(|d| d == pairs[..1]), "{n}"));
    }
}
