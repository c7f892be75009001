//! Rules on names of addresses: a look-up is made where it decides, and a resolver that never
//! answers is in nobody's way.

mod support;
#[path = "support/tls.rs"]
mod tls;
#[path = "support/yamux_raw.rs"]
mod yamux_raw;

use std::collections::HashSet;
use std::net::UdpSocket;
use std::process::Command;
use support::*;
use yamux_raw::{DATA, FIN, RST, Raw, SYN};

/// Where the resolver of these tests is; it answers for one address, and nothing else that it is
/// asked.
fn resolver() -> String {
    format!("{}.53", own_network())
}

const HAS_A_NAME: &str = "127.0.0.2";
const HAS_NONE_IN_TIME: &str = "127.0.0.3";
const CONF: &str = "
hello stream tcp nowait @USER@ /bin/echo echo hello
for stream tcp nowait @USER@ /bin/cat cat
 only_from = .example.org 127.0.0.9
against stream tcp nowait @USER@ /bin/cat cat
 no_access = .example.org
other stream tcp nowait @USER@ /bin/cat cat
 no_access = .example.net
echo dgram udp wait @USER@ internal
 port = 127.0.0.1:0
 only_from = .example.org
";

/// Answers that 127.0.0.2 is good.example.org, and that this is 127.0.0.2.
fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let end = 12 + query.get(12..)?.iter().position(|b| *b == 0)? + 5;
    let question = query.get(12..end)?;
    let data: &[u8] = match (&question[..question.len() - 4], question[question.len() - 3]) {
        (b"\x012\x010\x010\x03127\x07in-addr\x04arpa\0", 12) => b"\x04good\x07example\x03org\0",
        (b"\x04good\x07example\x03org\0", 1) => &[127, 0, 0, 2],
        (b"\x04good\x07example\x03org\0", 28) => b"",
        _ => return None,
    };
    let answers = u8::from(!data.is_empty());
    let mut out = [&query[..2], &[0x81, 0x80, 0, 1, 0, answers, 0, 0, 0, 0], question].concat();
    if answers == 1 {
        out.extend([
            0xc0,
            12,
            0,
            question[question.len() - 3],
            0,
            1,
            0,
            0,
            0,
            60,
            0,
            data.len() as u8,
        ]);
        out.extend(data);
    }
    Some(out)
}

