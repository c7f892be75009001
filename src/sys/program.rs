//! What a program's file is, looked at before it is started: a greeting must not promise what exec then refuses.

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};

/// The kernel reads so much of a file to tell what it is (BINPRM_BUF_SIZE).
const HEAD: usize = 256;
/// Bytes of a path at most (PATH_MAX).
const PATH_MAX: u64 = 4096;
/// Program headers that are looked at; the kernel takes a page of them.
const HEADERS_MAX: u16 = 73;

/// Interpreters of interpreters that the kernel goes through (fs/exec.c).
const DEPTH: usize = 5;

/// A file that exec takes, by what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Image {
    /// With the loader that it names, where it is linked dynamically.
    Elf { loader: Option<CString> },
    /// `#!`: the interpreter's path.
    Script { interpreter: CString },
}

/// A file's state; two that are equal are of the same content, so that a look at it need not be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    size: u64,
    mode: u32,
}

/// Looks at a program, and at what runs it: the other files that must be there and be executable, interpreters and loaders. Paths
/// are those that a process in `root` sees. ENOEXEC: neither for this machine nor a script; EACCES: not a file. Whether a user
/// may execute them only the attempt can tell (`spawn::Check`), and what we may not read it alone can judge.
pub fn inspect(root: Option<&str>, path: &str) -> io::Result<Vec<CString>> {
    let mut needs = Vec::new();
    let mut image = look(root, path)?;
    for _ in 0..DEPTH {
        match image {
            Some(Image::Script { interpreter }) => {
                let other = interpreter.to_string_lossy().into_owned();
                needs.push(interpreter);
                if !other.starts_with('/') {
                    // It depends on the working directory.
                    return Ok(needs);
                }
                image = look(root, &other).map_err(|e| io::Error::new(e.kind(), format!("{other}: {e}")))?;
            }
            Some(Image::Elf { loader }) => {
                needs.extend(loader);
                return Ok(needs);
            }
            None => return Ok(needs),
        }
    }
    Err(io::Error::from_raw_os_error(libc::ELOOP))
}

/// None: it may be executed, for all that we know, but not read.
fn look(root: Option<&str>, path: &str) -> io::Result<Option<Image>> {
    if !open(root, path, OFlag::O_PATH)?.metadata()?.is_file() {
        return Err(io::Error::from_raw_os_error(libc::EACCES));
    }
    let file = match open(root, path, OFlag::O_RDONLY) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => return Ok(None),
        file => file?,
    };
    let mut head = Vec::with_capacity(HEAD);
    (&file).take(HEAD as u64).read_to_end(&mut head)?;
    match head.strip_prefix(b"#!") {
        Some(line) => script(line).ok_or_else(no_program).map(Some),
        None => elf(&head, &file).map(Some),
    }
}

/// Below a root, as chroot(2) would have it: links and `..` lead to nothing outside (openat2(2)).
fn open(root: Option<&str>, path: &str, how: OFlag) -> io::Result<File> {
    let Some(root) = root else {
        return OpenOptions::new().read(true).custom_flags(how.bits()).open(path);
    };
    let root = OpenOptions::new().read(true).custom_flags((OFlag::O_PATH | OFlag::O_DIRECTORY).bits()).open(root)?;
    let how = OpenHow::new().flags(how | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_IN_ROOT);
    Ok(openat2(&root, path, how)?.into())
}

/// The state of a program's file, links followed.
pub fn stamp(root: Option<&str>, path: &str) -> io::Result<Stamp> {
    let m = if root.is_some() { open(root, path, OFlag::O_PATH)?.metadata()? } else { std::fs::metadata(path)? };
    Ok(Stamp {
        device: m.dev(),
        inode: m.ino(),
        modified: (m.mtime(), m.mtime_nsec()),
        changed: (m.ctime(), m.ctime_nsec()),
        size: m.len(),
        mode: m.mode(),
    })
}

fn no_program() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOEXEC)
}

/// As the kernel's fs/binfmt_script.c: blanks, the path to a blank or the line's end.
fn script(line: &[u8]) -> Option<Image> {
    let line = line.split(|&b| b == b'\n').next()?;
    let blank = |b: &u8| matches!(b, b' ' | b'\t');
    let start = line.iter().position(|b| !blank(b))?;
    let path = line[start..].split(|b| blank(b) || *b == 0).next()?;
    let interpreter = CString::new(path).ok().filter(|p| !p.is_empty())?;
    Some(Image::Script { interpreter })
}

