//! five while the server's configuration is read again and again: every call is served, once.

#[path = "support/proxy.rs"]
mod proxy;
mod support;

use nix::sys::signal::Signal;
use proxy::Proxy;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;
use support::{Daemon, Five, TIMEOUT, trial, trial_size};

const CONF: &str = "
max_streams_anonymous = 100
cps = UNLIMITED
cat    stream tcp nowait @USER@ /bin/cat  cat
tiny   stream tcp nowait @USER@ /bin/echo echo tiny
";
const H: &str = "127.0.0.1";
/// What a call says whose session another one makes, where the machine is so busy that this takes
/// two seconds.
const WAITS: &str = "another five is making the session: waiting for it";

/// Has the configuration read again at this pace for as long as `work` lasts.
fn reloading<T>(d: &Daemon, pace: Duration, work: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                d.signal(Signal::SIGHUP);
                thread::sleep(pace);
            }
        });
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        over.store(true, Ordering::SeqCst);
        done.unwrap_or_else(|why| std::panic::resume_unwind(why))
    })
}

/// An application at a forward: what it says it must get back. Err: what it got.
fn application(port: &str, says: &str) -> Result<(), String> {
    let mut app = TcpStream::connect(port).map_err(|e| e.to_string())?;
    app.set_read_timeout(Some(TIMEOUT)).expect("timeout");
    app.write_all(says.as_bytes())
        .and_then(|()| app.shutdown(Shutdown::Write))
        .map_err(|e| e.to_string())?;
    let mut all = String::new();
    match app.read_to_string(&mut all) {
        Ok(_) if all == says => Ok(()),
        got => Err(format!("{got:?} {all:?}")),
    }
}

/// A five that forwards; what it says is read all the while.
struct Forwards {
    child: Child,
    messages: thread::JoinHandle<String>,
}

impl Forwards {
    fn start(f: &Five, words: &[&str]) -> (Forwards, Vec<String>) {
        let (mut child, at) = f.forwards(words);
        let mut err = child.stderr.take().expect("piped");
        let messages = thread::spawn(move || {
            let mut messages = String::new();
            let _ = err.read_to_string(&mut messages);
            messages
        });
        (Forwards { child, messages }, at)
    }

    fn end(mut self) -> String {
        let _ = self.child.kill();
        self.child.wait().expect("wait");
        self.messages.join().expect("standard error")
    }
}

/// `n` calls by `workers` at a time; what went wrong.
fn calls(
    n: usize,
    workers: usize,
    call: impl Fn(usize) -> Result<(), String> + Sync,
) -> Vec<String> {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        let work = || {
            let mut wrong = Vec::new();
            loop {
                let i = next.fetch_add(1, Ordering::SeqCst);
                if i >= n {
                    return wrong;
                }
                wrong.extend(call(i).err().map(|e| format!("call {i}: {e}")));
            }
        };
        let all: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        all.into_iter().flat_map(|w| w.join().expect("a worker")).collect()
    })
}

/// The holder ends every few calls, while others have been handed to it.
#[test]
fn forwarded_connections_outlive_their_holders() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    let (five, at) =
        Forwards::start(&f, &["-L", &format!("{H}:0:cat"), "-L", &format!("{H}:0:tiny")]);
    let wrong = reloading(&d, Duration::from_millis(120), || {
        calls(2000, 6, |i| match i % 2 {
            0 => application(&at[0], &format!("call {i}")),
            _ => application(&at[1], "tiny\n"),
        })
    });
    let err = five.end();
    assert!(wrong.is_empty(), "{wrong:#?}\n{err}");
}

/// With a round trip of 60 ms there are requests on their way at every reload. Making a session takes
/// three.
#[test]
fn calls_that_cross_a_reload_are_served_once() {
    let d = Daemon::with(CONF).start();
    let proxy = Proxy::new(d.address(), Duration::from_millis(30));
    let f = Five::at(&d.place, proxy.address);
    let (five, at) = Forwards::start(&f, &["-L", &format!("{H}:0:cat")]);
    let n = trial_size("calls", 1000, 10_000);
    let wrong = reloading(&d, Duration::from_millis(300), || {
        calls(n, 16, |i| {
            let says = format!("call {i}");
            if i % 3 != 0 {
                return application(&at[0], &says);
            }
            match f.run_with(&[H, "cat"], says.as_bytes()) {
                (0, out, err) if out == says && err.lines().all(|l| l.ends_with(WAITS)) => Ok(()),
                got => Err(format!("{got:?}")),
            }
        })
    });
    let err = five.end();
    assert!(wrong.is_empty(), "{wrong:#?}\n{err}");
    d.wait_logs("START service=cat ", n);
    let log = d.log();
    let reloads = log.lines().filter(|l| l.contains("RELOAD ")).count();
    assert!(reloads > 3);
    let started = log.lines().filter(|l| l.contains("START service=cat ")).count();
    assert_eq!(started, n, "no call is made twice");
    trial("calls", format!("{n} calls of five through {reloads} reloads, each served once"));
}
