//! Several starts at a time, and those that are held up.

use super::*;
use crate::sys::poll;
use std::ptr;

#[test]
fn one_spawner_starts_many() {
    let mut spawner = Spawner::new(STARTS).unwrap();
    let w = World::new("echo x");
    for _ in 0..20 {
        let child = spawner.start(&w.launch()).unwrap();
        reap(child.pid);
        assert_eq!(socket::receive(w.ours.as_fd(), &mut [0; 9]).unwrap(), 2);
    }
    // The slots let go of it: what is left is ours alone.
    let World { ours, theirs, .. } = w;
    drop(theirs);
    // Another test's child may hold it until it execs.
    let mut p = [poll::Poll::new(ours.as_fd(), true, false)];
    let soon = std::time::Duration::from_secs(10);
    assert_eq!(poll::wait(&mut p, Some(soon)).unwrap(), 1);
    assert_eq!(socket::receive(ours.as_fd(), &mut [0; 9]).unwrap(), 0);
}

/// A user's processes may stop a child of ours from its change of user on, before it has exec'd.
#[test]
fn no_user_can_hold_us_up() {
    if !root() {
        return eprintln!("skipped: needs root");
    }
    let who = Identity { uid: 54321, gid: 54321, groups: vec![] };
    let identity = Some(&who);
    let stopper = World::new("while :; do kill -STOP -1; done 2>/dev/null");
    let stopper_launch = Launch { identity, ..stopper.launch() };
    let stopper = start(stopper_launch).unwrap();
    let w = World { program: c"/bin/true".into(), ..World::new("") };
    let began = std::time::Instant::now();
    let mut spawner = Spawner::new(STARTS).unwrap();
    let mut stopped = 0;
    for _ in 0..100 {
        match spawner.start(&Launch { identity, ..w.launch() }) {
            Ok(child) => {
                child.signal(Signal::KILL).unwrap();
                reap(child.pid);
            }
            Err(f) => {
                assert_eq!(f.stage, Stage::Stopped);
                stopped += 1;
            }
        }
    }
    stopper.signal(Signal::KILL).unwrap();
    reap(stopper.pid);
    eprintln!("{stopped} of 100 were stopped");
    assert!(began.elapsed() < std::time::Duration::from_secs(20));
}

/// Its client takes so little that its child waits with the rest of the greeting for a moment, in
/// which it is stopped. Also returns the client's end.
fn stopped(spawner: &mut Spawner) -> (PendingStart<World>, OwnedFd) {
    loop {
        let w = World::new("");
        socket::set_buffers(w.theirs.as_fd(), 4096, 4096).unwrap();
        let ours = w.ours.try_clone().unwrap();
        let start =
            spawner.begin(Box::new(w), |w| Launch { greeting: &[b'x'; 1 << 20], ..w.launch() });
        poll::wait(&mut [poll::Poll::new(ours.as_fd(), true, false)], None).unwrap();
        // SAFETY: no memory is handed over; the child was not reaped.
        unsafe { libc::kill(start.pid().unwrap(), libc::SIGSTOP) };
        std::thread::sleep(std::time::Duration::from_millis(100));
        if !start.is_over() {
            return (start, ours);
        }
        eprintln!("too late");
    }
}

#[test]
fn one_that_is_held_up_holds_up_no_other() {
    let mut spawner = Spawner::new(STARTS).unwrap();
    let (first, ours) = stopped(&mut spawner);
    let second = stopped(&mut spawner);
    for _ in 0..2 * STARTS {
        let start = spawner.begin(Box::new(World::new("echo hi")), World::launch);
        let (w, child, _) = spawner.finish(start);
        reap(child.unwrap().pid);
        assert_eq!(socket::receive(w.ours.as_fd(), &mut [0; 9]).unwrap(), 3);
    }
    assert!(!first.is_over() && !first.is_late() && !second.0.is_over());
    let (w, why, _) = spawner.finish(first);
    let why = why.unwrap_err();
    assert_eq!((why.stage, why.greeted), (Stage::Stopped, true));
    // The second began while the first had its connection, and does not hold it.
    drop(w);
    let mut buffer = vec![0; 1 << 16];
    let soon = std::time::Duration::from_secs(10);
    loop {
        // Another test's child may hold it until it execs.
        assert_eq!(
            poll::wait(&mut [poll::Poll::new(ours.as_fd(), true, false)], Some(soon)).unwrap(),
            1
        );
        if socket::receive(ours.as_fd(), &mut buffer).unwrap() == 0 {
            return;
        }
    }
}

