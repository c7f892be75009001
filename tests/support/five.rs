//! `five` as a person of its own: home, known keys and sessions are the test's, and so is their
//! end.

#![allow(dead_code)] // Each test file uses its own part of this.

pub use super::place::{ended, piped};
use super::{Daemon, Place, TIMEOUT};
use fived::wire::handover::Ask;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, send, socket,
};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

pub struct Five {
    pub home: String,
    pub address: SocketAddr,
    environment: Vec<(String, String)>,
}

impl Five {
    /// Somebody who has never used five, beside this daemon.
    pub fn new(d: &Daemon) -> Five {
        Five::at(&d.place, d.address())
    }

    /// The same for whatever is at that address.
    pub fn at(place: &Place, address: SocketAddr) -> Five {
        let home = place.at("home");
        std::fs::create_dir_all(&home).expect("home");
        Five { home, address, environment: Vec::new() }
    }

    pub fn env(mut self, name: &str, value: &str) -> Five {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Writes the configuration.
    pub fn config(self, text: &str) -> Five {
        let path = self.config_path("config");
        std::fs::create_dir_all(format!("{}/.config/five", self.home)).expect("directory");
        std::fs::write(&path, text).expect("config");
        // Whatever umask the tests have.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(path, mode).expect("config");
        self
    }

    pub fn config_path(&self, name: &str) -> String {
        format!("{}/.config/five/{name}", self.home)
    }

    pub fn port(&self) -> String {
        self.address.port().to_string()
    }

    /// A program in this person's environment.
    pub fn program(&self, name: &str) -> Command {
        let mut c = Command::new(name);
        for variable in
            ["SSH_AUTH_SOCK", "SSH_ASKPASS", "SSH_ASKPASS_REQUIRE", "DISPLAY", "XDG_CONFIG_HOME"]
        {
            c.env_remove(variable);
        }
        c.env("HOME", &self.home)
            .env("XDG_RUNTIME_DIR", format!("{}/run", self.home))
            .envs(self.environment.clone());
        std::fs::create_dir_all(format!("{}/run", self.home)).expect("run");
        c
    }

    /// five with these words, and nothing before them. It has no terminal, whoever runs the tests:
    /// setsid(1) becomes it.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut c = self.program("setsid");
        c.arg(env!("CARGO_BIN_EXE_five")).args(words);
        c
    }

    /// The same, started by another program, which gets its own words first; five trusts whoever it
    /// meets first.
    pub fn command_by(&self, program: &str, before: &[&str], words: &[&str]) -> Command {
        let mut c = self.program(program);
        c.args(before).args([env!("CARGO_BIN_EXE_five"), "--accept-new", "-p", &self.port()]);
        c.args(words);
        c
    }

    /// five with these words, which trusts whoever it meets first.
    pub fn run(&self, words: &[&str]) -> (i32, String, String) {
        self.run_with(words, b"")
    }

    /// The same, with something at standard input.
    pub fn run_with(&self, words: &[&str], input: &[u8]) -> (i32, String, String) {
        finish(self.start(words), input)
    }

    /// The same, running.
    pub fn start(&self, words: &[&str]) -> Child {
        let port = self.port();
        piped(&mut self.command(&[&["--accept-new", "-p", &port], words].concat()))
    }

