//! Two computers, as network namespaces with a link between them: one serves, the other calls.

#![allow(dead_code)] // Each test file uses its own part of this.

use super::support::five::piped;
use super::support::{Builder, Daemon, Five, installed, root, skip};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};

/// Runs a script of sh(1), which must succeed.
#[track_caller]
pub fn sh(script: &str) {
    let out = Command::new("sh").args(["-ec", script]).output().expect("sh");
    assert!(out.status.success(), "{script}\n{}", String::from_utf8_lossy(&out.stderr));
}

/// Two computers, by the names of their network namespaces. Each has the link as `eth0`.
pub struct Link {
    pub server: String,
    pub client: String,
}

impl Link {
    /// The server has the first address of this network (`10.77.0`, say), the client the second.
    /// None: such a link cannot be made here, and the test was told to be skipped.
    pub fn new(network: &str) -> Option<Link> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !(root() && installed("ip")) {
            skip("needs root and ip");
            return None;
        }
        let name = format!("fv{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let link = Link { server: format!("{name}s"), client: format!("{name}c") };
        let Link { server, client } = &link;
        sh(&format!(
            "ip netns add {server}; ip netns add {client}
             ip -n {server} link add eth0 type veth peer name eth0 netns {client}
             ip -n {server} addr add {network}.1/24 dev eth0
             ip -n {client} addr add {network}.2/24 dev eth0
             for n in {server} {client}; do ip -n $n link set lo up; ip -n $n link set eth0 up; done"
        ));
        Some(link)
    }

    /// Starts a fived on the computer that serves.
    pub fn serve(&self, d: Builder) -> Daemon {
        d.under(&["ip", "netns", "exec", &self.server]).start()
    }

    /// The words that start a program on the computer that calls.
    pub fn calls(&self) -> [&str; 6] {
        ["ip", "netns", "exec", &self.client, "setsid", "-w"]
    }

    /// Starts five on the computer that calls.
    pub fn five(&self, f: &Five, words: &[&str]) -> Child {
        let [ip, before @ ..] = self.calls();
        piped(&mut f.command_by(ip, &before, words))
    }

    /// Sets the link up or down at one of the two.
    pub fn set(&self, computer: &str, to: &str) {
        sh(&format!("ip -n {computer} link set eth0 {to}"));
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let script = format!("ip netns del {}; ip netns del {}", self.server, self.client);
        let _ = Command::new("sh").args(["-c", &script]).status();
    }
}
