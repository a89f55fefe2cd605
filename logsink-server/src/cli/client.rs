//! The server that a command talks to: where it is, how to know it by its certificate, and how to be known by one.

use std::{
    error::Error as StdError,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use reqwest::{Certificate, Client, Identity};
use rustls::AlertDescription;

use crate::error::Error;

/// Which server to ask.
#[derive(Debug, Args)]
pub struct ServerArgs {
    /// The server's HTTP address
    #[arg(long = "server", value_name = "URL", default_value = "http://127.0.0.1:4318", env = "LOGSINK_SERVER_URL")]
    pub url: String,
    /// PEM file of the authorities that may have signed the server's certificate [default: the public ones]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// PEM file of the certificate that shows who asks, for a server that wants one
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// PEM file of its private key
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
}

impl ServerArgs {
    /// A client for requests that take `timeout` at most.
    ///
    /// # Errors
    /// When a file cannot be used: names its option.
    pub fn client(&self, timeout: Duration) -> Result<Client, Error> {
        let mut builder = Client::builder().timeout(timeout);
        if let Some(path) = &self.ca {
            let authorities = Certificate::from_pem_bundle(&read("--ca", path)?)
                .ok()
                .filter(|authorities| !authorities.is_empty())
                .ok_or_else(|| unusable("--ca", path, &"there is no certificate in it"))?;
            builder = builder.tls_built_in_root_certs(false);
            for authority in authorities {
                builder = builder.add_root_certificate(authority);
            }
        }
        if let (Some(cert), Some(key)) = (&self.cert, &self.key) {
            // One text: that is how the client takes them.
            let pem = [read("--cert", cert)?, b"\n".to_vec(), read("--key", key)?].concat();
            let identity = Identity::from_pem(&pem)
                .map_err(|_| unusable("--cert", cert, &"it is no PEM certificate, or --key is no PEM key"))?;
            builder = builder.identity(identity);
        }
        builder.build().map_err(|error| Error::Usage(format!("cannot make an HTTP client: {}", root(&error))))
    }

    /// Why no answer came, and what may help.
    pub fn unreachable(&self, error: &reqwest::Error) -> Error {
        let server = &self.url;
        if error.is_builder() {
            return Error::Usage(format!("--server {server} is not a URL: write it like http://127.0.0.1:4318"));
        }
        let cause = root(error);
        let advice = match tls(error) {
            Some(rustls::Error::InvalidCertificate(_)) => "name the authority that signed it with --ca",
            Some(rustls::Error::AlertReceived(
                AlertDescription::CertificateRequired
                | AlertDescription::UnknownCA
                | AlertDescription::BadCertificate
                | AlertDescription::CertificateUnknown
                | AlertDescription::DecryptError,
            )) => "it wants a certificate from an authority that it knows: name yours with --cert and --key",
            _ => "is logsink-server running there? Name another with --server",
        };
        Error::Failed(format!("cannot reach {server}: {cause}: {advice}"))
    }
}

fn read(option: &str, path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|error| unusable(option, path, &error))
}

fn unusable(option: &str, path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::Usage(format!("{option} {}: {error}", path.display()))
}

/// reqwest's own text repeats the URL with the whole query; its root cause says what happened.
fn root<'a>(error: &'a (dyn StdError + 'static)) -> &'a (dyn StdError + 'static) {
    causes(error).last().unwrap_or(error)
}

/// What TLS had against the connection.
fn tls<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error| {
        // An `io::Error` counts what it wraps as itself and would pass over it.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        wrapped.map(|wrapped| wrapped as &(dyn StdError + 'static)).or_else(|| (*error).source())
    })
}
