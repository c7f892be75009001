//! Single words of values, read: numbers, times, paths. Err: the word that is wrong, and what is
//! wrong with it.

/// What is wrong with a value: each word of it that is, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong(pub Vec<(String, String)>);

impl From<(String, String)> for Wrong {
    fn from(one: (String, String)) -> Wrong {
        Wrong(vec![one])
    }
}

/// The one word of a value.
pub fn one<'a>(name: &str, words: &[&'a str]) -> Result<&'a str, (String, String)> {
    match words {
        [word] => Ok(word),
        [] => Err((name.into(), "no value behind it; one would be right".into())),
        [_, more, ..] => {
            Err((more.to_string(), format!("one word too many; {name} takes one value")))
        }
    }
}

/// Reads a list, to its end. Err: every word that is wrong.
pub fn each<T>(
    words: &[&str],
    mut read: impl FnMut(&str) -> Result<Vec<T>, String>,
) -> Result<Vec<T>, Wrong> {
    let (mut all, mut wrong) = (Vec::new(), Vec::new());
    for w in words {
        match read(w) {
            Ok(values) => all.extend(values),
            Err(e) => wrong.push((w.to_string(), e)),
        }
    }
    if wrong.is_empty() { Ok(all) } else { Err(Wrong(wrong)) }
}

/// A number within a range.
pub fn number(word: &str, range: std::ops::RangeInclusive<i64>) -> Result<i64, (String, String)> {
    let n = word.parse().ok().filter(|n| range.contains(n));
    n.ok_or_else(|| {
        (
            word.to_string(),
            format!(
                "not such a number; one from {} to {} would be right",
                range.start(),
                range.end()
            ),
        )
    })
}

/// Seconds within a range: a number alone, or with `s`, `m`, `h` or `d` after it.
pub fn seconds(word: &str, range: std::ops::RangeInclusive<u32>) -> Result<u32, (String, String)> {
    let text = word;
    let (digits, unit) = match text.as_bytes().last() {
        Some(b's') => (&text[..text.len() - 1], 1),
        Some(b'm') => (&text[..text.len() - 1], 60),
        Some(b'h') => (&text[..text.len() - 1], 3600),
        Some(b'd') => (&text[..text.len() - 1], 86_400),
        _ => (text, 1),
    };
    let plain = digits.bytes().all(|b| b.is_ascii_digit());
    let n = digits
        .parse::<u32>()
        .ok()
        .filter(|_| plain)
        .and_then(|n| n.checked_mul(unit))
        .filter(|n| range.contains(n));
    n.ok_or_else(|| {
        let what = format!(
            "expected a time from {} to {} seconds (90, 90s, 5m, 2h, 1d), found {text:?}",
            range.start(),
            range.end()
        );
        (text.to_string(), what)
    })
}

/// A umask.
pub fn octal(word: &str) -> Result<u32, (String, String)> {
    let n = u32::from_str_radix(word, 8).ok().filter(|n| *n <= 0o777);
    n.ok_or_else(|| {
        (word.to_string(), "not a umask; octal digits such as 022 would be right".into())
    })
}

/// `yes` or `no`.
pub fn yes(word: &str) -> Result<bool, (String, String)> {
    match word.to_ascii_lowercase().as_str() {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err((word.to_string(), "neither yes nor no, which would be right".into())),
    }
}

/// An absolute path.
pub fn path(word: &str) -> Result<String, (String, String)> {
    if word.starts_with('/') {
        Ok(word.into())
    } else {
        Err((
            word.to_string(),
            "not an absolute path; one that begins with / would be right".into(),
        ))
    }
}

/// A number above 0; None: UNLIMITED.
pub fn limit(word: &str) -> Result<Option<u32>, (String, String)> {
    if word.eq_ignore_ascii_case("UNLIMITED") {
        return Ok(None);
    }
    let n = word.parse().ok().filter(|&n: &u32| n > 0);
    n.map(Some).ok_or_else(|| {
        (word.to_string(), "not a limit; a number above 0 or UNLIMITED would be right".into())
    })
}

/// The name of a variable of the environment.
pub fn variable(name: &str) -> Result<(), String> {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if !name.is_empty() && name.chars().all(good) && !name.starts_with(|c: char| c.is_ascii_digit())
    {
        Ok(())
    } else {
        Err("not a variable's name; letters, digits and _ would be right".into())
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
