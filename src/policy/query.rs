//! `-C`: what fived would decide about a client.

use super::client_pattern;
use super::endpoint::Family;
use super::ids::{HostId, HostScope, ServiceId};
use super::places::Place;
use super::service::Service;
use super::subject::{Facts, Reached};
use super::table::{Denied, Table};
use super::text::parse::expected;
use crate::wire::peer::Peer;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `service=NAME,host=NAME,addr=ADDRESS,user=NAME,tls=yes`. All except the service may be left out,
/// and mean the default host, 127.0.0.1 (::1 for a row of IPv6 alone), not logged in, not encrypted
/// then; whoever comes to a Unix socket (`addr=uid:NUMBER`) is logged in and counts as encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    pub service: String,
    pub host: Option<String>,
    /// None: an address of this computer.
    pub peer: Option<Peer>,
    pub user: Option<String>,
    pub tls: bool,
}

/// The words of a query.
const WORDS: &str = "service=, host=, addr=, user= or tls=";

impl Query {
    /// Reads a query. Err: the word that is wrong, and what was expected.
    pub fn read(text: &str) -> Result<Query, String> {
        let mut q =
            Query { service: String::new(), host: None, peer: None, user: None, tls: false };
        let mut given = Vec::new();
        for part in text.trim().split(',') {
            let wrong = |what: &str| format!("{part}: {}", expected(what, part));
            let (key, value) = part.split_once('=').ok_or_else(|| wrong(WORDS))?;
            let key = key.trim();
            if given.contains(&key) {
                return Err(format!(
                    "{part}: expected each of {WORDS} once, found it a second time"
                ));
            }
            given.push(key);
            match key {
                "service" => q.service = value.into(),
                "host" => q.host = Some(value.into()).filter(|v: &String| !v.is_empty()),
                "addr" => {
                    let peer = value.parse();
                    q.peer = Some(peer.map_err(|_| wrong("addr=ADDRESS or addr=uid:NUMBER"))?);
                }
                "user" => q.user = Some(value.into()).filter(|v: &String| !v.is_empty()),
                "tls" if matches!(value, "yes" | "no") => q.tls = value == "yes",
                "tls" => return Err(wrong("tls=yes or tls=no")),
                _ => return Err(wrong(WORDS)),
            }
        }
        if q.service.is_empty() { Err("expected service=NAME, found none".into()) } else { Ok(q) }
    }
}

impl Table {
    /// The rows of that name that this host has.
    fn named(&self, name: &str, host: HostId) -> impl Iterator<Item = (ServiceId, &Service)> {
        let here = move |s: &Service| match s.host {
            HostScope::All => true,
            HostScope::Host(own) => own == host,
        };
        let all = self.services().iter().enumerate().map(|(n, s)| (ServiceId(n as u32), s));
        all.filter(move |(_, s)| here(s) && s.name.eq_ignore_ascii_case(name))
    }

    /// The address of a client on this computer, for whom the query names none: of IPv6 where all
    /// rows of the name are of IPv6 alone.
    pub fn own_address(&self, query: &Query, host: HostId) -> IpAddr {
        let mut rows = self.named(&query.service, host).peekable();
        let v6 = rows.peek().is_some() && rows.all(|(_, s)| s.endpoint.family == Family::V6);
        if v6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() }
    }

    /// The first row of that name that is reached at ports alone and that the client may use there;
    /// else the first of them, and why not.
    fn decide_at_ports(&self, query: &Query, facts: &Facts) -> (Option<ServiceId>, Option<Denied>) {
        let mut denied = (None, None);
        for (id, s) in self.named(&query.service, facts.host) {
            let a = &s.attributes;
            if a.tcpmux {
                continue;
            }
            let tls = !a.tls_port.is_empty() && (facts.encrypted || a.port.is_empty());
            let reached = if tls { Reached::AtTlsPort } else { Reached::AtPort };
            let there = match facts.peer {
                Peer::User(_) => Facts { reached, ..facts.clone() },
                // Nobody logs in there, and TLS is what the port has.
                Peer::Nobody | Peer::Address(_) => {
                    Facts { reached, encrypted: tls, login: None, ..facts.clone() }
                }
            };
            match self.usable(id, &there) {
                Ok(()) => return (Some(id), None),
                Err(why) if denied.0.is_none() => denied = (Some(id), Some(why)),
                Err(_) => {}
            }
        }
        denied
    }

    /// The decision: `allow NAME FILE:LINE`, of its row; `deny NAME FILE:LINE REASON`, of the rule
    /// that denies; or `deny NAME - unknown`.
    pub fn decide(&self, query: &Query, facts: &Facts) -> String {
        let (id, why) = match self.allowed(query.service.as_bytes(), facts) {
            Ok(id) => (Some(id), None),
            Err((_, Denied::Unknown)) => self.decide_at_ports(query, facts),
            Err((id, why)) => (id, Some(why)),
        };
        match (id.and_then(|id| self.service(id)), why) {
            (Some(s), None) => format!("allow {} {}:{}", s.name, s.file, s.line),
            (Some(s), Some(why)) => {
                let row = || (s.file.clone(), s.line);
                let (file, line) = rule(s, why, facts).unwrap_or_else(row);
                format!("deny {} {file}:{line} {}", s.name, why.as_str())
            }
            (None, why) => format!(
                "deny {} - {}",
                query.service.escape_debug(),
                why.unwrap_or(Denied::Unknown).as_str()
            ),
        }
    }
}

