//! Opens files that nobody else can have written, as sshd's StrictModes does, but without a moment
//! in which somebody could change what was checked.
//!
//! It walks the path step by step from the root, keeps each directory open, checks it by its
//! descriptor, and follows links itself: so the directories on a link's path are checked like those
//! that the path names. A directory that others may write is never accepted, sticky or not: whoever
//! makes a name in it decides what that name leads to. It waits for nobody: neither for a file that
//! is not a regular one, nor for one on which another process holds a lease.

use super::file;
use nix::fcntl::{self, OFlag};
use nix::sys::stat::Mode;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt;
use std::fs::{File, FileType};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Links on the way at most (MAXSYMLINKS).
const LINKS_MAX: usize = 40;
/// Group and others may write.
const OTHERS_WRITE: u32 = 0o022;

/// Why a file is not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfit {
    /// There is no such file.
    Missing,
    /// A sentence.
    Why(String),
}

impl Unfit {
    fn at(path: &Path, why: impl fmt::Display) -> Unfit {
        Unfit::Why(format!("{}: {why}", path.display()))
    }

    fn of(path: &Path, error: io::Error) -> Unfit {
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => Unfit::Missing,
            _ => Unfit::at(path, error),
        }
    }

    fn expected_a_file(path: &Path, found: FileType) -> Unfit {
        Unfit::at(path, format!("expected a regular file, found {}", file::name_of(found)))
    }
}

/// Opens a regular file for reading. The file and every directory up to the root, those of links
/// included, must belong to root or to one of `owners`, and nobody else may write them. `path` is
/// absolute.
pub fn open(path: &Path, owners: &[u32]) -> Result<File, Unfit> {
    let mut walk =
        Walk { owners, path: PathBuf::from("/"), directory: root()?, unfit: None, links: 0 };
    let is = walk.directory.metadata().map_err(|e| Unfit::at(&walk.path, e))?;
    walk.check(&is);
    let mut rest = pieces(path);
    while let Some(name) = rest.pop_front() {
        match walk.step(&name, rest.is_empty())? {
            Step::Entered => {}
            Step::Link(target) => {
                let mut all = pieces(&target);
                all.append(&mut rest);
                rest = all;
            }
            Step::File(file) => return walk.unfit.map_or(Ok(file), Err),
        }
    }
    Err(Unfit::expected_a_file(&walk.path, is.file_type()))
}

fn root() -> Result<File, Unfit> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    fcntl::open("/", flags, Mode::empty()).map(File::from).map_err(|e| Unfit::at(Path::new("/"), e))
}

/// The names that a path is made of.
fn pieces(path: &Path) -> VecDeque<OsString> {
    let names = path.as_os_str().as_bytes().split(|&b| b == b'/');
    names.filter(|n| !n.is_empty() && *n != b".").map(|n| OsString::from_vec(n.to_vec())).collect()
}

struct Walk<'a> {
    owners: &'a [u32],
    /// The directory that was reached, as it would be written.
    path: PathBuf,
    directory: File,
    /// The first thing that was wrong. It is an error only if the path leads to a file: a user who
    /// has no such file needs no warning.
    unfit: Option<Unfit>,
    links: usize,
}

enum Step {
    Entered,
    /// From the directory that was reached.
    Link(PathBuf),
    File(File),
}

impl Walk<'_> {
    fn step(&mut self, name: &OsString, last: bool) -> Result<Step, Unfit> {
        let path = if name == ".." {
            self.path.parent().unwrap_or(Path::new("/")).into()
        } else {
            self.path.join(name)
        };
        let wrong = |e: io::Error| Unfit::of(&path, e);
        let found = open_at(&self.directory, name, OFlag::O_PATH).map_err(wrong)?;
        let is = found.metadata().map_err(wrong)?;
        let kind = is.file_type();
        if kind.is_symlink() {
            self.links += 1;
            if self.links > LINKS_MAX {
                return Err(Unfit::at(&path, "too many links"));
            }
            let target = read_link(&found).map_err(wrong)?;
            if target.is_absolute() {
                (self.path, self.directory) = (PathBuf::from("/"), root()?);
            }
            return Ok(Step::Link(target));
        }
        if kind.is_dir() && !last {
            (self.path, self.directory) = (path, found);
            self.check(&is);
            return Ok(Step::Entered);
        }
        if !kind.is_file() {
            // A path that goes on after something that is not a directory leads to no file.
            return Err(if last { Unfit::expected_a_file(&path, kind) } else { Unfit::Missing });
        }
        if !last {
            return Err(Unfit::Missing);
        }
        self.open(path, name)
    }

    /// Opens the regular file at the end of the path.
    fn open(&mut self, path: PathBuf, name: &OsString) -> Result<Step, Unfit> {
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let file = open_at(&self.directory, name, flags).map_err(|e| match e.kind() {
            io::ErrorKind::WouldBlock => Unfit::at(&path, "another process holds a lease on it"),
            _ => Unfit::of(&path, e),
        })?;
        // The file that was opened counts: another may have had this name a moment ago.
        let is = file.metadata().map_err(|e| Unfit::of(&path, e))?;
        if !is.is_file() {
            return Err(Unfit::expected_a_file(&path, is.file_type()));
        }
        self.path = path;
        self.check(&is);
        Ok(Step::File(file))
    }

    /// Notes what is wrong with where the walk is now.
    fn check(&mut self, is: &std::fs::Metadata) {
        let why = match is.mode() & 0o7777 {
            mode if mode & OTHERS_WRITE != 0 => {
                format!(
                    "expected that only its owner can write it, found mode {mode:04o}: run `chmod go-w`"
                )
            }
            _ if is.uid() != 0 && !self.owners.contains(&is.uid()) => {
                format!(
                    "expected that root or the user who logs in owns it, found user number {}",
                    is.uid()
                )
            }
            _ => return,
        };
        self.unfit.get_or_insert(Unfit::at(&self.path, why));
    }
}

