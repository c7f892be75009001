//! The tables of entries, the grammar and the printer, together.

use super::super::attributes::{ATTRIBUTES, Attributes};
use super::super::origin::{Grammar, Origin};
use super::super::settings::{SETTINGS, Settings};
use super::super::table::{HOST_SETTINGS, Table};
use super::builder::names;
use super::entry::{Audience, Context, Entry, Files, Operator, Printed};
use super::lexer::split;
use super::load::load;
use super::mistake::Mistake;
use proptest::prelude::*;
use std::collections::HashSet;

/// One file of this text; every other has a line in it.
struct Text<'a>(&'a str);

impl Files for Text<'_> {
    fn read(&mut self, path: &str) -> Result<Vec<u8>, String> {
        Ok(if path == "fived.conf" { self.0.into() } else { b"a line\n".to_vec() })
    }

    fn list(&mut self, _: &str) -> Result<Vec<String>, String> {
        Ok(Vec::new())
    }
}

fn read(path: &str, files: &mut dyn Files) -> (Table, Vec<Mistake>) {
    load(&Origin::new(Grammar::Fived, path), files)
}

/// The table of a text without mistakes.
fn table(text: &str) -> Table {
    let (table, mistakes) = read("fived.conf", &mut Text(text));
    assert_eq!(mistakes, [], "{text}");
    table
}

/// The first mistake of a text.
fn mistake(text: &str) -> String {
    read("fived.conf", &mut Text(text)).1.first().expect("a mistake").to_string()
}

/// What is printed of a value is read as that value.
fn comes_back<T: Default>(entries: &[Entry<T>], of: &T) {
    let (mut files, mut groups) = (Text(""), Vec::new());
    let mut context = Context { files: &mut files, groups: &mut groups };
    for entry in entries {
        let Printed::Words(printed) = (entry.print)(of) else { continue };
        let words = split(&printed).expect("words");
        let words: Vec<&str> = words.iter().map(|w| w.text.as_str()).collect();
        let mut again = T::default();
        let done = entry.set(&mut again, Operator::Set, &words, &mut context);
        assert_eq!(done, Ok(()), "{}", entry.name);
        assert_eq!((entry.print)(&again), Printed::Words(printed), "{}", entry.name);
    }
}

#[test]
fn what_is_printed_is_read() {
    comes_back(ATTRIBUTES, &Attributes::default());
    comes_back(SETTINGS, &Settings::default());
    let other = table(
        "log_type = SYSLOG auth err\nauthorized_keys = '/a#b'\npam = x\nlisten += *:7 ::1\nrequire = tls\n\
         only_from = 10. .a.example\nno_access = 10.1.{2,3}\naccess_times = 1:00-2:00\ncps = 3\n\
         max_load = 2.50\numask = 7\nrlimit_as = 1M\nrlimit_cpu = unlimited\nenv = A='b c' D=\n\
         reply =\nlog_on_success =\nstderr = NULL\nserver_timeout = 1h\nusers = !@a b\n\
         x stream tcp nowait * /bin/cat\n",
    );
    comes_back(SETTINGS, &other.settings);
    comes_back(ATTRIBUTES, &other.services()[0].attributes);
    assert!(other.print().contains("\tno_access = 10.1.2.0/24 10.1.3.0/24\n"));
}

/// `5m` was 5 MiB of seconds.
#[test]
fn processor_time_is_a_time() {
    for (word, wanted) in [("5m", 300), ("0", 0), ("90", 90), ("UNLIMITED", u64::MAX)] {
        let t = table(&format!("rlimit_cpu = {word}\nx stream tcp nowait u /bin/cat\n"));
        assert_eq!(t.services()[0].attributes.rlimit_cpu, Some(wanted), "{word}");
    }
    assert!(mistake("rlimit_cpu = 5M\n").contains("rlimit_cpu: expected a time"));
}

#[test]
fn each_name_is_there_once() {
    let all: Vec<&str> = names().collect();
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len(), "{all:?}");
    assert!(HOST_SETTINGS.iter().all(|e| all.contains(&e.name)));
}

/// Whoever takes the network process over knows what these say. One more is a decision.
#[test]
fn net_is_told_these_and_nothing_else() {
    fn told<T>(entries: &[Entry<T>]) -> String {
        let told = entries.iter().filter(|e| e.audience == Audience::Net).map(|e| e.name);
        told.collect::<Vec<_>>().join(" ")
    }
    assert_eq!(
        told(ATTRIBUTES),
        "require users only_from no_access access_times tls_port tcpmux offered_by banner banner_fail hidden disable"
    );
    assert_eq!(
        told(SETTINGS),
        "proxy_from plaintext_login request_timeout login_timeout keepalive login_tries \
         pubkey_tries max_connections max_sessions max_sessions_per_source max_streams \
         max_streams_anonymous resume_timeout resume_timeout_anonymous"
    );
    assert_eq!(told(HOST_SETTINGS), "");
}

