//! The grammar, from text to rows.

use super::super::super::backend::Backend;
use super::super::super::origin::{Grammar, Origin};
use super::super::super::table::Table;
use super::super::entry::{Files, Printed};
use super::super::load::load;
use super::super::mistake::{Mistake, Weight};
use super::attributes::ATTRIBUTES;
use proptest::prelude::*;
use std::collections::HashMap;
use std::net::IpAddr;

/// Files by their paths; ports of two services.
pub struct Kept(pub HashMap<String, Vec<u8>>);

impl Files for Kept {
    fn read(&mut self, path: &str) -> Result<Vec<u8>, String> {
        self.0.get(path).cloned().ok_or_else(|| "no such file".into())
    }

    fn list(&mut self, directory: &str) -> Result<Vec<String>, String> {
        let inside = |p: &String| Some(p.strip_prefix(directory)?.strip_prefix('/')?.to_string());
        Ok(self.0.keys().filter_map(inside).collect())
    }

    fn port(&mut self, name: &str, protocol: &str) -> Option<u16> {
        match (name, protocol) {
            ("ssh", "tcp") => Some(22),
            ("time", "tcp" | "udp") => Some(37),
            // services(5) may be in a directory, too, which need not be asked for that.
            _ if name.bytes().all(|b| b.is_ascii_digit()) => panic!("{name}: not a name"),
            _ => None,
        }
    }

    fn has_access_rules(&mut self) -> bool {
        self.0.contains_key("/etc/hosts.deny")
    }

    fn host(&mut self, name: &str) -> Result<Vec<IpAddr>, String> {
        let address = |a: &str| a.parse().expect("an address");
        match name {
            "one6" => Ok(vec![address("2001:db8::1")]),
            "two4" => Ok(["192.0.2.1", "192.0.2.2"].map(address).into()),
            "both" => Ok(["2001:db8::1", "192.0.2.1"].map(address).into()),
            _ => Err("no address found".into()),
        }
    }
}

pub(super) fn read(files: &[(&str, &str)]) -> (Table, Vec<Mistake>) {
    let files = files.iter().map(|(p, t)| (p.to_string(), t.as_bytes().to_vec()));
    load(&Origin::new(Grammar::Xinetd, "/x"), &mut Kept(files.collect()))
}

/// A service of that name, with more lines.
pub(super) fn service(name: &str, more: &str) -> String {
    format!(
        "service {name}\n{{\n socket_type = stream\n wait = no\n user = u\n server = /s/d\n{more}}}\n"
    )
}

/// What is said of a text, without its file.
pub(super) fn remarks(text: &str) -> Vec<String> {
    let all = read(&[("/x", text)]).1;
    all.iter().map(|m| m.to_string().trim_start_matches("/x:").to_string()).collect()
}

/// An attribute of a table's first service, as -T prints it.
pub(super) fn printed(table: &Table, name: &str) -> String {
    let entry = super::super::super::attributes::ATTRIBUTES.iter().find(|e| e.name == name);
    match (entry.expect("an attribute").print)(&table.services()[0].attributes) {
        Printed::Words(words) => words,
        other => format!("{other:?}"),
    }
}

#[test]
fn a_service_is_a_row_with_a_port() {
    let more = " server_args = -i  -x\n only_from = 10.0.0.0 net\n id = other\n BIND = ::1\n env = A=b\n env += C=d\n";
    let (table, remarks) =
        read(&[("/x", &service("ssh", more)), ("/etc/networks", "net 192.0.2.0 # a\n")]);
    let remarks: Vec<_> = remarks.iter().map(ToString::to_string).collect();
    let what = "the network of this name; xinetd takes it for its first address alone";
    assert_eq!(remarks, [format!("/x:8: net: {what}")]);
    let [row] = table.services() else { panic!("one row") };
    assert_eq!((row.name.as_str(), row.line), ("other", 1));
    let Backend::Exec { program, arguments } = &row.backend else { panic!("a program") };
    assert_eq!((program.as_str(), arguments.join(" ").as_str()), ("/s/d", "d -i -x"));
    for (name, value) in [
        ("port", "'[::1]:22'"),
        ("tcpmux", "no"),
        ("only_from", "10.0.0.0/8 192.0.2.0/24"),
        ("cps", "50 10"),
        ("groups", "no"),
        ("env", "A=b C=d"),
        ("log_on_success", ""),
        ("disable", "no"),
    ] {
        assert_eq!(printed(&table, name), value, "{name}");
    }
    assert_eq!(table.settings.listen, [], "nobody is reached by a name");
}

