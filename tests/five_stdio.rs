//! Standard input and output as other programs leave them to it: a pipe with a name whose writer
//! has gone, and open files that somebody else has made nonblocking.

mod support;

use fived::sys::pty;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use nix::unistd::{geteuid, mkfifo};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
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

/// A file system (fuse(4)) with a file that can be opened, and neither read nor written: it answers
/// no such question. Its end lets go of everybody.
struct Unanswered {
    at: String,
    _device: File,
    _place: Place,
}

impl Unanswered {
    fn new() -> Unanswered {
        let place = Place::new();
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse").expect("fuse");
        let at = place.at("unanswered");
        std::fs::create_dir(&at).expect("directory");
        let fd = device.as_raw_fd();
        let options = format!("fd={fd},rootmode=40000,user_id=0,group_id=0");
        mount(Some("fuse"), &*at, Some("fuse"), MsFlags::empty(), Some(&*options)).expect("mount");
        let asked = device.try_clone().expect("descriptor");
        std::thread::spawn(move || answer(asked));
        Unanswered { at, _device: device, _place: place }
    }

    fn open(&self, write: bool) -> File {
        let path = format!("{}/file", self.at);
        OpenOptions::new().read(!write).write(write).open(path).expect("open")
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        umount2(&*self.at, MntFlags::MNT_FORCE | MntFlags::MNT_DETACH).expect("umount");
    }
}

/// Answers all questions but those that read and write (fuse(4)).
fn answer(mut device: File) {
    const LOOKUP: u32 = 1;
    const GETATTR: u32 = 3;
    const OPEN: u32 = 14;
    const READ: u32 = 15;
    const WRITE: u32 = 16;
    const INIT: u32 = 26;
    const ENOSYS: i32 = 38;
    let mut asked = vec![0; 1 << 20];
    while let Ok(40..) = device.read(&mut asked) {
        let number = |at: usize| u32::from_ne_bytes(asked[at..at + 4].try_into().expect("four"));
        // The file is node 2, and the directory that it is in node 1.
        let mode = if number(16) == 2 || number(4) == LOOKUP { 0o100666 } else { 0o40755u32 };
        let mut attributes = [0u8; 88];
        attributes[60..64].copy_from_slice(&mode.to_ne_bytes());
        attributes[64] = 1;
        let entry = [&2u64.to_ne_bytes()[..], &[0; 32], &attributes].concat();
        let (error, rest) = match number(4) {
            READ | WRITE => continue,
            INIT => (0, [&[7, 0, 0, 0, 31, 0, 0, 0][..], &[0; 56]].concat()),
            LOOKUP => (0, entry),
            GETATTR => (0, [&[0; 16][..], &attributes].concat()),
            // FOPEN_DIRECT_IO: also what lies behind its end is asked for.
            OPEN => (0, [&[0; 8][..], &[1, 0, 0, 0, 0, 0, 0, 0]].concat()),
            _ => (-ENOSYS, Vec::new()),
        };
        let length = (16 + rest.len() as u32).to_ne_bytes();
        let head = [&length[..], &error.to_ne_bytes(), &asked[8..16]].concat();
        // Not everybody who has asked waits for an answer.
        let _ = device.write_all(&[head, rest].concat());
    }
}

#[test]
fn a_file_that_is_not_answered_for_makes_nobody_else_wait() {
    if !root() {
        return skip("needs root");
    }
    let (d, hung) = (Daemon::with(CONF).start(), Unanswered::new());
    let f = Five::new(&d);
    let mut all = Vec::new();
    for (service, write) in [("big", true), ("cat", false)] {
        let (mut stuck, file) = (command(&f, &[], service), hung.open(write));
        match write {
            true => stuck.stdin(Stdio::null()).stdout(file),
            false => stuck.stdin(file).stdout(Stdio::null()),
        };
        all.push(stuck.stderr(Stdio::null()).spawn().expect("five"));
        let line = format!("service={service}");
        until("it is open", || f.run(&["-O", "list", H]).1.contains(&line));
        let other = f.run_with(&["-q", H, "cat"], b"text\n");
        assert_eq!(other, (0, "text\n".into(), String::new()), "beside {service}");
    }
    drop(hung);
    all.iter_mut().for_each(kill_and_wait);
}
