//! The configuration's text, read into a table. Every mistake is told, not only the first.

use super::Files;
use super::attributes::{self, Attributes, Context, Operator};
use super::rows::{self, Service};
use super::settings::{self, Settings};
use super::table::{Host, HostId, HostScope, Places, Table};
use super::values::{Wrong, one, path};
use super::words::{self, Word};
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// Mistakes that are told at most, files within files, and files in all.
const MISTAKES: usize = 1000;
const DEPTH: usize = 16;
const FILES: usize = 10_000;
/// Hosts at most.
const HOSTS: usize = 65_536;

/// One mistake: `FILE:LINE: WORD: what is wrong, and what would be right`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    pub file: String,
    pub line: usize,
    pub word: String,
    pub what: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        visible(f, &self.file)?;
        write!(f, ":{}: ", self.line)?;
        if !self.word.is_empty() {
            visible(f, &self.word)?;
            f.write_str(": ")?;
        }
        f.write_str(&self.what)
    }
}

/// As it stands in the file, but for what would not be seen.
fn visible(f: &mut fmt::Formatter, text: &str) -> fmt::Result {
    text.chars().try_for_each(|c| {
        if matches!(c, '\'' | '"' | '\\') {
            write!(f, "{c}")
        } else {
            write!(f, "{}", c.escape_debug())
        }
    })
}

/// Reads a configuration: what of it is right, and all that is wrong, in the order of the text.
pub fn load(path: &str, files: &mut dyn Files) -> (Table, Vec<Mistake>) {
    let mut r = Reader {
        files,
        settings: Settings::default(),
        hosts: vec![Host {
            name: String::new(),
            names: vec![],
            certificate: None,
            key: None,
            file: path.into(),
            line: 0,
        }],
        host_names: HashMap::new(),
        services: Vec::new(),
        groups: Vec::new(),
        sections: vec![Section::default()],
        section: 0,
        row: None,
        given: HashMap::new(),
        places: Places::new(),
        mistakes: Vec::new(),
        read: 0,
    };
    r.file(path, 0, None);
    (Table::new(r.settings, r.hosts, r.services, r.groups, r.places), r.mistakes)
}

/// A part of the file with defaults of its own; the first is the file itself.
#[derive(Debug, Clone, Default)]
struct Section {
    scope: Option<HostScope>,
    defaults: Attributes,
    /// The same defaults, shared by the rows that add nothing.
    shared: Option<Arc<Attributes>>,
    rows: bool,
}

/// The row that indented lines go on with.
struct Row {
    /// None of them: a line that could not be split.
    words: Vec<Word>,
    line: usize,
    file: Arc<str>,
    /// How many mistakes there were before it.
    before: usize,
    settings: Vec<(usize, String, Operator, Vec<Word>)>,
}

struct Reader<'a> {
    files: &'a mut dyn Files,
    settings: Settings,
    hosts: Vec<Host>,
    host_names: HashMap<String, HostId>,
    services: Vec<Service>,
    groups: Vec<String>,
    sections: Vec<Section>,
    section: usize,
    row: Option<Row>,
    /// Where each name was given, for telling who came first.
    given: HashMap<(HostScope, String), Vec<usize>>,
    places: Places,
    mistakes: Vec<Mistake>,
    read: usize,
}

