//! Where passwords are checked, and the keys of users found.

use crate::policy::Table;

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
    /// Those that a table names.
    pub fn of(table: &Table) -> Backends {
        let s = &table.settings;
        let usual = || std::path::Path::new(PASSWORDS).exists().then(|| PASSWORDS.to_string());
        Backends {
            passwords: s.passwords.clone().or_else(usual),
            pam: s.pam.clone(),
            account: s.account_service().map(String::from),
            checkpassword: s.checkpassword.as_ref().map(|words| words.join("\n")),
            authorized_keys: s.authorized_keys.join(" "),
        }
    }
}
