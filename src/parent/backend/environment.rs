//! What a service finds in its environment (fived.conf(5)): nothing of fived's own.

use crate::parent::addresses::Addresses;
use crate::policy::Service;
use crate::sys::identity::User;
use crate::sys::spawn::{BadWord, CList, Env, PATH};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt;

/// Bytes at most of the message to a daemon that is given the connection (fived.conf(5)).
const MESSAGE_MAX: usize = 4096;

/// Who is at the other end, as the environment tells it.
#[derive(Debug, Clone, Copy)]
pub struct Remote<'a> {
    pub addresses: &'a Addresses,
    /// Does the program get the socket of datagrams itself?
    pub datagrams: bool,
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
    let mut put = |key: &str, value: &[u8]| {
        if !own.iter().any(|(k, _)| k == key) && !passed.iter().any(|(k, _)| *k == key) {
            bad = env.push(key, value).err().or(bad.take());
        }
    };
    put("PATH", PATH.as_bytes());
    connection(&mut put, service, remote);
    if let Some(term) = remote.term {
        put("TERM", term.as_bytes());
    }
    put("HOME", user.home.as_bytes());
    put("USER", user.name.as_bytes());
    put("LOGNAME", user.name.as_bytes());
    put("SHELL", user.shell.as_bytes());
    for (key, value) in own {
        env.push(key, value.as_bytes())?;
    }
    bad.map_or(Ok(env.finish()), Err)
}

/// What a daemon is told that is given the connection: of the environment the lines that tell of
/// the connection, `NAME=value`. Err: why it cannot be told.
pub fn message(service: &Service, remote: &Remote) -> Result<Vec<u8>, String> {
    let (mut all, mut bad) = (Vec::new(), None);
    let mut put = |key: &str, value: &[u8]| {
        if value.iter().any(u8::is_ascii_control) {
            bad = Some(format!("{key}: a control character in it, so it cannot be one line"));
        }
        all.extend([key.as_bytes(), b"=", value, b"\n"].concat());
    };
    connection(&mut put, service, remote);
    match bad {
        Some(why) => Err(why),
        None if all.len() > MESSAGE_MAX => Err(format!(
            "the daemon cannot be told of the connection: {} bytes, more than {MESSAGE_MAX}",
            all.len()
        )),
        None => Ok(all),
    }
}

/// What tells of the connection.
fn connection(put: &mut impl FnMut(&str, &[u8]), service: &Service, remote: &Remote) {
    match remote.addresses {
        Addresses::Internet { local, .. } if remote.datagrams => {
            put("PROTO", b"UDP");
            address(put, ["UDPLOCALIP", "UDPLOCALPORT"], *local);
        }
        Addresses::Internet { peer, local } => {
            put("PROTO", b"TCP");
            address(put, ["TCPLOCALIP", "TCPLOCALPORT"], *local);
            address(put, ["TCPREMOTEIP", "TCPREMOTEPORT"], *peer);
            address(put, ["REMOTE_ADDR", "REMOTE_PORT"], *peer);
            put("REMOTE_HOST", peer.ip().to_string().as_bytes());
        }
        Addresses::Listener(Some(local)) => {
            put("PROTO", b"TCP");
            address(put, ["TCPLOCALIP", "TCPLOCALPORT"], *local);
        }
        Addresses::Listener(None) => put("PROTO", b"IPC"),
        Addresses::Unix(client) => {
            put("PROTO", b"IPC");
            put("IPCREMOTEEUID", client.ran_as.uid.to_string().as_bytes());
            put("IPCREMOTEEGID", client.ran_as.gid.to_string().as_bytes());
            if let Some(path) = &client.path {
                put("IPCREMOTEPATH", path);
            }
        }
    }
    put("FIVED_SERVICE", service.name.as_bytes());
    put("FIVED_HOST", remote.host.as_bytes());
    put("FIVED_SESSION", remote.session.to_string().as_bytes());
    if let Some((name, method)) = remote.login {
        put("FIVED_USER", name.as_bytes());
        put("REMOTE_USER", name.as_bytes());
        put("FIVED_AUTH", method.as_bytes());
    }
    if let Some(tls) = remote.tls {
        put("SSL_PROTOCOL", b"TLSv1.3");
        put("SSL_CIPHER", tls.suite.as_bytes());
        if !tls.server_name.is_empty() {
            put("SSL_TLS_SNI_SERVERNAME", tls.server_name.as_bytes());
        }
    }
    if remote.run {
        put("FIVED_RUN", b"1");
    }
}

fn address(put: &mut impl FnMut(&str, &[u8]), [ip, port]: [&str; 2], a: SocketAddr) {
    match a.ip() {
        IpAddr::V4(v4) => put(ip, v4.to_string().as_bytes()),
        IpAddr::V6(v6) => put(ip, v6.to_string().as_bytes()),
    }
    put(port, a.port().to_string().as_bytes());
}
