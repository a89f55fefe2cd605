//! The settings as librdkafka's properties.

use std::fs;

use rdkafka::{ClientConfig, config::RDKafkaLogLevel};

use crate::{
    ConfigError,
    config::{Compression, Config},
};

/// librdkafka's broker thread spins with 0 to 2 ms (0.61 against 0.07 s of CPU per 500,000 records); batches are ours
/// anyway.
const LINGER_MS: &str = "5";
/// Room for the key, the headers and the frame around a payload in `message.max.bytes`.
const MESSAGE_OVERHEAD_BYTES: usize = 64 << 10;
/// How often the client reports its figures, in milliseconds: a report is some kilobytes of JSON.
const STATISTICS_INTERVAL_MS: &str = "5000";

/// What the producer is made with. The table `[kafka]` wins over everything.
pub(super) fn properties(
    brokers: &str,
    tls: bool,
    config: &Config,
    compression: Compression,
) -> Result<ClientConfig, ConfigError> {
    let mut client = ClientConfig::new();
    client
        .set("bootstrap.servers", brokers)
        .set("client.id", "logsink")
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", LINGER_MS)
        .set("message.max.bytes", (config.batch.bytes_max + MESSAGE_OVERHEAD_BYTES).to_string())
        // The worker does the waiting and the reporting: a send ends in time, well or not.
        .set("message.timeout.ms", config.send.timeout_ms.to_string())
        .set("request.timeout.ms", config.send.timeout_ms.to_string())
        // A topic that does not exist is said to be so before that time is over, and not to have timed out.
        .set("topic.metadata.propagation.max.ms", (config.send.timeout_ms / 2).to_string())
        .set("socket.nagle.disable", "true")
        .set("socket.keepalive.enable", "true")
        .set("reconnect.backoff.max.ms", config.retry.delay_ms_max.to_string())
        .set("statistics.interval.ms", STATISTICS_INTERVAL_MS)
        .set(
            "compression.codec",
            match compression {
                Compression::None => "none",
                Compression::Gzip => "gzip",
                Compression::Zstd => "zstd",
                Compression::Lz4 => "lz4",
            },
        )
        .set_log_level(RDKafkaLogLevel::Warning);
    secure(&mut client, tls, config)?;
    for (property, value) in &config.kafka {
        client.set(property, &value.0);
    }
    Ok(client)
}

/// `[sasl]` and `[tls]`.
fn secure(client: &mut ClientConfig, tls: bool, config: &Config) -> Result<(), ConfigError> {
    let sasl = &config.sasl;
    let protocol = match (tls, sasl.mechanism.is_some()) {
        (false, false) => "plaintext",
        (true, false) => "ssl",
        (false, true) => "sasl_plaintext",
        (true, true) => "sasl_ssl",
    };
    client.set("security.protocol", protocol);
    if let Some(mechanism) = &sasl.mechanism {
        client.set("sasl.mechanism", mechanism);
        if let Some(username) = &sasl.username {
            client.set("sasl.username", username);
        }
        if let Some(file) = &sasl.password_file {
            let password = fs::read_to_string(file).map_err(|error| ConfigError {
                field: "sasl.password_file".to_owned(),
                message: format!("cannot read {}: {error}", file.display()),
            })?;
            client.set("sasl.password", password.trim_end_matches(['\r', '\n']));
        } else if let Some(password) = &sasl.password {
            client.set("sasl.password", &password.0);
        }
    }
    if tls {
        for (property, file) in [
            ("ssl.ca.location", &config.tls.ca),
            ("ssl.certificate.location", &config.tls.certificate),
            ("ssl.key.location", &config.tls.key),
        ] {
            if let Some(file) = file {
                client.set(property, file.to_string_lossy());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_become_properties_and_the_table_wins() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        fs::write(&file, "s3cret\n").unwrap();
        let text = format!(
            "[send]\ntimeout_ms = 4000\n[tls]\nca = \"/ca.pem\"\n[sasl]\nmechanism = \"SCRAM-SHA-512\"\nusername = \"jo\"\n\
             password_file = {file:?}\n[kafka]\n\"linger.ms\" = \"50\"\n"
        );
        let config = Config::from_toml(&text, "f").unwrap();
        let client = properties("b:9092", true, &config, Compression::Lz4).unwrap();
        for (property, value) in [
            ("acks", "all"),
            ("enable.idempotence", "true"),
            ("compression.codec", "lz4"),
            ("security.protocol", "sasl_ssl"),
            ("sasl.mechanism", "SCRAM-SHA-512"),
            ("sasl.username", "jo"),
            ("sasl.password", "s3cret"),
            ("ssl.ca.location", "/ca.pem"),
            ("topic.metadata.propagation.max.ms", "2000"),
            ("linger.ms", "50"),
        ] {
            assert_eq!(client.get(property), Some(value), "{property}");
        }
        assert!(!format!("{config:?}").contains("s3cret"));
        let plain = properties("b:9092", false, &Config::default(), Compression::Zstd).unwrap();
        assert_eq!((plain.get("security.protocol"), plain.get("ssl.ca.location")), (Some("plaintext"), None));
        fs::remove_file(&file).unwrap();
        let error = properties("b:9092", true, &config, Compression::Lz4).unwrap_err();
        assert_eq!(error.field, "sasl.password_file");
    }
}
