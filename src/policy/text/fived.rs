//! The grammar of fived.conf(5): lines of a row's columns, `NAME = VALUE`, `[SECTION]`, `include`.
//! It knows words and columns; the builder makes a table of them. Every mistake is reported, not
//! only the first.

use super::super::attributes::ATTRIBUTES;
use super::super::settings::SETTINGS;
use super::assigned::Pair;
use super::builder::{Builder, Row, names};
use super::columns::Columns;
use super::directory::included;
use super::entry::{Operator, find};
use super::lexer::{Word, split};
use super::mistake::Weight;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

/// How deep files may include files, and how many there may be in all.
pub const DEPTH: usize = 16;
pub const FILES: usize = 10_000;

/// Lines that are neither a setting nor a row.
pub const DIRECTIVES: [&str; 2] = ["include", "includedir"];

/// What follows each of them.
const OPERANDS: [(&str, &str); 2] = [(DIRECTIVES[0], "FILE"), (DIRECTIVES[1], "DIRECTORY")];

/// Reads a file, and those that it includes.
pub fn read(builder: &mut Builder, path: &str) {
    FivedReader { builder, row: None, read: 0, set: HashMap::new() }.file(path, 0, None);
}

/// A row that has begun, and that indented lines continue.
struct Lines {
    /// Empty: a line that could not be split.
    words: Vec<Word>,
    line: usize,
    file: Arc<str>,
    /// How many mistakes there were before it.
    before: usize,
    own: Vec<Pair>,
}

struct FivedReader<'a, 'b> {
    builder: &'a mut Builder<'b>,
    row: Option<Lines>,
    /// How many files were read.
    read: usize,
    /// The settings that were given a value in this file since its last heading, and the lines.
    set: HashMap<String, usize>,
}

/// A line of a file.
#[derive(Clone, Copy)]
struct Line<'a> {
    text: &'a str,
    file: &'a Arc<str>,
    number: usize,
}

impl FivedReader<'_, '_> {
    /// Reads one file; `from`: the line that includes it, and its directive.
    fn file(&mut self, path: &str, depth: usize, from: Option<(Line, &str)>) {
        self.read += 1;
        let read = if depth > DEPTH || self.read > FILES {
            Err(format!("expected at most {FILES} files, {DEPTH} deep, found one more"))
        } else {
            self.builder.files.read(path)
        };
        let bytes = match (read, from) {
            (Ok(bytes), _) => bytes,
            (Err(e), None) => return self.builder.mistakes.push(path, 0, "", e),
            (Err(e), Some((line, directive))) => {
                return self.wrong(line, directive, format!("{path}: {e}"));
            }
        };
        if from.is_some() {
            self.builder.enter_file();
        }
        let outer = std::mem::take(&mut self.set);
        self.lines(path, &bytes, depth);
        self.end_row();
        self.set = outer;
        if from.is_some() {
            self.builder.leave_file();
        }
    }

    fn lines(&mut self, path: &str, bytes: &[u8], depth: usize) {
        let name: Arc<str> = path.into();
        // Some editors begin a file with a byte order mark.
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        if let Some(line) = xinetd_block(bytes) {
            let what = "expected rows as in inetd.conf, found a block of xinetd.conf; `xinetd = FILE` and --xinetd read such a file";
            return self.builder.mistakes.push(path, line, "{", what);
        }
        for (i, raw) in bytes.split(|&b| b == b'\n').enumerate() {
            let text = String::from_utf8_lossy(raw);
            let utf8 = matches!(text, Cow::Borrowed(_));
            let text = text.strip_suffix('\r').unwrap_or(&text);
            self.line(Line { text, file: &name, number: i + 1 }, utf8, depth);
        }
    }

    /// Reads one line. `utf8`: the file's line is UTF-8. If not, U+FFFD replaces what is invalid,
    /// and that is a mistake except in a comment.
    fn line(&mut self, line: Line, utf8: bool, depth: usize) {
        let bad = |w: &&Word| !utf8 && w.text.contains(char::REPLACEMENT_CHARACTER);
        let words = match split(line.text) {
            Ok(w) => match w.iter().find(bad) {
                None => w,
                Some(w) => {
                    return self.unread(line, &w.text, "expected UTF-8, found other bytes");
                }
            },
            Err(e) => {
                return self.unread(line, line.text.split_whitespace().next().unwrap_or(""), e);
            }
        };
        let Some(first) = words.first() else { return };
        if line.text.starts_with([' ', '\t']) {
            return self.indented(words, line);
        }
        self.end_row();
        if first.text.starts_with('[') && line.text.starts_with('[') {
            return self.header(line);
        }
        if let Some(pair) = pair(&words, line.number) {
            return match OPERANDS.iter().find(|(directive, _)| *directive == pair.name) {
                Some((directive, operand)) => {
                    let found = &words[1].text;
                    let what =
                        format!("expected `{directive} {operand}` without `=`, found `{found}`");
                    self.wrong(line, directive, what)
                }
                None => {
                    let before = self.set.get(&pair.name).copied();
                    self.replaces(line, &pair, before);
                    if pair.operator == Operator::Set {
                        self.set.insert(pair.name.clone(), line.number);
                    }
                    self.builder.setting(&pair, line.file)
                }
            };
        }
        if let [directive, path] = &words[..]
            && DIRECTIVES.iter().any(|d| directive.is(d))
        {
            return self.include(&directive.text, &path.text, line, depth);
        }
        if words.len() < 6 && first.text.contains('=') {
            let what = "expected a row, or a setting with blanks around its =, found neither";
            return self.wrong(line, &first.text, what);
        }
        let name = first.text.trim_end_matches(':');
        if words.len() < 6 && !first.quoted && names().any(|n| n == name) {
            let what =
                format!("expected `{name} = VALUE`, or a row of at least six words, found neither");
            return self.wrong(line, name, what);
        }
        let inline = inline(words.get(6..).unwrap_or_default());
        self.begin_row(words, line);
        if let Some(name) = inline {
            self.inline(line, name);
        }
    }

