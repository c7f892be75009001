//! What kind of program a file is, by its first bytes: the greeting must not be sent for a program
//! that exec then refuses.
//!
//! A child that starts a program examines it before it sends the greeting (`spawn::child`), and so
//! does the check of the configuration ([`inspect`]). The code of both neither allocates nor
//! panics, because the child may do neither. Files are opened with O_NONBLOCK, so that nobody else
//! can make this wait.

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use std::ffi::CStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};

/// Bytes of a file that are examined: as many as a path may have (PATH_MAX), and enough for the
/// program headers of most files.
pub(super) const BUFFER: usize = 4096;
/// Bytes of a script's first line that the kernel reads (BINPRM_BUF_SIZE).
const SCRIPT: usize = 256;
/// Program headers that are examined; the kernel takes a page of them.
const HEADERS_MAX: u16 = 73;
/// How deep interpreters of interpreters may be nested (fs/exec.c).
pub(super) const DEPTH: usize = 5;
/// How a program's file is opened. It waits neither for a pipe's other end nor for a process that
/// holds a lease on the file.
pub(super) const OPEN: libc::c_int =
    libc::O_RDONLY | libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOCTTY;

/// The bytes of a file. Errors are the system's numbers.
pub(super) trait Bytes {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> Result<usize, i32>;
}

impl Bytes for File {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> Result<usize, i32> {
        FileExt::read_at(self, buffer, at).map_err(|e| e.raw_os_error().unwrap_or(libc::EIO))
    }
}

/// The other file that a program needs to run. Its path begins in the buffer at this offset, and
/// ends with a zero byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    Nothing,
    /// `#!`: that program is run in its place.
    Interpreter(usize),
    /// It is linked dynamically, by this loader.
    Loader(usize),
}

/// What a file needs to run. ENOEXEC: it is neither a program for this machine nor a script.
pub(super) fn needs(file: &impl Bytes, buffer: &mut [u8; BUFFER]) -> Result<Needs, i32> {
    let n = match file.read_at(buffer, 0) {
        // Such a file cannot be a program.
        Err(libc::EISDIR | libc::ESPIPE | libc::EAGAIN | libc::EINVAL) => return Err(libc::EACCES),
        n => n?,
    };
    let head = buffer.get(..n).ok_or(libc::EIO)?;
    if head.starts_with(b"#!") {
        let (start, end) = script(head).ok_or(libc::ENOEXEC)?;
        *buffer.get_mut(end).ok_or(libc::ENOEXEC)? = 0;
        return Ok(Needs::Interpreter(start));
    }
    match loader(head, file)? {
        None => Ok(Needs::Nothing),
        Some((at, size)) => {
            let path = buffer.get_mut(..size).ok_or(libc::ENOEXEC)?;
            let whole =
                file.read_at(path, at)? == size && path.contains(&0) && path.first() != Some(&0);
            if whole { Ok(Needs::Loader(0)) } else { Err(libc::ENOEXEC) }
        }
    }
}

/// The path that begins there.
pub(super) fn path(buffer: &[u8; BUFFER], at: usize) -> Result<&CStr, i32> {
    buffer.get(at..).and_then(|b| CStr::from_bytes_until_nul(b).ok()).ok_or(libc::ENOEXEC)
}

/// Examines a program and what runs it, as far as this process can. Whether a user may execute them
/// is seen only when one is started. Paths are as a process in `root` sees them. Err: a message; it
/// is that of EACCES if the file is not a regular one, or nobody may execute it.
pub fn inspect(root: Option<&str>, program: &str) -> Result<(), String> {
    let mut buffer = [0; BUFFER];
    let mut at = program.to_string();
    let sentence = |at: &str, errno: i32| {
        let e = io::Error::from_raw_os_error(errno);
        if at == program { e.to_string() } else { format!("{at}: {e}") }
    };
    for _ in 0..=DEPTH {
        let Some(file) = open(root, &at).map_err(|e| sentence(&at, e))? else { return Ok(()) };
        let (other, last) = match needs(&file, &mut buffer).map_err(|e| sentence(&at, e))? {
            Needs::Nothing => return Ok(()),
            Needs::Interpreter(n) => (n, false),
            Needs::Loader(n) => (n, true),
        };
        at = path(&buffer, other).map_err(|e| sentence(&at, e))?.to_string_lossy().into_owned();
        if !at.starts_with('/') {
            // It depends on the working directory.
            return Ok(());
        }
        if last {
            return open(root, &at).map(drop).map_err(|e| sentence(&at, e));
        }
    }
    Err(sentence(program, libc::ELOOP))
}

