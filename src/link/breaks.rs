//! What the peer sees if a local end breaks.

use std::io::{self, ErrorKind};

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Breaks {
    /// It is an end as any other: a program that ends without having read all looks so.
    #[default]
    End,
    /// The peer sees a break too.
    Reset,
    /// The peer sees a break too, and writing has said that it broke. What it said before may still
    /// be read.
    Broken,
}

impl Breaks {
    /// Writing to it failed.
    pub(super) fn note(&mut self, e: &io::Error) {
        if *self == Breaks::Reset && e.kind() == ErrorKind::ConnectionReset {
            *self = Breaks::Broken;
        }
    }

    /// Reading it ended so: is the peer to see a break?
    pub(super) fn is_break(self, read: &io::Result<usize>) -> bool {
        match read {
            Ok(0) => self == Breaks::Broken,
            Ok(_) => false,
            Err(e) => {
                self != Breaks::End
                    && !matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_break_is_seen_whoever_hears_of_it_first() {
        let reset = || io::Error::from(ErrorKind::ConnectionReset);
        let mut all = [Breaks::End, Breaks::Reset];
        assert_eq!(all.map(|b| b.is_break(&Err(reset()))), [false, true]);
        assert!(!Breaks::Reset.is_break(&Err(ErrorKind::WouldBlock.into())));
        assert_eq!(all.map(|b| b.is_break(&Ok(0))), [false, false]);
        all.iter_mut().for_each(|b| b.note(&ErrorKind::BrokenPipe.into()));
        assert_eq!(all.map(|b| b.is_break(&Ok(0))), [false, false]);
        all.iter_mut().for_each(|b| b.note(&reset()));
        assert_eq!(all.map(|b| b.is_break(&Ok(0))), [false, true]);
        assert!(!all[1].is_break(&Ok(1)));
    }
}
