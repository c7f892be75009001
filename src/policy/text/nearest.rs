//! The name that somebody may have meant who wrote an unknown one.

/// The word of `all` that is most similar to `word`, if any is similar.
pub fn nearest<'a>(word: &str, all: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let from_word = |w: &&str| distance(word.as_bytes(), w.as_bytes());
    // Two changes make nearly any short word another. Of one letter nothing is left by a change.
    let changes = 1.max(word.len() / 3).min(word.len().saturating_sub(1));
    all.min_by_key(from_word).filter(|w| from_word(w) <= changes && word.len() < 64)
}

/// How many bytes must be changed, inserted or deleted (the Levenshtein distance).
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().take(64).enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let change = corner + usize::from(!x.eq_ignore_ascii_case(y));
            corner = row[j + 1];
            row[j + 1] = change.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_word_is_found() {
        assert_eq!(nearest("only_form", ["only_from", "no_access"].into_iter()), Some("only_from"));
        assert_eq!(nearest("banana", ["only_from", "no_access"].into_iter()), None);
        assert_eq!(nearest("cert", ["port", "certificate"].into_iter()), None);
        for (word, wanted) in [("a", None), ("x", None), ("ky", Some("key")), ("pm", Some("pam"))] {
            assert_eq!(nearest(word, ["pam", "key", "env"].into_iter()), wanted, "{word}");
        }
    }
}
