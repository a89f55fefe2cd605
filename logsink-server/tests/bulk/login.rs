//! How requests get in: a path in front, keys, tokens, passwords, an authority of one's own.

use std::{net::TcpStream, path::Path, process::Command, sync::Arc};

use logsink_server::index::elasticsearch::Auth;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_login_is_sent_behind_a_path_and_none_is_shown() {
    let basic = Auth::Basic { username: "elastic".into(), password: "pass wörd".into() };
    for (auth, header) in [
        (Auth::ApiKey("aWQ6c2VjcmV0".into()), "ApiKey aWQ6c2VjcmV0"),
        (Auth::Bearer("AAEAAWVsYXN0aWM".into()), "Bearer AAEAAWVsYXN0aWM"),
        (basic, "Basic ZWxhc3RpYzpwYXNzIHfDtnJk"),
    ] {
        let proxy = Proxy::start(&real()).behind("/search/eu-1");
        proxy.authorize(Some(header));
        let story = story_with(ElasticsearchOptions { auth, ..options(&proxy.url()) }, &real());
        assert_eq!(story.write(vec![message(1, 2, 5)]).await.stored, 2);
        assert_eq!((story.stored().await, proxy.bulks()), (2, 1));
        story.index.ready().await.unwrap();
        // The wrong one.
        proxy.authorize(Some("Bearer other"));
        let error = story.index.ready().await.unwrap_err().to_string();
        assert!(error.contains("401"), "{error}");
        let secret = header.split(' ').next_back().unwrap();
        for text in [error, story.metrics.encode(), format!("{:?}", options(&proxy.url()))] {
            assert!(!text.contains(secret) && !text.contains("wörd"), "{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_of_ones_own_is_trusted_when_it_is_named() {
    let dir = tempfile::tempdir().unwrap();
    sign(dir.path());
    let chain = CertificateDer::pem_file_iter(dir.path().join("node.pem")).unwrap().collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(dir.path().join("node.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap());
    let accept = move |socket: TcpStream| -> std::io::Result<Box<dyn proxy::Stream>> {
        let connection = rustls::ServerConnection::new(config.clone()).map_err(std::io::Error::other)?;
        Ok(Box::new(rustls::StreamOwned::new(connection, socket)))
    };
    let proxy = Proxy::start_with(&real(), Arc::new(accept));
    let url = proxy.url().replace("http://", "https://");
    let known = ElasticsearchOptions { ca: Some(dir.path().join("ca.pem")), ..options(&url) };
    let story = story_with(known, &real());
    assert_eq!(story.write(vec![message(1, 2, 5)]).await.stored, 2);
    assert_eq!(story.stored().await, 2);
    let unknown = story_with(options(&url), &real());
    let error = unknown.index.ready().await.unwrap_err().to_string();
    assert!(error.to_lowercase().contains("certificate"), "{error}");
}

/// Makes `ca.pem`, and `node.pem` with `node.key` for 127.0.0.1.
fn sign(dir: &Path) {
    let run = |arguments: &[&str]| {
        let output = Command::new("openssl").args(arguments).current_dir(dir).output().expect("openssl is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let (curve, days) = (["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"], ["-days", "2"]);
    run(&[&["req", "-x509", "-subj", "/CN=our own", "-keyout", "ca.key", "-out", "ca.pem"], &curve[..], &days].concat());
    run(&[&["req", "-subj", "/CN=node", "-keyout", "node.key", "-out", "node.csr"], &curve[..]].concat());
    std::fs::write(dir.join("names"), "subjectAltName = IP:127.0.0.1").unwrap();
    let by = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names", "-out", "node.pem"];
    run(&[&["x509", "-req", "-in", "node.csr"], &by[..], &days].concat());
}
