//! five -R: services that this computer serves for a server that it can only dial.

mod support;
#[path = "support/upstream.rs"]
mod upstream;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command};
use support::five::piped;
use support::*;

const H: &str = "127.0.0.1";

fn rows(names: &[&str]) -> String {
    let row = |name: &&str| {
        format!("{name} stream tcp nowait - offer\n offered_by = demo\n connect_timeout = 5\n")
    };
    format!("authorized_keys = @KEYS@/%u\n{}", names.iter().map(row).collect::<String>())
}

/// Somebody whose key may log in as demo, and offers by that user.
fn person(d: &Daemon, f: Five) -> Five {
    let path = format!("{}/.ssh/id_ed25519", f.home);
    std::fs::create_dir_all(format!("{}/.ssh", f.home)).expect(".ssh");
    let mut c = Command::new("ssh-keygen");
    c.args(["-q", "-t", "ed25519", "-N", "", "-f", &path]);
    assert!(c.status().expect("ssh-keygen").success());
    d.place.write_keys("demo", &std::fs::read_to_string(format!("{path}.pub")).expect("a key"));
    f
}

/// A process that is ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

fn offering(f: &Five, offers: &[&str]) -> Running {
    let words: Vec<&str> = offers.iter().flat_map(|o| ["-R", o]).collect();
    Running(f.start(&[&["-N", "-l", "demo"], &words[..], &[H]].concat()))
}

fn demo() -> String {
    format!("demo@{H}")
}

/// What a client of the service is told, who says this.
fn client(d: &Daemon, service: &str, text: &str) -> String {
    let all = d.connect().send(format!("{service}\r\n{text}")).half_close().read_all();
    String::from_utf8(all).expect("text")
}

#[test]
fn services_behind_a_nat_are_reached_as_long_as_five_runs() {
    let tcp = upstream::counts("tcp");
    let d = Daemon::with(&rows(&["web", "pg"])).start();
    let path = d.place.at("pg.sock");
    upstream::unix(&path, 0o700, |mut s| {
        let _ = s.write_all(b"unix\n");
        let mut all = Vec::new();
        let _ = s.read_to_end(&mut all).and_then(|_| s.write_all(&all));
    });
    let f = person(&d, Five::new(&d));
    assert_eq!(client(&d, "web", ""), FAILED);
    let mut five = offering(&f, &[&format!("web:localhost:{}", tcp.port()), &format!("pg:{path}")]);
    d.wait_logs("OFFER service=", 2);
    assert_eq!(client(&d, "web", "hello"), format!("{GO}this is tcp\n5 bytes: hello"));
    assert_eq!(client(&d, "pg", "x"), format!("{GO}unix\nx"));
    // Another five is a client, and both share the session.
    let (code, out, err) = f.run_with(&[&demo(), "web"], b"one");
    assert_eq!((code, out.as_str(), err.as_str()), (0, "this is tcp\n3 bytes: one", ""));
    let list = f.run(&["-O", "list", &demo()]).1;
    let web = list.lines().find(|l| l.starts_with("offer=web at=")).expect("its line");
    assert!(web.contains(&format!("127.0.0.1:{} host= by=call ", tcp.port())), "{list}");
    assert!(list.contains(&format!("offer=pg at={path} host= by=call since=")), "{list}");
    // Many at a time, and much.
    std::thread::scope(|s| {
        for n in 0..30 {
            let (d, text) = (&d, "x".repeat(n * 10_000));
            s.spawn(move || {
                let message = client(d, "pg", &text);
                assert!(message == format!("{GO}unix\n{text}"), "{n}: {}", message.len());
            });
        }
    });
    kill(Pid::from_raw(five.0.id() as i32), Signal::SIGTERM).expect("kill");
    five.0.wait().expect("wait");
    d.wait_logs("WITHDRAW service=", 2);
    assert_eq!(client(&d, "web", ""), FAILED);
}

