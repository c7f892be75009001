//! Words as exec wants them: C strings one after another, and a list of pointers to them.

use std::ffi::c_char;
use std::fmt;
use std::ptr;

/// Bytes of a word at most, as exec takes it, without the zero after it (MAX_ARG_STRLEN: 32 pages
/// of 4 KiB; where pages are larger the kernel takes more).
const WORD_MAX: usize = 32 * 4096 - 1;

/// A word that no program can be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadWord {
    Nul,
    TooLong,
}

impl fmt::Display for BadWord {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            BadWord::Nul => f.write_str("a zero byte in a word"),
            BadWord::TooLong => {
                write!(f, "a word of more than {WORD_MAX} bytes, which no program can be given")
            }
        }
    }
}

impl std::error::Error for BadWord {}

/// Arguments or environment, ready for exec as often as wanted.
#[derive(Debug)]
pub struct CList {
    #[expect(dead_code, reason = "the pointers lead into it")]
    words: Vec<u8>,
    /// Into `words`, whose bytes never move or change once this is made; a null at the end.
    pointers: Vec<*const c_char>,
}

// SAFETY: the pointers lead into the value's own memory, which nobody changes.
unsafe impl Send for CList {}
// SAFETY: as above.
unsafe impl Sync for CList {}

impl CList {
    pub fn new<W: AsRef<[u8]>>(words: impl IntoIterator<Item = W>) -> Result<CList, BadWord> {
        let mut list = Env::new();
        for word in words {
            list.add(&[word.as_ref()])?;
        }
        Ok(list.finish())
    }

    pub(super) fn as_ptr(&self) -> *const *const c_char {
        self.pointers.as_ptr()
    }
}

/// An environment that is being written: two allocations, however many variables.
#[derive(Debug)]
pub struct Env {
    words: Vec<u8>,
    /// Offsets of the words for now.
    starts: Vec<*const c_char>,
}

impl Default for Env {
    fn default() -> Self {
        Env::new()
    }
}

impl Env {
    /// With room for what a service usually gets.
    pub fn new() -> Env {
        Env { words: Vec::with_capacity(1024), starts: Vec::with_capacity(32) }
    }

    /// Adds `key=value`. A key that is there already stays first, as getenv(3) finds it.
    pub fn push(&mut self, key: &str, value: &[u8]) -> Result<(), BadWord> {
        self.add(&[key.as_bytes(), b"=", value])
    }

    /// Adds all of them, each a key and a value.
    pub fn extend<'k>(
        &mut self,
        all: impl IntoIterator<Item = (&'k str, Vec<u8>)>,
    ) -> Result<(), BadWord> {
        all.into_iter().try_for_each(|(key, value)| self.push(key, &value))
    }

    pub fn finish(mut self) -> CList {
        let base = self.words.as_ptr();
        for start in &mut self.starts {
            // An offset within `words`, which does not grow any more.
            *start = base.wrapping_add(start.addr()).cast();
        }
        self.starts.push(ptr::null());
        CList { words: self.words, pointers: self.starts }
    }

    fn add(&mut self, parts: &[&[u8]]) -> Result<(), BadWord> {
        if parts.iter().any(|p| p.contains(&0)) {
            return Err(BadWord::Nul);
        }
        if parts.iter().map(|p| p.len()).sum::<usize>() > WORD_MAX {
            return Err(BadWord::TooLong);
        }
        self.starts.push(ptr::without_provenance(self.words.len()));
        for part in parts {
            self.words.extend_from_slice(part);
        }
        self.words.push(0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;

    fn words(list: &CList) -> Vec<&CStr> {
        let (last, pointers) = list.pointers.split_last().unwrap();
        assert!(last.is_null());
        // SAFETY: each leads to a C string of the list.
        pointers.iter().map(|p| unsafe { CStr::from_ptr(*p) }).collect()
    }

    #[test]
    fn words_are_where_the_pointers_lead() {
        let list = CList::new(["sh", "", "-c"]).unwrap();
        assert_eq!(words(&list), [c"sh", c"", c"-c"]);
        assert!(words(&CList::new::<&str>([]).unwrap()).is_empty());
        assert!(CList::new(["a".repeat(WORD_MAX)]).is_ok());
        assert_eq!(CList::new(["a".repeat(WORD_MAX + 1)]).unwrap_err(), BadWord::TooLong);
        assert_eq!(CList::new(["a\0b"]).unwrap_err(), BadWord::Nul);
    }

    #[test]
    fn variables_are_in_their_order() {
        let mut env = Env::new();
        env.push("A", b"1").unwrap();
        env.push("AB", b"2").unwrap();
        assert_eq!(env.push("C", b"\0"), Err(BadWord::Nul));
        let list = env.finish();
        assert_eq!(words(&list), [c"A=1", c"AB=2"]);
    }
}
