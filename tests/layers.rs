//! DESIGN 2: who may import whom. Rust forbids no sibling import, so this holds the sources to the
//! table in `src/lib.rs`.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

struct Side {
    name: String,
    /// Sides that it may use, besides itself.
    sides: Vec<String>,
    crates: Vec<String>,
}

/// The table of `src/lib.rs`, a row each.
fn sides() -> &'static [Side] {
    static SIDES: OnceLock<Vec<Side>> = OnceLock::new();
    SIDES.get_or_init(|| {
        let map = fs::read_to_string(root().join("lib.rs")).expect("the map");
        let table = map.split("# Who may import whom").nth(1).expect("the table");
        let mut rows = table.lines().filter_map(|l| l.strip_prefix("//! | ")?.strip_suffix(" |"));
        let cells = |row: &str| {
            let cells = row.split('|').map(|c| c.trim_matches(['[', '`', ']', ' ']).to_string());
            cells.collect::<Vec<_>>()
        };
        let columns = cells(rows.next().expect("its head"));
        let side = |row: &str| {
            let cells = cells(row);
            assert_eq!(cells.len(), columns.len(), "{row}");
            let may = columns.iter().zip(&cells).filter(|(_, cell)| *cell == "✓");
            let crates = cells[columns.len() - 1].split(", ").filter(|name| !name.is_empty());
            // What a crate is for there may follow it in brackets.
            let name = |c: &str| c.split(' ').next().unwrap_or("").replace('-', "_");
            Side {
                name: cells[0].clone(),
                sides: may.map(|(column, _)| column.clone()).collect(),
                crates: crates.map(name).collect(),
            }
        };
        rows.map(side).collect()
    })
}

/// `log::debug!` and its like are everybody's: they are how a side says something without knowing
/// to whom.
const LOG_MACROS: [&str; 5] =
    ["log::trace!", "log::debug!", "log::info!", "log::warn!", "log::error!"];

/// Lines of a file at most, its tests included.
const LINES_MAX: usize = 400;
/// Lines of a function at most, tests included.
const FUNCTION_MAX: usize = 60;
/// Columns of a line at most, but for string literals and the rows of tables in comments.
const COLUMNS_MAX: usize = 100;

/// Files that are still longer. It only shrinks.
const LONG_FILES: &[&str] = &[];
/// Functions that are still longer. It only shrinks.
const LONG_FUNCTIONS: &[&str] = &[];
/// Files with lines that are still longer. It only shrinks.
const WIDE_FILES: &[&str] = &[];

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
    sides().iter().find(|s| s.name == first.trim_end_matches(".rs"))
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

