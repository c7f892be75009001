//! The value of `from=` in a file of keys (sshd(8)): from which addresses a key may be used. A list
//! that is not right as a whole is refused as a whole, as by sshd: what is wrong in it may be the
//! one entry that was to keep somebody out.

use super::pattern;
use std::net::IpAddr;

/// A list, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FromList(Vec<Entry>);

/// One entry of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    /// After a `!`: who is there may not, whatever else the list says.
    negated: bool,
    place: Place,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Address(IpAddr),
    Net(Net),
    /// An address with `*` and `?`, or a name. Names are not looked up, and match nothing.
    Pattern(String),
}

/// A network: its first address, and how many bits its addresses have in common with that.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Net {
    first: IpAddr,
    length: u32,
}

impl FromList {
    /// Reads the text between the quotes. None: an entry is wrong.
    pub fn read(text: &str) -> Option<FromList> {
        text.split(',').map(Entry::read).collect::<Option<_>>().map(FromList)
    }

    /// Does one of the entries stand for this address, and none of those with a `!`?
    pub fn has(&self, address: IpAddr) -> bool {
        let text = address.to_string();
        let meant = |negated: bool| {
            self.0.iter().any(|e| e.negated == negated && e.place.has(address, &text))
        };
        !meant(true) && meant(false)
    }
}

impl Entry {
    fn read(word: &str) -> Option<Entry> {
        let place = word.strip_prefix('!');
        Some(Entry { negated: place.is_some(), place: Place::read(place.unwrap_or(word))? })
    }
}

impl Place {
    fn read(word: &str) -> Option<Place> {
        if let Some((address, length)) = word.split_once('/') {
            return Net::read(address, length).map(Place::Net);
        }
        if let Ok(address) = word.parse() {
            return Some(Place::Address(address));
        }
        let wild = word.contains(['*', '?']);
        let sign = |c: char| c.is_ascii_alphanumeric() || "-_.:*?".contains(c);
        // No host's name has a colon, or a last part that begins with a digit (RFC 1123, 2.1).
        let last = word.rsplit('.').next().unwrap_or(word);
        let broken = word.contains(':') || last.starts_with(|c: char| c.is_ascii_digit());
        let good = !word.is_empty() && word.chars().all(sign) && (wild || !broken);
        good.then(|| Place::Pattern(word.into()))
    }

    /// `text`: the address as text.
    fn has(&self, address: IpAddr, text: &str) -> bool {
        match self {
            Place::Address(one) => *one == address,
            Place::Net(net) => net.has(address),
            Place::Pattern(p) => pattern::matches(p, text),
        }
    }
}

impl Net {
    fn read(address: &str, length: &str) -> Option<Net> {
        let net = Net { first: address.parse().ok()?, length: length.parse().ok()? };
        let (bits, width) = bits(net.first);
        let after = width.checked_sub(net.length)?;
        // Neither bits after the prefix, nor another way to write its length.
        let exact = bits.trailing_zeros() >= after && length == net.length.to_string();
        exact.then_some(net)
    }

    fn has(&self, address: IpAddr) -> bool {
        let ((first, width), (other, other_width)) = (bits(self.first), bits(address));
        width == other_width && (first ^ other).checked_shr(width - self.length).unwrap_or(0) == 0
    }
}

/// The bits of an address, and how many there are.
fn bits(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(a) => (a.to_bits().into(), 32),
        IpAddr::V6(a) => (a.to_bits(), 128),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn has(list: &str, address: &str) -> bool {
        FromList::read(list).expect(list).has(address.parse().expect("address"))
    }

    #[test]
    fn patterns_as_ssh_has_them() {
        assert!(has("10.0.0.0/8", "10.1.2.3") && !has("10.0.0.0/8", "11.1.2.3"));
        assert!(has("10.*,!10.1.*", "10.2.3.4") && !has("10.*,!10.1.*", "10.1.3.4"));
        assert!(has("192.0.2.?", "192.0.2.7") && !has("192.0.2.?", "192.0.2.77"));
        assert!(!has("!10.1.*", "11.1.1.1") && !has("host.example", "11.1.1.1"));
        assert!(has("::1", "::1") && has("::0001", "::1") && !has("*,!0:0::1", "::1"));
        assert!(has("0.0.0.0/0", "10.1.1.1") && !has("0.0.0.0/0", "::1") && has("::/0", "::1"));
        assert!(has("fe80::/10", "febf::1") && !has("fe80::/10", "fec0::1"));
        assert!(has("1.2.3.4/32", "1.2.3.4") && !has("1.2.3.4/32", "1.2.3.5"));
        assert!(has("::1/128", "::1") && !has("::1/128", "::2") && !has("1.2.3.4", "::102:304"));
        assert!(has("*,!*.example.org,!web-1", "10.1.1.1") && has("fe80:*", "fe80::1"));
    }

    const WRONG: [&str; 22] = [
        "127.7.0.1/8",
        "127.7.0.0/33",
        "10.0.0.0/016",
        "10.0.0.0/+8",
        "10.0.0.0/",
        "10.0.0.0/255.0.0.0",
        "host/8",
        "fe80::1/10",
        "::/129",
        "127.7.0.001",
        "127.007.0.1",
        "127.7",
        "0x7f000001",
        "300.1.1.1",
        "::1%lo",
        "[::1]",
        "",
        " 10.0.0.1",
        "10.0.0.1 ",
        "127\\.*",
        "!!127.7.0.1",
        "a\u{a0}b",
    ];

    proptest! {
        /// Whatever else matches.
        #[test]
        fn a_list_with_a_wrong_entry_admits_nobody(
            right in prop::collection::vec(
                prop::sample::select(vec!["*", "127.0.0.0/8", "127.7.0.1", "!10.*", "host"]), 0..4),
            wrong in prop::sample::select(&WRONG[..]),
            negated in any::<bool>(),
            at in any::<prop::sample::Index>(),
        ) {
            let wrong = if negated { format!("!{wrong}") } else { wrong.to_string() };
            let mut all: Vec<&str> = right;
            all.insert(at.index(all.len() + 1), &wrong);
            prop_assert_eq!(FromList::read(&all.join(",")), None);
        }

        #[test]
        fn any_list_is_read_or_not(list in "\\PC{0,40}", a in any::<u32>()) {
            if let Some(read) = FromList::read(&list) {
                let _ = read.has(std::net::Ipv4Addr::from(a).into());
            }
        }
    }
}
