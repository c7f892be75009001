//! crypt(3) of the system's own library, which is opened when it is needed, so that every hash that
//! the system knows works.

use super::library::Library;
use std::ffi::{CStr, CString, c_char, c_int, c_ulong, c_void};

/// The names of libxcrypt, and of glibc's library before it.
const NAMES: [&CStr; 2] = [c"libcrypt.so.1", c"libcrypt.so.2"];
/// More than any system's struct crypt_data.
const DATA: usize = 256 * 1024;
/// CRYPT_GENSALT_OUTPUT_SIZE.
const SALT: usize = 192;
/// Bytes of a password at most: libxcrypt refuses longer ones (CRYPT_MAX_PASSPHRASE_SIZE, its NUL
/// among them).
pub const PASSWORD_MAX: usize = 511;

type CryptR = unsafe extern "C" fn(*const c_char, *const c_char, *mut c_void) -> *mut c_char;
type GensaltRn = unsafe extern "C" fn(
    *const c_char,
    c_ulong,
    *const c_char,
    c_int,
    *mut c_char,
    c_int,
) -> *mut c_char;

type CheckSalt = unsafe extern "C" fn(*const c_char) -> c_int;

/// The library, opened.
pub struct Crypt(Library);

impl Crypt {
    /// Err: a sentence.
    pub fn open() -> Result<Crypt, String> {
        Library::open(&NAMES).map(Crypt)
    }

    /// Hashes a password with a setting, which may be a whole hash. None: the library does not know
    /// the setting.
    pub fn hash(&self, password: &CStr, setting: &CStr) -> Option<CString> {
        // SAFETY: this is the type that crypt(3) says crypt_r has.
        let crypt_r: CryptR = unsafe { std::mem::transmute(self.0.symbol(c"crypt_r")?) };
        // In 64-bit words, so that it is aligned.
        let mut data = vec![0u64; DATA / 8];
        // SAFETY: two C strings; the data is zeroed, as crypt_r(3) wants it, and larger than its
        // struct.
        let hash =
            unsafe { crypt_r(password.as_ptr(), setting.as_ptr(), data.as_mut_ptr().cast()) };
        if hash.is_null() {
            return None;
        }
        // SAFETY: not null: a C string in `data`.
        let hash = unsafe { CStr::from_ptr(hash) }.to_owned();
        (!hash.as_bytes().starts_with(b"*")).then_some(hash)
    }

    /// Does the library know the scheme of this setting? It hashes nothing. None: it does not say
    /// (libxcrypt before 4.2).
    pub fn knows(&self, setting: &CStr) -> Option<bool> {
        // crypt.h: there is no such scheme, or this library was built without it.
        const INVALID: c_int = 1;
        const DISABLED: c_int = 2;
        // SAFETY: this is the type that crypt_checksalt(3) says it has.
        let check: CheckSalt = unsafe { std::mem::transmute(self.0.symbol(c"crypt_checksalt")?) };
        // SAFETY: a C string.
        let answer = unsafe { check(setting.as_ptr()) };
        Some(!matches!(answer, INVALID | DISABLED))
    }

    /// A fresh setting of the scheme and cost that the library prefers.
    pub fn setting(&self) -> Option<CString> {
        // SAFETY: this is the type that crypt_gensalt(3) says crypt_gensalt_rn has.
        let gensalt: GensaltRn =
            unsafe { std::mem::transmute(self.0.symbol(c"crypt_gensalt_rn")?) };
        let mut out = [0 as c_char; SALT];
        // SAFETY: null asks for the preferred scheme and for random bytes of the system; the buffer
        // has the size given.
        let made = unsafe {
            gensalt(std::ptr::null(), 0, std::ptr::null(), 0, out.as_mut_ptr(), SALT as c_int)
        };
        if made.is_null() {
            return None;
        }
        // SAFETY: not null: a C string in `out`.
        Some(unsafe { CStr::from_ptr(made) }.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_hashes() {
        let crypt = Crypt::open().expect("libcrypt");
        let known = c"$5$fivedtest$aF7TYyX/okCSYkmpkB7BUyLsCpQnzMOh36YizxX91R.";
        assert_eq!(crypt.hash(c"demopass", known).as_deref(), Some(known));
        assert_ne!(crypt.hash(c"other", known).as_deref(), Some(known));
        assert_eq!(crypt.hash(c"x", c"!"), None);
        assert_ne!(crypt.knows(known), Some(false));
        assert_ne!(crypt.knows(c"$apr1$abcdefgh$F0VYQ6Pr0J6QzTn3Lk6yj1"), Some(true));
        let fresh = crypt.setting().expect("a setting");
        let hash = crypt.hash(c"secret", &fresh).expect("a hash");
        assert_eq!(crypt.hash(c"secret", &hash), Some(hash));
    }
}
