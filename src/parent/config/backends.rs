//! Where passwords are checked, and the keys of users found.

use super::disk::ask;
use crate::policy::Table;
use std::fs;
use std::io::ErrorKind;

/// The password file that is used if it is there.
const PASSWORDS: &str = "/etc/fived.passwd";

/// Where the passwords are asked, and the keys.
#[derive(Debug, Clone, Default)]
pub struct Backends {
    pub passwords: Option<String>,
    pub pam: Option<String>,
    /// The service of PAM whose account phase follows a good key.
    pub account: Option<String>,
    /// Its words, one a line: no word has a control character.
    pub checkpassword: Option<String>,
    pub authorized_keys: String,
}

impl Backends {
    /// Those that a table names. `before`: of the configuration that stands, which says whether the
    /// usual password file is there if nothing else does in time.
    pub fn of(table: &Table, before: Option<&Backends>) -> Backends {
        let s = &table.settings;
        let usual = || {
            let is_there =
                match ask(before.is_some(), PASSWORDS.as_ref(), || fs::metadata(PASSWORDS)) {
                    Err(e) if e.kind() == ErrorKind::TimedOut => {
                        before.is_some_and(|b| b.passwords.as_deref() == Some(PASSWORDS))
                    }
                    found => found.is_ok(),
                };
            is_there.then(|| PASSWORDS.to_string())
        };
        Backends {
            passwords: s.passwords.clone().or_else(usual),
            pam: s.pam.clone(),
            account: s.account_service().map(String::from),
            checkpassword: s.checkpassword.as_ref().map(|words| words.join("\n")),
            authorized_keys: s.authorized_keys.join(" "),
        }
    }
}
