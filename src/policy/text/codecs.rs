//! How the values of single attributes are read and printed.

use super::super::banner::{BANNER_MAX, Banner};
use super::super::client_pattern::{self, ClientPattern};
use super::super::endpoint::{Owner, Port};
use super::super::hours::Hours;
use super::super::libwrap::Libwrap;
use super::super::users::{UserRule, Users};
use super::entry::{Codec, Operator, Printed, Written};
use super::lexer::quote;
use super::parse::{
    Wrong, each, expected, number, octal, path, plain, seconds, unlimited, variable,
};
use super::value::{print_limit, print_list, read_list};
use crate::wire::proxy::Version;

/// Bytes of `reply` at most.
const REPLY_MAX: usize = 255;

/// Names, `@group`, `!` before either.
pub const USERS: Codec<Users> = Codec {
    list: true,
    read: |users, written| {
        let before = users.0.len();
        let groups = &mut *written.context.groups;
        read_list(&mut users.0, written.operator, written.words, |w| {
            UserRule::read(w, groups).map(|w| vec![w])
        })?;
        let what = "nobody is left: expected at least one name, or `users =` for everybody";
        not_lifted(before, users.0.len(), written, what)
    },
    print: |users| print_list(&users.0),
};

/// Who may offer a service: as [`USERS`], but no names mean nobody.
pub const OFFERED_BY: Codec<Users> = Codec {
    list: true,
    read: |users, written| {
        let groups = &mut *written.context.groups;
        read_list(&mut users.0, written.operator, written.words, |w| {
            UserRule::read(w, groups).map(|w| vec![w])
        })
    },
    print: |users| print_list(&users.0),
};

/// As [`CLIENT_PATTERNS`]; None: from everywhere.
pub const ONLY_FROM: Codec<Option<Vec<ClientPattern>>> = Codec {
    list: true,
    read: |places, written| (CLIENT_PATTERNS.read)(places.get_or_insert_default(), written),
    print: |places| match places {
        Some(places) => print_list(places),
        None => Printed::Words("0.0.0.0/0 ::/0".into()),
    },
};

/// Addresses, networks and names.
pub const CLIENT_PATTERNS: Codec<Vec<ClientPattern>> = Codec {
    list: true,
    read: |places, written| {
        read_list(places, written.operator, written.words, client_pattern::read)
    },
    print: |places| print_list(places),
};

/// `[ADDRESS:]PORT`.
pub const PORTS: Codec<Vec<Port>> = Codec {
    list: true,
    read: |ports, written| {
        read_list(ports, written.operator, written.words, |w| Port::read(w).map(|p| vec![p]))
    },
    print: |ports| print_list(ports),
};

/// A number above 0.
pub const BACKLOG: Codec<Option<u32>> = Codec {
    list: false,
    read: |value, written| {
        *value = Some(number(written.one()?, 1..=i32::MAX.into())? as u32);
        Ok(())
    },
    print: |value| value.map_or(Printed::Nothing, |n| Printed::Words(n.to_string())),
};

/// `HH:MM-HH:MM`.
pub const HOURS: Codec<Vec<Hours>> = Codec {
    list: true,
    read: |hours, written| {
        let before = hours.len();
        read_list(hours, written.operator, written.words, |w| {
            Hours::read(w).map(|h| vec![h]).ok_or_else(|| expected("hours, HH:MM-HH:MM", w))
        })?;
        let what =
            "no hour is left: expected at least one interval, or `access_times =` for always";
        not_lifted(before, hours.len(), written, what)
    },
    print: |hours| print_list(hours),
};

/// An empty list is no rule. Only `=` may make it empty: whoever takes the last word away with `-=`
/// could have meant nobody.
fn not_lifted(was: usize, is: usize, written: &Written, what: &str) -> Result<(), Vec<Wrong>> {
    match written.operator {
        Operator::Remove if was > 0 && is == 0 => Err(written.wrong(what)),
        _ => Ok(()),
    }
}

/// A time of 0 seconds or more, or UNLIMITED.
pub const DENY_TIME: Codec<Option<u32>> = Codec {
    list: false,
    read: |value, written| {
        let word = written.one()?;
        *value = if unlimited(word) { None } else { Some(seconds(word, 0..=u32::MAX)?) };
        Ok(())
    },
    print: |value| print_limit(*value),
};