#[test]
fn defaults_hold_for_every_service_wherever_they_stand() {
    let defaults = "defaults\n{\n only_from = 10.0.0.1\n only_from = 10.0.0.2\n instances = 7\n umask = 077\n}\n";
    let all = format!("{}include d\n", service("ssh", " only_from -= 10.0.0.1\n instances = 8\n"));
    let (table, remarks) = read(&[("/x", &all), ("/d", defaults)]);
    assert_eq!(
        remarks.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "/d:3: only_from: holds for the services before it, too; in xinetd for those after it alone"
        ]
    );
    assert_eq!(printed(&table, "only_from"), "10.0.0.2/32");
    assert_eq!(
        (printed(&table, "instances"), printed(&table, "umask")),
        ("8".into(), "077".into())
    );
}

#[test]
fn what_is_wrong_switches_its_service_off_and_no_other() {
    let text = service("ssh", " instances = many\n nice = 5\n") + &service("time", "");
    let (table, remarks) = read(&[("/x", &text)]);
    let [mistake] = &remarks[..] else { panic!("{remarks:?}") };
    assert_eq!(mistake.weight, Weight::LeftOut);
    assert_eq!(
        mistake.to_string(),
        r#"/x:7: instances: expected a number or UNLIMITED, found "many": the service is switched off"#
    );
    let off = |t: &Table| t.services().iter().map(|s| s.attributes.disable).collect::<Vec<_>>();
    assert_eq!(off(&table), [true, false]);
    let text = "defaults\n{\n instances = many\n}\n".to_string() + &service("ssh", "");
    assert_eq!(read(&[("/x", &text)]).1[0].weight, Weight::Refused);
}

#[test]
fn each_line_that_is_wrong_is_told() {
    for (more, wanted) in [
        (" nicer = 1\n", "7: nicer: expected nice, found an unknown name: the line is left out"),
        (" nice = 1 2\n", "7: nice: expected one word, found 2: the line is left out"),
        (
            " nice = 1\n nice = 2\n",
            "8: nice: expected it once, found it a second time: the line is left out",
        ),
        (
            " bind = 127.0.0.1\n interface = 0.0.0.0\n",
            "8: interface: expected it once, found it a second time: the line is left out",
        ),
        (
            " nice += 1\n",
            "7: nice: expected `=`, because the attribute is not a list, found `+=` or `-=`: the line is left out",
        ),
        (
            " enabled = a\n",
            "7: enabled: expected it in defaults, found it in a service: the line is left out",
        ),
        (" nice= 1\n", "7: nice=: expected a blank before the =, found none"),
        (" nice 1\n", "7: nice: expected =, += or -= after the attribute, found none"),
        (
            " nice = 1 # more\n",
            "7: #: a comment begins here; xinetd takes it for part of the value",
        ),
        (
            " port = 23\n",
            "7: port: expected 22, as in services(5), or UNLISTED in `type`, found 23: the service is switched off",
        ),
        (
            " id = tcpmux/a\n",
            "1: tcpmux/a: expected a name without tcpmux/, found \"tcpmux/a\": the service is switched off",
        ),
        (" type = RPC\n", "7: RPC: not served: fived does not register it with rpcbind"),
        (" flags = INTERCEPT\n", "7: INTERCEPT: not served: a flag that fived does not have"),
        (" banner = /none\n", "7: banner: /none: no such file: nothing is sent"),
        (
            " env = \"A=b\"\n",
            "7: env: \"A=b\": expected a variable's name, of letters, digits and _, found \"\\\"A\": it is left out (xinetd knows no quotes)",
        ),
        (" v6only = no\n", "7: v6only: serves IPv4 too; xinetd takes no for yes"),
    ] {
        assert_eq!(remarks(&service("ssh", more)), [wanted]);
    }
    assert_eq!(
        remarks("service ssh {\n}\nnonsense\n}\nservice ssh\n{\n"),
        [
            "1: {: expected { alone on the next line: everything up to the next } is left out",
            "3: nonsense: expected service, defaults, include or includedir: everything up to the next } is left out",
            "7: expected } at the end of the block of line 5, found none",
        ]
    );
}

