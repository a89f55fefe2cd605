//! The readable output on stderr that `init()` gives a developer.

use std::str::FromStr;

use serde::Deserialize;

use super::{Config, ENDPOINT_DEFAULT, Endpoint, queue::named, sink::base_filter};
use crate::{ConfigError, filter::rules::BaseFilter};

/// What [`init`](crate::init) writes to stderr beside what goes to the sinks. ([`layer`](crate::layer()) never does.)
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Console {
    /// As [`Console::Text`], unless the endpoint itself writes lines to stdout or stderr. With
    /// [`Builder::alone`](crate::Builder::alone): nothing.
    #[default]
    Auto,
    /// Nothing.
    Off,
    /// A readable line for each event, coloured on a terminal unless `NO_COLOR` is set.
    Text,
    /// Several readable lines for each event.
    Pretty,
    /// A JSON object on a line for each event.
    Json,
}

impl Console {
    /// The endpoint that it writes to; none when it writes nothing.
    pub(crate) fn endpoint(self, config: &Config) -> Option<&'static str> {
        match self {
            Self::Auto => {
                let endpoint = Endpoint::parse(config.endpoint.as_deref().unwrap_or(ENDPOINT_DEFAULT));
                let shown = matches!(endpoint, Ok(Endpoint::Lines { to, .. }) if to.is_standard());
                (!shown).then_some("stderr:")
            }
            Self::Off => None,
            Self::Text => Some("stderr:"),
            Self::Pretty => Some("stderr:?format=pretty"),
            Self::Json => Some("stderr:?format=json"),
        }
    }
}

impl Config {
    /// What the console shows, where that is not what the sinks get.
    pub(crate) fn console_filter(&self) -> Result<Option<BaseFilter>, ConfigError> {
        base_filter("console_filter", self.console_filter.as_deref())
    }
}

impl FromStr for Console {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        named(text).ok_or_else(|| format!("`{text}` is not known: write auto, off, text, pretty or json"))
    }
}
