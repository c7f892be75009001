//! Where fived listens: the setting `listen`, and `-l`.

mod support;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use support::*;

const CONF: &str = "hello stream tcp nowait @USER@ /bin/echo echo hello\n";
const HELLO: &str = "+Go\r\nhello\n";

fn ask(ip: impl Into<std::net::IpAddr>, d: &Daemon, n: usize) -> Vec<u8> {
    let to = SocketAddr::new(ip.into(), d.addresses[n].port());
    Client::connect(to).send("hello\r\n").read_all()
}

#[test]
fn ipv4() {
    let d = Daemon::with(CONF).start();
    same(ask(Ipv4Addr::LOCALHOST, &d, 0), HELLO);
    assert_ne!(d.address().port(), 0, "the log tells the real port");
}

#[test]
fn ipv6() {
    if !has_ipv6() {
        return;
    }
    let d = Daemon::with(CONF).listen("[::1]:0").start();
    same(ask(Ipv6Addr::LOCALHOST, &d, 0), HELLO);
    d.wait_log("START service=hello host= pid=")
        .contains("from=::1")
        .then_some(())
        .expect("its address");
}

#[test]
fn both_on_one_listener() {
    if !has_ipv6() {
        return;
    }
    let d = Daemon::with(CONF).listen("[::]:0").start();
    same(ask(Ipv6Addr::LOCALHOST, &d, 0), HELLO);
    same(ask(Ipv4Addr::LOCALHOST, &d, 0), HELLO);
    // An IPv4 client is an IPv4 client.
    d.wait_log("from=127.0.0.1 ");
}

#[test]
fn several() {
    if !has_ipv6() {
        return;
    }
    let d =
        Daemon::with(CONF).listen("127.0.0.1:0").listen("[::1]:0").listen("127.0.0.2:0").start();
    assert_eq!(d.addresses.len(), 3);
    same(ask(Ipv4Addr::LOCALHOST, &d, 0), HELLO);
    same(ask(Ipv6Addr::LOCALHOST, &d, 1), HELLO);
    same(ask(Ipv4Addr::new(127, 0, 0, 2), &d, 2), HELLO);
}

#[test]
fn the_setting() {
    if !has_ipv6() {
        return;
    }
    let conf = format!("listen = 127.0.0.1:0\nlisten += [::1]:0\n{CONF}");
    let d = Daemon::with(&conf).listen("").start();
    assert_eq!(d.listening(2).len(), 2);
    same(d.ask("hello\r\n"), HELLO);
}

/// At the start as at a reload, in whichever order they are written.
#[test]
fn an_address_beside_all_addresses() {
    if !has_ipv6() {
        return;
    }
    let port = free_port();
    let (all, one, v6) =
        (format!("[::]:{port}"), format!("127.0.0.1:{port}"), format!("[::1]:{port}"));
    let any = format!("0.0.0.0:{port}");
    for listen in [[&all, &one, &v6], [&v6, &one, &all], [&one, &any, &v6]] {
        let [a, b, c] = listen;
        let d = Daemon::with(&format!("listen = {a} {b} {c}\n{CONF}")).listen("").start();
        for address in listen {
            d.wait_log(&format!("listening on {address}"));
            let address = address.replace("0.0.0.0", "127.0.0.2");
            let mut client = Client::connect(address.parse().expect("an address"));
            same(client.send("hello\r\n").read_all(), HELLO);
        }
        let said = d.reload(&format!("listen = {c} {b} {a}\nmptcp = no\n{CONF}"));
        assert!(!said.contains("refused"), "{said}");
    }
}

#[test]
fn a_port_alone_and_a_star() {
    for word in ["0", "*:0"] {
        let d = Daemon::with(CONF).listen(word).start();
        same(ask(Ipv4Addr::LOCALHOST, &d, 0), HELLO);
    }
}

#[test]
fn the_option_goes_before_the_setting() {
    let conf = format!("listen = 192.0.2.1:1\n{CONF}");
    let d = Daemon::with(&conf).start();
    same(d.ask("hello\r\n"), HELLO);
}

#[test]
fn rows_of_one_family() {
    if !has_ipv6() {
        return;
    }
    let conf = "n stream tcp4 nowait @USER@ /bin/echo echo four\nN stream tcp6 nowait @USER@ /bin/echo echo six\nb stream tcp46 nowait @USER@ /bin/echo echo both\n";
    let d = Daemon::with(conf).listen("[::]:0").start();
    let port = d.address().port();
    let ask = |ip: &str, name: &str| {
        Client::connect(SocketAddr::new(ip.parse().expect("ip"), port))
            .send(format!("{name}\r\n"))
            .read_all()
    };
    same(ask("127.0.0.1", "n"), "+Go\r\nfour\n");
    same(ask("::1", "n"), "+Go\r\nsix\n");
    same(ask("127.0.0.1", "b"), "+Go\r\nboth\n");
    same(ask("::1", "b"), "+Go\r\nboth\n");
    same(ask("::1", "HELP"), format!("N\r\nb\r\n{BUILTINS}"));
    same(ask("127.0.0.1", "HELP"), format!("n\r\nb\r\n{BUILTINS}"));
}

#[test]
fn plain_tcp_where_multipath_is_not_wanted() {
    let d = Daemon::with(&format!("mptcp = no\n{CONF}")).start();
    same(d.ask("hello\r\n"), HELLO);
}

/// The kernel says no more than that the argument is invalid.
#[test]
fn a_link_local_address_needs_an_interface() {
    let row = "echo stream tcp nowait @USER@ internal\n";
    let (code, err) = Daemon::with(row).listen("[fe80::fd:1]:0").fails();
    assert!(code == 111 && err.contains("needs the number of its interface"), "{err}");
    let (code, err) = Daemon::with(&format!("{row} port = [fe80::fd:1]:7\n")).fails();
    assert!(code == 111 && err.contains("can be given in `listen` alone"), "{err}");
    let (code, err) = Daemon::with(&format!("{row} port = [fe80::fd:1%lo]:7\n")).fails();
    assert!(code == 1 && err.contains("the address without an interface"), "{err}");
}
