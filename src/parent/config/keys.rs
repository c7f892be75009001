//! The files of certificates and private keys: read while a configuration is read.
//!
//! The parent never decodes a private key. It passes each one, with its certificate, to a keys
//! process (`crate::keys`), which checks it. All keys then stay in one sealed memory file, which is
//! not mapped into the parent, for the keys processes of this configuration
//! ([`crate::parent::signers`]). Copies in the parent's memory are wiped. What the parent keeps is
//! a key that the first one gives ([`Keys::mark`]) and that says nothing of it.

use super::certificate::{Pair, Secret, Wrong, mode_that_allows};
use super::error::ConfigError;
use super::inspector::Inspector;
use super::self_signed::{self, Unkept};
use crate::parent::descriptors::own;
use crate::policy::{HostId, Table};
use crate::sys::spawn::Spawner;
use crate::wire::signing;
use ring::hmac;
use std::os::fd::OwnedFd;
use zeroize::Zeroizing;

/// When a self-signed certificate is made, where none is given and none is kept on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Make {
    Never,
    /// Where a client may begin TLS: at a listener of fived's own, or at a `tls_port`.
    WhereTls,
    Always,
}

impl Make {
    /// Is one to be made? `tls`: a client may begin TLS.
    pub fn is_due(self, tls: bool) -> bool {
        match self {
            Make::Never => false,
            Make::WhereTls => tls,
            Make::Always => true,
        }
    }
}

/// Every pair of a configuration, and which one each host has.
#[derive(Debug, Default)]
pub struct Keys {
    pub pairs: Vec<Pair>,
    /// The sealed memory file with all of `pairs` and their private keys (`wire::signing`), for the
    /// keys processes. None: there is no pair.
    pub secret: Option<OwnedFd>,
    /// For each host by number, an index of `pairs`.
    pub chosen: Vec<u32>,
    /// Warnings for the administrator: certificates that are out of date.
    pub warnings: Vec<String>,
    /// Lines for the log: that a certificate is for this run only, say.
    pub notes: Vec<String>,
    /// Marks the ids of sessions as this server's own ([`crate::parent::sessions::resumables`]):
    /// derived from the default host's private key, so that it is the same in the next run.
    pub mark: [u8; 32],
    /// The self-signed pair, where it could not be kept on the disk: a reload uses it again, and
    /// the next run will make another.
    unkept: Option<Unkept>,
}

impl Keys {
    /// Reads all pairs that the table names. Where it names none for the default host, reads the
    /// self-signed pair: a missing one is made if `make`, and `before`'s is used again. `made`: as
    /// for [`crate::parent::config::read`]. Err: each mistake as `FILE:LINE: WORD: what`.
    pub fn read(
        table: &Table,
        make: bool,
        before: Option<&Keys>,
        spawner: &mut Spawner,
        made: &mut Vec<String>,
    ) -> Result<Keys, ConfigError> {
        let (keys, secrets, wrong) = (Keys::default(), Vec::new(), Vec::new());
        let mut reading = Reading {
            table,
            inspector: Inspector::new(spawner, before.is_some()),
            keys,
            secrets,
            wrong,
        };
        let s = &table.settings;
        match reading.given(HostId::DEFAULT, s.certificate.as_deref(), s.key.as_deref()) {
            Some(_) => {}
            None => made.extend(reading.self_signed(make, before.and_then(|k| k.unkept.clone()))),
        }
        for (i, host) in table.hosts().iter().enumerate() {
            let (certificate, key) = (host.certificate.as_deref(), host.key.as_deref());
            let number = reading.given(HostId(i as u32), certificate, key).unwrap_or(0);
            reading.keys.chosen.push(number);
        }
        reading.finish()
    }

