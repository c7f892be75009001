//! One line of an authorized_keys file (sshd(8)). A line with an option that fived does not enforce
//! is ignored: a key that sshd restricts must not become a full login here.

use super::from_list::FromList;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::ops::{Range, RangeInclusive};

/// Options that restrict nothing in a login here.
const HARMLESS: [&str; 6] = [
    "restrict",
    "no-pty",
    "no-x11-forwarding",
    "no-agent-forwarding",
    "no-port-forwarding",
    "no-user-rc",
];
/// The kinds of keys that sshd(8) lists; any other first word is options.
const KINDS: [&str; 8] = [
    "ssh-ed25519",
    "ssh-rsa",
    "ssh-dss",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

/// A key that may log in, within its conditions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyLine {
    /// The public key, as in the file after base64.
    pub key: Vec<u8>,
    /// `from=`
    pub from: Option<FromList>,
    /// `expiry-time=`: 14 digits, and whether they are UTC.
    pub expires: Option<(String, bool)>,
}

/// What stands between words. Other white space is part of a word, as for sshd.
const BLANKS: [char; 2] = [' ', '\t'];

/// Reads a line. None: it is a comment, it is not a key, or it is ignored.
pub fn read(line: &str) -> Option<KeyLine> {
    let line = line.trim_start_matches(BLANKS);
    let line = line.trim_end_matches(|c: char| c.is_ascii_whitespace());
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let mut found = KeyLine { key: Vec::new(), from: None, expires: None };
    let (first, rest) = word(line)?;
    let (kind, rest) = if KINDS.contains(&first) {
        (first, rest)
    } else {
        for option in options(first)? {
            found.option(&option)?;
        }
        word(rest)?
    };
    let (blob, _) = word(rest).unwrap_or((rest, ""));
    found.key = STANDARD.decode(blob).ok()?;
    // The kind of key is also inside the key itself.
    let n = found.key.first_chunk::<4>().map(|n| u32::from_be_bytes(*n) as usize)?;
    (found.key.get(4..4usize.checked_add(n)?)? == kind.as_bytes()).then_some(found)
}

impl KeyLine {
    fn option(&mut self, option: &str) -> Option<()> {
        let (name, value) = option.split_once('=').map_or((option, None), |(n, v)| (n, Some(v)));
        let value = value.map(|v| v.strip_prefix('"').and_then(|v| v.strip_suffix('"')));
        match (name.to_ascii_lowercase().as_str(), value) {
            // sshd accepts neither of two, and ignores the line.
            ("from", Some(Some(v))) if self.from.is_none() => self.from = Some(FromList::read(v)?),
            ("expiry-time", Some(Some(v))) => {
                let (digits, utc) = v.strip_suffix(['Z', 'z']).map_or((v, false), |d| (d, true));
                let expires = time(digits)?;
                // Of two, sshd takes the earlier one. Two in different time zones are not compared:
                // the line is ignored.
                match &self.expires {
                    Some((_, other)) if *other != utc => return None,
                    Some((old, _)) if *old <= expires => {}
                    _ => self.expires = Some((expires, utc)),
                }
            }
            (name, None) if HARMLESS.contains(&name) => {}
            _ => return None,
        }
        Some(())
    }
}

/// A time of 8, 12 or 14 digits, as 14. None: there is no such time. As for sshd, each month has 31
/// days, and a minute has 62 seconds.
fn time(digits: &str) -> Option<String> {
    if !matches!(digits.len(), 8 | 12 | 14) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let all = format!("{digits:0<14}");
    let parts = [
        (0..4, 1970..=9999),
        (4..6, 1..=12),
        (6..8, 1..=31),
        (8..10, 0..=23),
        (10..12, 0..=59),
        (12..14, 0..=61),
    ];
    let good = |(at, range): (Range<usize>, RangeInclusive<u32>)| {
        all[at].parse().is_ok_and(|n| range.contains(&n))
    };
    parts.into_iter().all(good).then_some(all)
}

/// The first word, in which blanks within quotes do not count as separators; and the rest.
fn word(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start_matches(BLANKS);
    let (mut quoted, mut chars) = (false, text.char_indices().peekable());
    while let Some((i, c)) = chars.next() {
        match c {
            // Neither character means anything.
            '\\' => drop(chars.next_if(|(_, next)| *next == '"')),
            '"' => quoted = !quoted,
            _ if BLANKS.contains(&c) && !quoted => return Some((&text[..i], &text[i + 1..])),
            _ => {}
        }
    }
    (!quoted && !text.is_empty()).then_some((text, ""))
}

