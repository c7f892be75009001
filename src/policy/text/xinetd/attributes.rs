//! Every attribute of xinetd.conf(5), one entry each: how many words it has, where it may stand,
//! and what becomes of it. To add one, add its entry.

use super::super::entry::Operator;
use super::super::parse::{UNLIMITED, Wrong, any_of, number, yes};
use super::draft::{Draft, Flags, Kind, Type, Value};

/// How many words a value has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Words {
    One,
    Two,
    /// One at least.
    Some,
    Any,
}

/// In which blocks it may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stands {
    Service,
    Defaults,
    Both,
}

/// How it may be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occurs {
    /// Once in a block, with `=`.
    Once,
    /// Any number of times, with `+=` and `-=` too.
    List,
}

/// What becomes of it.
#[derive(Clone, Copy)]
pub enum Becomes {
    /// fived's attribute of the same name, word for word.
    Same,
    /// As `Same`. A number may have a plus sign before it, which strtol(3) takes.
    Number,
    /// As `Same`. Hours at which xinetd would not serve are reported.
    Hours,
    /// As `Same`. USERID, which asks the client's computer in xinetd, is reported.
    Log,
    /// As `Same`, with the addresses of networks in place of their names in networks(5).
    Clients,
    /// As `Same`. A file that cannot be read is left out, as xinetd does.
    Banner,
    /// As `Same`. Variables with invalid names are left out.
    Env,
    /// fived's `cps`.
    Cps,
    /// fived's setting `log_type`, if it stands in `defaults`.
    LogType,
    /// A part of the row: a column, a port, or what decides about them.
    Row(fn(&mut Draft, &Value) -> Result<(), Wrong>),
    /// Nothing: it has no effect on Linux, or only on rows that are not served.
    Nothing,
}

pub struct Attribute {
    pub name: &'static str,
    pub words: Words,
    pub occurs: Occurs,
    pub stands: Stands,
    pub becomes: Becomes,
}

const fn entry(
    name: &'static str,
    words: Words,
    occurs: Occurs,
    stands: Stands,
    becomes: Becomes,
) -> Attribute {
    Attribute { name, words, occurs, stands, becomes }
}

use Becomes::{Banner, Clients, Cps, Env, Hours, Log, LogType, Nothing, Number, Row, Same};
use Occurs::{List, Once};
use Stands::{Both, Defaults, Service};
use Words::{Any, One, Some as Many, Two};

pub static ATTRIBUTES: &[Attribute] = &[
    entry("id", One, Once, Service, Row(|d, v| word(&mut d.id, v))),
    entry("type", Many, Once, Service, Row(types)),
    entry("flags", Many, Once, Service, Row(flags)),
    entry("disable", One, Once, Service, Row(disable)),
    entry("socket_type", One, Once, Service, Row(socket_type)),
    entry("protocol", One, Once, Service, Row(|d, v| set(&mut d.protocol, v))),
    entry("wait", One, Once, Service, Row(wait)),
    entry("user", One, Once, Service, Row(|d, v| set(&mut d.user, v))),
    entry("group", One, Once, Service, Same),
    entry("instances", One, Once, Both, Number),
    entry("nice", One, Once, Service, Number),
    entry("server", One, Once, Service, Row(|d, v| set(&mut d.server, v))),
    entry("server_args", Many, Once, Service, Row(server_args)),
    entry("libwrap", One, Once, Service, Row(libwrap)),
    entry("only_from", Any, List, Both, Clients),
    entry("no_access", Any, List, Both, Clients),
    entry("access_times", Many, Once, Service, Hours),
    entry("log_type", Many, Once, Both, LogType),
    entry("log_on_success", Any, List, Both, Log),
    entry("log_on_failure", Any, List, Both, Log),
    entry("rpc_version", One, Once, Service, Nothing),
    entry("rpc_number", One, Once, Service, Nothing),
    entry("env", Any, List, Service, Env),
    entry("passenv", Any, List, Both, Same),
    entry("port", One, Once, Service, Row(port)),
    entry("redirect", Two, Once, Service, Row(redirect)),
    entry("bind", One, Once, Both, Row(|d, v| set(&mut d.bind, v))),
    entry("banner", One, Once, Both, Banner),
    entry("banner_success", One, Once, Both, Banner),
    entry("banner_fail", One, Once, Both, Banner),
    entry("per_source", One, Once, Both, Number),
    entry("cps", Two, Once, Both, Cps),
    entry("max_load", One, Once, Both, Number),
    entry("groups", One, Once, Both, Same),
    // xinetd announces services by mDNS on macOS alone.
    entry("mdns", One, Once, Both, Nothing),
    entry("umask", One, Once, Both, Number),
    entry("enabled", Any, List, Defaults, Row(enabled)),
    entry("disabled", Any, List, Defaults, Row(disabled)),
    entry("rlimit_as", One, Once, Service, Number),
    entry("rlimit_cpu", One, Once, Service, Number),
    entry("rlimit_data", One, Once, Service, Number),
    entry("rlimit_files", One, Once, Service, Number),
    // Linux has had no such limit since 2.4.30.
    entry("rlimit_rss", One, Once, Service, Nothing),
    entry("rlimit_stack", One, Once, Service, Number),
    entry("v6only", One, Once, Both, Row(v6only)),
    entry("deny_time", One, Once, Service, Row(deny_time)),
];

