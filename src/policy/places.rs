//! Where attributes of a row are written whose lines are told, for `-C` and for warnings. Nothing
//! decides by it, and net never learns it.

use super::text::entry::Operator;
use std::sync::Arc;

/// The attributes that refuse clients, those that send a banner before a service's output, those
/// whose values may name what this computer has not, and those that say where a service is reached.
const RULES: [&str; 16] = [
    "port",
    "tls_port",
    "socket_owner",
    "libwrap",
    "offered_by",
    "group",
    "chroot",
    "directory",
    "disable",
    "require",
    "users",
    "only_from",
    "no_access",
    "access_times",
    "banner",
    "banner_success",
];

/// A file, and a line of it.
pub type Place = (Arc<str>, usize);

/// What a line says of a rule.
#[derive(Debug, PartialEq, Eq)]
struct Statement {
    place: Place,
    rule: &'static str,
    operator: Operator,
    words: Vec<String>,
}

/// The lines that gave a row's rules their values, in the order in which they did: those of the
/// defaults before it, and its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places(Vec<Arc<Statement>>);

impl Places {
    /// An attribute has been given a value. Others are not kept.
    pub fn add(all: &mut Arc<Places>, name: &str, operator: Operator, words: &[&str], at: Place) {
        let Some(rule) = RULES.into_iter().find(|rule| *rule == name) else { return };
        let Places(all) = Arc::make_mut(all);
        if operator == Operator::Set {
            all.retain(|s| s.rule != rule);
        }
        let words = words.iter().map(|w| w.to_string()).collect();
        all.push(Arc::new(Statement { place: at, rule, operator, words }));
    }

    /// The last line that gave this rule its value.
    pub fn last(&self, rule: &str) -> Option<Place> {
        self.0.iter().rfind(|s| s.rule == rule).map(|s| s.place.clone())
    }

    /// The line by which the rule's list has such a word: the last that names it. None: that one
    /// takes it away, or no line names it.
    pub fn naming(&self, rule: &str, is: impl Fn(&str) -> bool) -> Option<Place> {
        let found = self.0.iter().rfind(|s| s.rule == rule && s.words.iter().any(|w| is(w)));
        found.filter(|s| s.operator != Operator::Remove).map(|s| s.place.clone())
    }
}
