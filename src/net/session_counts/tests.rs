//! The counts, without a connection.

use super::*;
use crate::sys::shared::Shared;
use crate::sys::socket;
use std::os::fd::AsFd;

#[test]
fn a_source_has_its_own_bound_and_all_have_one() {
    let settings = Settings { max_sessions: 3, max_sessions_per_source: 2, ..Settings::default() };
    let (all, a) = (SessionCounts::default(), |n: u8| Peer::User(n.into()));
    let places = [all.admit(a(1), &settings, true), all.admit(a(1), &settings, true)];
    assert_eq!(all.admit(a(1), &settings, true).expect_err("full"), Full::Source);
    let other = all.admit(a(2), &settings, true);
    assert_eq!(all.admit(a(3), &settings, true).expect_err("full"), Full::All);
    let branch = all.branch(&Arc::default(), places[0].as_ref().expect("a place"));
    assert!(branch.is_some());
    drop((places, other));
    assert!(!all.is_empty());
    drop(branch);
    assert!(all.is_empty() && all.lock().sources.is_empty());
    assert!(all.admit(a(1), &settings, true).is_ok());
}

#[test]
fn a_lost_session_keeps_its_place_and_a_way_back() {
    let settings = Settings { max_sessions: 2, max_sessions_per_source: 1, ..Settings::default() };
    let (all, a) = (SessionCounts::default(), |n: u8| Peer::from([192, 0, 2, n]));
    let mut lost = all.admit(a(1), &settings, true).expect("a place");
    let stands = all.admit(a(2), &settings, true).expect("a place");
    assert_eq!(lost.spare(), None);
    lost.is_lost(true);
    // Its client comes back from there, or from elsewhere: one of them.
    assert_eq!(all.admit(a(2), &settings, true).expect_err("full"), Full::Source);
    let back = all.admit(a(1), &settings, true).expect("a way back");
    assert_eq!(back.spare(), Some(Full::Source));
    assert_eq!(all.admit(a(1), &settings, true).expect_err("full"), Full::Source);
    assert_eq!(all.admit(a(3), &settings, true).expect_err("full"), Full::All);
    drop(back);
    let back = all.admit(a(3), &settings, true).expect("a way back");
    assert_eq!(back.spare(), Some(Full::All));
    lost.is_lost(false);
    lost.moves(a(3));
    drop(back);
    // It may be lost without anybody here knowing that.
    assert_eq!(all.admit(a(2), &settings, true).expect_err("full"), Full::Source);
    let back = all.admit(a(3), &settings, true).expect("a way back");
    assert_eq!(back.spare(), Some(Full::Source));
    assert_eq!(all.admit(a(3), &settings, true).expect_err("full"), Full::Source);
    drop((back, stands));
    assert!(all.admit(a(1), &settings, true).is_ok_and(|p| p.spare().is_none()));
    drop(lost);
    assert!(all.is_empty() && all.lock().sources.is_empty());
}

#[test]
fn an_idle_session_makes_room_for_a_source_with_fewer() {
    let settings = Settings { max_sessions: 3, ..Settings::default() };
    let (all, a) = (SessionCounts::default(), |n: u8| Peer::from([192, 0, 2, n]));
    let admit = |n| all.admit(a(n), &settings, false);
    let [(ours, theirs), other] = [(); 2].map(|()| socket::pair().expect("a pair"));
    let [socket, other] = [ours, other.0].map(|fd| Arc::new(Shared::from(fd)));
    let mut first = admit(1).expect("a place");
    let (mut second, mut busy) = (admit(1).expect("a place"), admit(1).expect("a place"));
    assert_eq!(admit(2).expect_err("none is idle"), Full::All);
    // The newer one is idle first.
    second.may_go(Noticed::Connection(&other));
    first.may_go(Noticed::Connection(&socket));
    assert_eq!(admit(1).expect_err("its own are not ended"), Full::All);
    let third = admit(2).expect("the oldest makes room");
    assert_eq!(socket::receive(theirs.as_fd(), &mut [0; 1]).expect("an end"), 0);
    assert!(first.is_evicted() && !first.stays() && second.stays() && busy.stays());
    // Whatever becomes of it, it counts no more.
    first.may_go(Noticed::Connection(&socket));
    first.is_lost(true);
    first.moves(a(9));
    assert_eq!(admit(3).expect_err("nobody is idle"), Full::All);
    drop((second, busy, third));
    assert!(!all.is_empty());
    drop(first);
    assert!(all.is_empty() && all.lock().sources.is_empty());
}

#[test]
fn a_session_whose_stream_asks_for_a_service_stays() {
    let settings = Settings { max_sessions: 1, ..Settings::default() };
    let (all, a) = (SessionCounts::default(), |n: u8| Peer::from([192, 0, 2, n]));
    let (ours, _theirs) = socket::pair().expect("a pair");
    let socket = Arc::new(Shared::from(ours));
    let mut session = all.admit(a(1), &settings, false).expect("a place");
    session.may_go(Noticed::Connection(&socket));
    let mut stream = all.branch(&Arc::default(), &session).expect("a place");
    assert!(stream.stays());
    assert_eq!(all.admit(a(2), &settings, false).expect_err("none is idle"), Full::All);
    assert!(!session.is_evicted());
    // Its service was refused, say.
    drop(stream);
    session.may_go(Noticed::Connection(&socket));
    let mut late = all.branch(&Arc::default(), &session).expect("a place");
    let other = all.admit(a(2), &settings, false).expect("it makes room");
    assert!(session.is_evicted() && !late.stays());
    drop((session, late, other));
    assert!(all.is_empty());
}

#[test]
fn of_dialogues_no_source_has_as_many_as_are_left_for_all_others() {
    let (all, a) = (SessionCounts::default(), |n: u8| Peer::from([192, 0, 2, n]));
    let place = |n| all.admit(a(n), &Settings::default(), true).expect("a place");
    let sessions = [1, 1, 2, 3].map(place);
    let branches = |of| std::iter::from_fn(|| all.branch(&Arc::default(), of)).collect::<Vec<_>>();
    let first = branches(&sessions[0]);
    assert_eq!(first.len(), DIALOGUES_MAX as usize / 2);
    // Another session of the same source.
    assert!(all.branch(&Arc::default(), &sessions[1]).is_none());
    let second = branches(&sessions[2]);
    assert_eq!(second.len(), DIALOGUES_MAX as usize / 4);
    drop(first);
    assert!(!branches(&sessions[1]).is_empty() && !branches(&sessions[3]).is_empty());
    drop((sessions, second));
    assert!(all.is_empty() && all.lock().sources.is_empty());
}