/// None: this cannot be done here.
fn daemon() -> Option<Daemon> {
    if !root() || !installed("unshare") {
        skip("needs root and unshare");
        return None;
    }
    // Both tests of this file have the one resolver, if they run at once.
    if let Ok(socket) = UdpSocket::bind((resolver(), 53)) {
        std::thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((n, from)) = socket.recv_from(&mut query) {
                if let Some(answer) = answer(&query[..n]) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
    }
    let mounts = "mount --bind @DIR@/resolv.conf /etc/resolv.conf && mount --bind @DIR@/nsswitch.conf /etc/nsswitch.conf && exec \"$0\" \"$@\"";
    let d = Daemon::with(CONF)
        .file("resolv.conf", &format!("nameserver {}\n", resolver()))
        .file("nsswitch.conf", "hosts: dns\n");
    Some(d.under(&["unshare", "-m", "sh", "-c", mounts]).start())
}

#[test]
fn only_requests_for_rows_with_rules_on_names_wait() {
    let Some(d) = daemon() else { return };
    // On a machine that is very slow for a moment the resolver's time is over first.
    if !others_go_before_those_who_wait(&d) {
        drop(d);
        assert!((0..3).any(|_| daemon().is_some_and(|d| others_go_before_those_who_wait(&d))));
    }
}

/// Were they all answered before those who wait for the resolver?
fn others_go_before_those_who_wait(d: &Daemon) -> bool {
    let ask = |from: &str, name: &str| {
        d.connect_from(from).send(format!("{name}\r\n")).half_close().read_all()
    };
    let began = std::time::Instant::now();
    let mut waits: Vec<Client> = ["for", "against", "other"]
        .map(|name| {
            let mut c = d.connect_from(HAS_NONE_IN_TIME);
            c.send(format!("{name}\r\n"));
            c
        })
        .into();
    same(ask(HAS_NONE_IN_TIME, "hello"), "+Go\r\nhello\n");
    same(ask(HAS_NONE_IN_TIME, "unknown"), NOT_AVAILABLE);
    // HELP looks nothing up.
    same(ask(HAS_NONE_IN_TIME, "HELP"), format!("hello\r\n{BUILTINS}"));
    // Where the address decides it is not looked up, and whose name is there does not wait for
    // others.
    same(ask("127.0.0.9", "for"), GO);
    same(ask(HAS_A_NAME, "for"), GO);
    same(ask(HAS_A_NAME, "against"), NOT_AVAILABLE);
    same(ask(HAS_A_NAME, "other"), GO);
    let before = waits.iter_mut().all(|c| c.silent(1));
    // No name: what refuses one refuses all.
    waits.iter_mut().for_each(|c| same(c.read_all(), NOT_AVAILABLE));
    // The look-up itself ends after five seconds.
    let in_time = began.elapsed() < std::time::Duration::from_millis(4500);
    d.wait_log("REFUSE service=against host= from=127.0.0.3 reason=address");
    before && in_time
}

/// Six addresses of one network ask at once, and one of another: four of the six are looked up.
/// False: the machine was so slow that the first look-ups were over before that was seen.
fn a_source_has_four(d: &Daemon, at: std::net::SocketAddr, net: &str) -> bool {
    let ask = |from: String| {
        let mut c = connect_from(from.parse().expect("address"), at);
        c.send("for\r\n").half_close();
        c
    };
    let mut all: Vec<Client> = (1..7).map(|n| ask(format!("{net}::{n}"))).collect();
    let mut answered = HashSet::new();
    let mut look = || {
        let said = |n: &usize| !answered.contains(n) && !all[*n].silent(1);
        let now: Vec<usize> = (0..6).filter(said).collect();
        answered.extend(now);
        answered.len()
    };
    until("some have an answer at once", || look() > 0);
    let other = ask(format!("{net}:1::1")).silent(500);
    let early = look();
    let running = d.services().len();
    all.iter_mut().for_each(|c| same(c.read_all(), NOT_AVAILABLE));
    early == 2 && other && running == 5
}

#[test]
fn a_source_has_few_look_ups_at_a_time_and_leaves_others_theirs() {
    if !root() || !installed("ip") || !installed("unshare") {
        return skip("needs root, ip and unshare");
    }
    if !has_ipv6() {
        return;
    }
    // A network of its own for this thread, and for what it starts.
    let tested = std::thread::spawn(|| {
        if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).is_err() {
            return skip("needs the right to make a network namespace");
        }
        let up = "ip link set lo up && for n in 1 2 3; do for a in :1 :2 :3 :4 :5 :6 1::1; do ip -6 addr add fd00:0:$n:$a/128 dev lo nodad; done; done";
        assert!(Command::new("sh").args(["-c", up]).status().expect("sh").success());
        // It answers nobody.
        let _resolver = UdpSocket::bind("127.0.0.1:53").expect("bind");
        let mounts = "mount --bind @DIR@/resolv.conf /etc/resolv.conf && mount --bind @DIR@/nsswitch.conf /etc/nsswitch.conf && exec \"$0\" \"$@\"";
        let d =
            Daemon::with("for stream tcp nowait @USER@ /bin/cat cat\n only_from = .example.org\n")
                .file("resolv.conf", "nameserver 127.0.0.1\n")
                .file("nsswitch.conf", "hosts: dns\n")
                .under(&["unshare", "-m", "sh", "-c", mounts])
                .listen("[::]:0")
                .start();
        let at = std::net::SocketAddr::new("::1".parse().expect("address"), d.address().port());
        assert!((1..4).any(|n| a_source_has_four(&d, at, &format!("fd00:0:{n}"))));
    });
    tested.join().expect("tested");
}

