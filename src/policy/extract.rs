//! The part of a table that the net process gets: what it decides by, and nothing else. It has no
//! programs, arguments, environments, directories, paths or limits, so that an attacker who
//! controls the net process learns none of them.

use super::banner::Banner;
use super::origin::{Grammar, Origin};
use super::table::Table;
use super::text::entry::Files;
use super::text::load::load;
use std::collections::HashMap;

/// The name of the text among [`Extract::files`].
const TEXT: &str = "/table";

/// A table for net: its text, in the grammar of `-T` whatever the configuration's grammar was, and
/// the banners that the text names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extract {
    /// Names and bytes; the text first.
    pub files: Vec<(String, Vec<u8>)>,
}

impl Extract {
    /// Makes the extract of a table. Services, hosts and groups keep their numbers.
    pub fn of(table: &Table) -> Extract {
        let mut files = vec![(TEXT.to_string(), Vec::new())];
        let mut path = |banner: &Banner| {
            // The path of a banner is none of net's business, so the extract has another name for
            // it.
            let known = files[1..].iter().position(|(_, text)| **text == *banner.text);
            let n = known.unwrap_or(files.len() - 1);
            let path = format!("/banner{n}");
            if known.is_none() {
                files.push((path.clone(), banner.text.to_vec()));
            }
            path
        };
        let text = table.print_for_net(&mut path);
        files[0].1 = text.into_bytes();
        Extract { files }
    }

    /// Reads the table back. Err: these files are not from [`Extract::of`].
    pub fn read(files: Vec<(String, Vec<u8>)>) -> Result<Table, String> {
        let origin = Origin::new(Grammar::Fived, TEXT);
        let (table, mistakes) = load(&origin, &mut Extracted(files.into_iter().collect()));
        match mistakes.first() {
            None => Ok(table),
            Some(first) => {
                Err(format!("the table has {} mistakes; the first is {first}", mistakes.len()))
            }
        }
    }
}

/// Reads the files of an extract, and no others.
struct Extracted(HashMap<String, Vec<u8>>);

impl Files for Extracted {
    fn read(&mut self, path: &str) -> Result<Vec<u8>, String> {
        self.0.get(path).cloned().ok_or_else(|| "expected a file of the extract".into())
    }

    fn list(&mut self, _: &str) -> Result<Vec<String>, String> {
        Err("expected no directory in an extract".into())
    }
}

#[cfg(test)]
mod tests {
    use super::super::ids::HostId;
    use super::super::text::entry::Files;
    use super::*;
    use std::collections::HashMap;

    struct Kept(HashMap<String, Vec<u8>>);

    impl Files for Kept {
        fn read(&mut self, path: &str) -> Result<Vec<u8>, String> {
            self.0.get(path).cloned().ok_or_else(|| "no such file".into())
        }

        fn list(&mut self, _: &str) -> Result<Vec<String>, String> {
            Err("none".into())
        }
    }

    const CONF: &str = "passwords = /secret/passwords\ncertificate = /secret/cert\nusers = @unused @two\nusers =\nbanner = /b\nmax_streams = 7\n\
        a stream tcp nowait secret /secret/program secret 'secret words'\n env = A=secret\n directory = /secret\n instances = 4711\n\
        b stream tcp4 nowait * /secret/program\n require = tls\n users = @two !bob\n only_from = 10.0.0.0/8 .example.org\n access_times = 01:00-02:00\n\
        [www x]\nkey = /secret/key\n'c#d' stream tcp nowait secret.secret /secret/p\n hidden = yes\n banner_fail = /f\n[*]\ntcpmux/e stream tcp6 nowait secret /p\n disable = yes\n[last]\n";

    #[test]
    fn the_same_decisions_and_no_secret() {
        let files = [("/c", CONF), ("/b", "words\n"), ("/f", "no\n")]
            .map(|(n, t)| (n.to_string(), t.as_bytes().to_vec()));
        let (table, mistakes) = load(&Origin::new(Grammar::Fived, "/c"), &mut Kept(files.into()));
        assert_eq!(mistakes, []);
        let extract = Extract::of(&table);
        for (name, text) in &extract.files {
            let text = String::from_utf8_lossy(text);
            assert!(!text.contains("secret") && !text.contains("4711"), "{name}: {text}");
        }
        let told = Extract::read(extract.files).expect("a table");
        assert_eq!(told.groups(), table.groups());
        assert_eq!(told.settings.max_streams, 7);
        let names = |t: &Table| t.hosts().iter().map(|h| h.names.clone()).collect::<Vec<_>>();
        assert_eq!(names(&told), names(&table));
        assert_eq!((told.services().len(), told.host_named(b"X")), (4, Some(HostId(1))));
        for (a, b) in told.services().iter().zip(table.services()) {
            assert_eq!(
                (&a.name, a.endpoint, a.host, a.needs_login()),
                (&b.name, b.endpoint, b.host, b.needs_login())
            );
            let (x, y) = (&a.attributes, &b.attributes);
            assert_eq!(
                (&x.users, x.access(), &x.access_times, x.require, x.hidden, x.disable),
                (&y.users, y.access(), &y.access_times, y.require, y.hidden, y.disable)
            );
            assert_eq!(x.tail(), y.tail());
        }
    }
}