    fn begin_row(&mut self, words: Vec<Word>, line: Line) {
        self.builder.row_begins();
        let (file, before) = (line.file.clone(), self.builder.mistakes.len());
        self.row = Some(Lines { words, line: line.number, file, before, own: Vec::new() });
    }

    /// Reports a line that cannot be split into words. If it is a row, the indented lines after it
    /// belong to it.
    fn unread(&mut self, line: Line, word: &str, what: &str) {
        if !line.text.starts_with([' ', '\t']) {
            self.end_row();
            if !matches!(line.text.split_whitespace().nth(1), Some("=" | "+=" | "-="))
                && !line.text.starts_with('[')
            {
                self.begin_row(Vec::new(), line);
            }
        }
        self.wrong(line, word, what);
    }

    fn indented(&mut self, words: Vec<Word>, line: Line) {
        let Some(row) = &mut self.row else {
            let what =
                "expected a row above this indented line, found none; a setting is not indented";
            return self.wrong(line, &words[0].text, what);
        };
        if let Some(pair) = pair(&words, line.number) {
            let set = |p: &&Pair| p.name == pair.name && p.operator == Operator::Set;
            let before = row.own.iter().rfind(set).map(|p| p.line);
            row.own.push(pair.clone());
            return self.replaces(line, &pair, before);
        }
        match mistyped(&words) {
            // A mistyped rule must not silently become an argument.
            Some((name, found)) => {
                let what = format!(
                    "expected `{name} = VALUE`, or quotes if {name} is an argument, found {found}"
                );
                self.wrong(line, &words[0].text, what);
            }
            None => {
                let (inline, doubt) = (inline(&words), doubt(&words));
                row.words.extend(words);
                if let Some((word, what)) = doubt {
                    self.note(line, &word, what);
                }
                if let Some(name) = inline {
                    self.inline(line, name);
                }
            }
        }
    }

    /// A value takes the place of the one that line `before`, if there is one, gave it in the same
    /// part of the same file: who writes `listen` twice means two addresses.
    fn replaces(&mut self, line: Line, pair: &Pair, before: Option<usize>) {
        // No value takes one away on purpose.
        let sets = pair.operator == Operator::Set && !pair.words.is_empty();
        let Some(before) = before.filter(|_| sets) else { return };
        let name = &pair.name;
        let adds = if is_list(name) { format!("; `{name} +=` adds to it") } else { String::new() };
        self.note(line, name, format!("takes the place of the value of line {before}{adds}"));
    }

    fn inline(&mut self, line: Line, name: &str) {
        let what = format!(
            "expected `{name} = VALUE` on an indented line of its own, or quotes if {name} is an argument, found it among the arguments"
        );
        self.wrong(line, name, what);
    }

    /// Reads a heading: `[NAME...]` for the rows of a host, `[*]` for those of every host.
    fn header(&mut self, line: Line) {
        let end = line.text.find(']');
        let after = end.map_or("", |e| line.text[e + 1..].trim());
        let (Some(end), true) = (end, after.is_empty() || after.starts_with('#')) else {
            let what = "expected [NAME...] or [*] alone on its line, found something else";
            return self.wrong(line, line.text.trim(), what);
        };
        self.set.clear();
        let names: Vec<&str> = line.text[1..end].split_whitespace().collect();
        match names[..] {
            [] => self.wrong(line, "[]", "expected [NAME...] or [*], found no name"),
            ["*"] => self.builder.section_of_all(),
            _ => self.builder.section_of_host(&names, line.file, line.number),
        }
    }

    fn include(&mut self, directive: &str, path: &str, line: Line, depth: usize) {
        let path = beside(line.file, path);
        if directive == DIRECTIVES[0] {
            return self.file(&path, depth + 1, Some((line, directive)));
        }
        let at = (&**line.file, line.number);
        for file in included(self.builder, at, &path, |name| name.contains(['.', '~'])) {
            self.file(&file, depth + 1, Some((line, directive)));
        }
    }

