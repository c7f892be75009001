//! What a service finds in its environment (SPEC 2.4): nothing of fived's own.

use crate::policy::Service;
use crate::sys::identity::User;
use crate::sys::spawn::{BadWord, CList, Env};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt;

/// Bytes of a message at most (SPEC 6.4).
const MESSAGE_MAX: usize = 4096;

pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Who is at the other end, as the environment tells it.
#[derive(Debug, Clone, Copy)]
pub struct Remote<'a> {
    /// None: the program gets the socket itself, and asks it (`wait`).
    pub peer: Option<SocketAddr>,
    /// TCP or UDP.
    pub protocol: &'static str,
    pub local: SocketAddr,
    /// The chosen host's name; empty for the default.
    pub host: &'a str,
    pub session: u64,
    /// Name and method of who logged in.
    pub login: Option<(&'a str, &'static str)>,
    pub tls: Option<&'a Tls>,
    /// Its client asked for it by RUN.
    pub run: bool,
    /// The name of the terminal that it gets, if it gets one.
    pub term: Option<&'a str>,
}

/// What TLS has settled.
#[derive(Debug, Clone)]
pub struct Tls {
    pub suite: &'static str,
    /// What the client asked for; empty if nothing.
    pub server_name: String,
}

/// The environment of one start. Err: a value that no program can be given.
pub fn of(service: &Service, user: &User, remote: &Remote) -> Result<CList, BadWord> {
    let own = &service.attributes.env;
    let (mut env, mut bad) = (Env::new(), None);
    // The administrator's own word goes before, and what is passed on before what is filled in.
    let passed: Vec<_> = service
        .attributes
        .passenv
        .iter()
        .filter_map(|name| Some((name, std::env::var_os(name)?)))
        .collect();
    for (i, (name, value)) in passed.iter().enumerate() {
        if !own.iter().any(|(k, _)| k == *name) && !passed[..i].iter().any(|(k, _)| k == name) {
            env.push(name, value.as_bytes())?;
        }
    }
    let mut put = |key: &str, value: &str| {
        if !own.iter().any(|(k, _)| k == key) && !passed.iter().any(|(k, _)| *k == key) {
            bad = env.push(key, value.as_bytes()).err().or(bad.take());
        }
    };
    put("PATH", PATH);
    connection(&mut put, service, remote);
    if remote.run {
        put("FIVED_RUN", "1");
    }
    if let Some(term) = remote.term {
        put("TERM", term);
    }
    put("HOME", &user.home);
    put("USER", &user.name);
    put("LOGNAME", &user.name);
    put("SHELL", &user.shell);
    for (key, value) in own {
        env.push(key, value.as_bytes())?;
    }
    bad.map_or(Ok(env.finish()), Err)
}

/// What a daemon is told that is given the connection: of the environment the lines that tell of
/// the connection, `NAME=value`. Err: why it cannot be told.
pub fn message(service: &Service, remote: &Remote) -> Result<Vec<u8>, String> {
    let (mut all, mut bad) = (String::new(), None);
    let mut put = |key: &str, value: &str| {
        if value.contains(|c: char| c.is_ascii_control()) {
            bad = Some(format!("{key}: a control character in it, so it cannot be one line"));
        }
        all.extend([key, "=", value, "\n"]);
    };
    connection(&mut put, service, remote);
    match bad {
        Some(why) => Err(why),
        None if all.len() > MESSAGE_MAX => Err(format!(
            "the daemon cannot be told of the connection: {} bytes, more than {MESSAGE_MAX}",
            all.len()
        )),
        None => Ok(all.into_bytes()),
    }
}

/// What tells of the connection.
fn connection(put: &mut impl FnMut(&str, &str), service: &Service, remote: &Remote) {
    put("PROTO", remote.protocol);
    let names = match remote.protocol {
        "UDP" => ["UDPLOCALIP", "UDPLOCALPORT"],
        _ => ["TCPLOCALIP", "TCPLOCALPORT"],
    };
    address(put, names, remote.local);
    if let Some(peer) = remote.peer {
        address(put, ["TCPREMOTEIP", "TCPREMOTEPORT"], peer);
        address(put, ["REMOTE_ADDR", "REMOTE_PORT"], peer);
        put("REMOTE_HOST", &peer.ip().to_string());
    }
    put("FIVED_SERVICE", &service.name);
    put("FIVED_HOST", remote.host);
    put("FIVED_SESSION", &remote.session.to_string());
    if let Some((name, method)) = remote.login {
        put("FIVED_USER", name);
        put("REMOTE_USER", name);
        put("FIVED_AUTH", method);
    }
    if let Some(tls) = remote.tls {
        put("SSL_PROTOCOL", "TLSv1.3");
        put("SSL_CIPHER", tls.suite);
        if !tls.server_name.is_empty() {
            put("SSL_TLS_SNI_SERVERNAME", &tls.server_name);
        }
    }
}

fn address(put: &mut impl FnMut(&str, &str), [ip, port]: [&str; 2], a: SocketAddr) {
    match a.ip() {
        IpAddr::V4(v4) => put(ip, &v4.to_string()),
        IpAddr::V6(v6) => put(ip, &v6.to_string()),
    }
    put(port, &a.port().to_string());
}
