//! The children that this process has started, until they have ended and are handed over to be
//! reaped. No other child of this process is its own.

use std::collections::HashSet;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// By process id.
static OWN: Mutex<Option<HashSet<i32>>> = Mutex::new(None);

fn own() -> MutexGuard<'static, Option<HashSet<i32>>> {
    OWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a child; `pid`: its number. Nobody can ask whose it is before that is known here.
pub fn start<T>(
    start: impl FnOnce() -> io::Result<T>,
    pid: impl FnOnce(&T) -> i32,
) -> io::Result<T> {
    let mut own = own();
    let child = start()?;
    own.get_or_insert_default().insert(pid(&child));
    Ok(child)
}

/// Was this child started here, and not handed over yet?
pub fn has(pid: i32) -> bool {
    own().as_ref().is_some_and(|own| own.contains(&pid))
}

/// All that were.
pub fn all() -> Vec<i32> {
    own().iter().flatten().copied().collect()
}

/// It was handed over.
pub(super) fn remove(pid: i32) {
    if let Some(own) = own().as_mut() {
        own.remove(&pid);
    }
}