#[test]
fn a_service_is_whole_when_it_is_made() {
    let t = table(
        "instances = 9\n\
         a stream tcp nowait/3/4/5 u:g /bin/cat\n\
         b stream tcp nowait/0 u internal echo\n\
         c stream tcp nowait:7 * /bin/cat cat x\n users = @staff\n instances = 1\n\
         d stream tcp nowait u /bin/cat\ne stream tcp nowait u /bin/cat\n",
    );
    let [a, b, c, d, e] = t.services() else { panic!("five rows") };
    let limits = |s: &super::super::Service| {
        (s.attributes.instances, s.attributes.per_source, s.per_minute, s.per_source_minute)
    };
    assert_eq!(limits(a), (Some(3), Some(5), None, Some(4)));
    assert_eq!(limits(b), (None, None, None, None));
    assert_eq!(limits(c), (Some(1), None, Some(7), None));
    assert_eq!([a, b, c, d].map(|s| s.needs_login()), [false, false, true, false]);
    let directories = [a, c].map(|s| s.attributes.directory.as_deref());
    assert_eq!((a.group(), directories), (Some("g"), [Some("/"), None]));
    assert!(std::sync::Arc::ptr_eq(&d.attributes, &e.attributes), "rows without lines share");
}

#[test]
fn mistakes_say_what_was_expected_and_what_was_found() {
    for (text, wanted) in [
        ("instances = many\n", r#"1: instances: expected a number or UNLIMITED, found "many""#),
        ("instances =\n", "1: instances: expected a value, found none"),
        ("stderr = x\n", r#"1: stderr: expected socket, log or null, found "x""#),
        ("require = x\n", r#"1: require: expected tls or login, found "x""#),
        ("onlyfrom = x\n", "1: onlyfrom: expected only_from, found an unknown name"),
        (
            "nice += 1\n",
            "1: nice: expected `=`, because the attribute is not a list, found `+=` or `-=`",
        ),
        (
            "a b c\n",
            "1: a: expected a row of at least six words (name, type, protocol, wait, user, program), found 3",
        ),
        (
            "a stream tcp nowait u cat\n",
            r#"1: cat: expected an absolute path, `internal`, `redirect`, `handover` or `offer`, found "cat""#,
        ),
        (
            "a stream tcp nowait u redirect\n",
            "1: redirect: expected an upstream after it (HOST:PORT, [IPV6-ADDRESS]:PORT or /path), found none",
        ),
        (
            "a stream tcp nowait u redirect /s host:0\n",
            r#"1: host:0: expected an upstream: HOST:PORT, [IPV6-ADDRESS]:PORT or /path, found "host:0""#,
        ),
        ("proxy = v3\n", r#"1: proxy: expected v1, v2 or no, found "v3""#),
        (
            "\n  hidden = yes\n",
            "2: hidden: expected a row above this indented line, found none; a setting is not indented",
        ),
    ] {
        assert_eq!(mistake(text), format!("fived.conf:{wanted}"));
    }
}

/// A word that was meant as several, or as everybody, must not become a name that nobody has: after
/// a `!` it would let in those whom it is to keep out.
#[test]
fn a_name_is_one_name() {
    const USER: &str = "a user, @group, !user or !@group, with blanks between them";
    let bad = [
        "!alice,!bob",
        "alice,bob",
        "alice,",
        "alice;",
        "@a;@b",
        "!!alice",
        "!@@dev",
        "@!dev",
        "@@dev",
        "!",
        "@",
        "!@",
        "alice:",
        "*",
        "!*",
        "@*",
        "ALL",
        "!ALL",
        "@ALL",
        "bob*",
        "b?b",
    ];
    for word in bad {
        for name in ["users", "offered_by"] {
            let text = format!("{name} = ann {word}\n");
            let wanted = format!("fived.conf:1: {name}: expected {USER}, found {word:?}");
            assert_eq!(mistake(&text), wanted);
        }
    }
    table("users = alice !bob @dev !@a.b alice@example.org 'DOMAIN\\alice' a-b_c$ all\n");
    for line in [
        "authorized_keys = /a,/b",
        "authorized_keys = /a,%h/b",
        "authorized_keys = /a, /b",
        "authorized_keys = /a; /b",
        "inetd = /a,/b",
        "xinetd = /a;/b",
        "listen = /a,/b",
        "port = /a,/b",
        "[a, b]",
        "[a,b]",
        "[a; b]",
        "[*.example.org]",
        "[\"www.example.org\"]",
        "[a\\\\b]",
        "[a #b]",
    ] {
        let what = mistake(&format!("{line}\n"));
        assert!(what.contains("expected ") && what.contains(", found "), "{line}: {what}");
    }
    table("authorized_keys = /etc/keys,v/%u\nlisten = /run/a,b\n");
}

proptest! {
    /// Whatever is read without mistakes is printed, and read again, as the same table.
    #[test]
    fn a_table_comes_back(
        lines in prop::collection::vec(
            (0..64usize, prop::sample::select(vec!["=", "+=", "-="]),
             prop::sample::select(vec!["", "1", "yes", "tls", "10. ::1", "/a", "A='b c'", "HOST", "@g !u", "01:00-02:00", "5m", "log"]),
             any::<bool>()),
            0..8,
        ),
        user in prop::sample::select(vec!["*", "u", "u:g", "a.b:", "a.b:g"]),
    ) {
        let all: Vec<&str> = names().collect();
        let mut text = String::new();
        for after in [false, true] {
            if after {
                text += &format!("[h]\nx stream tcp nowait/1/2 {user} /bin/cat 'a  b'\n");
            }
            for (n, operator, value, _) in lines.iter().filter(|l| l.3 == after) {
                let indent = if after { "\t" } else { "" };
                text += &format!("{indent}{} {operator} {value}\n", all[n % all.len()]);
            }
        }
        let (read_once, mistakes) = read("fived.conf", &mut Text(&text));
        if mistakes.is_empty() {
            let printed = read_once.print();
            prop_assert_eq!(table(&printed).print(), printed);
        }
    }
}