/// The attribute of that name, without regard to case, as xinetd has it.
pub fn find(name: &str) -> Option<&'static Attribute> {
    // Two names of one attribute: the second of two such lines is left out, whatever its name is.
    let name = if name.eq_ignore_ascii_case("interface") { "bind" } else { name };
    ATTRIBUTES.iter().find(|a| a.name.eq_ignore_ascii_case(name))
}

/// The number of a word that may have a plus sign before it.
pub fn unsigned(word: &str) -> &str {
    word.strip_prefix('+').filter(|n| n.starts_with(|c: char| c.is_ascii_digit())).unwrap_or(word)
}

/// Keeps the only word of a value.
fn word(target: &mut Option<String>, value: &Value) -> Result<(), Wrong> {
    *target = value.words.first().map(|w| (*w).into());
    Ok(())
}

/// Keeps the only word of a value, and its line.
fn set(target: &mut Option<(String, usize)>, value: &Value) -> Result<(), Wrong> {
    *target = value.words.first().map(|w| ((*w).into(), value.line));
    Ok(())
}

/// Finds each word in a table of names.
fn named<T: Copy>(table: &[(&str, T)], words: &[&str]) -> Result<Vec<T>, Wrong> {
    let one = |word: &&str| {
        let found = table.iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
        let all = || any_of(table.iter().map(|(name, _)| *name));
        found.map(|(_, value)| *value).ok_or_else(|| Wrong::expected(all(), word))
    };
    words.iter().map(one).collect()
}

fn types(d: &mut Draft, v: &Value) -> Result<(), Wrong> {
    const ALL: [(&str, Type); 6] = [
        ("RPC", Type::Rpc),
        ("INTERNAL", Type::Internal),
        ("UNLISTED", Type::Unlisted),
        ("SPECIAL", Type::Special),
        ("TCPMUX", Type::Tcpmux),
        ("TCPMUXPLUS", Type::TcpmuxPlus),
    ];
    d.types = named(&ALL, v.words)?;
    d.types_line = v.line;
    Ok(())
}

fn flags(d: &mut Draft, v: &Value) -> Result<(), Wrong> {
    type Set = fn(&mut Flags);
    const NONE: Set = |_| {};
    const ALL: [(&str, Set); 12] = [
        // Every service has it, of xinetd and of fived.
        ("REUSE", NONE),
        ("INTERCEPT", |f| f.not_served = Some("INTERCEPT")),
        // fived never starts a program a second time.
        ("NORETRY", NONE),
        ("IDONLY", |f| f.not_served = Some("IDONLY")),
        ("NAMEINARGS", |f| f.name_in_args = true),
        ("NODELAY", |f| f.nodelay = true),
        // Every connection of fived has it.
        ("KEEPALIVE", NONE),
        ("NOLIBWRAP", |f| f.no_libwrap = true),
        ("SENSOR", |f| f.sensor = true),
        ("IPv4", |f| f.v4 = true),
        ("IPv6", |f| f.v6 = true),
        ("LABELED", |f| f.not_served = Some("LABELED")),
    ];
    d.flags.line = v.line;
    named(&ALL, v.words)?.into_iter().for_each(|set| set(&mut d.flags));
    Ok(())
}