/// Where the rule is written for which this service denies this client; None: that rule is its row,
/// or follows from it.
fn rule(service: &Service, why: Denied, facts: &Facts) -> Option<Place> {
    let (a, places) = (&service.attributes, &service.places);
    let required = |word: &str| places.naming("require", |w| w.eq_ignore_ascii_case(word));
    match why {
        // A row that cannot be served is switched off without a line that says so.
        Denied::Disabled => places.naming("disable", |w| w.eq_ignore_ascii_case("yes")),
        Denied::Tls => required("tls"),
        Denied::Login => {
            required("login").or_else(|| places.last("users").filter(|_| !a.users.0.is_empty()))
        }
        Denied::User => {
            let rule = facts.login.as_ref().and_then(|login| a.users.denying(login));
            rule.and_then(|rule| places.naming("users", |w| w == rule.to_string()))
                .or_else(|| places.last("users"))
        }
        Denied::Address if !service.endpoint.family.has(facts.peer) => None,
        Denied::Address => match a.access().refusing(facts.peer, &facts.peer_name) {
            Some(entry) => places.naming("no_access", |w| {
                client_pattern::read(w).is_ok_and(|all| all.contains(entry))
            }),
            None => places.last("only_from"),
        },
        Denied::Hours => places.last("access_times"),
        Denied::Unknown | Denied::Host | Denied::Root | Denied::Offer => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::from;
    use super::super::{Files, Grammar, GroupSet, Login, Origin, Query, ServiceId, Table, load};
    use super::*;

    /// Files by their paths.
    struct Kept<'a>(&'a [(&'a str, &'a str)]);

    impl Files for Kept<'_> {
        fn read(&mut self, path: &str) -> Result<Vec<u8>, String> {
            let found = self.0.iter().find(|(p, _)| *p == path);
            found.map(|(_, text)| text.as_bytes().to_vec()).ok_or_else(|| "no such file".into())
        }

        fn list(&mut self, _: &str) -> Result<Vec<String>, String> {
            Err("none".into())
        }

        fn port(&mut self, name: &str, _: &str) -> Option<u16> {
            (name == "time").then_some(37)
        }
    }

    fn read(grammar: Grammar, files: &[(&str, &str)]) -> Table {
        load(&Origin::new(grammar, "/c"), &mut Kept(files)).0
    }

    fn fived(text: &str) -> Table {
        read(Grammar::Fived, &[("/c", text)])
    }

    /// This user, in the first of the table's groups.
    fn user(name: &str) -> Facts {
        let mut groups = GroupSet::default();
        groups.insert(0);
        let login = Some(Login { name: name.into(), groups, superuser: name == "root" });
        Facts { login, ..from("192.0.2.1") }
    }

    fn ask(table: &Table, service: &str, facts: &Facts) -> String {
        table.decide(&Query::read(&format!("service={service}")).expect("a query"), facts)
    }

    #[test]
    fn an_address_is_denied_by_an_entry_or_by_a_list_without_one() {
        let t = fived(
            "listen = 127.0.0.1:0\nonly_from = 10.0.0.0/8\na stream tcp nowait u /p\n\
             c stream tcp nowait u /p\n only_from = 10.1.0.0/16 10.1.2.3\n\
             \tno_access = 10.1.2.0/24\n\
             d stream tcp nowait u /p\n only_from += 11.0.0.0\n no_access = 10.1\n\
             \tno_access += 10.1.{2,3} 10.2\n no_access -= 10.2\n\
             e stream tcp4 nowait u /p\n only_from =\n\
             f stream tcp nowait u /p\n only_from = 0.0.0.0/0\n no_access = .example.org\n\
             \tno_access += 192.0.2.0/24\n",
        );
        for (service, address, wanted) in [
            ("a", "11.1.1.1", "deny a /c:2 address"),
            ("c", "10.1.2.4", "deny c /c:6 address"),
            ("c", "12.0.0.1", "deny c /c:5 address"),
            ("c", "10.1.2.3", "allow c /c:4"),
            ("d", "12.0.0.1", "deny d /c:8 address"),
            ("d", "10.1.1.1", "deny d /c:9 address"),
            ("d", "10.1.3.1", "deny d /c:10 address"),
            ("d", "10.2.1.1", "allow d /c:7"),
            ("e", "10.1.1.1", "deny e /c:13 address"),
            // Its row is of IPv4.
            ("e", "::1", "deny e /c:12 address"),
            // Both entries match, and the more specific one decides.
            ("f", "192.0.2.1", "deny f /c:17 address"),
            ("f", "198.51.100.1", "deny f /c:16 address"),
        ] {
            assert_eq!(ask(&t, service, &from(address)), wanted, "{address}");
        }
    }

    #[test]
    fn a_user_is_denied_by_a_name_or_by_a_list_without_it() {
        let t = fived(
            "users = !@staff\nrequire = tls\na stream tcp nowait * /p\n require -= tls\n\
             b stream tcp nowait u /p\n require = login\n users = ann eve !eve\n users += carl\n\
             c stream tcp nowait * /p\n require =\n users =\n\
             d stream tcp nowait u /p\n require += login\n require -= login\n\
             e stream tcp nowait u /p\n users =\n require = login\n require -= login\n",
        );
        let nobody = from("192.0.2.1");
        for (service, facts, wanted) in [
            ("a", &nobody, "deny a /c:1 login"),
            ("a", &user("bob"), "deny a /c:1 user"),
            ("b", &nobody, "deny b /c:6 login"),
            ("b", &user("bob"), "deny b /c:8 user"),
            ("b", &user("eve"), "deny b /c:7 user"),
            ("b", &user("ann"), "allow b /c:5"),
            ("c", &nobody, "deny c /c:9 login"),
            ("c", &user("root"), "deny c /c:9 root"),
            ("d", &nobody, "deny d /c:2 tls"),
            ("d", &Facts { encrypted: true, ..from("::1") }, "deny d /c:1 login"),
            ("e", &nobody, "allow e /c:15"),
        ] {
            assert_eq!(ask(&t, service, facts), wanted, "{facts:?}");
        }
    }

    #[test]
    fn every_rule_has_a_line_whatever_section_or_file_it_is_in() {
        let conf = "disable = yes\naccess_times = 01:00-02:00\ninclude /more\n\
                    [h]\ndisable = no\na stream tcp nowait u /p\n\
                    b stream tcp nowait u /p\n access_times += 02:00-03:00\n\
                    [i]\nno_access = 192.0.2.1\naccess_times =\na stream tcp nowait u /p\n\
                    \tdisable = NO\n\
                    [*]\nc stream tcp nowait u /p\n";
        let more = "\nrequire = tls\na stream tcp nowait u /p\nd stream tcp nowait u /p\n\
             \tdisable = no\n";
        let t = read(Grammar::Fived, &[("/c", conf), ("/more", more)]);
        let in_host = |name: &[u8]| {
            let host = t.host_named(name).expect("a host");
            Facts { host, encrypted: true, ..from("192.0.2.1") }
        };
        for (service, facts, wanted) in [
            ("a", from("::1"), "deny a /c:1 disabled"),
            ("d", from("::1"), "deny d /more:2 tls"),
            ("d", Facts { encrypted: true, ..from("::1") }, "deny d /c:2 hours"),
            ("a", in_host(b"h"), "deny a /c:2 hours"),
            ("b", in_host(b"h"), "deny b /c:8 hours"),
            ("b", from("::1"), "deny b /c:7 host"),
            ("a", in_host(b"i"), "deny a /c:10 address"),
            ("c", in_host(b"i"), "deny c /c:1 disabled"),
            ("none", from("::1"), "deny none - unknown"),
        ] {
            assert_eq!(ask(&t, service, &facts), wanted, "{facts:?}");
        }
    }

    #[test]
    fn rows_of_other_programs_have_lines_too() {
        let inetd = read(
            Grammar::Inetd,
            &[("/c", "\ntime stream tcp nowait u /p p\ntime stream tcp nowait u /p p\n")],
        );
        assert_eq!(ask(&inetd, "time", &from("::1")), "allow time /c:3");
        let row = |id: &str, more: &str| {
            format!(
                "service time\n{{\n id = {id}\n socket_type = stream\n wait = no\n user = u\n\
                 \tserver = /p\n{more}}}\n"
            )
        };
        // Of nine lines each; the first begins in line 7.
        let rows = [
            row("a", " disable = yes\n"),
            row("b", " disable = no\n"),
            row("c", " no_access = 10.0.0.0\n"),
            row("d", " access_times = 1:00-2:00\n"),
            row("e", " nice = x\n"),
        ];
        let text = "defaults\n{\n disabled = b\n enabled = a b c d\n only_from = 10.0.0.0\n}\n";
        let t = read(Grammar::Xinetd, &[("/c", &(text.to_string() + &rows.concat()))]);
        for (service, peer, wanted) in [
            ("a", "10.0.0.1", "deny a /c:14 disabled"),
            ("b", "10.0.0.1", "deny b /c:3 disabled"),
            ("c", "10.0.0.1", "deny c /c:32 address"),
            ("c", "11.0.0.1", "deny c /c:5 address"),
            ("d", "10.0.0.1", "deny d /c:41 hours"),
            ("e", "10.0.0.1", "deny e /c:4 disabled"),
        ] {
            assert_eq!(ask(&t, service, &from(peer)), wanted);
        }
        let mux = "service tcpmux\n{\n type = INTERNAL\n socket_type = stream\n wait = no\n\
             \tonly_from = 10.0.0.0\n}\n";
        let by_name = format!("{mux}include /more\n");
        let more = row("m", " type = TCPMUX UNLISTED\n");
        let t = read(Grammar::Xinetd, &[("/c", &by_name), ("/more", &more)]);
        assert_eq!(ask(&t, "time", &from("11.0.0.1")), "deny time /c:6 address");
    }

    #[test]
    fn a_row_that_is_switched_off_for_a_mistake_has_its_own_line() {
        let conf = "a stream tcp nowait u /p\nb stream tcp nowait u /p\n disable = no\n";
        let mut t = fived(conf);
        (0..2).for_each(|n| t.switch_off(ServiceId(n)));
        assert_eq!(ask(&t, "a", &from("::1")), "deny a /c:1 disabled");
        assert_eq!(ask(&t, "b", &from("::1")), "deny b /c:2 disabled");
    }

    #[test]
    fn without_an_address_the_client_is_where_the_rows_are() {
        let t = fived(
            "a stream tcp6 nowait u /p\nb stream tcp6 nowait u /p\n tcpmux = no\n port = 7\n\
             c stream tcp4 nowait u /p\nc stream tcp6 nowait u /p\nd stream tcp nowait u /p\n\
             [h]\nd stream tcp6 nowait u /p\n",
        );
        let h = t.host_named(b"h").expect("a host");
        let own = |name: &str, host| {
            let query = Query::read(&format!("service={name}")).expect("a query");
            t.own_address(&query, host).to_string()
        };
        let all = ["a", "b", "c", "d", "none"].map(|name| own(name, HostId::DEFAULT));
        assert_eq!(all, ["::1", "::1", "127.0.0.1", "127.0.0.1", "127.0.0.1"]);
        assert_eq!(own("d", h), "::1");
    }

    #[test]
    fn a_row_is_the_same_wherever_its_rules_stand() {
        let one = |text: &str| fived(text).services()[0].clone();
        let (a, b) = (
            "no_access = ::1\na stream tcp nowait u /p\n",
            "a stream tcp nowait u /p\n no_access = ::1\n",
        );
        assert!(one(a).is_same_row(&one(b)) && one(a) != one(b));
    }
}
