//! What the parent hands to a role is what the role reads.

use super::*;

/// The values of these variables.
fn of(all: Variables) -> impl Fn(&str) -> Option<Vec<u8>> {
    move |name| all.iter().find(|v| v.0 == name).map(|v| v.1.clone())
}

#[test]
fn a_role_reads_what_the_parent_wrote() {
    for ids in [None, Some((61_184, 7))] {
        let net = Net { debug: 2, ids };
        assert_eq!(Net::read(of(net.variables())), Ok(net));
        for asks in [Asks::Password, Asks::Key, Asks::Account] {
            let login = Login {
                asks,
                user: b"ann \xff".to_vec(),
                from: [192, 0, 2, 1].into(),
                kind: Kind::Tls,
                keys: "~/.ssh/authorized_keys".into(),
                passwords: None,
                pam: Some("fived".into()),
                checkpassword: Some("/bin/checkpw x".into()),
                ids,
            };
            assert_eq!(Login::read(of(login.variables())), Ok(login));
        }
    }
    for ask in [
        LookUp::Address("2001:db8::1".parse().expect("an address")),
        LookUp::User("ann".into()),
        LookUp::Group("28".into()),
        LookUp::Uid(1000),
        LookUp::Libwrap { daemon: "ftpd".into(), addresses: None },
        LookUp::Libwrap {
            daemon: "ftpd".into(),
            addresses: Some(([192, 0, 2, 1], 4).into()).zip(Some(([192, 0, 2, 2], 21).into())),
        },
    ] {
        assert_eq!(LookUp::read(of(ask.variables())), Some(ask));
    }
    assert_eq!(LookUp::read(of(Vec::new())), None);
}

#[test]
fn what_is_wrong_is_named() {
    let login = Login {
        asks: Asks::Key,
        user: b"a\0b".to_vec(),
        from: [192, 0, 2, 1].into(),
        kind: Kind::Plain,
        keys: String::new(),
        passwords: None,
        pam: None,
        checkpassword: None,
        ids: None,
    };
    let read = |name: &str, value: Option<&str>| {
        let mut all = login.variables();
        all.retain(|v| v.0 != name);
        let own = [UID, GID, METHOD, KIND, FROM].into_iter().find(|own| *own == name);
        all.extend(own.zip(value).map(|(own, value)| variable(own, value)));
        Login::read(of(all)).map(|l| l.user)
    };
    assert_eq!(read("", None), Ok(Vec::new()));
    assert_eq!(read(METHOD, Some("x")), Err("FIVED_METHOD=Some(\"x\"): not a method".into()));
    assert_eq!(read(KIND, None), Err("FIVED_KIND: not a kind of connection".into()));
    assert_eq!(read(FROM, Some("here")), Err("FIVED_FROM: not a client".into()));
    assert_eq!(read(UID, Some("-1")), Err("FIVED_UID=-1: not a number".into()));
}
