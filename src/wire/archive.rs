//! What the net process gets of a configuration, as one byte string: the text of its table, the
//! banners that it names, and the certificates.

/// Files by name, and certificates.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Archive {
    pub files: Vec<(String, Vec<u8>)>,
    /// For each certificate: the chain, DER, and the signature schemes of its key (RFC 8446,
    /// 4.2.3).
    pub chains: Vec<(Vec<Vec<u8>>, Vec<u16>)>,
    /// For each host by number: which of the chains it uses.
    pub chosen: Vec<u32>,
    /// For each port where TLS is expected: the numbers of the services there.
    pub tls_ports: Vec<Vec<u32>>,
    /// Sessions may stand that can be resumed, whatever the table says.
    pub resumes: bool,
}

impl Archive {
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer(Vec::new());
        w.many(&self.files, |w, (name, content)| {
            w.bytes(name.as_bytes());
            w.bytes(content);
        });
        w.many(&self.chains, |w, (chain, schemes)| {
            w.many(chain, |w, c| w.bytes(c));
            w.many(schemes, |w, s| w.number(u32::from(*s)));
        });
        w.many(&self.chosen, |w, n| w.number(*n));
        w.many(&self.tls_ports, |w, services| w.many(services, |w, n| w.number(*n)));
        w.number(u32::from(self.resumes));
        w.0
    }

    /// None: the bytes are not an archive.
    pub fn decode(bytes: &[u8]) -> Option<Archive> {
        let mut r = ArchiveReader(bytes);
        let archive = Archive {
            files: r.many(|r| Some((r.text()?, r.bytes()?)))?,
            chains: r.many(|r| {
                Some((r.many(ArchiveReader::bytes)?, r.many(|r| u16::try_from(r.number()?).ok())?))
            })?,
            chosen: r.many(ArchiveReader::number)?,
            tls_ports: r.many(|r| r.many(ArchiveReader::number))?,
            resumes: match r.number()? {
                0 => false,
                1 => true,
                _ => return None,
            },
        };
        r.0.is_empty().then_some(archive)
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn number(&mut self, n: u32) {
        self.0.extend_from_slice(&n.to_le_bytes());
    }

    fn bytes(&mut self, b: &[u8]) {
        // The files themselves are bounded far below 4 GiB.
        self.number(b.len() as u32);
        self.0.extend_from_slice(b);
    }

    fn many<T>(&mut self, items: &[T], each: impl Fn(&mut Self, &T)) {
        self.number(items.len() as u32);
        items.iter().for_each(|i| each(self, i));
    }
}

struct ArchiveReader<'a>(&'a [u8]);

impl ArchiveReader<'_> {
    fn number(&mut self) -> Option<u32> {
        let (n, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*n))
    }

    fn bytes(&mut self) -> Option<Vec<u8>> {
        let n = self.number()? as usize;
        let (b, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(b.to_vec())
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?).ok()
    }

    fn many<T>(&mut self, each: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let n = self.number()?;
        // Grows as items are read: a wrong count allocates nothing.
        (0..n).map(|_| each(self)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn comes_back_as_it_went() {
        let a = Archive {
            files: vec![("/table".into(), b"x\0y".to_vec()), ("/banner0".into(), Vec::new())],
            chains: vec![(vec![vec![1, 2], vec![3]], vec![0x0403])],
            chosen: vec![0, 0],
            tls_ports: vec![vec![3, 4], vec![]],
            resumes: true,
        };
        assert_eq!(Archive::decode(&a.encode()), Some(a));
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(a) = Archive::decode(&bytes) {
                prop_assert!(a.encode().len() <= bytes.len());
            }
        }
    }
}