/// Every name that stands after `prefix`; of `{a, b::c}` the first of each.
fn after(code: &str, prefix: &str) -> Vec<String> {
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

/// Each side uses what the map lets it use, all of that, and nothing else. `used`: what code uses of
/// what there is.
fn as_the_map_says(may: fn(&Side) -> &[String], used: impl Fn(&Side, &str) -> Vec<String>) {
    let (mut wrong, mut needed) = (Vec::new(), HashSet::new());
    for path in sources(&root()) {
        let Some(side) = side(&path) else { continue };
        for used in used(side, &code(&path)) {
            if !may(side).contains(&used) {
                wrong.push(format!("{}: {} uses {used}", path.display(), side.name));
            }
            needed.insert((&side.name, used));
        }
    }
    for side in sides() {
        let unused =
            may(side).iter().filter(|used| !needed.contains(&(&side.name, (*used).clone())));
        wrong.extend(unused.map(|used| format!("src/lib.rs: {} uses no {used}", side.name)));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn sides_use_only_the_sides_that_they_may() {
    let used = |side: &Side, code: &str| {
        let mut all = after(code, "crate::");
        all.retain(|used| *used != side.name);
        all
    };
    as_the_map_says(|side| &side.sides, used);
}

#[test]
fn sides_use_only_the_crates_that_they_may() {
    let all = dependencies();
    assert!(all.contains(&"mio".to_string()) && all.contains(&"env_logger".to_string()));
    let used = |side: &Side, code: &str| {
        let code = LOG_MACROS.iter().fold(code.to_string(), |code, m| code.replace(m, "!"));
        let named = |c: &&String| {
            // The name is also that of a side.
            let is_side = *c == "log" && side.sides.contains(c);
            !is_side && [format!("{c}::"), format!("use {c};")].iter().any(|u| mentions(&code, u))
        };
        all.iter().filter(named).cloned().collect()
    };
    as_the_map_says(|side| &side.crates, used);
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

/// Who may have a process made: a service is started where its permit goes in by value, which
/// `deliver` alone calls; everything else is a role of fived's own.
const STARTS: &[(&str, &[&str])] = &[
    ("services.start(", &["parent/pipeline.rs"]),
    ("spawner.begin_passing(", &["parent/services.rs"]),
    ("spawner.begin(", &["parent/backend/as_user.rs"]),
    (
        "spawner.start(",
        &[
            "login/checkpassword.rs",
            "parent/config/inspector.rs",
            "parent/logins/tries.rs",
            "parent/lookups.rs",
            "parent/nets/net.rs",
            "parent/services/terminals.rs",
        ],
    ),
];

#[test]
fn a_service_is_started_where_its_permit_goes_in() {
    let sides = ["internal", "keys", "login", "net", "parent"];
    let files: Vec<PathBuf> = sides.iter().flat_map(|s| sources(&root().join(s))).collect();
    for (call, callers) in STARTS {
        let calls = files.iter().filter(|path| code(path).contains(call));
        let all = calls.map(|p| p.strip_prefix(root()).expect("below src").display().to_string());
        assert_eq!(all.collect::<Vec<_>>(), *callers, "{call}");
    }
}

/// Functions of sys that ask for or set an option of a socket, with the names of the modules that
/// they may be called by.
fn of_options() -> Vec<(Vec<String>, String)> {
    let mut all = Vec::new();
    for path in sources(&root().join("sys")) {
        let modules = path.strip_prefix(root()).expect("below src").with_extension("");
        let modules = modules.iter().map(|m| m.to_string_lossy().into_owned()).collect::<Vec<_>>();
        let text = code(&path);
        let word = |t: &str| {
            t.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().map(str::to_string)
        };
        let functions: Vec<_> =
            text.split("fn ").skip(1).filter_map(|t| Some((word(t)?, t))).collect();
        let mut found: Vec<String> = Vec::new();
        loop {
            let calls = |t: &str| {
                let callees = found.iter().map(|name| format!("{name}("));
                let known = ["sockopt", "options::set(", "options::get("].map(str::to_string);
                callees.chain(known).any(|c| t.contains(&c))
            };
            let more = functions.iter().find(|(name, t)| !found.contains(name) && calls(t));
            let Some((name, _)) = more else { break };
            found.push(name.clone());
        }
        all.extend(found.into_iter().map(|name| (modules.clone(), name)));
    }
    all
}

/// Net's system call filter refuses every option that is not on its list, and what is refused is
/// often taken for a client that has gone: so each that net uses is tried in a confined process.
#[test]
fn every_option_that_net_uses_is_tried_in_a_confined_process() {
    let net: Vec<String> =
        ["net", "link"].iter().flat_map(|s| sources(&root().join(s))).map(|p| code(&p)).collect();
    let trial = fs::read_to_string(root().join("sys/confine/tests.rs")).expect("source");
    let mut found = 0;
    for (modules, name) in of_options() {
        for call in modules.iter().map(|m| format!("{m}::{name}(")) {
            if net.iter().any(|code| code.contains(&call)) {
                assert!(trial.contains(&call), "{call}: to be tried in sys/confine/tests.rs");
                found += 1;
            }
        }
    }
    assert!(found >= 6, "this test can see {found}");
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

/// Every source below `src`, unit tests too: its path from there, and its text.
fn all_sources() -> Vec<(String, String)> {
    let (mut all, mut directories) = (Vec::new(), vec![root()]);
    while let Some(directory) = directories.pop() {
        for path in fs::read_dir(&directory).expect("src").flatten().map(|e| e.path()) {
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let below = path.strip_prefix(root()).expect("below src");
                let text = fs::read_to_string(&path).expect("source");
                all.push((below.display().to_string(), text));
            }
        }
    }
    all
}

/// Nothing is found but what the list names, and what was mended leaves the list.
fn same(what: &str, found: impl Iterator<Item = String>, list: &[&str]) {
    let found: BTreeSet<String> = found.collect();
    let list: BTreeSet<String> = list.iter().map(ToString::to_string).collect();
    let new: Vec<&String> = found.difference(&list).collect();
    let mended: Vec<&String> = list.difference(&found).collect();
    assert!(new.is_empty(), "{what}: {new:#?}");
    assert!(mended.is_empty(), "take these off the list of {what}: {mended:#?}");
}

#[test]
fn files_have_one_thought() {
    let sources = all_sources().into_iter();
    let long = sources.filter(|(_, text)| text.lines().count() > LINES_MAX).map(|(path, _)| path);
    same("files that are too long", long, LONG_FILES);
}

/// The functions of a text as rustfmt leaves it, and their lines.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let begins = |line: &str| {
        let words = line.trim_start().split(['(', '<', ' ']).collect::<Vec<_>>();
        let at = words.iter().position(|w| *w == "fn")?;
        let before = |w: &&str| {
            matches!(*w, "const" | "unsafe" | "extern" | "\"C\"" | "async" | "in")
                || w.starts_with("pub")
                || w.ends_with(')')
        };
        words[..at].iter().all(before).then(|| words[at + 1].to_string())
    };
    let length = |n: usize, line: &str| {
        let indent = &line[..line.len() - line.trim_start().len()];
        let deeper = format!("{indent} ");
        // Its last line is the first that is not deeper, but for those of its head.
        let last = |l: &&str| {
            !l.is_empty() && !l.starts_with(&deeper) && (l.ends_with('}') || l.ends_with(';'))
        };
        lines[n..].iter().position(last).map_or(1, |to| to + 1)
    };
    let all = lines.iter().enumerate();
    all.filter_map(|(n, l)| begins(l).map(|name| (name, length(n, l)))).collect()
}

#[test]
fn functions_have_one_thought() {
    let long = |(path, text): (String, String)| {
        let all = functions(&text).into_iter().filter(|(_, n)| *n > FUNCTION_MAX);
        all.map(move |(name, _)| format!("{path}: {name}")).collect::<Vec<_>>()
    };
    same("functions that are too long", all_sources().into_iter().flat_map(long), LONG_FUNCTIONS);
}

#[test]
fn lines_can_be_read_side_by_side() {
    let wide = |line: &str| {
        let table = ["//! |", "/// |"].iter().any(|row| line.trim_start().starts_with(row));
        line.chars().count() > COLUMNS_MAX && !table && !line.contains('"') && !in_text(line)
    };
    let sources = all_sources().into_iter();
    let all = sources.filter(|(_, text)| text.lines().any(wide)).map(|(path, _)| path);
    same("files with lines that are too long", all, WIDE_FILES);
}

/// Is it a line in the middle of a string literal?
fn in_text(line: &str) -> bool {
    line.ends_with('\\') || line.contains("\\n")
}

#[test]
fn every_file_begins_with_its_contract() {
    for path in sources(&root()) {
        let text = fs::read_to_string(&path).expect("source");
        assert!(text.starts_with("//!"), "{}", path.display());
    }
}

/// Sides that still have files which use each other in a circle. It only shrinks.
const CIRCLES: &[&str] = &[];

/// The files of a directory, by their module paths below it: `a/b.rs` and `a/b/mod.rs` are `a::b`,
/// and the directory's own `mod.rs` is the empty path.
fn modules(directory: &Path) -> HashMap<Vec<String>, PathBuf> {
    let module = |path: PathBuf| {
        let below = path.strip_prefix(directory).expect("below").with_extension("");
        let mut names: Vec<String> =
            below.iter().map(|n| n.to_str().expect("UTF-8").to_string()).collect();
        names.pop_if(|last| last == "mod");
        (names, path)
    };
    sources(directory).into_iter().map(module).collect()
}

/// The paths that a tree of `use` stands for: of `a::{b, c::d}` these are `a::b` and `a::c::d`.
/// Of an expression's path, the path.
fn paths(tree: &str, before: &[String]) -> Vec<Vec<String>> {
    let name: String = tree.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    let mut path = before.to_vec();
    let rest = &tree[name.len()..];
    if !name.is_empty() {
        path.push(name);
    }
    match rest.strip_prefix("::") {
        Some(rest) => paths(rest, &path),
        None => match rest.strip_prefix('{') {
            Some(list) if path.len() == before.len() => {
                let mut depth = 0;
                let end = list.find(|c| {
                    depth += i32::from(c == '{') - i32::from(c == '}');
                    depth < 0
                });
                let (mut items, mut depth) = (vec![String::new()], 0);
                for c in list[..end.unwrap_or(list.len())].chars() {
                    depth += i32::from(c == '{') - i32::from(c == '}');
                    match c {
                        ',' if depth == 0 => items.push(String::new()),
                        c if c.is_whitespace() => {}
                        c => items.last_mut().expect("one at least").push(c),
                    }
                }
                items.iter().filter(|i| !i.is_empty()).flat_map(|i| paths(i, &path)).collect()
            }
            _ => vec![path],
        },
    }
}

/// Every path in this code that begins with `first::`.
fn paths_from(code: &str, first: &str) -> Vec<Vec<String>> {
    let start = format!("{first}::");
    let starts = code.match_indices(&start).filter(|(at, _)| {
        let before = code[..*at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':' || c == '$')
    });
    starts.flat_map(|(at, _)| paths(&code[at..], &[])).collect()
}

/// The code of a module, its re-exports (`pub use`) apart from the rest.
fn apart(code: &str) -> (String, String) {
    let (mut exports, mut rest, mut inside) = (String::new(), String::new(), false);
    for line in code.lines() {
        inside |= line.trim_start().starts_with("pub") && line.contains(" use ");
        let to = if inside { &mut exports } else { &mut rest };
        *to += line;
        to.push('\n');
        inside &= !line.contains(';');
    }
    (exports, rest)
}

/// What a side's files use of each other.
struct Uses {
    side: &'static str,
    modules: HashMap<Vec<String>, PathBuf>,
}

impl Uses {
    /// The paths within the side that some code of this module names.
    fn named(&self, module: &[String], code: &str) -> Vec<Vec<String>> {
        let children = self.modules.keys().filter_map(|m| m.strip_prefix(module)?.first());
        let own: HashSet<&str> = children.map(String::as_str).collect();
        let starts = own.into_iter().chain(["super", "self", "crate"]);
        let absolute = |path: Vec<String>| {
            let mut at = module.to_vec();
            let mut rest = path.as_slice();
            while let Some((first, after)) = rest.split_first() {
                match first.as_str() {
                    "self" => {}
                    "super" => drop(at.pop()?),
                    "crate" if after.first().is_some_and(|s| s == self.side) => {
                        at.clear();
                        rest = &after[1..];
                        continue;
                    }
                    "crate" => return None,
                    _ => break,
                }
                rest = after;
            }
            at.extend(rest.iter().cloned());
            Some(at)
        };
        starts.flat_map(|s| paths_from(code, s)).filter_map(absolute).collect()
    }

    /// The module in which this path ends: where a module re-exports it, the one that has it.
    fn end(&self, path: &[String], depth: usize) -> Vec<String> {
        let longest = (0..=path.len()).rev().find(|n| self.modules.contains_key(&path[..*n]));
        let (module, rest) = path.split_at(longest.unwrap_or(0));
        let Some(file) = self.modules.get(module).filter(|_| depth < 8) else {
            return module.to_vec();
        };
        let exports = self.named(module, &apart(&code(file)).0);
        let other = rest
            .first()
            .and_then(|item| exports.iter().find(|e| e.last() == Some(item) && e[..] != path[..]));
        other.map_or_else(|| module.to_vec(), |e| self.end(e, depth + 1))
    }

    /// By module: the others that it uses.
    fn all(&self) -> HashMap<Vec<String>, HashSet<Vec<String>>> {
        let of = |(module, file): (&Vec<String>, &PathBuf)| {
            let code = apart(&code(file)).1;
            let used = self.named(module, &code).into_iter().map(|p| self.end(&p, 0));
            (module.clone(), used.filter(|m| m != module).collect())
        };
        self.modules.iter().map(of).collect()
    }

    /// The files from which their own uses lead back to themselves.
    fn circles(&self) -> Vec<String> {
        let uses = self.all();
        let back = |module: &&Vec<String>| {
            let (mut seen, mut next) = (HashSet::new(), vec![*module]);
            while let Some(m) = next.pop() {
                next.extend(uses.get(m).into_iter().flatten().filter(|u| seen.insert(*u)));
            }
            seen.contains(*module)
        };
        let mut all: Vec<String> = uses.keys().filter(back).map(|m| m.join("::")).collect();
        all.sort();
        all
    }
}

#[test]
fn no_files_of_a_side_use_each_other_in_a_circle() {
    let circles = |name: &'static str| {
        let directory = root().join(name);
        Uses { side: name, modules: modules(&directory) }.circles()
    };
    // Both ways: a side that has lost its circles leaves the list.
    expected(CIRCLES, "files that use each other in a circle", circles);
}

/// `check` finds something wrong in these sides and in no others.
fn expected(list: &[&str], what: &str, check: impl Fn(&'static str) -> Vec<String>) {
    let directories =
        sides().iter().map(|s| s.name.as_str()).filter(|name| root().join(name).is_dir());
    for name in directories {
        let found = check(name);
        assert_eq!(!found.is_empty(), list.contains(&name), "{name}: {what}: {found:#?}");
    }
}

/// Sides whose front page does not name every file yet. It only shrinks.
const UNMAPPED: &[&str] = &[];

#[test]
fn every_file_is_named_in_its_sides_map() {
    expected(UNMAPPED, "not named on its front page", |name| {
        unnamed(&root().join(name), &root().join(name).join("mod.rs"))
    });
}

/// The same of the directories within a side whose front page has a table of files.
#[test]
fn every_file_is_named_in_the_map_of_its_directory() {
    let mut maps = 0;
    for path in sources(&root()) {
        let directory = match path.ends_with("mod.rs") {
            true => path.parent().expect("a directory").to_path_buf(),
            false => path.with_extension(""),
        };
        let has_map = fs::read_to_string(&path).expect("text").contains("//! | file |");
        if directory.is_dir() && has_map {
            assert_eq!(unnamed(&directory, &path), Vec::<String>::new(), "{}", path.display());
            maps += 1;
        }
    }
    assert!(maps > 15, "this test can see {maps}");
}

/// The files of a directory that its front page does not name.
fn unnamed(directory: &Path, front: &Path) -> Vec<String> {
    let front = fs::read_to_string(front).expect("a front page");
    let map: String = front.lines().filter(|l| l.starts_with("//!")).collect();
    let all = modules(directory);
    let files: BTreeSet<&String> = all.keys().filter_map(|m| m.first()).collect();
    let named = |f: &str| ["`", ".rs`"].iter().any(|end| map.contains(&format!("`{f}{end}")));
    files.into_iter().filter(|f| !named(f) && !f.ends_with("tests")).cloned().collect()
}

/// What a test reads must be there: a line of the log that may still come is waited for
/// (`wait_log`), and a port that is named before anybody listens there is one of `free_port`, for
/// the system may have given any other to a client meanwhile.
#[test]
fn no_test_reads_what_may_still_come() {
    let wrong = |text: &str| -> Vec<String> {
        let words: String = text.split_whitespace().collect();
        let early = ["assert!(d.log().contains(", "letfree=TcpListener::bind(\"127.0.0.1:0\")"];
        let found = early.into_iter().filter(|e| words.contains(&e.replace(' ', "")));
        found.map(String::from).collect()
    };
    assert_eq!(wrong("assert!(\n    d.log().contains(\"x\")\n);").len(), 1, "it can see");
    for entry in fs::read_dir(root().with_file_name("tests")).expect("tests").flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("layers.rs") {
            let text = fs::read_to_string(&path).expect("text");
            assert_eq!(wrong(&text), Vec::<String>::new(), "{}", path.display());
        }
    }
}

#[test]
fn this_test_can_see() {
    assert_eq!(
        after("use crate::sys::{a, b};\nuse crate::{log, wire::{x, y}, policy};", "crate::"),
        ["sys", "log", "wire", "policy"]
    );
    assert!(
        mentions("fn f() { libc::poll() }", "libc::")
            && !mentions("mylibc::x crate::log::warn", "log::")
    );
    let text = "impl A {\n    pub fn b(\n        c: u8,\n    ) -> u8 {\n        c\n    }\n\n    fn d();\n}\nfn e() {}\n";
    let all = functions(text);
    assert_eq!(all, [("b".into(), 5), ("d".into(), 1), ("e".into(), 1)]);
    let tree = "use super::{a::{B, c}, d};";
    let all: Vec<String> = paths_from(tree, "super").iter().map(|p| p.join("::")).collect();
    assert_eq!(all, ["super::a::B", "super::a::c", "super::d"]);
}
