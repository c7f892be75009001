//! The grammar of xinetd.conf(5), with xinetd's meaning but for its bugs.
//!
//! | file | what |
//! |---|---|
//! | `blocks` | files and includes, as blocks of lines |
//! | `attributes` | every attribute, one entry each |
//! | `lines` | the lines of a block, attribute by attribute |
//! | `draft`, `row` | a row while it is read; its columns and port |
//! | `etc` | names of networks |
//! | `remark` | the remarks about a block |

mod attributes;
mod blocks;
mod draft;
mod etc;
mod lines;
mod remark;
mod row;
#[cfg(test)]
mod rules_tests;
#[cfg(test)]
mod tcpmux_tests;
#[cfg(test)]
mod tests;

use super::super::endpoint::ProgramSocket;
use super::super::origin::Grammar;
use super::super::settings::LogType;
use super::assigned::Pair;
use super::builder::{Builder, Row as Whole};
use super::columns::Columns;
use super::entry::{Files, Operator};
use super::mistake::Weight;
use super::parse::yes;
use super::tcpmux::{self, TCPMUX, TCPMUX_PORT};
use blocks::Block;
use draft::{Draft, SwitchedOff, Type};
use etc::Etc;
use lines::Lines;
use remark::{Kind, Remarks, SWITCHED_OFF};
use row::{NOT_IPV4, Row, bind_address};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

/// What every row of xinetd has that says nothing else.
const USUAL: [(&str, &[&str]); 4] =
    [("groups", &["no"]), ("cps", &["50", "10"]), ("log_on_success", &[]), ("log_on_failure", &[])];

/// Attributes of `defaults` that hold only for the services after it in xinetd.
const ONLY_AFTER: [&str; 6] =
    ["only_from", "no_access", "passenv", "banner", "banner_success", "banner_fail"];

/// Rules of the service `tcpmux` that hold for every service that is reached by its name.
const RULES: [&str; 5] = ["only_from", "no_access", "access_times", "max_load", "banner"];

/// Attributes of the service `tcpmux` that hold for nothing.
const LIMITS: [&str; 2] = ["instances", "per_source"];

/// Reads a file, and those that it includes. `whole`: the grammar of the configuration as a whole.
pub fn read(builder: &mut Builder, path: &str, whole: Grammar) {
    let blocks = blocks::read(builder, path);
    let (etc, file) = (Etc::read(builder.files), path.into());
    for (name, words) in USUAL {
        builder.default(&pair(0, name, words), &file);
    }
    let mut reader = XinetdReader {
        builder,
        etc,
        defaults: Draft::default(),
        given: Vec::new(),
        rules: Vec::new(),
        tcpmux: Tcpmux::None,
        listen: None,
    };
    let is_defaults = |b: &&Block| b.kind == blocks::Kind::Defaults;
    for (n, block) in blocks.iter().enumerate().filter(|(_, b)| is_defaults(b)) {
        let before = &blocks[..n];
        let same_file = |b: &Block| is_defaults(&b) && Arc::ptr_eq(&b.file, &block.file);
        if before.iter().any(same_file) {
            let what = "expected one `defaults` in a file, found a second one: it is left out";
            reader.builder.mistakes.push(&block.file, block.line, "defaults", what);
        } else {
            reader.defaults(block, !before.iter().all(|b| is_defaults(&b)));
        }
    }
    let name = |b: &Block| match &b.kind {
        blocks::Kind::Service(name) => Some(name.clone()),
        blocks::Kind::Defaults => None,
    };
    let (tcpmux, rows): (Vec<Block>, Vec<Block>) =
        blocks.into_iter().partition(|b| name(b).is_some_and(|n| n.eq_ignore_ascii_case(TCPMUX)));
    for block in tcpmux.iter().chain(&rows) {
        if let Some(name) = name(block) {
            reader.service(&name, block);
        }
    }
    if let Some((file, pair)) = reader.listen.filter(|_| builder.serves_names(Grammar::Xinetd)) {
        tcpmux::listen(builder, &file, &pair, whole);
    }
}

