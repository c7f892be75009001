//! Who may use a service: what becomes of the rules of such a file.

use super::super::super::users::UserSpec;
use super::super::mistake::Weight;
use super::tests::{printed, read, service};

/// As the real xinetd 2.3.15 has it.
#[test]
fn each_file_may_have_defaults_and_they_add_up() {
    let defaults = |text: &str| format!("defaults\n{{\n{text}}}\n");
    let main = defaults(" only_from = 10.0.0.1\n instances = 3\n") + "include d\n";
    let more = defaults(" only_from = 10.0.0.2\n instances = 1\n umask = 077\n");
    let (table, said) = read(&[
        ("/x", &(main.clone() + "include e\n" + &service("ssh", ""))),
        ("/d", &more),
        ("/e", &defaults(" only_from -= 10.0.0.1\n disabled = ssh\n")),
    ]);
    assert_eq!(printed(&table, "only_from"), "10.0.0.2/32");
    assert_eq!(
        (printed(&table, "instances"), printed(&table, "umask")),
        ("3".into(), "077".into())
    );
    assert_eq!(table.services()[0].places.last("disable"), Some(("/e".into(), 4)));
    let said: Vec<_> = said.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        ["/d:4: instances: expected it once, found it a second time: the line is left out"]
    );
    let (table, said) = read(&[
        ("/x", &(main + &service("ssh", "") + &defaults(" only_from = 0.0.0.0/0\n"))),
        ("/d", &more.replace(" instances = 1\n", "")),
    ]);
    assert_eq!(printed(&table, "only_from"), "10.0.0.1/32 10.0.0.2/32");
    let said: Vec<_> = said.iter().map(ToString::to_string).collect();
    let second = "expected one `defaults` in a file, found a second one: it is left out";
    assert_eq!(said, [format!("/x:14: defaults: {second}")]);
}

/// Without them the rules in them would hold for no service: there is no table then. xinetd serves
/// all services without the rest of such a block.
#[test]
fn defaults_that_cannot_be_read_are_a_mistake_with_its_line() {
    let brace = "expected { alone on the next line";
    let row = service("ssh", "");
    for (before, after, wanted) in [
        (
            "defaults\n{\n instances=5\n only_from = 10.0.0.1\n}\n",
            "",
            "3: instances=5: expected a blank before the =, found none".to_string(),
        ),
        (
            "defaults\n{\n log_on_success PID\n}\n",
            "",
            "3: log_on_success: expected =, += or -= after the attribute, found none".into(),
        ),
        ("defaults {\n only_from = 10.0.0.1\n}\n", "", format!("1: {{: {brace}")),
        ("defaults x\n{\n only_from = 10.0.0.1\n}\n", "", format!("1: x: {brace}")),
        (
            "defaults\n only_from = 10.0.0.1\n}\n",
            "",
            "2: only_from = 10.0.0.1: expected { alone on this line".into(),
        ),
        (
            "",
            "defaults\n{\n only_from = 10.0.0.1\n",
            "11: expected } at the end of the block of line 8, found none".into(),
        ),
    ] {
        let (_, said) = read(&[("/x", &(before.to_string() + &row + after))]);
        let refused: Vec<_> = said.iter().filter(|m| m.weight == Weight::Refused).collect();
        let lines: Vec<_> = refused.iter().map(ToString::to_string).collect();
        assert_eq!(lines, [format!("/x:{wanted}")], "{before}{after}");
    }
}

/// As the real xinetd has it: an IPv4 client of a socket of both families is one of IPv6 to it.
#[test]
fn a_network_of_ipv6_with_all_of_ipv4_in_it_stands_for_ipv4_too() {
    for (lines, name, wanted) in [
        (" no_access = ::/0\n", "no_access", "::/0 0.0.0.0/0"),
        (" only_from = ::/64 10.0.0.1\n", "only_from", "::/64 10.0.0.1/32 0.0.0.0/0"),
        (" only_from = ::/0\n only_from -= ::/0\n", "only_from", ""),
        (" no_access = ::/0 0.0.0.0/0\n no_access -= ::/0\n", "no_access", "0.0.0.0/0"),
        (" no_access = 2000::/3 ::/128\n", "no_access", "2000::/3 ::/128"),
        (" no_access = ::/0\n flags = IPv4\n", "no_access", "::/0"),
        (" bind = 192.0.2.1\n only_from = ::/0\n", "only_from", "::/0"),
    ] {
        let (table, _) = read(&[("/x", &service("ssh", lines))]);
        assert_eq!(printed(&table, name), wanted, "{lines}");
    }
    let (_, said) = read(&[("/x", &service("ssh", " only_from = ::\n"))]);
    let what = "stands for all of IPv6; xinetd takes it for this one address";
    assert_eq!(said[0].to_string(), format!("/x:7: ::: {what}"));
    let (table, _) =
        read(&[("/x", &format!("defaults\n{{\n no_access = ::/0\n}}\n{}", service("ssh", "")))]);
    assert_eq!(printed(&table, "no_access"), "::/0 0.0.0.0/0");
}

