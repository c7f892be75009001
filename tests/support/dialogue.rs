//! A program with which a test exchanges lines.

#![allow(dead_code)] // Each test file uses its own part of this.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout};

/// A running program whose three standard descriptors are pipes. It is killed when this is
/// dropped.
pub struct Dialogue {
    pub child: Child,
    pub out: BufReader<ChildStdout>,
}

impl Dialogue {
    pub fn new(mut child: Child) -> Dialogue {
        let out = BufReader::new(child.stdout.take().expect("piped"));
        Dialogue { child, out }
    }

    /// Sends it this line.
    pub fn send(&mut self, text: &str) {
        let line = format!("{text}\n");
        self.child.stdin.as_mut().expect("piped").write_all(line.as_bytes()).expect("written");
    }

    /// The next line that it writes must be this one.
    #[track_caller]
    pub fn expect(&mut self, text: &str) {
        let mut line = String::new();
        self.out.read_line(&mut line).expect("a line");
        if line != format!("{text}\n") {
            let _ = self.child.kill();
            let mut err = String::new();
            let _ = self.child.stderr.take().map(|mut e| e.read_to_string(&mut err));
            panic!("expected {text:?}, found {line:?}; its standard error: {err}");
        }
    }

    /// Sends it this line, which it must send back.
    #[track_caller]
    pub fn echo(&mut self, text: &str) {
        self.send(text);
        self.expect(text);
    }
}

impl Drop for Dialogue {
    fn drop(&mut self) {
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}