/// Many computers have both addresses for `localhost`, and servers listen at one of the two.
#[test]
fn each_address_of_a_name_is_tried() {
    if !root() || !installed("unshare") || !has_ipv6() {
        return skip("needs root, unshare and IPv6, for an /etc/hosts of its own");
    }
    let d = Daemon::with(&rows(&["four", "six", "none"])).start();
    let (four, six) = (upstream::at("127.0.0.1:0", "four"), upstream::at("[::1]:0", "six"));
    let none = upstream::nobody().port();
    let f = person(&d, Five::new(&d));
    let hosts = d.place.write("hosts", "::1 both\n127.0.0.1 both\n", 0o644);
    let script = format!("mount --bind {hosts} /etc/hosts && exec \"$@\"");
    let offers = [("four", four.port()), ("six", six.port()), ("none", none)]
        .map(|(service, port)| format!("{service}:both:{port}"));
    let mut words = vec!["-N"];
    words.extend(offers.iter().flat_map(|o| ["-R", o]));
    let demo = demo();
    let before = ["-m", "sh", "-c", &script, "sh"];
    let mut c = f.command_by("unshare", &before, &[&words[..], &[&demo]].concat());
    let _five = Running(support::five::piped(&mut c));
    d.wait_logs("OFFER service=", 3);
    assert_eq!(client(&d, "four", "a"), format!("{GO}this is four\n1 bytes: a"));
    assert_eq!(client(&d, "six", "a"), format!("{GO}this is six\n1 bytes: a"));
    assert_eq!(client(&d, "none", "a"), FAILED);
    let at = format!("at=[::1]:{0},127.0.0.1:{0} ", four.port());
    let list = f.run(&["-O", "list", &demo]).1;
    assert!(list.contains(&format!("offer=four {at}")), "{list}");
}

#[test]
fn what_cannot_be_reached_or_offered_is_said() {
    let none = upstream::nobody();
    let d = Daemon::with(&rows(&["web"])).start();
    let f = person(&d, Five::new(&d));
    let gone = "/no/such/socket";
    let file = d.place.at("said");
    let into = format!("exec \"$0\" \"$@\" 2>{file}");
    let words = ["-N", "-l", "demo", "-R", &format!("web:{none}"), H];
    let five = Running(piped(&mut f.command_by("sh", &["-c", &into], &words)));
    d.wait_log("OFFER service=web ");
    assert_eq!(client(&d, "web", ""), FAILED);
    assert!(d.wait_log("REFUSE service=web ").contains("refused"));
    // Whoever offers it hears that once, however many clients come.
    assert_eq!(client(&d, "web", ""), FAILED);
    let said = || std::fs::read_to_string(&file).expect("a file");
    let why = format!("five: -R web:{none}: no connection (Connection refused): ");
    until("it is said", || said().contains(&why));
    assert_eq!(said().matches(&why).count(), 1, "{}", said());
    drop(five);
    d.wait_log("WITHDRAW service=web ");
    let fails = |words: &[&str], why: &str| {
        let (code, out, err) = f.run(&[&["-N"], words].concat());
        assert_eq!((code, out.as_str()), (255, ""), "{words:?}: {err}");
        assert!(err.contains(why), "{words:?}: {err}");
    };
    let offer = format!("other:{gone}");
    fails(&["-R", &offer, &demo()], &format!("five: -R {offer}: Not offered"));
    fails(
        &["-R", &offer, "-l", "", H],
        &format!("five: -R {offer}: Not offered (nobody is logged in: -l USER may change that)\n"),
    );
    fails(&["-R", "web:no.such.invalid:80", &demo()], "five: -R web:no.such.invalid:80: ");
    fails(&["-R", "web:80", &demo()], "-R web:80: expected SERVICE:ADDRESS:PORT or SERVICE:/PATH");
    // That is said before anybody is asked for the service: nobody listens there.
    let (code, _, err) = f.run(&["-R", "web:no.such.invalid:80", "127.0.0.2", "web"]);
    assert!(code == 255 && err.starts_with("five: -R web:no.such.invalid:80: "), "{code} {err}");
    // A configuration's own is reported, and ends nothing.
    let f = f.config(&format!("offer = {offer}\nuser = demo\n"));
    f.run(&["-O", "exit", &demo()]);
    let (code, _, err) = f.run(&[H, "web"]);
    assert_eq!(code, 254, "{err}");
    let message = format!("five: -R {offer}: Not offered");
    assert!(err.lines().filter(|l| *l == message).count() <= 1, "{err}");
}

