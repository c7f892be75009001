//! Builds a table from what a grammar has read: sections, settings and rows. It knows names,
//! defaults and whole services, but not how they are written.

use super::super::attributes::ATTRIBUTES;
use super::super::ids::{HostId, HostScope};
use super::super::inapplicable;
use super::super::libwrap::Libwrap;
use super::super::origin::{GivenOption, Grammar};
use super::super::service::Service;
use super::super::settings::{SETTINGS, Settings};
use super::super::table::{HOST_SETTINGS, Host, SettingLines, Table};
use super::super::users::UserSpec;
use super::assigned::{Assigned, Pair};
use super::columns::{Columns, Nowait};
use super::entry::{Context, Files, find};
use super::mistake::{Mistake, Mistakes, Weight};
use super::nearest::nearest;
use super::parse::Wrong;
use super::section::{self, Outer, Section};
use crate::wire::builtins;
use std::collections::HashMap;
use std::sync::Arc;

/// Hosts at most.
const HOSTS: usize = 65_536;

/// A row, as a grammar has read it.
pub struct Row {
    pub file: Arc<str>,
    pub line: usize,
    /// Err: every word that is wrong.
    pub columns: Result<Columns, Vec<Wrong>>,
    /// Attributes of its own.
    pub own: Vec<Pair>,
    /// How many mistakes there were before it.
    pub before: usize,
}

/// What has been read so far.
pub struct Builder<'a> {
    /// For the grammar, and for banners.
    pub files: &'a mut dyn Files,
    pub mistakes: Mistakes,
    /// Of the file that is being read.
    grammar: Grammar,
    /// Words of the grammar that somebody who wrote an unknown name may have meant.
    directives: &'static [&'static str],
    settings: Settings,
    hosts: Vec<Host>,
    host_names: HashMap<String, HostId>,
    services: Vec<Service>,
    groups: Vec<String>,
    section: Section,
    outer: Outer,
    /// The defaults of every file, which the command line gives.
    given: Assigned,
    /// The rows of each name.
    rows_named: HashMap<(HostScope, String), Vec<usize>>,
    set_at: SettingLines,
}

