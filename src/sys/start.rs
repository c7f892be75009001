//! How a program begins without the beginning of Rust's standard library, which looks into /proc
//! for the stack of the first thread. A new process has no place there that anybody has looked for,
//! and whoever keeps /proc locked would keep each process of fived from beginning.

use std::ffi::{CStr, OsStr, OsString, c_char, c_int};
use std::os::unix::ffi::OsStrExt;
use std::panic::catch_unwind;

/// Defines the beginning of a program: a function that takes the words of its command line, and
/// returns its exit status.
#[macro_export]
macro_rules! entry_point {
    ($run:path) => {
        #[unsafe(no_mangle)]
        extern "C" fn main(
            count: std::ffi::c_int,
            words: *const *const std::ffi::c_char,
        ) -> std::ffi::c_int {
            // SAFETY: the C library calls this, and nobody else.
            unsafe { $crate::sys::start::run(count, words, $run) }
        }
    };
}

/// What [`entry_point`] does.
///
/// # Safety
///
/// The words are so many C strings.
pub unsafe fn run(
    count: c_int,
    words: *const *const c_char,
    program: fn(Vec<OsString>) -> i32,
) -> c_int {
    // As Rust's own beginning does: a write that nobody reads is an error, and no end.
    // SAFETY: no handler is set.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    open_the_standard_ones();
    let words = (0..usize::try_from(count).unwrap_or(0)).map(|n| {
        // SAFETY: the caller's promise.
        let word = unsafe { CStr::from_ptr(*words.add(n)) };
        OsStr::from_bytes(word.to_bytes()).to_os_string()
    });
    let words = words.collect();
    // A panic has said so.
    let status = catch_unwind(|| program(words)).unwrap_or(101);
    // Writes what standard output still holds.
    std::process::exit(status)
}

/// Whatever this process opens must not become one of the three standard descriptors by chance.
fn open_the_standard_ones() {
    for fd in 0..3 {
        // SAFETY: no memory is handed over, and the path is a C string.
        unsafe {
            if libc::fcntl(fd, libc::F_GETFD) < 0
                && libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) < 0
            {
                libc::abort();
            }
        }
    }
}