#[test]
fn an_offer_of_the_configuration_and_of_an_order_is_the_holder_s() {
    let tcp = upstream::counts("tcp");
    let d = Daemon::with(
        &(rows(&["web", "own"])
            + "hello stream tcp nowait @USER@ /bin/echo echo hello\ncat stream tcp nowait @USER@ /bin/cat cat\n"),
    )
    .start();
    let f = person(&d, Five::new(&d));
    let f = f.config(&format!("user = demo\npersist = 2\noffer = own:{tcp}\n"));
    // A call keeps the session until something else does.
    let call = f.standing_call(&["-q"]);
    d.wait_log("OFFER service=own ");
    assert_eq!(client(&d, "own", "a"), format!("{GO}this is tcp\n1 bytes: a"));
    let offer = format!("web:{tcp}");
    let order = |words: &[&str]| {
        let (code, out, err) = f.run(&[&["-O"], words, &[H]].concat());
        assert_eq!((code, err.as_str()), (0, ""), "{words:?}: {out}");
        out
    };
    assert_eq!(order(&["forward", "-R", &offer]), "");
    assert_eq!(support::five::finish(call, b"").0, 0);
    d.wait_log("OFFER service=web ");
    let (code, _, err) = f.run(&["-O", "forward", "-R", &offer, H]);
    assert_eq!((code, err.contains("this session offers that service already")), (255, true));
    let list = order(&["list"]);
    assert!(list.contains(&format!("offer=web at={tcp} host= by=order since=")), "{list}");
    assert!(list.contains(&format!("offer=own at={tcp} host= by=configuration since=")), "{list}");
    // Long past `persist`: that of the order keeps the session.
    std::thread::sleep(std::time::Duration::from_millis(3500));
    let mut c = d.connect();
    c.send("web\r\n").expect(GO).expect("this is tcp\n");
    assert_eq!(order(&["cancel", "-R", &offer]), "");
    d.wait_log("WITHDRAW service=web ");
    same(c.send("still").half_close().read_all(), "5 bytes: still");
    let (code, _, err) = f.run(&["-O", "cancel", "-R", &offer, H]);
    assert!(code == 255 && err.contains("no such offer"), "{err}");
    // That of the configuration keeps nothing.
    until("nobody needs the session any more", || f.sessions().is_empty());
    d.wait_log("WITHDRAW service=own ");
}

#[test]
fn an_offer_is_made_again_after_a_reload_and_after_a_loss() {
    let tcp = upstream::counts("tcp");
    let d = Daemon::with(&rows(&["web"])).start();
    let f = person(&d, Five::new(&d));
    let _five = offering(&f, &[&format!("web:{tcp}")]);
    d.wait_log("OFFER service=web ");
    // A client that is there when the server reloads goes on.
    let mut c = d.connect();
    c.send("web\r\n").expect(GO).expect("this is tcp\n");
    d.signal(Signal::SIGHUP);
    d.wait_logs("OFFER service=web ", 2);
    d.wait_log("WITHDRAW service=web ");
    same(c.send("still").half_close().read_all(), "5 bytes: still");
    assert_eq!(client(&d, "web", "x"), format!("{GO}this is tcp\n1 bytes: x"));
    // The connection breaks: five makes another one by itself.
    kill(Pid::from_raw(d.net_pid()), Signal::SIGKILL).expect("kill");
    d.wait_logs("OFFER service=web ", 3);
    until("it is served again", || client(&d, "web", "x").ends_with("1 bytes: x"));
}

/// The old offer stands until the new one does.
#[test]
fn an_offer_serves_all_clients_while_the_server_reloads() {
    let tcp = upstream::counts("tcp");
    let d = Daemon::with(&rows(&["web", "other"])).start();
    let f = person(&d, Five::new(&d));
    let _five = offering(&f, &[&format!("web:{tcp}"), &format!("other:{tcp}")]);
    d.wait_logs("OFFER service=", 2);
    for n in 1..6 {
        d.signal(Signal::SIGHUP);
        let mut asked = 0;
        while asked < 20 || d.log().matches("WITHDRAW service=").count() < 2 * n {
            for service in ["web", "other"] {
                assert!(client(&d, service, "x").ends_with("1 bytes: x"), "{}", d.log());
            }
            asked += 1;
        }
    }
}

/// Whatever a server, a gate or a balancer says that starts again.
#[test]
fn an_offer_is_made_again_whatever_the_next_connection_meets() {
    let tcp = upstream::counts("tcp");
    let d = Daemon::with(&rows(&["web"])).start();
    // In front of it: what the next connection is told; nothing: it reaches the server.
    let (front, server) = (TcpListener::bind("127.0.0.1:0").expect("bind"), d.address());
    let f = person(&d, Five::at(&d.place, front.local_addr().expect("address")));
    let (says, told) = std::sync::mpsc::channel::<&[u8]>();
    std::thread::spawn(move || {
        for c in front.incoming().map_while(Result::ok) {
            match told.try_recv() {
                Ok(text) => {
                    let mut c = c;
                    let _ = c.read(&mut [0; 4096]).and_then(|_| c.write_all(text));
                }
                Err(_) => {
                    let s = TcpStream::connect(server).expect("connect");
                    for (mut from, mut to) in [(c.try_clone(), s.try_clone()), (Ok(s), Ok(c))]
                        .map(|(from, to)| (from.expect("clone"), to.expect("clone")))
                    {
                        std::thread::spawn(move || {
                            let _ = std::io::copy(&mut from, &mut to);
                            let _ = to.shutdown(std::net::Shutdown::Both);
                        });
                    }
                }
            }
        }
    });
    let mut five = offering(&f, &[&format!("web:{tcp}")]);
    d.wait_log("OFFER service=web ");
    for (n, text) in
        [&b""[..], b"+ Success\r\n", b"-Service not available\r\n", b"+ Success\r\nno TLS"]
            .into_iter()
            .enumerate()
    {
        says.send(text).expect("said");
        d.signal(Signal::SIGHUP);
        d.wait_logs("OFFER service=web ", n + 2);
        assert!(five.0.try_wait().expect("wait").is_none(), "{}", d.log());
    }
}

