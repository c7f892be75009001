//! The row or service tcpmux of other programs' files, which is fived itself: where fived listens.

use super::super::origin::Grammar;
use super::assigned::Pair;
use super::builder::Builder;
use super::mistake::Weight;
use std::sync::Arc;

/// The service that leads to all that have a name, and its port (RFC 1078).
pub const TCPMUX: &str = "tcpmux";
pub const TCPMUX_PORT: u16 = 1;

/// fived listens as this line of such a file says, unless fived.conf or an option says where. Who
/// has a fived.conf (`whole`) is told what becomes of its own port.
pub fn listen(builder: &mut Builder, file: &Arc<str>, pair: &Pair, whole: Grammar) {
    let given = builder.is_given("listen");
    if !given {
        builder.setting(pair, file);
    }
    let what = match (given, whole) {
        (true, _) => "fived listens where fived.conf says",
        (false, Grammar::Fived) => {
            "fived listens there alone: `listen` in fived.conf says where else"
        }
        (false, Grammar::Inetd | Grammar::Xinetd) => return,
    };
    builder.mistakes.push_as(Weight::Noted, file, pair.line, TCPMUX, what);
}
