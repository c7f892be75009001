//! What /proc says of a process.

use std::fs;

/// Every process whose parent is this one, but for [`spares`] and those beside it that share its
/// memory and make calls for it.
pub fn children(parent: i32) -> Vec<i32> {
    let beside = ["fived-calls\n", "fived-closes\n", "fived-foreign\n", "fived-log\n"];
    let ours = |name: &str| name == "fived-spare\n" || beside.contains(&name);
    let is_ours = |pid: &i32| comm(*pid).is_some_and(|name| ours(&name));
    all_children(parent).filter(|pid| !is_ours(pid)).collect()
}

/// The processes that fived's parent has made in advance, each for a service that is not there yet.
pub fn spares(parent: i32) -> Vec<i32> {
    named(parent, "fived-spare")
}

/// Those beside fived's parent that close what others have handed over.
pub fn closers(parent: i32) -> Vec<i32> {
    named(parent, "fived-foreign")
}

/// How many of this process's children have ended and are still to be reaped.
pub fn defunct(parent: i32) -> usize {
    all_children(parent).filter(|&pid| stat(pid).is_some_and(|s| s[0] == "Z")).count()
}

fn named(parent: i32, name: &str) -> Vec<i32> {
    all_children(parent).filter(|&pid| comm(pid).is_some_and(|n| n.trim_end() == name)).collect()
}

fn comm(pid: i32) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/comm")).ok()
}

fn all_children(parent: i32) -> impl Iterator<Item = i32> {
    let pids = fs::read_dir("/proc").expect("/proc").flatten();
    let pids = pids.filter_map(|e| e.file_name().to_str()?.parse().ok());
    pids.filter(move |&pid| stat(pid).is_some_and(|s| s[1] == parent.to_string()))
}

/// Children, their children, and so on.
pub fn descendants(parent: i32) -> Vec<i32> {
    let own = children(parent);
    let theirs: Vec<i32> = own.iter().flat_map(|&pid| descendants(pid)).collect();
    [own, theirs].concat()
}

/// The fields of /proc/PID/stat from the state (field 3 of proc(5)) on. None for a process that is
/// gone.
pub fn stat(pid: i32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().map(String::from).collect())
}

/// Is it there and no zombie?
pub fn alive(pid: i32) -> bool {
    stat(pid).is_some_and(|s| s[0] != "Z" && s[0] != "X")
}

/// The words with which it was started.
pub fn arguments(pid: i32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = bytes.split(|&b| b == 0).map(|w| String::from_utf8_lossy(w).into_owned());
    let mut words: Vec<String> = words.collect();
    words.pop();
    words
}

/// A field of /proc/PID/status, blanks made one.
#[track_caller]
pub fn status(pid: i32, field: &str) -> String {
    try_status(pid, field).unwrap_or_else(|| panic!("{field} of {pid}"))
}

/// Was this signal sent to the process, which has not taken it yet?
#[track_caller]
pub fn is_pending(pid: i32, signal: nix::sys::signal::Signal) -> bool {
    let mask = u64::from_str_radix(&status(pid, "ShdPnd"), 16).expect("a mask");
    mask & 1 << (signal as i32 - 1) != 0
}

/// The same. None for a process that is gone.
pub fn try_status(pid: i32, field: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':'))?;
    Some(line.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Is it traced? No: it may be gone.
pub fn traced(pid: i32) -> bool {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    text.lines().any(|l| l.strip_prefix("TracerPid:").is_some_and(|n| n.trim() != "0"))
}

/// How often its threads have begun to run.
pub fn switches(pid: i32) -> u64 {
    let of = |text: &str| -> u64 {
        let lines = text.lines().filter(|l| l.contains("ctxt_switches"));
        lines.filter_map(|l| l.split_whitespace().nth(1)?.parse::<u64>().ok()).sum()
    };
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("threads").flatten();
    threads.filter_map(|t| fs::read_to_string(t.path().join("status")).ok()).map(|s| of(&s)).sum()
}

/// Kibibytes of its own that it has in memory: no pages of its program, of which there are more
/// when it has done more kinds of things. Under the address sanitizer none, for it keeps what was
/// freed: what is asserted of them holds in any other build.
pub fn rss(pid: i32) -> u64 {
    if cfg!(asan) {
        return 0;
    }
    status(pid, "RssAnon").split(' ').next().and_then(|n| n.parse().ok()).expect("RssAnon")
}

/// All that it can write to and has written to, piece by piece.
pub fn memory(pid: i32) -> Vec<Vec<u8>> {
    use std::os::unix::fs::FileExt;
    // What the address sanitizer notes of each byte is larger than any memory, and nearly empty.
    const MOST: u64 = 1 << 30;
    let untouched = [0; 4096];
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("maps");
    let memory = fs::File::open(format!("/proc/{pid}/mem")).expect("mem");
    let number = |text| u64::from_str_radix(text, 16).expect("number");
    let mut all = Vec::new();
    for line in maps.lines().filter(|l| l.contains(" rw")) {
        let (from, to) = line.split(' ').next().and_then(|r| r.split_once('-')).expect("range");
        let (from, size) = (number(from), number(to) - number(from));
        if size > MOST {
            continue;
        }
        let mut region = vec![0; size as usize];
        if memory.read_exact_at(&mut region, from).is_ok() {
            let pages: Vec<&[u8]> = region.chunks(untouched.len()).collect();
            let pieces = pages.split(|page| *page == untouched).filter(|p| !p.is_empty());
            all.extend(pieces.map(|p| p.concat()));
        }
    }
    assert!(!all.is_empty());
    all
}

/// Soft and hard limit.
#[track_caller]
pub fn limit(pid: i32, name: &str) -> (String, String) {
    let text = fs::read_to_string(format!("/proc/{pid}/limits")).expect("/proc/PID/limits");
    let line = text
        .lines()
        .find_map(|l| l.strip_prefix(name))
        .unwrap_or_else(|| panic!("{name} in {text}"));
    let mut words = line.split_whitespace();
    (words.next().unwrap_or("").into(), words.next().unwrap_or("").into())
}

/// Its environment, sorted.
pub fn environment(pid: i32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).expect("/proc/PID/environ");
    let words = bytes.split(|&b| b == 0).filter(|w| !w.is_empty());
    let mut words: Vec<String> = words.map(|w| String::from_utf8_lossy(w).into_owned()).collect();
    words.sort();
    words
}

