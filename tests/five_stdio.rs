//! SPEC 4, five: standard input and output as other programs leave them to it.

mod support;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::process::{Command, Stdio};
use support::five::ended;
use support::*;

const CONF: &str = "
cat stream tcp nowait @USER@ /bin/cat cat
";
const H: &str = "127.0.0.1";
/// How a service is called.
const WAYS: [&[&str]; 3] = [&[], &["-x"], &["--plain"]];

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
