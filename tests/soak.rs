//! Everything at once for a while: clients in every way that there is, junk among them, connections
//! that are cut, and reloads. Each client is served, and afterwards nothing is left of any.

#[path = "support/cutter.rs"]
mod cutter;
#[path = "support/hung.rs"]
mod hung;
mod support;
#[path = "support/tls.rs"]
mod tls;
#[path = "support/upstream.rs"]
mod upstream;

use cutter::Cutter;
use hung::answers_after;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use support::*;
use tls::Tls;

const H: &str = "127.0.0.1";
/// Seconds for which a session without a connection is kept. One that had none when its five ended
/// keeps its net process, too.
const KEPT: u64 = 30;

/// Every kind of row, each of which sends back what it is sent; the ports are those of `cat`, of
/// `tcat`, of `there` and of `from`. `slow`: whose and what a service is whose starts take their time.
fn conf(upstream: SocketAddr, ports: &[u16; 4], slow: &str, others: usize) -> String {
    let [cat, tcat, there, from] = ports;
    let others: String =
        (0..others).map(|n| format!("x{n} stream tcp nowait @USER@ /bin/true true\n")).collect();
    format!(
        "authorized_keys = @KEYS@/%u
resume_timeout = {KEPT}
listen = 127.0.0.1:0
cat stream tcp nowait @USER@ /bin/cat cat\n port = 127.0.0.1:{cat}
tcat stream tcp nowait @USER@ /bin/cat cat\n tls_port = 127.0.0.1:{tcat}
echo stream tcp nowait @USER@ internal
there stream tcp nowait @USER@ redirect {upstream}\n port = 127.0.0.1:{there}
from stream tcp nowait - offer\n offered_by = demo\n port = 127.0.0.1:{from}
here stream unix nowait @USER@ /bin/cat cat\n port = @DIR@/here
own stream tcp nowait @USER@ /bin/cat cat\n require = tls login
status stream tcp nowait @USER@ /bin/sh sh -c 'cat; exit 7'
slow stream tcp nowait {slow}
{others}[main]
cat stream tcp nowait @USER@ /bin/cat cat
"
    )
}

/// A text that no other client has, short or long.
fn text(n: usize) -> String {
    format!("{n} ").repeat([1, 20, 3000, 20_000][n % 4])
}

/// One client's whole life: all that it sends comes back, and then the end.
fn plain(to: SocketAddr, request: &str, reply: &str, text: &str) {
    let mut c = Client::connect(to);
    let sends = c.0.try_clone().expect("dup");
    thread::scope(|s| {
        s.spawn(move || {
            Client(sends).send(format!("{request}{text}")).half_close();
        });
        same(c.read_all(), format!("{reply}{text}"));
    });
}

/// More of them at once than may be on their way to exec: the others have their turn.
fn slow(to: SocketAddr, text: &str) {
    let mut all: Vec<Client> = (0..20).map(|_| Client::connect(to)).collect();
    for c in &mut all {
        c.send(format!("slow\r\n{text}")).half_close();
    }
    all.iter_mut().for_each(|c| same(c.read_all(), format!("{GO}{text}")));
}

fn encrypted(tcp: TcpStream, request: &str, reply: &str, text: &str) {
    let mut t = Tls::start(tcp, "x.example");
    t.send(request.as_bytes());
    t.expect(reply.as_bytes());
    // No more at a time than fits in between, for this end sends before it reads.
    for part in text.as_bytes().chunks(16_000) {
        t.send(part);
        t.expect(part);
    }
    t.half_close();
    same(t.read_all(), "");
}

fn local(path: &str, text: &str) {
    use std::io::{Read, Write};
    let mut c = UnixStream::connect(path).expect("connect");
    let mut sends = c.try_clone().expect("dup");
    thread::scope(|s| {
        s.spawn(move || {
            sends.write_all(text.as_bytes()).expect("send");
            sends.shutdown(std::net::Shutdown::Write).expect("half-close");
        });
        let mut all = String::new();
        c.read_to_string(&mut all).expect("read");
        same(all, text);
    });
}

fn call(f: &Five, words: &[&str], text: &str, status: i32) {
    let (code, out, err) = f.run_with(&[&["-q"], words].concat(), text.as_bytes());
    assert_eq!((code, out.len(), err.as_str()), (status, text.len(), ""), "{words:?}");
    same(out, text);
}

/// Nothing of it is a request, and its connection ends in one way or another.
fn junk(to: SocketAddr, n: usize) {
    let mut c = Client::connect(to);
    let junk =
        [&b"\0\xff"[..], b"SSL\r\n\x16\x03\x01", b"MULTIPLEX\r\n\x01", b"HOST\r\n", b"ca", b""];
    c.try_send(junk[n % junk.len()]);
    if n.is_multiple_of(2) {
        let _ = c.0.shutdown(std::net::Shutdown::Write);
        c.read_any();
    }
}

