//! Settings from where they are: defaults, then the file, the environment and the builder's calls.

use std::{env, fs, path::Path};

use super::Change;
use crate::{
    Config, ConfigError,
    config::Console,
    filter::rules::{Document, RuleError, RuleSet},
};

/// All of them together, checked. `alone`: neither file nor environment.
pub(super) fn read(alone: bool, changes: Vec<Change>) -> Result<Config, ConfigError> {
    let variable = |name: &str| env::var(name).ok();
    let mut config = Config::default();
    if alone {
        config.console = Console::Off;
    } else {
        // Named by somebody, the file must be there; the one in the working directory may.
        let named = variable("LOGSINK_CONFIG").filter(|path| !path.is_empty());
        let path = named.as_deref().unwrap_or("logsink.toml");
        match fs::read_to_string(path) {
            Ok(text) => config = Config::from_toml(&text, path)?,
            Err(_) if named.is_none() && !Path::new(path).exists() => {}
            Err(error) => {
                let field = if named.is_some() { "LOGSINK_CONFIG" } else { "logsink.toml" };
                return Err(ConfigError { field: field.to_owned(), message: format!("cannot read {path}: {error}") });
            }
        }
        config.apply_env(&variable)?;
    }
    changes.into_iter().for_each(|change| change(&mut config));
    config.validate()?;
    Ok(config)
}

/// The base filter alone; a source brings the rest.
pub(super) fn rules_at_start(config: &Config, service: &str) -> Result<RuleSet, ConfigError> {
    let documents = match &config.filter {
        Some(filter) => vec![document_of(filter)?],
        None => Vec::new(),
    };
    RuleSet::compile(&documents, service).map_err(filter_error)
}

fn document_of(filter: &str) -> Result<Document, ConfigError> {
    Document::parse(&format!("filter = {}", toml::Value::from(filter))).map_err(filter_error)
}

fn filter_error(error: RuleError) -> ConfigError {
    // Line and column are of the document around the filter: nothing that the user has written.
    let hint = error.hint.map(|hint| format!(": {hint}")).unwrap_or_default();
    ConfigError { field: "filter".to_owned(), message: format!("{}{hint}", error.message) }
}