/// Its open descriptors and what they are.
pub fn descriptors(pid: i32) -> Vec<(i32, String)> {
    try_descriptors(pid).expect("/proc/PID/fd")
}

/// The same. None for a process that is gone.
pub fn try_descriptors(pid: i32) -> Option<Vec<(i32, String)>> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
    let mut all: Vec<(i32, String)> = entries
        .filter_map(|e| {
            let what = fs::read_link(e.path()).ok()?.to_string_lossy().into_owned();
            Some((e.file_name().to_str()?.parse().ok()?, what))
        })
        .collect();
    all.sort();
    Some(all)
}

/// Where a link of its own goes: `cwd`, `root`, `exe`.
pub fn link(pid: i32, name: &str) -> String {
    let to = fs::read_link(format!("/proc/{pid}/{name}"));
    to.unwrap_or_else(|e| panic!("/proc/{pid}/{name}: {e}")).to_string_lossy().into_owned()
}

/// Clock ticks of processor time that it has used.
pub fn ticks(pid: i32) -> u64 {
    let s = stat(pid).expect("it runs");
    s[11..13].iter().map(|n| n.parse::<u64>().expect("a number")).sum()
}

/// How many threads it has, but for those that wait for the processes that close for it.
pub fn threads(pid: i32) -> usize {
    thread_names(pid).iter().filter(|name| *name != "fived-foreign").count()
}

/// Have all its threads stopped (SIGSTOP)?
pub fn is_stopped(pid: i32) -> bool {
    thread_ids(pid).into_iter().all(|id| stat(id).is_none_or(|s| s[0] == "T"))
}

fn thread_ids(pid: i32) -> Vec<i32> {
    let all = fs::read_dir(format!("/proc/{pid}/task")).expect("/proc/PID/task").flatten();
    all.filter_map(|t| t.file_name().to_str().and_then(|n| n.parse().ok())).collect()
}

/// The names of its threads, the first one's first.
pub fn thread_names(pid: i32) -> Vec<String> {
    let mut ids = thread_ids(pid);
    ids.sort_unstable_by_key(|id| (*id != pid, *id));
    let name = |id| fs::read_to_string(format!("/proc/{pid}/task/{id}/comm"));
    ids.into_iter().filter_map(|id| Some(name(id).ok()?.trim().to_string())).collect()
}

/// A process whose first thread is held by ptrace(2) as long as this lives. Its parent is told of a
/// SIGSTOP, but not of this.
pub struct Held(nix::unistd::Pid);

/// None, and a word about it: it cannot be done here.
pub fn hold(pid: i32) -> Option<Held> {
    use nix::sys::{ptrace, wait};
    let pid = nix::unistd::Pid::from_raw(pid);
    if let Err(e) = ptrace::seize(pid, ptrace::Options::empty()) {
        super::skip(&format!("needs to trace a process of fived's: {e}"));
        return None;
    }
    ptrace::interrupt(pid).expect("interrupt");
    wait::waitpid(pid, Some(wait::WaitPidFlag::__WALL)).expect("held");
    Some(Held(pid))
}

impl Drop for Held {
    fn drop(&mut self) {
        // It may have been killed.
        let _ = nix::sys::ptrace::detach(self.0, None);
    }
}