/// Argument: the parent's pid. Tries, as the user of a look-up that waits, to trace it and to reach
/// its memory and descriptors. Prints what succeeded.
const REACHES: &str = r"
import ctypes, os, sys, time
def look_up():
    for _ in range(300):
        for p in filter(str.isdigit, os.listdir('/proc')):
            try:
                parent = open(f'/proc/{p}/stat').read().rsplit(')', 1)[1].split()[1]
                words, status = open(f'/proc/{p}/cmdline', 'rb').read(), open(f'/proc/{p}/status').read()
            except OSError:
                continue
            uid = int(status.split('Uid:')[1].split()[0])
            if parent == sys.argv[1] and words.startswith(b'fived-service\0name\0') and uid:
                return int(p), uid
        time.sleep(0.01)
    sys.exit('no look-up')
pid, uid = look_up()
os.setgroups([])
os.setresgid(uid, uid, uid)
os.setresuid(uid, uid, uid)
os.kill(pid, 0)
if ctypes.CDLL(None).ptrace(0x4206, pid, 0, 0) == 0:
    print('traced')
try:
    open(f'/proc/{pid}/mem', 'r+b')
    print('memory')
except OSError:
    pass
try:
    os.listdir(f'/proc/{pid}/fd')
    print('descriptors')
except OSError:
    pass
print('done')
";

/// A name server's answer is a stranger's text, and another look-up says who a user is.
#[test]
fn look_ups_are_not_in_each_other_s_reach() {
    if !installed("python3") {
        return skip("needs python3");
    }
    let Some(d) = daemon() else { return };
    // On a slow machine it may be over before it is looked at.
    until("a look-up waits meanwhile", || {
        let mut c = d.connect_from(HAS_NONE_IN_TIME);
        c.send("for\r\n");
        let mut python = std::process::Command::new("python3");
        python.args(["-c", REACHES, &d.parent_pid().to_string()]);
        let out = python.output().expect("python3");
        let failed = String::from_utf8_lossy(&out.stderr).into_owned();
        if ["no look-up", "ProcessLookupError"].iter().any(|e| failed.contains(e)) {
            return false;
        }
        same(failed, "");
        same(out.stdout, "done\n");
        true
    });
}

/// Look-ups at once, and addresses that may wait for one.
const AT_ONCE: usize = 64;
const WAITING: usize = 1024;

/// Sources of `127.NET.0.0/16` ask, all that may and a few more. False: the machine was so slow that
/// the time of the first was over meanwhile.
fn the_longest_waiting_gives_way(d: &Daemon, net: usize) -> bool {
    let ask = |n: usize| {
        let mut c = d.connect_from(&format!("127.{net}.{}.{}", n / 250, n % 250 + 1));
        c.send("for\r\n");
        c
    };
    let mut all: Vec<Client> = (0..AT_ONCE + WAITING).map(ask).collect();
    let waited = all[AT_ONCE].silent(1);
    const MORE: usize = 8;
    all.extend((AT_ONCE + WAITING..AT_ONCE + WAITING + MORE).map(ask));
    let (running, waiting) = all.split_at_mut(AT_ONCE);
    let (longest, others) = waiting.split_at_mut(MORE);
    longest.iter_mut().for_each(|c| same(c.read_all(), NOT_AVAILABLE));
    // The first of all would have been told before them that its time is over.
    let before = running[0].silent(1) && others[0].silent(1);
    running.iter_mut().chain(others).for_each(|c| same(c.read_all(), NOT_AVAILABLE));
    waited && before
}

#[test]
fn of_too_many_addresses_the_one_that_has_waited_longest_gets_no_name() {
    if !descriptors(3000) {
        return skip("needs 3000 descriptors");
    }
    let Some(d) = daemon() else { return };
    assert!((100..104).any(|net| the_longest_waiting_gives_way(&d, net)));
}