#[test]
fn what_is_wrong_is_told_at_the_line_that_says_it() {
    let text = "service ssh\n{\n socket_type = stream\n protocol = udp\n wait = no\n user = a:b\n server = cat\n bind = none\n}\n";
    assert_eq!(
        remarks(text),
        [
            r#"4: protocol: expected tcp, found "udp": the service is switched off"#,
            r#"6: user: expected a user's name without : and /, found "a:b": the service is switched off"#,
            r#"7: server: expected an absolute path, found "cat": the service is switched off"#,
            r#"8: bind: expected an address or the name of a host, found "none": no address found: the service is switched off"#,
        ]
    );
    // What a service has of defaults is told at the service: they may be of another file.
    let of = |default: &str, name: &str, more: &str| {
        let text = format!("# 1\n# 2\ndefaults\n{{\n {default}\n}}\ninclude /y\n");
        let all = read(&[("/x", &text), ("/y", &service(name, more))]).1;
        all.iter().map(ToString::to_string).rfind(|m| m.starts_with("/y")).expect("a remark")
    };
    let open = of("v6only = yes", "tcpmux", " type = INTERNAL\n");
    assert!(open.starts_with("/y:1: v6only: not served: "), "{open}");
    let nowhere = of("bind = none", "ssh", "");
    assert!(nowhere.starts_with("/y:1: bind: expected "), "{nowhere}");
}

#[test]
fn a_row_that_its_file_switches_off_is_quiet_but_for_mistakes() {
    let text = service("ssh", " type = RPC\n v6only = no\n disable = yes\n nice = x\n");
    let (table, remarks) = read(&[("/x", &text)]);
    assert_eq!(remarks.iter().map(|m| m.weight).collect::<Vec<_>>(), [Weight::Noted]);
    assert!(table.services()[0].attributes.disable);
    let ids = "defaults\n{\n enabled = a b\n disabled = b\n}\n";
    let rows = ["a", "b", "c"].map(|id| service("time", &format!(" id = {id}\n"))).concat();
    let (table, _) = read(&[("/x", &(ids.to_string() + &rows))]);
    let on = table.services().iter().filter(|s| !s.attributes.disable);
    assert_eq!(on.map(|s| s.name.as_str()).collect::<Vec<_>>(), ["a"]);
}

#[test]
fn hosts_access_is_asked_for_the_daemon_that_xinetd_asks_for() {
    for (name, more, daemon) in [
        ("ssh", "", Some("d")),
        ("ssh", " flags = NOLIBWRAP\n", None),
        ("ssh", " libwrap = other\n", Some("other")),
        ("ssh", " flags = NAMEINARGS\n server_args = /s/e -i\n", Some("e")),
        ("time", " type = INTERNAL\n id = t\n", Some("time")),
    ] {
        let (table, _) = read(&[("/x", &service(name, more))]);
        assert_eq!(table.services()[0].libwrap_daemon(), daemon, "{more}");
    }
}

#[test]
fn a_redirect_is_a_server_that_runs_already() {
    for (words, upstream) in [
        ("192.0.2.1 23", "192.0.2.1:23"),
        ("::1 1", "[::1]:1"),
        ("a.example 7", "a.example:7"),
        ("b ssh", "b:22"),
    ] {
        let (table, remarks) = read(&[("/x", &service("ssh", &format!(" redirect = {words}\n")))]);
        assert_eq!(remarks, []);
        let row = &table.services()[0];
        let Backend::Redirect(all) = &row.backend else { panic!("{:?}", row.backend) };
        assert_eq!((all.len(), all[0].to_string().as_str()), (1, upstream));
        assert_eq!(row.libwrap_daemon(), Some("ssh"));
    }
    let wrong = remarks(&service("ssh", " redirect = host nothing\n"));
    assert!(wrong[0].starts_with("7: redirect: expected"), "{wrong:?}");
}

#[test]
fn a_sensor_has_its_time_in_seconds() {
    for (time, seconds) in
        [(" deny_time = 2\n", "120"), (" deny_time = FOREVER\n", "UNLIMITED"), ("", "0")]
    {
        let text = format!(
            "service ssh\n{{\n flags = SENSOR\n socket_type = stream\n wait = no\n{time}}}\n"
        );
        let (table, remarks) = read(&[("/x", &text)]);
        assert_eq!((remarks, printed(&table, "deny_time").as_str()), (vec![], seconds));
        assert_eq!(table.services()[0].backend, Backend::Sensor);
    }
}