    /// A call that is open: its service, `ready`, has answered.
    pub fn open_call(&self, words: &[&str]) -> Child {
        let host = self.address.ip().to_string();
        let mut child = self.start(&[words, &[&host, "ready"]].concat());
        let mut answer = [0; 6];
        child.stdout.as_mut().expect("piped").read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer, b"ready\n");
        child
    }

    /// A call of `cat` that stands: it has answered.
    pub fn standing_call(&self, words: &[&str]) -> Child {
        let host = self.address.ip().to_string();
        let mut child = self.start(&[words, &[&host, "cat"]].concat());
        child.stdin.as_mut().expect("piped").write_all(b"x").expect("written");
        child.stdout.as_mut().expect("piped").read_exact(&mut [0]).expect("an answer");
        child
    }

    /// A five that only forwards, once its listeners are there; where they are.
    pub fn forwards(&self, words: &[&str]) -> (Child, Vec<String>) {
        let host = self.address.ip().to_string();
        let mut child = self.start(&[&["-v", "-N"], words, &[&host]].concat());
        let (mut text, mut byte) = (String::new(), [0]);
        let err = child.stderr.as_mut().expect("piped");
        while !text.ends_with("holder has it\n") && !text.ends_with(")\n") {
            assert_eq!(err.read(&mut byte).expect("read"), 1, "{text}");
            text.push(byte[0].into());
        }
        let leads =
            |l: &str| Some(l.strip_prefix("five: ")?.split_once(" leads to ")?.0.to_string());
        (child, text.lines().filter_map(leads).collect())
    }

    /// five on a terminal of its own (script(1)): what is typed is `input`; all that the terminal
    /// shows.
    pub fn on_terminal(&self, words: &[&str], input: &str) -> (i32, String) {
        let line: Vec<String> = [&[env!("CARGO_BIN_EXE_five")], words]
            .concat()
            .iter()
            .map(|w| format!("'{w}'"))
            .collect();
        let mut c = self.program("script");
        let child = piped(c.args(["-qefc", &line.join(" "), "/dev/null"]));
        let (code, out, _) = finish_typing(child, input);
        (code, out)
    }

    /// Sockets of sessions that are held.
    pub fn sessions(&self) -> Vec<String> {
        let entries =
            std::fs::read_dir(format!("{}/run/five", self.home)).into_iter().flatten().flatten();
        let paths = entries.map(|e| e.path().display().to_string());
        paths.filter(|p| !p.ends_with(".lock")).collect()
    }

    /// The process that holds the session.
    pub fn holder(&self) -> i32 {
        let (code, out, err) = self.run(&["-O", "check", &self.address.ip().to_string()]);
        assert_eq!(code, 0, "{out}{err}");
        let pid = out.split(' ').find_map(|w| w.strip_prefix("pid=")).expect("pid");
        pid.parse().expect("number")
    }
}

impl Drop for Five {
    fn drop(&mut self) {
        for path in self.sessions() {
            let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)
                .expect("socket");
            let address = UnixAddr::new(path.as_str()).expect("path");
            if connect(fd.as_raw_fd(), &address).is_ok() {
                let _ = send(fd.as_raw_fd(), &Ask::Exit.encode(), MsgFlags::MSG_NOSIGNAL);
            }
        }
    }
}

/// Gives it its input, and waits for its end: exit status (128 and a signal's number), standard
/// output, standard error.
#[track_caller]
pub fn finish(mut child: Child, input: &[u8]) -> (i32, String, String) {
    let (mut stdin, input) = (child.stdin.take().expect("piped"), input.to_vec());
    std::thread::spawn(move || stdin.write_all(&input));
    ended(child)
}

/// A person types a line only when it is asked for: each line of `input` waits for the terminal to
/// show something new and then be still.
#[track_caller]
fn finish_typing(mut child: Child, input: &str) -> (i32, String, String) {
    let mut stdin = child.stdin.take().expect("piped");
    let mut out = child.stdout.take().expect("piped");
    let (to, shown) = channel();
    std::thread::spawn(move || {
        let mut part = [0; 4096];
        while let Ok(n @ 1..) = out.read(&mut part) {
            let _ = to.send(part[..n].to_vec());
        }
    });
    let mut all = Vec::new();
    for line in input.lines() {
        // What stands in parentheses before a question comes by itself.
        while !matches!(all.last(), Some(b' ' | b':')) || all.ends_with(b") ") {
            match shown.recv_timeout(TIMEOUT) {
                Ok(part) => all.extend_from_slice(&part),
                Err(_) => panic!("no question: {}", String::from_utf8_lossy(&all)),
            }
        }
        all.push(b'\n');
        stdin.write_all(format!("{line}\n").as_bytes()).expect("typed");
    }
    let end = Instant::now() + TIMEOUT;
    while let Ok(part) = shown.recv_timeout(end.saturating_duration_since(Instant::now())) {
        all.extend_from_slice(&part);
    }
    drop(stdin);
    let (code, _, err) = ended(child);
    (code, String::from_utf8_lossy(&all).into_owned(), err)
}