/// Somebody whose key may log in as demo.
fn person(d: &Daemon, at: SocketAddr) -> Five {
    let f = Five::at(&d.place, at);
    let key = format!("{}/.ssh/id_ed25519", f.home);
    if !std::path::Path::new(&key).exists() {
        std::fs::create_dir_all(format!("{}/.ssh", f.home)).expect(".ssh");
        let mut c = Command::new("ssh-keygen");
        c.args(["-q", "-t", "ed25519", "-N", "", "-f", &key]);
        assert!(c.status().expect("ssh-keygen").success());
        d.place.write_keys("demo", &std::fs::read_to_string(format!("{key}.pub")).expect("a key"));
    }
    f
}

/// What is ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

#[test]
fn all_that_comes_at_once_is_served_and_leaves_nothing() {
    let seconds = trial_size("soak", 6, 600) as u64;
    let upstream = upstream::echo();
    let ports = [(); 4].map(|()| free_port());
    let hung = hung::Hung::new();
    hung.iter().for_each(|h| drop(answers_after(&h.device, Some(Duration::from_millis(60)))));
    let slow_row = match &hung {
        Some(hung) => format!("daemon /bin/cat cat\n directory = {}", hung.at),
        None => "@USER@ /bin/cat cat".into(),
    };
    let table = |others| conf(upstream, &ports, &slow_row, others);
    let mut d = Daemon::with(&table(0)).start();
    let [cat, tcat, there, from] = ports.map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let here = d.place.at("here");
    let cutter = Cutter::new(d.address());
    cutter.cut_every(40_000);
    let (f, cut) = (person(&d, d.address()), person(&d, cutter.address));
    let offer = format!("from:{upstream}");
    let offers = Running(f.start(&["-N", "-R", &offer, "-l", "demo", H]));
    d.wait_log("OFFER service=from");
    let before = proc::descriptors(d.parent_pid()).len();

    let address = d.address();
    let ways: [&(dyn Fn(usize) + Sync); 15] = [
        &|n| plain(address, "cat\r\n", GO, &text(n)),
        &|n| plain(address, "echo\r\n", GO, &text(n)),
        &|n| plain(address, "there\r\n", GO, &text(n)),
        &|n| plain(address, "from\r\n", GO, &text(n)),
        &|n| plain(cat, "", "", &text(n)),
        &|n| plain(there, "", "", &text(n)),
        &|n| plain(from, "", "", &text(n)),
        &|n| encrypted(TcpStream::connect(tcat).expect("connect"), "", "", &text(n)),
        &|n| encrypted(Client::connect(address).0, "cat\r\n", GO, &text(n)),
        &|n| local(&here, &text(n)),
        &|n| call(&f, &[H, "status"], &text(n), 7),
        &|n| call(&f, &["-H", "main", H, "cat"], &text(n), 0),
        &|n| call(&cut, &["-l", "demo", H, "own"], &text(n), 0),
        &|n| slow(address, &n.to_string()),
        &|n| junk(address, n),
    ];
    let (end, served) = (Instant::now() + Duration::from_secs(seconds), AtomicUsize::new(0));
    let mut reloads = 0;
    thread::scope(|s| {
        for way in ways {
            let served = &served;
            s.spawn(move || {
                while Instant::now() < end {
                    way(served.fetch_add(1, Ordering::Relaxed));
                }
            });
        }
        while Instant::now() < end {
            thread::sleep(Duration::from_millis(300));
            reloads += 1;
            d.reload(&table(reloads % 5));
        }
    });

    drop(offers);
    for (of, whose) in [(&f, H), (&f, "demo@127.0.0.1"), (&cut, "demo@127.0.0.1")] {
        of.run(&["-O", "exit", whose]);
    }
    let of = |word: &str| d.log().lines().filter(|l| l.starts_with(word)).count();
    until("each start has its end", || of("START ") == of("EXIT "));
    until("each session has its end", || of("SESSION ") == of("END "));
    until("each offer has its end", || of("OFFER ") == of("WITHDRAW "));
    until("one net process is left", || d.nets().len() == 1);
    // A spare and pairs that were made in advance are kept for a while, and are bounded.
    let most = before + 80;
    until("no descriptor is left", || proc::descriptors(d.parent_pid()).len() <= most);
    assert_eq!(d.log().matches("WARN").count(), 0, "{}", d.log());
    let (n, cuts) = (served.load(Ordering::Relaxed), cutter.cuts());
    trial("soak", format!("{n} clients served, {cuts} connections cut, {reloads} reloads"));
    d.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(d.wait(), 0);
}
