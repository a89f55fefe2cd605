//! What is known of an event before it happens: its encoded constants, where its fields go, and which rules concern it.
//!
//! A callsite is found through a small table of the calling thread; the table of all callsites behind it is asked once
//! per thread and callsite, and again after the rules have changed. Callsites are static, so nothing here is ever freed.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, PoisonError, RwLock},
};

use arc_swap::ArcSwapOption;
use tracing_core::Metadata;

use crate::{
    Severity,
    encode::{Scalar, event::EXCEPTION_MESSAGE, push_attribute, push_delimited, push_text, tag},
    filter::{
        recording::Wish,
        rules::{Interest, Plan},
    },
    layer::Capture,
    queue::FRAME_TAG,
    reload::Reload,
};

/// Names under which the library itself writes; a span's field of such a name is not shown. An event's own field is, in
/// the library's stead.
pub(crate) mod name {
    pub(crate) const TARGET: &str = "target";
    pub(crate) const FILE: &str = "code.file.path";
    pub(crate) const LINE: &str = "code.line.number";
    pub(crate) const MODULE: &str = "code.namespace";
    pub(crate) const THREAD_NAME: &str = "thread.name";
    pub(crate) const THREAD_ID: &str = "thread.id";
    pub(crate) const SPAN_NAME: &str = "span.name";
    pub(crate) const SPAN_PATH: &str = "span.path";
}

/// Where the value of a field goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The record's body.
    Body,
    /// An attribute.
    Attribute,
    /// A field that repeats the name of an earlier one.
    Nowhere,
    /// The record's body, without its value.
    RedactedBody,
    /// An attribute without its value.
    RedactedAttribute,
}

impl Place {
    /// Whether values go there as they are.
    #[inline]
    pub(crate) fn takes_values(self) -> bool {
        matches!(self, Self::Body | Self::Attribute)
    }

    #[inline]
    pub(crate) fn is_attribute(self) -> bool {
        matches!(self, Self::Attribute | Self::RedactedAttribute)
    }

    fn redacted(self) -> Self {
        match self {
            Self::Body => Self::RedactedBody,
            Self::Attribute => Self::RedactedAttribute,
            other => other,
        }
    }
}

/// Fields that have a bit of their own; [`NO_BLOCK`] is the one that is left.
pub(crate) const BITS: usize = 63;

/// Always among the bits of recorded fields, so that a `block_bit` of all bits is never free.
pub(crate) const NO_BLOCK: u64 = 1 << BITS;

/// How one field of a callsite is written. On cache lines of its own, and a power of two in size.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct FieldPlan {
    /// One bit for each of the first [`BITS`] fields of the callsite; 0 for later ones.
    pub(crate) bit: u64,
    /// The same where there is a `block`, else all bits: one look tells that a field has none or was there before.
    pub(crate) block_bit: u64,
    pub(crate) place: Place,
    /// The attribute's key.
    pub(crate) name: &'static str,
    /// The same, as the encoded field `KeyValue.key`.
    pub(crate) key: Box<[u8]>,
    /// Everything before a short value, its two lengths left open; empty when the key is too long for it, or the field is no
    /// attribute.
    pub(crate) block: Block,
    /// How an error in this field repeats its message, when the field is one that errors are put in.
    pub(crate) exception: Option<Box<FieldPlan>>,
}

impl FieldPlan {
    fn attribute(name: &'static str) -> Self {
        let mut key = Vec::new();
        push_delimited(&mut key, tag::KEY, name.as_bytes());
        let block = Block::new(&key).unwrap_or_default();
        Self { bit: 0, block_bit: u64::MAX, place: Place::Attribute, name, block, key: key.into(), exception: None }
    }
}

/// `32 L key 12 L`, in a place of constant size: copying a constant number of bytes takes no call and no loop.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) bytes: [u8; Block::SIZE],
    /// Where the second length stands, as the last byte that counts; less than `SIZE`.
    last: u8,
}

impl Default for Block {
    fn default() -> Self {
        Self { bytes: [0; Self::SIZE], last: 0 }
    }
}

