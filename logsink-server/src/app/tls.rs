//! TLS of the listeners: certificates read once at start, so that a bad file is said then, by its setting.

use std::{path::Path, sync::Arc};

use logsink::ConfigError;
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject},
};

use crate::{config::Tls, error::Error};

/// What both listeners need, read from the files.
#[derive(Clone)]
pub(super) struct Certificates {
    pub(super) grpc: Arc<ServerConfig>,
    pub(super) http: Arc<ServerConfig>,
}

impl Certificates {
    /// Reads and checks the files.
    pub(super) fn read(tls: &Tls) -> Result<Self, Error> {
        let config = server_config(tls)?;
        let speaking = |protocols: &[&[u8]]| {
            let mut config = config.clone();
            config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
            Arc::new(config)
        };
        Ok(Self { grpc: speaking(&[b"h2"]), http: speaking(&[b"h2", b"http/1.1"]) })
    }
}

fn unusable(field: &str, path: &Path, error: &dyn std::fmt::Display) -> Error {
    ConfigError { field: field.into(), message: format!("{}: {error}", path.display()) }.into()
}

fn server_config(tls: &Tls) -> Result<ServerConfig, Error> {
    let chain = certificates("tls.cert", &tls.cert)?;
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|error| match error {
        pem::Error::NoItemsFound => unusable("tls.key", &tls.key, &"there is no private key in it"),
        error => unusable("tls.key", &tls.key, &error),
    })?;
    let builder = ServerConfig::builder();
    let builder = match &tls.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let wrong = |error: &dyn std::fmt::Display| unusable("tls.client_ca", path, error);
            let mut roots = RootCertStore::empty();
            for certificate in certificates("tls.client_ca", path)? {
                roots.add(certificate).map_err(|error| wrong(&error))?;
            }
            let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().map_err(|error| wrong(&error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    builder.with_single_cert(chain, key).map_err(|error| unusable("tls.key", &tls.key, &error))
}

fn certificates(field: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let wrong = |error: &dyn std::fmt::Display| unusable(field, path, error);
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))?;
    let certificates = certificates.collect::<Result<Vec<_>, _>>().map_err(|error| wrong(&error))?;
    if certificates.is_empty() { Err(wrong(&"there is no certificate in it")) } else { Ok(certificates) }
}
