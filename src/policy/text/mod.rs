//! How a configuration is written: the grammars, and what they share.
//!
//! | file | what |
//! |---|---|
//! | `load` | reads files of several grammars into one table |
//! | `fived` | the grammar of fived.conf(5) |
//! | `inetd` | that of inetd.conf(5): `inetd/lines`, `inetd/row`, `inetd/words`, `inetd/listen_address` |
//! | `xinetd` | that of xinetd.conf(5) |
//! | `tcpmux` | where fived listens as inetd.conf(5) and xinetd.conf(5) say |
//! | `columns` | the columns of a row, as in inetd.conf(5) |
//! | `directory` | which files of a directory are read |
//! | `builder`, `assigned` | from what a grammar has read to a table of whole services |
//! | `section` | the section that a line is in, and the order of the sections' rows |
//! | `print` | a table, written: for `-T`, and for the network process |
//! | `entry` | what an attribute or a setting is: a name, a reader, a printer |
//! | `value`, `codecs` | readers and printers of values |
//! | `parse`, `lexer`, `nearest`, `mistake` | words, and what is wrong with them |

pub(super) mod codecs;
pub(super) mod entry;
pub(super) mod lexer;
pub(super) mod parse;
pub(super) mod print;
pub(super) mod value;

mod assigned;
pub(super) mod builder;
mod columns;
mod directory;
mod fived;
mod inetd;
pub(super) mod load;
pub(super) mod mistake;
mod nearest;
mod section;
mod tcpmux;
#[cfg(test)]
mod tests;
mod xinetd;
