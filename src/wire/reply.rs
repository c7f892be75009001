//! Every line that fived itself writes, as SPEC 1 has it. Each ends in CRLF; a refusal begins with
//! `-`.

/// An unknown name, and one that this session may not use: nobody can tell which.
pub const NOT_AVAILABLE: &[u8] = b"-Service not available\r\n";
/// Usable, but at a limit of its own or of the system.
pub const BUSY: &[u8] = b"-Service busy\r\n";
/// Usable, but its program or user is missing; the log says which.
pub const FAILED: &[u8] = b"-Service failed\r\n";
/// More bytes than a line may have.
pub const TOO_LONG: &[u8] = b"-Request too long\r\n";
/// A built-in's dialogue begins.
pub const SUCCESS: &[u8] = b"+ Success\r\n";

pub const WHICH_HOST: &[u8] = b"Which VHOST? ";
pub const NO_SUCH_HOST: &[u8] = b"- No such host\r\n";

pub const ENTER_USERNAME: &[u8] = b"Enter Username: ";
pub const ENTER_PASSWORD: &[u8] = b"Enter Password: ";
pub const LOGIN_FAILED: &[u8] = b"- Authentication failed\r\n";
pub const AUTH_NEEDS_SSL: &[u8] = b"- AUTH needs SSL first\r\n";
pub const PUBKEY_NEEDS_SSL: &[u8] = b"- PUBKEY needs SSL first\r\n";

pub const ALREADY_ENCRYPTED: &[u8] = b"- Session is already encrypted\r\n";
pub const NOT_INSIDE_MULTIPLEX: &[u8] = b"- Not inside MULTIPLEX\r\n";

/// `Host NAME selected`
pub fn host_selected(name: &str) -> Vec<u8> {
    format!("Host {name} selected\r\n").into_bytes()
}

/// `Authentication as USER successful`
pub fn logged_in(user: &str) -> Vec<u8> {
    format!("Authentication as {user} successful\r\n").into_bytes()
}

/// `- Try again later (N s)`
pub fn try_later(seconds: u32) -> Vec<u8> {
    format!("- Try again later ({seconds} s)\r\n").into_bytes()
}

/// `+ CHALLENGE`
pub fn challenge(base64: &str) -> Vec<u8> {
    format!("+ {base64}\r\n").into_bytes()
}

/// HELP's answer: the services, then the built-ins.
pub fn help<'a>(
    services: impl Iterator<Item = &'a str>,
    builtins: impl Iterator<Item = &'a str>,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    for name in services.chain(builtins) {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out
}
