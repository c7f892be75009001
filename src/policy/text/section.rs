//! The sections of a configuration: which one a line is in, and in which order their rows stand.

use super::super::attributes::Attributes;
use super::super::ids::HostScope;
use super::super::service::Service;
use super::assigned::Assigned;
use std::sync::Arc;

/// A part of the configuration with its own defaults. The first is everything before the first
/// heading.
#[derive(Default)]
pub struct Section {
    pub scope: Option<HostScope>,
    pub defaults: Assigned,
    /// The same defaults, shared by the rows that have no attributes of their own: those that run
    /// as a named user, and those that run as the user who logged in.
    pub shared: [Option<Arc<Attributes>>; 2],
    pub rows: bool,
}

/// The sections around the one that is being read.
#[derive(Default)]
pub struct Outer {
    /// For each file that includes the next: its section, where another has begun since.
    files: Vec<Option<Section>>,
    /// The defaults before the first heading. Every section begins with them.
    defaults: Assigned,
}

impl Outer {
    /// An included file begins, in the section of the line that includes it.
    pub fn enter_file(&mut self) {
        self.files.push(None);
    }

    /// It has ended, and its sections with it: the lines that follow are in the section of the line
    /// that included it.
    pub fn leave_file(&mut self, section: &mut Section) {
        if let Some(Some(before)) = self.files.pop() {
            *section = before;
        }
    }

    /// Another section begins in place of this one.
    pub fn begin(&mut self, section: &mut Section, scope: HostScope) {
        if section.scope.is_none() {
            self.defaults = section.defaults.clone();
        }
        let defaults = self.defaults.clone();
        let next = Section { scope: Some(scope), defaults, ..Section::default() };
        let before = std::mem::replace(section, next);
        if let Some(file) = self.files.last_mut() {
            file.get_or_insert(before);
        }
    }
}

/// Sorts rows as `-T` prints them: those of the default host first, and those of every other host
/// together, in the order of the hosts' headings. A row of every host stays after those of the
/// hosts that came before it.
pub fn sort(services: &mut Vec<Service>) {
    let mut last = 0;
    let mut key = |s: &Service| match s.host {
        HostScope::Host(id) => {
            last = last.max(id.0);
            (id.0, false)
        }
        HostScope::All => (last, true),
    };
    let mut all: Vec<_> = std::mem::take(services).into_iter().map(|s| (key(&s), s)).collect();
    all.sort_by_key(|(key, _)| *key);
    services.extend(all.into_iter().map(|(_, s)| s));
}
