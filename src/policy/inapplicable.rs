//! Attributes that cannot hold for what serves the clients of a row. A row's own value is a mistake
//! there, and one that it inherits has no effect.

use super::attributes::{ATTRIBUTES, Attributes};
use super::backend::Backend;
use super::endpoint::{Endpoint, Family, ProgramSocket};
use super::text::entry::find;
use super::users::Users;
use std::time::Duration;

/// Such an attribute.
pub struct Inapplicable {
    pub name: &'static str,
    /// What is expected instead.
    pub expected: &'static str,
    /// Gives it the value that it has there.
    pub set: fn(&mut Attributes),
}

const fn attribute(
    name: &'static str,
    expected: &'static str,
    set: fn(&mut Attributes),
) -> Inapplicable {
    Inapplicable { name, expected, set }
}

const NO_UPSTREAM: &str = "expected a row of `redirect`, which alone has upstreams";
const PROXY: Inapplicable = attribute("proxy", NO_UPSTREAM, |a| a.proxy = None);
const CONNECT_TIMEOUT: Inapplicable = attribute(
    "connect_timeout",
    "expected a row of `redirect` or `offer`, which alone wait for others",
    |a| a.connect_timeout = ASK_TIMEOUT,
);
/// As in [`ATTRIBUTES`].
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
const FILE_MODE: u32 = 0o666;

const ONE_EACH: &str = "expected 1 for each port (one program at a time has its socket)";
const BY_ITSELF: &str = "expected none (the program itself accepts its clients)";
const UNREAD: &str = "expected a row of `nowait`, for nobody reads it here";
const WAIT: &[Inapplicable] = &[
    attribute("instances", ONE_EACH, |a| a.instances = Some(a.port.len().max(1) as u32)),
    attribute("per_source", BY_ITSELF, |a| a.per_source = None),
    attribute("lingering_close", BY_ITSELF, |a| a.lingering_close = false),
    attribute("banner", UNREAD, |a| a.banner = None),
    attribute("banner_success", UNREAD, |a| a.banner_success = None),
    attribute("banner_fail", UNREAD, |a| a.banner_fail = None),
];

const UNSEEN: &str =
    "expected UNLIMITED (fived does not see the end of a connection that it hands over)";
const HANDOVER: &[Inapplicable] = &[
    attribute("instances", UNSEEN, |a| a.instances = None),
    attribute("per_source", UNSEEN, |a| a.per_source = None),
    attribute("server_timeout", UNSEEN, |a| a.server_timeout = None),
    attribute(
        "lingering_close",
        "expected no (fived does not see the end of a connection that it hands over)",
        |a| a.lingering_close = false,
    ),
];

const NO_FILE: &str = "expected a row of `unix`, which alone has a file";
/// What only rows of one kind have, and whether it is set at all.
type Rare = (Inapplicable, fn(&Attributes) -> bool);
const OFFERED: Rare = (
    attribute("offered_by", "expected a row of `offer`, which alone others offer", |a| {
        a.offered_by = Users::default();
    }),
    |a| !a.offered_by.0.is_empty(),
);
const DENIES: Rare = (
    attribute("deny_time", "expected a row of `internal sensor`, which alone denies", |a| {
        a.deny_time = Some(0);
    }),
    |a| a.deny_time != Some(0),
);
const UPSTREAM: Rare = (PROXY, |a| a.proxy.is_some());
const ASKS: Rare = (CONNECT_TIMEOUT, |a| a.connect_timeout != ASK_TIMEOUT);
const FILE: &[Rare] = &[
    (attribute("socket_mode", NO_FILE, |a| a.socket_mode = FILE_MODE), |a| {
        a.socket_mode != FILE_MODE
    }),
    (attribute("socket_owner", NO_FILE, |a| a.socket_owner = None), |a| a.socket_owner.is_some()),
];

/// Those of a row that has these attributes.
pub fn of(
    backend: &Backend,
    endpoint: &Endpoint,
    given: &Attributes,
) -> Vec<&'static Inapplicable> {
    let all = of_kind(backend, endpoint.socket).iter();
    let rare: &[&Rare] = match backend {
        Backend::Redirect(_) => &[&OFFERED, &DENIES],
        Backend::Offer => &[&UPSTREAM, &DENIES],
        Backend::Sensor => &[&UPSTREAM, &ASKS, &OFFERED],
        Backend::Exec { .. } | Backend::Internal(_) | Backend::Handover { .. } => {
            &[&UPSTREAM, &ASKS, &OFFERED, &DENIES]
        }
    };
    let file = if endpoint.family == Family::Unix { &[] } else { FILE };
    let rare = rare.iter().copied().chain(file).filter(|(_, is_set)| is_set(given));
    all.chain(rare.map(|(v, _)| v)).collect()
}

/// Those that all rows of a kind have.
fn of_kind(backend: &Backend, socket: ProgramSocket) -> &'static [Inapplicable] {
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
    inapplicable: &[&Inapplicable],
    given: &Attributes,
    served: &Attributes,
    own: impl Iterator<Item = (&'a str, usize, String)>,
) -> Vec<(usize, &'static str, String)> {
    let found = own.filter_map(|(name, line, found)| {
        let v = inapplicable.iter().find(|v| v.name == name)?;
        let print = find(ATTRIBUTES, name)?.print;
        let what = format!("{}, found {found}", v.expected);
        (print(given) != print(served)).then_some((line, v.name, what))
    });
    found.collect()
}