/// Where fived listens as its service `tcpmux` says. None: that cannot be read, which is a remark.
fn listens(draft: &Draft, files: &mut dyn Files, remarks: &mut Remarks) -> Option<SocketAddr> {
    let port = match draft.port {
        None => TCPMUX_PORT,
        Some((n, line)) if n != TCPMUX_PORT && !draft.is(Type::Unlisted) => {
            let what = format!("expected {TCPMUX_PORT} without UNLISTED, found {n}");
            remarks.push(Kind::Broken, line, "port", what);
            return None;
        }
        Some((n, _)) => n,
    };
    let ip = match bind_address(draft, files) {
        Some(Ok(ip)) => ip,
        Some(Err((line, what))) => {
            remarks.push(Kind::Broken, line, "bind", what);
            return None;
        }
        None if draft.flags.only_v4() => Ipv4Addr::UNSPECIFIED.into(),
        None => Ipv6Addr::UNSPECIFIED.into(),
    };
    if draft.flags.only_v4() && ip.is_ipv6() {
        remarks.push(Kind::Broken, draft.flags.line, "IPv4", NOT_IPV4);
    }
    if let (Some((true, line)), true) = (draft.v6only, ip == Ipv6Addr::UNSPECIFIED) {
        let what = "fived's own port is open to IPv4 where it is to all of IPv6";
        remarks.push(Kind::NotServed, line, "v6only", what);
    }
    Some((ip, port).into())
}

/// The service `tcpmux`, which in xinetd is a service like others.
#[derive(Debug)]
enum Tcpmux {
    None,
    SwitchedOff,
    /// With these rules.
    On(Vec<Pair>),
}

struct XinetdReader<'a, 'b> {
    builder: &'a mut Builder<'b>,
    etc: Etc,
    /// What the `defaults` of all files say.
    defaults: Draft,
    /// The attributes that may be given once, and that they gave.
    given: Vec<&'static str>,
    /// fived's attributes that they gave.
    rules: Vec<Pair>,
    tcpmux: Tcpmux,
    /// Where fived listens if a service is reached by its name, and the file that says so.
    listen: Option<(Arc<str>, Pair)>,
}

impl XinetdReader<'_, '_> {
    /// A block of defaults: each file may have one, and they add up. What is wrong in it would be
    /// missing in every service: there is no table then, as xinetd does not start. `late`: services
    /// stand before it.
    fn defaults(&mut self, block: &Block, late: bool) {
        let mut draft = self.defaults.clone();
        let lines = Lines::new(self.builder, &self.etc, &mut draft);
        let (own, mut remarks) = lines.read(block, &mut self.given);
        if let (Some((true, line)), None) = (draft.v6only, self.defaults.v6only) {
            let what = "holds for every service; xinetd does not look at it in defaults";
            remarks.push(Kind::Differs, line, "v6only", what);
        }
        for name in ONLY_AFTER.iter().filter(|_| late) {
            let what = "holds for the services before it, too; in xinetd for those after it alone";
            if let Some(pair) = own.iter().find(|p| p.name == *name) {
                remarks.push(Kind::Differs, pair.line, name, what);
            }
        }
        let given = self.builder.settings().log_type != LogType::Stderr;
        let option = given && !self.builder.is_given("log_type");
        if let Some(pair) = own.iter().find(|p| option && p.name == "log_type") {
            let what = "fived has one log, which is where the option says; xinetd has one for its services";
            remarks.push(Kind::Differs, pair.line, "log_type", what);
        }
        let mistakes = &mut self.builder.mistakes;
        remarks.tell(mistakes, &block.file, Weight::Refused, false);
        let usual = std::mem::replace(&mut mistakes.weight, Weight::Refused);
        for pair in &own {
            if pair.name != "log_type" {
                self.builder.default(pair, &block.file);
            } else if !given {
                self.builder.setting(pair, &block.file);
            }
        }
        self.builder.mistakes.weight = usual;
        self.rules.extend(own);
        self.defaults = draft;
    }

