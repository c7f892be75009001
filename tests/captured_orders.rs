//! A net process that a stranger has taken over gives orders that have the right form, in an order or
//! with values that no net of fived's would use. The rules that net keeps are kept by the parent, too.

#[path = "support/captured.rs"]
mod captured;
mod support;

use captured::*;
use fived::wire::orders::phases::kind;
use fived::wire::orders::{
    AddressPair, Ask, Claim, ClientAddresses, Data, FromNet, Message, Method, OfferAsk,
};
use fived::wire::resume;
use fived::wire::run::Way;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use support::*;

/// Arguments: the pid of a net process, and steps. A connection comes to one of that process's
/// listeners (`at:PORT`); it is handed over with one end of a pair (`session:ORDER`), and on the
/// channel that comes back orders follow: without descriptors (`says:ORDER`), or with that
/// connection (`with-client:ORDER`); or on the process's own channel, for that session and with that
/// connection (`on-client:ORDER`). `flood:ORDER` follows 4,000 times, or until that fails, which is
/// printed. `name:ORDER` is followed by claims of that session, with a proof (`proved:ORDER`). `password:WORD` answers a login child. `stream` waits for the channel of a stream, on which all that
/// follows is said. `hears` waits for an answer and prints its kind; 0: none came.
const SAYS: &str = r"
import array, base64, ctypes, hmac, os, socket, sys, time
pid, steps = int(sys.argv[1]), sys.argv[2:]
libc, pidfd = ctypes.CDLL(None), os.pidfd_open(pid)
get = lambda n: socket.socket(fileno=libc.syscall(438, pidfd, n, 0))
def send(to, order, *fds):
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [f.fileno() for f in fds]))]
    to.sendmsg([bytes.fromhex(order)], rights if fds else [])
def is_from(s, address):
    try:
        return s.family == socket.AF_INET and s.getpeername() == address
    except OSError:
        return False
def sockets():
    for n in os.listdir(f'/proc/{pid}/fd'):
        try:
            if os.readlink(f'/proc/{pid}/fd/{n}').startswith('socket:'):
                yield get(int(n))
        except (OSError, ValueError):
            pass
def taken_from_net(address):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for s in sockets():
            if is_from(s, address):
                return s
    sys.exit('it has accepted nobody')
def heard():
    try:
        return int.from_bytes(channel.recv(4096)[2:4], 'little')
    except OSError:
        return 0
own, kept, channel = get(3), [], None
for step in steps:
    what, _, order = step.partition(':')
    if what == 'at':
        kept.append(socket.create_connection(('127.0.0.1', int(order))))
        client = taken_from_net(kept[-1].getsockname())
    elif what == 'session':
        kept.append(channel)
        channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        send(own, addressed(bytes.fromhex(order), client).hex(), client, theirs)
        theirs.close()
        channel.settimeout(60)
        text, fds = channel.recvmsg(1024, 64)[:2]
        if fds:
            channel = socket.socket(fileno=array.array('i', fds[0][2])[0])
            channel.settimeout(60)
    elif what == 'says':
        send(channel, order)
    elif what == 'with-client':
        send(channel, order, client)
    elif what == 'flood':
        try:
            for _ in range(4000):
                send(channel, order)
        except OSError:
            print('ended')
    elif what == 'password':
        # What its session was answered has the channel of a login child, which prompts.
        fds = channel.recvmsg(4096, 64)[1]
        child = socket.socket(fileno=array.array('i', fds[0][2])[0])
        child.recv(4096)
        child.send(b'\x03' + order.encode())
        print(heard())
    elif what == 'name':
        # What names the session; its key is in the order that asked for it.
        name, key = channel.recv(4096)[32:48], bytes.fromhex(order)[32:64]
    elif what == 'proved':
        order = bytes.fromhex(order)
        said = f'fived resume 1\n{name.hex()}\n0\n{base64.b64encode(order[80:112]).decode()}\n'
        proof = hmac.digest(key, said.encode(), 'sha256')
        send(channel, (order[:32] + name + proof + order[80:]).hex())
    elif what == 'stream':
        # What its session was answered has the channel of a stream.
        fds = channel.recvmsg(4096, 64)[1]
        kept.append(channel)
        channel = socket.socket(fileno=array.array('i', fds[0][2])[0])
        channel.settimeout(60)
    elif what == 'on-client':
        send(own, order[:32] + text[16:24].hex() + order[48:], client)
    else:
        print(heard())
";

/// The orders of such steps.
struct Steps(Vec<String>);

