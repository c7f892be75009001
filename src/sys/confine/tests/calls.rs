//! System calls that confined processes may not make.

use super::*;
use std::os::fd::{BorrowedFd, IntoRawFd};

/// What the process with the private keys cannot do.
pub fn nothing_but_memory_and_its_channel() {
    let (size, none) = (4096usize, std::ptr::null_mut::<libc::c_void>());
    let exec = libc::PROT_READ | libc::PROT_EXEC;
    let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: calls that the filter refuses before they do anything; a child that came to be would
    // end at once.
    unsafe {
        refused(libc::syscall(libc::SYS_openat, libc::AT_FDCWD, c"/".as_ptr(), 0));
        refused(libc::syscall(libc::SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM, 0));
        refused(libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0));
        refused(libc::syscall(libc::SYS_execve, c"/".as_ptr(), none, none));
        refused(libc::syscall(libc::SYS_kill, libc::getppid(), 0));
        refused(libc::syscall(libc::SYS_ptrace, 0, 0, 0, 0));
        refused(libc::syscall(libc::SYS_mmap, none, size, exec, kind, -1, 0));
        refused(libc::syscall(libc::SYS_mprotect, none, size, exec));
        refused(libc::syscall(libc::SYS_prctl, libc::PR_SET_DUMPABLE, 1, 0, 0, 0));
        refused(libc::syscall(libc::SYS_fcntl, 0, libc::F_SETFL, 0));
        refused(libc::syscall(libc::SYS_sendmsg, 0, none, 0));
        at_a_path();
    }
}

/// Calls with arguments that none of them takes, so that one which is not refused does nothing.
pub fn what_no_login_needs() {
    let forbidden = [
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_pidfd_getfd,
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_move_mount,
        libc::SYS_pivot_root,
        libc::SYS_open_by_handle_at,
        libc::SYS_bpf,
        libc::SYS_finit_module,
        libc::SYS_kexec_load,
        libc::SYS_io_uring_setup,
        libc::SYS_keyctl,
        libc::SYS_add_key,
        libc::SYS_request_key,
    ];
    for call in forbidden {
        // SAFETY: no address is one of this process's memory.
        unsafe { refused(libc::syscall(call, -1, -1, -1, -1, -1, -1)) };
        if cfg!(target_arch = "x86_64") {
            // The same call of x32.
            // SAFETY: the same.
            unsafe { refused(libc::syscall(call | 0x4000_0000, -1, -1, -1, -1, -1, -1)) };
        }
    }
}

/// The number of a net process's channel.
const CHANNEL: libc::c_int = 3;

/// Puts one end of a channel where a net process has its own; returns the other.
pub fn channel_to_the_parent() -> OwnedFd {
    let (ours, parents) = socket::seqpacket().unwrap();
    // It may have the number already, so it stays open.
    let ours = ours.into_raw_fd();
    // SAFETY: what this process has under that number nobody here uses.
    assert_eq!(unsafe { libc::dup2(ours, CHANNEL) }, CHANNEL);
    parents
}

/// A net process sends descriptors to its parent and to nobody else, and has no memory that is a
/// file's. `parent`: the other end of its channel.
pub fn only_to_the_parent(parent: BorrowedFd, file: libc::c_int, filtered: bool) {
    // SAFETY: it stays open until the process ends.
    let channel = unsafe { BorrowedFd::borrow_raw(CHANNEL) };
    let (a, b) = socket::pair().unwrap();
    message::send_waiting(channel, b"order", &[a.as_fd()]).unwrap();
    let (_, mut fds) = message::receive_waiting(parent, &mut [0; 9]).unwrap();
    assert!(fds.take().is_some());
    if !filtered {
        return;
    }
    let copy = channel.try_clone_to_owned().unwrap();
    for other in [a.as_fd(), b.as_fd(), copy.as_fd()] {
        let sent = message::send_waiting(other, b"x", &[a.as_fd()]);
        assert_eq!(sent.unwrap_err().raw_os_error(), Some(libc::EPERM));
    }
    let (size, none) = (4096usize, std::ptr::null_mut::<libc::c_void>());
    let (other, all) = (a.as_raw_fd(), u32::MAX);
    // SAFETY: calls that the filter refuses before they do anything.
    unsafe {
        refused(libc::syscall(libc::SYS_close, CHANNEL));
        refused(libc::syscall(libc::SYS_close_range, CHANNEL, all, 0));
        refused(libc::syscall(libc::SYS_dup3, other, CHANNEL, 0));
        #[cfg(target_arch = "x86_64")]
        refused(libc::syscall(libc::SYS_dup2, other, CHANNEL));
        refused(libc::syscall(libc::SYS_sendmmsg, other, none, 0, 0));
        for kind in [libc::MAP_SHARED, libc::MAP_PRIVATE] {
            refused(libc::syscall(libc::SYS_mmap, none, size, libc::PROT_READ, kind, file, 0));
        }
        refused(libc::syscall(libc::SYS_userfaultfd, 0));
    }
}