/// The options, separated by commas outside of quotes; a backslash quotes a `"` and nothing else.
/// None: a quotation does not end.
fn options(text: &str) -> Option<Vec<String>> {
    let (mut all, mut one, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            // It does not end a quotation, and no condition that is read has it.
            '\\' if chars.next_if_eq(&'"').is_some() => one.push_str("\\\""),
            ',' if !quoted => all.push(std::mem::take(&mut one)),
            _ => {
                quoted ^= c == '"';
                one.push(c);
            }
        }
    }
    all.push(one);
    (!quoted).then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f comment";

    fn with(options: &str) -> Option<KeyLine> {
        read(&format!("{options}{KEY}"))
    }

    #[test]
    fn lines_that_count() {
        assert!(with("").is_some_and(|k| k.key.len() == 51 && k.from.is_none()));
        assert!(with("restrict,no-pty,No-User-RC ").is_some());
        let k = with("from=\"10.0.0.0/8,!10.1.*\",expiry-time=\"20260102\" ").expect("counts");
        assert_eq!(k.from, FromList::read("10.0.0.0/8,!10.1.*"));
        assert_eq!(k.expires, Some(("20260102000000".into(), false)));
        assert_eq!(
            with("expiry-time=\"202601020304Z\" ").expect("counts").expires,
            Some(("20260102030400".into(), true))
        );
    }

    #[test]
    fn lines_that_do_not() {
        for options in [
            "command=\"date\" ",
            "cert-authority ",
            "environment=\"A=b c\" ",
            "principals=\"x\" ",
            "pty ",
            "agent-forwarding ",
            "from=10.0.0.1 ",
            "from=\"10.0.0.1\",from=\"10.0.0.2\" ",
            "restrict=\"x\" ",
            "expiry-time=\"soon\" ",
            "restrict,command=\"a,b \\\" c\" ",
            "new-option ",
            "\"open ",
            "from ",
            "no-touch-required ",
            "verify-required ",
        ] {
            assert_eq!(with(options), None, "{options}");
        }
        for line in [
            "",
            "# x",
            "ssh-ed25519",
            "ssh-ed25519 !!!",
            "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f",
        ] {
            assert_eq!(read(line), None, "{line}");
        }
    }

    /// sshd refuses each of these.
    #[test]
    fn lines_with_a_broken_condition_do_not_count() {
        for from in [
            "*,!127.7.0.0/33",
            "127.7.0.1/8",
            "127.0.0.0/8,",
            "127.*,!",
            "!,127.*",
            "127.7.0.001",
            "127.0.0.0/016",
            "127.0.0.0/8 ",
            " 127.0.0.0/8",
            "*, !127.7.0.1",
            "127\\.*",
            "127.*\\\"",
            "",
        ] {
            assert_eq!(with(&format!("from=\"{from}\" ")), None, "{from}");
        }
        for time in [
            "20271301",
            "20270001",
            "20270132",
            "20270100",
            "202701012400",
            "202701011260",
            "20270101120062",
            "00010101",
            "19691231",
            "2027010100Z",
            "20270101ZZ",
            "2027-1-1",
            "",
        ] {
            assert_eq!(with(&format!("expiry-time=\"{time}\" ")), None, "{time}");
        }
        for before in ["\u{b}", "\u{a0}", "\u{feff}", "\u{c}", "restrict\u{a0}", "restrict\\ "] {
            assert_eq!(with(before), None, "{before:?}");
        }
    }

    #[test]
    fn lines_that_sshd_takes_count() {
        for options in [
            "from=\"127.*,!127.7.0.1/32,*.example.org\" ",
            "expiry-time=\"20270231\" ",
            "expiry-time=\"20270101235961z\" ",
            "\t restrict\t ",
            "expiry-time=\"202801010000\" ",
        ] {
            assert!(with(options).is_some(), "{options}");
        }
        let bare = KEY.strip_suffix(" comment").expect("a comment");
        for end in ["\r", " ", "\t", ""] {
            assert!(read(&format!("{bare}{end}")).is_some(), "{end:?}");
        }
    }

    proptest! {
        #[test]
        fn any_line_is_read_or_not(line in "\\PC{0,80}") {
            let _ = read(&line);
            let _ = with(&format!("{line} "));
        }
    }
}