#[test]
fn so_many_at_a_time_and_each_with_its_own_end() {
    let mut spawner = Spawner::new(STARTS).unwrap();
    let scripts: Vec<_> = (0..STARTS).map(|n| format!("exit {n}")).collect();
    let starts: Vec<_> =
        scripts.iter().map(|s| spawner.begin(Box::new(World::new(s)), World::launch)).collect();
    let none = spawner.begin(Box::new(World::new("")), World::launch);
    assert!(none.is_over() && none.pid().is_none());
    let none = spawner.finish(none).1.unwrap_err();
    assert!(none.is_scarcity());
    for (n, start) in starts.into_iter().enumerate().rev() {
        let child = spawner.finish(start).1.unwrap();
        let mut status = 0;
        // SAFETY: one int is written.
        assert_eq!(unsafe { libc::waitpid(child.pid, &mut status, 0) }, child.pid);
        assert_eq!(libc::WEXITSTATUS(status), n as i32);
    }
    // All slots are free again.
    assert_eq!(spawner.free.len(), STARTS + 2);
}

#[test]
fn each_has_its_own_extra() {
    let mut spawner = Spawner::new(STARTS).unwrap();
    let begin = |spawner: &mut Spawner, text: &[u8]| {
        let payload = Box::new((World::new("cat <&3"), memfd::sealed(text).unwrap()));
        spawner.begin(payload, |(w, m)| Launch { extra: Some(m.as_fd()), ..w.launch() })
    };
    let (first, second) = (begin(&mut spawner, b"1st"), begin(&mut spawner, b"2nd"));
    for (start, text) in [(second, b"2nd"), (first, b"1st")] {
        let (payload, child, _) = spawner.finish(start);
        reap(child.unwrap().pid);
        let mut got = [0; 9];
        let n = socket::receive(payload.0.ours.as_fd(), &mut got).unwrap();
        assert_eq!(&got[..n], text);
    }
}

/// How many descriptors of this process lead to a socket.
fn copies(inode: u64) -> usize {
    let to = format!("socket:[{inode}]");
    let leads_there = |path| std::fs::read_link(path).is_ok_and(|link| link == Path::new(&to));
    let all = std::fs::read_dir("/proc/self/fd").unwrap();
    all.filter(|entry| leads_there(entry.as_ref().unwrap().path())).count()
}

fn inode(fd: BorrowedFd) -> u64 {
    nix::sys::stat::fstat(fd).unwrap().st_ino
}

/// A start whose connection is passed: our end of it, and its inode.
fn passing(spawner: &mut Spawner, w: World) -> (PendingStart<World>, OwnedFd, u64) {
    let (ours, theirs) = socket::pair().unwrap();
    let inode = inode(theirs.as_fd());
    let passed = Passed { connection: theirs.into(), errors: None };
    let start = spawner.begin_passing(Box::new(w), passed, |w, passed| Launch {
        connection: Some(passed.connection.as_fd()),
        ..w.launch()
    });
    (start, ours, inode)
}

