//! Who is speaking: the resource attributes that stand once in every batch.

use std::{collections::BTreeMap, env, fmt::Write, path::Path};

use crate::{Config, batch::Attribute};

/// The name of the executable, as good a name as any until somebody gives a better one.
pub(super) fn service_default() -> String {
    env::current_exe()
        .ok()
        .as_deref()
        .and_then(Path::file_stem)
        .map_or_else(|| "unknown_service".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// A random UUID (version 4), new with each start: sequence numbers count from one under it.
pub(super) fn instance_id() -> String {
    let mut bytes = [0; 16];
    if getrandom::fill(&mut bytes).is_err() {
        // Seeded by time, thread and address: good enough to tell processes apart.
        fastrand::fill(&mut bytes);
    }
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        let dash = if matches!(index, 4 | 6 | 8 | 10) { "-" } else { "" };
        let _ = write!(text, "{dash}{byte:02x}");
    }
    text
}

/// What the library knows by itself, under what the settings say.
pub(super) fn attributes(config: &Config, service: &str, instance: &str) -> Vec<(String, Attribute)> {
    let text = |value: &str| Attribute::Text(value.to_owned());
    let host = gethostname::gethostname();
    let mut attributes = BTreeMap::from([
        ("host.name".to_owned(), text(&host.to_string_lossy())),
        ("process.pid".to_owned(), Attribute::Int(std::process::id().into())),
        ("service.instance.id".to_owned(), text(instance)),
        ("telemetry.sdk.language".to_owned(), text("rust")),
        ("telemetry.sdk.name".to_owned(), text("logsink")),
        ("telemetry.sdk.version".to_owned(), text(env!("CARGO_PKG_VERSION"))),
    ]);
    attributes.extend(config.resource.iter().map(|(key, value)| (key.clone(), text(value))));
    // Last: rules and searches go by it, so there is one way to set it.
    attributes.insert("service.name".to_owned(), text(service));
    attributes.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_id_is_a_random_uuid() {
        let (one, other) = (instance_id(), instance_id());
        assert_ne!(one, other);
        assert_eq!(one.len(), 36);
        assert_eq!(one.as_bytes()[14], b'4');
        assert!(matches!(one.as_bytes()[19], b'8' | b'9' | b'a' | b'b'));
        assert_eq!(one.bytes().filter(|byte| *byte == b'-').count(), 4);
    }

    #[test]
    fn settings_win_over_what_is_found_out() {
        let mut config = Config::default();
        config.resource.insert("host.name".to_owned(), "named".to_owned());
        let attributes: BTreeMap<_, _> = attributes(&config, "checkout", "id").into_iter().collect();
        assert_eq!(attributes["host.name"], Attribute::Text("named".to_owned()));
        assert_eq!(attributes["service.name"], Attribute::Text("checkout".to_owned()));
        assert_eq!(attributes["process.pid"], Attribute::Int(std::process::id().into()));
    }
}
