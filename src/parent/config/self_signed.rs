//! The self-signed certificate and its key, for a configuration that names none: made at the first
//! start and kept in the state directory. Where they cannot be kept there they stay in memory, so
//! that a reload does not make new ones: clients have pinned the key.

use super::certificate::{Pair, Secret, Wrong, mode_that_allows};
use super::inspector::Inspector;
use crate::policy::Table;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, SanType,
};
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use zeroize::Zeroizing;

const CERTIFICATE: &str = "cert.pem";
const KEY: &str = "key.pem";
/// How long a self-signed certificate is valid: ten years.
const DAYS: u32 = 3650;
const DAY: Duration = Duration::from_secs(86_400);
/// What to do about a pair that cannot be used.
const MEND: &str = "restore cert.pem and key.pem from a copy, or remove both: fived then makes others, which clients that know the old key refuse";

/// The certificate and its key, as text (PEM).
#[derive(Clone)]
pub struct SelfSigned(String, Zeroizing<String>);

// The key must not get into a log.
impl fmt::Debug for SelfSigned {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("SelfSigned")
    }
}

/// A pair that could not be kept on the disk.
#[derive(Debug, Clone)]
pub struct Unkept {
    pair: SelfSigned,
    /// `DIRECTORY: error`
    pub why: String,
}

/// The pair, as it was found or made.
pub struct FoundPair {
    pub pair: Pair,
    pub secret: Secret,
    /// A line for the log: it was made, and is kept on the disk.
    pub made: Option<String>,
    /// Another line about it for the log.
    pub note: Option<String>,
    /// What should be changed about its files.
    pub warning: Option<String>,
    pub unkept: Option<Unkept>,
}

/// The path of the certificate.
pub fn certificate(table: &Table) -> PathBuf {
    state_directory(table).join(CERTIFICATE)
}

/// Reads the pair in the state directory. Where there is none and `make_it`, it keeps the pair
/// `before` there, or makes one. Err: a sentence.
pub fn read(
    table: &Table,
    make_it: bool,
    before: Option<Unkept>,
    inspector: &mut Inspector,
) -> Result<Option<FoundPair>, String> {
    let directory = state_directory(table);
    let (certificate, key) = (directory.join(CERTIFICATE), directory.join(KEY));
    // fived has never kept a pair in a home directory that its user cannot enter.
    let at = directory.clone();
    let closed = table.settings.state_directory.is_none()
        && inspector
            .ask_disk(&directory, || fs::metadata(at))
            .is_err_and(|e| e.kind() == ErrorKind::PermissionDenied);
    let is_missing = |e: &io::Error| match e.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => true,
        ErrorKind::PermissionDenied => closed,
        _ => false,
    };
    let wrong = |path: &Path, e: &dyn fmt::Display| format!("{}: {e}: {MEND}", path.display());
    let unread = |path: &Path, e: &io::Error| match e.kind() {
        // It is there, and may be good.
        ErrorKind::PermissionDenied | ErrorKind::TimedOut => format!("{}: {e}", path.display()),
        _ => wrong(path, e),
    };
    match (inspector.read(&certificate), inspector.read(&key)) {
        (Ok(c), Ok(secret)) => {
            let pair = Pair::new(&c, &secret, inspector).map_err(|found| match found {
                Wrong::Certificate(e) => wrong(&certificate, &e),
                Wrong::Key(e) => wrong(&key, &e),
            })?;
            let warning = mode_that_allows(&key, 0o077, inspector).map(|mode| {
                format!(
                    "{}: expected mode 0600, found {mode:04o}: users other than its owner can open it",
                    key.display()
                )
            });
            Ok(Some(FoundPair { pair, secret, made: None, note: None, warning, unkept: None }))
        }
        // A pair is never replaced while either of its files may exist: clients have pinned it.
        (Err(c), Err(k)) if is_missing(&c) && is_missing(&k) && make_it => {
            keep_or_make(&directory, before, inspector).map(Some)
        }
        (Err(c), Err(k)) if is_missing(&c) && is_missing(&k) => Ok(None),
        (_, Err(e)) => Err(unread(&key, &e)),
        (Err(e), _) => Err(unread(&certificate, &e)),
    }
}

/// Writes the pair `before`, or a new one, to this directory. Where that fails, the pair is used
/// all the same.
fn keep_or_make(
    directory: &Path,
    before: Option<Unkept>,
    inspector: &mut Inspector,
) -> Result<FoundPair, String> {
    let SelfSigned(c, k) = match before {
        Some(unkept) => unkept.pair,
        None => make().map_err(|e| format!("certificate: {e}"))?,
    };
    let secret = Zeroizing::new(k.as_bytes().to_vec());
    let pair = Pair::new(c.as_bytes(), &secret, inspector).map_err(|wrong| match wrong {
        Wrong::Certificate(e) | Wrong::Key(e) => e,
    })?;
    let print = pair.fingerprint();
    let (at, of) = (directory.to_path_buf(), SelfSigned(c.clone(), k.clone()));
    Ok(match inspector.ask_disk(&directory.join(KEY), move || keep(&at, &of)) {
        Ok(()) => {
            let made = format!("made {} with key {print}", directory.join(CERTIFICATE).display());
            FoundPair { pair, secret, made: Some(made), note: None, warning: None, unkept: None }
        }
        Err(e) => {
            let why = format!("{}: {e}", directory.display());
            let what = "the certificate is kept for this run only";
            let note = Some(format!("{why}: {what}, with key {print}"));
            let unkept = Some(Unkept { pair: SelfSigned(c, k), why });
            FoundPair { pair, secret, made: None, note, warning: None, unkept }
        }
    })
}

/// The directory for the files that fived itself writes.
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

fn make() -> Result<SelfSigned, rcgen::Error> {
    let name = crate::sys::process::hostname();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name.as_str());
    params.distinguished_name = subject;
    params.subject_alt_names = name.as_str().try_into().map(SanType::DnsName).into_iter().collect();
    // Valid from a day ago, for clients whose clocks are slow.
    let today = rcgen::date_time_ymd(1970, 1, 1)
        + SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (params.not_before, params.not_after) = (today - DAY, today + DAY * DAYS);
    let certificate = params.self_signed(&key)?;
    Ok(SelfSigned(certificate.pem(), Zeroizing::new(key.serialize_pem())))
}

/// Writes both files, the key first, which only its owner may read. Each is renamed into place when
/// it is complete.
fn keep(directory: &Path, SelfSigned(certificate, key): &SelfSigned) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    let new = |name: &str| directory.join(format!("{name}.new"));
    for (name, text, mode) in [(KEY, &**key, 0o600), (CERTIFICATE, certificate, 0o644)] {
        let new = new(name);
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&new)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
    }
    [KEY, CERTIFICATE].into_iter().try_for_each(|name| fs::rename(new(name), directory.join(name)))
}
