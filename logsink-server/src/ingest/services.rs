//! Who sends, and how much of it is let in: rate limits and fair shares by service.
//!
//! A service is what a request's first resource calls itself (`service.name`). What is known of one is the bytes that it has under
//! way and the state of its two buckets. One that has nothing under way and full buckets is as good as unknown, and is
//! forgotten when its place is wanted. Beyond [`SERVICES_MAX`] that are not, further ones share one place: one limit and one
//! share for all of them. So do those whose names are longer than [`SERVICE_BYTES_MAX`] and have no limits of their own: a name may be as
//! long as a request.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{
    rate::{Bucket, Rate, nanos},
    share::may_hold,
};
use crate::{
    control::SERVICE_BYTES_MAX,
    metrics::{Metrics, ServiceCounters},
};

/// Services known at a time: ten times what a large installation has, in about half a megabyte; with the longest names, in two.
const SERVICES_MAX: usize = 4_096;

/// How often the table is looked through for places to give away, at most.
const SWEEP_INTERVAL: u64 = 1_000_000_000;

/// When a service that holds its share should come again: some requests of its own have ended by then.
const SHARE_WAIT: Duration = Duration::from_millis(200);

/// The place of those for whom there is none.
const OTHERS: usize = 0;

/// What one service may send.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Allowance {
    /// Records; none: no limit.
    pub records: Option<Rate>,
    /// Bytes of requests, decompressed; none: no limit.
    pub bytes: Option<Rate>,
}

/// What all services may send.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowances {
    /// Each service that is not named below.
    pub each: Allowance,
    /// By name.
    pub named: BTreeMap<String, Allowance>,
}

/// Why a request is not let in, and when it may come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TurnedAway {
    /// The service is over its rate.
    Rate(Duration),
    /// The service has its share under way, and others may want theirs.
    Share(Duration),
}

/// All of them.
pub(super) struct Services {
    allowances: Allowances,
    /// What all requests under way may have together.
    bytes_max: u64,
    /// The buckets' clock begins here.
    started: Instant,
    metrics: Arc<Metrics>,
    table: Mutex<Table>,
}

struct Table {
    places: HashMap<Box<str>, usize>,
    services: Vec<Service>,
    /// Bytes that all of them have under way.
    bytes: u64,
    /// Where the next search for a place begins, and when the last one found none.
    hand: usize,
    swept: Option<u64>,
}

struct Service {
    name: Box<str>,
    /// Bytes under way.
    under_way: u64,
    allowance: Allowance,
    records: Bucket,
    bytes: Bucket,
    counters: ServiceCounters,
}

/// A request that was let in. Its share is given back when this is dropped, and what it took of the rate, too, unless it was
/// [taken](Self::taken).
pub(super) struct Admitted<'a> {
    services: &'a Services,
    place: usize,
    records: u64,
    bytes: u64,
    taken: bool,
}

impl Services {
    pub(super) fn new(allowances: Allowances, bytes_max: u64, metrics: Arc<Metrics>) -> Self {
        let others = Service::new("", allowances.each, metrics.service_counters(None));
        let table = Table { places: HashMap::new(), services: vec![others], bytes: 0, hand: 0, swept: None };
        Self { allowances, bytes_max, started: Instant::now(), metrics, table: Mutex::new(table) }
    }

