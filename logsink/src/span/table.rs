//! Where one layer keeps the fields of its live spans: in places that are found by the registry's id, without a hash table and,
//! once they are there, without an allocation.
//!
//! The registry numbers its spans so that a thread's live ones are close together, which this table makes use of but does not rely
//! on: a place says whose it is, and a span that finds its place taken keeps its fields in the registry, as an extension. No more
//! than [`PAGES`] * [`PAGE_SPANS`] spans have a place; the memory of pages that were needed is kept as long as the layer.

use std::{
    hint,
    sync::{
        OnceLock, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use tracing_core::span::Id;

use super::fields::SpanFields;

/// Spans of a page, which are neighbours; 14 KiB. More than a thread has live at a time, mostly.
const PAGE_SPANS: u64 = 32;

/// 4,096 spans; 1.8 MiB if all are needed.
const PAGES: u64 = 128;

/// Where the number of the thread that created a span starts in the span's id, and how many threads there are: other numbers would
/// make spans meet in one place more often.
const THREAD_AT: u32 = 38;
const THREADS: u64 = 1 << 12;

/// Looks at a place that is being changed before the thread gives way to others.
const SPINS: u32 = 64;

/// A layer's table.
pub(crate) struct Spans {
    pages: Box<[OnceLock<Page>]>,
}

type Page = Box<[Place]>;

/// On cache lines of its own: neighbours may be of different threads.
#[repr(align(64))]
struct Place {
    /// Whose it is; 0 for nobody's. A closed span keeps it until another takes it: layers that see it close later may still log
    /// in it. Changed under the lock only.
    id: AtomicU64,
    is_closed: AtomicBool,
    /// Whether the fields take memory that is not to stay with the place: they are gone as soon as the span closes.
    is_large: AtomicBool,
    fields: RwLock<SpanFields>,
}

/// A place whose fields are being written. It becomes the span's by [`Claim::publish`], and otherwise nobody's.
pub(super) struct Claim<'t> {
    place: &'t Place,
    pub(super) fields: RwLockWriteGuard<'t, SpanFields>,
}

impl Claim<'_> {
    #[inline]
    pub(super) fn publish(self, id: &Id) {
        self.place.is_closed.store(false, Ordering::Relaxed);
        self.place.is_large.store(self.fields.is_large(), Ordering::Relaxed);
        self.place.id.store(id.into_u64(), Ordering::Release);
    }
}

impl Spans {
    pub(crate) fn new() -> Self {
        Self { pages: (0..PAGES).map(|_| OnceLock::new()).collect() }
    }

    /// Finds a place for a new span, whose fields are none yet; `None` when it is taken.
    #[inline]
    pub(super) fn claim(&self, id: &Id) -> Option<Claim<'_>> {
        let (page, at) = position(id);
        let place = self.pages.get(page)?.get_or_init(new_page).get(at)?;
        let fields = match place.fields.try_write() {
            Ok(fields) => fields,
            // An earlier span of this very id would be found in its stead.
            Err(TryLockError::WouldBlock) => place.lock(id, || place.fields.try_write())?,
            // Values that panicked have left nothing that counts.
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        };
        let owner = place.id.load(Ordering::Relaxed);
        if owner != 0 && owner != id.into_u64() && !place.is_closed.load(Ordering::Acquire) {
            return None;
        }
        // Who looks for the closed span does not wait for what the user's code does from here on.
        place.id.store(0, Ordering::Release);
        let mut claim = Claim { place, fields };
        claim.fields.renew();
        Some(claim)
    }

    /// The fields of this span, if they have a place.
    #[inline]
    pub(super) fn read(&self, id: &Id) -> Option<RwLockReadGuard<'_, SpanFields>> {
        let place = self.find(id)?;
        place.lock(id, || place.fields.try_read())
    }

    /// Changes the fields of this span; `false` if they have no place.
    pub(super) fn change(&self, id: &Id, change: impl FnOnce(&mut SpanFields)) -> bool {
        let Some(place) = self.find(id) else { return false };
        let Some(mut fields) = place.lock(id, || place.fields.try_write()) else { return false };
        change(&mut fields);
        place.is_large.store(fields.is_large(), Ordering::Relaxed);
        true
    }

    /// Lets others have a span's place. To be called before its id is used again.
    #[inline]
    pub(crate) fn close(&self, id: &Id) {
        match self.find(id) {
            Some(place) if !place.is_of(id) => {}
            Some(place) if place.is_large.load(Ordering::Relaxed) => place.empty(id),
            // Until here it is this span's.
            Some(place) => place.is_closed.store(true, Ordering::Release),
            None => {}
        }
    }

    #[inline]
    fn find(&self, id: &Id) -> Option<&Place> {
        let (page, at) = position(id);
        self.pages.get(page)?.get()?.get(at)
    }
}