impl Steps {
    fn new(client: &str, tls_port: Option<u32>) -> Steps {
        Steps::of(client, FromNet::Session { tls_port, addresses: ClientAddresses::default() })
    }

    fn of(client: &str, session: FromNet) -> Steps {
        Steps(vec![client.into()]).begins(&session)
    }

    fn begins(self, session: &FromNet) -> Steps {
        self.step(&format!("session:{}", hex(&session.encode())))
    }

    /// `demo` logs in, and a stream of that session is said what follows.
    fn in_a_stream_of_demo(self) -> Steps {
        let verify =
            Ask::Verify { method: Method::Password, user: Data::new(b"demo").expect("it fits") };
        let branch = Ask::Branch { host: 0, tag: 1 };
        self.then("says", &verify).step("password:demopass").then("says", &branch).step("stream")
    }

    fn then(mut self, how: &str, order: &impl Message) -> Steps {
        self.0.push(format!("{how}:{}", hex(&order.encode())));
        self
    }

    fn hears(self) -> Steps {
        self.step("hears")
    }

    fn step(mut self, what: &str) -> Steps {
        self.0.push(what.into());
        self
    }

    /// A handshake, of which net alone says that it was one.
    fn encrypted(self) -> Steps {
        let done = Ask::Encrypted { suite: 0x1301, name: Data::default() };
        self.then("says", &sign()).hears().then("says", &done)
    }
}

fn sign() -> Ask {
    let text = [&[b' '; 64][..], b"TLS 1.3, server CertificateVerify\0", &[7; 32]].concat();
    Ask::Sign { chain: 0, scheme: 0x403, message: Data::new(&text).expect("it fits") }
}

fn start(service: u32, way: Way) -> Ask {
    Ask::Start { service, host: 0, tag: u32::from(way != Way::Plain), way }
}

/// The rules that net keeps are kept by the parent, too.
#[test]
fn it_gets_nothing_that_its_client_may_not_have() {
    if !takes_net_over() {
        return;
    }
    let d = Daemon::with(&format!(
        "{CONF}here stream tcp nowait @USER@ /bin/echo echo here\n tls_port = 127.0.0.1:0\n\
         there stream tcp nowait @USER@ /bin/echo echo there\n tls_port = 127.0.0.1:0\n"
    ))
    .start();
    let at = |address: SocketAddr| format!("at:{}", address.port());
    let (tcpmux, [here, _]) = (at(d.address()), d.ports::<2>().map(at));
    let says = |steps: Steps| {
        Command::new("python3")
            .args(["-c", &with_client(SAYS), &d.net_pid().to_string()])
            .args(steps.0)
            .stdin(Stdio::null())
            .output()
            .expect("python3")
    };
    let mut refused = Steps::new(&tcpmux, None);
    for service in 1..=3 {
        refused = refused.then("says", &start(service, Way::Plain)).hears();
    }
    same(says(refused).stdout, format!("{}\n", kind::NOT_STARTED).repeat(3));
    let verify = Ask::Verify { method: Method::Password, user: Data::default() };
    let mut tries = Steps::new(&tcpmux, None);
    for _ in 0..3 {
        // The channel of the try, which ends at once, and what came of it.
        tries = tries.then("says", &verify).hears().hears();
    }
    const SESSION_S: &str = "a socket on a session's channel";
    let forbidden = [
        ("a fourth try to log in", tries.then("says", &verify).hears()),
        (SESSION_S, Steps::new(&tcpmux, None).then("with-client", &start(0, Way::Plain)).hears()),
        (
            "its own socket inside TLS",
            Steps::new(&tcpmux, None).encrypted().then("on-client", &on_client(0)).hears(),
        ),
        (
            "its own socket while it waits for a signature",
            Steps::new(&tcpmux, None)
                .then("says", &sign())
                .then("on-client", &on_client(0))
                .hears(),
        ),
        ("a port that it did not come to", Steps::new(&tcpmux, Some(0)).hears()),
        ("no port, but it came to one", Steps::new(&here, None).hears()),
        (
            "a service before TLS",
            Steps::new(&here, Some(0)).then("says", &start(4, Way::Plain)).hears(),
        ),
        (
            "another port's service",
            Steps::new(&here, Some(0)).encrypted().then("says", &start(5, Way::Plain)).hears(),
        ),
    ];
    // No order of a session has a descriptor, and where the system can refuse them none can come.
    let refused = |what: &str| what == SESSION_S && fived::sys::local::can_refuse_rights();
    let (refused, forbidden): (Vec<_>, Vec<_>) =
        forbidden.into_iter().partition(|(what, _)| refused(what));
    for (what, steps) in refused {
        let said = says(steps);
        let why = String::from_utf8_lossy(&said.stderr);
        assert!(!said.status.success() && why.contains("PermissionError"), "{what}: {said:?}");
    }
    for (n, (what, steps)) in forbidden.into_iter().enumerate() {
        let net = d.net_pid();
        let said = says(steps);
        assert!(said.status.success(), "{what}: {said:?}");
        is_ended(&d, net, n + 1);
    }
    assert!(!d.log().contains("START "), "{}", d.log());
    same(d.ask("hello\r\n"), HELLO);
}

