//! What the address sanitizer is told (`make asan`): nothing of this is in any other build.

use std::ffi::{c_char, c_void};

/// Its options, as the Makefile has them: fived's processes and `five` must obey them without an
/// environment too.
// SAFETY: the name is the sanitizer's, which calls this before main; it answers with a C string
// that is never freed.
#[unsafe(no_mangle)]
extern "C" fn __asan_default_options() -> *const c_char {
    concat!(env!("ASAN_OPTIONS"), "\0").as_ptr().cast()
}

/// Forgets what was noted of calls that used this memory as their stack and never returned.
///
/// # Safety
///
/// The memory is the caller's own, and no call is on it.
#[inline(never)] // So that the linker takes this file, and with it the options.
pub(super) unsafe fn unpoison(at: *const c_void, size: usize) {
    unsafe extern "C" {
        fn __asan_unpoison_memory_region(at: *const c_void, size: usize);
    }
    // SAFETY: the caller's promise.
    unsafe { __asan_unpoison_memory_region(at, size) };
}
