//! The private keys: read, made, and used. Only this process has them, and it signs nothing but the one text that a TLS 1.3
//! server signs in its handshake: whoever holds net can have no other signature.

use crate::policy::{HostId, Table};
use crate::sys::{clock, file};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use ring::digest;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{CertificateError, RootCertStore, SignatureScheme};
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What a server signs: 64 blanks, this, and the handshake's hash (RFC 8446, 4.4.3).
const CONTEXT: &[u8] = b"TLS 1.3, server CertificateVerify\0";
const BLANKS: usize = 64;
/// Bytes of the hashes of TLS 1.3's suites.
const HASHES: [usize; 2] = [32, 48];
/// The schemes that a key may be asked for, best first.
const SCHEMES: [SignatureScheme; 6] = [
    SignatureScheme::ED25519,
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
];
const CERTIFICATE: &str = "cert.pem";
const KEY: &str = "key.pem";
/// Days of a certificate that fived makes for itself: ten years.
const DAYS: u32 = 3650;
const DAY: Duration = Duration::from_secs(86_400);

/// A certificate chain and its key.
#[derive(Debug)]
pub struct Pair {
    /// DER, the server's own first.
    pub chain: Vec<Vec<u8>>,
    /// The numbers of the schemes that the key can sign by.
    pub schemes: Vec<u16>,
    key: Arc<dyn SigningKey>,
}

impl Pair {
    /// Reads PEM. Err: what is wrong, as one sentence.
    fn new(chain: &[u8], key: &[u8]) -> Result<Pair, String> {
        let chain: Vec<CertificateDer> =
            CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>().map_err(|e| format!("certificate: {e}"))?;
        if chain.is_empty() {
            return Err("no certificate in it; a PEM file with BEGIN CERTIFICATE would be right".into());
        }
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|_| "no private key in it; a PEM file with BEGIN PRIVATE KEY would be right".to_string())?;
        let key = any_supported_type(&key).map_err(|e| format!("private key: {e}"))?;
        let certified = CertifiedKey::new(chain.clone(), key.clone());
        certified.keys_match().map_err(|e| match e {
            rustls::Error::InconsistentKeys(_) => "the key is not this certificate's".to_string(),
            e => unreadable(&e),
        })?;
        let schemes = SCHEMES.iter().filter(|s| key.choose_scheme(&[**s]).is_some()).map(|s| u16::from(*s)).collect();
        Ok(Pair { chain: chain.iter().map(|c| c.to_vec()).collect(), schemes, key })
    }

    /// What is wrong with the dates of its certificates now, as one sentence.
    fn out_of_date(&self) -> Option<String> {
        self.chain.iter().find_map(|der| {
            let certificate = CertificateDer::from(der.as_slice());
            let certificate = ParsedCertificate::try_from(&certificate).ok()?;
            // Nobody vouches for it here: its dates are looked at first.
            let nobody = RootCertStore::empty();
            match verify_server_cert_signed_by_trust_anchor(&certificate, &nobody, &[], UnixTime::now(), &[]) {
                Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
                    Some(format!("expired on {}: a client that does not know its key refuses it", clock::date(not_after.as_secs())))
                }
                Err(rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. })) => {
                    Some(format!("valid from {} on only: is the clock right?", clock::date(not_before.as_secs())))
                }
                _ => None,
            }
        })
    }

    /// Signs a handshake. None: the message is not one, or the key cannot do that scheme.
    pub fn sign(&self, scheme: u16, message: &[u8]) -> Option<Vec<u8>> {
        if !is_handshake(message) {
            return None;
        }
        self.key.choose_scheme(&[SignatureScheme::from(scheme)])?.sign(message).ok()
    }

    /// `sha256//BASE64` of the public key, as curl pins it (and HPKP did, RFC 7469).
    pub fn fingerprint(&self) -> String {
        let public = self.key.public_key();
        let hash = digest::digest(&digest::SHA256, public.as_ref().map_or(&[], |k| k.as_ref()));
        format!("sha256//{}", STANDARD.encode(hash))
    }
}

/// Why a certificate cannot be read.
fn unreadable(e: &rustls::Error) -> String {
    match e {
        // webpki has a word of its own for it, which rustls passes on.
        rustls::Error::InvalidCertificate(CertificateError::Other(other)) if other.to_string().contains("UnsupportedCertVersion") => {
            "an X.509 certificate of version 1, expected version 3: `openssl x509 -req` makes that with -extfile FILE".into()
        }
        e => format!("cannot be read: {e}"),
    }
}

