//! SSH keys. five reads no private key: the agent signs, or ssh-keygen (`keygen`).

use super::error::{Error, reason};
use super::target::Target;
use super::{keygen, messages, paths};
use crate::sys::poll::{self, Poll};
use crate::sys::{clock, local, terminal};
use crate::wire::answer::words as words_of;
use crate::wire::{agent, sshsig};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use ring::digest::{SHA256, SHA512, digest};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The keys of `~/.ssh` that are tried, in this order.
const USUAL: [&str; 3] = ["id_ed25519", "id_ecdsa", "id_rsa"];
/// How long an agent may take to list its keys.
const LIST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it may take to sign: somebody may have to touch a device, or to confirm.
const SIGN_TIMEOUT: Duration = Duration::from_secs(60);

/// An agent that takes longer to answer has asked somebody.
const PERSON_ASKED: Duration = Duration::from_secs(1);
/// Why a key was not used.
const NOT_WAITED_FOR: &str = "the server does not wait for it";

/// A key that may log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    Agent(agent::Key),
    File(PathBuf),
}

/// Why a login failed: the server does not say more.
pub const NOT_ACCEPTED: &str = "not accepted";

/// The logins that have failed, each with its reason, for the message if none succeeds; with -v
/// each is printed at once.
#[derive(Default)]
pub struct Tried(Vec<String>);

impl Tried {
    pub fn failed(&mut self, what: &str, why: &str) {
        let text = format!("{what}: {why}");
        messages::step(&text);
        self.0.push(text);
    }

    /// What needs no line of its own.
    pub fn note(&mut self, text: String) {
        self.0.push(text);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn text(&self) -> String {
        self.0.join("; ")
    }
}

/// The keys to try, in order, none twice: the identities that were named (by the agent, if it has
/// them), the agent's, the usual files. An agent that does not list its keys counts as tried.
pub fn of(t: &Target, tried: &mut Tried) -> Vec<Key> {
    let held: Vec<agent::Key> = match list() {
        Ok(keys) => keys.into_iter().filter(|k| sshsig::takes(&k.blob)).collect(),
        Err(why) => {
            match agent_path() {
                Some(path) => tried.failed(&format!("the agent {}", path.display()), &why),
                None => messages::step("no agent: SSH_AUTH_SOCK is not set"),
            }
            Vec::new()
        }
    };
    let (mut all, mut known) = (Vec::new(), Vec::<String>::new());
    let usual: Vec<PathBuf> = USUAL
        .iter()
        .map(|name| paths::home().join(".ssh").join(name))
        .filter(|p| p.exists())
        .collect();
    let file = |path: PathBuf, all: &mut Vec<Key>, known: &mut Vec<String>| {
        let print = fingerprint_of(&path);
        if print.as_ref().is_some_and(|p| known.contains(p)) {
            return;
        }
        let by_agent = held.iter().find(|k| print.as_ref() == Some(&fingerprint(&k.blob)));
        all.push(by_agent.map_or(Key::File(path), |k| Key::Agent(k.clone())));
        known.extend(print);
    };
    for path in &t.identities {
        if path.exists() || pub_of(path).exists() {
            file(path.clone(), &mut all, &mut known);
        } else {
            messages::info(&format!("{}: there is no such key", path.display()));
        }
    }
    for key in &held {
        let print = fingerprint(&key.blob);
        if !known.contains(&print) {
            known.push(print);
            all.push(Key::Agent(key.clone()));
        }
    }
    usual.into_iter().for_each(|path| file(path, &mut all, &mut known));
    all
}

/// As ssh-keygen(1) prints it.
fn fingerprint(blob: &[u8]) -> String {
    format!("SHA256:{}", STANDARD_NO_PAD.encode(digest(&SHA256, blob)))
}

/// Where the public key of a private key's file is.
fn pub_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".pub");
    name.into()
}

/// The fingerprint of the public key in `FILE.pub`, or in the file itself. Without one, ssh-keygen
/// reads it from the private key's file, which takes no passphrase.
fn fingerprint_of(path: &Path) -> Option<String> {
    let pub_file = pub_of(path);
    let public = if path.extension().is_some_and(|e| e == "pub") { path } else { &pub_file };
    let Ok(text) = fs::read_to_string(public) else {
        let mut command = Command::new("ssh-keygen");
        command
            .args(["-l", "-E", "sha256", "-f"])
            .arg(path)
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        // If it prints nothing, the key is tried on its own.
        let printed = command.output().ok().filter(|out| out.status.success())?.stdout;
        return String::from_utf8_lossy(&printed).split_ascii_whitespace().nth(1).map(String::from);
    };
    let blob = STANDARD.decode(text.split_ascii_whitespace().nth(1)?).ok()?;
    Some(fingerprint(&blob))
}

/// Is it a FIDO key, for whose touch ssh-keygen waits?
fn is_touched(path: &Path) -> bool {
    fs::read_to_string(pub_of(path)).is_ok_and(|text| text.starts_with("sk-"))
}

impl Key {
    /// A name for messages.
    pub fn name(&self) -> String {
        match self {
            Key::Agent(k) => {
                format!("{} ({}, agent)", fingerprint(&k.blob), words_of(k.comment.as_bytes()))
            }
            Key::File(path) => path.display().to_string(),
        }
    }