/// Whoever closes a socket that a program has had may have to wait for that program.
#[test]
fn when_a_program_runs_we_have_nothing_that_was_passed_to_it() {
    let mut spawner = Spawner::new(STARTS).unwrap();
    for n in 0..20 {
        (0..16).for_each(|_| spawner.demand.count(true));
        if n % 2 == 0 {
            spawner.make_ahead(std::time::Duration::from_secs(100));
        }
        let (start, ours, inode) = passing(&mut spawner, World::new("echo x; read x"));
        let mut text = [0; 9];
        poll::wait(&mut [poll::Poll::new(ours.as_fd(), true, false)], None).unwrap();
        assert_eq!(socket::receive(ours.as_fd(), &mut text).unwrap(), 2);
        assert_eq!(copies(inode), 0);
        let (_, child, mut rest) = spawner.finish(start);
        assert!(rest.take().is_none());
        socket::send(ours.as_fd(), b"x\n").unwrap();
        reap(child.unwrap().pid);
    }
}

#[test]
fn what_was_passed_comes_back_where_no_program_runs() {
    let mut spawner = Spawner::new(1).unwrap();
    let missing = World { program: c"/no/such/program".into(), ..World::new("") };
    let (start, ours, inode) = passing(&mut spawner, missing);
    let (full, other_end, other) = passing(&mut spawner, World::new(""));
    for (start, ours, inode) in [(start, ours, inode), (full, other_end, other)] {
        let (_, result, mut rest) = spawner.finish(start);
        assert!(result.is_err());
        let back = rest.take().unwrap();
        assert_eq!((copies(inode), rest.take().is_none()), (1, true));
        socket::send(back.as_fd(), b"x").unwrap();
        assert_eq!(socket::receive(ours.as_fd(), &mut [0; 9]).unwrap(), 1);
    }
}

#[test]
fn what_was_passed_comes_back_where_no_child_can_be_made() {
    let begin = || {
        let mut spawner = Spawner::new(1).unwrap();
        confine::refuse(libc::SYS_clone, libc::EAGAIN);
        for _ in 0..3 {
            let (start, ours, inode) = passing(&mut spawner, World::new(""));
            let (_, result, mut rest) = spawner.finish(start);
            assert!(result.unwrap_err().is_scarcity());
            let back = rest.take().unwrap();
            assert_eq!((copies(inode), rest.take().is_none()), (1, true));
            socket::send(back.as_fd(), b"x").unwrap();
            assert_eq!(socket::receive(ours.as_fd(), &mut [0; 9]).unwrap(), 1);
        }
    };
    std::thread::spawn(begin).join().unwrap();
}

#[test]
fn a_child_has_nothing_of_other_starts() {
    let mut spawner = Spawner::new(STARTS).unwrap();
    let (first, second) = (stopped(&mut spawner), stopped(&mut spawner));
    let all = std::fs::read_dir(format!("/proc/{}/fd", second.0.pid().unwrap())).unwrap();
    let links = all.map(|entry| std::fs::read_link(entry.unwrap().path()).unwrap());
    let sockets: std::collections::BTreeSet<_> =
        links.filter(|link| link.to_string_lossy().starts_with("socket:")).collect();
    // Its connection, and perhaps its own queue.
    assert!((1..=2).contains(&sockets.len()), "{sockets:?}");
    for (start, _client) in [first, second] {
        assert!(spawner.finish(start).1.is_err());
    }
}

/// One that is stopped on its way. `apart`: it has left our descriptor table, and has no place.
fn stopped_early(spawner: &mut Spawner, apart: bool) -> (PendingStart<World>, OwnedFd) {
    const MANY: &[(Rlimit, u64)] = &[(Rlimit::Cpu, libc::RLIM64_INFINITY); 200_000];
    loop {
        let (ours, theirs) = socket::pair().unwrap();
        let passed = Passed { connection: theirs.into(), errors: None };
        let mut start = spawner.begin_passing(Box::new(World::new("")), passed, |w, passed| {
            Launch { connection: Some(passed.connection.as_fd()), rlimits: MANY, ..w.launch() }
        });
        std::thread::sleep(std::time::Duration::from_millis(2));
        // SAFETY: no memory is handed over; the child was not reaped.
        unsafe { libc::kill(start.pid().unwrap(), libc::SIGSTOP) };
        std::thread::sleep(std::time::Duration::from_millis(100));
        if apart {
            spawner.free_place(&mut start);
        }
        if !start.is_over() && start.has_place() != apart {
            return (start, ours);
        }
        eprintln!("too late, or too early");
        // Its place is free again; of one that is dropped it would be lost.
        drop(spawner.finish(start));
    }
}

