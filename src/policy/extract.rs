//! What the net process is told of a table: what it decides by, and nothing else. No program,
//! argument, environment, directory, path or limit is in it: whoever takes that process over has
//! nothing of these.

use super::attributes::{Attributes, Banner};
use super::rows::{Internal, Program, Service, UserSpec};
use super::settings::Settings;
use super::table::{Host, Table};
use std::sync::Arc;

/// The name of the text among [`Extract::files`].
pub const TEXT: &str = "/table";

/// A table for net, as text and the banners that it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extract {
    /// The text first.
    pub files: Vec<(String, Vec<u8>)>,
}

impl Extract {
    /// Services, hosts and groups have the numbers that they have in `table`.
    pub fn of(table: &Table) -> Extract {
        let mut files = vec![(TEXT.to_string(), Vec::new())];
        let services: Vec<Service> =
            table.services().iter().map(|s| service(s, &mut files)).collect();
        let host =
            |h: &Host| Host { certificate: None, key: None, file: String::new(), ..h.clone() };
        let hosts = table.hosts().iter().map(host).collect();
        let told = Table::new(
            settings(&table.settings),
            hosts,
            services,
            table.groups().to_vec(),
            Default::default(),
        );
        files[0].1 = told.print_short().into_bytes();
        Extract { files }
    }
}

fn settings(s: &Settings) -> Settings {
    Settings {
        plaintext_login: s.plaintext_login,
        request_timeout: s.request_timeout,
        login_timeout: s.login_timeout,
        login_tries: s.login_tries,
        pubkey_tries: s.pubkey_tries,
        keepalive: s.keepalive,
        max_connections: s.max_connections,
        max_sessions: s.max_sessions,
        max_sessions_per_source: s.max_sessions_per_source,
        max_streams: s.max_streams,
        max_streams_anonymous: s.max_streams_anonymous,
        ..Settings::default()
    }
}

fn service(s: &Service, files: &mut Vec<(String, Vec<u8>)>) -> Service {
    let a = &s.attributes;
    let attributes = Attributes {
        require_tls: a.require_tls,
        require_login: a.require_login,
        users: a.users.clone(),
        access: a.access.clone(),
        access_times: a.access_times.clone(),
        banner: banner(&a.banner, files),
        banner_success: None,
        banner_fail: banner(&a.banner_fail, files),
        hidden: a.hidden,
        disable: a.disable,
        ..Attributes::default()
    };
    Service {
        name: s.name.clone(),
        announce: s.announce,
        host: s.host,
        family: s.family,
        // Somebody, or who logged in: that is all.
        user: match s.user {
            UserSpec::Login => UserSpec::Login,
            UserSpec::Named { .. } => UserSpec::Named { user: "-".into(), group: None },
        },
        program: Program::Internal(Internal::Discard),
        arguments: Vec::new(),
        file: Arc::default(),
        line: 0,
        per_minute: None,
        per_source_minute: None,
        attributes: Arc::new(attributes),
    }
}

/// The same words under another name: where they are kept tells net nothing.
fn banner(b: &Option<Banner>, files: &mut Vec<(String, Vec<u8>)>) -> Option<Banner> {
    let b = b.as_ref()?;
    let known = files[1..].iter().position(|(_, text)| **text == *b.text);
    let n = known.unwrap_or_else(|| {
        files.push((String::new(), b.text.to_vec()));
        files.len() - 2
    });
    let path = format!("/banner{n}");
    files[n + 1].0.clone_from(&path);
    Some(Banner { path, text: b.text.clone() })
}

#[cfg(test)]
mod tests {
    use super::super::{Files, HostId, load};
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
        let (table, mistakes) = load("/c", &mut Kept(files.into()));
        assert_eq!(mistakes, []);
        let extract = Extract::of(&table);
        for (name, text) in &extract.files {
            let text = String::from_utf8_lossy(text);
            assert!(!text.contains("secret") && !text.contains("4711"), "{name}: {text}");
        }
        let (told, mistakes) = load(TEXT, &mut Kept(extract.files.into_iter().collect()));
        assert_eq!(mistakes, []);
        assert_eq!(told.groups(), table.groups());
        assert_eq!(told.settings.max_streams, 7);
        let names = |t: &Table| t.hosts().iter().map(|h| h.names.clone()).collect::<Vec<_>>();
        assert_eq!(names(&told), names(&table));
        assert_eq!((told.services().len(), told.host_named(b"X")), (4, Some(HostId(1))));
        for (a, b) in told.services().iter().zip(table.services()) {
            assert_eq!(
                (&a.name, a.announce, a.host, a.family, a.needs_login()),
                (&b.name, b.announce, b.host, b.family, b.needs_login())
            );
            let (x, y) = (&a.attributes, &b.attributes);
            assert_eq!(
                (&x.users, &x.access, &x.access_times, x.require_tls, x.hidden, x.disable),
                (&y.users, &y.access, &y.access_times, y.require_tls, y.hidden, y.disable)
            );
            assert_eq!(x.tail(), y.tail());
        }
    }
}
