//! Checks the rows' programs and directories while a configuration is read, for warnings. A child
//! does it, because a row's path may be on a file system that never answers. Each start checks its
//! program again.

use super::own_users::OwnUsers;
use crate::parent::descriptors::own;
use crate::policy::{Backend, Service, Table};
use crate::sys::{poll, process, reaper};
use crate::wire::lookups::{self, FileKind};
use crate::wire::roles::{self, Ids};
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long all of them may take together.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// How a warning about something that a row lacks ends. It says nothing about a reply: a client at
/// a port gets none, and one of a row with `wait` is left waiting.
pub const CANNOT_START: &str = "this service cannot be started until that is changed";

/// What is at a path: its kind, its root directory (empty: none), and the path.
type Asked<'a> = (FileKind, &'a str, &'a str);

/// Something that a row needs.
struct Needed<'a> {
    /// The attribute that names it. None: it is the program.
    attribute: Option<&'static str>,
    asked: Asked<'a>,
}

/// See the module.
pub struct Programs<'a> {
    numbers: HashMap<Asked<'a>, usize>,
    /// What is wrong with each of them, by number; empty: nothing. Those that the child did not
    /// come to are missing at the end.
    answers: Vec<String>,
    /// Why some are missing.
    unfinished: Option<String>,
}

impl<'a> Programs<'a> {
    /// Checks what all rows need that are not switched off.
    pub fn check(table: &'a Table) -> Programs<'a> {
        let mut numbers = HashMap::new();
        let mut all = String::new();
        let served = table.services().iter().filter(|s| !s.attributes.disable);
        for Needed { asked, .. } in served.flat_map(needs) {
            let (next, (kind, root, path)) = (numbers.len(), asked);
            if *numbers.entry(asked).or_insert(next) == next {
                all.push_str(&lookups::file(kind, root, path));
            }
        }
        let answers = match all.as_bytes() {
            [] => Ok((Vec::new(), None)),
            all => ask(&mut program(roles::PROGRAMS), all),
        };
        let (answers, unfinished) = answers.unwrap_or_else(|e| (Vec::new(), Some(e.to_string())));
        Programs { numbers, answers, unfinished }
    }

    /// What a row needs and has not, as a line. None: it can run, or is not known.
    pub fn lacking(&self, service: &Service) -> Option<String> {
        needs(service).find_map(|Needed { attribute, asked }| {
            let (mut wrong, (_, root, path)) = (self.wrong(&asked)?, asked);
            if !root.is_empty() {
                wrong = format!("in {root}: {wrong}");
            }
            Some(match attribute {
                None => format!("{}:{}: {path}: {wrong}", service.file, service.line),
                Some(a) => format!("{}: {a}: {path}: {wrong}", service.place(a, |_| true)),
            })
        })
    }

    fn wrong(&self, asked: &Asked) -> Option<String> {
        let n = *self.numbers.get(asked)?;
        match (self.answers.get(n), &self.unfinished) {
            (Some(answer), _) => {
                Some(answer).filter(|a| !a.is_empty()).map(|a| format!("{a}: {CANNOT_START}"))
            }
            // One warning for all that were not checked.
            (None, Some(why)) if n == self.answers.len() => {
                Some(format!("{why}: this program was not looked at, nor those after it"))
            }
            (None, _) => None,
        }
    }
}

/// What the row of a program needs, in the order in which a start comes to it.
fn needs(service: &Service) -> impl Iterator<Item = Needed<'_>> {
    let (a, program) = match &service.backend {
        Backend::Exec { program, .. } => (Some(&service.attributes), Some(program.as_str())),
        Backend::Internal(_)
        | Backend::Redirect(_)
        | Backend::Sensor
        | Backend::Handover { .. }
        | Backend::Offer => (None, None),
    };
    let chroot = a.and_then(|a| a.chroot.as_deref());
    let (root, directory) = (chroot.unwrap_or(""), a.and_then(|a| a.directory.as_deref()));
    let needed = |attribute, asked| Needed { attribute, asked };
    [
        chroot.map(|path| needed(Some("chroot"), (FileKind::Directory, "", path))),
        directory
            .filter(|d| *d != "/")
            .map(|path| needed(Some("directory"), (FileKind::Directory, root, path))),
        program.map(|path| needed(None, (FileKind::Program, root, path))),
    ]
    .into_iter()
    .flatten()
}

/// What is wrong with the rules of hosts_access(5); None: they can be asked, or there are none. The
/// child that looks runs as another user, like those that will ask the rules: root may read more.
/// `before`: the users of the configuration that stands.
pub fn wrong_with_libwrap(before: Option<OwnUsers>) -> Option<String> {
    let mut asks = program(roles::LIBWRAP);
    match OwnUsers::for_look_up(before) {
        Ok(helper) => by_helper(&mut asks, helper),
        Err(why) => return Some(why),
    }
    match ask(&mut asks, b"") {
        Ok((lines, silent)) => lines.into_iter().next().filter(|l| !l.is_empty()).or(silent),
        Err(e) => Some(e.to_string()),
    }
}

/// The lines that this child answers about a list, and why they are not all.
fn ask(child: &mut Command, all: &[u8]) -> io::Result<(Vec<String>, Option<String>)> {
    let list = File::from(own::file(all)?);
    let (text, late) = answer(child.stdin(list), ANSWER_TIMEOUT)?;
    Ok((lookups::read_wrong(&text), late))
}

/// This program in a role that answers on its standard output.
pub fn program(role: &str) -> Command {
    let mut program = Command::new(OsStr::from_bytes(process::own_program().to_bytes()));
    program.arg0(roles::SERVICE).arg(role);
    program
}

/// Has such a program become the user that look-ups have, before it looks anything up.
pub fn by_helper(program: &mut Command, helper: Option<Ids>) {
    let variables = roles::helper_variables(helper).into_iter();
    program.envs(variables.map(|(name, value)| (name, OsString::from_vec(value))));
}

/// What a child answers within that time, and why that is not all, if it is not.
pub fn answer(program: &mut Command, within: Duration) -> io::Result<(String, Option<String>)> {
    program.stdout(Stdio::piped()).stderr(Stdio::null()).current_dir("/");
    let mut child = reaper::own::start(|| program.spawn(), |child| child.id().cast_signed())?;
    let output = read_output(&mut child, within);
    // The loop has it reaped, as all other children: whoever does that may have to wait
    // (`sys::reaper`).
    if !output.as_ref().is_ok_and(|(_, finished)| *finished) {
        child.kill()?;
    }
    let (text, finished) = output?;
    // One digit: what is left of a longer time is no round number.
    let slow = || format!("no answer within {} s", (within.as_secs_f32() * 10.0).round() / 10.0);
    Ok((text, (!finished).then(slow)))
}

/// The child's output, and whether it was complete in time.
fn read_output(child: &mut Child, within: Duration) -> io::Result<(String, bool)> {
    let (until, mut text, mut part) = (Instant::now() + within, Vec::new(), [0; 4096]);
    let mut out = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if poll::wait(&mut [poll::Poll::new(out.as_fd(), true, false)], Some(left))? == 0 {
            return Ok((String::from_utf8_lossy(&text).into_owned(), false));
        }
        match out.read(&mut part)? {
            0 => return Ok((String::from_utf8_lossy(&text).into_owned(), true)),
            n => text.extend_from_slice(&part[..n]),
        }
    }
}
