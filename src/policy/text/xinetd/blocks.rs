//! Blocks: `service NAME` or `defaults`, `{`, lines `NAME = VALUE`, `}`. The files are read whole,
//! with all that they include, before anything is made of them: `defaults` hold for every service,
//! wherever they stand.

use super::super::assigned::Pair;
use super::super::builder::Builder;
use super::super::directory::included;
use super::super::entry::Operator;
use super::super::fived::{DEPTH, FILES, beside};
use super::super::mistake::Weight;
use std::sync::Arc;

/// What a block is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Defaults,
    /// Of this name.
    Service(String),
}

impl Kind {
    /// What follows where such a block cannot be read. Without `defaults` the rules in it would
    /// hold for no service: there is no table then.
    fn unread(&self) -> Weight {
        match self {
            Kind::Defaults => Weight::Refused,
            Kind::Service(_) => Weight::LeftOut,
        }
    }
}

/// A block, read to its end.
#[derive(Debug)]
pub struct Block {
    pub kind: Kind,
    pub file: Arc<str>,
    pub line: usize,
    pub pairs: Vec<Pair>,
    /// Lines of attributes with a comment at their end.
    pub comments: Vec<usize>,
    /// A line of it could not be read at all.
    pub broken: bool,
}

/// What is wrong where other words stand on the line that names a block.
const NEXT_LINE: &str = "expected { alone on the next line";

/// Where in a file the reader is.
enum State {
    Between,
    /// After the line that names a block, before its `{`.
    Head(Block),
    Within(Block),
    /// In one that is left out, up to its end.
    LeftOut,
}

/// Reads a file, and those that it includes.
pub fn read(builder: &mut Builder, path: &str) -> Vec<Block> {
    let mut reader = BlockReader { builder, all: Vec::new(), read: 0 };
    reader.file(path, 0, None);
    reader.all
}

struct BlockReader<'a, 'b> {
    builder: &'a mut Builder<'b>,
    all: Vec<Block>,
    /// Files that were read.
    read: usize,
}

/// Where a line stands.
#[derive(Clone, Copy)]
struct At<'a> {
    file: &'a Arc<str>,
    line: usize,
}

impl BlockReader<'_, '_> {
    /// Reads one file; `from`: the line that includes it, and its directive.
    fn file(&mut self, path: &str, depth: usize, from: Option<(At, &str)>) {
        self.read += 1;
        let text = if depth > DEPTH || self.read > FILES {
            Err(format!("expected at most {FILES} files, {DEPTH} deep, found one more"))
        } else {
            self.builder.files.read(path)
        };
        let bytes = match text {
            Ok(bytes) => bytes,
            Err(e) => {
                return match from {
                    // Where the first file cannot be read there is no table at all.
                    None => self.builder.unreadable("xinetd", path, &e, Weight::Refused),
                    Some((At { file, line }, directive)) => {
                        let (weight, what) = (Weight::LeftOut, format!("{path}: {e}"));
                        self.builder.mistakes.push_as(weight, file, line, directive, what);
                    }
                };
            }
        };
        let (name, mut state, mut last) = (Arc::from(path), State::Between, 0);
        for (i, raw) in bytes.split(|&b| b == b'\n').enumerate() {
            let (at, text) = (At { file: &name, line: i + 1 }, String::from_utf8_lossy(raw));
            let text = text.trim();
            if !text.is_empty() && !text.starts_with('#') {
                state = self.line(state, text, at, depth);
            }
            last = i + 1;
        }
        let (State::Head(open) | State::Within(open)) = state else { return };
        let what = format!("expected }} at the end of the block of line {}, found none", open.line);
        self.builder.mistakes.push_as(open.kind.unread(), &name, last, "", what);
    }

    fn line(&mut self, state: State, text: &str, at: At, depth: usize) -> State {
        let words: Vec<&str> =
            text.split_ascii_whitespace().take_while(|w| !w.starts_with('#')).collect();
        match (state, &words[..]) {
            (State::Between, [word, rest @ ..]) => self.between(word, rest, at, depth),
            (State::Head(block), ["{"]) => State::Within(block),
            (State::Head(block), _) => {
                self.left_out(at, text, "expected { alone on this line", block.kind.unread())
            }
            (State::Within(block), ["}"]) => {
                self.all.push(block);
                State::Between
            }
            (State::Within(mut block), _) => {
                self.attribute(&mut block, text, at);
                State::Within(block)
            }
            (State::LeftOut, ["}"]) => State::Between,
            (state @ State::Between, []) | (state @ State::LeftOut, _) => state,
        }
    }

