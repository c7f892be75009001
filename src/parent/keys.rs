//! The private keys' files: read, or made, and handed on. This process never reads what is in them:
//! each goes, with its certificate, to a keys process (`crate::keys`), which says what it can sign
//! by; what stays is one sealed file in memory that no byte of is mapped here, for the keys
//! processes of this configuration ([`super::signers`]). Where a copy was in this process's memory
//! it is wiped. A pair that fived makes for itself is made here, at the first start; where it
//! cannot be kept on the disk it stays in memory, for a reload must not make another.

use super::descriptors::own;
use super::inspector::Inspector;
use super::not_read::NotRead;
use crate::policy::{HostId, Table};
use crate::sys::spawn::Spawner;
use crate::sys::{clock, file};
use crate::wire::signing;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, RootCertStore};
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use zeroize::Zeroizing;

const CERTIFICATE: &str = "cert.pem";
const KEY: &str = "key.pem";
/// Days of a certificate that fived makes for itself: ten years.
const DAYS: u32 = 3650;
const DAY: Duration = Duration::from_secs(86_400);

/// The text of a private key's file: wiped when it is dropped.
type Secret = Zeroizing<Vec<u8>>;

/// A certificate chain, and what is known of its key.
#[derive(Debug)]
pub struct Pair {
    /// DER, the server's own first.
    pub chain: Vec<Vec<u8>>,
    /// The numbers of the schemes that the key can sign by.
    pub schemes: Vec<u16>,
    /// SHA-256 of the public key.
    hash: [u8; 32],
}

impl Pair {
    /// Reads the certificates (PEM) and has their key looked at. Err: what is wrong, as one
    /// sentence.
    fn new(chain: &[u8], key: &Secret, inspector: &mut Inspector) -> Result<Pair, String> {
        let chain: Vec<CertificateDer> = CertificateDer::pem_slice_iter(&certificates(chain))
            .collect::<Result<_, _>>()
            .map_err(|e| format!("certificate: {e}"))?;
        let Some(first) = chain.first() else {
            return Err("expected a PEM file with BEGIN CERTIFICATE, found no certificate".into());
        };
        let (hash, schemes) = inspector.look(first, key)?;
        Ok(Pair { chain: chain.iter().map(|c| c.to_vec()).collect(), schemes, hash })
    }

    /// What is wrong with the dates of its certificates now, as one sentence.
    fn out_of_date(&self) -> Option<String> {
        self.chain.iter().find_map(|der| {
            let certificate = CertificateDer::from(der.as_slice());
            let certificate = ParsedCertificate::try_from(&certificate).ok()?;
            // Nobody vouches for it here: its dates are looked at first.
            let nobody = RootCertStore::empty();
            match verify_server_cert_signed_by_trust_anchor(
                &certificate,
                &nobody,
                &[],
                UnixTime::now(),
                &[],
            ) {
                Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext {
                    not_after,
                    ..
                })) => Some(format!(
                    "expired on {}: a client that does not know its key refuses it",
                    clock::date(not_after.as_secs())
                )),
                Err(rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext {
                    not_before,
                    ..
                })) => Some(format!(
                    "valid from {} on only: is the clock right?",
                    clock::date(not_before.as_secs())
                )),
                _ => None,
            }
        })
    }

    /// `sha256//BASE64` of the public key, as curl pins it (and HPKP did, RFC 7469).
    pub fn fingerprint(&self) -> String {
        format!("sha256//{}", STANDARD.encode(self.hash))
    }
}

/// The certificates of a PEM file, as text: what else is in it, such as the key, is not decoded
/// here.
fn certificates(pem: &[u8]) -> Vec<u8> {
    const BEGIN: &[u8] = b"-----BEGIN ";
    let starts: Vec<usize> =
        pem.windows(BEGIN.len()).enumerate().filter(|(_, w)| *w == BEGIN).map(|(n, _)| n).collect();
    let ends = starts.iter().skip(1).copied().chain([pem.len()]);
    let parts = starts.iter().zip(ends).map(|(from, to)| &pem[*from..to]);
    parts.filter(|p| p[BEGIN.len()..].starts_with(b"CERTIFICATE-----")).collect::<Vec<_>>().concat()
}

/// Every pair of a configuration, and which one each host has.
#[derive(Debug, Default)]
pub struct Keys {
    pub pairs: Vec<Pair>,
    /// All of `pairs` with their keys (`wire::signing`), sealed, for who signs. None: there is no
    /// pair.
    pub secret: Option<OwnedFd>,
    /// For each host by number, an index of `pairs`.
    pub chosen: Vec<u32>,
    /// What the administrator should know: certificates whose time is over.
    pub warnings: Vec<String>,
    /// What the log should say: a certificate made, or one for this run only.
    pub notes: Vec<String>,
    /// fived's own pair is not on the disk: the next run has another.
    pub passing: bool,
    /// fived's own pair, where it is not on the disk: a reload makes no other.
    own: Option<Own>,
}

