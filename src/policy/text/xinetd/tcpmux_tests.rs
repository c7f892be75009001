//! The service tcpmux, which is fived itself, and the services that are reached by their names.

use super::super::super::listen::Listen;
use super::super::super::origin::{Grammar, Origin};
use super::super::load::load;
use super::tests::{Kept, read, service};
use std::collections::HashMap;

#[test]
fn the_service_tcpmux_says_where_fived_listens() {
    for (own, listen, what) in [
        ("", "[::]:1", ""),
        (" bind = one6\n", "[2001:db8::1]:1", ""),
        (" bind = 127.0.0.1\n", "127.0.0.1:1", ""),
        (" flags = IPv4\n", "0.0.0.0:1", ""),
        (" flags = IPv4 IPv6\n", "[::]:1", ""),
        (" port = 1\n", "[::]:1", ""),
        (" type = UNLISTED\n port = 5001\n", "[::]:5001", ""),
        (" type = UNLISTED\n port = 5001\n bind = 127.0.0.1\n", "127.0.0.1:5001", ""),
        (" port = 5001\n", "", "port: expected 1 without UNLISTED, found 5001"),
        (" bind = none\n", "", "bind: expected"),
        (" bind = one6\n flags = IPv4\n", "", "IPv4: expected an IPv4 address in `bind`"),
        (" v6only = yes\n", "", "v6only: not served: fived's own port is open to IPv4"),
    ] {
        let form = " socket_type = stream\n wait = no\n";
        let kind = if own.contains("type") { "" } else { " type = INTERNAL\n" };
        let own = own.replace("type =", "type = INTERNAL");
        let text = format!("service tcpmux\n{{\n{kind}{form}{own}}}\n");
        let (table, said) =
            read(&[("/x", &(text.clone() + &service("a", " type = TCPMUXPLUS UNLISTED\n")))]);
        // Fails closed: nobody reaches what it would lead to.
        let off = table.services()[0].attributes.disable;
        assert_eq!(off, !what.is_empty(), "{own}");
        assert!(said.iter().any(|s| s.to_string().contains(what)), "{said:?}");
        if !off {
            let listen = [Listen::read(listen).expect(listen)];
            assert_eq!((table.settings.listen.as_slice(), said.len()), (&listen[..], 1), "{own}");
            assert_eq!(read(&[("/x", &text)]).0.settings.listen, [], "{own}");
        }
        // Nor does it listen for services that are off.
        for off in [" disable = yes\n", " nice = x\n"] {
            let idle = service("a", &format!(" type = TCPMUXPLUS UNLISTED\n{off}"));
            let (table, _) = read(&[("/x", &(text.clone() + &idle))]);
            assert_eq!(table.settings.listen, [], "{own}{off}");
        }
    }
}

#[test]
fn who_moves_the_port_of_a_fived_conf_is_told() {
    let file = "service tcpmux\n{\n type = INTERNAL\n socket_type = stream\n wait = no\n bind = 127.0.0.1\n}\n".to_string()
        + &service("a", " type = TCPMUXPLUS UNLISTED\n");
    for (conf, listen, what) in [
        ("", "127.0.0.1:1", "fived listens there alone: `listen` in fived.conf says where else"),
        ("listen = 192.0.2.1:7\n", "192.0.2.1:7", "fived listens where fived.conf says"),
    ] {
        let conf = format!("xinetd = /y\n{conf}b stream tcp nowait u /p\n");
        let files = [("/x".to_string(), conf.into()), ("/y".to_string(), file.clone().into())];
        let (table, said) =
            load(&Origin::new(Grammar::Fived, "/x"), &mut Kept(HashMap::from(files)));
        assert_eq!(table.settings.listen, [Listen::read(listen).expect(listen)]);
        let told = said.iter().filter(|m| m.to_string() == format!("/y:1: tcpmux: {what}"));
        assert_eq!(told.count(), 1, "{said:?}");
    }
}

#[test]
fn services_of_tcpmux_are_reached_by_name_under_its_rules() {
    let mux = service("a", " type = TCPMUXPLUS UNLISTED\n") + &service("b", " type = TCPMUX\n");
    let own = "service tcpmux\n{\n type = INTERNAL\n socket_type = stream\n wait = no\n bind = 127.0.0.1\n only_from = 10.0.0.1\n}\n";
    let (table, _) = read(&[("/x", &(mux.clone() + own))]);
    let rows = table.services().iter().map(|s| {
        (
            s.name.as_str(),
            s.endpoint.announce,
            s.attributes.tcpmux,
            s.attributes.only_from.is_some(),
        )
    });
    assert_eq!(rows.collect::<Vec<_>>(), [("a", true, true, true), ("b", false, true, true)]);
    assert_eq!(table.settings.listen, [Listen::read("127.0.0.1:1").expect("an address")]);
    let off = own.replace("}", " disable = yes\n}");
    let (table, _) = read(&[("/x", &(mux.clone() + &off))]);
    assert!(table.services().iter().all(|s| s.attributes.disable));
    let (table, _) = read(&[("/x", &mux)]);
    assert_eq!(table.settings.listen.len(), 1);
}