#[test]
fn an_offer_that_is_refused_later_or_cancelled_ends_no_other() {
    let tcp = upstream::counts("tcp");
    let d = Daemon::with(&rows(&["web", "other"])).start();
    let f = person(&d, Five::new(&d));
    let (web, other) = (format!("web:{tcp}"), format!("other:{tcp}"));
    let mut five = offering(&f, &[&web, &other]);
    d.wait_logs("OFFER service=", 2);
    let served = |name: &str| client(&d, name, "x").ends_with("1 bytes: x");
    d.reload(&rows(&["web"]));
    until("web is offered again", || served("web"));
    d.reload(&rows(&["web", "other"]));
    until("other is offered again", || served("other"));
    until("web is offered again", || served("web"));
    let cancel = |offer: &str| f.run(&["-O", "cancel", "-R", offer, &demo()]);
    until("other is cancelled", || cancel(&other).0 == 0);
    until("nobody offers it", || client(&d, "other", "x") == FAILED);
    until("web is still offered", || served("web"));
    // With the last one it has nothing to do.
    until("web is cancelled", || cancel(&web).0 == 0);
    assert_eq!(five.0.wait().expect("wait").code(), Some(255));
}

/// With curl and Python's web server, at a port of the service's own.
#[test]
fn a_web_server_at_home_has_a_port_on_the_server() {
    if !installed("curl") || !installed("python3") {
        return skip("curl or python3 is not installed");
    }
    let (port, home) = (free_port(), free_port());
    let d = Daemon::with(&(rows(&["web"]) + &format!(" port = 127.0.0.1:{port}\n"))).start();
    std::fs::create_dir(d.place.at("www")).expect("www");
    d.place.write("www/page", "a page of this computer\n", 0o644);
    let mut python = Command::new("python3");
    python
        .args(["-m", "http.server", "--bind", H, &home.to_string()])
        .current_dir(d.place.at("www"));
    let _python = Running(python.stderr(std::process::Stdio::null()).spawn().expect("python3"));
    until("it listens", || std::net::TcpStream::connect((H, home)).is_ok());
    let f = person(&d, Five::new(&d));
    let _five = offering(&f, &[&format!("web:{H}:{home}")]);
    d.wait_log("OFFER service=web ");
    for _ in 0..3 {
        let out = Command::new("curl")
            .args(["-sS", "--max-time", "60", &format!("http://127.0.0.1:{port}/page")])
            .output()
            .expect("curl");
        let (page, err) =
            (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert_eq!((page.as_ref(), err.as_ref()), ("a page of this computer\n", ""));
    }
}

/// A listener whose queue is full does not answer: its clients are given up, and nothing turns.
#[test]
fn what_does_not_answer_costs_its_own_clients_alone() {
    let tcp = upstream::counts("tcp");
    let full = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    nix::sys::socket::listen(&full, nix::sys::socket::Backlog::new(0).expect("a number"))
        .expect("listen");
    let silent = full.local_addr().expect("its address");
    let connect = || {
        let wait = std::time::Duration::from_millis(300);
        std::net::TcpStream::connect_timeout(&silent, wait).ok()
    };
    let filled: Vec<_> = std::iter::from_fn(connect).take(50).collect();
    assert!(filled.len() < 50);
    let d = Daemon::with(&(rows(&["web", "slow"]) + " connect_timeout = 60\n")).start();
    let f = person(&d, Five::new(&d));
    let _five = offering(&f, &[&format!("web:{tcp}"), &format!("slow:{silent}")]);
    d.wait_logs("OFFER service=", 2);
    let mut waits = d.connect();
    waits.send("slow\r\n");
    assert_eq!(client(&d, "web", "x"), format!("{GO}this is tcp\n1 bytes: x"));
    let state = f.run(&["-O", "check", &demo()]).1;
    let pid: i32 = state
        .split_whitespace()
        .find_map(|w| w.strip_prefix("pid=")?.parse().ok())
        .expect("the holder's process id");
    let before = proc::ticks(pid);
    // Longer than the holder waits, and shorter than the row does.
    same(waits.read_all(), FAILED);
    assert!(proc::ticks(pid) - before <= 50, "it turns without a reason");
    assert!(d.wait_log("REFUSE service=slow ").contains("refused"));
}
