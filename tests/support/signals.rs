//! Signals that end a process by default (signal(7)).

#![allow(dead_code)] // Each test file uses its own part of this.

use nix::libc;
use std::process::{Child, Command};

/// Those that can be caught, without the errors of a program itself (SIGSEGV) and without SIGPIPE,
/// which no Rust program has. Of the real-time ones the first, the last, and one between.
pub fn ending() -> Vec<i32> {
    let standard = [
        libc::SIGHUP,
        libc::SIGINT,
        libc::SIGQUIT,
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGALRM,
        libc::SIGTERM,
        libc::SIGSTKFLT,
        libc::SIGXCPU,
        libc::SIGXFSZ,
        libc::SIGVTALRM,
        libc::SIGPROF,
        libc::SIGIO,
        libc::SIGPWR,
    ];
    let real_time = [libc::SIGRTMIN(), libc::SIGRTMIN() + 7, libc::SIGRTMAX()];
    standard.into_iter().chain(real_time).collect()
}

pub fn send(to: &Child, signal: i32) {
    send_to(to.id() as i32, signal);
}

/// nix has no real-time signals.
pub fn send_to(pid: i32, signal: i32) {
    let sent = Command::new("sh").args(["-c", &format!("kill -{signal} {pid}")]).status();
    assert!(sent.expect("sh").success());
}
