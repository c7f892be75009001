use super::*;
use std::cell::Cell;

const TIMEOUT: Duration = Duration::from_secs(5);

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn session(number: u32) -> SessionToken {
    SessionToken::of_number(number.into())
}

/// Offers 1 to 9, each of the session of that number; those of `up` are up.
fn about(up: &[u32], most: usize) -> impl Fn(u32) -> Option<Candidate> + use<> {
    let up = up.to_vec();
    move |n| {
        let (session, number) = (session(n), n.into());
        (n < 10).then(|| Candidate {
            session,
            number,
            most,
            has_share: true,
            is_up: up.contains(&n),
            is_late: false,
        })
    }
}

/// Each of these offers is another user's.
fn search(rest: &[u32]) -> Search {
    of_users(&rest.iter().map(std::slice::from_ref).collect::<Vec<_>>())
}

/// The offers of some users, who are called a, b and so on.
fn of_users(rest: &[&[u32]]) -> Search {
    let of_user = |(n, offers): (u8, &&[u32])| OfUser {
        user: char::from(b'a' + n).to_string().into(),
        offers: offers.iter().copied().collect(),
        asked: 0,
    };
    Search::new(Row::default(), (0..).zip(rest).map(of_user).collect(), at(0), TIMEOUT)
}

/// Their ranks, if nobody was asked before.
fn rank(user: &str) -> Rank {
    Rank { turn: user.bytes().next().map_or(0, u64::from), ..Rank::default() }
}

#[test]
fn those_that_are_up_and_have_room_are_asked_first() {
    let mut s = search(&[1, 2, 77, 3, 4]);
    let mut asked = Index::default();
    asked.add(session(2), 5);
    for wanted in [3, 4, 1] {
        assert!(s.next(&asked, about(&[2, 3, 4], 1), rank, at(1)));
        assert_eq!((s.offer, s.session), (wanted, session(wanted)));
    }
    assert!(s.busy && s.reasons.is_empty());
    assert!(!s.next(&asked, about(&[2, 3, 4], 1), rank, at(1)));
    assert_eq!(s.reasons, ["session 2: too many clients wait for it"]);
    assert!(s.busy);
}

#[test]
fn those_that_begin_meanwhile_are_asked_too_and_each_once() {
    let (mut s, asked) = (search(&[1]), Index::default());
    let all = |offers: &[u32]| {
        vec![OfUser { user: "z".into(), offers: offers.iter().copied().collect(), asked: 0 }]
    };
    let began = |n: u32| Some(at(if n == 1 { 0 } else { 2 }));
    assert!(s.next(&asked, about(&[1, 2], 9), rank, at(1)));
    assert!(!s.next(&asked, about(&[1, 2], 9), rank, at(3)));
    assert!(s.learn(all(&[1, 2]), began, at(3)));
    assert!(s.next(&asked, about(&[1, 2], 9), rank, at(3)));
    assert_eq!((s.offer, s.user()), (2, "z"));
    assert!(!s.learn(all(&[1, 2]), began, at(4)));
    assert!(!s.next(&asked, about(&[1, 2], 9), rank, at(4)));
}

/// However many sessions one of them has.
#[test]
fn each_user_is_asked_before_another_session_of_the_same() {
    let mut s = of_users(&[&[1, 2, 3, 4], &[5, 6], &[7]]);
    let asked = Index::default();
    let ranks = |user: &str| match user {
        "a" => Rank { is_late: true, ..rank(user) },
        "b" => Rank { waiting: 1, ..rank(user) },
        _ => rank(user),
    };
    for wanted in [7, 5, 1, 6, 2, 3] {
        assert!(s.next(&asked, about(&[1, 2, 3, 4, 5, 6, 7], 9), ranks, at(0)));
        assert_eq!(s.offer, wanted);
    }
    // A session that is up comes before any other user's that is lost.
    let mut s = of_users(&[&[1, 2], &[3]]);
    for wanted in [1, 2, 3] {
        assert!(s.next(&asked, about(&[1, 2], 9), rank, at(0)));
        assert_eq!(s.offer, wanted);
    }
}