/// `yes`, `no`, or the name of a daemon in hosts_access(5).
pub const LIBWRAP: Codec<Libwrap> = Codec {
    list: false,
    read: |value, written| {
        *value = match written.one()? {
            "yes" => Libwrap::Yes,
            "no" => Libwrap::No,
            w if w.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-+".contains(&b)) => {
                Libwrap::Named(w.into())
            }
            w => return Err(Wrong::expected("yes, no or the name of a daemon", w).into()),
        };
        Ok(())
    },
    print: |value| {
        Printed::Words(match value {
            Libwrap::No => "no".into(),
            Libwrap::Yes => "yes".into(),
            Libwrap::Named(name) => name.clone(),
        })
    },
};

/// `RATE [SECONDS]`, or UNLIMITED.
pub const CPS: Codec<Option<(u32, u32)>> = Codec {
    list: false,
    read: |value, written| {
        *value = cps(written)?;
        Ok(())
    },
    print: |value| print_limit(value.map(|(rate, seconds)| format!("{rate} {seconds}"))),
};

/// `RATE`, `RATE SECONDS` or UNLIMITED.
fn cps(written: &Written) -> Result<Option<(u32, u32)>, Vec<Wrong>> {
    const RATE: &str = "RATE, RATE SECONDS or UNLIMITED";
    let rate = |w: &str| {
        let n = plain(w).filter(|&n: &u32| n > 0);
        n.ok_or_else(|| match plain(w) {
            Some(0_u32) => Wrong::expected("a rate from 1 or UNLIMITED", w),
            _ => Wrong::expected(RATE, w),
        })
    };
    match written.words {
        [w] if unlimited(w) => Ok(None),
        [n] => Ok(Some((rate(n)?, 10))),
        [n, time] => match (rate(n), seconds(time, 1..=u32::MAX)) {
            (Ok(n), Ok(time)) => Ok(Some((n, time))),
            (n, time) => Err(n.err().into_iter().chain(time.err()).collect()),
        },
        words => Err(written.wrong(format!("expected {RATE}, found {} words", words.len()))),
    }
}

/// A load average, or UNLIMITED.
pub const LOAD: Codec<Option<f64>> = Codec {
    list: false,
    read: |value, written| {
        let word = written.one()?;
        let n = plain(word).filter(|n: &f64| n.is_finite() && *n > 0.0);
        *value = match n {
            None if unlimited(word) => None,
            Some(n) => Some(n),
            None => {
                let what = "a load average such as 2.5, or UNLIMITED";
                return Err(Wrong::expected(what, word).into());
            }
        };
        Ok(())
    },
    print: |value| print_limit(*value),
};

/// As setpriority(2) takes it.
pub const NICE: Codec<i32> = Codec {
    list: false,
    read: |value, written| {
        *value = number(written.one()?, -20..=19)? as i32;
        Ok(())
    },
    print: |value| Printed::Words(value.to_string()),
};

/// Octal digits.
pub const UMASK: Codec<u32> = Codec {
    list: false,
    read: |value, written| {
        *value = octal(written.one()?)?;
        Ok(())
    },
    print: |value| Printed::Words(format!("{value:03o}")),
};

/// The permissions of a socket's file: octal digits.
pub const MODE: Codec<u32> = Codec {
    list: false,
    read: |value, written| {
        let what = "permissions of octal digits from 0 to 0777, such as 0660";
        let word = written.one()?;
        *value = octal(word).map_err(|_| Wrong::expected(what, word))?;
        Ok(())
    },
    print: |value| Printed::Words(format!("{value:04o}")),
};

/// `USER` or `USER:GROUP`.
pub const OWNER: Codec<Option<Owner>> = Codec {
    list: false,
    read: |value, written| {
        let word = written.one()?;
        *value = Some(Owner::read(word).map_err(|what| Wrong::new(word, what))?);
        Ok(())
    },
    print: |value| {
        value.as_ref().map_or(Printed::Nothing, |o| Printed::Words(quote(&o.to_string())))
    },
};

/// A number, perhaps with K or M, or UNLIMITED (`u64::MAX`).
pub const RLIMIT: Codec<Option<u64>> = Codec {
    list: false,
    read: |value, written| {
        *value = Some(rlimit(written.one()?)?);
        Ok(())
    },
    print: |value| match value {
        None => Printed::Nothing,
        Some(n) => print_limit((*n != u64::MAX).then_some(*n)),
    },
};

/// Processor time: a time, or UNLIMITED.
pub const RLIMIT_CPU: Codec<Option<u64>> = Codec {
    list: false,
    read: |value, written| {
        let word = written.one()?;
        *value = Some(match unlimited(word) {
            true => u64::MAX,
            false => seconds(word, 0..=u32::MAX)?.into(),
        });
        Ok(())
    },
    print: RLIMIT.print,
};