/// PEM: the certificate, and the key.
#[derive(Clone)]
struct Own(String, Zeroizing<String>);

impl fmt::Debug for Own {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("Own")
    }
}

impl Keys {
    /// Reads all that the table names; where it names none, the pair in the state directory, which
    /// is made if `make`; one that could not be kept there stays the same from `before`, for
    /// clients have pinned it. Err: `FILE:LINE: WORD: what` or a sentence for each mistake.
    pub fn read(
        table: &Table,
        make: bool,
        before: Option<&Keys>,
        spawner: &mut Spawner,
    ) -> Result<Keys, NotRead> {
        let (inspector, mut secrets) = (&mut Inspector::new(spawner), Vec::new());
        let own = before.and_then(|k| k.own.clone());
        let (mut keys, mut wrong) = (Keys { own, ..Keys::default() }, Vec::new());
        let s = &table.settings;
        let at = |host: HostId, (setting, what): (&str, String)| {
            format!("{}: {what}", table.place(host, setting))
        };
        let late = |host: HostId, setting, path: &str, pair: &Pair| {
            pair.out_of_date().map(|what| at(host, (setting, format!("{path}: {what}"))))
        };
        match given(s.certificate.as_deref(), s.key.as_deref(), inspector) {
            Ok(Some((p, secret))) => {
                keys.warnings.extend(late(
                    HostId::DEFAULT,
                    "certificate",
                    s.certificate.as_deref().unwrap_or_default(),
                    &p,
                ));
                keys.pairs.push(p);
                secrets.push(secret);
            }
            Ok(None) => match keys.own(table, make, inspector) {
                Ok(own) => {
                    let (pair, secret) = own.unzip();
                    secrets.extend(secret);
                    let path = state_directory(table).join(CERTIFICATE).display().to_string();
                    keys.warnings.extend(
                        pair.iter()
                            .filter_map(|p| late(HostId::DEFAULT, "state_directory", &path, p)),
                    );
                    keys.pairs.extend(pair);
                }
                Err(e) => wrong.push(at(HostId::DEFAULT, ("state_directory", e))),
            },
            Err(e) => wrong.push(at(HostId::DEFAULT, e)),
        }
        for (i, host) in table.hosts().iter().enumerate() {
            match given(host.certificate.as_deref(), host.key.as_deref(), inspector) {
                Ok(None) => keys.chosen.push(0),
                Ok(Some((p, secret))) => {
                    secrets.push(secret);
                    keys.warnings.extend(late(
                        HostId(i as u32),
                        "certificate",
                        host.certificate.as_deref().unwrap_or_default(),
                        &p,
                    ));
                    keys.pairs.push(p);
                    keys.chosen.push(keys.pairs.len() as u32 - 1);
                }
                Err(e) => wrong.push(at(HostId(i as u32), e)),
            }
        }
        if let Some(refused) = inspector.refused() {
            return Err(NotRead::Refused(refused));
        }
        if !wrong.is_empty() {
            return Err(NotRead::Wrong(wrong));
        }
        if !keys.pairs.is_empty() {
            let all: Vec<(&[u8], &[u8])> = keys
                .pairs
                .iter()
                .zip(&secrets)
                .map(|(p, s)| (p.chain[0].as_slice(), s.as_slice()))
                .collect();
            let text = Zeroizing::new(signing::encode(&all));
            keys.secret = Some(own::file(&text).map_err(NotRead::memory)?);
        }
        Ok(keys)
    }

    /// fived's own pair: the one in the state directory, made at the first start.
    fn own(
        &mut self,
        table: &Table,
        make_it: bool,
        inspector: &mut Inspector,
    ) -> Result<Option<(Pair, Secret)>, String> {
        let directory = state_directory(table);
        let (certificate, key) = (directory.join(CERTIFICATE), directory.join(KEY));
        // A home that cannot be entered holds nothing that this user has ever written there.
        let closed = table.settings.state_directory.is_none()
            && fs::metadata(&directory).is_err_and(|e| e.kind() == ErrorKind::PermissionDenied);
        let nothing = |e: &io::Error| match e.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => true,
            ErrorKind::PermissionDenied => closed,
            _ => false,
        };
        match (file::read(&certificate), file::read(&key)) {
            (Ok(c), Ok(k)) => {
                let k = Zeroizing::new(k);
                let pair = Pair::new(&c, &k, inspector)
                    .map_err(|e| format!("{}: {e}", certificate.display()))?;
                if let Some(mode) = mode_that_allows(&key, 0o077) {
                    self.notes.push(format!(
                        "{}: expected mode 0600, found {mode:04o}: users other than its owner can open it",
                        key.display()
                    ));
                }
                self.own = None;
                return Ok(Some((pair, k)));
            }
            // Never replaced while any of it may be there: clients have pinned it.
            (Err(c), Err(k)) if nothing(&c) && nothing(&k) && make_it => {}
            (Err(c), Err(k)) if nothing(&c) && nothing(&k) => return Ok(None),
            (_, Err(e)) => return Err(format!("{}: {e}", key.display())),
            (Err(e), _) => return Err(format!("{}: {e}", certificate.display())),
        }
        let Own(c, k) = match self.own.take() {
            Some(own) => own,
            None => make().map_err(|e| format!("certificate: {e}"))?,
        };
        let secret = Zeroizing::new(k.as_bytes().to_vec());
        let pair = Pair::new(c.as_bytes(), &secret, inspector)?;
        let (at, print) = (directory.display(), pair.fingerprint());
        self.notes.push(match keep(&directory, &c, &k) {
            Ok(()) => format!("made {} with key {print}", certificate.display()),
            Err(e) => {
                (self.passing, self.own) = (true, Some(Own(c, k)));
                format!("{at}: {e}: the certificate lives for this run only, with key {print}")
            }
        });
        Ok(Some((pair, secret)))
    }
}

