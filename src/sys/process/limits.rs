//! Limits that whoever started this process has set (ulimit, setrlimit(2)).

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use std::io;
use std::sync::OnceLock;

static NOFILE_BEFORE: OnceLock<(u64, u64)> = OnceLock::new();

/// Those that would end a process that works for others: by a signal, after some time or many
/// bytes.
const ENDING: [Resource; 2] = [Resource::RLIMIT_FSIZE, Resource::RLIMIT_CPU];

/// Raises the limit of open descriptors to the hard limit, and returns it. Services get the former
/// limit (`spawn`).
pub fn raise_nofile() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    NOFILE_BEFORE.get_or_init(|| (soft, hard));
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}

/// How many descriptors this process may have.
pub fn nofile() -> u64 {
    // The call cannot fail for this resource.
    getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft)
}

/// How many it may have once [`raise_nofile`] was called.
pub fn hard_nofile() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(_, hard)| hard)
}

/// The limit as it was before [`raise_nofile`] changed it; None where it did not.
pub(in crate::sys) fn nofile_before() -> Option<(u64, u64)> {
    NOFILE_BEFORE.get().copied().filter(|(soft, hard)| soft != hard)
}

/// Raises the limits of CPU time and memory and of the size of files to the hard limits.
pub fn raise_others() {
    for limit in ENDING.into_iter().chain([Resource::RLIMIT_AS, Resource::RLIMIT_DATA]) {
        // It stays as it is where that fails.
        let _ = getrlimit(limit).and_then(|(_, hard)| setrlimit(limit, hard, hard));
    }
}

/// Is there one, of CPU time or of the size of files, that [`raise_others`] does not remove?
pub fn has_hard_limit() -> bool {
    ENDING.into_iter().any(|limit| getrlimit(limit).is_ok_and(|(_, hard)| hard != RLIM_INFINITY))
}

/// May this process write files of some size only?
pub fn file_size_is_limited() -> bool {
    getrlimit(Resource::RLIMIT_FSIZE).is_ok_and(|(soft, _)| soft != RLIM_INFINITY)
}
