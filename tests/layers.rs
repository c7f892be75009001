//! DESIGN 2: who may import whom. Rust forbids no sibling import, so this holds the table as data
//! and reads the sources.

use std::fs;
use std::path::{Path, PathBuf};

struct Side {
    name: &'static str,
    /// Sides that it may use, besides itself.
    sides: &'static [&'static str],
    crates: &'static [&'static str],
}

const SIDES: &[Side] = &[
    Side { name: "wire", sides: &[], crates: &["base64"] },
    Side { name: "policy", sides: &["wire"], crates: &["ipnet"] },
    Side { name: "sys", sides: &[], crates: &["libc", "nix", "seccompiler", "syscalls"] },
    Side { name: "log", sides: &["sys"], crates: &["log", "env_logger"] },
    Side { name: "link", sides: &["wire", "sys"], crates: &["rustls", "ring"] },
    Side { name: "login", sides: &["wire", "sys", "log"], crates: &["ring", "base64", "ipnet"] },
    Side { name: "internal", sides: &["sys"], crates: &[] },
    Side { name: "keys", sides: &["wire", "sys", "log"], crates: &["rustls", "ring"] },
    Side {
        name: "parent",
        sides: &["wire", "policy", "sys", "log", "login"],
        crates: &["mio", "getopts", "rcgen", "rustls", "base64", "zeroize"],
    },
    Side {
        name: "client",
        sides: &["wire", "sys", "link"],
        crates: &["getopts", "rustls", "rustls_native_certs", "ring", "base64"],
    },
    Side {
        name: "net",
        sides: &["wire", "policy", "sys", "log", "link"],
        crates: &["mio", "rustls", "ring", "base64"],
    },
];

/// `log::debug!` and its like are everybody's: they are how a side says something without knowing
/// to whom.
const LOG_MACROS: [&str; 5] =
    ["log::trace!", "log::debug!", "log::info!", "log::warn!", "log::error!"];

/// Lines of a file at most, its tests included.
const LINES_MAX: usize = 570;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory).expect("src").flatten().map(|e| e.path()) {
        match entry.is_dir() {
            true => all.extend(sources(&entry)),
            // A side's unit tests may use whatever makes them a test.
            false if entry.ends_with("tests.rs") => {}
            false if entry.extension().is_some_and(|e| e == "rs") => all.push(entry),
            false => {}
        }
    }
    all.sort();
    all
}

/// The side that a file belongs to; none for the map and the programs.
fn side(path: &Path) -> Option<&'static Side> {
    let first = path.strip_prefix(root()).ok()?.components().next()?.as_os_str().to_str()?;
    SIDES.iter().find(|s| s.name == first.trim_end_matches(".rs"))
}

/// The code without comments, strings and its unit tests.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("source");
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or("");
    let line = |l: &str| {
        l.split("//").next().unwrap_or("").split('"').step_by(2).collect::<Vec<_>>().join("\"\"")
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// Every name that stands behind `prefix`; of `{a, b::c}` the first of each.
fn behind(code: &str, prefix: &str) -> Vec<String> {
    let word =
        |t: &str| t.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut all = Vec::new();
    for (at, _) in code.match_indices(prefix) {
        let before = code[..at].chars().next_back();
        let rest = &code[at + prefix.len()..];
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        match rest.strip_prefix('{') {
            None => all.push(word(rest)),
            Some(list) => all.extend(top_level(list).iter().map(|t| word(t))),
        }
    }
    all.retain(|w| !w.is_empty());
    all
}

/// The items of a list up to its `}`, without what is nested in them.
fn top_level(list: &str) -> Vec<String> {
    let (mut items, mut depth) = (vec![String::new()], 0);
    for c in list.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => items.push(String::new()),
            c if depth == 0
                && !(c.is_whitespace() && items.last().is_some_and(String::is_empty)) =>
            {
                items.last_mut().expect("one at least").push(c);
            }
            _ => {}
        }
    }
    items
}

/// The crates that Cargo.toml names, as code writes them.
fn dependencies() -> Vec<String> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .expect("Cargo.toml");
    let after = text.split("[dependencies]").nth(1).expect("dependencies");
    let lines = after.split("\n[").next().unwrap_or("").lines();
    lines.filter_map(|l| Some(l.split_once(" = ")?.0.replace('-', "_"))).collect()
}

#[test]
fn every_directory_is_a_side() {
    let known =
        |p: &Path| side(p).is_some() || p.ends_with("lib.rs") || p.starts_with(root().join("bin"));
    let strange: Vec<PathBuf> = sources(&root()).into_iter().filter(|p| !known(p)).collect();
    assert!(strange.is_empty(), "{strange:?}");
}