impl Place {
    fn new() -> Self {
        Self {
            id: AtomicU64::new(0),
            is_closed: AtomicBool::new(false),
            is_large: AtomicBool::new(false),
            fields: RwLock::new(SpanFields::new()),
        }
    }

    #[inline]
    fn is_of(&self, id: &Id) -> bool {
        self.id.load(Ordering::Acquire) == id.into_u64()
    }

    /// Waits for who reads or changes the fields of this span at this moment; `None` when the place is not its. Never waits for a
    /// new span that is getting the place, which may take as long as the user's code takes.
    #[inline]
    fn lock<G>(&self, id: &Id, attempt: impl Fn() -> Result<G, TryLockError<G>>) -> Option<G> {
        let mut spins = 0;
        while self.is_of(id) {
            match attempt() {
                Ok(guard) => return self.is_of(id).then_some(guard),
                Err(TryLockError::Poisoned(poisoned)) => return self.is_of(id).then(|| poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => wait(&mut spins),
            }
        }
        None
    }

    #[cold]
    #[inline(never)]
    fn empty(&self, id: &Id) {
        if let Some(mut fields) = self.lock(id, || self.fields.try_write()) {
            self.id.store(0, Ordering::Release);
            *fields = SpanFields::new();
        }
    }
}

#[cold]
fn wait(spins: &mut u32) {
    if *spins < SPINS {
        *spins += 1;
        hint::spin_loop();
    } else {
        thread::yield_now();
    }
}

#[cold]
#[inline(never)]
fn new_page() -> Page {
    (0..PAGE_SPANS).map(|_| Place::new()).collect()
}

/// A span's page and its place there.
#[inline]
fn position(id: &Id) -> (usize, usize) {
    // The registry counts from 1.
    let id = id.into_u64().wrapping_sub(1);
    let thread = id >> THREAD_AT & (THREADS - 1);
    // An odd factor: the first pages of as many threads as there are pages differ, and mostly their second ones.
    let page = (id / PAGE_SPANS).wrapping_add(thread.wrapping_mul(37)) % PAGES;
    (page as usize, (id % PAGE_SPANS) as usize)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, panic};

    use super::*;
    use crate::span::fields::SpanVisitor;
    use tracing_core::field::Visit as _;

    fn id(number: u64) -> Id {
        Id::from_u64(number)
    }

    /// The id of this index of the registry, of its thread and generation.
    fn id_of(index: u64, thread: u64, generation: u64) -> Id {
        id((generation << 51 | thread << THREAD_AT | index) + 1)
    }

    /// Claims and publishes; tells the serial number.
    fn create(spans: &Spans, id: &Id) -> Option<u64> {
        let claim = spans.claim(id)?;
        let serial = claim.fields.serial();
        claim.publish(id);
        Some(serial)
    }

    fn serial(spans: &Spans, id: &Id) -> Option<u64> {
        spans.read(id).map(|fields| fields.serial())
    }

