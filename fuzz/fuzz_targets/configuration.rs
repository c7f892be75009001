//! A configuration of any bytes, with a file that it includes: it is a table or a list of mistakes, each with its place; and a table's
//! printed form is a table again.
#![no_main]

use fived::policy::{self, Files};
use libfuzzer_sys::fuzz_target;

struct Two(Vec<u8>, Vec<u8>);

impl Files for Two {
    fn read(&mut self, path: &str) -> Result<Vec<u8>, String> {
        Ok(if path == "fived.conf" { self.0.clone() } else { self.1.clone() })
    }

    fn list(&mut self, _: &str) -> Result<Vec<String>, String> {
        Ok(vec!["other".into()])
    }
}

fuzz_target!(|input: (Vec<u8>, Vec<u8>)| {
    let (table, mistakes) = policy::load(&policy::Origin::new(policy::Grammar::Fived, "fived.conf"), &mut Two(input.0, input.1));
    assert!(mistakes.iter().all(|m| m.to_string().contains(':')));
    if mistakes.is_empty() {
        let text = table.print();
        let (again, mistakes) = policy::load(&policy::Origin::new(policy::Grammar::Fived, "fived.conf"), &mut Two(text.clone().into_bytes(), Vec::new()));
        assert!(mistakes.is_empty(), "{mistakes:?} of {text}");
        assert_eq!(again.print(), text);
    }
});
