//! An attribute or setting is one entry of a table: its name, how its value is read, how `-T`
//! prints it, and whether the net process gets it. The readers, the printer and the lists of names
//! are all made from these tables.
//!
//! Which table an entry is in says where it may stand: `SETTINGS` (of fived as a whole, before the
//! first section), `HOST_SETTINGS` (at the beginning of a host's section), `ATTRIBUTES` (of a row,
//! and as the default before rows).

use super::super::banner::Banner;
use super::parse::{Wrong, one};
use std::net::IpAddr;

/// Where text comes from, and what else a grammar asks this computer. Errors are the system's
/// messages.
pub trait Files {
    /// The bytes of a file.
    fn read(&mut self, path: &str) -> Result<Vec<u8>, String>;
    /// The names of the files in a directory, sorted.
    fn list(&mut self, directory: &str) -> Result<Vec<String>, String>;
    /// The port of a name of services(5); `protocol`: `tcp` or `udp`.
    fn port(&mut self, _name: &str, _protocol: &str) -> Option<u16> {
        None
    }
    /// The addresses of a host's name, in the resolver's order. Err: why it has none.
    fn host(&mut self, _name: &str) -> Result<Vec<IpAddr>, String> {
        Err("no address found".into())
    }
    /// Has this computer the address ::1?
    fn has_v6_loopback(&mut self) -> bool {
        true
    }
    /// Has hosts.allow or hosts.deny a rule (hosts_access(5))?
    fn has_access_rules(&mut self) -> bool {
        false
    }
    /// The path of a program that is called by its name alone.
    fn program(&mut self, _name: &str) -> Option<String> {
        None
    }
}

/// What a line does with its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `=`
    Set,
    /// `+=`
    Add,
    /// `-=`
    Remove,
}

impl Operator {
    /// Changes a list.
    pub fn edit<T: PartialEq>(self, list: &mut Vec<T>, values: Vec<T>) {
        match self {
            Operator::Set => *list = values,
            Operator::Add => list.extend(values),
            Operator::Remove => list.retain(|v| !values.contains(v)),
        }
    }
}

/// What reading a value needs besides its words.
pub struct Context<'a> {
    /// For banners.
    pub files: &'a mut dyn Files,
    /// The groups that the table has named so far.
    pub groups: &'a mut Vec<String>,
}

/// A value, as it is written.
pub struct Written<'a, 'c> {
    /// The name of the entry.
    pub name: &'static str,
    pub operator: Operator,
    pub words: &'a [&'a str],
    pub context: &'a mut Context<'c>,
}

impl<'a> Written<'a, '_> {
    /// The one word of a value that has one.
    pub fn one(&self) -> Result<&'a str, Wrong> {
        one(self.name, self.words)
    }

    /// A mistake of the value as a whole.
    pub fn wrong(&self, what: impl Into<String>) -> Vec<Wrong> {
        Wrong::new(self.name, what).into()
    }
}

/// A value, as `-T` prints it.
#[derive(Debug, PartialEq, Eq)]
pub enum Printed<'a> {
    /// No line: the entry is not set, and no word means that.
    Nothing,
    /// What comes after the `=`, quoted where needed.
    Words(String),
    /// The path of this file.
    File(&'a Banner),
}

/// Which processes get the value. An attacker who controls the net process has everything that it
/// got, so that is only what it decides by: no programs, environments, paths or secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Only the parent.
    Parent,
    /// The net process too.
    Net,
}

/// How values of one type are read and printed.
pub struct Codec<V> {
    /// Is it a list, which `+=` and `-=` can change?
    pub list: bool,
    pub read: fn(&mut V, &mut Written) -> Result<(), Vec<Wrong>>,
    pub print: for<'a> fn(&'a V) -> Printed<'a>,
}

/// One attribute or setting of a `T`.
pub struct Entry<T> {
    pub name: &'static str,
    pub audience: Audience,
    /// Is it a list, which `+=` and `-=` can change?
    pub list: bool,
    pub read: fn(&mut T, &mut Written) -> Result<(), Vec<Wrong>>,
    pub print: for<'a> fn(&'a T) -> Printed<'a>,
}

impl<T> Entry<T> {
    /// Reads a value into `target`. Err: every word that is wrong.
    pub fn set(
        &self,
        target: &mut T,
        operator: Operator,
        words: &[&str],
        context: &mut Context,
    ) -> Result<(), Vec<Wrong>> {
        let mut written = Written { name: self.name, operator, words, context };
        if operator != Operator::Set && !self.list {
            return Err(written
                .wrong("expected `=`, because the attribute is not a list, found `+=` or `-=`"));
        }
        (self.read)(target, &mut written)
    }
}

/// The entry of that name.
pub fn find<T>(entries: &'static [Entry<T>], name: &str) -> Option<&'static Entry<T>> {
    entries.iter().find(|e| e.name == name)
}

/// Makes a struct, its `Default`, and the table of its entries, all from one list. A field:
/// `name: type = default, codec, audience;`, where the codec is a [`Codec`] of that type, and the
/// audience one of [`Audience`].
macro_rules! entries {
    ($(#[$doc:meta])* pub struct $Type:ident, $TABLE:ident {
        $($(#[$field:meta])* $name:ident: $value:ty = $default:expr, $codec:expr, $audience:ident;)*
    }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $Type { $($(#[$field])* pub $name: $value,)* }

        impl Default for $Type {
            fn default() -> Self {
                $Type { $($name: $default,)* }
            }
        }

        #[doc = concat!("Every entry of [`", stringify!($Type), "`], in the order of `-T`.")]
        pub static $TABLE: &[$crate::policy::text::entry::Entry<$Type>] = &[$({
            const CODEC: $crate::policy::text::entry::Codec<$value> = $codec;
            $crate::policy::text::entry::Entry {
                name: stringify!($name),
                audience: $crate::policy::text::entry::Audience::$audience,
                list: CODEC.list,
                read: |target, written| (CODEC.read)(&mut target.$name, written),
                print: |of| (CODEC.print)(&of.$name),
            }
        },)*];
    };
}
pub(in crate::policy) use entries;
