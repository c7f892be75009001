//! The channels that may have orders, and whose are served next. Clients that need a connection for
//! each request come through the net process's own channel; those who ask in sessions have one for
//! each session, and there may be thousands. So sessions and all other channels take turns, and
//! among sessions the sources of their clients do: by more sessions nobody is served more often.

use super::queue::Queue;
use crate::policy::{BySource, Source};
use mio::Token;
use std::collections::HashSet;

/// So many sessions are served before another channel, if one waits. Their orders are together as
/// many as those that are served of such a channel.
const SESSIONS: usize = 4;

/// See the module. Each channel is there once, however many events it has, so a turn of the loop
/// serves as many orders as its constants say, however many channels have some.
#[derive(Default)]
pub struct Ready {
    others: Queue<Token>,
    sessions: BySource<Token>,
    queued: HashSet<Token>,
    /// How many sessions were served since another channel was.
    in_a_row: usize,
}

impl Ready {
    /// A channel may have orders; one that is there keeps its place. `of`: the source of the client
    /// whose session it is.
    pub fn add(&mut self, token: Token, of: Option<Source>) {
        match of {
            None => self.others.add(token),
            Some(source) if self.queued.insert(token) => self.sessions.add(source, token),
            Some(_) => {}
        }
    }

    /// Takes the one whose turn it is.
    pub fn next(&mut self) -> Option<Token> {
        if (self.in_a_row < SESSIONS || self.others.is_empty())
            && let Some(token) = self.sessions.take_next()
        {
            self.queued.remove(&token);
            self.in_a_row += 1;
            return Some(token);
        }
        self.in_a_row = 0;
        self.others.next()
    }

    pub fn is_empty(&self) -> bool {
        self.others.is_empty() && self.sessions.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_sessions_keep_neither_others_nor_a_session_of_another_waiting() {
        let mut ready = Ready::default();
        let source = |n: u8| Some(Source::of([192, 0, 2, n].into()));
        (1000..2000).for_each(|n| ready.add(Token(n), source(1)));
        ready.add(Token(1), None);
        ready.add(Token(2), None);
        ready.add(Token(3000), source(2));
        // Each is there once.
        ready.add(Token(1), None);
        ready.add(Token(1000), source(1));
        let first: Vec<_> = (0..10).filter_map(|_| ready.next()).map(usize::from).collect();
        assert_eq!(first, [1000, 3000, 1001, 1002, 1, 1003, 1004, 1005, 1006, 2]);
        // What is there alone has every turn.
        assert!((0..20).all(|_| ready.next().is_some_and(|t| (1007..1027).contains(&t.0))));
        ready.add(Token(1), None);
        assert_eq!(ready.next(), Some(Token(1)));
        let rest = std::iter::from_fn(|| ready.next()).count();
        assert_eq!((rest, ready.is_empty()), (2000 - 1027, true));
    }
}