    /// Why its self-signed pair, which is for this run only, could not be kept on the disk. None:
    /// it is kept, or there is none.
    pub fn why_unkept(&self) -> Option<&str> {
        self.unkept.as_ref().map(|u| u.why.as_str())
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
    /// Reads the pair that these settings of a host name. Returns its number. None: they name none.
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
                Ok((pair, secret)) => self.add(host, "certificate", c, pair, secret),
                Err(all) => {
                    all.iter().for_each(|(setting, what)| self.mistake(host, setting, what));
                    0
                }
            }),
        }
    }

    /// Reads or makes the self-signed pair. Returns a line about one that was made and kept.
    fn self_signed(&mut self, make: bool, before: Option<Unkept>) -> Option<String> {
        match self_signed::read(self.table, make, before.clone(), &mut self.inspector) {
            Ok(Some(found)) => {
                self.keys.unkept = found.unkept;
                self.keys.notes.extend(found.note);
                let place = self.table.place(HostId::DEFAULT, "state_directory");
                let warning = found.warning.map(|w| format!("{place}: state_directory: {w}"));
                self.keys.warnings.extend(warning);
                let path = self_signed::certificate(self.table).display().to_string();
                let setting = "state_directory";
                self.add(HostId::DEFAULT, setting, &path, found.pair, found.secret);
                return found.made;
            }
            Ok(None) => self.keys.unkept = before,
            Err(e) => self.mistake(HostId::DEFAULT, "state_directory", &e),
        }
        None
    }

    fn mistake(&mut self, host: HostId, setting: &str, what: &str) {
        self.wrong.push(format!("{}: {setting}: {what}", self.table.place(host, setting)));
    }

    /// Adds a pair. Returns its number.
    fn add(&mut self, host: HostId, setting: &str, path: &str, pair: Pair, secret: Secret) -> u32 {
        if let Some(what) = pair.out_of_date() {
            let place = self.table.place(host, setting);
            self.keys.warnings.push(format!("{place}: {setting}: {path}: {what}"));
        }
        self.keys.pairs.push(pair);
        self.secrets.push(secret);
        self.keys.pairs.len() as u32 - 1
    }

    fn finish(mut self) -> Result<Keys, ConfigError> {
        if let Some(refused) = self.inspector.refused() {
            return Err(ConfigError::System(refused));
        }
        if !self.wrong.is_empty() {
            return Err(ConfigError::Mistakes(self.wrong));
        }
        if !self.keys.pairs.is_empty() {
            let pairs = self.keys.pairs.iter().zip(&self.secrets);
            let all: Vec<(&[u8], &[u8])> =
                pairs.map(|(p, s)| (p.chain[0].as_slice(), s.as_slice())).collect();
            self.keys.mark = mark(&self.secrets[0]);
            let text = Zeroizing::new(signing::encode(&all));
            self.keys.secret = Some(own::file(&text).map_err(ConfigError::memory)?);
        }
        Ok(self.keys)
    }
}

/// A key for one purpose, from which the private key cannot be computed.
fn mark(private: &Secret) -> [u8; 32] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, private);
    let made = hmac::sign(&key, b"fived: ids of sessions that outlive their connections");
    made.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// What the first line of a private key in PEM has (RFC 7468).
const KEY_LINE: &[u8] = b"PRIVATE KEY-----";

/// A setting, and what is wrong with its file: `PATH: what`.
type WrongFile = (&'static str, String);

/// Reads a pair. Err: everything that is wrong with it.
fn pair(
    certificate: &str,
    key: &str,
    inspector: &mut Inspector,
) -> Result<(Pair, Secret), Vec<WrongFile>> {
    let mut read = |setting, path: &str| {
        let found = inspector.read(path.as_ref());
        found.map_err(|e| (setting, format!("{path}: {e}")))
    };
    let c = read("certificate", certificate);
    let (of_key, k) = match key == certificate {
        true => ("certificate", c.clone()),
        false => ("key", read("key", key)),
    };
    let (c, k) = match (c, k) {
        (Ok(c), Ok(k)) => (c, k),
        (c, k) => {
            let k = k.err().filter(|_| of_key == "key");
            return Err(c.err().into_iter().chain(k).collect());
        }
    };
    if of_key == "certificate" && !k.windows(KEY_LINE.len()).any(|w| w == KEY_LINE) {
        let what = format!(
            "{key}: expected a private key in this file, too, or `key = FILE` beside it, found neither"
        );
        return Err(vec![(of_key, what)]);
    }
    // Whoever can read the key can act as this server.
    if let Some(mode) = mode_that_allows(key.as_ref(), 0o007, inspector) {
        let what = format!("{key}: expected mode 0600, found {mode:04o}: every user can open it");
        return Err(vec![(of_key, what)]);
    }
    let pair = Pair::new(&c, &k, inspector).map_err(|wrong| match wrong {
        Wrong::Certificate(e) => vec![("certificate", format!("{certificate}: {e}"))],
        Wrong::Key(e) => vec![(of_key, format!("{key}: {e}"))],
    })?;
    Ok((pair, k))
}
