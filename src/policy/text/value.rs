//! How values of the usual types are read and printed.

use super::entry::{Codec, Operator, Printed};
use super::lexer::quote;
use super::parse::{
    UNLIMITED, Wrong, any_of, each, expected, limit, number, path, seconds, unlimited, yes,
};
use std::fmt::Display;
use std::time::Duration;

/// `yes` or `no`.
pub const YES_NO: Codec<bool> = Codec {
    list: false,
    read: |value, given| {
        *value = yes(given.one()?)?;
        Ok(())
    },
    print: |value| Printed::Words(yes_or_no(*value).into()),
};

/// How [`YES_NO`] is printed.
pub fn yes_or_no(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

/// A whole number from 1 to `MAX`.
pub const fn count<const MAX: u32>() -> Codec<u32> {
    Codec {
        list: false,
        read: |value, given| {
            *value = number(given.one()?, 1..=MAX.into())? as u32;
            Ok(())
        },
        print: |value| Printed::Words(value.to_string()),
    }
}

/// A time from `MIN` seconds to a week.
pub const fn time<const MIN: u32>() -> Codec<Duration> {
    const MAX: u32 = 7 * 86_400;
    Codec {
        list: false,
        read: |value, given| {
            *value = Duration::from_secs(seconds(given.one()?, MIN..=MAX)?.into());
            Ok(())
        },
        print: |value| Printed::Words(value.as_secs().to_string()),
    }
}

/// Prints a limit; None: UNLIMITED.
pub fn print_limit<T: Display>(limit: Option<T>) -> Printed<'static> {
    Printed::Words(limit.map_or(UNLIMITED.into(), |n| n.to_string()))
}

/// A number above 0, or UNLIMITED.
pub const LIMIT: Codec<Option<u32>> = Codec {
    list: false,
    read: |value, given| {
        *value = limit(given.one()?)?;
        Ok(())
    },
    print: |value| print_limit(*value),
};

/// Seconds above 0, or UNLIMITED.
pub const TIME_LIMIT: Codec<Option<u32>> = Codec {
    list: false,
    read: |value, given| {
        let word = given.one()?;
        *value = if unlimited(word) { None } else { Some(seconds(word, 1..=u32::MAX)?) };
        Ok(())
    },
    print: |value| print_limit(*value),
};

/// Any one word.
pub const WORD: Codec<Option<String>> = Codec {
    list: false,
    read: |value, given| {
        *value = Some(given.one()?.into());
        Ok(())
    },
    print: print_word,
};

/// An absolute path.
pub const PATH: Codec<Option<String>> = Codec {
    list: false,
    read: |value, given| {
        *value = Some(path(given.one()?)?);
        Ok(())
    },
    print: print_word,
};

fn print_word(value: &Option<String>) -> Printed<'_> {
    value.as_ref().map_or(Printed::Nothing, |v| Printed::Words(quote(v)))
}

/// Words of a list, each quoted where needed.
pub fn print_list<T: ToString>(list: &[T]) -> Printed<'static> {
    Printed::Words(list.iter().map(|v| quote(&v.to_string())).collect::<Vec<_>>().join(" "))
}

/// A type with one word for each value.
pub trait Choice: Copy + PartialEq + 'static {
    /// Each value and its word, in lower case.
    const ALL: &'static [(Self, &'static str)];
}

/// One of these values.
pub const fn choice<T: Choice>() -> Codec<T> {
    Codec {
        list: false,
        read: |value, given| {
            let word = given.one()?;
            match T::ALL.iter().find(|(_, name)| name.eq_ignore_ascii_case(word)) {
                Some((found, _)) => {
                    *value = *found;
                    Ok(())
                }
                None => Err(Wrong::expected(any_of(T::ALL.iter().map(|(_, n)| *n)), word).into()),
            }
        },
        print: |value| {
            let word = T::ALL.iter().find(|(v, _)| v == value);
            word.map_or(Printed::Nothing, |(_, name)| Printed::Words((*name).into()))
        },
    }
}

/// A set whose members are words.
pub trait Flags: Copy + Default + 'static {
    /// Each word, and whether it is in the set.
    fn flags(&mut self) -> Vec<(&'static str, &mut bool)>;
}

/// Some of these words.
pub const fn flags<T: Flags>() -> Codec<T> {
    Codec {
        list: true,
        read: |value, given| {
            if given.operator == Operator::Set {
                *value = T::default();
            }
            let (mut all, on) = (value.flags(), given.operator != Operator::Remove);
            let set = |word: &str| match all.iter_mut().find(|(n, _)| n.eq_ignore_ascii_case(word))
            {
                Some((_, flag)) => {
                    **flag = on;
                    Ok(vec![()])
                }
                None => Err(expected(any_of(all.iter().map(|(n, _)| *n)), word)),
            };
            each(given.words, set).map(drop)
        },
        print: |value| {
            let mut value = *value;
            let on = value.flags().into_iter().filter(|(_, on)| **on).map(|(name, _)| name);
            Printed::Words(on.collect::<Vec<_>>().join(" "))
        },
    }
}

/// Reads a list word by word, by `read`.
pub fn read_list<T: PartialEq>(
    list: &mut Vec<T>,
    operator: Operator,
    words: &[&str],
    read: impl FnMut(&str) -> Result<Vec<T>, String>,
) -> Result<(), Vec<Wrong>> {
    operator.edit(list, each(words, read)?);
    Ok(())
}
