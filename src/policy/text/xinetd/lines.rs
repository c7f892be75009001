//! The lines of one block: each attribute becomes one of fived's, or a part of the draft of a row.

use super::super::super::client_pattern;
use super::super::super::hours::Hours;
use super::super::assigned::Pair;
use super::super::builder::Builder;
use super::super::entry::Operator;
use super::super::mistake::LINE_LEFT_OUT;
use super::super::nearest::nearest;
use super::super::parse::{UNLIMITED, variable};
use super::attributes::{ATTRIBUTES, Attribute, Becomes, Occurs, Stands, Words, find, unsigned};
use super::blocks::{self, Block};
use super::draft::{Draft, Value};
use super::etc::Etc;
use super::remark::{Kind, Remarks};
use ipnet::Ipv6Net;
use std::net::Ipv4Addr;

/// The end of a day, in minutes.
const MIDNIGHT: u16 = 24 * 60;

/// Reads the lines of a block.
pub struct Lines<'a, 'b> {
    builder: &'a mut Builder<'b>,
    etc: &'a Etc,
    draft: &'a mut Draft,
    own: Vec<Pair>,
    remarks: Remarks,
}

impl<'a, 'b> Lines<'a, 'b> {
    pub fn new(builder: &'a mut Builder<'b>, etc: &'a Etc, draft: &'a mut Draft) -> Lines<'a, 'b> {
        Lines { builder, etc, draft, own: Vec::new(), remarks: Remarks::default() }
    }

    /// The attributes of fived that the lines become, and the remarks about the block. `once`: the
    /// attributes that were given already and may not be given again.
    pub fn read(mut self, block: &Block, once: &mut Vec<&'static str>) -> (Vec<Pair>, Remarks) {
        for &line in &block.comments {
            let what = "a comment begins here; xinetd takes it for part of the value";
            self.remarks.push(Kind::Differs, line, "#", what);
        }
        for pair in &block.pairs {
            let defaults = block.kind == blocks::Kind::Defaults;
            let Some(attribute) = find(&pair.name) else {
                let similar = nearest(&pair.name, ATTRIBUTES.iter().map(|a| a.name));
                let wanted = similar.unwrap_or("an attribute of xinetd.conf(5)");
                self.ignored(pair, format!("expected {wanted}, found an unknown name"));
                continue;
            };
            if let Err(what) = fits(attribute, pair, defaults, once) {
                self.ignored(pair, what);
                continue;
            }
            once.extend((attribute.occurs == Occurs::Once).then_some(attribute.name));
            self.attribute(attribute, pair, block);
        }
        if !self.draft.only_v4() {
            self.own.iter_mut().for_each(mapped);
        }
        (self.own, self.remarks)
    }

    fn ignored(&mut self, pair: &Pair, what: String) {
        let what = what + LINE_LEFT_OUT;
        self.remarks.push(Kind::Ignored, pair.line, &pair.name, what);
    }

    fn attribute(&mut self, attribute: &'static Attribute, pair: &Pair, block: &Block) {
        let defaults = block.kind == blocks::Kind::Defaults;
        let words: Vec<&str> = pair.words.iter().map(String::as_str).collect();
        // In `defaults` xinetd adds up the lines of a list, even those with `=`.
        let adds = defaults && attribute.occurs == Occurs::List && pair.operator == Operator::Set;
        let operator = if adds { Operator::Add } else { pair.operator };
        let words = match attribute.becomes {
            Becomes::Nothing => None,
            Becomes::Row(read) => {
                let (file, line) = (&block.file, pair.line);
                let value = Value { file, line, operator, words: &words };
                if let Err(wrong) = read(self.draft, &value) {
                    self.remarks.push(Kind::Broken, pair.line, attribute.name, wrong.what);
                }
                None
            }
            Becomes::Same => Some(pair.words.clone()),
            Becomes::Number => Some(words.iter().map(|w| unsigned(w).into()).collect()),
            Becomes::Hours => Some(self.hours(pair)),
            Becomes::Log => Some(self.log(pair, operator)),
            Becomes::Clients => Some(self.clients(pair, &words)),
            Becomes::Banner => self.banner(pair, attribute.name),
            Becomes::Cps => Some(self.cps(pair, &words)),
            Becomes::Env => self.env(pair, operator),
            Becomes::LogType if defaults => Some(self.log_type(pair, &words)),
            Becomes::LogType => {
                let what = "the log lines of this service go where those of fived go";
                self.differs(pair, "log_type", what);
                None
            }
        };
        if let Some(words) = words {
            self.own.push(Pair { operator, ..Pair::new(pair.line, attribute.name, words) });
        }
    }

    fn differs(&mut self, pair: &Pair, word: &str, what: impl Into<String>) {
        self.remarks.push(Kind::Differs, pair.line, word, what);
    }

    fn clients(&mut self, pair: &Pair, words: &[&str]) -> Vec<String> {
        for word in words {
            if let Some(what) = self.more_than_in_xinetd(word) {
                self.differs(pair, word, what);
            }
        }
        let network = |w: &&str| client_pattern::as_name(self.etc.network(w).unwrap_or(w));
        words.iter().map(network).collect()
    }

