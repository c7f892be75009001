//! Who may use a service: from where, when, or not at all.

mod support;
use support::*;

/// Which of these addresses may use a row with these attributes, as 1 and 0.
fn from(attributes: &str, addresses: &[&str]) -> String {
    let place = Place::new();
    let conf = place.write(
        "fived.conf",
        &format!("a stream tcp nowait @USER@ /bin/cat\n {}\n", attributes.replace('\n', "\n ")),
        0o644,
    );
    let queries: String = addresses.iter().map(|a| format!("service=a,addr={a}\n")).collect();
    let (code, out, err) = run_with(&["-f", &conf, "-T", "-C", "-"], queries.as_bytes());
    assert_eq!((code, err.as_str()), (0, ""));
    let one = |l: &str| match l.split(' ').next() {
        Some("allow") => '1',
        _ if l.ends_with(" address") => '0',
        _ => panic!("{l}"),
    };
    out.lines().map(one).collect()
}

#[test]
fn everybody_by_default() {
    assert_eq!(from("", &["192.0.2.1", "::1", "2001:db8::1"]), "111");
}

#[test]
fn only_from_alone_refuses_the_rest() {
    assert_eq!(from("only_from = 10.0.0.0/8 ::1", &["10.9.9.9", "11.0.0.1", "::1", "::2"]), "1010");
    assert_eq!(from("only_from =", &["127.0.0.1", "::1"]), "00", "an empty one: nobody");
}

#[test]
fn no_access_alone_allows_the_rest() {
    assert_eq!(
        from(
            "no_access = 10.0.0.0/8 2001:db8::/32",
            &["10.9.9.9", "11.0.0.1", "2001:db8::1", "::1"]
        ),
        "0101"
    );
}

#[test]
fn the_most_specific_decides() {
    let a = "only_from = 10.0.0.0/8 10.1.2.3\nno_access = 10.1.0.0/16";
    assert_eq!(from(a, &["10.2.0.1", "10.1.0.1", "10.1.2.3", "192.0.2.1"]), "1010");
    let a = "no_access = 0.0.0.0/0\nonly_from = 192.0.2.0/24";
    assert_eq!(from(a, &["192.0.2.1", "192.0.3.1"]), "10");
    let a = "only_from = 2001:db8::/32\nno_access = 2001:db8:1::/48 2001:db8::7";
    assert_eq!(from(a, &["2001:db8::1", "2001:db8:1::1", "2001:db8::7"]), "100");
}

#[test]
fn a_tie_refuses() {
    assert_eq!(from("only_from = 10.0.0.0/8\nno_access = 10.0.0.0/8", &["10.0.0.1"]), "0");
    assert_eq!(from("only_from = ::1\nno_access = ::1", &["::1"]), "0");
}

#[test]
fn xinetd_s_ways_to_write_networks() {
    assert_eq!(
        from("only_from = 192.168.0.0", &["192.168.7.7", "192.169.0.1"]),
        "10",
        "zeros at the right are anything"
    );
    assert_eq!(
        from("only_from = 192.168.1.{1,7}", &["192.168.1.1", "192.168.1.2", "192.168.1.7"]),
        "101"
    );
    assert_eq!(from("only_from = 10.0.0.0/255.0.0.0", &["10.1.1.1", "11.0.0.1"]), "10");
    assert_eq!(from("only_from = 192.0.2.1", &["192.0.2.1", "192.0.2.2"]), "10");
    assert_eq!(from("only_from = 0.0.0.0", &["192.0.2.1", "127.0.0.1"]), "11");
}

#[test]
fn a_mapped_address_is_an_ipv4_address() {
    assert_eq!(from("only_from = 10.0.0.0/8", &["::ffff:10.1.1.1", "::ffff:11.1.1.1"]), "10");
}

#[test]
fn hours() {
    let hour = std::process::Command::new("date").arg("+%H").output().expect("date").stdout;
    let day = matches!(String::from_utf8_lossy(&hour).trim().parse(), Ok(6..18));
    let (open, closed) = if day {
        ("05:00-19:00", "20:00-21:00")
    } else {
        ("17:00-23:59 00:00-07:00", "12:00-13:00")
    };
    let place = Place::new();
    let decide = |times: &str| {
        let answer = place.decide(
            &format!("a stream tcp nowait @USER@ /bin/cat\n access_times = {times}\n"),
            "service=a",
        );
        answer.rsplit(' ').next().expect("a word").to_string()
    };
    assert!(decide(open).ends_with(":1"));
    assert_eq!(decide(closed), "hours");
    assert!(decide(&format!("{closed} {open}")).ends_with(":1"));
}

#[test]
fn by_real_connections() {
    let conf = "a stream tcp nowait @USER@ /bin/echo echo a\n only_from = 127.0.0.2\nb stream tcp nowait @USER@ /bin/echo echo b\n no_access = 127.0.0.2\n";
    let d = Daemon::with(conf).start();
    let ask = |from: &str, name: &str| d.connect_from(from).send(format!("{name}\r\n")).read_all();
    same(ask("127.0.0.2", "a"), "+Go\r\na\n");
    same(ask("127.0.0.1", "a"), NOT_AVAILABLE);
    same(ask("127.0.0.2", "b"), NOT_AVAILABLE);
    same(ask("127.0.0.1", "b"), "+Go\r\nb\n");
    same(ask("127.0.0.2", "HELP"), format!("a\r\n{BUILTINS}"));
    same(ask("127.0.0.1", "HELP"), format!("b\r\n{BUILTINS}"));
    d.wait_log("REFUSE service=b host= from=127.0.0.2 reason=address");
}

#[test]
fn a_mapped_client_is_matched_by_its_ipv4_address() {
    if !has_ipv6() {
        return;
    }
    let conf = "a stream tcp nowait @USER@ /bin/echo echo a\n only_from = 127.0.0.0/8\nb stream tcp nowait @USER@ /bin/echo echo b\n only_from = ::/0\n";
    let d = Daemon::with(conf).listen("[::]:0").start();
    let to = |ip: &str| std::net::SocketAddr::new(ip.parse().expect("ip"), d.address().port());
    let ask = |ip: &str, name: &str| Client::connect(to(ip)).send(format!("{name}\r\n")).read_all();
    same(ask("127.0.0.1", "a"), "+Go\r\na\n");
    same(ask("::1", "a"), NOT_AVAILABLE);
    same(ask("127.0.0.1", "b"), NOT_AVAILABLE);
    same(ask("::1", "b"), "+Go\r\nb\n");
}
