//! The certificate and key that fived makes for itself, where the configuration names none: made at
//! the first start and kept in the state directory. Where they cannot be kept there they stay in
//! memory, so that a reload does not make others: clients have pinned them.

use super::certificate::{Pair, Secret, mode_that_allows};
use super::inspector::Inspector;
use crate::policy::Table;
use crate::sys::file;
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
/// Days of a certificate that fived makes for itself: ten years.
const DAYS: u32 = 3650;
const DAY: Duration = Duration::from_secs(86_400);

/// The pair as text (PEM): the certificate, and the key.
#[derive(Clone)]
pub struct Own(String, Zeroizing<String>);

impl fmt::Debug for Own {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("Own")
    }
}

/// The pair, as it was found or made.
pub struct Found {
    pub pair: Pair,
    pub secret: Secret,
    /// What the log should say of it.
    pub note: Option<String>,
    /// It could not be kept on the disk.
    pub unkept: Option<Own>,
}

/// The path of its certificate.
pub fn certificate(table: &Table) -> PathBuf {
    state_directory(table).join(CERTIFICATE)
}

/// Reads the pair in the state directory. Where there is none it keeps the one of `before` there,
/// or makes one, if `make_it`. Err: a sentence.
pub fn read(
    table: &Table,
    make_it: bool,
    before: Option<Own>,
    inspector: &mut Inspector,
) -> Result<Option<Found>, String> {
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
            let secret = Zeroizing::new(k);
            let pair = Pair::new(&c, &secret, inspector)
                .map_err(|e| format!("{}: {e}", certificate.display()))?;
            let note = mode_that_allows(&key, 0o077).map(|mode| {
                format!(
                    "{}: expected mode 0600, found {mode:04o}: users other than its owner can open it",
                    key.display()
                )
            });
            Ok(Some(Found { pair, secret, note, unkept: None }))
        }
        // Never replaced while any of it may be there: clients have pinned it.
        (Err(c), Err(k)) if nothing(&c) && nothing(&k) && make_it => {
            made(&directory, before, inspector).map(Some)
        }
        (Err(c), Err(k)) if nothing(&c) && nothing(&k) => Ok(None),
        (_, Err(e)) => Err(format!("{}: {e}", key.display())),
        (Err(e), _) => Err(format!("{}: {e}", certificate.display())),
    }
}

/// The pair of `before`, or a new one, kept in this directory if that can be.
fn made(directory: &Path, before: Option<Own>, inspector: &mut Inspector) -> Result<Found, String> {
    let Own(c, k) = match before {
        Some(own) => own,
        None => make().map_err(|e| format!("certificate: {e}"))?,
    };
    let secret = Zeroizing::new(k.as_bytes().to_vec());
    let pair = Pair::new(c.as_bytes(), &secret, inspector)?;
    let print = pair.fingerprint();
    let (note, unkept) = match keep(directory, &c, &k) {
        Ok(()) => {
            (format!("made {} with key {print}", directory.join(CERTIFICATE).display()), None)
        }
        Err(e) => {
            let what = "the certificate lives for this run only";
            (format!("{}: {e}: {what}, with key {print}", directory.display()), Some(Own(c, k)))
        }
    };
    Ok(Found { pair, secret, note: Some(note), unkept })
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
    // Valid from a day ago, for clients whose clocks are slow.
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
