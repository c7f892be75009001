//! Attributes that cannot hold for what serves the clients of a row. A row's own value is a mistake
//! there, and one that it inherits has no effect.

use super::attributes::{ATTRIBUTES, Attributes};
use super::backend::Backend;
use super::endpoint::ProgramSocket;
use super::text::entry::find;
use std::time::Duration;

/// Such an attribute.
pub struct InVain {
    pub name: &'static str,
    /// What is expected instead.
    pub expected: &'static str,
    /// Gives it the value that it has there.
    pub set: fn(&mut Attributes),
}

const fn vain(name: &'static str, expected: &'static str, set: fn(&mut Attributes)) -> InVain {
    InVain { name, expected, set }
}

const NO_UPSTREAM: &str = "expected a row of `redirect`, which alone has upstreams";
const PROXY: InVain = vain("proxy", NO_UPSTREAM, |a| a.proxy = None);
const CONNECT_TIMEOUT: InVain =
    vain("connect_timeout", NO_UPSTREAM, |a| a.connect_timeout = Duration::from_secs(5));

const BY_ITSELF: &str = "expected none (the program itself accepts its clients)";
const UNREAD: &str = "expected a row of `nowait`, for nobody reads it here";
const WAIT: &[InVain] = &[
    vain("instances", "expected 1 for each port (one program at a time has its socket)", |a| {
        a.instances = Some(a.port.len().max(1) as u32);
    }),
    vain("per_source", BY_ITSELF, |a| a.per_source = None),
    vain("lingering_close", BY_ITSELF, |a| a.lingering_close = false),
    vain("banner", UNREAD, |a| a.banner = None),
    vain("banner_success", UNREAD, |a| a.banner_success = None),
    vain("banner_fail", UNREAD, |a| a.banner_fail = None),
    PROXY,
    CONNECT_TIMEOUT,
];

const UNSEEN: &str =
    "expected UNLIMITED (fived does not see the end of a connection that it hands over)";
const HANDOVER: &[InVain] = &[
    vain("instances", UNSEEN, |a| a.instances = None),
    vain("per_source", UNSEEN, |a| a.per_source = None),
    vain("server_timeout", UNSEEN, |a| a.server_timeout = None),
    vain(
        "lingering_close",
        "expected no (fived does not see the end of a connection that it hands over)",
        |a| a.lingering_close = false,
    ),
    PROXY,
    CONNECT_TIMEOUT,
];

/// Those of a row.
pub fn of(backend: &Backend, socket: ProgramSocket) -> &'static [InVain] {
    match (socket, backend) {
        (ProgramSocket::Listener | ProgramSocket::Datagrams, _) => WAIT,
        (ProgramSocket::Connection, Backend::Handover { .. }) => HANDOVER,
        (
            ProgramSocket::Connection,
            Backend::Exec { .. }
            | Backend::Internal(_)
            | Backend::Redirect(_)
            | Backend::Sensor
            | Backend::Offer,
        ) => &[],
    }
}

/// The mistakes of a row: line, attribute, and what is wrong. `given` and `served`: its attributes
/// as they are written, and as they are served; `own`: the row's own, each with its line and value.
pub fn wrong<'a>(
    in_vain: &[InVain],
    given: &Attributes,
    served: &Attributes,
    own: impl Iterator<Item = (&'a str, usize, String)>,
) -> Vec<(usize, &'static str, String)> {
    let found = own.filter_map(|(name, line, found)| {
        let v = in_vain.iter().find(|v| v.name == name)?;
        let print = find(ATTRIBUTES, name)?.print;
        let what = format!("{}, found {found}", v.expected);
        (print(given) != print(served)).then_some((line, v.name, what))
    });
    found.collect()
}
