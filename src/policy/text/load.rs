//! A table out of files of several grammars: those that the administrator named, and those that
//! these name with a setting.

use super::super::origin::{Grammar, Origin};
use super::super::table::Table;
use super::builder::Builder;
use super::entry::Files;
use super::mistake::Mistake;
use super::{fived, xinetd};

/// Reads a configuration: what of it is right, and all that is to be said of it, in the order in
/// which it was read.
pub fn load(origin: &Origin, files: &mut dyn Files) -> (Table, Vec<Mistake>) {
    let first = origin.paths.first().map_or("", String::as_str);
    let mut builder = Builder::new(first, files, &fived::DIRECTIVES);
    read(&mut builder, origin.grammar, &origin.paths);
    let xinetd = builder.settings().xinetd.clone();
    read(&mut builder, Grammar::Xinetd, &xinetd);
    builder.finish()
}

fn read(builder: &mut Builder, grammar: Grammar, paths: &[String]) {
    for path in paths {
        builder.begin_file(grammar);
        match grammar {
            Grammar::Fived => fived::read(builder, path),
            Grammar::Xinetd => xinetd::read(builder, path),
        }
    }
}
