//! `[ingest]`: bounds on what comes in.

use std::collections::BTreeMap;

use logsink::ConfigError;
use serde::Deserialize;

use super::{
    units::{Bytes, Span},
    validate::ensure,
};

/// Services with limits of their own: as many as the server tells apart.
const NAMED_MAX: usize = 4_096;

/// `[ingest]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ingest {
    /// The largest request, after decompression. Default: 16 MiB: four times what a client sends by default.
    pub request_bytes_max: Bytes,
    /// Bytes of requests under way at a time, reserved before they are read and shared fairly between services; more are
    /// answered "try again". Default: 32 MiB: a tenth of a second at half a million records a second.
    pub pending_bytes_max: Bytes,
    /// Whether rules are applied before the queue, so that what they drop and redact never gets there, rather than at the drain. Until
    /// they have been read, after a start, nothing is taken then. Left to the drain in any case are batches of the logsink
    /// library (where it knows the rules, it has applied them), and requests with records of a service that has a rule with
    /// `rate_limit` or `dedup`: what the queue did not take comes again, and would be taken for a repeat. On each processor a copy
    /// of a request may be made, beside `pending_bytes_max`. Default: no: requests go into the queue as they came.
    pub apply_rules: bool,
    /// What each service may send.
    pub limits: IngestLimits,
}

/// `[ingest.limits]`: of each service (`service.name` of a request's first resource) by itself. A request over its
/// service's limit is answered "try again", and when: gRPC `RESOURCE_EXHAUSTED` with `RetryInfo`, HTTP 429 with `Retry-After`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IngestLimits {
    /// Records a second. Default: no limit.
    pub records_per_second: Option<u64>,
    /// Bytes a second, of requests after decompression. Default: no limit.
    pub bytes_per_second: Option<Bytes>,
    /// A service that was silent may send at once what comes in this time. Default: `2s`.
    pub burst: Option<Span>,
    /// `[ingest.limits.services.NAME]`: limits of one service. A key left out is that of `[ingest.limits]`.
    pub services: BTreeMap<String, ServiceLimits>,
}

/// `[ingest.limits.services.NAME]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServiceLimits {
    /// Records a second.
    pub records_per_second: Option<u64>,
    /// Bytes a second.
    pub bytes_per_second: Option<Bytes>,
    /// The time whose records and bytes may come at once.
    pub burst: Option<Span>,
}

impl Default for Ingest {
    fn default() -> Self {
        Self {
            request_bytes_max: Bytes::mib(16),
            pending_bytes_max: Bytes::mib(32),
            apply_rules: false,
            limits: IngestLimits::default(),
        }
    }
}

impl IngestLimits {
    /// What holds for services that are not named.
    pub fn each(&self) -> ServiceLimits {
        let Self { records_per_second, bytes_per_second, burst, services: _ } = *self;
        ServiceLimits { records_per_second, bytes_per_second, burst }
    }

    /// What the types cannot say.
    ///
    /// # Errors
    /// The first key that cannot be used, by its path, with what to write instead.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        ensure(self.services.len() <= NAMED_MAX, "ingest.limits.services", || {
            format!("names {} services: {NAMED_MAX} at most have limits of their own", self.services.len())
        })?;
        let named = self.services.iter().map(|(name, own)| (format!("ingest.limits.services.{name}"), own.clone()));
        for (path, limits) in named.chain([("ingest.limits".to_owned(), self.each())]) {
            ensure(limits.records_per_second != Some(0), &format!("{path}.records_per_second"), || {
                "0 would take nothing: leave it out for no limit".into()
            })?;
            ensure(limits.bytes_per_second != Some(Bytes(0)), &format!("{path}.bytes_per_second"), || {
                "0 would take nothing: leave it out for no limit".into()
            })?;
            ensure(limits.burst.is_none_or(|burst| !burst.0.is_zero()), &format!("{path}.burst"), || {
                "0 would take nothing: write 1s or so".into()
            })?;
        }
        Ok(())
    }
}
