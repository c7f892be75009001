//! Reloads that follow each other while a net process of an older table still drains.

mod support;
#[path = "support/yamux_raw.rs"]
mod yamux_raw;

use std::net::{SocketAddr, TcpStream};
use support::*;
use yamux_raw::{ACK, GO_AWAY, PING, RST, Raw, SYN, WINDOW};

/// A session that nobody tells to go away is not ended soon.
const CONF: &str = "login_timeout = 900\nhello stream tcp nowait @USER@ /bin/echo echo hello\n";
const HELLO: &str = "+Go\r\nhello\n";

/// A daemon with a second listener, which its net process, held, cannot leave.
struct Stopped {
    d: Daemon,
    second: SocketAddr,
    net: i32,
    held: Option<proc::Held>,
}

impl Stopped {
    /// None: it cannot be done here.
    fn new() -> Option<Stopped> {
        let free = SocketAddr::from(([127, 0, 0, 2], free_port()));
        let d = Daemon::with(&both(free)).listen("").start();
        until("both", || d.log().matches("listening on").count() == 2);
        let net = d.net_pid();
        let held = Some(proc::hold(net)?);
        Some(Stopped { d, second: free, net, held })
    }

    /// The second listener is given up; a new net process serves the first.
    fn give_up(&self) {
        self.d.begin_reload(&format!("listen = 127.0.0.1:0\n{CONF}"));
        until("the new table", || {
            self.d.nets().len() == 2 && self.d.ask("hello\r\n") == HELLO.as_bytes()
        });
    }
}

fn both(second: SocketAddr) -> String {
    format!("listen = 127.0.0.1:0 {second}\n{CONF}")
}

#[test]
fn a_session_that_begins_in_a_net_that_drains_gets_go_away() {
    let Some(mut s) = Stopped::new() else { return };
    let mut c = Client::connect(s.second);
    c.send("MULTIPLEX\r\n");
    s.give_up();
    s.held = None;
    c.expect("+ Success\r\n");
    let mut r = Raw(c.0);
    // The ping after it asks whether it has been read.
    r.until(GO_AWAY, 0, 0);
    let ping = r.until(PING, SYN, 0);
    r.frame(PING, ACK, 0, ping.length).data(SYN, 1, "hello\r\n");
    // It is reset, or the session is over already.
    while let Ok(Some(frame)) = r.try_next() {
        assert_eq!((frame.kind, frame.flags), (WINDOW, RST), "{frame:?}");
    }
    until("the old net is gone", || !proc::alive(s.net));
}

#[test]
fn an_address_that_was_given_up_is_taken_back_while_the_old_net_has_it() {
    let Some(mut s) = Stopped::new() else { return };
    s.give_up();
    let waits = Client::connect(s.second);
    s.d.begin_reload(&both(s.second));
    let mut c = waits;
    same(c.send("hello\r\n").read_all(), HELLO);
    s.held = None;
    let lines = s.d.wait_logs("RELOAD ", 2);
    assert!(!lines.iter().any(|l| l.contains("refused")), "{lines:?}");
    until("the old net is gone", || !proc::alive(s.net));
    same(Client::connect(s.second).send("hello\r\n").read_all(), HELLO);
    // Given up for good, it is free.
    s.d.reload(&format!("listen = 127.0.0.1:0\n{CONF}"));
    until("nobody is there", || TcpStream::connect(s.second).is_err());
}
