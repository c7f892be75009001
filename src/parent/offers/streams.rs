//! The streams by which sessions serve the clients of what they offer: which client, while it waits
//! or is served, has one of which session, and how many of them are of one source.
//!
//! A session has streams for this many clients at a time, whatever it offers. A source may have one
//! more of them only while it has fewer than are left. So one source alone gets half of them, two
//! get a third each, and one that has none is never refused for the sake of this.

use crate::parent::sessions::counts::{count, one_less};
use crate::parent::tokens::SessionToken;
use crate::policy::Source;
use std::collections::HashMap;

/// See the module.
#[derive(Default)]
pub struct OfferStreams {
    /// By the clients' numbers: the session, and the client's source.
    all: HashMap<u32, (SessionToken, Source)>,
    of_sessions: HashMap<SessionToken, u32>,
    of_sources: HashMap<(SessionToken, Source), u32>,
}

impl OfferStreams {
    /// May this source have one more stream of that session, which has `most` of them?
    pub fn may(&self, session: SessionToken, source: Source, most: usize) -> bool {
        let of_source = count(&self.of_sources, &(session, source)) as usize;
        let left = most.saturating_sub(count(&self.of_sessions, &session) as usize);
        of_source == 0 || of_source < left || source.is_nobody()
    }

    /// The session is asked to take a client, or serves it.
    pub fn begin(&mut self, client: u32, session: SessionToken, source: Source) {
        self.end(client);
        self.all.insert(client, (session, source));
        *self.of_sessions.entry(session).or_default() += 1;
        *self.of_sources.entry((session, source)).or_default() += 1;
    }

    /// The client is served no more, or not by that session, if it was.
    pub fn end(&mut self, client: u32) {
        if let Some((session, source)) = self.all.remove(&client) {
            one_less(&mut self.of_sessions, session);
            one_less(&mut self.of_sources, (session, source));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: SessionToken = SessionToken::of_number(1);
    const OTHER: SessionToken = SessionToken::of_number(2);

    const MOST: usize = 12;

    fn source(n: u8) -> Source {
        Source::of([192, 0, 2, n].into())
    }

    /// How many of a session's streams each of these gets that takes all that it may, in turn.
    fn shares(sources: u8, most: usize) -> Vec<usize> {
        let (mut streams, mut client) = (OfferStreams::default(), 0);
        let mut all = vec![0; sources.into()];
        loop {
            let before = client;
            for n in 0..sources {
                if client < most as u32 && streams.may(ONE, source(n), most) {
                    client += 1;
                    streams.begin(client, ONE, source(n));
                    all[usize::from(n)] += 1;
                }
            }
            if client == before {
                return all;
            }
        }
    }

    #[test]
    fn each_source_leaves_as_many_as_it_has() {
        assert_eq!(shares(1, MOST), [6]);
        assert_eq!(shares(2, MOST), [4, 4]);
        assert_eq!(shares(3, MOST), [3, 3, 3]);
        assert_eq!(shares(12, MOST), [1; 12]);
        assert_eq!((shares(1, 1), shares(1, 2), shares(1, 3)), (vec![1], vec![1], vec![2]));
    }

    #[test]
    fn nothing_is_left_of_clients_that_are_gone() {
        let mut streams = OfferStreams::default();
        for client in 1..7 {
            assert!(streams.may(ONE, source(1), MOST));
            streams.begin(client, ONE, source(1));
        }
        assert!(!streams.may(ONE, source(1), MOST));
        assert!(streams.may(OTHER, source(1), MOST) && streams.may(ONE, source(2), MOST));
        // It goes to another session, which serves it.
        streams.begin(6, OTHER, source(1));
        streams.begin(6, OTHER, source(1));
        assert!(streams.may(ONE, source(1), MOST));
        (0..9).for_each(|client| streams.end(client));
        assert!(streams.all.is_empty());
        assert!(streams.of_sessions.is_empty() && streams.of_sources.is_empty());
    }
}