/// Is there a directory, as a process in `root` sees it? Err: a message.
pub fn inspect_directory(root: Option<&str>, path: &str) -> Result<(), String> {
    let how = OFlag::O_PATH | OFlag::O_DIRECTORY;
    open_at(root, path, how).map(drop).map_err(|e| e.to_string())
}

/// Opens a file. With a root, links and `..` lead to nothing outside it, as after chroot(2)
/// (openat2(2)).
fn open_at(root: Option<&str>, path: &str, how: OFlag) -> io::Result<File> {
    let Some(root) = root else {
        return OpenOptions::new().read(true).custom_flags(how.bits()).open(path);
    };
    let root = OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_PATH | OFlag::O_DIRECTORY).bits())
        .open(root)?;
    let how = OpenHow::new().flags(how | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_IN_ROOT);
    Ok(openat2(&root, path, how)?.into())
}

/// None: the file cannot be read, but perhaps it can be executed.
fn open(root: Option<&str>, path: &str) -> Result<Option<File>, i32> {
    let open = |how: OFlag| open_at(root, path, how);
    let number = |e: io::Error| e.raw_os_error().unwrap_or(libc::EIO);
    // A device must not even be opened, and without these bits not even root can execute a file.
    let found = open(OFlag::O_PATH).and_then(|f| f.metadata()).map_err(number)?;
    if !found.is_file() || found.mode() & 0o111 == 0 {
        return Err(libc::EACCES);
    }
    match open(OFlag::from_bits_truncate(OPEN)) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(None),
        file => file.map(Some).map_err(number),
    }
}

/// Where the path of the first line is, as the kernel's fs/binfmt_script.c reads it: after blanks,
/// up to a blank or the line's end.
fn script(head: &[u8]) -> Option<(usize, usize)> {
    let line = head.get(..SCRIPT.min(head.len()))?.split(|&b| b == b'\n').next()?;
    let blank = |b: &u8| matches!(b, b' ' | b'\t');
    let start = line.iter().skip(2).position(|b| !blank(b))?.checked_add(2)?;
    let length = line.iter().skip(start).take_while(|b| !blank(b) && **b != 0).count();
    (length > 0).then_some((start, start.checked_add(length)?))
}

/// Where the path of a program's loader is in its file (elf(5), of the kind and byte order of this
/// machine).
fn loader(head: &[u8], file: &impl Bytes) -> Result<Option<(u64, usize)>, i32> {
    const CLASS_32: u8 = 1;
    const CLASS_64: u8 = 2;
    const ORDER: u8 = if cfg!(target_endian = "big") { 2 } else { 1 };
    /// Bytes of a program header.
    const HEADER: usize = 56;
    match head.strip_prefix(b"\x7fELF") {
        Some([CLASS_64, ORDER, ..]) => {}
        // Many 64-bit kernels run these: exec decides.
        Some([CLASS_32, _, ..]) => return Ok(None),
        _ => return Err(libc::ENOEXEC),
    }
    let kind = half(head, 16)?;
    if ![libc::ET_EXEC, libc::ET_DYN].contains(&kind) || half(head, 18)? != MACHINE {
        return Err(libc::ENOEXEC);
    }
    let (first, size, count) =
        (long(head, 32)?, u64::from(half(head, 54)?), half(head, 56)?.min(HEADERS_MAX));
    for i in 0..u64::from(count) {
        let at = i.checked_mul(size).and_then(|n| first.checked_add(n)).ok_or(libc::ENOEXEC)?;
        let mut own = [0; HEADER];
        let here = usize::try_from(at).ok().and_then(|at| head.get(at..at.checked_add(HEADER)?));
        let header = match here {
            Some(header) => header,
            None if file.read_at(&mut own, at)? == HEADER => &own,
            None => return Err(libc::ENOEXEC),
        };
        if word(header, 0)? == libc::PT_INTERP {
            let size = usize::try_from(long(header, 32)?).unwrap_or(usize::MAX);
            return if (2..=BUFFER).contains(&size) {
                Ok(Some((long(header, 8)?, size)))
            } else {
                Err(libc::ENOEXEC)
            };
        }
    }
    Ok(None)
}