/// Says these steps in turn, each of which ends the net process that says them.
fn each_ends_its_net(d: &Daemon, all: Vec<(&str, Steps)>) {
    for (n, (what, steps)) in all.into_iter().enumerate() {
        let net = d.net_pid();
        let said = Command::new("python3")
            .args(["-c", &with_client(SAYS), &net.to_string()])
            .args(steps.0)
            .stdin(Stdio::null())
            .output()
            .expect("python3");
        assert!(said.status.success(), "{what}: {said:?}");
        is_ended(d, net, n + 1);
    }
}

/// Net asks for none of this. The parent does not rely on that.
#[test]
fn what_net_never_asks_for_ends_it() {
    if !takes_net_over() {
        return;
    }
    let d = Daemon::with(&format!(
        "proxy_from = 127.0.0.0/8\npasswords = @DIR@/passwd\n{CONF}\
         hers stream tcp nowait - offer\n offered_by = other\n\
         his stream tcp nowait - offer\n offered_by = demo\n"
    ))
    .file("passwd", &passwords(&["demo"]))
    .start();
    let tcpmux = format!("at:{}", d.address().port());
    let afar = AddressPair {
        client: ([192, 0, 2, 1], 9).into(),
        local: (d.address().ip(), d.address().port()).into(),
    };
    let addresses = ClientAddresses { own: None, proxied: Some(afar) };
    let from_afar = FromNet::Session { tls_port: None, addresses };
    let password = Ask::Verify { method: Method::Password, user: Data::default() };
    let key = Ask::Verify { method: Method::Pubkey, user: Data::default() };
    let resumable = Ask::Resumable { key: resume::ProofKey([7; 32]) };
    let mut claims = Steps::new(&tcpmux, None).encrypted();
    for n in 0..3 {
        claims = claims.then("says", &claim(n)).hears();
    }
    let [hers, his] = [4, 5].map(|service| Ask::Offer(OfferAsk::Begin { service, host: 0 }));
    let session = FromNet::Session { tls_port: None, addresses: ClientAddresses::default() };
    let of_demo = || Steps::new(&tcpmux, None).in_a_stream_of_demo();
    let stands = || Steps::new(&tcpmux, None).encrypted().then("says", &resumable).hears();
    each_ends_its_net(
        &d,
        vec![
            // Before the penalty for the claims.
            ("an offer that its user may not make", of_demo().then("says", &hers).hears()),
            (
                "the end of another session's offer",
                of_demo()
                    .then("says", &his)
                    .hears()
                    .begins(&session)
                    .then("says", &Ask::Offer(OfferAsk::End { offer: 1 }))
                    .hears(),
            ),
            (
                "a password in the clear",
                Steps::of(&tcpmux, from_afar.clone()).then("says", &password),
            ),
            ("a key in the clear", Steps::of(&tcpmux, from_afar).then("says", &key)),
            ("a try after three wrong claims", claims.then("says", &password).hears()),
            ("a claim of a session that stands", stands().then("says", &claim(9)).hears()),
            ("a second name", stands().then("says", &resumable).hears()),
            (
                "an answer to a claim that nobody made",
                stands().then("says", &Ask::Resumed { taken: true }).hears(),
            ),
        ],
    );
    let log = d.log();
    assert!(log.contains("PENALTY from=127.0.0.1 "), "{log}");
    assert_eq!(
        (log.matches("OFFER service=his ").count(), log.contains("=hers ")),
        (1, false),
        "{log}"
    );
}

