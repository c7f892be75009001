//! What can go wrong, and what the person can do about it.

use crate::wire::reply;
use std::fmt;
use std::path::PathBuf;

/// Exit status of a service that was refused: none that a service of its own is likely to have.
pub const REFUSED: i32 = 254;
/// Exit status where there is no session, as ssh(1) has it.
pub const NO_SESSION: i32 = 255;

/// One Display for all of it.
#[derive(Debug)]
pub enum Error {
    /// A mistake of the command line, with the usage.
    Usage(String),
    /// Mistakes of the configuration, `FILE:LINE: WORD: what is wrong, what would be right`.
    Config(Vec<String>),
    NoSuchHost {
        host: String,
        why: String,
    },
    /// Nobody took the connection.
    Unreached {
        place: String,
        why: String,
    },
    NoAnswer {
        place: String,
        seconds: u64,
    },
    /// It speaks something else; its first line.
    NotFived {
        place: String,
        said: String,
    },
    /// A tcpmux server that knows no SSL; what it said.
    NoSsl {
        place: String,
        said: String,
    },
    /// TLS itself failed.
    Tls {
        place: String,
        why: String,
    },
    /// A key that nobody vouches for, and nobody to ask, or the answer was no.
    UnknownKey {
        place: String,
        key: String,
        file: PathBuf,
        asked: bool,
    },
    /// Another key than before.
    ChangedKey {
        place: String,
        key: String,
        known: String,
        origin: String,
    },
    /// A certificate that cannot be right; its key, where it can be read.
    BadCertificate {
        place: String,
        key: Option<String>,
        why: String,
        file: PathBuf,
    },
    /// Nobody is logged in; what was tried.
    Login {
        who: String,
        tried: String,
    },
    /// The server refused what the session needs; its line.
    Refused {
        place: String,
        what: &'static str,
        said: String,
    },
    /// The service was refused; the server's words, and a hint.
    Service {
        service: String,
        said: String,
        hint: &'static str,
    },
    /// A connection that stood is no more.
    Lost {
        what: String,
        why: String,
    },
    /// There is no session (-O).
    NoSession {
        place: String,
    },
    /// This computer refuses something.
    System {
        what: String,
        why: String,
    },
}

impl Error {
    /// A system call's error.
    pub fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
        let what = what.into();
        move |e| Error::System { what, why: reason(&e) }
    }

    /// Is it about a server that is not trusted? That is said even to who wants no words.
    pub fn is_distrust(&self) -> bool {
        matches!(
            self,
            Error::UnknownKey { .. } | Error::ChangedKey { .. } | Error::BadCertificate { .. }
        )
    }

    pub fn status(&self) -> i32 {
        match self {
            Error::Service { .. } => REFUSED,
            _ => NO_SESSION,
        }
    }
}

/// An error without its number.
pub fn reason(e: &std::io::Error) -> String {
    let text = e.to_string();
    text.split(" (os error").next().unwrap_or_default().to_string()
}

const LOUD: &str = "@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@";

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Usage(what) => write!(f, "{what}"),
            Error::Config(mistakes) => write!(f, "{}", mistakes.join("\nfive: ")),
            Error::NoSuchHost { host, why } => write!(
                f,
                "{host}: no such host ({why}): look at the name, and at this computer's DNS"
            ),
            Error::Unreached { place, why } => {
                write!(
                    f,
                    "{place}: no connection ({why}): is fived running there? -p PORT says another port"
                )
            }
            Error::NoAnswer { place, seconds } => {
                write!(
                    f,
                    "{place}: no answer within {seconds} s: is the computer up, and does a firewall let this port through?"
                )
            }
            Error::NotFived { place, said } if said.is_empty() => {
                write!(
                    f,
                    "{place}: this is not fived, it ends the connection without a word: -p PORT says another port, --plain speaks with xinetd"
                )
            }
            Error::NotFived { place, said } => {
                write!(f, "{place}: this is not fived, it says {said:?}: -p PORT says another port")
            }
            Error::NoSsl { place, said } => {
                write!(
                    f,
                    "{place}: a tcpmux server that speaks no SSL (-{said}): --plain uses it without encryption"
                )
            }
            Error::Tls { place, why } => write!(f, "{place}: no TLS session: {why}"),
            Error::UnknownKey { place, key, file, asked: true } => {
                write!(
                    f,
                    "{place}: the key {key} was not accepted; nothing was written to {}",
                    file.display()
                )
            }
            Error::UnknownKey { place, key, file, asked: false } => write!(
                f,
                "{place}: its key is not known, and there is no terminal to ask: {key}\ncompare it with what `fived --fingerprint` says \
                 there; if it is the same, use --accept-new once, or add this line to {}:\n{place} {key}",
                file.display()
            ),
            Error::ChangedKey { place, key, known, origin } => write!(
                f,
                "{LOUD}\nWARNING: THE KEY OF {place} HAS CHANGED. Somebody may be listening in, or it has a new key.\n{LOUD}\nit shows  \
                 {key}\nknown is  {known}  ({origin})\nNothing was sent. Ask its administrator what `fived --fingerprint` says there; if the \
                 new key is right, take the old one out of {origin}"
            ),
            Error::BadCertificate { place, key: None, why, .. } => {
                write!(f, "{place}: its certificate is refused: {why}\nNothing was sent.")
            }
            Error::BadCertificate { place, key: Some(key), why, file } => write!(
                f,
                "{place}: its certificate is refused: {why}\nNothing was sent. If this is the right computer all the same, compare {key} with \
                 what `fived --fingerprint` says there, and add this line to {}:\n{place} {key}",
                file.display()
            ),
            Error::Login { who, tried } => write!(f, "{who}: not logged in: {tried}"),
            Error::Refused { place, what, said } if said == reply::refusal(reply::BUSY) => {
                write!(
                    f,
                    "{place}: {what} was refused: {said}: the server has as many sessions as it takes, try again later"
                )
            }
            Error::Refused { place, what, said } => {
                write!(f, "{place}: {what} was refused: {said}")
            }
            Error::Service { service, said, hint } => write!(f, "{service}: {said}{hint}"),
            Error::Lost { what, why } => write!(f, "{what}: {why}"),
            Error::NoSession { place } => write!(f, "{place}: no session"),
            Error::System { what, why } => write!(f, "{what}: {why}"),
        }
    }
}
