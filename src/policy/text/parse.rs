//! Reads single words of values: numbers, times, paths. Err: the word that is wrong, and what was
//! expected.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// A word that is wrong, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// The name of the setting, where no word of its value can be shown.
    pub word: String,
    pub what: String,
}

impl Wrong {
    pub fn new(word: &str, what: impl Into<String>) -> Wrong {
        Wrong { word: word.into(), what: what.into() }
    }

    /// `expected WHAT, found FOUND`.
    pub fn expected(what: impl Display, found: &str) -> Wrong {
        Wrong::new(found, expected(what, found))
    }
}

/// Every word of a value that is wrong.
impl From<Wrong> for Vec<Wrong> {
    fn from(one: Wrong) -> Vec<Wrong> {
        vec![one]
    }
}

/// `expected WHAT, found FOUND`.
pub fn expected(what: impl Display, found: &str) -> String {
    format!("expected {what}, found {found:?}")
}

/// `a, b or c`.
pub fn any_of<'a>(all: impl IntoIterator<Item = &'a str>) -> String {
    let all: Vec<&str> = all.into_iter().collect();
    match all.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => all.concat(),
    }
}

/// The one word of a value.
pub fn one<'a>(name: &str, words: &[&'a str]) -> Result<&'a str, Wrong> {
    match words {
        [word] => Ok(word),
        [] => Err(Wrong::new(name, "expected a value, found none")),
        [_, more, ..] => {
            let what = format!("expected one word after {name}, found {}", words.len());
            Err(Wrong::new(more, what))
        }
    }
}

/// Reads a list to its end, even after a mistake. Err: every word that is wrong.
pub fn each<T>(
    words: &[&str],
    mut read: impl FnMut(&str) -> Result<Vec<T>, String>,
) -> Result<Vec<T>, Vec<Wrong>> {
    let (mut all, mut wrong) = (Vec::new(), Vec::new());
    for w in words {
        match read(w) {
            Ok(values) => all.extend(values),
            Err(what) => wrong.push(Wrong::new(w, what)),
        }
    }
    if wrong.is_empty() { Ok(all) } else { Err(wrong) }
}

/// A number as it is usually written: no plus sign stands before it.
pub fn plain<T: FromStr>(word: &str) -> Option<T> {
    word.parse().ok().filter(|_| !word.starts_with('+'))
}

/// A number within a range.
pub fn number(word: &str, range: RangeInclusive<i64>) -> Result<i64, Wrong> {
    let n = plain(word).filter(|n| range.contains(n));
    n.ok_or_else(|| {
        let what = format!("a number from {} to {}", range.start(), range.end());
        Wrong::expected(what, word)
    })
}

/// Seconds within a range: a number alone, or with `s`, `m`, `h` or `d` after it.
pub fn seconds(word: &str, range: RangeInclusive<u32>) -> Result<u32, Wrong> {
    let (digits, unit) = match word.as_bytes().last() {
        Some(b's') => (&word[..word.len() - 1], 1),
        Some(b'm') => (&word[..word.len() - 1], 60),
        Some(b'h') => (&word[..word.len() - 1], 3600),
        Some(b'd') => (&word[..word.len() - 1], 86_400),
        _ => (word, 1),
    };
    let n = plain(digits).and_then(|n: u32| n.checked_mul(unit)).filter(|n| range.contains(n));
    n.ok_or_else(|| {
        let (from, to) = (range.start(), range.end());
        let what = format!("a time from {from} to {to} seconds (90, 90s, 5m, 2h, 1d)");
        Wrong::expected(what, word)
    })
}

/// A umask.
pub fn octal(word: &str) -> Result<u32, Wrong> {
    let n = u32::from_str_radix(word, 8).ok().filter(|n| *n <= 0o777 && !word.starts_with('+'));
    n.ok_or_else(|| Wrong::expected("a umask of octal digits, such as 022", word))
}

/// `yes` or `no`.
pub fn yes(word: &str) -> Result<bool, Wrong> {
    match word.to_ascii_lowercase().as_str() {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(Wrong::expected("yes or no", word)),
    }
}

/// An absolute path.
pub fn path(word: &str) -> Result<String, Wrong> {
    if word.starts_with('/') {
        Ok(word.into())
    } else {
        Err(Wrong::expected("an absolute path (one that begins with /)", word))
    }
}

/// Is this one path, and not several with commas or semicolons between them?
pub fn is_one_path(word: &str) -> bool {
    const SEPARATORS: [char; 2] = [',', ';'];
    let next = |rest: &str| rest.is_empty() || rest.starts_with('/') || rest.starts_with("%h/");
    !word.match_indices(SEPARATORS).any(|(at, _)| next(&word[at + 1..]))
}

/// The word for no limit, in any case.
pub const UNLIMITED: &str = "UNLIMITED";

/// Is this the word for no limit?
pub fn unlimited(word: &str) -> bool {
    word.eq_ignore_ascii_case(UNLIMITED)
}

/// A number above 0; None: UNLIMITED.
pub fn limit(word: &str) -> Result<Option<u32>, Wrong> {
    if unlimited(word) {
        return Ok(None);
    }
    let n = plain(word).filter(|&n: &u32| n > 0);
    let what = match plain(word) {
        Some(0_u32) => "a number from 1 or UNLIMITED",
        _ => "a number or UNLIMITED",
    };
    n.map(Some).ok_or_else(|| Wrong::expected(what, word))
}

/// The name of a variable of the environment.
pub fn variable(name: &str) -> Result<(), String> {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if !name.is_empty() && name.chars().all(good) && !name.starts_with(|c: char| c.is_ascii_digit())
    {
        Ok(())
    } else {
        Err(expected("a variable's name, of letters, digits and _", name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        let read = |text: &str| seconds(text, 1..=604_800).ok();
        for (text, wanted) in
            [("90", 90), ("90s", 90), ("5m", 300), ("2h", 7200), ("7d", 604_800), ("010", 10)]
        {
            assert_eq!(read(text), Some(wanted), "{text}");
        }
        for bad in
            ["", "s", "0", "-1", "+1", "1.5h", "1 h", "8d", "9999999999", "99999999d", "5M", "5ms"]
        {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
