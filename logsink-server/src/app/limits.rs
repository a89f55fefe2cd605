//! `[ingest.limits]` as ingest has it: the named services with the keys that they leave out filled in.

use std::time::Duration;

use crate::{
    config::{IngestLimits, ServiceLimits},
    ingest::{Allowance, Allowances, Rate},
};

/// What a silent service may send at once, in time: senders batch for a second or less, and one that comes back from a pause
/// has a second batch.
const BURST: Duration = Duration::from_secs(2);

pub(super) fn allowances(limits: &IngestLimits) -> Allowances {
    let each = limits.each();
    let filled = |own: &ServiceLimits| ServiceLimits {
        records_per_second: own.records_per_second.or(each.records_per_second),
        bytes_per_second: own.bytes_per_second.or(each.bytes_per_second),
        burst: own.burst.or(each.burst),
    };
    let named = limits.services.iter().map(|(name, own)| (name.clone(), allowance(&filled(own)))).collect();
    Allowances { each: allowance(&each), named }
}

fn allowance(limits: &ServiceLimits) -> Allowance {
    let burst = limits.burst.map_or(BURST, |burst| burst.0);
    Allowance {
        records: limits.records_per_second.map(|per_second| Rate { per_second, burst }),
        bytes: limits.bytes_per_second.map(|bytes| Rate { per_second: bytes.0, burst }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_named_service_takes_over_what_it_leaves_out() {
        let text = "[ingest.limits]\nrecords_per_second = 100\nburst = '5s'\n\
                    [ingest.limits.services.big]\nbytes_per_second = '1MiB'\n";
        let config: Config = toml::from_str(text).unwrap();
        let allowances = allowances(&config.ingest.limits);
        let burst = Duration::from_secs(5);
        let records = Some(Rate { per_second: 100, burst });
        assert_eq!(allowances.each, Allowance { records, bytes: None });
        let bytes = Some(Rate { per_second: 1 << 20, burst });
        assert_eq!(allowances.named["big"], Allowance { records, bytes });
    }
}