    fn end_row(&mut self) {
        let Some(row) = self.row.take() else { return };
        let words: Vec<&str> = row.words.iter().map(|w| w.text.as_str()).collect();
        let columns = Columns::read(&words);
        let Lines { file, line, before, own, .. } = row;
        self.builder.row(Row { file, line, columns, own, before });
    }

    /// A warning.
    fn note(&mut self, line: Line, word: &str, what: impl Into<String>) {
        self.builder.mistakes.push_as(Weight::Noted, line.file, line.number, word, what);
    }

    fn wrong(&mut self, line: Line, word: &str, what: impl Into<String>) {
        self.builder.mistakes.push(line.file, line.number, word, what);
    }
}

/// A path that a file names: one that is not absolute begins in that file's directory.
pub fn beside(file: &str, path: &str) -> String {
    if path.starts_with('/') {
        return path.into();
    }
    format!("{}/{path}", file.rsplit_once('/').map_or(".", |(d, _)| d))
}

/// `NAME OPERATOR WORDS`, if these words are that.
fn pair(words: &[Word], line: usize) -> Option<Pair> {
    let [name, operator, words @ ..] = words else { return None };
    let operator = match operator.text.as_str() {
        _ if operator.quoted => return None,
        "=" => Operator::Set,
        "+=" => Operator::Add,
        "-=" => Operator::Remove,
        _ => return None,
    };
    let words = words.iter().map(|w| w.text.clone()).collect();
    Some(Pair { operator, ..Pair::new(line, &name.text, words) })
}

/// The line of the first block, in a file of xinetd.conf(5)'s form: `defaults` or `service NAME`,
/// and a line that is `{`.
fn xinetd_block(bytes: &[u8]) -> Option<usize> {
    let mut head = false;
    for (i, line) in bytes.split(|&b| b == b'\n').enumerate() {
        let line = line.trim_ascii();
        match line {
            b"" => {}
            [b'#', ..] => {}
            b"{" if head => return Some(i + 1),
            _ => {
                head = line == b"defaults"
                    || line
                        .strip_prefix(b"service")
                        .is_some_and(|r| r.starts_with(b" ") || r.starts_with(b"\t"))
            }
        }
    }
    None
}

/// The attributes that say who may use a service. A service without them is open to everybody.
const RULES: [&str; 8] = [
    "require",
    "users",
    "only_from",
    "no_access",
    "access_times",
    "libwrap",
    "offered_by",
    "disable",
];

/// Can `+=` add to this attribute or setting?
fn is_list(name: &str) -> bool {
    let attribute = find(ATTRIBUTES, name).map(|entry| entry.list);
    attribute.or_else(|| find(SETTINGS, name).map(|entry| entry.list)).unwrap_or(false)
}

/// What an indented line may be meant as that is taken for arguments: its first word, and a
/// warning.
fn doubt(words: &[Word]) -> Option<(String, String)> {
    let first = words.first().filter(|w| !w.quoted)?.text.clone();
    let word = |n: usize| words.get(n).map_or("", |w| w.text.as_str());
    let is_row = words.len() >= 6
        && matches!(word(1), "stream" | "dgram")
        && ["tcp", "udp", "unix"].iter().any(|p| word(2).starts_with(p))
        && ["wait", "nowait"].iter().any(|p| word(3).starts_with(p));
    let name = find(ATTRIBUTES, &first).map(|entry| entry.name).filter(|_| words.len() > 1);
    let what = match name {
        _ if is_row => "these are arguments of the row above; a row is not indented".into(),
        Some(name) => format!(
            "this is an argument of the row above; an attribute is `{name} = VALUE`, and quotes say that an argument is meant"
        ),
        None => return None,
    };
    Some((first, what))
}

/// The attribute that is among these arguments as if they were its line.
fn inline(words: &[Word]) -> Option<&'static str> {
    let operator = |w: &Word| ["=", "+=", "-="].iter().any(|operator| w.is(operator));
    let is_followed = |two: &&[Word]| !two[0].quoted && operator(&two[1]);
    let names = words.windows(2).filter(is_followed);
    names.filter_map(|two| find(ATTRIBUTES, &two[0].text)).map(|entry| entry.name).next()
}

/// The attribute whose name a line begins with that is no attribute, and what is wrong there.
fn mistyped(words: &[Word]) -> Option<(&str, &'static str)> {
    let first = words.first().filter(|w| !w.quoted)?.text.as_str();
    let operator = |w: &Word| !w.quoted && w.text.trim_start_matches(['+', '-']).starts_with('=');
    let (name, found) = match first.split_once('=') {
        Some((name, _)) => (name.strip_suffix(['+', '-']).unwrap_or(name), "no blank around the ="),
        None if words.get(1).is_some_and(operator) => (first, "no blank around the ="),
        // `nice -n 5 PROGRAM` is an argument; a line that says who may come is not.
        None => {
            let name = first.strip_suffix(':').unwrap_or(first);
            (RULES.contains(&name).then_some(name)?, "no =")
        }
    };
    find(ATTRIBUTES, name).map(|entry| (entry.name, found))
}
