//! A child that is made before there is an order for it.

use super::*;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use std::time::Duration;

const NOW: Duration = Duration::from_secs(100);

/// One that has started so many services that it makes spares.
fn busy_spawner(starts: usize) -> Spawner {
    let mut spawner = Spawner::new(starts).unwrap();
    spawner.make_ahead(NOW);
    assert_eq!(spare(&spawner), None, "nothing was started yet");
    (0..16).for_each(|_| spawner.demand.count(true));
    spawner.make_ahead(NOW);
    spawner
}

/// Ours: no change of ids.
fn who(spawner: &Spawner) -> Identity {
    let groups = spawner.inherited.groups.clone();
    Identity { uid: identity::effective_uid(), gid: identity::effective_gid(), groups }
}

fn spare(spawner: &Spawner) -> Option<i32> {
    spawner.spare.as_ref().map(|spare| spare.pid)
}

fn comm(pid: i32) -> Option<String> {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()
}

/// It has done what it does, and sleeps.
fn wait_until_it_sleeps(pid: i32) {
    let stat = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let state = || stat().rsplit(") ").next().unwrap().chars().next();
    while comm(pid).as_deref() != Some("fived-spare\n") || state() != Some('S') {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_spare_becomes_the_next_service() {
    let mut spawner = busy_spawner(STARTS);
    let made = spare(&spawner).unwrap();
    wait_until_it_sleeps(made);
    spawner.make_ahead(NOW);
    assert_eq!(spare(&spawner), Some(made), "one is enough");
    let who = who(&spawner);
    let w = World::new(
        "echo $$ $(cut -d' ' -f6 /proc/$$/stat); grep -E '^(Name|SigPnd|ShdPnd)' /proc/$$/status",
    );
    // What somebody sends to it does not reach the program.
    raise_at(made, Signal::HUP);
    raise_at(made, Signal::USR1);
    let launch = Launch { identity: Some(&who), ..w.launch() };
    let child = spawner.start(&launch).unwrap();
    assert_eq!((child.pid, spare(&spawner)), (made, None));
    reap(child.pid);
    let mut text = vec![0; 4096];
    let n = socket::receive(w.ours.as_fd(), &mut text).unwrap();
    let none = "0".repeat(16);
    let all = format!("{made} {made}\nName:\tsh\nSigPnd:\t{none}\nShdPnd:\t{none}\n");
    assert_eq!(String::from_utf8_lossy(&text[..n]), all);
}

/// On one processor it has not run yet when its order comes.
#[test]
fn an_order_that_comes_before_it_runs_makes_no_difference() {
    let here = Pid::from_raw(0);
    let all = sched_getaffinity(here).unwrap();
    let first = (0..CpuSet::count()).find(|n| all.is_set(*n).unwrap()).unwrap();
    let mut one = CpuSet::new();
    one.set(first).unwrap();
    // Of this thread, which the harness has made for this test, and of its children.
    sched_setaffinity(here, &one).unwrap();
    let mut spawner = busy_spawner(STARTS);
    let who = who(&spawner);
    for _ in 0..100 {
        let w = World::new("echo $$ $(cut -d' ' -f6 /proc/$$/stat)");
        spawner.end_spare();
        spawner.make_ahead(NOW);
        let made = spare(&spawner).unwrap();
        let child = spawner.start(&Launch { identity: Some(&who), ..w.launch() }).unwrap();
        assert_eq!(child.pid, made);
        reap(child.pid);
        let mut text = vec![0; 4096];
        let n = socket::receive(w.ours.as_fd(), &mut text).unwrap();
        assert_eq!(String::from_utf8_lossy(&text[..n]), format!("{made} {made}\n"));
    }
}

#[test]
fn what_is_no_service_leaves_it_alone() {
    let mut spawner = busy_spawner(STARTS);
    let made = spare(&spawner).unwrap();
    let (who, w) = (who(&spawner), World::new(":"));
    for launch in [w.launch(), Launch { identity: Some(&who), new_session: false, ..w.launch() }] {
        let child = spawner.start(&launch).unwrap();
        assert_ne!(child.pid, made);
        reap(child.pid);
    }
    assert_eq!(spare(&spawner), Some(made));
    // It ends with the spawner.
    drop(spawner);
    reap(made);
    assert_ne!(comm(made).as_deref(), Some("fived-spare\n"));
}

#[test]
fn one_that_somebody_ended_is_not_used() {
    let mut spawner = busy_spawner(STARTS);
    let made = spare(&spawner).unwrap();
    raise_at(made, Signal::KILL);
    reap(made);
    let (who, w) = (who(&spawner), World::new("echo x"));
    let launch = Launch { identity: Some(&who), ..w.launch() };
    let child = spawner.start(&launch).unwrap();
    assert_ne!(child.pid, made);
    reap(child.pid);
    // Whoever ends each of them does not make us busy.
    spawner.make_ahead(NOW);
    spawner.make_ahead(NOW + Duration::from_millis(999));
    assert_eq!(spare(&spawner), None);
    (0..16).for_each(|_| spawner.demand.count(true));
    spawner.make_ahead(NOW + Duration::from_secs(1));
    assert!(spare(&spawner).is_some());
}

/// A spare takes no place from the starts that may be under way, nor from the one that cannot wait.
#[test]
fn a_spare_takes_nobodys_place() {
    let mut spawner = busy_spawner(1);
    let (who, w) = (who(&spawner), World::new("echo x"));
    let launch = Launch { identity: Some(&who), ..w.launch() };
    for _ in 0..3 {
        spawner.make_ahead(NOW);
        let payload = Box::new((World::new(":"), who.clone()));
        let first = spawner.begin(payload, |(w, who)| Launch { identity: Some(who), ..w.launch() });
        spawner.make_ahead(NOW);
        let second = spawner.start(&launch).unwrap();
        let (_, first, _) = spawner.finish(first);
        reap(first.unwrap().pid);
        reap(second.pid);
    }
}

/// Its client has no answer yet, and gets one.
#[test]
fn one_that_is_ended_before_its_exec_has_failed() {
    let mut spawner = busy_spawner(STARTS);
    let made = spare(&spawner).unwrap();
    wait_until_it_sleeps(made);
    // SAFETY: no memory is handed over.
    check(unsafe { libc::kill(made, libc::SIGSTOP) }).unwrap();
    let payload = Box::new((World::new(":"), who(&spawner)));
    let start = spawner.begin(payload, |(w, who)| Launch {
        identity: Some(who),
        greeting: b"+Go ",
        ..w.launch()
    });
    assert_eq!(start.pid(), Some(made));
    raise_at(made, Signal::KILL);
    let why = spawner.finish(start).1.unwrap_err();
    assert_eq!((why.stage, why.greeted), (Stage::Stopped, false));
}

#[test]
fn where_services_are_started_seldom_there_is_none() {
    let second = Duration::from_secs(1);
    let mut spawner = busy_spawner(STARTS);
    let made = spare(&spawner).unwrap();
    spawner.tidy(NOW + second);
    assert_eq!(spare(&spawner), Some(made), "there were many in the second before");
    (0..15).for_each(|_| spawner.demand.count(true));
    spawner.tidy(NOW + 2 * second);
    assert_eq!(spare(&spawner), None);
    reap(made);
    assert_ne!(comm(made).as_deref(), Some("fived-spare\n"));
    // What was long ago does not count.
    (0..16).for_each(|_| spawner.demand.count(true));
    spawner.make_ahead(NOW + 5 * second);
    assert_eq!(spare(&spawner), None);
}

fn raise_at(pid: i32, signal: Signal) {
    // SAFETY: no memory is handed over.
    check(unsafe { libc::kill(pid, signal.number()) }).unwrap();
}
