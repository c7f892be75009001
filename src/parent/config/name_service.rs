//! The system's name service (nsswitch.conf(5)), asked by a child while a configuration is read
//! again: it may never answer, and the parent serves nobody while it reads.
//!
//! At the start the parent asks itself ([`super::catalog`], [`super::port_names`]), and waits:
//! rules that refuse a group must not begin without it.

use super::own_users::OwnUsers;
use super::programs;
use crate::sys::poll::{self, Poll};
use crate::wire::lookups::Entry;
use crate::wire::roles::{self, Ids};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

/// How long an answer is waited for after another did not come in time: long enough for what the
/// files of this computer have.
const HURRIED: Duration = Duration::from_millis(500);
/// How long all answers of a kind may take together.
const ALL: Duration = Duration::from_secs(4);

/// How long answers of a kind may take yet, while a configuration is read.
#[derive(Debug)]
pub struct TimeLeft {
    left: Duration,
    /// One of them did not come in time.
    late: bool,
}

impl Default for TimeLeft {
    fn default() -> TimeLeft {
        TimeLeft { left: ALL, late: false }
    }
}

impl TimeLeft {
    /// How much of it the next answer may take. None: nothing is left.
    pub fn for_next(&self) -> Option<Duration> {
        let most = if self.late { HURRIED } else { programs::ANSWER_TIMEOUT };
        Some(most.min(self.left)).filter(|t| !t.is_zero())
    }

    /// What an answer took, and whether it did not come in time.
    pub fn took(&mut self, time: Duration, late: bool) {
        self.left = self.left.saturating_sub(time);
        self.late |= late;
    }

    #[cfg(test)]
    pub fn none() -> TimeLeft {
        TimeLeft { left: Duration::ZERO, late: true }
    }
}

/// See the module.
#[derive(Debug)]
pub struct NameService {
    /// Whom the child becomes. None: it stays who we are.
    user: Option<Ids>,
    child: Option<Asked>,
    left: TimeLeft,
    /// Why the first question that has no answer has none.
    why: Option<String>,
}

impl NameService {
    /// `own`: the users of the configuration that stands.
    pub fn new(own: Option<OwnUsers>) -> NameService {
        let (user, left) = (own.map(|o| o.helper), TimeLeft::default());
        NameService { user, child: None, left, why: None }
    }

    /// Its line about this (`wire::lookups`). None: it has not answered.
    pub fn ask(&mut self, entry: &Entry) -> Option<String> {
        let within = self.left.for_next()?;
        let began = Instant::now();
        let answer = self.answer(entry, within);
        let late = answer.as_ref().is_err_and(|e| e.kind() == ErrorKind::TimedOut);
        self.left.took(began.elapsed(), late);
        answer
            .map_err(|e| {
                self.child = None;
                self.why.get_or_insert(match e.kind() {
                    ErrorKind::TimedOut => format!("no answer within {} s", within.as_secs_f32()),
                    ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe => {
                        "the process that looks them up has failed".into()
                    }
                    _ => e.to_string(),
                });
            })
            .ok()
    }

    /// Why it has not answered something, if so.
    pub fn why(&self) -> Option<&str> {
        self.why.as_deref()
    }

    fn answer(&mut self, entry: &Entry, within: Duration) -> io::Result<String> {
        let child = match self.child.take() {
            Some(child) => child,
            None => Asked::start(self.user)?,
        };
        self.child.insert(child).ask(entry, within)
    }
}

/// The child, which answers one question after another. It is killed when this is dropped.
#[derive(Debug)]
struct Asked {
    child: Child,
    questions: ChildStdin,
    answers: ChildStdout,
}

impl Asked {
    fn start(user: Option<Ids>) -> io::Result<Asked> {
        let mut program = programs::program(roles::ENTRIES);
        program.env_clear().current_dir("/").stderr(Stdio::null());
        programs::by_helper(&mut program, user);
        let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (questions, answers) = (child.stdin.take(), child.stdout.take());
        let questions = questions.ok_or(ErrorKind::BrokenPipe)?;
        Ok(Asked { child, questions, answers: answers.ok_or(ErrorKind::BrokenPipe)? })
    }

    fn ask(&mut self, entry: &Entry, within: Duration) -> io::Result<String> {
        // It does not block: the child has read all before, and a line of a table fits into a pipe.
        self.questions.write_all(entry.encode().as_bytes())?;
        let (until, mut text, mut part) = (Instant::now() + within, Vec::new(), [0; 4096]);
        while text.last() != Some(&b'\n') {
            let left = until.saturating_duration_since(Instant::now());
            if poll::wait(&mut [Poll::new(self.answers.as_fd(), true, false)], Some(left))? == 0 {
                return Err(ErrorKind::TimedOut.into());
            }
            match self.answers.read(&mut part)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                n => text.extend_from_slice(&part[..n]),
            }
        }
        String::from_utf8(text).map_err(|_| ErrorKind::InvalidData.into())
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        // It has ended already, or is killed now. The loop has it reaped, as all other children:
        // whoever does that may have to wait (`sys::reaper`).
        let _ = self.child.kill();
    }
}
