use super::*;
use nix::sys::resource::{Resource, setrlimit};
use std::io::Read;
use std::os::unix::net::UnixStream;

/// Something for each of these to be read from: its end when the other is closed.
fn to_close(n: usize) -> (Vec<UnixStream>, Vec<OwnedFd>) {
    let pair = |_| {
        let (ours, theirs) = socket::pair().unwrap();
        let ours = UnixStream::from(ours);
        ours.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        (ours, theirs)
    };
    (0..n).map(pair).unzip()
}

fn is_closed(mut ours: &UnixStream) {
    assert_eq!(ours.read(&mut [0]).expect("it is closed within 20 s"), 0);
}

fn closer(channel: OwnedFd, count: Arc<Count>) -> Closing {
    let closer = Closer { channel, count, closed: 0, since: Instant::now() };
    Closing { closers: vec![closer], ..Closing::default() }
}

#[test]
fn what_is_closed_elsewhere_is_closed() {
    for _ in 0..100 {
        let (ours, theirs) = socket::pair().unwrap();
        close(Whose::User(1), theirs);
        assert!(waits());
        settle();
        assert_eq!(UnixStream::from(ours).read(&mut [0]).unwrap(), 0);
    }
    let (mut reads, writes) = std::io::pipe().unwrap();
    close(Whose::Anybody, writes.into());
    assert_eq!(reads.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_process_that_somebody_has_ended_holds_up_nobody() {
    let mut theirs = Vec::new();
    let closers = (0..OF_A_CHANNEL).map(|_| {
        let (channel, its) = socket::seqpacket().unwrap();
        theirs.push(its);
        let count = Arc::new(Count { got: 1.into(), closed: 0.into() });
        let since = Instant::now().checked_sub(2 * HELD_UP).unwrap();
        Closer { channel, count, closed: 0, since }
    });
    let mut of = Closing { closers: closers.collect(), ..Closing::default() };
    assert!(of.is_held_up(Whose::Channel(1)) && of.left() == OF_A_CHANNEL);
    drop(theirs);
    assert!(!of.is_held_up(Whose::Channel(1)) && of.left() == 0);
}

#[test]
fn one_that_cannot_be_received_is_closed_and_counted() {
    let (channel, theirs) = socket::seqpacket().unwrap();
    let (count, us) = (Arc::new(Count::default()), std::process::id());
    let its = count.clone();
    let close = move |channel: BorrowedFd| {
        assert_ne!(std::process::id(), us, "it is a process of its own");
        // The standard ones and the channel are there: one or two more may be.
        setrlimit(Resource::RLIMIT_NOFILE, 5, 5).unwrap();
        close_all(channel, &its);
    };
    side_process::run(NAME, theirs, close).unwrap();
    let mut closing = closer(channel, count);
    for _ in 0..2 {
        let (ours, theirs) = to_close(FDS_MAX);
        closing.give(Whose::User(1), theirs).unwrap();
        ours.iter().for_each(is_closed);
        let since = Instant::now();
        while closing.left() > 0 {
            assert!(since.elapsed() < Duration::from_secs(20), "{} left", closing.left());
            std::thread::sleep(PAUSE);
        }
    }
    assert_eq!(closing.closers.len(), 1);
}

#[test]
fn of_what_may_be_different_people_s_one_keeps_no_other_waiting() {
    assert!(most(Whose::Anybody) > 1, "it needs 512 descriptors (ulimit -n)");
    // This one has what it got, and closes nothing.
    let (channel, theirs) = socket::seqpacket().unwrap();
    let mut closing = closer(channel, Arc::default());
    let (ours, waiting) = to_close(FDS_MAX);
    closing.waiting.extend(waiting);
    closing.give_all(Whose::Anybody);
    ours[1..].iter().for_each(is_closed);
    let (_, fds) = message::receive(theirs.as_fd(), &mut [0; 1]).unwrap();
    assert_eq!(fds.count(), Some(1));
}