    /// Lets a request in, or says when it may come again.
    pub(super) fn admit(
        &self,
        name: &str,
        records: u32,
        bytes: usize,
        now: Instant,
    ) -> Result<Admitted<'_>, TurnedAway> {
        let now = nanos(now.saturating_duration_since(self.started));
        let (records, bytes) = (u64::from(records), bytes as u64);
        let mut table = self.table();
        let place = self.place(&mut table, name, now);
        let all = table.bytes;
        let service = &mut table.services[place];
        let wait = service.wait(now);
        let refusal = match wait.is_zero() {
            false => Some(TurnedAway::Rate(wait)),
            true if !may_hold(service.under_way, bytes, all, self.bytes_max) => Some(TurnedAway::Share(SHARE_WAIT)),
            true => None,
        };
        if let Some(refusal) = refusal {
            service.counters.refused.inc();
            return Err(refusal);
        }
        service.take(records, bytes, now);
        table.bytes += bytes;
        Ok(Admitted { services: self, place, records, bytes, taken: false })
    }

    /// A service's place; that of the others when there is none for it.
    fn place(&self, table: &mut Table, name: &str, now: u64) -> usize {
        let named = self.allowances.named.get(name);
        if named.is_none() && name.len() > SERVICE_BYTES_MAX {
            return OTHERS;
        }
        if let Some(place) = table.places.get(name) {
            return *place;
        }
        let allowance = named.copied().unwrap_or(self.allowances.each);
        let place = match table.services.len() {
            len if len <= SERVICES_MAX => len,
            _ => match table.sweep(now) {
                Some(place) => place,
                None => return OTHERS,
            },
        };
        let service = Service::new(name, allowance, self.metrics.service_counters(Some(name)));
        match table.services.get_mut(place) {
            Some(idle) => *idle = service,
            None => table.services.push(service),
        }
        table.places.insert(name.into(), place);
        place
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Plain numbers; none of the statements below panics between two of them.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes under way of all services together, and of this one.
    #[cfg(test)]
    fn under_way(&self, name: &str) -> (u64, u64) {
        let table = self.table();
        (table.bytes, table.places.get(name).map_or(0, |place| table.services[*place].under_way))
    }
}

impl Table {
    /// Finds a service that is as good as unknown and frees its place. Goes on where it left off: while there are such, it
    /// looks at few; when there are none, it has looked at all, and does not do so again soon.
    fn sweep(&mut self, now: u64) -> Option<usize> {
        if self.swept.is_some_and(|swept| now < swept + SWEEP_INTERVAL) {
            return None;
        }
        for _ in 0..SERVICES_MAX {
            self.hand = self.hand % SERVICES_MAX + 1;
            let service = &self.services[self.hand];
            if service.is_idle(now) {
                self.places.remove(&service.name);
                self.swept = None;
                return Some(self.hand);
            }
        }
        self.swept = Some(now);
        None
    }
}

impl Service {
    fn new(name: &str, allowance: Allowance, counters: ServiceCounters) -> Self {
        let (records, bytes) = Default::default();
        Self { name: name.into(), under_way: 0, allowance, records, bytes, counters }
    }

    fn wait(&self, now: u64) -> Duration {
        let wait = |bucket: Bucket, rate: Option<Rate>| rate.map_or(Duration::ZERO, |rate| bucket.wait(rate, now));
        wait(self.records, self.allowance.records).max(wait(self.bytes, self.allowance.bytes))
    }

    fn take(&mut self, records: u64, bytes: u64, now: u64) {
        self.under_way += bytes;
        if let Some(rate) = self.allowance.records {
            self.records.take(rate, records, now);
        }
        if let Some(rate) = self.allowance.bytes {
            self.bytes.take(rate, bytes, now);
        }
    }

    fn give_back(&mut self, records: u64, bytes: u64) {
        if let Some(rate) = self.allowance.records {
            self.records.give_back(rate, records);
        }
        if let Some(rate) = self.allowance.bytes {
            self.bytes.give_back(rate, bytes);
        }
    }

    fn is_idle(&self, now: u64) -> bool {
        self.under_way == 0 && self.records.is_full(now) && self.bytes.is_full(now)
    }
}

