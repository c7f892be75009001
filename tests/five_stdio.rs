//! SPEC 4, five: standard input and output as other programs leave them to it: a pipe with a name
//! whose writer has gone, and open files that somebody else has made nonblocking.

mod support;

use fived::sys::pty;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::Mode;
use nix::unistd::{geteuid, mkfifo};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::Duration;
use support::five::ended;
use support::*;

const CONF: &str = "
cat stream tcp nowait @USER@ /bin/cat cat
big stream tcp nowait @USER@ /usr/bin/seq seq 100000
";
const H: &str = "127.0.0.1";
/// How a service is called.
const WAYS: [&[&str]; 3] = [&[], &["-x"], &["--plain"]];

fn nonblocking(fd: impl AsFd) {
    fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("fcntl");
}

fn command(f: &Five, way: &[&str], service: &str) -> Command {
    let port = f.port();
    f.command(&[way, &["--accept-new", "-q", "-p", &port, H, service]].concat())
}

#[test]
fn a_named_pipe_whose_writer_has_gone_has_an_end() {
    let d = Daemon::with(CONF).start();
    let (f, path) = (Five::new(&d), d.place.at("pipe"));
    mkfifo(path.as_str(), Mode::S_IRWXU).expect("mkfifo");
    for way in WAYS {
        // Opened for both, so that neither end waits for the other.
        let mut writer = OpenOptions::new().read(true).write(true).open(&path).expect("open");
        let input = File::open(&path).expect("open");
        writer.write_all(b"text\n").expect("write");
        drop(writer);
        let mut c = command(&f, way, "cat");
        let child = c.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        assert_eq!(ended(child.expect("five")), (0, "text\n".into(), String::new()), "{way:?}");
    }
}

#[test]
fn a_nonblocking_output_is_waited_for() {
    let d = Daemon::with(CONF).start();
    let (f, whole) = (Five::new(&d), (1..=100000).map(|n| format!("{n}\n")).collect::<String>());
    for way in WAYS {
        // A terminal, and a pipe, whose reader begins late.
        let (master, terminal) = pty::open(geteuid().as_raw(), 24, 80).expect("a terminal");
        let (pipe, output) = std::io::pipe().expect("pipe");
        for (from, to) in [(master, terminal), (pipe.into(), output.into())] {
            nonblocking(&to);
            let mut c = command(&f, way, "big");
            let child = c.stdin(Stdio::null()).stdout(to).stderr(Stdio::piped()).spawn();
            // It has a copy of the descriptor.
            drop(c);
            std::thread::sleep(Duration::from_millis(200));
            let (mut from, mut seen, mut bytes) = (File::from(from), Vec::new(), [0; 4096]);
            loop {
                match from.read(&mut bytes) {
                    // Of a terminal that is an error.
                    Ok(0) => break,
                    Ok(n) => seen.extend_from_slice(&bytes[..n]),
                    Err(e) if e.kind() == ErrorKind::WouldBlock => {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    Err(_) => break,
                }
            }
            let (code, _, err) = ended(child.expect("five"));
            assert_eq!((code, &*err), (0, ""), "{way:?}");
            assert!(String::from_utf8_lossy(&seen).replace('\r', "") == whole, "{way:?}");
        }
    }
}

#[test]
fn a_nonblocking_input_is_waited_for() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    for way in WAYS {
        let (input, mut writer) = std::io::pipe().expect("pipe");
        nonblocking(&input);
        let mut c = command(&f, way, "cat");
        let child = c.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        d.service("cat");
        std::thread::sleep(Duration::from_millis(100));
        writer.write_all(b"late\n").expect("write");
        drop(writer);
        assert_eq!(ended(child.expect("five")), (0, "late\n".into(), String::new()), "{way:?}");
        until("the service has ended", || d.services().is_empty());
    }
}
