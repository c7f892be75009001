//! A warning about banners that clients of RUN cannot tell from the records that follow.

use crate::policy::{Service, Table};
use crate::wire::run;
use std::collections::HashSet;

/// Each banner of a service that is reached by its name and that has a byte which is a kind of
/// record, once for the line that names it.
pub fn warnings(table: &Table) -> Vec<String> {
    let mut told = HashSet::new();
    let reached = |s: &&Service| {
        let a = &*s.attributes;
        a.tcpmux && s.endpoint.announce && !a.disable
    };
    let all = table.services().iter().filter(reached).flat_map(of);
    all.filter(|text| told.insert(text.clone())).collect()
}

fn of(s: &Service) -> impl Iterator<Item = String> {
    let a = &*s.attributes;
    let both = [("banner", &a.banner), ("banner_success", &a.banner_success)];
    both.into_iter().filter_map(|(name, banner)| {
        let banner = banner.as_ref()?;
        let at = banner.text.iter().position(|b| run::is_kind_of_server(*b))?;
        let (file, line) = s.places.last(name).unwrap_or_else(|| (s.file.clone(), s.line));
        Some(format!(
            "{file}:{line}: {name}: {}: its byte {} is one from 0 to 3, with which records of RUN begin: five, and every client of RUN, loses the service there",
            banner.path,
            at + 1
        ))
    })
}