/// A net process that tells of no relay's end keeps no more of these lines waiting than a session
/// may have streams.
#[test]
fn services_whose_bytes_nobody_counts_do_not_pile_up() {
    if !takes_net_over() {
        return;
    }
    let d = Daemon::with(
        "max_streams = 2\nmax_streams_anonymous = 2\n\
         log_on_success = PID HOST EXIT DURATION TRAFFIC\n\
         nap stream tcp nowait @USER@ /bin/true true\n",
    )
    .start();
    let mut steps = Steps::new(&format!("at:{}", d.address().port()), None);
    for tag in 1..=12 {
        let start = Ask::Start { service: 0, host: 0, tag, way: Way::Plain };
        steps = steps.then("says", &start).hears();
    }
    let mut said = Command::new("python3")
        .args(["-c", &with_client(SAYS), &d.net_pid().to_string()])
        .args(steps.hears().0)
        .stdout(Stdio::null())
        .spawn()
        .expect("python3");
    d.wait_logs("EXIT service=nap ", 8);
    assert!(!d.log().contains("END session="), "{}", d.log());
    kill_and_wait(&mut said);
    d.wait_logs("EXIT service=nap ", 12);
}

/// Claims of a session that it has not answered, at most.
const CLAIMS_MAX: usize = 16;

fn claim(n: u8) -> Ask {
    let claim = resume::Claim { id: resume::Id([n; 16]), received: 0, proof: [0; 32] };
    Ask::Resume(Claim { connection: 1, claim, exporter: [0; 32], challenge: [0; 32] })
}

/// A session answers each claim of it. One that does not gets no more of them.
#[test]
fn claims_do_not_pile_up_at_a_session_that_answers_none() {
    if !takes_net_over() {
        return;
    }
    let d = Daemon::with(CONF).start();
    let tcpmux = format!("at:{}", d.address().port());
    let session = FromNet::Session { tls_port: None, addresses: ClientAddresses::default() };
    let resumable = Ask::Resumable { key: resume::ProofKey([7; 32]) };
    let mut steps = Steps::new(&tcpmux, None).encrypted().then("says", &resumable);
    steps = steps.then("name", &resumable).begins(&session).encrypted();
    for _ in 0..=CLAIMS_MAX {
        steps = steps.then("proved", &claim(0));
    }
    let heard = said(&d, steps.hears());
    assert_eq!(heard.lines().last(), Some(&*kind::CLAIMED.to_string()), "{heard}{}", d.log());
    // They are proved: a wrong claim has a penalty.
    assert!(!d.log().contains("PENALTY") && !d.log().contains("a forbidden order"), "{}", d.log());
}

/// Says these steps, and returns what they print.
fn said(d: &Daemon, steps: Steps) -> String {
    let said = Command::new("python3")
        .args(["-c", &with_client(SAYS), &d.net_pid().to_string()])
        .args(steps.0)
        .stdin(Stdio::null())
        .output()
        .expect("python3");
    same(&said.stderr, "");
    String::from_utf8(said.stdout).expect("text")
}

/// So many sessions ask for 4,000 answers each, and read none. How many were ended.
fn floods(d: &Daemon, sessions: usize) -> usize {
    let session = FromNet::Session { tls_port: None, addresses: ClientAddresses::default() };
    let mut steps = Steps(vec![format!("at:{}", d.address().port())]);
    for _ in 0..sessions {
        steps = steps.begins(&session).then("flood", &start(1, Way::Plain));
    }
    said(d, steps.hears());
    d.wait_logs("END session=", sessions);
    d.log().lines().filter(|l| l.contains("END session=") && l.contains("reason=system")).count()
}

const THERE: &str =
    "there stream tcp nowait @USER@ /bin/echo echo there\n tls_port = 127.0.0.1:0\n";

#[test]
fn answers_that_a_session_does_not_read_have_a_bound() {
    if takes_net_over() {
        let d = Daemon::with(&format!("{CONF}{THERE}")).start();
        assert_eq!(floods(&d, 1), 1, "{}", d.log());
    }
}

#[test]
fn answers_that_a_stream_does_not_read_have_a_bound() {
    if !takes_net_over() {
        return;
    }
    let d = Daemon::with(&format!("passwords = @DIR@/passwd\n{CONF}{THERE}"))
        .file("passwd", &passwords(&["demo"]))
        .start();
    let steps = Steps::new(&format!("at:{}", d.address().port()), None);
    let steps = steps.in_a_stream_of_demo().then("flood", &start(1, Way::Plain));
    let heard = said(&d, steps);
    assert_eq!(heard.lines().last(), Some("ended"), "{heard}{}", d.log());
}

/// Each of these sessions alone has fewer than one may have.
#[test]
fn answers_that_all_sessions_do_not_read_have_a_bound() {
    if takes_net_over() {
        let d = Daemon::with(&format!("max_streams = 4096\n{CONF}{THERE}")).start();
        let ended = floods(&d, 8);
        assert!((1..8).contains(&ended), "{ended}: {}", d.log());
    }
}