#[test]
fn a_client_waits_for_a_few_sessions_and_not_for_all() {
    let mut s = of_users(&[&[1, 2, 3, 4, 5]]);
    let (asked, up) = (Index::default(), [1, 2, 3, 4, 5]);
    for (now, until) in [(0, 5), (4, 9), (9, 14), (14, 15)] {
        assert!(s.next(&asked, about(&up, 9), rank, at(now)));
        assert_eq!(s.until, at(until));
    }
    assert!(!s.next(&asked, about(&up, 9), rank, at(15)));
    assert_eq!(s.reasons, ["no time is left for others"]);
    assert!(!s.busy);
}

/// Two sessions that are lost and resumed in turn do not make a client wait for ever.
#[test]
fn a_session_that_is_asked_again_has_no_more_time() {
    let mut s = search(&[1, 2]);
    let asked = Index::default();
    for (now, up, until) in [(0, 1, 5), (1, 2, 6), (2, 1, 5), (3, 2, 6), (4, 1, 5)] {
        assert!(s.next(&asked, about(&[up], 9), rank, at(now)));
        assert_eq!((s.offer, s.until), (up, at(until)));
        s.put_back();
    }
    // The first has had its time, and the second has a second yet.
    assert!(!s.has_one_up(&asked, about(&[1], 9), at(5)));
    assert!(s.next(&asked, about(&[1, 2], 9), rank, at(5)));
    assert_eq!((s.offer, s.until), (2, at(6)));
    assert!(!s.next(&asked, about(&[1, 2], 9), rank, at(6)));
    assert_eq!(s.reasons, ["session 1: no answer in time"]);
    assert!(!s.busy);
}

/// Each that is up has its own time, and all that are lost have one together.
#[test]
fn those_that_are_lost_are_waited_for_once() {
    let mut s = search(&[1, 2, 3]);
    let asked = Index::default();
    assert!(s.next(&asked, about(&[], 9), rank, at(0)));
    assert_eq!((s.offer, s.until), (1, at(5)));
    s.put_back();
    assert!(s.next(&asked, about(&[2], 9), rank, at(4)));
    assert_eq!((s.offer, s.until), (2, at(9)));
    // It was lost when it was asked first, which is not its own time.
    s.put_back();
    assert!(s.next(&asked, about(&[1], 9), rank, at(6)));
    assert_eq!((s.offer, s.until), (1, at(11)));
    assert!(s.next(&asked, about(&[], 9), rank, at(7)), "2 has time yet");
    assert_eq!((s.offer, s.until), (2, at(9)));
}

/// What is looked at does not depend on how many wait.
#[test]
fn each_client_costs_the_same_however_many_wait() {
    let steps = |clients: u32| {
        let (mut asked, looks) = (Index::default(), Cell::new(0));
        let mut all: Vec<Search> = (0..clients).map(|_| search(&[1, 2])).collect();
        let mut up = 1;
        for turn in 0..4 {
            let about = about(&[up], clients as usize);
            let counted = |n| {
                looks.set(looks.get() + 1);
                about(n)
            };
            for (s, client) in all.iter_mut().zip(1..) {
                if turn > 0 {
                    assert!(s.has_one_up(&asked, counted, at(turn)));
                    asked.remove(s.session, client);
                    s.put_back();
                }
                assert!(s.next(&asked, counted, rank, at(turn)));
                asked.add(s.session, client);
            }
            let counts = [1, 2].map(|n| asked.count(session(n)));
            assert_eq!(counts[up as usize - 1], clients as usize);
            assert_eq!(counts.iter().sum::<usize>(), clients as usize);
            up = 3 - up;
        }
        looks.get()
    };
    let one = steps(1);
    assert!(one > 0);
    assert_eq!(steps(1000), 1000 * one);
}
