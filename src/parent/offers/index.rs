//! Which clients of offered services wait for which session, and which came through which.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

/// Clients, by what they wait for or came through.
pub struct Index<K>(HashMap<K, BTreeSet<u32>>);

impl<K> Default for Index<K> {
    fn default() -> Index<K> {
        Index(HashMap::new())
    }
}

impl<K: Copy + Eq + Hash> Index<K> {
    pub fn add(&mut self, of: K, client: u32) {
        self.0.entry(of).or_default().insert(client);
    }

    pub fn remove(&mut self, of: K, client: u32) {
        if let Some(clients) = self.0.get_mut(&of) {
            clients.remove(&client);
            if clients.is_empty() {
                self.0.remove(&of);
            }
        }
    }

    pub fn count(&self, of: K) -> usize {
        self.0.get(&of).map_or(0, BTreeSet::len)
    }

    /// Those of one, the oldest first.
    pub fn of(&self, of: K) -> impl Iterator<Item = u32> {
        self.0.get(&of).into_iter().flatten().copied()
    }

    /// Those of all that are such.
    pub fn of_such(&self, such: impl Fn(K) -> bool) -> impl Iterator<Item = u32> {
        self.0.iter().filter(move |(of, _)| such(**of)).flat_map(|(_, clients)| clients).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_forgets_what_has_no_client() {
        let mut index = Index::default();
        for (token, client) in [(1, 7), (1, 3), (2, 5), (1, 7)] {
            index.add(token, client);
        }
        assert_eq!(index.of(1).collect::<Vec<_>>(), [3, 7]);
        assert_eq!(index.of_such(|token| token != 1).collect::<Vec<_>>(), [5]);
        assert_eq!((index.count(1), index.count(2), index.count(3)), (2, 1, 0));
        for (token, client) in [(1, 3), (1, 7), (1, 9), (3, 5), (2, 5)] {
            index.remove(token, client);
        }
        assert!(index.0.is_empty());
    }
}