    fn service(&mut self, name: &str, block: &Block) {
        let mut draft = self.defaults.inherited(block.line);
        let lines = Lines::new(self.builder, &self.etc, &mut draft);
        let (mut own, mut remarks) = lines.read(block, &mut Vec::new());
        let id = draft.id.clone().unwrap_or_else(|| name.into());
        let off_at = draft.switched_off(&id);
        let off = off_at.is_some();
        if draft.internal() && name.eq_ignore_ascii_case(TCPMUX) {
            return self.tcpmux(block, &draft, own, remarks, off);
        }
        if draft.by_name() {
            self.by_name(name, block, &mut own, &mut remarks);
        }
        self.other_meanings(block, &draft, &own, &mut remarks);
        let row = Row {
            name,
            id: &id,
            line: block.line,
            draft: &draft,
            files: self.builder.files,
            remarks: &mut remarks,
        };
        let (columns, port) = row.make();
        let line = block.line;
        let socket = columns.as_ref().map(|c| c.endpoint.socket);
        if let Some(what) = columns.as_ref().and_then(Columns::answers_less) {
            remarks.push(Kind::Differs, block.line, name, what);
        }
        let libwrap = if socket == Some(ProgramSocket::Listener) {
            self.accepts_by_itself(&draft, &mut remarks);
            "no".into()
        } else {
            draft.libwrap(name)
        };
        own.push(pair(line, "libwrap", &[&libwrap]));
        let time = draft.deny_time.as_deref().filter(|_| draft.flags.sensor);
        own.extend(time.map(|time| pair(line, "deny_time", &[time])));
        own.extend(port.map(|p| pair(line, "port", &[&p])));
        own.extend((!draft.by_name()).then(|| pair(line, "tcpmux", &["no"])));
        if off || block.broken || remarks.switch_off() {
            let from = off_at.map(|at| match at {
                SwitchedOff::Itself(line) => (block.file.clone(), line),
                SwitchedOff::ByDefaults(place) => place,
            });
            own.push(Pair { from, ..pair(line, "disable", &["yes"]) });
        }
        let mistakes = &mut self.builder.mistakes;
        let before = mistakes.len();
        remarks.tell(mistakes, &block.file, Weight::LeftOut, off);
        let Some(columns) = columns else { return };
        let usual = mistakes.weight;
        // Nobody is served by what is wrong in a row that its file switches off.
        mistakes.weight = if off { Weight::Noted } else { usual };
        let (file, columns) = (block.file.clone(), Ok(columns));
        self.builder.row(Whole { file, line, columns, own, before });
        self.builder.mistakes.weight = usual;
        self.builder.mistakes.end_after(before, SWITCHED_OFF);
    }

    /// A server that accepts its clients: nobody knows them before, so no rule can be asked whether
    /// it may be started for them.
    fn accepts_by_itself(&mut self, draft: &Draft, remarks: &mut Remarks) {
        if !draft.flags.no_libwrap && self.builder.files.has_access_rules() {
            let what = "hosts.allow or hosts.deny has a rule, and this server accepts by itself, so that nobody can ask for its clients; with the flag NOLIBWRAP it is served all the same";
            let line = draft.wait.map_or(0, |(_, line)| line);
            remarks.push(Kind::NotServed, line, "wait", what);
        }
    }

    /// The service `tcpmux` is fived itself, and no row. Its address is where fived listens, its
    /// rules hold for every service that is reached by its name.
    fn tcpmux(
        &mut self,
        block: &Block,
        draft: &Draft,
        own: Vec<Pair>,
        mut remarks: Remarks,
        off: bool,
    ) {
        if off {
            self.tcpmux = Tcpmux::SwitchedOff;
            return remarks.tell(&mut self.builder.mistakes, &block.file, Weight::LeftOut, off);
        }
        for pair in own.iter().filter(|p| LIMITS.contains(&p.name.as_str())) {
            let what = "limits nothing here: a limit belongs to each service, or max_connections of fived.conf(5) to all";
            remarks.push(Kind::Differs, pair.line, &pair.name, what);
        }
        if let Some(address) = listens(draft, self.builder.files, &mut remarks) {
            let pair = pair(block.line, "listen", &[&address.to_string()]);
            self.listen = Some((block.file.clone(), pair));
        }
        let broken = remarks.switch_off() || block.broken;
        remarks.tell(&mut self.builder.mistakes, &block.file, Weight::LeftOut, off);
        let rules = own.into_iter().filter(|p| RULES.contains(&p.name.as_str()));
        let from = |p: &Pair| Some((block.file.clone(), p.line));
        let rules = rules.map(|p| Pair { from: from(&p), ..p }).collect();
        self.tcpmux = if broken { Tcpmux::SwitchedOff } else { Tcpmux::On(rules) };
    }

