//! The `[tls]` settings for the clients of OTLP sinks: rustls with ring, on both protocols.

use std::{fs, path::Path};

use crate::ConfigError;

/// What a PEM block is called that is wanted.
pub(super) const CERTIFICATE: &str = "CERTIFICATE-----";
pub(super) const PRIVATE_KEY: &str = "PRIVATE KEY-----";

/// A PEM file with such a block in it. TLS itself takes a file without any authority for one, and then trusts nobody: that
/// would be said of every connection, and not of the file.
pub(super) fn read(field: &str, file: &Path, block: &str) -> Result<Vec<u8>, ConfigError> {
    let refuse = |message: String| ConfigError { field: field.to_owned(), message };
    let pem = fs::read(file).map_err(|error| refuse(format!("cannot read {}: {error}", file.display())))?;
    if !pem.windows(block.len()).any(|bytes| bytes == block.as_bytes()) {
        let name = block.trim_end_matches('-').to_ascii_lowercase();
        return Err(refuse(format!("there is no {name} in {}: a PEM file is wanted", file.display())));
    }
    Ok(pem)
}

/// TLS for OTLP/HTTP. gRPC's client builds its own from the same files.
#[cfg(feature = "http")]
pub(super) fn connector(tls: &crate::config::Tls) -> Result<tokio_rustls::TlsConnector, ConfigError> {
    use std::sync::Arc;

    use tokio_rustls::rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    };

    let refuse = |field: &str, error: &dyn std::fmt::Display| ConfigError {
        field: field.to_owned(),
        message: format!("cannot be used: {error}"),
    };
    let certificates = |field: &str, file: &Path| {
        let pem = read(field, file, CERTIFICATE)?;
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        certificates.map_err(|error| refuse(field, &error))
    };
    let mut roots = RootCertStore::empty();
    match &tls.ca {
        Some(file) => {
            roots.add_parsable_certificates(certificates("tls.ca", file)?);
        }
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| refuse("tls", &error))?
        .with_root_certificates(roots);
    let mut config = match (&tls.certificate, &tls.key) {
        (Some(certificate), Some(key)) => {
            let key = PrivateKeyDer::from_pem_slice(&read("tls.key", key, PRIVATE_KEY)?)
                .map_err(|error| refuse("tls.key", &error))?;
            config
                .with_client_auth_cert(certificates("tls.certificate", certificate)?, key)
                .map_err(|error| refuse("tls.certificate", &error))?
        }
        _ => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config).into())
}