/// The real xinetd lets nobody of such a network in.
#[test]
fn who_writes_a_network_that_xinetd_does_not_know_is_told() {
    for (word, what) in [
        ("10.9", "a network; xinetd takes it for another address, or for the name of a host"),
        ("10.", "a network; xinetd takes it for another address, or for the name of a host"),
        ("10.9.0.0/255.255.0.0", "a network of this mask; xinetd takes it for this one address"),
        ("10.9.0.0", ""),
        ("10.9.0.0/16", ""),
        ("10.9.{1,2}", ""),
        ("0.0.0.0/0.0.0.0", ""),
        ("fd00::/16", ""),
        ("host.example", ""),
    ] {
        let (_, said) = read(&[("/x", &service("ssh", &format!(" only_from = {word}\n")))]);
        let said: Vec<_> = said.iter().map(ToString::to_string).collect();
        let wanted = format!("/x:7: {word}: {what}");
        assert_eq!(said, Vec::from_iter((!what.is_empty()).then_some(wanted)), "{word}");
    }
}

#[test]
fn a_users_name_may_have_a_dot() {
    for user in ["x.y", "u"] {
        let text = service("ssh", "").replace("user = u", &format!("user = {user}"));
        let (table, said) = read(&[("/x", &text)]);
        assert_eq!(said, []);
        let named = UserSpec::Named { user: user.into(), group: None };
        assert_eq!(table.services()[0].user, named);
    }
}

/// The real xinetd does not start such a server where hosts.deny refuses everybody.
#[test]
fn who_accepts_by_itself_is_not_served_where_hosts_access_has_a_rule() {
    let wait = |more: &str| service("ssh", more).replace("wait = no", "wait = yes");
    let rule = &[("/etc/hosts.deny", "ALL: ALL")][..];
    let off = |text: String, more: &[(&str, &str)]| {
        let (table, said) = read(&[&[("/x", text.as_str())], more].concat());
        (printed(&table, "disable"), said.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let (disable, said) = off(wait(""), rule);
    assert_eq!((disable.as_str(), said.len()), ("yes", 1));
    assert!(said[0].starts_with("/x:4: wait: not served: hosts.allow or hosts.deny"), "{said:?}");
    for (text, more) in [
        (wait(""), &[][..]),
        (wait(" flags = NOLIBWRAP\n"), rule),
        (service("ssh", ""), rule),
        (wait("").replace("stream", "dgram"), rule),
    ] {
        let (disable, said) = off(text.replace("ssh", "time"), more);
        assert_eq!((disable.as_str(), said), ("no", vec![]), "{text}");
    }
}

#[test]
fn who_has_services_of_datagrams_is_told_how_they_differ() {
    let text = "service time\n{\n type = INTERNAL\n socket_type = dgram\n wait = yes\n}\n";
    let said = read(&[("/x", text)]).1;
    let what = "no answer is larger than the datagram that asks for it: an empty one gets none";
    assert_eq!(said[0].to_string(), format!("/x:1: time: {what}"));
}

/// Each of these differs, not the first alone.
#[test]
fn every_default_that_holds_for_more_services_than_in_xinetd_is_told() {
    let late = "defaults\n{\n only_from = 10.0.0.1\n passenv = A\n only_from += ::1\n no_access = 10.0.0.2\n}\n";
    let (_, said) = read(&[("/x", &(service("ssh", "") + late))]);
    let what = "holds for the services before it, too; in xinetd for those after it alone";
    let said: Vec<_> = said.iter().map(ToString::to_string).filter(|l| l.ends_with(what)).collect();
    let wanted = ["10: only_from", "11: passenv", "13: no_access"];
    assert_eq!(said, wanted.map(|at| format!("/x:{at}: {what}")));
}

/// xinetd calls initgroups(3) with the user's own group.
#[test]
fn a_group_in_place_of_the_users_own_is_told_where_groups_is_yes() {
    let what = "stands in place of the user's own group; with `groups = yes` xinetd has both";
    for (defaults, lines, told) in [
        ("", " group = adm\n groups = YES\n", true),
        (" groups = yes\n", " group = adm\n", true),
        (" groups = yes\n", " group = adm\n groups = no\n", false),
        ("", " group = adm\n", false),
        ("", " groups = yes\n", false),
    ] {
        let text = format!("defaults\n{{\n{defaults}}}\n{}", service("ssh", lines));
        let (_, said) = read(&[("/x", &text)]);
        assert_eq!(said.iter().any(|m| m.what == what && m.word == "group"), told, "{text}");
    }
}

/// xinetd refuses it, as fived does not: such a service begins to be served.
#[test]
fn a_service_that_logs_traffic_without_redirect_is_told() {
    let defaults = "defaults\n{\n log_on_success = PID TRAFFIC\n}\n";
    let what = "served with TRAFFIC, which xinetd does not serve without `redirect`";
    for (defaults, lines, told) in [
        ("", " log_on_success = TRAFFIC\n", Some(7)),
        ("", " log_on_success += PID traffic\n", Some(7)),
        (defaults, "", Some(5)),
        (defaults, " log_on_success -= TRAFFIC\n", None),
        (defaults, " log_on_success = PID\n", None),
        ("", " log_on_success = TRAFFIC\n redirect = 127.0.0.1 7\n", None),
        ("", " log_on_success = PID\n", None),
    ] {
        let (_, said) = read(&[("/x", &(defaults.to_string() + &service("ssh", lines)))]);
        let found = said.iter().find(|m| m.what == what).map(|m| (m.line, m.word.as_str()));
        assert_eq!(found, told.map(|line| (line, "log_on_success")), "{defaults}{lines}");
    }
}