impl Admitted<'_> {
    /// The queue has it.
    pub(super) fn taken(mut self) {
        self.taken = true;
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        let mut table = self.services.table();
        table.bytes -= self.bytes;
        let service = &mut table.services[self.place];
        service.under_way -= self.bytes;
        if self.taken {
            service.counters.records.inc_by(self.records);
            service.counters.bytes.inc_by(self.bytes);
        } else {
            service.give_back(self.records, self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(per_second: u64) -> Option<Rate> {
        Some(Rate { per_second, burst: Duration::from_secs(1) })
    }

    fn services(allowances: Allowances) -> Services {
        Services::new(allowances, 1_000, Metrics::new())
    }

    #[test]
    fn each_service_has_its_own_rate_and_the_named_ones_theirs() {
        let each = Allowance { records: rate(10), bytes: None };
        let named = [("big".to_owned(), Allowance { records: rate(100), bytes: rate(50) })].into();
        let services = services(Allowances { each, named });
        let now = Instant::now();
        let send = |name: &str, records, bytes, now| match services.admit(name, records, bytes, now) {
            Ok(admitted) => {
                admitted.taken();
                None
            }
            Err(refusal) => Some(refusal),
        };
        assert_eq!(send("small", 10, 1, now), None);
        let Some(TurnedAway::Rate(wait)) = send("small", 1, 1, now) else { panic!("over its rate") };
        assert!(wait <= Duration::from_millis(1), "a token comes every 100 ms, and the bucket has just become empty");
        assert_eq!(send("other", 10, 1, now), None, "another's bucket");
        assert_eq!(send("big", 20, 60, now), None);
        let Some(TurnedAway::Rate(wait)) = send("big", 1, 1, now) else { panic!("over its bytes") };
        assert_eq!(wait.as_millis(), 200, "10 bytes too many at 50 a second");
        assert_eq!(send("big", 1, 1, now + wait), None);
    }

    #[test]
    fn what_the_queue_did_not_take_is_given_back() {
        let services =
            services(Allowances { each: Allowance { records: rate(10), bytes: rate(10) }, ..Default::default() });
        let now = Instant::now();
        for _ in 0..100 {
            drop(services.admit("a", 10, 10, now).unwrap_or_else(|_| panic!("nothing was taken")));
        }
        assert_eq!(services.under_way("a"), (0, 0));
    }

    #[test]
    fn a_service_with_its_share_does_not_keep_others_out() {
        let services = services(Allowances::default());
        let now = Instant::now();
        let mut held = Vec::new();
        while let Ok(admitted) = services.admit("flood", 1, 10, now) {
            held.push(admitted);
        }
        assert_eq!(services.under_way("flood"), (500, 500), "half");
        assert_eq!(services.admit("flood", 1, 10, now).err(), Some(TurnedAway::Share(SHARE_WAIT)));
        let small = services.admit("small", 1, 10, now);
        assert!(small.is_ok());
        held.clear();
        assert!(services.admit("flood", 1, 10, now).is_ok());
    }

    #[test]
    fn a_name_as_long_as_a_request_is_not_kept_and_shares_a_place() {
        let (long, named) = ("x".repeat(SERVICE_BYTES_MAX + 1), "n".repeat(SERVICE_BYTES_MAX + 1));
        let each = Allowance { records: rate(10), bytes: None };
        let own = Allowance { records: rate(100), bytes: None };
        let services = services(Allowances { each, named: [(named.clone(), own)].into() });
        let now = Instant::now();
        let send = |name: &str, records| {
            let admitted = services.admit(name, records, 1, now);
            admitted.map(|admitted| (admitted.place, admitted.taken()).0)
        };
        assert_eq!(send(&long, 6), Ok(OTHERS));
        assert_eq!(send(&"y".repeat(1 << 20), 6), Ok(OTHERS), "one limit for all of them");
        assert!(matches!(send(&long, 1), Err(TurnedAway::Rate(_))));
        assert_ne!(send(&long[1..], 10), Ok(OTHERS));
        assert_ne!(send(&named, 100), Ok(OTHERS), "the settings know it");
        assert!(services.table().places.keys().all(|name| name.len() <= SERVICE_BYTES_MAX || **name == *named));
    }

    #[test]
    fn idle_services_make_room_and_busy_ones_share_a_place() {
        let services = services(Allowances::default());
        let now = Instant::now();
        for n in 0..SERVICES_MAX {
            services.admit(&format!("s{n}"), 1, 0, now).unwrap_or_else(|_| panic!("let in")).taken();
        }
        let new = services.admit("new", 1, 1, now).unwrap_or_else(|_| panic!("let in"));
        assert_ne!(new.place, OTHERS, "an idle one was forgotten");
        let busy: Vec<_> = (0..SERVICES_MAX).filter_map(|n| services.admit(&format!("t{n}"), 0, 0, now).ok()).collect();
        drop(busy);
        // All have a byte under way.
        let table_full: Vec<_> = (0..SERVICES_MAX)
            .map(|n| services.admit(&format!("u{n}"), 1, 0, now).unwrap_or_else(|_| panic!("let in")))
            .collect();
        for service in &mut services.table().services {
            service.under_way += 1;
        }
        let one_more = services.admit("one more", 1, 1, now).unwrap_or_else(|_| panic!("the others' first"));
        assert_eq!(one_more.place, OTHERS);
        assert_eq!(services.table().places.len(), SERVICES_MAX);
        for service in &mut services.table().services {
            service.under_way -= 1;
        }
        drop((one_more, table_full, new));
    }
}
