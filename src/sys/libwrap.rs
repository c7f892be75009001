//! The rules of hosts_access(5), by libwrap (tcp_wrappers 7.6), which is opened at run time. For a
//! process that does nothing else: a rule may look names up, and run commands.

use super::file;
use super::library::Library;
use nix::sys::socket::{SockaddrLike, SockaddrStorage};
use std::ffi::{CString, c_char, c_int, c_void};
use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Read};
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::ptr;

/// The files of rules.
pub const RULES: [&str; 2] = ["/etc/hosts.allow", "/etc/hosts.deny"];

/// [`has_rules`] reads no more of a file, and takes for granted that a rule follows.
const RULES_MAX: u64 = 1 << 20;

/// What request_set(3) is told next (tcpd.h).
const DAEMON: c_int = 2;
const CLIENT_ADDRESS: c_int = 5;
const CLIENT: c_int = 6;
const SERVER: c_int = 9;
const END: c_int = 0;

/// STRING_LENGTH of tcpd.h.
const TEXT: usize = 128;

/// struct host_info of tcpd.h.
#[repr(C)]
struct Host {
    name: [c_char; TEXT],
    address: [c_char; TEXT],
    socket_address: *mut c_void,
    unit: *mut c_void,
    request: *mut Request,
}

/// struct request_info of tcpd.h, which every program that uses the library has as its own.
#[repr(C)]
struct Request {
    fd: c_int,
    user: [c_char; TEXT],
    daemon: [c_char; TEXT],
    pid: [c_char; 10],
    client: Host,
    server: Host,
    sink: *mut c_void,
    host_name: *mut c_void,
    host_address: *mut c_void,
    cleanup: *mut c_void,
    config: *mut c_void,
}

type Init = unsafe extern "C" fn(*mut Request, c_int, ...) -> *mut Request;
type Access = unsafe extern "C" fn(*mut Request) -> c_int;

/// The library, open.
pub struct Libwrap {
    library: Library,
}

impl Libwrap {
    /// Err: a sentence.
    pub fn open() -> Result<Libwrap, String> {
        Library::open(&[c"libwrap.so.0"]).map(|library| Libwrap { library })
    }

    /// May a client use the daemon of that name? Its address, and this computer's; a client without
    /// one is `unknown` to the rules. It waits for the name service where a rule asks for a name.
    /// Err: a sentence: the rules were not asked.
    pub fn allows(
        &self,
        daemon: &str,
        addresses: Option<(SocketAddr, SocketAddr)>,
    ) -> Result<bool, String> {
        let missing = || "libwrap.so.0: not the library of tcp_wrappers".to_string();
        let find = |name| self.library.symbol(name).ok_or_else(missing);
        // `twist` replaces the process by a command that has the connection, which is not here.
        let resident = find(c"resident")?.cast::<c_int>();
        let daemon = CString::new(daemon).map_err(|e| format!("{daemon:?}: {e}"))?;
        let given = addresses.map(|(client, server)| {
            let text = CString::new(client.ip().to_string()).unwrap_or_default();
            (text, SockaddrStorage::from(client), SockaddrStorage::from(server))
        });
        // SAFETY: all zeros is a valid request: texts and null pointers.
        let mut request: Request = unsafe { std::mem::zeroed() };
        let at = &raw mut request;
        // SAFETY: functions of tcpd.h with the types that it gives them; all that they are handed
        // lives until hosts_access has returned. The variable `resident` is an int.
        unsafe {
            let init = std::mem::transmute::<*mut c_void, Init>(find(c"request_init")?);
            let access = std::mem::transmute::<*mut c_void, Access>(find(c"hosts_access")?);
            *resident = 1;
            let (daemon, end) = (daemon.as_ptr(), ptr::null::<c_char>());
            let Some((address, client, server)) = &given else {
                init(at, DAEMON, daemon, END, end);
                return Ok(access(at) != 0);
            };
            let address = address.as_ptr();
            let (client, server) = (client.as_ptr(), server.as_ptr());
            let (a, b, c) = (CLIENT_ADDRESS, CLIENT, SERVER);
            init(at, DAEMON, daemon, a, address, b, client, c, server, END, end);
            // As sock_host(3) does for a descriptor: names are looked up when a rule asks for one.
            (*at).host_name = find(c"sock_hostname")?;
            (*at).host_address = find(c"sock_hostaddr")?;
            Ok(access(at) != 0)
        }
    }
}

/// Has one of the files a rule? Waits for nobody. Errors: one is there and cannot be read: the
/// library would take that for no rules.
pub fn has_rules() -> io::Result<bool> {
    let mut any = false;
    for path in RULES {
        let text = match read(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => continue,
            read => read.map_err(|e| io::Error::new(e.kind(), format!("{path}: {e}")))?,
        };
        any |= text.len() as u64 == RULES_MAX || text.split(|b| *b == b'\n').any(is_rule);
    }
    Ok(any)
}

/// The beginning of a file of rules. A named pipe is an error: the library would wait for whoever
/// writes there. `/dev/null`, with which administrators cover files, is not.
fn read(path: &str) -> io::Result<Vec<u8>> {
    let how = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(how).open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_fifo() {
        let found = file::name_of(kind);
        return Err(io::Error::other(format!("expected a regular file, found {found}")));
    }
    let mut text = Vec::new();
    file.take(RULES_MAX).read_to_end(&mut text)?;
    Ok(text)
}

/// Neither blank nor a comment.
fn is_rule(line: &[u8]) -> bool {
    !matches!(line.trim_ascii_start().first(), None | Some(b'#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_blank_lines_are_no_rules() {
        assert!(!is_rule(b"") && !is_rule(b" \t") && !is_rule(b"# ALL: ALL") && !is_rule(b"  #"));
        assert!(is_rule(b"ALL: ALL") && is_rule(b" sshd : .example.org"));
    }
}