/// Descriptors without which no program starts: the three standard ones, and one with which its
/// file is read.
const FILES_MIN: u64 = 4;

/// A limit of descriptors: as [`RLIMIT`], with a least value.
pub const RLIMIT_FILES: Codec<Option<u64>> = Codec {
    list: false,
    read: |value, written| {
        let word = written.one()?;
        let n = rlimit(word)?;
        if n < FILES_MIN {
            let what = format!(
                "a number of {FILES_MIN} or more, or UNLIMITED, because no program starts with fewer descriptors"
            );
            return Err(Wrong::expected(what, word).into());
        }
        *value = Some(n);
        Ok(())
    },
    print: RLIMIT.print,
};

/// A number, perhaps with K or M, or UNLIMITED.
fn rlimit(word: &str) -> Result<u64, Wrong> {
    if unlimited(word) {
        return Ok(u64::MAX);
    }
    let (digits, unit) = match word.as_bytes().last() {
        Some(b'K' | b'k') => (&word[..word.len() - 1], 1 << 10),
        Some(b'M' | b'm') => (&word[..word.len() - 1], 1 << 20),
        _ => (word, 1),
    };
    let n = plain(digits).and_then(|n: u64| n.checked_mul(unit));
    n.ok_or_else(|| Wrong::expected("a number, perhaps with K or M, or UNLIMITED", word))
}

/// `NAME=value`; `-=` takes names alone too.
pub const ENV: Codec<Vec<(String, String)>> = Codec {
    list: true,
    read: |env, written| {
        let operator = written.operator;
        let pair = |w: &str| {
            let (name, value) = match w.split_once('=') {
                Some(pair) => pair,
                None if operator == Operator::Remove => (w, ""),
                None => return Err(expected("NAME=value", w)),
            };
            variable(name).map(|()| vec![(name.to_string(), value.to_string())])
        };
        let pairs = each(written.words, pair)?;
        if operator == Operator::Set {
            env.clear();
        }
        env.retain(|(k, _)| !pairs.iter().any(|(name, _)| name == k));
        if operator != Operator::Remove {
            env.extend(pairs);
        }
        Ok(())
    },
    print: |env| {
        let all: Vec<String> = env.iter().map(|(k, v)| format!("{k}={}", quote(v))).collect();
        Printed::Words(all.join(" "))
    },
};

/// Names of variables.
pub const PASSENV: Codec<Vec<String>> = Codec {
    list: true,
    read: |names, written| {
        read_list(names, written.operator, written.words, |w| {
            variable(w).map(|()| vec![w.to_string()])
        })
    },
    print: |names| print_list(names),
};

/// The path of a file, which is read at once.
pub const BANNER: Codec<Option<Banner>> = Codec {
    list: false,
    read: |banner, written| {
        let path = path(written.one()?)?;
        let text = written.context.files.read(&path).map_err(|e| Wrong::new(&path, e))?;
        if text.len() > BANNER_MAX {
            let what =
                format!("expected a banner of at most {BANNER_MAX} bytes, found {}", text.len());
            return Err(Wrong::new(&path, what).into());
        }
        *banner = Some(Banner { path, text: text.into() });
        Ok(())
    },
    print: |banner| banner.as_ref().map_or(Printed::Nothing, Printed::File),
};

/// `v1`, `v2` or `no`.
pub const PROXY: Codec<Option<Version>> = Codec {
    list: false,
    read: |value, written| {
        let word = written.one()?;
        *value = match word.to_ascii_lowercase().as_str() {
            "v1" => Some(Version::V1),
            "v2" => Some(Version::V2),
            "no" => None,
            _ => return Err(Wrong::expected("v1, v2 or no", word).into()),
        };
        Ok(())
    },
    print: |value| {
        let word = match value {
            Some(Version::V1) => "v1",
            Some(Version::V2) => "v2",
            None => "no",
        };
        Printed::Words(word.into())
    },
};

/// Words, or none.
pub const REPLY: Codec<String> = Codec {
    list: false,
    read: |reply, written| {
        let text = written.words.join(" ");
        let printable = |w: &&&str| w.bytes().all(|b| (b' '..=b'~').contains(&b));
        if let Some(word) = written.words.iter().find(|w| !printable(w)) {
            return Err(Wrong::expected("printable characters of ASCII", word).into());
        }
        if text.len() > REPLY_MAX {
            let n = text.len();
            return Err(written.wrong(format!("expected at most {REPLY_MAX} bytes, found {n}")));
        }
        *reply = text;
        Ok(())
    },
    print: |reply| Printed::Words(if reply.is_empty() { String::new() } else { quote(reply) }),
};