/// Is this what a TLS 1.3 server signs in its CertificateVerify, and nothing else?
fn is_handshake(message: &[u8]) -> bool {
    let Some((blanks, rest)) = message.split_at_checked(BLANKS) else { return false };
    let Some(hash) = rest.strip_prefix(CONTEXT) else { return false };
    blanks.iter().all(|&b| b == b' ') && HASHES.contains(&hash.len())
}

/// Every pair of a configuration, and which one each host has.
#[derive(Debug, Default)]
pub struct Keys {
    pub pairs: Vec<Pair>,
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
struct Own(String, String);

impl fmt::Debug for Own {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("Own")
    }
}

impl Keys {
    /// Reads all that the table names; where it names none, the pair in the state directory, which is made if `make`; one that
    /// could not be kept there stays the same from `before`, for clients have pinned it. Err: `FILE:LINE: WORD: what` or a sentence for each mistake.
    pub fn read(table: &Table, make: bool, before: Option<&Keys>) -> Result<Keys, Vec<String>> {
        let own = before.and_then(|k| k.own.clone());
        let (mut keys, mut wrong) = (Keys { own, ..Keys::default() }, Vec::new());
        let s = &table.settings;
        let at = |host: HostId, (setting, what): (&str, String)| format!("{}: {what}", table.place(host, setting));
        let late =
            |host: HostId, setting, path: &str, pair: &Pair| pair.out_of_date().map(|what| at(host, (setting, format!("{path}: {what}"))));
        match given(s.certificate.as_deref(), s.key.as_deref()) {
            Ok(Some(p)) => {
                keys.warnings.extend(late(HostId::DEFAULT, "certificate", s.certificate.as_deref().unwrap_or_default(), &p));
                keys.pairs.push(p);
            }
            Ok(None) => match keys.own(table, make) {
                Ok(pair) => {
                    let path = state_directory(table).join(CERTIFICATE).display().to_string();
                    keys.warnings.extend(pair.iter().filter_map(|p| late(HostId::DEFAULT, "state_directory", &path, p)));
                    keys.pairs.extend(pair);
                }
                Err(e) => wrong.push(at(HostId::DEFAULT, ("state_directory", e))),
            },
            Err(e) => wrong.push(at(HostId::DEFAULT, e)),
        }
        for (i, host) in table.hosts().iter().enumerate() {
            match given(host.certificate.as_deref(), host.key.as_deref()) {
                Ok(None) => keys.chosen.push(0),
                Ok(Some(p)) => {
                    keys.warnings.extend(late(HostId(i as u32), "certificate", host.certificate.as_deref().unwrap_or_default(), &p));
                    keys.pairs.push(p);
                    keys.chosen.push(keys.pairs.len() as u32 - 1);
                }
                Err(e) => wrong.push(at(HostId(i as u32), e)),
            }
        }
        if wrong.is_empty() { Ok(keys) } else { Err(wrong) }
    }