/// `N` bytes at a place.
fn field<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], i32> {
    bytes.get(at..).and_then(|b| b.first_chunk()).copied().ok_or(libc::ENOEXEC)
}

fn half(bytes: &[u8], at: usize) -> Result<u16, i32> {
    field(bytes, at).map(u16::from_ne_bytes)
}

fn word(bytes: &[u8], at: usize) -> Result<u32, i32> {
    field(bytes, at).map(u32::from_ne_bytes)
}

fn long(bytes: &[u8], at: usize) -> Result<u64, i32> {
    field(bytes, at).map(u64::from_ne_bytes)
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

    /// A file in memory.
    struct Text<'a>(&'a [u8]);

    impl Bytes for Text<'_> {
        fn read_at(&self, buffer: &mut [u8], at: u64) -> Result<usize, i32> {
            let rest = self.0.get(at as usize..).unwrap_or_default();
            let n = rest.len().min(buffer.len());
            buffer[..n].copy_from_slice(&rest[..n]);
            Ok(n)
        }
    }

    fn of(content: &[u8]) -> Result<(Needs, Option<String>), i32> {
        let mut buffer = [0; BUFFER];
        let found = needs(&Text(content), &mut buffer)?;
        let other = match found {
            Needs::Nothing => None,
            Needs::Interpreter(at) | Needs::Loader(at) => {
                Some(path(&buffer, at)?.to_string_lossy().into_owned())
            }
        };
        Ok((found, other))
    }

    #[test]
    fn scripts_are_read_as_the_kernel_reads_them() {
        for (text, path, at) in [
            (&b"#!/bin/sh\necho"[..], "/bin/sh", 2),
            (b"#! \t/usr/bin/env  python -u\n", "/usr/bin/env", 4),
            (b"#!/bin/sh", "/bin/sh", 2),
        ] {
            assert_eq!(of(text), Ok((Needs::Interpreter(at), Some(path.into()))));
        }
        for bad in
            [&b"#!\n/bin/sh"[..], b"#! ", b"#!", b"echo", b"", b"\x7fELF", b"\x7fELF\x02\x01"]
        {
            assert_eq!(of(bad), Err(libc::ENOEXEC), "{bad:?}");
        }
        // No zero fits after it; exec takes as much as it reads.
        let long = [b"#!", &[b'a'; BUFFER][..]].concat();
        assert!(
            matches!(of(&long), Ok((Needs::Interpreter(2), Some(path))) if path.len() == SCRIPT - 2)
        );
    }

    #[test]
    fn a_program_names_its_loader() {
        let file = std::fs::read("/proc/self/exe").unwrap();
        let (_, loader) = of(&file).unwrap();
        assert!(loader.is_none_or(|l| std::path::Path::new(&l).exists()));
        assert_eq!(inspect(None, "/proc/self/exe"), Ok(()));
        assert!(inspect(None, "/no/such").unwrap_err().contains("No such file"));
        assert!(inspect(None, "/").unwrap_err().contains("Permission denied"));
        assert!(inspect(None, "/dev/null").unwrap_err().contains("Permission denied"));
    }

    #[test]
    fn another_machine_and_lies_are_refused() {
        let mut head = std::fs::read("/proc/self/exe").unwrap();
        head.truncate(4096);
        let with = |at: usize, bytes: &[u8]| {
            let mut copy = head.clone();
            copy[at..at + bytes.len()].copy_from_slice(bytes);
            of(&copy)
        };
        assert!(with(0, b"\x7f").is_ok());
        assert_eq!(with(18, &[0xfe, 0xfe]), Err(libc::ENOEXEC));
        assert_eq!(with(16, &[4, 0]), Err(libc::ENOEXEC));
        assert_eq!(with(32, &[0xff; 8]), Err(libc::ENOEXEC));
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let mut head = std::fs::read("/proc/self/exe").unwrap();
        head.truncate(1024);
        for at in 0..head.len() {
            for byte in [0, 1, 0x7f, 0xff] {
                let mut copy = head.clone();
                copy[at] = byte;
                let _ = (of(&copy), of(&copy[..at]));
            }
        }
    }
}
