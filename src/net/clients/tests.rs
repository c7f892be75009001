//! Who waits, in which order, and that nobody is there twice.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn client(all: &mut Clients, deadline: u64) -> Slot {
    let file = std::fs::File::open("/dev/null").expect("/dev/null");
    let socket = std::os::fd::OwnedFd::from(file).into();
    all.insert(socket, Peer::User(1), ClientState::Request, Duration::from_secs(deadline))
}

#[test]
fn deadlines_come_in_order_whoever_goes_between() {
    let mut all = Clients::default();
    let slots: Vec<Slot> = (1..=5).map(|i| client(&mut all, i)).collect();
    assert!(
        all.remove(slots[0]).is_some()
            && all.remove(slots[2]).is_some()
            && all.remove(slots[4]).is_some()
    );
    assert!(all.remove(slots[0]).is_none());
    assert_eq!(all.next_deadline(), Some(Duration::from_secs(2)));
    all.set_state(slots[1], ClientState::Discard { left: 9 }, Duration::from_secs(3));
    assert_eq!(all.overdue(Duration::from_secs(3)), Some(slots[1]));
    assert_eq!(all.in_state(ClientState::is_first), [slots[3]]);
    all.remove(slots[1]);
    assert_eq!(all.overdue(Duration::from_secs(3)), None);
    all.remove(slots[3]);
    assert_eq!((all.len(), all.next_deadline()), (0, None));
}

#[test]
fn a_number_is_used_again_only_in_the_next_turn() {
    let mut all = Clients::default();
    let a = client(&mut all, 1);
    all.remove(a);
    assert_ne!(client(&mut all, 1), a);
    all.free_slots();
    assert_eq!(client(&mut all, 1), a);
}

proptest! {
    /// Each list waits for a time of its own.
    #[test]
    fn whatever_comes_and_goes_each_is_there_once(
        steps in proptest::collection::vec((0u8..7, any::<prop::sample::Index>()), 0..60),
    ) {
        let (mut all, mut wanted) = (Clients::default(), BTreeMap::<Slot, (bool, u64)>::new());
        for (now, (what, which)) in (0..).zip(steps) {
            let slots: Vec<Slot> = wanted.keys().copied().collect();
            let slot = (!slots.is_empty()).then(|| *which.get(&slots));
            match (what, slot) {
                (0..=2, _) => {
                    let slot = client(&mut all, now + 10);
                    prop_assert_eq!(wanted.insert(slot, (false, now + 10)), None);
                }
                (3, Some(slot)) => {
                    prop_assert!(all.remove(slot).is_some() && all.get(slot).is_none());
                    wanted.remove(&slot);
                }
                (4, Some(slot)) => {
                    let until = Duration::from_secs(now + 3);
                    all.set_state(slot, ClientState::Discard { left: 1 }, until);
                    wanted.insert(slot, (true, now + 3));
                }
                (5, Some(slot)) => {
                    all.set_state(slot, ClientState::Answer, Duration::from_secs(now + 10));
                    wanted.insert(slot, (false, now + 10));
                }
                _ => all.free_slots(),
            }
            prop_assert_eq!(all.len(), wanted.len());
            let first = wanted.values().map(|(_, deadline)| *deadline).min();
            prop_assert_eq!(all.next_deadline(), first.map(Duration::from_secs));
            let overdue = all.overdue(Duration::from_secs(now));
            prop_assert_eq!(overdue.is_some(), first.is_some_and(|first| first <= now));
            prop_assert!(overdue.is_none_or(|slot| wanted[&slot].1 <= now));
            let discards = all.in_state(|s| matches!(s, ClientState::Discard { .. }));
            let of = |(slot, (discards, _)): (&Slot, &(bool, u64))| discards.then_some(*slot);
            prop_assert_eq!(discards, wanted.iter().filter_map(of).collect::<Vec<_>>());
            prop_assert!(all.to_evict().is_none_or(|slot| wanted.contains_key(&slot)));
        }
        let mut left = 0;
        while let Some(slot) = all.overdue(Duration::MAX) {
            prop_assert!(all.remove(slot).is_some());
            left += 1;
        }
        prop_assert_eq!((left, all.is_empty()), (wanted.len(), true));
    }
}