/// A name that has one address is that address; of several the flags say which.
#[test]
fn bind_takes_the_address_that_xinetd_would_take() {
    for (bind, flags, port) in [
        ("one6", "", "[2001:db8::1]:22"),
        ("two4", "", "192.0.2.1:22"),
        ("both", "", "192.0.2.1:22"),
        ("both", " flags = IPv4\n", "192.0.2.1:22"),
        ("both", " flags = IPv6\n", "[2001:db8::1]:22"),
    ] {
        let text = service("ssh", &format!(" bind = {bind}\n{flags}"));
        let (table, said) = read(&[("/x", &text)]);
        let at = printed(&table, "port");
        assert_eq!((at.trim_matches('\''), said.len()), (port, 0), "{bind}{flags}");
    }
    for (bind, flags, what) in [
        ("none", "", "found \"none\": no address found"),
        ("two4", " flags = IPv6\n", "several addresses, and none of IPv6"),
        ("one6", " flags = IPv4\n", "expected an IPv4 address in `bind`"),
        ("fe80::1%lo", "", "without an interface"),
    ] {
        let text = service("ssh", &format!(" bind = {bind}\n{flags}"));
        let said = remarks(&text);
        assert!(said.len() == 1 && said[0].contains(what), "{said:?}");
        assert!(read(&[("/x", &text)]).0.services()[0].attributes.disable);
    }
}

#[test]
fn beside_rows_of_fived() {
    let conf = "xinetd = /y\ninstances = 3\n[h]\na stream tcp nowait u /p\n";
    let files = [("/x".to_string(), conf.into()), ("/y".to_string(), service("ssh", "").into())];
    let (table, remarks) = load(&Origin::new(Grammar::Fived, "/x"), &mut Kept(files.into()));
    assert_eq!(remarks, []);
    let names: Vec<_> = table.services().iter().map(|s| s.name.as_str()).collect();
    assert_eq!((names, printed(&table, "instances")), (vec!["ssh", "a"], "UNLIMITED".into()));
    assert_eq!(table.settings.listen.len(), 1, "a row of fived.conf is reached by its name");
}

#[test]
fn each_attribute_is_there_once() {
    for (n, a) in ATTRIBUTES.iter().enumerate() {
        assert!(ATTRIBUTES[..n].iter().all(|b| b.name != a.name), "{}", a.name);
    }
}

proptest! {
    /// Whatever the text, what is read of it is printed, and read again, as the same table.
    #[test]
    fn any_text_is_read_and_comes_back(
        lines in prop::collection::vec(
            (0..ATTRIBUTES.len() + 8,
             prop::sample::select(vec!["=", "+=", "-=", ""]),
             prop::sample::select(vec![
                 "", "1", "yes", "no", "10. ::1", "/a", "A='b c'", "HOST", "01:00-24:00", "5 0",
                 "UNLISTED", "TCPMUX", "IPv4", "stream", "tcp", "SENSOR", "a.b", "#", "é\u{7f}",
             ])),
            0..24,
        ),
    ) {
        let more = ["service ssh", "service x {", "{", "}", "defaults", "include /x", "service tcpmux", " wait = no\n user = u\n server = /a"];
        let mut text = String::from("service ssh\n{\n");
        for (n, operator, value) in &lines {
            text += &match ATTRIBUTES.get(*n) {
                Some(a) => format!(" {} {operator} {value}\n", a.name),
                None => format!("{}\n", more[n - ATTRIBUTES.len()]),
            };
        }
        text += " wait = no\n socket_type = stream\n user = u\n server = /a\n}\n";
        let (table, _) = read(&[("/x", &text)]);
        let files = [("/x".to_string(), table.print().into_bytes()), ("/a".into(), Vec::new())];
        let (again, remarks) = load(&Origin::new(Grammar::Fived, "/x"), &mut Kept(files.into()));
        prop_assert_eq!(remarks, vec![]);
        prop_assert_eq!(again.print(), table.print());
    }

    #[test]
    fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let files = [("/x".to_string(), bytes)];
        let _ = load(&Origin::new(Grammar::Xinetd, "/x"), &mut Kept(files.into()));
    }
}