#[test]
fn what_was_passed_to_one_that_is_killed_comes_back() {
    let mut spawner = Spawner::new(2).unwrap();
    let [first, second] = [true; 2].map(|apart| stopped_early(&mut spawner, apart));
    // Others have their places.
    let third = stopped_early(&mut spawner, false);
    let next = spawner.begin(Box::new(World::new("echo hi")), World::launch);
    let (w, child, _) = spawner.finish(next);
    reap(child.unwrap().pid);
    assert_eq!(socket::receive(w.ours.as_fd(), &mut [0; 9]).unwrap(), 3);
    for (start, ours) in [second, third, first] {
        let (_, result, mut rest) = spawner.finish(start);
        assert_eq!(result.unwrap_err().stage, Stage::Stopped);
        socket::send(rest.take().unwrap().as_fd(), b"x").unwrap();
        assert_eq!(socket::receive(ours.as_fd(), &mut [0; 9]).unwrap(), 1);
    }
}

#[test]
fn one_that_is_dropped_is_waited_for_and_reaped() {
    let mut spawner = Spawner::new(STARTS).unwrap();
    let missing = World { program: c"/no/such/program".into(), ..World::new("") };
    let start = spawner.begin(Box::new(missing), World::launch);
    let pid = start.pid().unwrap();
    drop(start);
    // It has been, unless its end took longer than a moment: then it is left to whoever reaps.
    reap(pid);
    // SAFETY: no memory is handed over.
    assert_eq!(unsafe { libc::waitpid(pid, ptr::null_mut(), libc::WNOHANG) }, -1);
    let (stopped, _client) = stopped(&mut spawner);
    let pid = stopped.pid().unwrap();
    drop(stopped);
    // Killed, it is not waited for; but it has left our memory, and ends.
    reap(pid);
    // SAFETY: no memory is handed over.
    assert_eq!(unsafe { libc::waitpid(pid, ptr::null_mut(), libc::WNOHANG) }, -1);
}

#[test]
fn a_socket_is_connected_as_the_user() {
    if identity::effective_uid() != 0 {
        return eprintln!("skipped: needs root");
    }
    use crate::sys::local::{self, Address};
    let directory = std::env::temp_dir().join(format!("fived-connect-{}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    std::fs::set_permissions(&directory, Permissions::from_mode(0o711)).unwrap();
    let path = directory.join("socket");
    let listener = local::listen_stream(&path).unwrap();
    let to = Address::of(&path).unwrap();
    let user = Identity { uid: 61_234, gid: 61_235, groups: Vec::new() };
    let mut spawner = Spawner::new(STARTS).unwrap();
    let mut connect = |mode: u32| {
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let w = World { theirs: local::unconnected().unwrap(), ..World::new("") };
        let payload = Box::new((w, user.clone(), to));
        let start = spawner.begin(payload, |(w, user, to)| Launch {
            identity: Some(user),
            instead: Some(Instead::Connect(to)),
            ..w.launch()
        });
        let (payload, result, _) = spawner.finish(start);
        result.map(|_| payload.0.theirs)
    };
    let fd = connect(0o666).unwrap();
    let accepted = local::accept(listener.as_fd()).unwrap();
    assert_eq!(local::peer_uid(accepted.as_fd()).unwrap(), 61_234);
    socket::send(accepted.as_fd(), b"x").unwrap();
    assert_eq!(socket::receive(fd.as_fd(), &mut [0; 9]).unwrap(), 1);
    // Its own rights decide, and it is no child any more.
    let no = connect(0o600).unwrap_err();
    assert_eq!((no.stage, no.errno), (Stage::Connect, libc::EACCES));
    drop(listener);
    assert_eq!(connect(0o666).unwrap_err().errno, libc::ECONNREFUSED);
    std::fs::remove_dir_all(&directory).unwrap();
}