impl Block {
    /// A power of two, for [`Block::last`].
    pub(crate) const SIZE: usize = 64;

    /// The longest `KeyValue` whose length is one byte of varint.
    pub(crate) const SHORT_MAX: usize = 127;

    fn is_empty(&self) -> bool {
        self.last == 0
    }

    fn new(key: &[u8]) -> Option<Self> {
        let last = 1 + 1 + key.len() + 1;
        let mut bytes = [0; Self::SIZE];
        bytes[0] = tag::ATTRIBUTE;
        bytes.get_mut(2..2 + key.len())?.copy_from_slice(key);
        *bytes.get_mut(last - 1)? = tag::VALUE;
        (last < Self::SIZE).then_some(Self { bytes, last: last as u8 })
    }

    #[inline]
    pub(crate) fn last(&self) -> usize {
        // Changes nothing, but shows the compiler that it is inside.
        usize::from(self.last) % Self::SIZE
    }
}

/// A callsite, prepared.
pub(crate) struct Callsite {
    pub(crate) severity: Severity,
    /// The target, when `head` tells it: events of the `log` crate have one each, and a field may take its name.
    pub(crate) target: Option<&'static str>,
    /// Whether it stands for all records of the `log` crate of its level.
    #[cfg(feature = "log")]
    pub(crate) is_log: bool,
    /// The record's start: frame, times (zero), severity and constant attributes.
    pub(crate) head: Box<[u8]>,
    /// By field index.
    pub(crate) fields: Box<[FieldPlan]>,
    /// [`name_bit`] of every attribute that an event of this callsite may bring itself.
    pub(crate) name_bits: u64,
    /// The newest judgement. Two layers in one process replace each other's, which costs time only.
    judged: ArcSwapOption<Judged>,
}

/// What one generation of one layer's rules has in store for a callsite.
pub(crate) struct Judged {
    stamp: u64,
    pub(crate) plan: Plan,
    /// Whether the console may show events that the rules do not want.
    pub(crate) console: bool,
    /// Which of the events that do not pass the flight recorder keeps.
    pub(crate) wish: Wish,
    /// Whether an event that passes makes the flight recorder speak.
    releases: bool,
}

impl Judged {
    /// Whether it was derived from these rules.
    pub(crate) fn is_of(&self, layer: u64, generation: u64) -> bool {
        self.stamp == stamp(layer, generation)
    }
}

/// One number for a layer and a generation of its rules. The numbers are unique until a layer has seen 2^40 swaps.
#[inline]
fn stamp(layer: u64, generation: u64) -> u64 {
    layer << 40 | generation & ((1 << 40) - 1)
}

/// One of 64 bits for a name: sets of names that share no bit share no name.
pub(crate) fn name_bit(name: &str) -> u64 {
    // FNV-1a.
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    1 << (hash >> 58)
}

/// Whether this is one of the five callsites that stand for all records of the `log` crate.
fn stands_for_log(meta: &Metadata<'_>) -> bool {
    meta.name() == "log event" && meta.target() == "log"
}

impl Callsite {
    /// Where the time stands in `head`, after the frame and its own tag.
    pub(crate) const TIME_AT: usize = 5;
    /// Where the observed time stands in `head`.
    pub(crate) const OBSERVED_TIME_AT: usize = 14;