/// The one word of a value that is `yes` or `no`.
fn yes_no(v: &Value) -> Result<bool, Wrong> {
    yes(v.words.first().copied().unwrap_or_default())
}

fn disable(d: &mut Draft, v: &Value) -> Result<(), Wrong> {
    d.disable = yes_no(v)?.then_some(v.line);
    Ok(())
}

fn wait(d: &mut Draft, v: &Value) -> Result<(), Wrong> {
    d.wait = Some((yes_no(v)?, v.line));
    Ok(())
}

fn v6only(d: &mut Draft, v: &Value) -> Result<(), Wrong> {
    d.v6only = Some((yes_no(v)?, v.line));
    Ok(())
}

fn socket_type(d: &mut Draft, v: &Value) -> Result<(), Wrong> {
    const ALL: [(&str, Kind); 4] = [
        ("stream", Kind::Stream),
        ("dgram", Kind::Dgram),
        ("raw", Kind::Raw),
        ("seqpacket", Kind::Seqpacket),
    ];
    d.kind = named(&ALL, v.words)?.first().map(|kind| (*kind, v.line));
    Ok(())
}

/// The name of a daemon in hosts_access(5). `yes` and `no` have a meaning of their own in fived's
/// attribute, so they cannot be names here.
fn libwrap(d: &mut Draft, v: &Value) -> Result<(), Wrong> {
    match v.words {
        [word @ ("yes" | "no")] => Err(Wrong::expected("the name of a daemon", word)),
        _ => word(&mut d.libwrap, v),
    }
}

fn server_args(d: &mut Draft, v: &Value) -> Result<(), Wrong> {
    d.arguments = v.words.iter().map(|w| w.to_string()).collect();
    Ok(())
}

fn port(d: &mut Draft, v: &Value) -> Result<(), Wrong> {
    let word = v.words.first().copied().unwrap_or_default();
    d.port = Some((number(unsigned(word), 0..=u16::MAX.into())? as u16, v.line));
    Ok(())
}

fn redirect(d: &mut Draft, v: &Value) -> Result<(), Wrong> {
    if let [host, port] = v.words {
        d.redirect = Some((host.to_string(), port.to_string(), v.line));
    }
    Ok(())
}

/// Minutes, for which a client that touches a sensor is refused.
fn deny_time(d: &mut Draft, v: &Value) -> Result<(), Wrong> {
    let word = v.words.first().copied().unwrap_or_default();
    d.deny_time = Some(match word.to_ascii_uppercase().as_str() {
        "FOREVER" => UNLIMITED.into(),
        "NEVER" => "0".into(),
        minutes => match minutes.parse::<u32>() {
            Ok(minutes) => minutes.saturating_mul(60).to_string(),
            Err(_) => return Err(Wrong::expected("minutes, FOREVER or NEVER", word)),
        },
    });
    Ok(())
}

fn enabled(d: &mut Draft, v: &Value) -> Result<(), Wrong> {
    let ids = v.words.iter().map(|w| w.to_string()).collect();
    let (all, at) = d.enabled.get_or_insert_with(|| (Vec::new(), v.place()));
    v.operator.edit(all, ids);
    *at = v.place();
    Ok(())
}

fn disabled(d: &mut Draft, v: &Value) -> Result<(), Wrong> {
    if v.operator == Operator::Remove {
        d.disabled.retain(|(id, _)| !v.words.contains(&id.as_str()));
    } else {
        d.disabled.extend(v.words.iter().map(|w| (w.to_string(), v.place())));
    }
    Ok(())
}