    /// fived's own pair: the one in the state directory, made at the first start.
    fn own(&mut self, table: &Table, make_it: bool) -> Result<Option<Pair>, String> {
        let directory = state_directory(table);
        let (certificate, key) = (directory.join(CERTIFICATE), directory.join(KEY));
        // A home that cannot be entered holds nothing that this user has ever written there.
        let closed =
            table.settings.state_directory.is_none() && fs::metadata(&directory).is_err_and(|e| e.kind() == ErrorKind::PermissionDenied);
        let nothing = |e: &io::Error| match e.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => true,
            ErrorKind::PermissionDenied => closed,
            _ => false,
        };
        match (file::read(&certificate), file::read(&key)) {
            (Ok(c), Ok(k)) => {
                let pair = Pair::new(&c, &k).map_err(|e| format!("{}: {e}", certificate.display()))?;
                if fs::metadata(&key).is_ok_and(|m| m.permissions().mode() & 0o077 != 0) {
                    self.notes.push(format!("{}: others may read it; mode 0600 would be right", key.display()));
                }
                self.own = None;
                return Ok(Some(pair));
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
        let pair = Pair::new(c.as_bytes(), k.as_bytes())?;
        let (at, print) = (directory.display(), pair.fingerprint());
        self.notes.push(match keep(&directory, &c, &k) {
            Ok(()) => format!("made {} with key {print}", certificate.display()),
            Err(e) => {
                (self.passing, self.own) = (true, Some(Own(c, k)));
                format!("{at}: {e}: the certificate lives for this run only, with key {print}")
            }
        });
        Ok(Some(pair))
    }

    /// Signs by the key of that number. None as [`Pair::sign`].
    pub fn sign(&self, chain: u32, scheme: u16, message: &[u8]) -> Option<Vec<u8>> {
        self.pairs.get(chain as usize)?.sign(scheme, message)
    }
}

/// The pair that settings name, if they do. Err: which setting, and `WORD: what` is wrong.
fn given(certificate: Option<&str>, key: Option<&str>) -> Result<Option<Pair>, (&'static str, String)> {
    match (certificate, key) {
        (Some(c), k) => pair(c, k.unwrap_or(c)).map(Some),
        (None, Some(k)) => Err(("key", format!("{k}: a key without a certificate; `certificate = FILE` would be right"))),
        (None, None) => Ok(None),
    }
}

fn pair(certificate: &str, key: &str) -> Result<Pair, (&'static str, String)> {
    let of_key = if key == certificate { "certificate" } else { "key" };
    let read = |setting, path: &str| file::read(path).map_err(|e| (setting, format!("{path}: {e}")));
    let (c, k) = (read("certificate", certificate)?, read(of_key, key)?);
    // Whoever can read the key is the server.
    if let Ok(m) = fs::metadata(key)
        && m.permissions().mode() & 0o007 != 0
    {
        return Err((of_key, format!("{key}: everybody on this computer may use it; mode 0600 would be right")));
    }
    Pair::new(&c, &k).map_err(|e| ("certificate", format!("{certificate}: {e}")))
}

/// Where what fived must remember is kept.
pub fn state_directory(table: &Table) -> PathBuf {
    if let Some(d) = &table.settings.state_directory {
        return d.into();
    }
    if crate::sys::identity::effective_uid() == 0 {
        return "/var/lib/fived".into();
    }
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local/state"))).unwrap_or_else(|| "/nonexistent".into()).join("fived")
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
    let today = rcgen::date_time_ymd(1970, 1, 1) + SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (params.not_before, params.not_after) = (today - DAY, today + DAY * DAYS);
    let certificate = params.self_signed(&key)?;
    Ok(Own(certificate.pem(), key.serialize_pem()))
}

/// Writes both halves, the key first and for its owner alone; neither is there before it is whole.
fn keep(directory: &Path, certificate: &str, key: &str) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    let new = |name: &str| directory.join(format!("{name}.new"));
    for (name, text, mode) in [(KEY, key, 0o600), (CERTIFICATE, certificate, 0o644)] {
        let new = new(name);
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&new)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
    }
    [KEY, CERTIFICATE].into_iter().try_for_each(|name| fs::rename(new(name), directory.join(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handshake(hash: usize) -> Vec<u8> {
        [&[b' '; BLANKS][..], CONTEXT, &vec![7; hash]].concat()
    }

    #[test]
    fn signs_handshakes_and_nothing_else() {
        let Own(c, k) = make().expect("a pair");
        let pair = Pair::new(c.as_bytes(), k.as_bytes()).expect("a pair");
        let p256 = u16::from(SignatureScheme::ECDSA_NISTP256_SHA256);
        assert_eq!(pair.schemes, [p256]);
        assert!(pair.sign(p256, &handshake(32)).is_some() && pair.sign(p256, &handshake(48)).is_some());
        assert!(pair.sign(p256, &handshake(33)).is_none());
        assert!(pair.sign(p256, &handshake(32)[1..]).is_none());
        assert!(pair.sign(p256, b"anything").is_none());
        let client = [&[b' '; BLANKS][..], b"TLS 1.3, client CertificateVerify\0", &[7; 32]].concat();
        assert!(pair.sign(p256, &client).is_none());
        assert!(pair.sign(0x0804, &handshake(32)).is_none());
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let (Own(c, _), Own(_, k)) = (make().expect("a pair"), make().expect("a pair"));
        assert!(Pair::new(c.as_bytes(), k.as_bytes()).unwrap_err().contains("not this certificate's"));
    }
}
