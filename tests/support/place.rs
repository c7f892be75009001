//! A directory for one test, gone when the test is; and the program run to its end in it.

use super::{TIMEOUT, own_network, sane, until, user};
use nix::errno::Errno;
use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

pub struct Place {
    pub path: PathBuf,
    keys: OnceLock<PathBuf>,
}

impl Place {
    /// A new directory that everybody may search.
    pub fn new() -> Place {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        // What tests make, users of services read, whoever runs the tests.
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
        let n = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("fived-test-{}-{n}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).expect("temporary directory");
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("its mode");
        Place { path, keys: OnceLock::new() }
    }

    /// A directory for files of keys, which do not count below a directory that others may write:
    /// `/tmp` is one.
    pub fn keys(&self) -> &Path {
        self.keys.get_or_init(|| {
            let home = std::env::var_os("HOME").map(PathBuf::from);
            let bases = [Some(PathBuf::from(env!("CARGO_TARGET_TMPDIR"))), Some("/run".into()), home];
            let base = bases.into_iter().flatten().find(|b| is_strict(b) && nix::unistd::access(b, nix::unistd::AccessFlags::W_OK).is_ok());
            let base = base.expect("a directory with nobody else's rights on it or above it: the target directory, /run, or HOME");
            let keys = base.join(self.path.file_name().expect("a name"));
            let _ = fs::remove_dir_all(&keys);
            fs::create_dir(&keys).expect("directory of keys");
            fs::set_permissions(&keys, Permissions::from_mode(0o755)).expect("its mode");
            keys
        })
    }

    /// Writes a user's file of keys there.
    pub fn write_keys(&self, user: &str, text: &str) -> String {
        let path = self.keys().join(user);
        fs::write(&path, text).expect("file of keys");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("mode");
        path.to_str().expect("UTF-8").to_string()
    }

    pub fn at(&self, name: &str) -> String {
        self.path.join(name).to_str().expect("UTF-8").to_string()
    }

    /// The text with `@DIR@`, `@KEYS@`, `@NET@` and `@USER@` filled in.
    pub fn fill(&self, text: &str) -> String {
        let text = if text.contains("@KEYS@") {
            &text.replace("@KEYS@", self.keys().to_str().expect("UTF-8"))
        } else {
            text
        };
        let text = text.replace("@DIR@", &self.at("")[..self.at("").len() - 1]);
        text.replace("@NET@", &own_network()).replace("@USER@", &user())
    }

    /// Writes a file; its text is filled in. Returns its path.
    pub fn write(&self, name: &str, text: &str, mode: u32) -> String {
        let path = self.path.join(name);
        fs::create_dir_all(path.parent().expect("below the directory")).expect("directory");
        fs::write(&path, self.fill(text)).expect("file");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("mode");
        if mode & 0o111 != 0 {
            nobody_writes(&path);
        }
        self.at(name)
    }

    /// `fived -f CONF WORDS` with this configuration, to its end: exit status, standard output,
    /// standard error.
    pub fn fived(&self, conf: &str, words: &[&str]) -> (i32, String, String) {
        let conf = self.write("fived.conf", conf, 0o644);
        run(&[&["-f", &conf], words].concat())
    }

    /// The one answer of `-T -C QUERY`, without its line end.
    pub fn decide(&self, conf: &str, query: &str) -> String {
        let (code, out, err) = self.fived(conf, &["-T", "-C", query]);
        assert_eq!((code, err.as_str()), (0, ""), "{query}: {out}");
        out.strip_suffix('\n').unwrap_or_else(|| panic!("{query}: {out:?}")).to_string()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
        if let Some(keys) = self.keys.get() {
            let _ = fs::remove_dir_all(keys);
        }
    }
}

/// Does it belong to root or to us, like all above it, and may nobody else write it?
fn is_strict(directory: &Path) -> bool {
    let us = nix::unistd::geteuid().as_raw();
    let good = |p: &Path| {
        fs::metadata(p).is_ok_and(|m| (m.uid() == 0 || m.uid() == us) && m.mode() & 0o022 == 0)
    };
    fs::canonicalize(directory).is_ok_and(|d| d.ancestors().all(good))
}

/// Waits until nobody may write this program any more, which could not be started before
/// (ETXTBSY): a process that another test has just forked has a copy of the descriptor that it was
/// written by, until its exec.
pub fn nobody_writes(program: impl AsRef<Path>) {
    use nix::libc::{F_RDLCK, F_SETLEASE, F_UNLCK, fcntl};
    let file = fs::File::open(program).expect("a program");
    // SAFETY: no memory is handed over.
    let lease = |kind: i32| unsafe { fcntl(file.as_raw_fd(), F_SETLEASE, kind) };
    // Refused as long as somebody may write it; or there are no leases here.
    until("nobody may write it", || lease(F_RDLCK) == 0 || Errno::last() != Errno::EAGAIN);
    lease(F_UNLCK);
}

/// The program with these words, to its end.
pub fn run(words: &[&str]) -> (i32, String, String) {
    run_with(words, b"")
}

/// The same, with something at standard input. Its output must end with it: nothing that it leaves
/// behind may hold it open.
pub fn run_with(words: &[&str], input: &[u8]) -> (i32, String, String) {
    let mut child = piped(Command::new(env!("CARGO_BIN_EXE_fived")).args(words));
    let (mut stdin, input) = (child.stdin.take().expect("piped"), input.to_vec());
    std::thread::spawn(move || stdin.write_all(&input));
    ended(child)
}

/// Kills a program and waits for its end.
#[track_caller]
pub fn kill_and_wait(child: &mut Child) {
    child.kill().expect("kill");
    child.wait().expect("wait");
}

/// The end of a program whose input is given: exit status (128 and a signal's number), standard
/// output, standard error.
#[track_caller]
pub fn ended(mut child: Child) -> (i32, String, String) {
    let out = child.stdout.take().map(kept);
    let err = child.stderr.take().map(kept);
    let end = Instant::now() + TIMEOUT;
    let status = loop {
        if let Some(status) = child.try_wait().expect("wait") {
            break status;
        }
        if Instant::now() > end {
            let _ = child.kill().and_then(|()| child.wait());
            panic!("it does not end");
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let text = |end: Option<Receiver<Vec<u8>>>| {
        let bytes = end.map(|e| {
            e.recv_timeout(TIMEOUT).expect("the end of its output: something holds it open")
        });
        String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
    };
    let (out, err) = (text(out), text(err));
    sane(&err);
    (status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)), out, err)
}

/// Starts a program whose three standard descriptors are pipes.
#[track_caller]
pub fn piped(c: &mut Command) -> Child {
    c.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts")
}

/// Everything that comes of it, once that has ended.
fn kept(mut from: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (to, all) = channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        let _ = to.send(bytes);
    });
    all
}

/// Waits until there is such a file with something in it, and reads it.
pub fn read(path: &str) -> String {
    let mut text = String::new();
    until(path, || {
        text = fs::read_to_string(path).unwrap_or_default();
        !text.is_empty()
    });
    text
}