    /// A service that is reached by its name.
    fn by_name(&mut self, name: &str, block: &Block, own: &mut Vec<Pair>, remarks: &mut Remarks) {
        match &self.tcpmux {
            Tcpmux::None => {
                let what =
                    "is reached by its name at fived's own port; xinetd asks for a service tcpmux";
                remarks.push(Kind::Differs, block.line, name, what);
            }
            Tcpmux::SwitchedOff => {
                let what = "a TCPMUX service, while the service tcpmux is switched off";
                remarks.push(Kind::NotServed, block.line, name, what);
            }
            Tcpmux::On(rules) => {
                for rule in rules {
                    if let Some(pair) = own.iter().find(|p| p.name == rule.name) {
                        let what = format!(
                            "the service tcpmux has {} too: say both here alone",
                            rule.name
                        );
                        remarks.push(Kind::NotServed, pair.line, &rule.name, what);
                    }
                }
                own.splice(..0, rules.iter().map(|p| Pair { line: block.line, ..p.clone() }));
            }
        }
        let what = "its rules and limits hold, which xinetd does not look at for TCPMUX services";
        remarks.push(Kind::Differs, block.line, name, what);
    }

    /// Where a row means something else than in xinetd.
    fn other_meanings(&self, block: &Block, draft: &Draft, own: &[Pair], remarks: &mut Remarks) {
        let last = |name: &str| self.rules.iter().chain(own).rfind(|p| p.name == name);
        if last("only_from").is_some() && last("no_access").is_some() {
            let what = "of `only_from` and `no_access` the more specific decides; xinetd refuses who is in both";
            remarks.push(Kind::Differs, block.line, "no_access", what);
        }
        let all = last("groups").is_some_and(|p| p.words.iter().any(|w| yes(w) == Ok(true)));
        if let (Some(group), true) = (last("group"), all) {
            let what =
                "stands in place of the user's own group; with `groups = yes` xinetd has both";
            remarks.push(Kind::Differs, group.line, "group", what);
        }
        if logs_traffic(self.rules.iter().chain(own)) && draft.redirect.is_none() {
            let what = "served with TRAFFIC, which xinetd does not serve without `redirect`";
            let last = own.iter().rfind(|p| p.name == "log_on_success");
            remarks.push(
                Kind::Differs,
                last.map_or(block.line, |p| p.line),
                "log_on_success",
                what,
            );
        }
        if let Some((false, line)) = draft.v6only.filter(|(_, line)| *line != block.line) {
            let what = "serves IPv4 too; xinetd takes no for yes";
            remarks.push(Kind::Differs, line, "v6only", what);
        }
    }
}

/// Is TRAFFIC in `log_on_success` after these lines?
fn logs_traffic<'a>(lines: impl Iterator<Item = &'a Pair>) -> bool {
    lines.filter(|p| p.name == "log_on_success").fold(false, |logs, p| {
        let named = p.words.iter().any(|w| w.eq_ignore_ascii_case("TRAFFIC"));
        match p.operator {
            Operator::Set => named,
            Operator::Add => logs || named,
            Operator::Remove => logs && !named,
        }
    })
}

/// An attribute of fived, given at a line.
fn pair(line: usize, name: &str, words: &[&str]) -> Pair {
    Pair::new(line, name, words.iter().map(|w| w.to_string()).collect())
}
