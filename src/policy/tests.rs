//! Decisions: a text and facts in, a value out; time is handed in.

use super::*;
use std::time::Duration;

/// A configuration of one file.
struct One<'a>(&'a str);

impl Files for One<'_> {
    fn read(&mut self, _: &str) -> Result<Vec<u8>, String> {
        Ok(self.0.into())
    }

    fn list(&mut self, _: &str) -> Result<Vec<String>, String> {
        Ok(Vec::new())
    }
}

fn table(text: &str) -> Table {
    let (table, mistakes) = load(&Origin::new(Grammar::Fived, "c"), &mut One(text));
    assert_eq!(mistakes, [], "{text}");
    table
}

/// A client of the default host at noon, not encrypted, not logged in.
pub(super) fn from(peer: &str) -> Facts {
    Facts {
        peer: peer.parse().expect("a client"),
        host: HostId::DEFAULT,
        encrypted: false,
        login: None,
        minute: 12 * 60,
        peer_name: PeerName::NotAsked,
        reached: Reached::ByName,
    }
}

fn logged_in(name: &str, superuser: bool) -> Facts {
    let login = Some(Login { name: name.into(), groups: GroupSet::default(), superuser });
    Facts { login, ..from("192.0.2.1") }
}

const FIRST: ServiceId = ServiceId(0);

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// The answer to one more start of the first service.
fn start(limits: &mut Limits, table: &Table, peer: &str, now: u64) -> Result<Ticket, Refusal> {
    limits.permit(table, FIRST, &from(peer), seconds(now), || 0.5).map(Permit::into_ticket)
}

#[test]
fn the_place_of_a_setting_is_its_line_or_the_file() {
    let t = table("mptcp = yes\nkeepalive = 5\n[one]\n[two]\nkey = /k\n");
    let of = |host, setting| t.place(HostId(host), setting);
    assert_eq!((of(0, "keepalive"), of(0, "state_directory")), ("c:2".into(), "c".into()));
    assert_eq!((of(2, "key"), of(2, "certificate")), ("c:5".into(), "c:4".into()));
}

