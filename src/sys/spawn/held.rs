//! Making the child, and being held until it has exec'd or ended.

use super::super::check;
use super::child::{self, Order};
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long a child is waited for before it is looked after; a start takes some 0.1 ms. Not shorter: a timer that would be the
/// processor's next costs 8 µs at every start.
const LOOK_AFTER: Duration = Duration::from_millis(20);
/// A child that has not exec'd by then is killed.
const START_MAX: Duration = Duration::from_secs(5);

/// The child, and whether it was killed because it was stopped or held up.
pub(super) struct Made {
    pub pid: i32,
    pub killed: bool,
}

/// Signals are blocked meanwhile, so that no handler runs in the child.
pub(super) fn clone(order: &Order, stack: &Stack) -> io::Result<Made> {
    let flags = libc::CLONE_VM | libc::CLONE_FILES | libc::CLONE_CHILD_CLEARTID | libc::SIGCHLD;
    let (parent_tid, tls) = (
        ptr::null_mut::<libc::pid_t>(),
        ptr::null_mut::<libc::c_void>(),
    );
    let before = mask(!0);
    // SAFETY: this function waits until the child has left this memory, however it does: so long the stack is the child's
    // alone, and `order` and all it points to live and are left alone. The child writes to its Cells, the kernel to `runs`.
    let made = check(unsafe {
        let argument = ptr::from_ref(order).cast_mut().cast();
        let runs = order.runs.as_ptr();
        libc::clone(
            child::run,
            stack.top(),
            flags,
            argument,
            parent_tid,
            tls,
            runs,
        )
    });
    let made = made.map(|pid| Made {
        pid,
        killed: wait(&order.runs, pid),
    });
    mask(before);
    made
}

/// Waits until the child has left our memory, which the kernel tells (clone(2), CLONE_CHILD_CLEARTID: at exec, or at its end).
/// True where it was killed for that.
fn wait(runs: &AtomicU32, pid: i32) -> bool {
    let mut began = None;
    let mut killed = false;
    // Mostly the child runs now, on this processor, and is gone when we are back: less than vfork's two changes of process.
    // SAFETY: no memory is handed over.
    unsafe { libc::syscall(libc::SYS_sched_yield) };
    while runs.load(Ordering::Acquire) != 0 {
        sleep(runs);
        if runs.load(Ordering::Acquire) == 0 {
            break;
        }
        let began = *began.get_or_insert_with(Instant::now);
        if !killed && (is_stopped(pid) || began.elapsed() > START_MAX) {
            // SAFETY: no memory is handed over; the child was not reaped, so the number is its own.
            unsafe { libc::kill(pid, libc::SIGKILL) };
            killed = true;
        }
    }
    killed
}

/// Until the child is gone, or for [`LOOK_AFTER`]. Its answer is not asked for: the child shares our errno.
fn sleep(runs: &AtomicU32) {
    let time = libc::timespec {
        tv_sec: 0,
        tv_nsec: LOOK_AFTER.as_nanos() as _,
    };
    let (call, running) = (libc::SYS_futex, 1u32);
    // SAFETY: one word and one timespec are read. Not private: the kernel wakes us as it wakes who joins a thread.
    unsafe {
        libc::syscall(
            call,
            runs.as_ptr(),
            libc::FUTEX_WAIT,
            running,
            &raw const time,
        )
    };
}

fn is_stopped(pid: i32) -> bool {
    let flags = libc::WSTOPPED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: all zeros is a valid siginfo, which the call fills; it stays zero where nothing is to be told.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        libc::waitid(libc::P_PID, pid as libc::id_t, &mut info, flags) == 0 && info.si_signo != 0
    }
}

/// Sets this thread's signal mask, a bit a signal; what it was.
fn mask(new: u64) -> u64 {
    let mut old = 0u64;
    let (call, size) = (libc::SYS_rt_sigprocmask, size_of::<u64>());
    // SAFETY: the kernel's signal sets have 64 bits; one is read and one written. It cannot fail.
    unsafe { libc::syscall(call, libc::SIG_SETMASK, &raw const new, &raw mut old, size) };
    old
}

/// Of a child that is ending at this moment.
pub(super) fn reap(pid: i32) {
    let mut status = 0;
    // SAFETY: one int is written.
    while unsafe { libc::waitpid(pid, &mut status, 0) } < 0
        && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
    {}
}

/// The child's stack, with a page below it that faults.
#[derive(Debug)]
pub(super) struct Stack(*mut libc::c_void);

// SAFETY: the memory is this value's alone.
unsafe impl Send for Stack {}

impl Stack {
    /// Bytes; the child's calls are shallow. A multiple of any page size in use.
    const SIZE: usize = 128 * 1024;
    const GUARD: usize = 64 * 1024;

    pub fn new() -> io::Result<Stack> {
        let (access, kind) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK,
        );
        // SAFETY: a new mapping, of which the lower part becomes the guard.
        unsafe {
            let low = libc::mmap(ptr::null_mut(), Self::SIZE, access, kind, -1, 0);
            if low == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            let stack = Stack(low);
            check(libc::mprotect(low, Self::GUARD, libc::PROT_NONE))?;
            Ok(stack)
        }
    }

    /// Stacks grow down on every system that this runs on.
    fn top(&self) -> *mut libc::c_void {
        self.0.wrapping_byte_add(Self::SIZE)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and no child is left on it.
        unsafe { libc::munmap(self.0, Self::SIZE) };
    }
}
