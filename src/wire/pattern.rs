//! Patterns as in ssh_config(5), PATTERNS.

/// Does a list of patterns apply? One of them must match, and none of those with a `!` before it.
pub fn apply<'a>(
    patterns: impl Iterator<Item = &'a str> + Clone,
    matches: impl Fn(&str) -> bool,
) -> bool {
    let mut negated = patterns.clone().filter_map(|p| p.strip_prefix('!'));
    !negated.any(&matches) && patterns.filter(|p| !p.starts_with('!')).any(matches)
}

/// Does the pattern match, without regard to case? `*` stands for any bytes, `?` for any one. It
/// goes back to the last `*` only, so the time is bounded by the product of the two lengths.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == b'?' || c.eq_ignore_ascii_case(&text[t]) => (p, t) = (p + 1, t + 1),
            _ => match star {
                // The last star takes one byte more.
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    (p, t) = (at + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks() {
        for (pattern, text, fit) in [
            ("*", "", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b", "axc", false),
            ("**", "x", true),
            ("", "x", false),
            ("", "", true),
            ("A?", "ab", true),
            ("a?", "a", false),
            ("*a*a*a*b", &"a".repeat(200), false),
        ] {
            assert_eq!(matches(pattern, text), fit, "{pattern} {text}");
        }
    }

    #[test]
    fn a_negated_pattern_wins() {
        let any = |list: &str, text: &str| apply(list.split(' '), |p| matches(p, text));
        assert!(any("a* !ab", "ac") && !any("a* !ab", "ab") && !any("!ab a*", "ab"));
        assert!(!any("!ab", "ac"), "one must match");
    }
}
