//! The files of a directory that a configuration names: which of them are read.

use super::builder::Builder;
use super::mistake::Weight;

/// The paths of the files that `includedir` reads, in the order of their names, without those whose
/// names it `skips`. Such a name may be an oversight (`web.conf`), so there is a warning, unless it
/// is that of a leftover.
pub fn included(
    builder: &mut Builder,
    (file, line): (&str, usize),
    directory: &str,
    skips: fn(&str) -> bool,
) -> Vec<String> {
    let word = "includedir";
    let mut names = builder.files.list(directory).unwrap_or_else(|e| {
        builder.mistakes.push(file, line, word, format!("{directory}: {e}"));
        Vec::new()
    });
    names.sort_unstable();
    for name in names.iter().filter(|n| skips(n) && !is_leftover(n)) {
        let what = format!("{directory}/{name}: not read, because its name has a dot or a ~");
        builder.mistakes.push_as(Weight::Noted, file, line, word, what);
    }
    names.retain(|n| !skips(n));
    names.iter().map(|n| format!("{directory}/{n}")).collect()
}

/// A file that an editor or a package manager has left there.
pub fn is_leftover(name: &str) -> bool {
    name.starts_with(['.', '#'])
        || ["~", ".bak", ".old", ".orig", ".rej", ".save"].iter().any(|end| name.ends_with(end))
        || [".dpkg-", ".rpm", ".ucf-"].iter().any(|p| name.contains(p))
}
