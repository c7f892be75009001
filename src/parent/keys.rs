//! The private keys' files: read, and handed to who signs.
//!
//! This process never reads what is in them. Each key goes, with its certificate, to a keys process
//! (`crate::keys`), which says what it can sign by. What stays here is one sealed file in memory,
//! of which no byte is mapped here, for the keys processes of this configuration
//! ([`super::signers`]). Copies in this process's memory are wiped.

use super::certificate::{Pair, Secret, mode_that_allows};
use super::descriptors::own;
use super::inspector::Inspector;
use super::not_read::NotRead;
use super::own_pair::{self, Own};
use crate::policy::{HostId, Table};
use crate::sys::file;
use crate::sys::spawn::Spawner;
use crate::wire::signing;
use std::os::fd::OwnedFd;
use zeroize::Zeroizing;

/// Every pair of a configuration, and which one each host has.
#[derive(Debug, Default)]
pub struct Keys {
    pub pairs: Vec<Pair>,
    /// All of `pairs` with their keys (`wire::signing`), sealed, for the keys processes. None:
    /// there is no pair.
    pub secret: Option<OwnedFd>,
    /// For each host by number, an index of `pairs`.
    pub chosen: Vec<u32>,
    /// Warnings for the administrator: certificates that are out of date.
    pub warnings: Vec<String>,
    /// What the log should say: a certificate made, or one for this run only.
    pub notes: Vec<String>,
    /// fived's own pair is not on the disk: the next run has another.
    pub passing: bool,
    /// fived's own pair, where it is not on the disk: a reload makes no other.
    own: Option<Own>,
}

impl Keys {
    /// Reads all that the table names; where it names none, fived's own pair, which is made if
    /// `make`, and stays the same as in `before`. Err: `FILE:LINE: WORD: what` or a sentence for
    /// each mistake.
    pub fn read(
        table: &Table,
        make: bool,
        before: Option<&Keys>,
        spawner: &mut Spawner,
    ) -> Result<Keys, NotRead> {
        let (keys, secrets, wrong) = (Keys::default(), Vec::new(), Vec::new());
        let mut reading =
            Reading { table, inspector: Inspector::new(spawner), keys, secrets, wrong };
        let s = &table.settings;
        match reading.given(HostId::DEFAULT, s.certificate.as_deref(), s.key.as_deref()) {
            Some(_) => {}
            None => reading.own(make, before.and_then(|k| k.own.clone())),
        }
        for (i, host) in table.hosts().iter().enumerate() {
            let (certificate, key) = (host.certificate.as_deref(), host.key.as_deref());
            let number = reading.given(HostId(i as u32), certificate, key).unwrap_or(0);
            reading.keys.chosen.push(number);
        }
        reading.finish()
    }
}

/// A configuration's keys while they are read.
struct Reading<'a> {
    table: &'a Table,
    inspector: Inspector<'a>,
    keys: Keys,
    /// The private keys of `keys.pairs`.
    secrets: Vec<Secret>,
    /// The mistakes, one line each.
    wrong: Vec<String>,
}

impl Reading<'_> {
    /// The pair that these settings of a host name: its number, if it can be used. None: they name
    /// none.
    fn given(&mut self, host: HostId, certificate: Option<&str>, key: Option<&str>) -> Option<u32> {
        match (certificate, key) {
            (None, None) => None,
            (None, Some(k)) => {
                let what = format!(
                    "{k}: expected `certificate = FILE` beside the key, found no certificate"
                );
                self.mistake(host, "key", &what);
                Some(0)
            }
            (Some(c), k) => Some(match pair(c, k.unwrap_or(c), &mut self.inspector) {
                Ok((pair, secret)) => self.add(host, ("certificate", c), pair, secret),
                Err((setting, what)) => {
                    self.mistake(host, setting, &what);
                    0
                }
            }),
        }
    }

    /// fived's own pair.
    fn own(&mut self, make: bool, before: Option<Own>) {
        match own_pair::read(self.table, make, before.clone(), &mut self.inspector) {
            Ok(Some(found)) => {
                self.keys.passing = found.unkept.is_some();
                self.keys.own = found.unkept;
                self.keys.notes.extend(found.note);
                let path = own_pair::certificate(self.table).display().to_string();
                let at = ("state_directory", path.as_str());
                self.add(HostId::DEFAULT, at, found.pair, found.secret);
            }
            Ok(None) => self.keys.own = before,
            Err(e) => self.mistake(HostId::DEFAULT, "state_directory", &e),
        }
    }

    fn mistake(&mut self, host: HostId, setting: &str, what: &str) {
        self.wrong.push(format!("{}: {what}", self.table.place(host, setting)));
    }

    /// Returns the pair's number.
    fn add(
        &mut self,
        host: HostId,
        (setting, path): (&str, &str),
        pair: Pair,
        secret: Secret,
    ) -> u32 {
        if let Some(what) = pair.out_of_date() {
            let place = self.table.place(host, setting);
            self.keys.warnings.push(format!("{place}: {path}: {what}"));
        }
        self.keys.pairs.push(pair);
        self.secrets.push(secret);
        self.keys.pairs.len() as u32 - 1
    }

    fn finish(mut self) -> Result<Keys, NotRead> {
        if let Some(refused) = self.inspector.refused() {
            return Err(NotRead::Refused(refused));
        }
        if !self.wrong.is_empty() {
            return Err(NotRead::Wrong(self.wrong));
        }
        if !self.keys.pairs.is_empty() {
            let pairs = self.keys.pairs.iter().zip(&self.secrets);
            let all: Vec<(&[u8], &[u8])> =
                pairs.map(|(p, s)| (p.chain[0].as_slice(), s.as_slice())).collect();
            let text = Zeroizing::new(signing::encode(&all));
            self.keys.secret = Some(own::file(&text).map_err(NotRead::memory)?);
        }
        Ok(self.keys)
    }
}

/// Reads a pair. Err: in which setting the mistake is, and `WORD: what` is wrong.
fn pair(
    certificate: &str,
    key: &str,
    inspector: &mut Inspector,
) -> Result<(Pair, Secret), (&'static str, String)> {
    let of_key = if key == certificate { "certificate" } else { "key" };
    let read = |setting, path: &str| {
        file::read(path).map(Zeroizing::new).map_err(|e| (setting, format!("{path}: {e}")))
    };
    let (c, k) = (read("certificate", certificate)?, read(of_key, key)?);
    // Who can read the key can act as this server.
    if let Some(mode) = mode_that_allows(key.as_ref(), 0o007) {
        let what = format!("{key}: expected mode 0600, found {mode:04o}: every user can open it");
        return Err((of_key, what));
    }
    let pair =
        Pair::new(&c, &k, inspector).map_err(|e| ("certificate", format!("{certificate}: {e}")))?;
    Ok((pair, k))
}
