//! fived-security(7): the tests that it names exist, and those that are only there for it.

mod support;

use nix::sys::signal::Signal;
use support::page::text;
use support::*;

/// Signals whose handlers Rust sets, which report a stack that has overflowed; in its build the
/// address sanitizer sets one more.
const OF_RUST: &[Signal] = &[
    Signal::SIGSEGV,
    Signal::SIGBUS,
    #[cfg(asan)]
    Signal::SIGFPE,
];
/// The two that glibc keeps for its threads, 32 and 33; nobody else can set a handler for them.
const OF_GLIBC: u64 = 3 << 31;

/// After `.Pa tests/FILE.rs` each `.Li NAME` is a test of that file.
#[test]
fn every_known_vulnerability_names_tests_that_exist() {
    let page = text("man/fived-security.7");
    let (mut source, mut known, mut tests) = (None, 0, 0);
    // The vulnerability whose tests have not come yet.
    let mut without = None;
    for line in page.lines() {
        if [".It CVE-", ".It GHSA-"].iter().any(|w| line.starts_with(w)) {
            assert_eq!(without.replace(line), None, "it names no test");
            known += 1;
        } else if let Some(file) = line.strip_prefix(".Pa tests/") {
            source = Some(text(&format!("tests/{file}")));
        } else if let Some(name) = line.strip_prefix(".Li ") {
            let test = format!("#[test]\nfn {name}() {{");
            assert!(source.as_ref().is_some_and(|s| s.contains(&test)), "{name}");
            (without, tests) = (None, tests + 1);
        } else if line.starts_with(".Sh") || line.starts_with(".Ss") {
            source = None;
        }
    }
    assert_eq!(without, None, "it names no test");
    assert!(known > 15 && tests >= known, "{known} known, {tests} tests");
}

/// CVE-2003-0211 (xinetd leaked memory for each refused connection), CVE-2001-0309 (an inetd never
/// closed the sockets of its internal services).
#[test]
fn refusals_and_internal_services_leave_neither_memory_nor_descriptors() {
    let d = Daemon::with(
        "
daytime stream tcp nowait @USER@ internal
no stream tcp nowait @USER@ /bin/cat cat
 no_access = 127.0.0.1
",
    )
    .start();
    let ask = || {
        for name in ["no", "nothing", "daytime"] {
            d.ask(format!("{name}\r\n"));
        }
    };
    let all = [d.parent_pid(), d.net_pid()];
    let now = || {
        until("nothing but fived's own processes", || proc::children(all[0]).len() <= 2);
        all.map(|pid| (proc::rss(pid), proc::descriptors(pid).len()))
    };
    // What a process needs once it needs early.
    (0..300).for_each(|_| ask());
    let before = now();
    let asked = 3 * trial_size("leaks", 1500, 10_000);
    (0..asked / 3).for_each(|_| ask());
    let mut grown = Vec::new();
    for ((memory, descriptors), (rss, open)) in before.into_iter().zip(now()) {
        // A leak of 100 bytes each would be 450 KiB of 4,500 requests.
        assert!(rss < memory + 300, "{memory} -> {rss} KiB after {asked} requests");
        grown.push(rss.saturating_sub(memory));
        assert!(open <= descriptors + 2, "{descriptors} -> {open} descriptors");
    }
    trial("leaks", format!("{asked} requests, KiB grown: parent {}, net {}", grown[0], grown[1]));
}

/// CVE-2024-6387 and CVE-2006-5051 (sshd's handler of SIGALRM called what no handler may).
#[test]
fn no_signal_runs_code_but_one_that_counts() {
    let d = Daemon::with("daytime stream tcp nowait @USER@ internal").start();
    let parents = vec![Signal::SIGALRM, Signal::SIGPIPE, Signal::SIGXFSZ];
    for (pid, ours) in [(d.parent_pid(), parents), (d.net_pid(), Vec::new())] {
        let caught = u64::from_str_radix(&proc::status(pid, "SigCgt"), 16).expect("a mask");
        let allowed = OF_RUST.iter().chain(&ours).map(|s| 1 << (*s as i32 - 1)).sum::<u64>();
        assert_eq!(caught & !OF_GLIBC & !allowed, 0, "{caught:x}");
    }
}