    fn new(meta: &'static Metadata<'static>, capture: Capture) -> Self {
        let is_log = stands_for_log(meta);
        let mut fields: Vec<FieldPlan> = Vec::with_capacity(meta.fields().len());
        for field in meta.fields().iter() {
            let raw = field.name();
            let name = match raw {
                "log.target" if is_log => name::TARGET,
                "log.file" if is_log => name::FILE,
                "log.line" if is_log => name::LINE,
                "log.module_path" if is_log => name::MODULE,
                _ => raw.strip_prefix("r#").unwrap_or(raw),
            };
            let mut plan = FieldPlan::attribute(name);
            plan.bit = if field.index() < BITS { 1 << field.index() } else { 0 };
            if name == "message" {
                plan.place = Place::Body;
            }
            if fields.iter().any(|earlier| earlier.name == name) {
                plan.place = Place::Nowhere;
            }
            let hidden = is_log && !capture.location && name != name::TARGET && name != "message";
            if hidden {
                plan.place = Place::Nowhere;
            }
            if capture.redact.cover(name) {
                plan.place = plan.place.redacted();
            }
            if plan.place == Place::Attribute && !plan.block.is_empty() {
                plan.block_bit = plan.bit;
            }
            fields.push(plan);
        }
        let has = |fields: &[FieldPlan], name| fields.iter().any(|field| field.name == name);
        if !has(&fields, EXCEPTION_MESSAGE) && !capture.redact.cover(EXCEPTION_MESSAGE) {
            for field in fields.iter_mut().filter(|field| matches!(field.name, "error" | "err")) {
                field.exception = Some(Box::new(FieldPlan::attribute(EXCEPTION_MESSAGE)));
            }
        }
        let name_bits = fields
            .iter()
            .flat_map(|field| [Some(field), field.exception.as_deref()])
            .flatten()
            .filter(|field| field.place.is_attribute())
            .fold(0, |bits, field| bits | name_bit(field.name));

        let mut head = vec![FRAME_TAG, 0, 0, 0];
        head.push(tag::TIME);
        head.extend_from_slice(&[0; 8]);
        head.push(tag::OBSERVED_TIME);
        head.extend_from_slice(&[0; 8]);
        let severity = Severity::from(meta.level());
        head.extend_from_slice(&[tag::SEVERITY_NUMBER, severity.0]);
        push_delimited(&mut head, tag::SEVERITY_TEXT, meta.level().as_str().as_bytes());
        let mut target = None;
        if !is_log {
            // What is redacted is left out: it is the same for all events of the callsite, and tells nothing then.
            let free = |name| !has(&fields, name) && (name == name::TARGET || !capture.redact.cover(name));
            if free(name::TARGET) {
                push_text(&mut head, name::TARGET, meta.target());
                target = Some(meta.target());
            }
            if capture.location {
                if let Some(file) = meta.file().filter(|_| free(name::FILE)) {
                    push_text(&mut head, name::FILE, file);
                }
                if let Some(line) = meta.line().filter(|_| free(name::LINE)) {
                    push_attribute(&mut head, name::LINE, Scalar::int(line.into()).as_bytes());
                }
                let other_module = meta.module_path().filter(|module| *module != meta.target());
                if let Some(module) = other_module.filter(|_| free(name::MODULE)) {
                    push_text(&mut head, name::MODULE, module);
                }
            }
        }
        Self {
            severity,
            target,
            #[cfg(feature = "log")]
            is_log,
            head: head.into(),
            fields: fields.into(),
            name_bits,
            judged: ArcSwapOption::const_empty(),
        }
    }

    /// What the layer's rules have in store, worked out at most once per generation.
    pub(crate) fn judge(&self, meta: &Metadata<'_>, layer: u64, reload: &Reload) -> Arc<Judged> {
        // The generation of the snapshot itself: `Reload::generation` may be one ahead or behind of it.
        let active = reload.active();
        let stamp = stamp(layer, active.generation);
        if let Some(judged) = self.judged.load_full().filter(|judged| judged.stamp == stamp) {
            return judged;
        }
        let recording = reload.recording();
        let judged = Arc::new(Judged {
            stamp,
            plan: active.rules.plan(meta),
            console: reload.console().is_some_and(|filter| filter.may_want(meta)),
            wish: recording.map_or(Wish::Never, |recording| recording.wish(&active.rules, meta)),
            releases: recording.is_some_and(|recording| self.severity >= recording.trigger),
        });
        self.judged.store(Some(judged.clone()));
        judged
    }
}

type Table = RwLock<HashMap<(usize, Capture), &'static Callsite>>;

/// All callsites, by the address of their metadata.
static CALLSITES: LazyLock<Table> = LazyLock::new(Table::default);

fn address(meta: &Metadata<'_>) -> usize {
    std::ptr::from_ref(meta).addr()
}

