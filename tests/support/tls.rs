//! Certificates for one story, made by OpenSSL's command line, which `ca-certificates` brings to every Debian.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::process::succeed;

/// What the certificates may be used for; the command line gives the rest.
const CONFIG: &str = "\
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
[member]
basicConstraints = critical, CA:FALSE
subjectAltName = IP:127.0.0.1, DNS:localhost
";

/// An authority of its own, which signs as many certificates as a story needs.
#[derive(Debug)]
pub struct Authority {
    dir: PathBuf,
    /// Its certificate.
    pub certificate: PathBuf,
    key: PathBuf,
}

/// A certificate for 127.0.0.1 and `localhost`, for a server or a client.
#[derive(Debug)]
pub struct Member {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Authority {
    /// A new one called `name`, with its files in `dir`.
    ///
    /// # Panics
    /// When OpenSSL is not there or fails.
    pub fn new(dir: &Path, name: &str) -> Self {
        fs::write(dir.join("openssl.cnf"), CONFIG).expect("the directory can be written");
        let Member { certificate, key } = make(dir, name, "authority", None);
        Self { dir: dir.to_owned(), certificate, key }
    }

    /// A certificate signed by it.
    ///
    /// # Panics
    /// When OpenSSL fails.
    pub fn sign(&self, name: &str) -> Member {
        make(&self.dir, name, "member", Some(self))
    }
}

fn make(dir: &Path, name: &str, kind: &str, signer: Option<&Authority>) -> Member {
    let file = |ending: &str| dir.join(format!("{name}.{ending}"));
    let made = Member { certificate: file("pem"), key: file("key") };
    let mut command = Command::new("openssl");
    command
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"])
        .args(["-subj", &format!("/CN={name}"), "-extensions", kind, "-config"])
        .arg(dir.join("openssl.cnf"))
        .args([Path::new("-keyout"), &made.key, Path::new("-out"), &made.certificate]);
    if let Some(signer) = signer {
        command.args([Path::new("-CA"), &signer.certificate, Path::new("-CAkey"), &signer.key]);
    }
    succeed(&mut command);
    made
}
