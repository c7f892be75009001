//! A table out of files of several grammars: those that the administrator named, and those that
//! these name with a setting.

use super::super::origin::{Grammar, Origin};
use super::super::table::Table;
use super::builder::Builder;
use super::entry::Files;
use super::mistake::Mistake;
use super::{fived, inetd, xinetd};

/// Reads a configuration: what of it is right, and all that is to be said of it, in the order in
/// which it was read.
pub fn load(origin: &Origin, files: &mut dyn Files) -> (Table, Vec<Mistake>) {
    let first = origin.paths.first().map_or("", String::as_str);
    let mut builder = Builder::new(first, files, &fived::DIRECTIVES);
    builder.given(&origin.given);
    read(&mut builder, origin, origin.grammar, &origin.paths);
    let s = builder.settings();
    let foreign = [(Grammar::Inetd, s.inetd.clone()), (Grammar::Xinetd, s.xinetd.clone())];
    for (grammar, paths) in foreign {
        read(&mut builder, origin, grammar, &paths);
    }
    builder.finish()
}

fn read(builder: &mut Builder, origin: &Origin, grammar: Grammar, paths: &[String]) {
    match grammar {
        _ if paths.is_empty() => {}
        Grammar::Fived => paths.iter().for_each(|path| {
            builder.begin_file(grammar);
            fived::read(builder, path);
        }),
        // A row counts instead of an earlier one, whichever file that is in.
        Grammar::Inetd => {
            builder.begin_file(grammar);
            inetd::read(builder, paths, origin);
        }
        Grammar::Xinetd => paths.iter().for_each(|path| {
            builder.begin_file(grammar);
            xinetd::read(builder, path, origin.grammar);
        }),
    }
}