fn open_at(directory: &File, name: &OsString, flags: OFlag) -> io::Result<File> {
    let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(File::from(fcntl::openat(directory, name.as_os_str(), flags, Mode::empty())?))
}

/// The text of a link that was opened itself (O_PATH, O_NOFOLLOW).
fn read_link(link: &File) -> io::Result<PathBuf> {
    Ok(PathBuf::from(fcntl::readlinkat(link, "")?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    /// A directory above which nobody else may write; None where none is known.
    fn place(name: &str) -> Option<PathBuf> {
        let home = std::env::var_os("HOME").map(PathBuf::from);
        let me = nix::unistd::geteuid().as_raw();
        let places =
            [Some(PathBuf::from("/run")), home, Some(Path::new(env!("CARGO_MANIFEST_DIR")).into())];
        places.into_iter().flatten().find_map(|p| {
            let base = p.join(format!("fived-{name}-{}", std::process::id()));
            fs::create_dir(&base).ok()?;
            fs::set_permissions(&base, Permissions::from_mode(0o755)).unwrap();
            fs::write(base.join("try"), "").unwrap();
            let good = open(&base.join("try"), &[me]).is_ok();
            if !good {
                fs::remove_dir_all(&base).unwrap();
            }
            good.then_some(base)
        })
    }

    fn why(path: &Path) -> String {
        match open(path, &[nix::unistd::geteuid().as_raw()]) {
            Ok(_) => "counts".into(),
            Err(Unfit::Missing) => "missing".into(),
            Err(Unfit::Why(why)) => why,
        }
    }

    #[test]
    fn what_others_can_write_does_not_count() {
        let Some(base) = place("strict") else {
            return println!("SKIPPED: no directory that nobody else may write");
        };
        let file = base.join("a/b/keys");
        fs::create_dir_all(base.join("a/b")).unwrap();
        fs::write(&file, "").unwrap();
        fs::set_permissions(base.join("a"), Permissions::from_mode(0o755)).unwrap();
        for (what, mode, good) in [
            ("a/b/keys", 0o644, true),
            ("a/b/keys", 0o664, false),
            ("a/b/keys", 0o646, false),
            ("a/b/keys", 0o600, true),
            ("a/b", 0o1777, false),
            ("a/b", 0o775, false),
            ("a/b", 0o755, true),
            ("a", 0o1777, false),
            ("a", 0o755, true),
            ("", 0o1777, false),
            ("", 0o755, true),
        ] {
            fs::set_permissions(base.join(what), Permissions::from_mode(mode)).unwrap();
            let result = why(&file);
            assert_eq!(result == "counts", good, "{what} {mode:o}: {result}");
            // A file that does not exist is not reported.
            assert_eq!(why(&base.join("a/b/none")), "missing");
            let at = base.join(what);
            assert!(
                good || result.starts_with(&format!(
                    "{}: expected that only",
                    at.to_string_lossy().trim_end_matches('/')
                )),
                "{result}"
            );
        }
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn links_count_like_what_they_lead_through() {
        let Some(base) = place("links") else {
            return println!("SKIPPED: no directory that nobody else may write");
        };
        for directory in ["good", "bad"] {
            fs::create_dir(base.join(directory)).unwrap();
            fs::set_permissions(base.join(directory), Permissions::from_mode(0o755)).unwrap();
            fs::write(base.join(directory).join("keys"), directory).unwrap();
        }
        let link = |target: &str, name: &str| symlink(target, base.join(name)).unwrap();
        link("good", "to-good");
        link("../good/keys", "good/again");
        link(base.join("bad/keys").to_str().unwrap(), "to-bad");
        link("../good/keys", "bad/out");
        link("round", "round");
        link("nowhere", "lost");
        fs::set_permissions(base.join("bad"), Permissions::from_mode(0o1777)).unwrap();
        for good in ["to-good/keys", "good/again", "to-good/again", "good/.././good//keys"] {
            assert_eq!(why(&base.join(good)), "counts", "{good}");
        }
        for bad in ["to-bad", "bad/out", "bad/../good/keys"] {
            assert!(why(&base.join(bad)).contains("/bad: expected that only"), "{bad}");
        }
        assert!(why(&base.join("round")).contains("too many links"));
        for none in ["lost", "good/keys/x", "none/x", "to-bad/x"] {
            assert_eq!(why(&base.join(none)), "missing", "{none}");
        }
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn what_is_no_file_is_never_waited_for() {
        let Some(base) = place("pipes") else {
            return println!("SKIPPED: no directory that nobody else may write");
        };
        let pipe = base.join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(
            why(&pipe),
            format!("{}: expected a regular file, found a named pipe", pipe.display())
        );
        assert!(why(&base).contains("expected a regular file, found a directory"));
        assert_eq!(why(&pipe.join("x")), "missing");
        assert!(why(Path::new("/dev/null")).contains("a device"));
        fs::remove_dir_all(base).unwrap();
    }
}