/// elf(5), the kind and byte order of this machine.
fn elf(head: &[u8], file: &File) -> io::Result<Image> {
    const CLASS_32: u8 = 1;
    const CLASS_64: u8 = 2;
    const ORDER: u8 = if cfg!(target_endian = "big") { 2 } else { 1 };
    const EXECUTABLE: [u16; 2] = [libc::ET_EXEC, libc::ET_DYN];
    match head.strip_prefix(b"\x7fELF") {
        Some([CLASS_64, ORDER, ..]) => {}
        // Many a 64-bit kernel runs these: exec will tell.
        Some([CLASS_32, _, ..]) => return Ok(Image::Elf { loader: None }),
        _ => return Err(no_program()),
    }
    let kind = number::<2>(head, 16)? as u16;
    if !EXECUTABLE.contains(&kind) || number::<2>(head, 18)? as u16 != MACHINE {
        return Err(no_program());
    }
    let (at, size, count) = (number::<8>(head, 32)?, number::<2>(head, 54)?, number::<2>(head, 56)?.min(HEADERS_MAX.into()));
    for i in 0..count {
        let mut header = [0; 56];
        let place = at.checked_add(i * size).ok_or_else(no_program)?;
        file.read_exact_at(&mut header, place).map_err(|_| no_program())?;
        if number::<4>(&header, 0)? as u32 == libc::PT_INTERP {
            let place = (number::<8>(&header, 8)?, number::<8>(&header, 32)?);
            return Ok(Image::Elf { loader: Some(loader(file, place)?) });
        }
    }
    Ok(Image::Elf { loader: None })
}

fn loader(file: &File, (at, size): (u64, u64)) -> io::Result<CString> {
    if !(2..=PATH_MAX).contains(&size) {
        return Err(no_program());
    }
    // Not more than PATH_MAX, which fits.
    let mut path = vec![0; size as usize];
    file.read_exact_at(&mut path, at).map_err(|_| no_program())?;
    let end = path.iter().position(|&b| b == 0).ok_or_else(no_program)?;
    path.truncate(end);
    CString::new(path).map_err(|_| no_program())
}

/// `N` bytes of this machine's order.
fn number<const N: usize>(bytes: &[u8], at: usize) -> io::Result<u64> {
    let field = bytes.get(at..at + N).ok_or_else(no_program)?;
    let each = |n: u64, b: &u8| n << 8 | u64::from(*b);
    Ok(if cfg!(target_endian = "big") { field.iter().fold(0, each) } else { field.iter().rev().fold(0, each) })
}

#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = libc::EM_X86_64;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = libc::EM_AARCH64;
#[cfg(target_arch = "riscv64")]
const MACHINE: u16 = libc::EM_RISCV;

#[cfg(test)]
mod tests {
    use super::*;

    fn of(content: &[u8]) -> io::Result<Option<Image>> {
        static N: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let n = N.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("fived-program-{}-{n}", std::process::id()));
        std::fs::write(&path, content).unwrap();
        let image = look(None, path.to_str().unwrap());
        std::fs::remove_file(&path).unwrap();
        image
    }

    fn script(path: &str) -> Option<Image> {
        Some(Image::Script { interpreter: CString::new(path).unwrap() })
    }

    #[test]
    fn scripts_are_read_as_the_kernel_reads_them() {
        assert_eq!(of(b"#!/bin/sh\necho").unwrap(), script("/bin/sh"));
        assert_eq!(of(b"#! \t/usr/bin/env  python -u\n").unwrap(), script("/usr/bin/env"));
        assert_eq!(of(b"#!/bin/sh").unwrap(), script("/bin/sh"));
        for bad in [&b"#!\n/bin/sh"[..], b"#! ", b"echo", b"", b"\x7fELF", b"\x7fELF\x02\x01"] {
            assert_eq!(of(bad).unwrap_err().raw_os_error(), Some(libc::ENOEXEC), "{bad:?}");
        }
    }

    #[test]
    fn a_program_names_its_loader() {
        let needs = inspect(None, "/proc/self/exe").unwrap();
        assert!(needs.iter().all(|n| std::path::Path::new(n.to_str().unwrap()).exists()));
        assert!(matches!(look(None, "/proc/self/exe").unwrap(), Some(Image::Elf { .. })));
        assert!(inspect(None, "/no/such").is_err());
        assert_eq!(inspect(None, "/").unwrap_err().raw_os_error(), Some(libc::EACCES));
    }

    #[test]
    fn another_machine_and_lies_are_refused() {
        let mut head = std::fs::read("/proc/self/exe").unwrap();
        head.truncate(4096);
        let with = |at: usize, bytes: &[u8]| {
            let mut copy = head.clone();
            copy[at..at + bytes.len()].copy_from_slice(bytes);
            of(&copy).map_err(|e| e.raw_os_error())
        };
        assert!(with(0, b"\x7f").is_ok());
        assert_eq!(with(18, &[0xfe, 0xfe]), Err(Some(libc::ENOEXEC)));
        assert_eq!(with(16, &[4, 0]), Err(Some(libc::ENOEXEC)));
        assert_eq!(with(32, &[0xff; 8]), Err(Some(libc::ENOEXEC)));
    }

    #[test]
    fn a_stamp_tells_a_changed_file() {
        let path = std::env::temp_dir().join(format!("fived-stamp-{}", std::process::id()));
        let now = || stamp(None, path.to_str().unwrap()).unwrap();
        std::fs::write(&path, b"a").unwrap();
        let before = now();
        assert_eq!(now(), before);
        std::fs::write(&path, b"ab").unwrap();
        assert_ne!(now(), before);
        std::fs::remove_file(&path).unwrap();
    }
}
