//! A table of inetd(8) of any bytes: each line is a row or a warning, and what fived makes of the table is a fived.conf that says the same.
#![no_main]

use fived::policy::{self, Files, Grammar, Origin};
use libfuzzer_sys::fuzz_target;

/// A computer with a few services and programs, and a table.
struct Computer<'a>(&'a [u8]);

impl Files for Computer<'_> {
    fn read(&mut self, path: &str) -> Result<Vec<u8>, String> {
        if path == "inetd.conf" { Ok(self.0.to_vec()) } else { Err("no such file".into()) }
    }

    fn list(&mut self, _: &str) -> Result<Vec<String>, String> {
        Err("no directory".into())
    }

    fn port(&mut self, name: &str, protocol: &str) -> Option<u16> {
        let all = [("echo", 7), ("daytime", 13), ("ftp", 21), ("tftp", 69), ("finger", 79)];
        all.iter().find(|(n, _)| *n == name && (protocol == "tcp" || name != "ftp")).map(|(_, port)| *port)
    }

    fn program(&mut self, name: &str) -> Option<String> {
        (name == "cat").then(|| "/bin/cat".into())
    }
}

fuzz_target!(|input: (Option<[u8; 4]>, Option<u8>, &[u8])| {
    let (address, per_minute, text) = input;
    let mut origin = Origin::new(Grammar::Inetd, "inetd.conf");
    origin.addresses = address.map(|a| vec![a.into()]).unwrap_or_default();
    origin.per_minute = per_minute.filter(|n| *n > 0).map(u32::from);
    let (table, said) = policy::load(&origin, &mut Computer(text));
    for m in &said {
        let m = m.to_string();
        assert!(m.starts_with("inetd.conf"), "{m}");
    }
    assert!(said.iter().all(|m| m.weight != policy::Weight::Refused), "a broken row leaves the others: {said:?}");
    let printed = table.print();
    let (again, said) = policy::load(&Origin::new(Grammar::Fived, "inetd.conf"), &mut Computer(printed.as_bytes()));
    assert!(said.is_empty(), "{said:?} of {printed}");
    assert_eq!(again.print(), printed);
});