    /// Against a map, with ids that meet and that come again.
    #[test]
    fn a_place_is_one_spans_until_it_has_closed() {
        let spans = Spans::new();
        let mut live = BTreeMap::new();
        let (mut placed, mut refused) = (0, 0);
        let mut random = 1_u64;
        for _ in 0..200_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let bits = random >> 33;
            let id = id_of(bits % 6_000, bits / 6_000 % 3, bits / 18_000 % 2);
            match live.remove(&id.into_u64()) {
                Some(expected) => {
                    assert_eq!(serial(&spans, &id), expected);
                    spans.close(&id);
                }
                None => {
                    let serial = create(&spans, &id);
                    placed += u32::from(serial.is_some());
                    refused += u32::from(serial.is_none());
                    live.insert(id.into_u64(), serial);
                }
            }
        }
        for (number, expected) in live {
            assert_eq!(serial(&spans, &id(number)), expected);
        }
        assert!(placed > 10_000 && refused > 10_000, "{placed} placed, {refused} refused");
    }

    #[test]
    fn spans_of_a_thread_and_of_many_threads_do_not_meet() {
        let spans = Spans::new();
        assert!((0..PAGES * PAGE_SPANS).all(|index| create(&spans, &id_of(index, 0, 0)).is_some()));
        assert_eq!(create(&spans, &id_of(PAGES * PAGE_SPANS, 0, 0)), None, "all places are taken");
        let spans = Spans::new();
        assert!((0..PAGES).all(|thread| (0..PAGE_SPANS).all(|at| create(&spans, &id_of(at, thread, 7)).is_some())));
    }

    #[test]
    fn a_closed_spans_fields_stay_until_its_place_is_taken() {
        let spans = Spans::new();
        let (first, second) = (id_of(5, 1, 0), id_of(5, 1, 1));
        let kept = create(&spans, &first);
        spans.close(&first);
        assert_eq!(serial(&spans, &first), kept);
        let claim = spans.claim(&second).unwrap();
        // While its values are written, which may run the user's code, neither is found and nobody waits.
        assert_eq!((serial(&spans, &first), serial(&spans, &second)), (None, None));
        assert!(spans.claim(&id_of(5, 1, 2)).is_none());
        assert!(!spans.change(&first, |_| unreachable!()));
        spans.close(&first);
        claim.publish(&second);
        assert!(serial(&spans, &second) > kept);
        spans.close(&first);
        assert!(spans.claim(&first).is_none(), "a late close of an old span frees nothing");
    }

    #[test]
    fn values_that_panic_leave_the_place_free() {
        let spans = Spans::new();
        let first = id_of(0, 0, 0);
        let caught = panic::catch_unwind(panic::AssertUnwindSafe(|| {
            let _claim = spans.claim(&first);
            panic!("a value's Debug");
        }));
        assert!(caught.is_err());
        assert_eq!(serial(&spans, &first), None);
        let second = id_of(0, 0, 1);
        let kept = create(&spans, &second);
        assert!(kept.is_some());
        assert_eq!(serial(&spans, &second), kept);
        assert!(spans.change(&second, |fields| assert_eq!(Some(fields.serial()), kept)));
        spans.close(&second);
        assert!(create(&spans, &first).is_some());
    }

    #[test]
    fn memory_of_large_spans_is_given_back_when_they_close() {
        static META: tracing_core::Metadata<'static> = tracing_core::metadata! {
            name: "large",
            target: "test",
            level: tracing_core::Level::INFO,
            fields: &["a"],
            callsite: &CALLSITE,
            kind: tracing_core::metadata::Kind::SPAN,
        };
        static CALLSITE: tracing_core::callsite::DefaultCallsite = tracing_core::callsite::DefaultCallsite::new(&META);
        let field = META.fields().field("a").unwrap();
        let large = |fields: &mut SpanFields| SpanVisitor::new(fields).record_str(&field, &"x".repeat(2_000));
        let spans = Spans::new();
        let (first, second) = (id_of(0, 0, 0), id_of(1, 0, 0));
        let mut claim = spans.claim(&first).unwrap();
        large(&mut claim.fields);
        claim.publish(&first);
        create(&spans, &second);
        assert!(spans.change(&second, large));
        for id in [&first, &second] {
            assert!(spans.read(id).unwrap().is_large());
            spans.close(id);
            assert!(spans.read(id).is_none());
            assert!(!spans.find(id).unwrap().fields.read().unwrap().is_large());
            assert!(create(&spans, id).is_some());
        }
    }
}
