//! Users: who may use a service (`users`), and which user it runs as.

use super::subject::Login;
use super::text::parse::expected;
use std::fmt;

/// Groups that all `users` attributes of a table together may name.
const GROUPS_MAX: usize = 256;

/// `users`: names, `@group`, `!` before either.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Users(pub Vec<UserRule>);

/// One word of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserRule {
    Allow(Whom),
    /// After a `!`.
    Deny(Whom),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whom {
    Name(String),
    /// A group's name, and its number in the table.
    Group(String, usize),
}

impl Users {
    /// May this user use the service? No user who is named after a `!` may. Of the others, those
    /// who are named may; where nobody is named, all of them may.
    pub fn allow(&self, login: &Login) -> bool {
        self.allow_member(&login.name, |_, i| Some(login.groups.contains(i)))
    }

    /// May the user of this name use the service? `in_group` knows the groups, by their names and
    /// by their numbers in the table; None: it does not know. Who may only perhaps use the service
    /// may not.
    pub fn allow_member(&self, name: &str, in_group: impl Fn(&str, usize) -> Option<bool>) -> bool {
        let is = |whom: &Whom| match whom {
            Whom::Name(n) => Some(n == name),
            Whom::Group(group, i) => in_group(group, *i),
        };
        let denies = |rule: &UserRule| matches!(rule, UserRule::Deny(w) if is(w) != Some(false));
        let mut allowed = self.allowed().peekable();
        !self.0.iter().any(denies)
            && (allowed.peek().is_none() || allowed.any(|whom| is(whom) == Some(true)))
    }

    /// The rule by which this user may not; None: nobody names the user, or everybody may.
    pub fn denying(&self, login: &Login) -> Option<&UserRule> {
        self.0.iter().find(|rule| {
            matches!(rule, UserRule::Deny(whom) if match whom {
                Whom::Name(name) => *name == login.name,
                Whom::Group(_, i) => login.groups.contains(*i),
            })
        })
    }

    /// Those who are named as such who may.
    fn allowed(&self) -> impl Iterator<Item = &Whom> {
        self.0.iter().filter_map(|rule| match rule {
            UserRule::Allow(whom) => Some(whom),
            UserRule::Deny(_) => None,
        })
    }

    /// The groups that it names, in order. One that it names twice comes twice.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|rule| match rule.whom() {
            Whom::Group(name, _) => Some(name.as_str()),
            Whom::Name(_) => None,
        })
    }

    /// Those of them whose members may not.
    pub fn denied_groups(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|rule| match rule {
            UserRule::Deny(Whom::Group(name, _)) => Some(name.as_str()),
            UserRule::Deny(Whom::Name(_)) | UserRule::Allow(_) => None,
        })
    }

    /// Does it name root as one who may?
    pub fn name_root(&self) -> bool {
        self.allowed().any(|whom| matches!(whom, Whom::Name(n) if n == "root"))
    }
}

impl UserRule {
    fn whom(&self) -> &Whom {
        match self {
            UserRule::Allow(whom) | UserRule::Deny(whom) => whom,
        }
    }

    /// Reads one word of `users`. `groups`: all groups that the table has named so far; a new one
    /// is added. Err: what is wrong.
    pub fn read(word: &str, groups: &mut Vec<String>) -> Result<UserRule, String> {
        let denied = word.strip_prefix('!');
        let name = denied.unwrap_or(word);
        if !is_name(name.strip_prefix('@').unwrap_or(name)) {
            let what = "a user, @group, !user or !@group, with blanks between them";
            return Err(expected(what, word));
        }
        let whom = match name.strip_prefix('@') {
            None => Whom::Name(name.into()),
            Some(group) => {
                let at = groups.iter().position(|g| g == group).unwrap_or_else(|| {
                    groups.push(group.into());
                    groups.len() - 1
                });
                if at >= GROUPS_MAX {
                    return Err(format!(
                        "expected at most {GROUPS_MAX} groups in all, found one more"
                    ));
                }
                Whom::Group(group.into(), at)
            }
        };
        Ok(if denied.is_some() { UserRule::Deny(whom) } else { UserRule::Allow(whom) })
    }
}

/// Can a user or a group have this name? None has a separator, a wildcard or a sign of this list in
/// it, so a word that has one was meant as something else.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(['!', '@'])
        && !name.contains([',', ';', ':', '*', '?'])
        && name != "ALL"
}

impl fmt::Display for UserRule {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let no = match self {
            UserRule::Allow(_) => "",
            UserRule::Deny(_) => "!",
        };
        match self.whom() {
            Whom::Name(n) => write!(f, "{no}{n}"),
            Whom::Group(n, _) => write!(f, "{no}@{n}"),
        }
    }
}

/// The user that a service runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserSpec {
    /// A user of the system.
    Named {
        user: String,
        /// None: the user's own group, or the attribute `group`.
        group: Option<String>,
    },
    /// `*`: the user who logged in.
    Login,
    /// `-`: nothing of it runs on this computer.
    None,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_refused_is_refused_whoever_else_allows() {
        let login = |name: &str, group: Option<usize>| {
            let mut groups = super::super::subject::GroupSet::default();
            group.into_iter().for_each(|g| groups.insert(g));
            Login { name: name.into(), groups, superuser: false }
        };
        let users = Users(vec![
            UserRule::Allow(Whom::Group("staff".into(), 70)),
            UserRule::Deny(Whom::Name("eve".into())),
        ]);
        assert!(
            users.allow(&login("ann", Some(70)))
                && !users.allow(&login("ann", None))
                && !users.allow(&login("eve", Some(70)))
        );
        let perhaps = |name: &str| users.allow_member(name, |_, _| None);
        assert!(!perhaps("ann") && !perhaps("eve"));
        let all_but = Users(vec![UserRule::Deny(Whom::Name("eve".into()))]);
        assert!(all_but.allow(&login("ann", None)) && !all_but.allow(&login("eve", None)));
    }
}
