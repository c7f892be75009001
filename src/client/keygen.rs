//! Signatures by `ssh-keygen -Y sign`, which itself reads the private key, and asks for its
//! passphrase and for the touch of a FIDO key.

use super::error::reason;
use super::messages;
use crate::sys::poll::{self, Poll};
use crate::sys::signal::{self, Signal, Signals};
use crate::sys::{clock, terminal};
use crate::wire::answer::words as words_of;
use crate::wire::labels::SSHSIG_NAMESPACE;
use crate::wire::sshsig;
use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// How often it may ask for a passphrase, as ssh(1) does.
const PASSPHRASES: usize = 3;
/// How long ssh-keygen may take to end after a signal.
const KILL_TIMEOUT: Duration = Duration::from_secs(2);
/// How often it is asked to end until then: it misses a signal that comes between its question and
/// its wait for the answer.
const TERM_INTERVAL: Duration = Duration::from_millis(100);

/// `ssh-keygen -Y sign` on a file in a directory of its own: it asks at the terminal only when its
/// standard input is one.
/// `askpass`: without a terminal, the program of SSH_ASKPASS is asked. `locked`: the key has a
/// passphrase, and somebody can be asked for it.
pub fn sign(path: &Path, text: &[u8], askpass: bool, locked: bool) -> Result<String, String> {
    if !path.exists() {
        return Err("no such file".into());
    }
    let failed = |e: io::Error| reason(&e);
    // Signals that would end this process wait until the files are removed.
    let received: Vec<Signal> = Signal::ending().chain([Signal::CHLD]).collect();
    let signals = Signals::new(&received).map_err(failed)?;
    let directory = private_directory()
        .map_err(|e| format!("{} (TMPDIR): {}", std::env::temp_dir().display(), reason(&e)))?;
    let signed = keygen_in(&directory, path, text, &signals, (askpass, locked));
    let removed = fs::remove_dir_all(&directory).map_err(failed);
    drop(signals);
    match signed {
        Ok(signed) => removed.and(signed),
        Err(signal) => {
            signal::raise(signal);
            // This is reached only if something else in this process has taken the signal.
            Err("interrupted".into())
        }
    }
}

/// A new directory for temporary files. If the name exists, because somebody else made it or an
/// interrupted five left it, the next name is tried.
fn private_directory() -> io::Result<PathBuf> {
    let name = |n: u32| std::env::temp_dir().join(format!("five-sign-{}-{n}", std::process::id()));
    for path in (0..100).map(name) {
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made.map(|()| path),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Err: the signal that came meanwhile.
fn keygen_in(
    directory: &Path,
    key: &Path,
    text: &[u8],
    signals: &Signals,
    (askpass, locked): (bool, bool),
) -> Result<Result<String, String>, Signal> {
    let failed = |e: io::Error| format!("ssh-keygen: {}", reason(&e));
    let (message, errors) = (directory.join("challenge"), directory.join("errors"));
    let tty = terminal::lend();
    let shown = tty.is_some() || messages::steps();
    let mut command = Command::new("ssh-keygen");
    if tty.is_none() && askpass {
        // Otherwise it uses that program only if DISPLAY is set.
        command.env("SSH_ASKPASS_REQUIRE", "force");
    }
    // With it ssh-keygen would ask the agent first, and wait for it without a timeout. five knows
    // already which keys the agent has.
    command
        .env_remove("SSH_AUTH_SOCK")
        .args(["-q", "-Y", "sign", "-n", SSHSIG_NAMESPACE, "-f"])
        .args([key, &message]);
    let mut run = || {
        let input = tty.as_ref().map(|(_, tty)| tty.try_clone()).transpose()?;
        if let Some(mut tty) = input.as_ref().filter(|_| locked) {
            // It asks for a passphrase without saying of which key.
            let _ = write!(tty, "({}) ", key.display());
        }
        command.stdin(input.map_or_else(Stdio::null, Stdio::from)).stdout(Stdio::null());
        command.stderr(if shown { Stdio::inherit() } else { fs::File::create(&errors)?.into() });
        fs::write(&message, text)?;
        ended(signals.spawn(&mut command)?, signals)
    };
    let status = match until_signed(&mut run, if locked { PASSPHRASES } else { 1 }) {
        Ok((_, Some(signal))) => return Err(signal),
        Ok((status, None)) => status,
        Err(e) => return Ok(Err(failed(e))),
    };
    if let (Some((settings, _)), Some(_)) = (tty, status.code()) {
        // It was not killed, so it has restored them itself.
        settings.leave();
    }
    if !status.success() {
        return Ok(Err(format!("ssh-keygen did not sign with it{}", said(&errors))));
    }
    let armor = fs::read_to_string(directory.join("challenge.sig")).map_err(failed);
    Ok(armor.and_then(|armor| {
        sshsig::unarmored(&armor).ok_or_else(|| "what ssh-keygen wrote is not a signature".into())
    }))
}

/// Runs ssh-keygen until it has signed: a passphrase that is typed may be wrong, and only the
/// person can read on the terminal whether it was.
fn until_signed(
    run: &mut dyn FnMut() -> io::Result<(ExitStatus, Option<Signal>)>,
    tries: usize,
) -> io::Result<(ExitStatus, Option<Signal>)> {
    for _ in 1..tries {
        let (status, signal) = run()?;
        if signal.is_some() || status.code().is_none_or(|code| code == 0) {
            return Ok((status, signal));
        }
    }
    run()
}

/// Has the key in this file a passphrase?
pub fn is_locked(path: &Path) -> bool {
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-y", "-P", "", "-f"]).arg(path).stdin(Stdio::null()).stdout(Stdio::null());
    // Whatever else fails here fails again when it signs.
    let said = command.stderr(Stdio::piped()).output().map(|out| out.stderr).unwrap_or_default();
    String::from_utf8_lossy(&said).contains("passphrase")
}

/// What ssh-keygen wrote to its standard error, where nobody has seen it; without its frames.
fn said(errors: &Path) -> String {
    let text = fs::read(errors).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.starts_with('@')).collect();
    match words_of(lines.join(" ").as_bytes()) {
        said if said.is_empty() => said,
        said => format!(": {said}"),
    }
}

/// Waits for a program's end, and asks it to end when a signal would end this process. Returns the
/// first of these signals, too.
fn ended(mut child: Child, signals: &Signals) -> io::Result<(ExitStatus, Option<Signal>)> {
    let (mut first, mut end) = (None, None);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok((status, first));
        }
        let left = end.map(|end: Duration| end.saturating_sub(clock::monotonic()));
        let timeout = left.map(|left| left.min(TERM_INTERVAL));
        if poll::wait(&mut [Poll::new(signals.as_fd(), true, false)], timeout)? == 0 {
            match left {
                Some(Duration::ZERO) => child.kill()?,
                _ => signal::send(&child, Signal::TERM),
            }
        }
        while let Some(received) = signals.next() {
            if received.signal != Signal::CHLD {
                // It restores the terminal before that one ends it; not before every other one.
                signal::send(&child, Signal::TERM);
                first = first.or(Some(received.signal));
                end = end.or(Some(clock::monotonic() + KILL_TIMEOUT));
            }
        }
    }
}