fn busy(answer: Result<Ticket, Refusal>) -> Busy {
    match answer {
        Err(Refusal::Busy(busy)) => busy,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_query_names_a_service_and_perhaps_its_client() {
    let q = Query::read("service=a").expect("a query");
    assert_eq!((q.host, q.peer, q.user, q.tls), (None, None, None, false));
    let q = Query::read("service=a,host=h,addr=uid:7,user=u,tls=yes").expect("a query");
    assert_eq!((&*q.service, q.host.as_deref()), ("a", Some("h")));
    assert_eq!((q.peer, q.user.as_deref(), q.tls), (Some(Peer::User(7)), Some("u"), true));
    for (text, wrong) in [
        ("host=h", "expected service=NAME, found none"),
        ("service=a,tls=perhaps", "tls=perhaps: expected tls=yes or tls=no"),
        ("service=a,b", "b: expected service=, host=, addr=, user= or tls="),
        (
            "service=a,tls=yes,tls=no",
            "tls=no: expected each of service=, host=, addr=, user= or tls= once, found it a second time",
        ),
    ] {
        let why = Query::read(text).expect_err(text);
        assert!(why.starts_with(wrong), "{why}");
    }
}

#[test]
fn a_query_is_decided_by_name_and_else_at_ports() {
    let t = table(
        "a stream tcp nowait u /p\n only_from = 192.0.2.0/24\n\
         b stream tcp nowait u /p\n tcpmux = no\n port = 7\n no_access = 192.0.2.1\n\
         b stream tcp nowait u /p\n tcpmux = no\n tls_port = 8\n require = tls\n",
    );
    let ask = |service: &str, facts: &Facts| {
        t.decide(&Query::read(&format!("service={service}")).expect("a query"), facts)
    };
    assert_eq!(ask("A", &from("192.0.2.1")), "allow a c:1");
    assert_eq!(ask("a", &from("203.0.113.1")), "deny a c:2 address");
    assert_eq!(ask("b", &from("203.0.113.1")), "allow b c:3");
    // Another row of the same name has another port, where its client is in TLS.
    assert_eq!(ask("b", &from("192.0.2.1")), "allow b c:7");
    assert_eq!(ask("c", &from("192.0.2.1")), "deny c - unknown");
}

#[test]
fn so_many_at_a_time() {
    let t = table("a stream tcp nowait u /p\n instances = 3\n per_source = 2\n");
    let mut limits = Limits::new();
    let first = start(&mut limits, &t, "192.0.2.1", 0).expect("a permit");
    start(&mut limits, &t, "192.0.2.1", 0).expect("a permit");
    assert_eq!(busy(start(&mut limits, &t, "192.0.2.1", 0)), Busy::PerSource);
    start(&mut limits, &t, "192.0.2.2", 0).expect("a permit");
    assert_eq!(busy(start(&mut limits, &t, "192.0.2.3", 0)), Busy::Instances);
    limits.release(first);
    start(&mut limits, &t, "192.0.2.1", 0).expect("a permit");
}

#[test]
fn what_runs_is_counted_after_a_reload_too() {
    let conf = |n: u32| table(&format!("a stream tcp nowait u /p\n instances = {n}\n"));
    let mut limits = Limits::new();
    start(&mut limits, &conf(1), "192.0.2.1", 0).expect("a permit");
    assert_eq!(busy(start(&mut limits, &conf(1), "192.0.2.1", 0)), Busy::Instances);
    start(&mut limits, &conf(2), "192.0.2.1", 0).expect("a permit");
}

#[test]
fn so_many_of_all_services() {
    let t = table("max_services = 3\nmax_services_per_source = 2\na stream tcp nowait u /p\n");
    let mut limits = Limits::new();
    start(&mut limits, &t, "2001:db8::1", 0).expect("a permit");
    // The same network of 64 bits.
    start(&mut limits, &t, "2001:db8::2", 0).expect("a permit");
    assert_eq!(busy(start(&mut limits, &t, "2001:db8::3", 0)), Busy::SourceServices);
    start(&mut limits, &t, "192.0.2.1", 0).expect("a permit");
    assert_eq!(busy(start(&mut limits, &t, "192.0.2.2", 0)), Busy::Services);
}

#[test]
fn so_many_a_second() {
    let t = table("a stream tcp nowait u /p\n cps = 2 5\n");
    let mut limits = Limits::new();
    start(&mut limits, &t, "192.0.2.1", 10).expect("a permit");
    start(&mut limits, &t, "192.0.2.1", 10).expect("a permit");
    assert_eq!(busy(start(&mut limits, &t, "192.0.2.1", 10)), Busy::Cps);
    // For five seconds nobody is served.
    assert_eq!(busy(start(&mut limits, &t, "192.0.2.1", 14)), Busy::Cps);
    start(&mut limits, &t, "192.0.2.1", 15).expect("a permit");
}

#[test]
fn so_many_a_minute_also_when_nothing_runs() {
    let t = table("a stream tcp nowait/0/2 u /p\n");
    let mut limits = Limits::new();
    for _ in 0..2 {
        let ticket = start(&mut limits, &t, "192.0.2.1", 100).expect("a permit");
        limits.release(ticket);
    }
    limits.tidy(seconds(120));
    assert_eq!(busy(start(&mut limits, &t, "192.0.2.1", 159)), Busy::PerSource);
    start(&mut limits, &t, "192.0.2.2", 159).expect("a permit");
    limits.tidy(seconds(160));
    start(&mut limits, &t, "192.0.2.1", 160).expect("a permit");

    let t = table("a stream tcp nowait:1 u /p\n");
    let mut limits = Limits::new();
    start(&mut limits, &t, "192.0.2.1", 100).expect("a permit");
    assert_eq!(busy(start(&mut limits, &t, "192.0.2.2", 159)), Busy::Cps);
    start(&mut limits, &t, "192.0.2.2", 160).expect("a permit");
}

#[test]
fn who_starts_too_often_takes_no_place() {
    let t = table("a stream tcp nowait/0/1 u /p\n instances = 2\n");
    let mut limits = Limits::new();
    start(&mut limits, &t, "192.0.2.1", 100).expect("a permit");
    for _ in 0..3 {
        assert_eq!(busy(start(&mut limits, &t, "192.0.2.1", 100)), Busy::PerSource);
    }
    start(&mut limits, &t, "192.0.2.2", 100).expect("a permit");
    assert_eq!(busy(start(&mut limits, &t, "192.0.2.3", 100)), Busy::Instances);
}

#[test]
fn the_load_is_asked_only_where_it_matters() {
    let t = table("a stream tcp nowait u /p\n max_load = 2\nb stream tcp nowait u /p\n");
    let (mut limits, facts) = (Limits::new(), from("192.0.2.1"));
    let high = limits.permit(&t, FIRST, &facts, seconds(0), || 2.5);
    assert_eq!(high.map(|_| ()), Err(Refusal::Busy(Busy::MaxLoad)));
    assert!(limits.permit(&t, FIRST, &facts, seconds(0), || 1.5).is_ok());
    let never = || panic!("the load of a service without max_load");
    assert!(limits.permit(&t, ServiceId(1), &facts, seconds(0), never).is_ok());
}

#[test]
fn who_is_denied_takes_no_place() {
    let t = table("a stream tcp nowait u /p\n instances = 1\n require = tls\n");
    let mut limits = Limits::new();
    let denied = start(&mut limits, &t, "192.0.2.1", 0).map(|_| ());
    assert_eq!(denied, Err(Refusal::Denied(Denied::Tls)));
    let tls = Facts { encrypted: true, ..from("192.0.2.1") };
    assert!(limits.permit(&t, FIRST, &tls, seconds(0), || 0.5).is_ok());
}

#[test]
fn each_rule_has_its_reason() {
    let why = |row: &str, facts: &Facts| table(row).usable(FIRST, facts).err();
    let plain = from("192.0.2.1");
    let row = |more: &str| format!("a stream tcp nowait u /p\n {more}\n");
    for (text, facts, wanted) in [
        (row("nice = 1"), &plain, None),
        (row("disable = yes"), &plain, Some(Denied::Disabled)),
        (row("require = tls"), &plain, Some(Denied::Tls)),
        (row("require = login"), &plain, Some(Denied::Login)),
        (row("users = ann"), &plain, Some(Denied::Login)),
        (row("users = ann"), &logged_in("bob", false), Some(Denied::User)),
        (row("users = ann"), &logged_in("ann", false), None),
        (row("only_from = 10.0.0.0/8"), &plain, Some(Denied::Address)),
        (row("access_times = 11:00-12:00"), &plain, None),
        (row("access_times = 12:01-11:59"), &plain, Some(Denied::Hours)),
        ("a stream tcp6 nowait u /p\n".into(), &plain, Some(Denied::Address)),
        ("[h]\na stream tcp nowait u /p\n".into(), &plain, Some(Denied::Host)),
        ("a stream tcp nowait * /p\n".into(), &plain, Some(Denied::Login)),
        ("a stream tcp nowait * /p\n".into(), &logged_in("ann", false), None),
        // `*` is root only where the row names root.
        ("a stream tcp nowait * /p\n".into(), &logged_in("root", true), Some(Denied::Root)),
        ("a stream tcp nowait * /p\n users = root\n".into(), &logged_in("root", true), None),
    ] {
        assert_eq!(why(&text, facts), wanted, "{text}");
    }
}

/// Whatever the family of either: HELP, -C and the answer are the same.
#[test]
fn a_hosts_own_row_hides_the_row_of_all_hosts() {
    let t = table(
        "a stream tcp4 nowait u /p\nb stream tcp6 nowait u /p\nc stream tcp nowait u /p\n tcpmux = no\n port = 7\n\
         D stream tcp4 nowait u /p\nd stream tcp6 nowait u /p\n\
         [h]\n[*]\na stream tcp nowait u /p\nb stream tcp nowait u /p\nc stream tcp nowait u /p\nd stream tcp nowait u /p\n",
    );
    let h = t.host_named(b"h").expect("a host");
    for (host, address, help, lines) in [
        (
            HostId::DEFAULT,
            "192.0.2.1",
            "D a c",
            ["allow a c:1", "deny b c:2", "allow c c:12", "allow D c:6"],
        ),
        (
            HostId::DEFAULT,
            "::1",
            "b c d",
            ["deny a c:1", "allow b c:2", "allow c c:12", "allow d c:7"],
        ),
        (h, "::1", "a b c d", ["allow a c:10", "allow b c:11", "allow c c:12", "allow d c:13"]),
    ] {
        let facts = Facts { host, ..from(address) };
        let shown: Vec<&str> = t.help(&facts).collect();
        for (name, line) in ["a", "b", "c", "d"].into_iter().zip(lines) {
            let query = Query::read(&format!("service={name}")).expect("a query");
            assert_eq!(t.decide(&query, &facts).trim_end_matches(" address"), line, "{address}");
            let may = line.starts_with("allow");
            assert_eq!(t.allowed(name.as_bytes(), &facts).is_ok(), may, "{address} {name}");
            assert_eq!(t.find(host, name.as_bytes(), facts.peer).is_some(), may);
            assert_eq!(shown.iter().any(|s| s.eq_ignore_ascii_case(name)), may);
        }
        let mut shown = shown;
        shown.sort_unstable();
        assert_eq!(shown.join(" "), help, "{address}");
    }
}

#[test]
fn a_name_is_found_in_its_host_then_in_all() {
    let t = table(
        "a stream tcp4 nowait u /p\nA stream tcp6 nowait u /p\nb stream tcp nowait u /p\n hidden = yes\n\
         [h i]\na stream tcp nowait u /p\n[*]\na stream tcp nowait u /p\nc stream tcp nowait u /p\n",
    );
    let h = t.host_named(b"I").expect("a host");
    let v4 = from("192.0.2.1").peer;
    let find = |host, name: &[u8], peer| t.find(host, name, peer).map(|id| id.0);
    assert_eq!(find(HostId::DEFAULT, b"A", v4), Some(0));
    assert_eq!(find(HostId::DEFAULT, b"a", from("::1").peer), Some(1));
    assert_eq!(find(h, b"a", v4), Some(3));
    assert_eq!((find(h, b"b", v4), find(h, b"c", v4)), (None, Some(5)));
    assert_eq!(find(h, &[b'a'; 256], v4), None);
    let help = |facts: Facts| t.help(&facts).collect::<Vec<_>>().join(" ");
    assert_eq!(help(from("192.0.2.1")), "a c");
    assert_eq!(help(from("::1")), "A c");
    assert_eq!(help(Facts { host: h, ..from("::1") }), "a c");
}

#[test]
fn a_net_process_that_drains_waits_for_what_a_stream_begins_after_a_login() {
    let none = Duration::ZERO;
    let without_resume =
        Settings { resume_timeout: none, resume_timeout_anonymous: none, ..Settings::default() };
    let dialogue = without_resume.request_timeout + without_resume.login_timeout;
    assert_eq!(without_resume.begins_within(), 2 * dialogue);
    let kept = Settings::default();
    assert_eq!(kept.begins_within(), dialogue + kept.resume_timeout);
}

#[test]
fn numbers_are_words() {
    for n in 0.. {
        let Some(denied) = Denied::from_number(n) else { break };
        assert_eq!(denied.number(), n);
    }
}
