//! The users that fived's own processes run as where root started it. Nobody else has their uids,
//! so that no service and no user of the system can stop, trace or signal these processes.

use super::catalog::Catalog;
use crate::policy::{Table, UserSpec};
use crate::sys::identity;
use crate::sys::processes;
use crate::wire::roles::Ids;
use std::collections::HashSet;

/// The account that is used if it exists.
const ACCOUNT: &str = "_fived";
/// Ids that no distribution gives to an account: systemd's for DynamicUser (systemd.exec(5)).
pub const NUMBERS: std::ops::RangeInclusive<u32> = 61_184..=65_519;
/// The first of them that is tried. It is fixed, so that reloads and restarts choose the same one.
const FIRST: u32 = 63_417;

/// The users that fived's own processes run as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnUsers {
    /// The net process.
    pub net: Ids,
    /// Processes that help the parent: login tries and look-ups. It is never net's user, so that an
    /// attacker who controls net has no power over them.
    pub helper: Ids,
}

/// The ids that the services of rows run as, except those of `*`, which is the user who logs in.
struct Rows {
    uids: HashSet<u32>,
    gids: HashSet<u32>,
}

impl OwnUsers {
    /// Chooses the users for a table; those of `before` again if they are still free. None: an
    /// ordinary user started fived, and all processes run as that user. Err: what is wrong with the
    /// setting `user`.
    pub fn choose(
        table: &Table,
        catalog: &Catalog,
        before: Option<OwnUsers>,
    ) -> Result<Option<OwnUsers>, String> {
        if identity::effective_uid() != 0 {
            return Ok(None);
        }
        let rows = Rows::of(table, catalog);
        let running = processes::users_running();
        let free = |ids: Ids, except: Option<u32>| {
            !rows.uids.contains(&ids.0)
                && !rows.gids.contains(&ids.1)
                && Some(ids.0) != except
                && !catalog.is_user(ids.0)
                && !catalog.is_group(ids.1)
        };
        let unused = |before: Option<Ids>, except: Option<u32>| {
            let kept = before.filter(|ids| NUMBERS.contains(&ids.0) && free(*ids, except));
            let all = (FIRST..=*NUMBERS.end()).chain(*NUMBERS.start()..FIRST).map(|n| (n, n));
            kept.or_else(|| {
                all.into_iter().find(|ids| !running.contains(&ids.0) && free(*ids, except))
            })
        };
        let none = || {
            format!(
                "expected a user of its own, found none free from {} to {}; `user = NAME` names one",
                NUMBERS.start(),
                NUMBERS.end()
            )
        };
        let net = match named(table, catalog)? {
            Some((name, ids)) => {
                rows.refuse(&name, ids.0)?;
                ids
            }
            None => unused(before.map(|b| b.net), None).ok_or_else(none)?,
        };
        let helper = unused(before.map(|b| b.helper), Some(net.0)).ok_or_else(none)?;
        Ok(Some(OwnUsers { net, helper }))
    }

    /// The account of the net process that a table asks for, or else the usual one.
    pub fn account(table: &Table) -> &str {
        table.settings.user.as_deref().unwrap_or(ACCOUNT)
    }

    /// The user of a look-up while a configuration is read, when the users for its table are not
    /// chosen yet: the helper of `before`, or one that nobody has. None: as for [`Self::choose`].
    pub fn for_look_up(before: Option<OwnUsers>) -> Result<Option<Ids>, String> {
        if identity::effective_uid() != 0 {
            return Ok(None);
        }
        let running = processes::users_running();
        let unused = |n: &u32| {
            !running.contains(n) && identity::by_uid(*n).is_none() && !identity::is_group(*n)
        };
        let found = before.map(|b| b.helper);
        let found = found.or_else(|| NUMBERS.rev().find(unused).map(|n| (n, n)));
        found.map(Some).ok_or_else(|| "no user is free for looking it up".into())
    }

    /// Is that uid one of these?
    pub fn has(&self, uid: u32) -> bool {
        [self.net.0, self.helper.0].contains(&uid)
    }
}

/// The user that the setting names; without the setting, the usual account. None: there is no
/// setting and no such account.
fn named(table: &Table, catalog: &Catalog) -> Result<Option<(String, Ids)>, String> {
    let name = OwnUsers::account(table);
    let found = catalog.user(name).map(|u| (u.uid, u.gid));
    if table.settings.user.is_none() {
        return Ok(found.filter(|ids| ids.0 != 0).map(|ids| (name.into(), ids)));
    }
    match found {
        None => Err(format!("expected a user of this computer, found {name:?}")),
        Some((0, _)) => {
            Err(format!("expected a user that is not root, such as {ACCOUNT}, found {name:?}"))
        }
        Some(ids) => Ok(Some((name.into(), ids))),
    }
}

impl Rows {
    fn of(table: &Table, catalog: &Catalog) -> Rows {
        let mut rows = Rows { uids: HashSet::new(), gids: HashSet::new() };
        for s in table.services() {
            if let UserSpec::Named { user, .. } = &s.user {
                let found = catalog.user(user);
                rows.gids.extend(found.as_ref().map(|u| u.gid));
                rows.uids.extend(found.map(|u| u.uid).or_else(|| user.parse().ok()));
            }
            if let Some(group) = s.group() {
                rows.gids.extend(catalog.group(group).or_else(|| group.parse().ok()));
            }
        }
        rows
    }

    fn refuse(&self, name: &str, uid: u32) -> Result<(), String> {
        match self.uids.contains(&uid) {
            true => Err(format!(
                "expected a user that no row runs as, found {name:?}: such a service could stop the network process"
            )),
            false => Ok(()),
        }
    }
}