    /// A line between blocks.
    fn between(&mut self, word: &str, rest: &[&str], at: At, depth: usize) -> State {
        let kind = match (word.to_ascii_lowercase().as_str(), rest) {
            ("defaults", []) => Kind::Defaults,
            ("service", [name]) => Kind::Service((*name).into()),
            ("defaults", [.., word]) => {
                return self.left_out(at, word, NEXT_LINE, Kind::Defaults.unread());
            }
            ("service", [.., word @ "{"]) => {
                return self.left_out(at, word, NEXT_LINE, Weight::LeftOut);
            }
            ("include", [path]) => {
                self.file(&beside(at.file, path), depth + 1, Some((at, "include")));
                return State::Between;
            }
            ("includedir", [path]) => {
                self.directory(&beside(at.file, path), at, depth);
                return State::Between;
            }
            ("service" | "include" | "includedir", _) => {
                let what = format!("expected one word after {word}, found {}", rest.len());
                return self.left_out(at, word, &what, Weight::LeftOut);
            }
            _ => {
                let what = "expected service, defaults, include or includedir";
                return self.left_out(at, word, what, Weight::LeftOut);
            }
        };
        State::Head(Block {
            kind,
            file: at.file.clone(),
            line: at.line,
            pairs: Vec::new(),
            comments: Vec::new(),
            broken: false,
        })
    }

    fn directory(&mut self, path: &str, at: At, depth: usize) {
        let skips = |name: &str| name.contains('.') || name.ends_with('~');
        for file in included(self.builder, (at.file, at.line), path, skips) {
            self.file(&file, depth + 1, Some((at, "includedir")));
        }
    }

    fn left_out(&mut self, at: At, word: &str, what: &str, weight: Weight) -> State {
        let what = match weight {
            Weight::Refused => what.into(),
            Weight::LeftOut | Weight::Noted => {
                format!("{what}: everything up to the next }} is left out")
            }
        };
        self.builder.mistakes.push_as(weight, at.file, at.line, word, what);
        State::LeftOut
    }

    /// A line within a block.
    fn attribute(&mut self, block: &mut Block, text: &str, at: At) {
        match pair(text, at.line) {
            Ok((pair, comment)) => {
                block.comments.extend(comment.then_some(at.line));
                block.pairs.push(pair);
            }
            Err(what) => {
                block.broken = true;
                let word = text.split_ascii_whitespace().next().unwrap_or_default();
                let weight = block.kind.unread();
                self.builder.mistakes.push_as(weight, at.file, at.line, word, what);
            }
        }
    }
}

/// `NAME OPERATOR WORDS`, and whether a comment stands after it.
fn pair(text: &str, line: usize) -> Result<(Pair, bool), &'static str> {
    if text.chars().any(|c| c.is_control() && c != '\t' || c == char::REPLACEMENT_CHARACTER) {
        return Err("expected printable characters in UTF-8, found others");
    }
    let end = text.find(|c: char| c.is_ascii_whitespace() || c == '=').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if rest.starts_with('=') {
        return Err("expected a blank before the =, found none");
    }
    let rest = rest.trim_start();
    let operators = [("=", Operator::Set), ("+=", Operator::Add), ("-=", Operator::Remove)];
    let (words, operator) = operators
        .iter()
        .find_map(|(text, operator)| Some((rest.strip_prefix(text)?, *operator)))
        .ok_or("expected =, += or -= after the attribute, found none")?;
    let mut words = words.split_ascii_whitespace();
    let mut comment = false;
    let value = words.by_ref().take_while(|w| {
        comment = w.starts_with('#');
        !comment
    });
    let value = value.map(String::from).collect();
    Ok((Pair { operator, ..Pair::new(line, name, value) }, comment))
}
