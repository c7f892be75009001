//! What can go wrong: the message says what failed, and what the user can do about it.

use crate::wire::reply;
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Exit status when the service was refused. Other programs hardly use it.
pub const REFUSED: i32 = 254;
/// Exit status when there is no session; ssh(1) uses the same one.
pub const NO_SESSION: i32 = 255;

/// Why five, or one of its calls, fails.
#[derive(Debug)]
pub enum Error {
    /// A mistake of the command line, with the usage.
    Usage(String),
    /// Mistakes of the configuration, `FILE:LINE: WORD: expected X`.
    Config(Vec<String>),
    /// The name of the host has no address.
    NoSuchHost { host: String, why: String },
    /// The connection was refused, or there is no way to the computer (`kind`).
    Unreached { place: String, why: String, kind: ErrorKind },
    /// Nothing came back within this time.
    NoAnswer { place: String, seconds: u64 },
    /// The server speaks another protocol; `reply` is its first line.
    NotFived { place: String, reply: String },
    /// A tcpmux server on this computer that does not know the word MULTIPLEX.
    NoMultiplex { place: String },
    /// A tcpmux server that does not know the word SSL; `reply` is its answer.
    NoSsl { place: String, reply: String },
    /// The TLS handshake failed.
    Tls { place: String, why: String },
    /// The key is neither pinned, nor in known_hosts, nor certified by a root of the system.
    /// `asked`: the user was asked, and refused it; otherwise there was no terminal at which to
    /// ask.
    UnknownKey { place: String, key: String, file: PathBuf, asked: bool },
    /// The server shows another key than the one that is known.
    ChangedKey { place: String, key: String, known: String, origin: String },
    /// A certificate that is expired, not yet valid, for another host, or unreadable. `key`: its
    /// key, if it can be read.
    BadCertificate { place: String, key: Option<String>, why: String, file: PathBuf },
    /// No login succeeded; `tried` lists the attempts.
    Login { who: String, tried: String },
    /// The server refused a built-in that the session needs; `reply` is its answer.
    Refused { place: String, what: &'static str, reply: String },
    /// The service was refused; `reply` is the server's answer.
    Service { service: String, reply: String, hint: &'static str },
    /// A gate's service was refused, through which the session was to be made.
    Gate { gate: String, service: String, reply: String },
    /// The connection was lost after it had been made.
    Lost { what: String, why: String },
    /// There is no session for -O.
    NoSession { place: String },
    /// A system call failed.
    System { what: String, why: String },
}

impl Error {
    /// Makes the error of a connection that could not be made.
    pub fn unreached(place: String, e: &std::io::Error) -> Error {
        Error::Unreached { place, why: reason(e), kind: e.kind() }
    }

    /// Makes an error of a failed system call; `what` names the object of the call.
    pub fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
        let what = what.into();
        move |e| Error::System { what, why: reason(&e) }
    }

    /// May the same succeed later, without anybody changing anything? Then whoever has time tries
    /// again.
    pub fn may_pass(&self) -> bool {
        match self {
            Error::NoSuchHost { .. }
            | Error::Unreached { .. }
            | Error::NoAnswer { .. }
            | Error::Refused { .. }
            | Error::Gate { .. }
            | Error::Lost { .. }
            | Error::System { .. } => true,
            Error::Usage(_)
            | Error::Config(_)
            | Error::NotFived { .. }
            | Error::NoMultiplex { .. }
            | Error::NoSsl { .. }
            | Error::Tls { .. }
            | Error::UnknownKey { .. }
            | Error::ChangedKey { .. }
            | Error::BadCertificate { .. }
            | Error::Login { .. }
            | Error::Service { .. }
            | Error::NoSession { .. } => false,
        }
    }

    /// Is it about a server that is not trusted? That is printed even with -q.
    pub fn is_distrust(&self) -> bool {
        matches!(
            self,
            Error::UnknownKey { .. } | Error::ChangedKey { .. } | Error::BadCertificate { .. }
        )
    }

    /// The exit status of five.
    pub fn status(&self) -> i32 {
        match self {
            Error::Service { .. } => REFUSED,
            _ => NO_SESSION,
        }
    }
}

/// The text of an error of the system, without its number.
pub fn reason(e: &std::io::Error) -> String {
    let text = e.to_string();
    text.split(" (os error").next().unwrap_or_default().to_string()
}

/// What to ask if a computer seems not to be there, if this one seems to have no network, and if
/// something else is there.
const UP: &str = "is the computer up, and does a firewall let this port through?";
const LEADS_THERE: &str = "is this computer on a network that leads there?";
const RUNS_THERE: &str = "is fived running there? give its port with -p";
const RULE: &str = "@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@";

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl Error {
    fn text(&self) -> String {
        match self {
            Error::Usage(what) => what.clone(),
            Error::Config(mistakes) => mistakes.join("\nfive: "),
            Error::Login { who, tried } => format!("{who}: not logged in: {tried}"),
            Error::Refused { place, what, reply } => refused(place, what, reply),
            Error::Service { service, reply, hint } => {
                let (first, rest) = reply.split_at(reply.find('\n').unwrap_or(reply.len()));
                format!("{service}: {first}{hint}{rest}")
            }
            Error::Gate { gate, service, reply } => {
                format!("{gate}: no way through its service {service}: {reply}")
            }
            Error::Lost { what, why } | Error::System { what, why } => format!("{what}: {why}"),
            Error::NoSession { place } => format!("{place}: no session"),
            Error::NoSuchHost { host, why } => {
                format!("{host}: no such host ({why}): check its spelling, and this computer's DNS")
            }
            Error::Unreached { place, why, .. } if place.starts_with('/') => format!(
                "{place}: no connection ({why}): does fived listen there (listen in fived.conf), and may you write to that socket?"
            ),
            Error::Unreached { place, why, kind } => {
                let hint = match kind {
                    ErrorKind::HostUnreachable | ErrorKind::PermissionDenied => UP,
                    ErrorKind::NetworkUnreachable => LEADS_THERE,
                    _ => RUNS_THERE,
                };
                format!("{place}: no connection ({why}): {hint}")
            }
            Error::NoAnswer { place, seconds } => {
                format!("{place}: no answer within {seconds} s: {UP}")
            }
            Error::NotFived { place, reply } => not_fived(place, reply),
            Error::NoMultiplex { place } => format!(
                "{place}: this is not fived, it knows no MULTIPLEX: use --plain, without -H"
            ),
            Error::NoSsl { place, reply } => format!(
                "{place}: a tcpmux server that speaks no SSL (-{reply}): use --plain, which does not encrypt"
            ),
            Error::Tls { place, why } => format!("{place}: no TLS session: {why}"),
            Error::UnknownKey { place, key, file, asked } => unknown_key(place, key, file, *asked),
            Error::ChangedKey { place, key, known, origin } => {
                changed_key(place, key, known, origin)
            }
            Error::BadCertificate { place, key, why, file } => {
                bad_certificate(place, key.as_deref(), why, file)
            }
        }
    }
}

fn refused(place: &str, what: &str, answer: &str) -> String {
    if answer == reply::refusal(reply::BUSY) {
        format!(
            "{place}: {what} was refused: {answer}: the server has as many sessions as it takes, try again later"
        )
    } else {
        format!("{place}: {what} was refused: {answer}")
    }
}

fn not_fived(place: &str, reply: &str) -> String {
    match (reply, place.starts_with('/')) {
        ("", false) => format!(
            "{place}: this is not fived, it ends the connection without a word: give fived's port with -p; for xinetd use --plain"
        ),
        ("", true) => format!(
            "{place}: this is not fived, it ends the connection without a word: for xinetd use --plain, for a service's own socket nc -U"
        ),
        (_, false) => {
            format!("{place}: this is not fived, it says {reply:?}: give fived's port with -p")
        }
        (_, true) => format!("{place}: this is not fived, it says {reply:?}"),
    }
}

fn unknown_key(place: &str, key: &str, file: &Path, asked: bool) -> String {
    let file = file.display();
    if asked {
        return format!("{place}: the key {key} was not accepted; nothing was written to {file}");
    }
    format!(
        "{place}: its key is not known, and there is no terminal to ask: {key}\ncompare it with what `fived --fingerprint` prints \
         there; if it is the same, use --accept-new once, or add this line to {file}:\n{place} {key}"
    )
}

fn changed_key(place: &str, key: &str, known: &str, origin: &str) -> String {
    format!(
        "{RULE}\nWARNING: THE KEY OF {place} HAS CHANGED. Somebody may be listening in, or it has a new key.\n{RULE}\nit shows  \
         {key}\nknown is  {known}  ({origin})\nNothing was sent. Ask its administrator what `fived --fingerprint` says there; if the \
         new key is right, take the old one out of {origin}"
    )
}

fn bad_certificate(place: &str, key: Option<&str>, why: &str, file: &Path) -> String {
    let Some(key) = key else {
        return format!("{place}: its certificate is refused: {why}\nNothing was sent.");
    };
    format!(
        "{place}: its certificate is refused: {why}\nNothing was sent. If this is the right computer all the same, compare {key} with \
         what `fived --fingerprint` says there, and add this line to {}:\n{place} {key}",
        file.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nobody looks for fived on a computer that cannot be reached.
    #[test]
    fn what_to_look_at_depends_on_why_there_is_no_connection() {
        for (kind, hint) in [
            (ErrorKind::ConnectionRefused, RUNS_THERE),
            (ErrorKind::HostUnreachable, UP),
            (ErrorKind::NetworkUnreachable, LEADS_THERE),
        ] {
            let text = Error::unreached("h:1".into(), &kind.into()).to_string();
            assert!(text.starts_with("h:1: no connection (") && text.ends_with(hint), "{text}");
        }
    }
}
