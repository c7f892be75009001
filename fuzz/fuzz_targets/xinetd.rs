//! Tables of xinetd(8) of any bytes, with a file that they include: each service is served, switched off, or warned of, and what fived makes
//! of the table is a fived.conf that says the same.
#![no_main]

use fived::policy::{self, Files, Grammar, Origin};
use libfuzzer_sys::fuzz_target;

/// A computer with a few services, a table, and a file in every directory.
struct Computer<'a>(&'a [u8], &'a [u8]);

impl Files for Computer<'_> {
    fn read(&mut self, path: &str) -> Result<Vec<u8>, String> {
        Ok(if path == "/xinetd.conf" { self.0 } else { self.1 }.to_vec())
    }

    fn list(&mut self, _: &str) -> Result<Vec<String>, String> {
        Ok(vec!["other".into()])
    }

    fn port(&mut self, name: &str, _: &str) -> Option<u16> {
        let all = [("echo", 7), ("daytime", 13), ("ftp", 21), ("tftp", 69), ("finger", 79)];
        all.iter().find(|(n, _)| *n == name).map(|(_, port)| *port)
    }
}

fuzz_target!(|input: (&[u8], &[u8])| {
    let (table, said) = policy::load(&Origin::new(Grammar::Xinetd, "/xinetd.conf"), &mut Computer(input.0, input.1));
    assert!(said.iter().all(|m| m.to_string().contains(':')));
    if said.iter().any(|m| m.weight == policy::Weight::Refused) {
        return;
    }
    let printed = table.print();
    let (again, said) = policy::load(&Origin::new(Grammar::Fived, "/xinetd.conf"), &mut Computer(printed.as_bytes(), b""));
    assert!(said.is_empty(), "{said:?} of {printed}");
    assert_eq!(again.print(), printed);
});