/// The pair that settings name, if they do. Err: which setting, and `WORD: what` is wrong.
type Given = (Pair, Secret);

fn given(
    certificate: Option<&str>,
    key: Option<&str>,
    inspector: &mut Inspector,
) -> Result<Option<Given>, (&'static str, String)> {
    match (certificate, key) {
        (Some(c), k) => pair(c, k.unwrap_or(c), inspector).map(Some),
        (None, Some(k)) => Err((
            "key",
            format!("{k}: expected `certificate = FILE` beside the key, found no certificate"),
        )),
        (None, None) => Ok(None),
    }
}

fn pair(
    certificate: &str,
    key: &str,
    inspector: &mut Inspector,
) -> Result<Given, (&'static str, String)> {
    let of_key = if key == certificate { "certificate" } else { "key" };
    let read = |setting, path: &str| {
        file::read(path).map(Zeroizing::new).map_err(|e| (setting, format!("{path}: {e}")))
    };
    let (c, k) = (read("certificate", certificate)?, read(of_key, key)?);
    // Whoever can read the key is the server.
    if let Some(mode) = mode_that_allows(key.as_ref(), 0o007) {
        let what = format!("{key}: expected mode 0600, found {mode:04o}: every user can open it");
        return Err((of_key, what));
    }
    let pair =
        Pair::new(&c, &k, inspector).map_err(|e| ("certificate", format!("{certificate}: {e}")))?;
    Ok((pair, k))
}

/// The mode of a file, where it gives one of `rights`.
fn mode_that_allows(path: &Path, rights: u32) -> Option<u32> {
    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o7777;
    (mode & rights != 0).then_some(mode)
}

/// The directory in which fived keeps what it must remember.
pub fn state_directory(table: &Table) -> PathBuf {
    if let Some(d) = &table.settings.state_directory {
        return d.into();
    }
    if crate::sys::identity::effective_uid() == 0 {
        return "/var/lib/fived".into();
    }
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    set("XDG_STATE_HOME")
        .or_else(|| Some(set("HOME")?.join(".local/state")))
        .unwrap_or_else(|| "/nonexistent".into())
        .join("fived")
}

fn make() -> Result<Own, rcgen::Error> {
    let name = crate::sys::process::hostname();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name.as_str());
    params.distinguished_name = subject;
    params.subject_alt_names = name.as_str().try_into().map(SanType::DnsName).into_iter().collect();
    // From a day ago, for clocks that go slow.
    let today = rcgen::date_time_ymd(1970, 1, 1)
        + SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (params.not_before, params.not_after) = (today - DAY, today + DAY * DAYS);
    let certificate = params.self_signed(&key)?;
    Ok(Own(certificate.pem(), Zeroizing::new(key.serialize_pem())))
}

/// Writes both halves, the key first and for its owner alone; neither is there before it is whole.
fn keep(directory: &Path, certificate: &str, key: &str) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    let new = |name: &str| directory.join(format!("{name}.new"));
    for (name, text, mode) in [(KEY, key, 0o600), (CERTIFICATE, certificate, 0o644)] {
        let new = new(name);
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&new)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
    }
    [KEY, CERTIFICATE].into_iter().try_for_each(|name| fs::rename(new(name), directory.join(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_file_with_a_key_the_certificates_are_taken() {
        let certificate = "-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n";
        let key = "-----BEGIN PRIVATE KEY-----\nREVG\n-----END PRIVATE KEY-----\n";
        let all = format!("a word before\n{certificate}{key}{certificate}");
        assert_eq!(
            certificates(all.as_bytes()),
            format!("{certificate}{certificate}").into_bytes()
        );
        assert!(certificates(key.as_bytes()).is_empty());
    }
}
