//! System calls that the keys process and the foreign code of a login may not make.

use super::*;

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
