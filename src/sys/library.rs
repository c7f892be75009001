//! A shared library that is opened at run time: fived is built without it, and runs without it as
//! long as nobody needs it.

use std::ffi::{CStr, c_void};

/// An open library; it stays open as long as the process runs.
pub struct Library(*mut c_void);

impl Library {
    /// Opens the first of these names that is there. Err: a sentence.
    pub fn open(names: &[&CStr]) -> Result<Library, String> {
        for name in names {
            // SAFETY: a C string; the libraries that are named here have no initializer that must
            // run earlier.
            let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) };
            if !handle.is_null() {
                return Ok(Library(handle));
            }
        }
        Err(format!("{}: not installed on this computer", names[0].to_string_lossy()))
    }

    /// The address of a symbol in it.
    pub fn symbol(&self, name: &CStr) -> Option<*mut c_void> {
        // SAFETY: an open handle and a C string.
        let at = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        (!at.is_null()).then_some(at)
    }
}