    /// What stands for more clients here than in xinetd, as its state dump shows.
    fn more_than_in_xinetd(&self, word: &str) -> Option<&'static str> {
        let numbers = word.split('.').filter(|n| !n.is_empty()).count();
        let dotted = word.chars().all(|c| c.is_ascii_digit() || c == '.');
        match word.split_once('/') {
            _ if word == "::" => {
                Some("stands for all of IPv6; xinetd takes it for this one address")
            }
            Some((_, mask)) if mask.contains('.') && mask != "0.0.0.0" => {
                Some("a network of this mask; xinetd takes it for this one address")
            }
            None if dotted && numbers < 4 => {
                Some("a network; xinetd takes it for another address, or for the name of a host")
            }
            None if self.etc.network(word).is_some() => {
                Some("the network of this name; xinetd takes it for its first address alone")
            }
            _ => None,
        }
    }

    fn hours(&mut self, pair: &Pair) -> Vec<String> {
        let odd = |w: &&String| Hours::read(w).is_some_and(|h| h.from >= h.to || h.to == MIDNIGHT);
        if let Some(word) = pair.words.iter().find(odd) {
            let what = "served at these hours; xinetd switches off a service that has such hours";
            self.differs(pair, word, what);
        }
        pair.words.clone()
    }

    fn log(&mut self, pair: &Pair, operator: Operator) -> Vec<String> {
        let asks = pair.words.iter().any(|w| w.eq_ignore_ascii_case("USERID"));
        if asks && operator != Operator::Remove {
            let what = "the log has the user who logged in; xinetd asks an identification server (RFC 1413)";
            self.differs(pair, "USERID", what);
        }
        pair.words.clone()
    }

    fn banner(&mut self, pair: &Pair, name: &'static str) -> Option<Vec<String>> {
        let path = pair.words.concat();
        if let Err(e) = self.builder.files.read(&path) {
            self.differs(pair, name, format!("{path}: {e}: nothing is sent"));
            return None;
        }
        Some(vec![path])
    }

    fn cps(&mut self, pair: &Pair, words: &[&str]) -> Vec<String> {
        let what = "clients above the rate are refused; xinetd closes the port instead";
        self.differs(pair, "cps", what);
        let words: Vec<&str> = words.iter().map(|w| unsigned(w)).collect();
        match words[..] {
            ["0", _] => vec![UNLIMITED.into()],
            [rate, "0"] => vec![rate.into(), "1".into()],
            _ => words.iter().map(|w| w.to_string()).collect(),
        }
    }

    fn log_type(&mut self, pair: &Pair, words: &[&str]) -> Vec<String> {
        match words {
            [file, path, _, ..] if file.eq_ignore_ascii_case("FILE") => {
                self.differs(pair, "log_type", "the file may grow without limits");
                vec![(*file).into(), (*path).into()]
            }
            _ => pair.words.clone(),
        }
    }

    /// The variables whose names are valid.
    fn env(&mut self, pair: &Pair, operator: Operator) -> Option<Vec<String>> {
        if operator == Operator::Remove {
            let what = "expected = or +=, found -=";
            self.remarks.push(Kind::Broken, pair.line, "env", what);
            return None;
        }
        let mut words = Vec::new();
        for word in &pair.words {
            match word.split_once('=').map(|(name, _)| variable(name)) {
                Some(Ok(())) => words.push(word.clone()),
                Some(Err(what)) => {
                    let what = format!("{word}: {what}: it is left out (xinetd knows no quotes)");
                    self.remarks.push(Kind::Differs, pair.line, "env", what);
                }
                None => {
                    let what = format!("expected NAME=value, found {word:?}");
                    self.remarks.push(Kind::Broken, pair.line, "env", what);
                }
            }
        }
        Some(words)
    }
}

/// xinetd has one socket for both families, and compares an IPv4 client as the IPv6 address
/// ::ffff:A.B.C.D: a network of IPv6 that has them all stands for IPv4, too. What `-=` takes from
/// `no_access` is that network alone: another entry may refuse IPv4.
fn mapped(pair: &mut Pair) {
    let has_them_all = |word: &String| {
        let net = word.parse::<Ipv6Net>();
        net.is_ok_and(|n| n.prefix_len() < 96 && n.contains(&Ipv4Addr::LOCALHOST.to_ipv6_mapped()))
    };
    let list = match pair.name.as_str() {
        "only_from" => true,
        "no_access" => pair.operator != Operator::Remove,
        _ => false,
    };
    let all = "0.0.0.0/0".to_string();
    if list && pair.words.iter().any(has_them_all) && !pair.words.contains(&all) {
        pair.words.push(all);
    }
}

/// May the attribute be given in such a block, with this operator and this many words? `once`: the
/// attributes that were given already and may not be given again. Err: what was expected.
fn fits(a: &Attribute, pair: &Pair, defaults: bool, once: &[&str]) -> Result<(), String> {
    let n = pair.words.len();
    let wanted = match (a.words, n) {
        (Words::One, 1) | (Words::Two, 2) | (Words::Some, 1..) | (Words::Any, _) => None,
        (Words::One, _) => Some("one word"),
        (Words::Two, _) => Some("two words"),
        (Words::Some, _) => Some("a value"),
    };
    if defaults && a.stands == Stands::Service {
        Err("expected it in a service, found it in defaults".into())
    } else if !defaults && a.stands == Stands::Defaults {
        Err("expected it in defaults, found it in a service".into())
    } else if once.contains(&a.name) {
        Err("expected it once, found it a second time".into())
    } else if a.occurs == Occurs::Once && pair.operator != Operator::Set {
        Err("expected `=`, because the attribute is not a list, found `+=` or `-=`".into())
    } else if let Some(wanted) = wanted {
        Err(format!("expected {wanted}, found {n}"))
    } else {
        Ok(())
    }
}
