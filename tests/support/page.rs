//! Pages that people read: man/ and README.md, and the blocks in them that tests try (`.\" test:
//! KIND REST` before a literal block, `<!-- test: KIND REST -->` before a fenced one).

#![allow(dead_code)] // Each test file uses its own part of this.

use std::fs;
use std::path::PathBuf;

/// The top of the checkout.
pub fn top() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

/// A file of it.
pub fn text(path: &str) -> String {
    fs::read_to_string(top().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// A page's source with every run of blanks made one: what is looked for may stand in two lines.
pub fn page(name: &str) -> String {
    let source = text(&format!("man/{name}")).replace("\\e", "\\").replace("\\&", "");
    source.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A block that is marked, as a reader sees it.
pub struct Block {
    pub kind: String,
    pub rest: String,
    pub body: String,
}

/// The marked blocks of a page of man/, or of README.md.
pub fn blocks(file: &str) -> Vec<Block> {
    let source = text(file);
    let (mark, open, close) = match file.ends_with(".md") {
        true => ("<!-- test: ", "```", "```"),
        false => (".\\\" test: ", ".Bd", ".Ed"),
    };
    let mut lines = source.lines();
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        let Some(words) = line.strip_prefix(mark) else {
            continue;
        };
        let words = words.trim_end_matches("-->").trim_end();
        let (kind, rest) = words.split_once(' ').unwrap_or((words, ""));
        assert!(lines.next().is_some_and(|l| l.starts_with(open)), "{file}: a block after {line}");
        let body: Vec<&str> = lines.by_ref().take_while(|l| !l.starts_with(close)).collect();
        let body = body.join("\n") + "\n";
        let body = match file.ends_with(".md") {
            true => body,
            false => body.replace("\\e", "\\").replace("\\&", "").replace("\\-", "-"),
        };
        found.push(Block { kind: kind.into(), rest: rest.into(), body });
    }
    found
}

/// The pieces (`a|b|c`) stand in the output of a command, one after the other.
#[track_caller]
pub fn in_order(out: &str, pieces: &str, command: &str) {
    if let Some(piece) = lacks(out, pieces) {
        panic!("no {piece:?} where it should be, for\n{command}\nwhich says\n{out}");
    }
}

/// The first of them that does not.
pub fn lacks<'p>(out: &str, pieces: &'p str) -> Option<&'p str> {
    let mut rest = out;
    pieces.split('|').find(|piece| match rest.find(piece) {
        Some(i) => {
            rest = &rest[i + piece.len()..];
            false
        }
        None => true,
    })
}