impl Reader<'_> {
    fn wrong(&mut self, file: &str, line: usize, word: &str, what: impl Into<String>) {
        if self.mistakes.len() < MISTAKES {
            self.mistakes.push(Mistake {
                file: file.into(),
                line,
                word: word.into(),
                what: what.into(),
            });
        }
    }

    fn all_wrong(&mut self, file: &str, line: usize, all: Wrong) {
        // An empty word is shown as it is written.
        let shown = |word: String| if word.is_empty() { "''".into() } else { word };
        all.0.into_iter().for_each(|(word, what)| self.wrong(file, line, &shown(word), what));
    }

    /// Reads one file; `from`: the line that includes it.
    fn file(&mut self, path: &str, depth: usize, from: Option<(&Arc<str>, usize)>) {
        let (at, line) = from.map_or((path, 0), |(f, l)| (&**f, l));
        self.read += 1;
        if depth > DEPTH || self.read > FILES {
            return self.wrong(
                at,
                line,
                path,
                format!("files within files: {DEPTH} deep and {FILES} in all are the most"),
            );
        }
        let bytes = match self.files.read(path) {
            Ok(b) => b,
            Err(e) => return self.wrong(at, line, path, e),
        };
        let name: Arc<str> = path.into();
        // Editors of other systems begin a file of UTF-8 with a byte order mark.
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
        if let Some(line) = xinetd_block(bytes) {
            let what = "expected rows as in inetd.conf, found a block of xinetd.conf; INSTEAD OF INETD AND XINETD in fived(8) has one as a row";
            return self.wrong(path, line, "{", what);
        }
        for (i, raw) in bytes.split(|&b| b == b'\n').enumerate() {
            let text = String::from_utf8_lossy(raw);
            self.line(
                text.strip_suffix('\r').unwrap_or(&text),
                matches!(text, Cow::Borrowed(_)),
                &name,
                i + 1,
                depth,
            );
        }
        self.end_row();
    }

    /// `utf8`: the text is as it is in the file; else what was none stands as U+FFFD in it. In a
    /// comment that does not matter.
    fn line(&mut self, text: &str, utf8: bool, file: &Arc<str>, line: usize, depth: usize) {
        let indented = text.starts_with([' ', '\t']);
        let bad = |w: &&Word| !utf8 && w.text.contains(char::REPLACEMENT_CHARACTER);
        let words = match words::split(text) {
            Ok(w) => match w.iter().find(bad) {
                None => w,
                Some(word) => {
                    return self.unread(
                        &word.text,
                        "not UTF-8; text in UTF-8 would be right",
                        text,
                        file,
                        line,
                    );
                }
            },
            Err(e) => {
                return self.unread(
                    text.split_whitespace().next().unwrap_or(""),
                    e,
                    text,
                    file,
                    line,
                );
            }
        };
        let Some(first) = words.first() else { return };
        if indented {
            return self.indented(words, file, line);
        }
        self.end_row();
        if first.text.starts_with('[') && text.starts_with('[') {
            return self.header(text, file, line);
        }
        if let Some(op) = words.get(1).and_then(Operator::read) {
            return self.setting(&first.text, op, &words[2..], file, line);
        }
        if !first.quoted
            && matches!(first.text.as_str(), "include" | "includedir")
            && words.len() == 2
        {
            return self.include(first.text == "includedir", &words[1].text, file, line, depth);
        }
        if words.len() < 6 && first.text.contains('=') {
            return self.wrong(
                file,
                line,
                &first.text,
                "not a row; for a setting, blanks around the = would be right",
            );
        }
        self.begin_row(words, file, line);
    }

    fn begin_row(&mut self, words: Vec<Word>, file: &Arc<str>, line: usize) {
        self.sections[self.section].rows = true;
        self.row = Some(Row {
            words,
            line,
            file: file.clone(),
            before: self.mistakes.len(),
            settings: Vec::new(),
        });
    }

    /// A line whose words cannot be told. Was it a row, what is indented below it is its own.
    fn unread(&mut self, word: &str, what: &str, text: &str, file: &Arc<str>, line: usize) {
        if !text.starts_with([' ', '\t']) {
            self.end_row();
            if !matches!(text.split_whitespace().nth(1), Some("=" | "+=" | "-="))
                && !text.starts_with('[')
            {
                self.begin_row(Vec::new(), file, line);
            }
        }
        self.wrong(file, line, word, what);
    }

    fn indented(&mut self, words: Vec<Word>, file: &Arc<str>, line: usize) {
        let Some(row) = &mut self.row else {
            return self.wrong(
                file,
                line,
                &words[0].text,
                "an indented line goes on with the row above, and there is none; without the blanks before it, it would be a setting",
            );
        };
        match words.get(1).and_then(Operator::read) {
            Some(op) => row.settings.push((line, words[0].text.clone(), op, words[2..].to_vec())),
            None => match unspaced(&words) {
                // A rule must not silently become an argument.
                Some(name) => {
                    let what = format!(
                        "expected blanks around the = of the attribute {name}, or quotes if it is an argument"
                    );
                    self.wrong(file, line, &words[0].text, what);
                }
                None => row.words.extend(words),
            },
        }
    }

    /// `[NAME...]`: the rows of a host, or `[*]`: those of every host.
    fn header(&mut self, text: &str, file: &Arc<str>, line: usize) {
        let end = text.find(']');
        let behind = end.map_or("", |e| text[e + 1..].trim());
        let (Some(end), true) = (end, behind.is_empty() || behind.starts_with('#')) else {
            return self.wrong(
                file,
                line,
                text.trim(),
                "not a section; [name...] or [*] would be right",
            );
        };
        let names: Vec<&str> = text[1..end].split_whitespace().collect();
        let scope = match names[..] {
            [] => {
                return self.wrong(
                    file,
                    line,
                    "[]",
                    "no host's name in it; [name...] or [*] would be right",
                );
            }
            ["*"] => HostScope::All,
            _ => {
                let id = HostId(self.hosts.len() as u32);
                if self.hosts.len() >= HOSTS {
                    return self.wrong(file, line, names[0], format!("{HOSTS} hosts are the most"));
                }
                for name in &names {
                    let good = name.len() <= 255
                        && name.bytes().all(|b| (b'!'..=b'~').contains(&b))
                        && *name != "*";
                    if !good {
                        self.wrong(
                            file,
                            line,
                            name,
                            "not a host's name; printable characters without blanks would be right",
                        );
                    } else if self.host_names.insert(name.to_ascii_lowercase(), id).is_some() {
                        self.wrong(file, line, name, "a host of this name is already there; one section a name would be right");
                    }
                }
                let names: Vec<String> = names.iter().map(ToString::to_string).collect();
                self.hosts.push(Host {
                    name: names[0].clone(),
                    names,
                    certificate: None,
                    key: None,
                    file: file.to_string(),
                    line,
                });
                HostScope::Host(id)
            }
        };
        let defaults = self.sections[0].defaults.clone();
        self.sections.push(Section { scope: Some(scope), defaults, ..Section::default() });
        self.section = self.sections.len() - 1;
    }

    fn setting(&mut self, name: &str, op: Operator, words: &[Word], file: &Arc<str>, line: usize) {
        let section = self.sections[self.section].clone_head();
        if section.rows {
            let what = "a setting behind a row; before the first row, or indented under its row, would be right";
            return self.wrong(file, line, name, what);
        }
        if let Some(HostScope::Host(id)) = section.scope
            && matches!(name, "certificate" | "key")
            && op == Operator::Set
        {
            self.places.insert((id, name.into()), (file.clone(), line));
            let host = &mut self.hosts[id.0 as usize];
            let slot = if name == "key" { &mut host.key } else { &mut host.certificate };
            return match one(name, words).and_then(path) {
                Ok(p) => *slot = Some(p),
                Err((word, what)) => self.wrong(file, line, &word, what),
            };
        }
        let mut cx = Context { files: self.files, groups: &mut self.groups };
        let defaults = &mut self.sections[self.section].defaults;
        let done = match defaults.set(name, op, words, &mut cx) {
            Some(done) => done,
            None => match self.settings.set(name, op, words) {
                Some(done) if section.scope.is_none() => done,
                Some(_) => Err((
                    name.to_string(),
                    "a setting of fived as a whole; before the first section would be right"
                        .to_string(),
                )
                    .into()),
                None => Err((name.to_string(), unknown(name)).into()),
            },
        };
        match done {
            Ok(()) => {
                drop(self.places.insert((HostId::DEFAULT, name.into()), (file.clone(), line)))
            }
            Err(all) => self.all_wrong(file, line, all),
        }
    }

    fn include(&mut self, directory: bool, path: &str, file: &Arc<str>, line: usize, depth: usize) {
        let path = if path.starts_with('/') {
            path.to_string()
        } else {
            format!("{}/{path}", file.rsplit_once('/').map_or(".", |(d, _)| d))
        };
        if !directory {
            return self.file(&path, depth + 1, Some((file, line)));
        }
        match self.files.list(&path) {
            Ok(mut names) => {
                names.sort_unstable();
                for name in names.iter().filter(|n| !n.contains(['.', '~'])) {
                    self.file(&format!("{path}/{name}"), depth + 1, Some((file, line)));
                }
            }
            Err(e) => self.wrong(file, line, &path, e),
        }
    }

    fn end_row(&mut self) {
        let Some(row) = self.row.take() else { return };
        let section = &mut self.sections[self.section];
        let scope = section.scope.unwrap_or(HostScope::Host(HostId::DEFAULT));
        let plain = row.settings.is_empty()
            && !row.words.get(3).is_some_and(|w| w.text.starts_with("nowait/"));
        let defaults = section.defaults.clone();
        let (service, mut own) = match rows::read(&row.words, scope, &row.file, row.line, &defaults)
        {
            Ok((service, own)) => (Some(service), own),
            Err(all) => {
                self.all_wrong(&row.file, row.line, all);
                (None, defaults)
            }
        };
        for (line, name, op, words) in row.settings {
            let mut cx = Context { files: self.files, groups: &mut self.groups };
            let done = own.set(&name, op, &words, &mut cx).unwrap_or_else(|| {
                let whole = settings::NAMES.contains(&name.as_str());
                let what = if whole {
                    "a setting of fived as a whole; not indented, before the first row, would be right".into()
                } else {
                    unknown(&name)
                };
                Err((name.clone(), what).into())
            });
            if let Err(all) = done {
                self.all_wrong(&row.file, line, all);
            }
        }
        // Of lines that could not be split it was told before.
        self.mistakes[row.before..].sort_by_key(|m| m.line);
        let Some(mut service) = service else { return };
        let section = &mut self.sections[self.section];
        service.attributes = if plain {
            section.shared.get_or_insert_with(|| Arc::new(own)).clone()
        } else {
            Arc::new(own)
        };
        let same = self.given.entry((scope, service.name.to_ascii_lowercase())).or_default();
        if let Some(&first) = same.iter().find(|&&i| self.services[i].family.meets(service.family))
        {
            let first = &self.services[first];
            let what = format!(
                "a service of this name is already at {}:{}; one row a name, or one for tcp4 and one for tcp6, would be right",
                first.file, first.line
            );
            let name = service.name.clone();
            return self.wrong(&row.file, row.line, &name, what);
        }
        same.push(self.services.len());
        self.services.push(service);
    }
}

impl Section {
    /// What a setting must know of it.
    fn clone_head(&self) -> Section {
        Section { scope: self.scope, rows: self.rows, ..Section::default() }
    }
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

/// The attribute whose `=` has no blank before it or after it, where a line begins so.
fn unspaced(words: &[Word]) -> Option<&str> {
    let first = words.first().filter(|w| !w.quoted)?.text.as_str();
    let (name, joined) = match first.split_once('=') {
        Some((name, _)) => (name.strip_suffix(['+', '-']).unwrap_or(name), true),
        None => (
            first,
            words.get(1).is_some_and(|w| {
                !w.quoted && w.text.trim_start_matches(['+', '-']).starts_with('=')
            }),
        ),
    };
    (joined && attributes::NAMES.contains(&name)).then_some(name)
}

fn unknown(name: &str) -> String {
    let all = attributes::NAMES.iter().chain(&settings::NAMES).copied();
    match words::nearest(name, all) {
        Some(near) => format!("unknown; {near} would be right"),
        None => "unknown; fived.conf(5) has all the settings".into(),
    }
}