/// The callsite of this metadata, when it has been prepared.
pub(crate) fn find(meta: &Metadata<'_>, capture: Capture) -> Option<&'static Callsite> {
    // The guards protect a map that is whole at any time: a panic elsewhere does not spoil it.
    CALLSITES.read().unwrap_or_else(PoisonError::into_inner).get(&(address(meta), capture)).copied()
}

/// The callsite of this metadata, prepared if it was not.
pub(crate) fn prepare(meta: &'static Metadata<'static>, capture: Capture) -> &'static Callsite {
    find(meta, capture).unwrap_or_else(|| {
        let mut callsites = CALLSITES.write().unwrap_or_else(PoisonError::into_inner);
        callsites.entry((address(meta), capture)).or_insert_with(|| Box::leak(Box::new(Callsite::new(meta, capture))))
    })
}

/// Entries of a thread's table: more than the callsites that a thread has hot at a time; 2.5 KiB.
const CACHE_ENTRIES: usize = 64;

/// A thread's own table for one layer, direct-mapped. After a swap of the rules each entry is renewed when it is used: to
/// empty the table at once, and free what it held, is more than one event should pay for.
pub(crate) struct Cache {
    entries: [Option<Entry>; CACHE_ENTRIES],
}

/// A callsite in a thread's table.
pub(crate) struct Entry {
    address: usize,
    /// [`Reload::generation`] when it was looked up.
    generation: u64,
    interest: Interest,
    releases: bool,
    callsite: &'static Callsite,
    judged: Arc<Judged>,
}

/// A callsite, and whether the rules have to be asked.
#[derive(Clone, Copy)]
pub(crate) struct Known {
    pub(crate) callsite: &'static Callsite,
    pub(crate) interest: Interest,
    /// Whether an event that passes makes the flight recorder speak.
    pub(crate) releases: bool,
}

impl Cache {
    pub(crate) fn new() -> Self {
        Self { entries: [const { None }; CACHE_ENTRIES] }
    }

    /// What is known of a callsite by the rules of this generation; `look_up` asks the table of all threads, unless it is told
    /// the callsite.
    #[inline(always)]
    pub(crate) fn get(
        &mut self,
        meta: &'static Metadata<'static>,
        generation: u64,
        look_up: impl FnOnce(Option<&'static Callsite>) -> Entry,
    ) -> Known {
        let address = address(meta);
        let entry = &mut self.entries[place(address)];
        if entry.as_ref().is_none_or(|entry| entry.address != address || entry.generation != generation) {
            let known = entry.as_ref().filter(|entry| entry.address == address).map(|entry| entry.callsite);
            *entry = Some(look_up(known));
        }
        match entry {
            Some(entry) => Known { callsite: entry.callsite, interest: entry.interest, releases: entry.releases },
            None => unreachable!("filled above"),
        }
    }

    /// What the rules have in store for the callsite that was looked up last.
    pub(crate) fn judged(&self, meta: &Metadata<'_>) -> Option<&Judged> {
        let address = address(meta);
        self.entries[place(address)].as_ref().filter(|entry| entry.address == address).map(|entry| &*entry.judged)
    }
}

/// Where a callsite's entry is.
#[inline]
fn place(address: usize) -> usize {
    (address >> 5) % CACHE_ENTRIES
}

impl Entry {
    /// `known`: the callsite, where it need not be looked for.
    pub(crate) fn new(
        meta: &'static Metadata<'static>,
        known: Option<&'static Callsite>,
        layer: u64,
        capture: Capture,
        reload: &Reload,
    ) -> Self {
        let callsite = known.unwrap_or_else(|| prepare(meta, capture));
        // First: a swap meanwhile has the callsite looked up once more.
        let generation = reload.generation();
        let judged = callsite.judge(meta, layer, reload);
        let interest = match judged.plan.interest {
            // The layer's slow way sorts out who gets it.
            Interest::Never if judged.console => Interest::Sometimes,
            interest => interest,
        };
        Self { address: address(meta), generation, interest, releases: judged.releases, callsite, judged }
    }
}