    /// The signature over a text, as PUBKEY takes it. Err: why it failed. `waits`: called once
    /// before a person is waited for, who types a passphrase for example; false: nobody need be.
    pub fn sign(&self, text: &[u8], waits: &mut dyn FnMut() -> bool) -> Result<String, String> {
        match self {
            Key::Agent(k) => {
                let data = sshsig::signed(sshsig::Hash::Sha512, digest(&SHA512, text).as_ref());
                let answer = ask(&agent::sign(&k.blob, &data), SIGN_TIMEOUT, waits)
                    .map_err(|e| reason(&e))?;
                // ssh-add -h: an agent signs with such a key for sshd alone.
                let signature = agent::signature(&answer)
                    .ok_or("the agent refused to sign (a key held down with ssh-add -c or -h?)")?;
                Ok(STANDARD.encode(sshsig::write(&k.blob, signature)))
            }
            Key::File(path) => {
                let asks = terminal::is_there() || askpass().is_some();
                let locked = asks && keygen::is_locked(path);
                if (locked || is_touched(path)) && !waits() {
                    return Err(NOT_WAITED_FOR.into());
                }
                keygen::sign(path, text, askpass().is_some(), locked)
            }
        }
    }
}

fn agent_path() -> Option<OsString> {
    std::env::var_os("SSH_AUTH_SOCK").filter(|p| !p.is_empty())
}

/// The agent's keys.
fn list() -> Result<Vec<agent::Key>, String> {
    let answer = ask(&agent::list(), LIST_TIMEOUT, &mut || true).map_err(|e| reason(&e))?;
    agent::keys(&answer).ok_or_else(|| "what it says is no list of keys".into())
}

/// Sends one request to the agent of SSH_AUTH_SOCK. `waits`: called once if it does not answer at
/// once; false: it need not answer.
fn ask(message: &[u8], timeout: Duration, waits: &mut dyn FnMut() -> bool) -> io::Result<Vec<u8>> {
    let path = agent_path().ok_or_else(|| io::Error::other("SSH_AUTH_SOCK is not set"))?;
    let end = clock::monotonic() + timeout;
    let mut agent = local::connect_stream(Path::new(&path), timeout)?;
    // It is at most a key and a hash, so the socket takes it at once, or the timeout passes.
    agent.write_all(&[&(message.len() as u32).to_be_bytes(), message].concat())?;
    let mut polls = [Poll::new(agent.as_fd(), true, false)];
    if poll::wait(&mut polls, Some(PERSON_ASKED))? == 0 && !waits() {
        return Err(io::Error::other(NOT_WAITED_FOR));
    }
    let mut length = [0; 4];
    read_by(&mut agent, &mut length, end)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > agent::MESSAGE_MAX {
        return Err(io::Error::other("an answer too long"));
    }
    let mut answer = vec![0; length];
    read_by(&mut agent, &mut answer, end)?;
    Ok(answer)
}

/// Fills the whole buffer before the deadline, however slowly the bytes come.
fn read_by(agent: &mut UnixStream, mut bytes: &mut [u8], end: Duration) -> io::Result<()> {
    while !bytes.is_empty() {
        let left = end.saturating_sub(clock::monotonic());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        agent.set_read_timeout(Some(left))?;
        match agent.read(bytes) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => bytes = &mut bytes[n..],
            Err(e)
                if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// A secret that the person is asked for: on the terminal, or by the program SSH_ASKPASS where
/// there is no terminal (or SSH_ASKPASS_REQUIRE prefers it), as ssh(1). None: nobody can be asked.
pub fn secret(prompt: &str) -> Result<Option<Vec<u8>>, Error> {
    if let Some(program) = askpass()
        && (matches!(askpass_require().as_str(), "force" | "prefer") || !terminal::is_there())
    {
        return by_askpass(&program, prompt).map(Some);
    }
    if !terminal::is_there() {
        return Ok(None);
    }
    terminal::question(prompt, terminal::Echo::Off).map(Some).map_err(|e| match e.kind() {
        // Control-D.
        io::ErrorKind::UnexpectedEof => {
            let what = prompt.trim_end_matches([' ', ':']).into();
            Error::System { what, why: "no answer was typed".into() }
        }
        _ => Error::system("terminal")(e),
    })
}

/// The program that may be asked instead of a terminal.
fn askpass() -> Option<OsString> {
    std::env::var_os("SSH_ASKPASS").filter(|p| !p.is_empty() && askpass_require() != "never")
}

fn askpass_require() -> String {
    std::env::var("SSH_ASKPASS_REQUIRE").unwrap_or_default()
}

fn by_askpass(program: &OsStr, prompt: &str) -> Result<Vec<u8>, Error> {
    let named = || format!("SSH_ASKPASS {}", program.display());
    let mut command = Command::new(program);
    command.arg(prompt).stdin(Stdio::null()).stderr(Stdio::inherit());
    let out = command.output().map_err(Error::system(named()))?;
    if !out.status.success() {
        return Err(Error::System { what: named(), why: "it gave no answer".into() });
    }
    let mut line = out.stdout;
    line.truncate(
        line.iter()
            .position(|b| matches!(b, b'\n' | b'\r'))
            .unwrap_or(line.len())
            .min(terminal::PASSWORD_MAX),
    );
    Ok(line)
}