impl<'a> Builder<'a> {
    /// `path`: the file that is read first.
    pub fn new(
        path: &str,
        files: &'a mut dyn Files,
        directives: &'static [&'static str],
    ) -> Builder<'a> {
        Builder {
            files,
            mistakes: Mistakes::default(),
            grammar: Grammar::Fived,
            directives,
            settings: Settings::default(),
            hosts: vec![host(&[], path, 0)],
            host_names: HashMap::new(),
            services: Vec::new(),
            groups: Vec::new(),
            section: Section::default(),
            outer: Outer::default(),
            given: Assigned::default(),
            rows_named: HashMap::new(),
            set_at: SettingLines::new(),
        }
    }

    /// A file of this grammar begins, with rows of the default host and no defaults but fived's
    /// own.
    pub fn begin_file(&mut self, grammar: Grammar) {
        self.grammar = grammar;
        self.section = Section { defaults: self.given.clone(), ..Section::default() };
        self.mistakes.weight = match grammar {
            Grammar::Fived => Weight::Refused,
            Grammar::Inetd | Grammar::Xinetd => Weight::LeftOut,
        };
    }

    /// What the command line says: settings, and defaults of all rows.
    pub fn given(&mut self, given: &[GivenOption]) {
        for GivenOption { option, name, words } in given {
            self.setting(&Pair::new(0, name, words.clone()), &option.as_str().into());
        }
        self.given = std::mem::take(&mut self.section.defaults);
    }

    /// Are hosts.allow and hosts.deny asked about every row, because the command line says so?
    pub fn wraps_all(&self) -> bool {
        self.given.attributes.libwrap != Libwrap::No
    }

    /// A file cannot be read: a mistake in the line that names it with this setting. If an option
    /// names it, there is no such line.
    pub fn unreadable(&mut self, setting: &str, path: &str, why: &str, weight: Weight) {
        let line = self.set_at.get(&(HostId::DEFAULT, setting.into()));
        let (file, line, word, what) = match line {
            Some((file, line)) => (&**file, *line, setting, format!("{path}: {why}")),
            None => (path, 0, "", why.into()),
        };
        self.mistakes.push_as(weight, file, line, word, what);
    }

    /// What has been set so far.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Was this setting of fived as a whole given by a file? (Line 0 is an option.)
    pub fn is_given(&self, setting: &str) -> bool {
        self.set_at.get(&(HostId::DEFAULT, setting.into())).is_some_and(|(_, line)| *line != 0)
    }

    /// Do clients reach a service of such files by its name?
    pub fn serves_names(&self, grammar: Grammar) -> bool {
        self.services.iter().any(|s| s.grammar == grammar && is_named(s))
    }

    /// The table of everything that was right, and all mistakes.
    pub fn finish(mut self) -> (Table, Vec<Mistake>) {
        section::sort(&mut self.services);
        let foreign = self.grammar != Grammar::Fived;
        if foreign && !self.is_given("listen") && !self.services.iter().any(is_named) {
            self.settings.listen.clear();
        }
        let settings = self.settings.complete();
        let table = Table::new(settings, self.hosts, self.services, self.groups, self.set_at);
        (table, self.mistakes.into_vec())
    }

    /// Begins the section of the rows that all hosts have.
    pub fn section_of_all(&mut self) {
        self.outer.begin(&mut self.section, HostScope::All);
    }

    /// Begins the section of a host with these names (one at least).
    pub fn section_of_host(&mut self, names: &[&str], file: &str, line: usize) {
        let id = HostId(self.hosts.len() as u32);
        if self.hosts.len() >= HOSTS {
            return self.mistakes.push(
                file,
                line,
                names[0],
                format!("expected at most {HOSTS} hosts, found one more"),
            );
        }
        for name in names {
            let good = name.len() <= 255
                && name.bytes().all(|b| (b'!'..=b'~').contains(&b))
                && !name.contains(['*', ',', ';', '#', '"', '\'', '\\']);
            let what = if !good {
                "expected a host name of printable characters, at most 255, without quotes, `*`, `#` and commas, found something else"
            } else if self.host_names.insert(name.to_ascii_lowercase(), id).is_some() {
                "expected one section for a host, found a second one of this name"
            } else {
                continue;
            };
            self.mistakes.push(file, line, name, what);
        }
        self.hosts.push(host(names, file, line));
        self.outer.begin(&mut self.section, HostScope::Host(id));
    }

    /// A file begins that the one that is being read includes.
    pub fn enter_file(&mut self) {
        self.outer.enter_file();
    }

    /// It has ended.
    pub fn leave_file(&mut self) {
        self.outer.leave_file(&mut self.section);
    }

    /// A row has begun: no defaults may follow in this section.
    pub fn row_begins(&mut self) {
        self.section.rows = true;
    }

    /// A setting, or a default of the rows that follow.
    pub fn setting(&mut self, pair: &Pair, file: &Arc<str>) {
        let name = pair.name.as_str();
        if self.section.rows {
            let what = "expected settings before the first row, or indented under their row, found one after a row";
            return self.mistakes.push(file, pair.line, name, what);
        }
        let (words, op, mut host) = (pair.words(), pair.operator, HostId::DEFAULT);
        let mut context = Context { files: self.files, groups: &mut self.groups };
        let done = if let (Some(HostScope::Host(id)), Some(entry)) =
            (self.section.scope, find(HOST_SETTINGS, name))
        {
            host = id;
            entry.set(&mut self.hosts[id.0 as usize], op, &words, &mut context)
        } else if let Some(entry) = find(ATTRIBUTES, name) {
            self.section.defaults.set(entry, pair, file, &mut context)
        } else if let Some(entry) = find(SETTINGS, name) {
            if self.section.scope.is_none() {
                entry.set(&mut self.settings, op, &words, &mut context)
            } else {
                let what = "expected settings of fived as a whole before the first section, found this one after it";
                Err(Wrong::new(name, what).into())
            }
        } else {
            Err(Wrong::new(name, self.unknown(name)).into())
        };
        match done {
            Ok(()) => drop(self.set_at.insert((host, name.into()), (file.clone(), pair.line))),
            Err(all) => self.wrong_value(file, pair, all),
        }
    }

    /// A row, with all its lines.
    pub fn row(&mut self, row: Row) {
        let columns = match row.columns {
            Ok(columns) => Some(columns),
            Err(all) => {
                self.wrong(&row.file, row.line, all);
                None
            }
        };
        let wait = columns.as_ref().map_or(Nowait::default(), |c| c.wait);
        let ports_alone = columns.as_ref().is_some_and(|c| c.endpoint.has_ports_alone());
        let plain = row.own.is_empty() && wait.instances.is_none() && !ports_alone;
        let mut assigned = self.section.defaults.clone();
        let attributes = &mut assigned.attributes;
        attributes.instances = wait.instances.unwrap_or(attributes.instances);
        attributes.per_source = wait.per_source.unwrap_or(attributes.per_source);
        let mut wrong = false;
        for pair in &row.own {
            wrong |= !self.attribute(&mut assigned, pair, &row.file);
            if ports_alone && pair.name == "tcpmux" && pair.words == ["yes"] {
                let what = "expected no name for a row of `wait` or `unix`, which has ports alone, found yes";
                self.mistakes.push(&row.file, pair.line, &pair.name, what);
            }
        }
        // A rule that could not be read must not be missing where the row is served all the same.
        let Assigned { mut attributes, places } = assigned;
        attributes.disable |= wrong && self.grammar != Grammar::Fived;
        let of = |c: &Columns| inapplicable::of(&c.backend, &c.endpoint, &attributes);
        let inapplicable = columns.as_ref().map_or_else(Vec::new, of);
        let plain = plain && inapplicable.is_empty();
        let mut effective = attributes.clone();
        inapplicable.iter().for_each(|v| (v.set)(&mut effective));
        let column = wait.instances.flatten().map(|n| ("instances", row.line, n.to_string()));
        let own = row.own.iter().map(|p| (p.name.as_str(), p.line, p.words.join(" ")));
        let weight = if self.grammar == Grammar::Fived { Weight::Refused } else { Weight::Noted };
        let all = inapplicable::wrong(&inapplicable, &attributes, &effective, own.chain(column));
        for (line, name, what) in all {
            self.mistakes.push_as(weight, &row.file, line, name, what);
        }
        attributes = effective;
        // Lines that could not be split were reported before.
        self.mistakes.sort_after(row.before);
        let Some(columns) = columns else { return };
        let shared = &mut self.section.shared[usize::from(columns.user == UserSpec::Login)];
        let whole = || Arc::new(attributes.of_row(&columns.user, &columns.endpoint));
        let attributes = if plain { shared.get_or_insert_with(whole).clone() } else { whole() };
        self.service(Service {
            name: columns.name,
            host: self.section.scope.unwrap_or(HostScope::Host(HostId::DEFAULT)),
            endpoint: columns.endpoint,
            user: columns.user,
            backend: columns.backend,
            grammar: self.grammar,
            file: row.file,
            line: row.line,
            per_minute: wait.per_minute,
            per_source_minute: wait.per_source_minute,
            attributes,
            places,
        });
    }

    /// Sets a default of the rows that follow, as for a row. Is it right?
    pub fn default(&mut self, pair: &Pair, file: &Arc<str>) -> bool {
        let mut defaults = std::mem::take(&mut self.section.defaults);
        let right = self.attribute(&mut defaults, pair, file);
        self.section.defaults = defaults;
        right
    }

    /// Sets one of a row's own attributes. Is it right?
    fn attribute(&mut self, assigned: &mut Assigned, pair: &Pair, file: &Arc<str>) -> bool {
        let name = pair.name.as_str();
        let done = match find(ATTRIBUTES, name) {
            Some(entry) => {
                let mut context = Context { files: self.files, groups: &mut self.groups };
                assigned.set(entry, pair, file, &mut context)
            }
            None => {
                let whole = find(SETTINGS, name).is_some() || self.directives.contains(&name);
                let what = if whole {
                    "expected an attribute of the row, found a setting of fived as a whole, which stands before the first row, not indented".into()
                } else {
                    self.unknown(name)
                };
                Err(Wrong::new(name, what).into())
            }
        };
        let right = done.is_ok();
        if let Err(all) = done {
            self.wrong_value(file, pair, all);
        }
        right
    }

    /// Adds a service, if no other has the same name for the same clients, or if it is not reached
    /// by a name.
    fn service(&mut self, service: Service) {
        for (name, what) in service.not_offered() {
            self.mistakes.push(&service.file, service.line, name, what);
        }
        if !service.attributes.tcpmux {
            return self.services.push(service);
        }
        if builtins::named(service.name.as_bytes()).is_some() {
            let what = "expected a service's own name, found that of a built-in";
            return self.mistakes.push(&service.file, service.line, &service.name, what);
        }
        let key = (service.host, service.name.to_ascii_lowercase());
        let same = self.rows_named.entry(key).or_default();
        let family = service.endpoint.family;
        let meets = |i: &&usize| self.services[**i].endpoint.family.meets(family);
        if let Some(&first) = same.iter().find(meets) {
            let first = &self.services[first];
            let what = format!(
                "expected one row for a name, or one for tcp4 and one for tcp6, found another at {}:{}",
                first.file, first.line
            );
            return self.mistakes.push(&service.file, service.line, &service.name, what);
        }
        same.push(self.services.len());
        self.services.push(service);
    }

    /// Reports the words that are wrong in the value of `pair`.
    fn wrong_value(&mut self, file: &str, pair: &Pair, all: Vec<Wrong>) {
        for Wrong { word, what } in all {
            let what = if word == pair.name || what.contains(&format!("{word:?}")) {
                what
            } else {
                format!("{}: {what}", if word.is_empty() { "''" } else { &word })
            };
            self.mistakes.push(file, pair.line, &pair.name, what);
        }
    }

    fn wrong(&mut self, file: &str, line: usize, all: Vec<Wrong>) {
        for Wrong { word, what } in all {
            // An empty word is shown as the quotes that it was written with.
            let word = if word.is_empty() { "''" } else { &word };
            self.mistakes.push(file, line, word, what);
        }
    }

    /// What is wrong with an unknown name.
    fn unknown(&self, name: &str) -> String {
        match nearest(name, names().chain(self.directives.iter().copied())) {
            Some(similar) => format!("expected {similar}, found an unknown name"),
            None => {
                "expected a setting or an attribute of fived.conf(5), found an unknown name".into()
            }
        }
    }
}

/// Do clients reach it by its name?
fn is_named(s: &Service) -> bool {
    s.attributes.tcpmux && !s.attributes.disable
}

/// A host without settings of its own.
fn host(names: &[&str], file: &str, line: usize) -> Host {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let name = names.first().cloned().unwrap_or_default();
    Host { name, names, certificate: None, key: None, file: file.into(), line }
}

/// The name of every attribute and setting.
pub fn names() -> impl Iterator<Item = &'static str> {
    ATTRIBUTES.iter().map(|e| e.name).chain(SETTINGS.iter().map(|e| e.name))
}