#[test]
fn sides_use_only_the_sides_that_they_may() {
    let mut wrong = Vec::new();
    for path in sources(&root()) {
        let Some(side) = side(&path) else { continue };
        for used in behind(&code(&path), "crate::") {
            if used != side.name && !side.sides.contains(&used.as_str()) {
                wrong.push(format!("{}: {} uses {used}", path.display(), side.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn sides_use_only_the_crates_that_they_may() {
    let (all, mut wrong) = (dependencies(), Vec::new());
    assert!(all.contains(&"mio".to_string()) && all.contains(&"env_logger".to_string()));
    for path in sources(&root()) {
        let Some(side) = side(&path) else { continue };
        let mut code = code(&path);
        LOG_MACROS.iter().for_each(|m| code = code.replace(m, "!"));
        for used in all.iter().filter(|c| !side.crates.contains(&c.as_str())) {
            let own = used == "log" && side.sides.contains(&"log");
            if !own
                && (mentions(&code, &format!("{used}::"))
                    || mentions(&code, &format!("use {used};")))
            {
                wrong.push(format!("{}: {} uses {used}", path.display(), side.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Does this path begin there (and is not the rest of a longer one)?
fn mentions(code: &str, path: &str) -> bool {
    code.match_indices(path).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
    })
}

/// std's copy calls splice(2), which keeps a pipe locked while it waits: five's input and output
/// are other programs' pipes.
#[test]
fn nobody_splices_a_pipe_of_other_programs() {
    for path in sources(&root()).into_iter().filter(|p| side(p).is_some_and(|s| s.name == "client"))
    {
        assert!(!code(&path).contains("io::copy"), "{}: sys::flow::copy", path.display());
    }
}

/// What makes descriptors. In the parent one file alone calls it, which knows of each whether it
/// may be one of the last: what anybody asks for may not.
const MAKERS: [&str; 9] = [
    "socket::pair",
    "socket::seqpacket",
    "memfd::sealed",
    "process::null",
    "Shared::copy",
    "try_clone",
    "UnixStream::",
    "UnixDatagram::",
    "TcpStream::",
];

#[test]
fn one_file_of_the_parent_makes_descriptors() {
    let mut found = 0;
    for path in sources(&root().join("parent")) {
        let code = code(&path);
        for maker in MAKERS.iter().filter(|m| code.contains(*m)) {
            assert!(path.ends_with("descriptors.rs"), "{}: {maker}", path.display());
            found += 1;
        }
    }
    assert!(found >= 4, "this test can see");
}

#[test]
fn unsafe_is_in_sys_alone() {
    for path in sources(&root()) {
        let inside = side(&path).is_some_and(|s| s.name == "sys");
        let code = fs::read_to_string(&path).expect("source");
        let found = code.lines().any(|l| {
            l.split("//").next().is_some_and(|l| {
                l.split(|c: char| !c.is_alphanumeric() && c != '_').any(|w| w == "unsafe")
            })
        });
        assert!(inside || !found, "{}", path.display());
    }
}

#[test]
fn every_unsafe_block_says_why_it_is_sound() {
    for path in sources(&root().join("sys")) {
        let text = fs::read_to_string(&path).expect("source");
        let lines: Vec<&str> = text.lines().collect();
        for (n, line) in lines
            .iter()
            .enumerate()
            .filter(|(_, l)| l.contains("unsafe {") && !l.trim_start().starts_with("//"))
        {
            let near = &lines[n.saturating_sub(12)..=n];
            assert!(
                near.iter().any(|l| l.contains("SAFETY")),
                "{}:{}: {line}",
                path.display(),
                n + 1
            );
        }
    }
}

#[test]
fn files_have_one_thought() {
    let long: Vec<String> = sources(&root())
        .iter()
        .map(|p| (p, fs::read_to_string(p).expect("source").lines().count()))
        .filter(|(_, n)| *n > LINES_MAX)
        .map(|(p, n)| format!("{}: {n} lines", p.display()))
        .collect();
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn every_file_begins_with_its_contract() {
    for path in sources(&root()) {
        let text = fs::read_to_string(&path).expect("source");
        assert!(text.starts_with("//!"), "{}", path.display());
    }
}

#[test]
fn this_test_can_see() {
    assert_eq!(
        behind("use crate::sys::{a, b};\nuse crate::{log, wire::{x, y}, policy};", "crate::"),
        ["sys", "log", "wire", "policy"]
    );
    assert!(
        mentions("fn f() { libc::poll() }", "libc::")
            && !mentions("mylibc::x crate::log::warn", "log::")
    );
}