#[test]
fn streams_and_tls_too() {
    let Some(d) = daemon() else { return };
    let multiplex = |from: &str| {
        let mut c = d.connect_from(from);
        c.send("MULTIPLEX\r\n").expect("+ Success\r\n");
        Raw(c.0)
    };
    let mut r = multiplex(HAS_NONE_IN_TIME);
    r.data(SYN, 1, "for\r\nsomething").data(SYN | FIN, 3, "other\r\n").data(SYN, 5, "hello\r\n");
    // The stream that needs no name does not wait for the others.
    let (first, all) = both(&mut r, &[1, 3, 5]);
    assert_eq!(
        (first, &all),
        (5, &[NOT_AVAILABLE.into(), NOT_AVAILABLE.into(), format!("{GO}hello\n")].to_vec())
    );
    let mut r = multiplex(HAS_A_NAME);
    r.data(SYN | FIN, 1, "for\r\nsomething").data(SYN, 3, "against\r\n");
    assert_eq!(both(&mut r, &[1, 3]).1, [format!("{GO}something"), NOT_AVAILABLE.into()]);
    // This session has asked for the name, and HELP uses it; nowhere else.
    r.data(SYN, 5, "HELP\r\n");
    let built_ins = BUILTINS.replace("MULTIPLEX\r\n", "").replace("SSL\r\n", "");
    same(both(&mut r, &[5]).1.concat(), format!("hello\r\nfor\r\nother\r\n{built_ins}"));
    let mut c = tls::Tls::start(d.connect_from(HAS_A_NAME).0, "x.example");
    c.send(b"for\r\nx");
    c.expect(format!("{GO}x").as_bytes());
    let mut c = d.connect_from(HAS_A_NAME);
    same(c.send("HELP\r\n").half_close().read_all(), format!("hello\r\n{BUILTINS}"));
}

/// All that these streams say, up to their ends; and which was the first to say something.
fn both(r: &mut Raw<std::net::TcpStream>, ids: &[u32]) -> (u32, Vec<String>) {
    let (mut first, mut said, mut ended) = (0, vec![String::new(); ids.len()], 0);
    while ended < ids.len() {
        let frame = r.next();
        let Some(at) = ids.iter().position(|id| *id == frame.stream) else { continue };
        if frame.kind == DATA {
            first = if first == 0 { frame.stream } else { first };
            said[at] += &String::from_utf8_lossy(&frame.payload);
        }
        ended += usize::from(frame.flags & (FIN | RST) != 0);
    }
    (first, said)
}

#[test]
fn a_datagram_whose_senders_name_is_slow_holds_up_nobody_for_long() {
    let Some(d) = daemon() else { return };
    let port = d.port(0);
    let [slow, named] = [HAS_NONE_IN_TIME, HAS_A_NAME].map(|from| {
        let s = UdpSocket::bind((from, 0)).expect("bind");
        s.set_read_timeout(Some(TIMEOUT)).expect("timeout");
        s
    });
    slow.send_to(b"let me in", port).expect("send");
    slow.send_to(b"let me in", port).expect("send");
    // On a slow machine its name, too, comes when its datagram is gone: who has no answer asks again.
    named.set_read_timeout(Some(std::time::Duration::from_millis(500))).expect("timeout");
    let mut buffer = [0; 64];
    until("another sender is answered meanwhile", || {
        named.send_to(b"hello", port).expect("send");
        named.recv_from(&mut buffer).is_ok_and(|(n, _)| &buffer[..n] == b"hello")
    });
    // Both were dropped for that, and not because a name was waited for to the end.
    let lines = d.wait_logs(&format!("REFUSE service=echo host= from={HAS_NONE_IN_TIME} "), 2);
    assert!(lines.iter().all(|l| l.contains(" reason=address ")), "{lines:?}");
    let dropped = |l: &&String| l.ends_with("is not known yet; this datagram is dropped");
    assert_eq!(lines.iter().filter(dropped).count(), 2, "{lines:?}");
}
