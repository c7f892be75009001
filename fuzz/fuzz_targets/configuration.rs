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

fuzz_target!(|input: (u8, Vec<u8>, Vec<u8>)| {
    use policy::Grammar::{Fived, Inetd, Xinetd};
    let grammar = [Fived, Inetd, Xinetd][usize::from(input.0 % 3)];
    let (table, mistakes) = policy::load(&policy::Origin::new(grammar, "fived.conf"), &mut Two(input.1, input.2));
    assert!(mistakes.iter().all(|m| m.to_string().contains(':')));
    // What is wrong in a file of another program leaves a table all the same.
    if mistakes.iter().all(|m| m.weight != policy::Weight::Refused) {
        let text = table.print();
        let (again, mistakes) = policy::load(&policy::Origin::new(policy::Grammar::Fived, "fived.conf"), &mut Two(text.clone().into_bytes(), Vec::new()));
        assert!(mistakes.is_empty(), "{mistakes:?} of {text}");
        assert_eq!(again.print(), text);
    }
});
