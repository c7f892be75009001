//! Every line that fived itself writes, as fived-session(7) has it, and how five reads those that
//! it acts on. Each ends in CRLF; a refusal begins with `-`.

/// The first byte of a service's own reply (RFC 1078), and of a refusal.
pub const ACCEPTED: &[u8] = b"+";
pub const REFUSED: &[u8] = b"-";

/// The name is unknown, or this session may not use it: the client cannot tell which.
pub const NOT_AVAILABLE: &[u8] = b"-Service not available\r\n";
/// The service may be used, but it is at its own limit, or at one of the system.
pub const BUSY: &[u8] = b"-Service busy\r\n";
/// The service may be used, but its program or user is missing; the log says which.
pub const FAILED: &[u8] = b"-Service failed\r\n";
/// The line is too long.
pub const TOO_LONG: &[u8] = b"-Request too long\r\n";
/// The dialogue of a built-in begins.
pub const SUCCESS: &[u8] = b"+ Success\r\n";

pub const WHICH_HOST: &[u8] = b"Which VHOST? ";
pub const NO_SUCH_HOST: &[u8] = b"- No such host\r\n";
/// Before and after the name of a virtual host.
const HOST_SELECTED: [&str; 2] = ["Host ", " selected\r\n"];

pub const ENTER_USERNAME: &[u8] = b"Enter Username: ";
pub const ENTER_PASSWORD: &[u8] = b"Enter Password: ";
pub const LOGIN_FAILED: &[u8] = b"- Authentication failed\r\n";
/// Before and after the name of a user.
const LOGGED_IN: [&str; 2] = ["Authentication as ", " successful\r\n"];
/// Before PUBKEY's challenge.
const CHALLENGE: &str = "+ ";
pub const AUTH_NEEDS_SSL: &[u8] = b"- AUTH needs SSL first\r\n";
pub const PUBKEY_NEEDS_SSL: &[u8] = b"- PUBKEY needs SSL first\r\n";

pub const RESUME_NEEDS_SSL: &[u8] = b"- RESUME needs SSL first\r\n";
/// The client has not proved that a session is its own, or there is no such session.
pub const NO_SUCH_SESSION: &[u8] = b"- No such session\r\n";

pub const ALREADY_ENCRYPTED: &[u8] = b"- Session is already encrypted\r\n";
pub const NOT_INSIDE_MULTIPLEX: &[u8] = b"- Not inside MULTIPLEX\r\n";

/// OFFER on a connection that is no stream of MULTIPLEX.
pub const OFFER_NEEDS_MULTIPLEX: &[u8] = b"- OFFER needs MULTIPLEX\r\n";
/// There is no such service to be offered, or this user may not: the client cannot tell which.
pub const NOT_OFFERED: &[u8] = b"- Not offered\r\n";
/// Before the name of a service that its client offers now.
const OFFERING: &str = "Offering ";

/// `Offering NAME`
pub fn offering(name: &str) -> Vec<u8> {
    format!("{OFFERING}{name}\r\n").into_bytes()
}

/// Does this line, without its end, say that a service is offered now?
pub fn is_offering(text: &[u8]) -> bool {
    text.starts_with(OFFERING.as_bytes())
}

/// `Host NAME selected`
pub fn host_selected(name: &str) -> Vec<u8> {
    HOST_SELECTED.join(name).into_bytes()
}

/// `Authentication as USER successful`
pub fn logged_in(user: &str) -> Vec<u8> {
    LOGGED_IN.join(user).into_bytes()
}

/// `- Try again later (N s)`
pub fn try_later(seconds: u32) -> Vec<u8> {
    format!("- Try again later ({seconds} s)\r\n").into_bytes()
}

/// `+ CHALLENGE`
pub fn challenge(base64: &str) -> Vec<u8> {
    format!("{CHALLENGE}{base64}\r\n").into_bytes()
}

/// HELP's answer: the services, then the built-ins.
pub fn help<'a>(
    services: impl Iterator<Item = &'a str>,
    builtins: impl Iterator<Item = &'static str>,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    for name in services.chain(builtins.map(|name| -> &'a str { name })) {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// The result of HOST.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    Selected,
    NoSuchHost,
}

/// Is this line, without its end, that reply?
pub fn is(text: &[u8], reply: &[u8]) -> bool {
    reply.strip_suffix(b"\r\n") == Some(text)
}

/// The text of a refusal: the reply without its `-` and its line end.
pub fn refusal(reply: &'static [u8]) -> &'static str {
    let text = reply.strip_prefix(REFUSED).and_then(|r| r.strip_suffix(b"\r\n"));
    text.and_then(|t| std::str::from_utf8(t).ok()).unwrap_or_default()
}

/// Reads HOST's prompt and what follows on the same line. None: it is something else.
pub fn read_host(text: &[u8]) -> Option<Host> {
    match text.strip_prefix(WHICH_HOST)? {
        rest if is(rest, NO_SUCH_HOST) => Some(Host::NoSuchHost),
        rest if rest.starts_with(HOST_SELECTED[0].as_bytes()) => Some(Host::Selected),
        _ => None,
    }
}

/// Reads PUBKEY's challenge (base64). None: the line is something else.
pub fn read_challenge(text: &str) -> Option<&str> {
    text.strip_prefix(CHALLENGE)
}

/// Reads the result of a login. None: the line is something else.
pub fn read_login(text: &str) -> Option<bool> {
    if is(text.as_bytes(), LOGIN_FAILED) {
        return Some(false);
    }
    let [before, after] = LOGGED_IN;
    (text.starts_with(before) && text.ends_with(after.trim_end())).then_some(true)
}

/// Where in a line the result of a login begins: it may follow a prompt on the same line.
pub fn find_login(text: &str) -> Option<usize> {
    let failed = std::str::from_utf8(LOGIN_FAILED).unwrap_or_default().trim_end();
    text.find(LOGGED_IN[0]).or_else(|| text.find(failed))
}

#[cfg(test)]
mod tests;
