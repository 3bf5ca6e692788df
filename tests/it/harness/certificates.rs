//! The certificates that servers show in the tests.

use std::fs;
use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

/// An authority, the certificate of a server, and where they are stored.
pub(crate) struct Certificates {
    dir: TempDir,
    /// The SHA-256 digest of the server's certificate.
    pub(crate) fingerprint: String,
}

impl Certificates {
    /// New ones, for servers at 127.0.0.1.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let (authority_key, key) = (key(), key());
        let mut params = parameters("an authority", &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = params.self_signed(&authority_key).expect("a certificate");
        let issuer = Issuer::new(params, authority_key);
        let params = parameters("a server", &["127.0.0.1", "localhost"]);
        let certificate = params.signed_by(&key, &issuer).expect("a certificate");
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate.der());
        let fingerprint = data_encoding::HEXLOWER.encode(digest.as_ref());
        let store = |name: &str, label: &str, der: &[u8]| {
            fs::write(dir.path().join(name), pem(label, der)).expect("written");
        };
        store("ca.pem", "CERTIFICATE", authority.der());
        store("server.pem", "CERTIFICATE", certificate.der());
        store("server.key", "PRIVATE KEY", &key.serialize_der());
        Self { dir, fingerprint }
    }

    /// The authority's certificate.
    pub(crate) fn authority(&self) -> String {
        self.path("ca.pem").display().to_string()
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// Parameters of a certificate for `names`, called otherwise than its issuer: OpenSSL would take it for self-signed.
fn parameters(called: &str, names: &[&str]) -> CertificateParams {
    let names = names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let mut params = CertificateParams::new(names).expect("parameters");
    params.distinguished_name.push(DnType::CommonName, called);
    params
}

/// RFC 7468.
fn pem(label: &str, der: &[u8]) -> String {
    let text = data_encoding::BASE64.encode(der);
    let lines: Vec<&str> =
        (0..text.len()).step_by(64).map(|at| &text[at..text.len().min(at + 64)]).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}
