//! The side file of a block: for each page of rows its time range, severities and a filter of what its events say.
//!
//! A filter answers "surely not" or "maybe" for a word of the message, a key, or a key with a value, so a search opens few
//! pages of few blocks. It is made from the block's own columns: when it is missing, damaged or another block's, it is made
//! again.
//!
//! Layout: magic, CRC-32 of the rest, length of the header, header (JSON), filters.

use std::collections::HashSet;

use arrow_array::RecordBatch;
use bytes::Bytes;
use logsink::filter::{EventView, Value, expr};
use serde::{Deserialize, Serialize};
use xorf::{BinaryFuse8, BinaryFuse8Ref, DmaSerializable, Filter, FilterRef};

use super::{
    manifest::Entry,
    row::{self, Rows},
};
use crate::otlp::AnyView;

/// Rows that share a filter: as many as a page of messages has, so that a page is read for its own filter's sake.
pub(super) const PAGE_ROWS: usize = 1_024;
const MAGIC: [u8; 8] = *b"LSFILT01";
const PREFIX: usize = MAGIC.len() + 4 + 4;
/// Services listed in a block's summary; a block with more of them is opened whatever the service.
const SERVICES_MAX: usize = 64;

/// What one page holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct PageSummary {
    pub(super) time_min_ns: i64,
    pub(super) time_max_ns: i64,
    /// Bit n: some event has severity number n.
    pub(super) severities: u32,
    /// Where its filter ends, counted from the end of the header; it begins where the one before ends.
    end: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    /// The block's id, rows and checksum: the Parquet file that this one belongs to.
    id: u64,
    rows: u32,
    parquet_crc32: u32,
    pages: Vec<PageSummary>,
}

/// A block's page summaries and filters, in memory.
#[derive(Debug, Clone)]
pub(super) struct Side {
    pages: Vec<PageSummary>,
    filters: Bytes,
}

impl Side {
    /// Reads a side file.
    ///
    /// # Errors
    /// Says why the file is not this block's.
    pub(super) fn decode(file: &Bytes, block: &Entry) -> Result<Self, String> {
        let u32_at = |at: usize| file.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);
        let (Some(crc32), Some(length)) = (u32_at(MAGIC.len()), u32_at(MAGIC.len() + 4)) else {
            return Err("it is cut off".to_owned());
        };
        if file[..MAGIC.len()] != MAGIC {
            return Err("it is of another format".to_owned());
        }
        if crc32fast::hash(&file[MAGIC.len() + 4..]) != crc32 {
            return Err("its checksum does not match".to_owned());
        }
        let end = PREFIX.saturating_add(length as usize);
        let header = file.get(PREFIX..end).ok_or("it is cut off")?;
        let header: Header = serde_json::from_slice(header).map_err(|error| error.to_string())?;
        if (header.id, header.rows, header.parquet_crc32) != (block.id, block.rows, block.parquet_crc32) {
            return Err("it belongs to another block".to_owned());
        }
        let filters = file.slice(end..);
        let whole = header.pages.windows(2).all(|pair| pair[0].end <= pair[1].end)
            && header.pages.last().map_or(0, |page| page.end as usize) == filters.len()
            && header.pages.len() == (block.rows as usize).div_ceil(PAGE_ROWS);
        if !whole {
            return Err("its pages are not the block's".to_owned());
        }
        Ok(Self { pages: header.pages, filters })
    }

    /// The bytes of the side file of this block.
    pub(super) fn encode(&self, block: &Entry) -> Result<Vec<u8>, serde_json::Error> {
        let header = serde_json::to_vec(&Header {
            id: block.id,
            rows: block.rows,
            parquet_crc32: block.parquet_crc32,
            pages: self.pages.clone(),
        })?;
        let mut rest = (header.len() as u32).to_le_bytes().to_vec();
        rest.extend_from_slice(&header);
        rest.extend_from_slice(&self.filters);
        let mut file = MAGIC.to_vec();
        file.extend_from_slice(&crc32fast::hash(&rest).to_le_bytes());
        file.append(&mut rest);
        Ok(file)
    }

    /// The pages, in order; page n holds the rows from n × [`PAGE_ROWS`].
    pub(super) fn pages(&self) -> impl DoubleEndedIterator<Item = (usize, Page<'_>)> {
        self.pages.iter().enumerate().map(|(number, summary)| {
            let start = if number == 0 { 0 } else { self.pages[number - 1].end as usize };
            (number, Page { summary, filter: &self.filters[start..summary.end as usize] })
        })
    }
}

/// One page's summary and filter.
#[derive(Debug, Clone, Copy)]
pub(super) struct Page<'a> {
    pub(super) summary: &'a PageSummary,
    filter: &'a [u8],
}

impl Page<'_> {
    /// Whether the page may hold this; `false` is certain.
    pub(super) fn may_hold(&self, hash: u64) -> bool {
        match self.filter.split_at_checked(BinaryFuse8::DESCRIPTOR_LEN) {
            Some((descriptor, fingerprints)) if !fingerprints.is_empty() => {
                BinaryFuse8Ref::from_dma(descriptor, fingerprints).contains(&hash)
            }
            // The page said too much for a filter.
            _ => true,
        }
    }
}

/// Makes a side from the rows of a block, in order.
#[derive(Debug, Default)]
pub(super) struct Builder {
    pages: Vec<PageSummary>,
    filters: Vec<u8>,
    page_rows: usize,
    hashes: Hashes,
    /// Of the block.
    severities: u32,
    services: HashSet<String>,
}

impl Builder {
    /// Adds rows with all their columns.
    pub(super) fn add(&mut self, batch: &RecordBatch) -> Result<(), String> {
        let rows = Rows::of(batch)?;
        // The page's resources so far: each is added once.
        let mut resources = HashSet::new();
        for row in 0..rows.len {
            if self.page_rows == 0 {
                resources.clear();
                self.pages.push(PageSummary { time_min_ns: i64::MAX, time_max_ns: i64::MIN, severities: 0, end: 0 });
            }
            let view = rows.view(row);
            if let Some(page) = self.pages.last_mut() {
                let time_ns = rows.key(row).time_ns;
                page.time_min_ns = page.time_min_ns.min(time_ns);
                page.time_max_ns = page.time_max_ns.max(time_ns);
                page.severities |= 1 << view.severity().0.min(31);
            }
            if self.services.len() <= SERVICES_MAX && !self.services.contains(view.service()) {
                self.services.insert(view.service().to_owned());
            }
            let hashes = &mut self.hashes;
            hashes.insert(hash::service(view.service()));
            hashes.insert(hash::target(view.target()));
            if let Some(id) = view.trace_id() {
                hashes.insert(hash::trace_id(&row::hex(&id)));
            }
            if let Some(id) = view.span_id() {
                hashes.insert(hash::span_id(&row::hex(&id)));
            }
            expr::words(&view.message(), &mut |word| _ = hashes.insert(hash::word(word)));
            for (key, column) in &rows.attributes {
                if let Some(value) = column.get(row).and_then(AnyView::to_value) {
                    add_value(hashes, key, &value);
                }
            }
            if let Some(rest) = rows.rest(row) {
                add_object(hashes, "", rest);
            }
            if let Some((place, resource)) = rows.resource(row)
                && resources.insert(place)
            {
                add_object(hashes, "", resource);
            }
            self.page_rows += 1;
            if self.page_rows == PAGE_ROWS {
                self.end_page();
            }
        }
        Ok(())
    }

    fn end_page(&mut self) {
        let Some(page) = self.pages.last_mut() else { return };
        let keys: Vec<u64> = self.hashes.drain().collect();
        // Fails only for sets that hash badly again and again; a page without a filter is read by every search.
        if let Ok(filter) = BinaryFuse8::try_from(&keys) {
            let mut descriptor = [0; BinaryFuse8::DESCRIPTOR_LEN];
            filter.dma_copy_descriptor_to(&mut descriptor);
            self.filters.extend_from_slice(&descriptor);
            self.filters.extend_from_slice(filter.dma_fingerprints());
        }
        // Some tens of megabytes at the very most: 64 pages of at most 16 MiB of text.
        page.end = u32::try_from(self.filters.len()).unwrap_or(u32::MAX);
        self.severities |= page.severities;
        self.page_rows = 0;
    }

    /// The side, and the block's severities and services.
    pub(super) fn finish(mut self) -> (Side, u32, Option<Vec<String>>) {
        if self.page_rows > 0 {
            self.end_page();
        }
        let services = (self.services.len() <= SERVICES_MAX).then(|| {
            let mut services: Vec<String> = self.services.into_iter().collect();
            services.sort_unstable();
            services
        });
        (Side { pages: self.pages, filters: Bytes::from(self.filters) }, self.severities, services)
    }
}

type Hashes = HashSet<u64, std::hash::BuildHasherDefault<Already>>;

fn add_object(hashes: &mut Hashes, prefix: &str, object: &serde_json::Map<String, serde_json::Value>) {
    for (key, json) in object {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        if let Some(value) = row::value(json) {
            add_value(hashes, &path, &value);
        }
        if let serde_json::Value::Object(inner) = json {
            add_object(hashes, &path, inner);
        }
    }
}

fn add_value(hashes: &mut Hashes, key: &str, value: &Value<'_>) {
    hashes.insert(hash::key(key));
    // As the matcher compares: numbers as doubles, everything else as text.
    hashes.insert(match value {
        Value::Text(text) => hash::text(key, text),
        Value::Int(number) => hash::number(key, *number as f64),
        Value::Double(number) => hash::number(key, *number),
        Value::Bool(value) => hash::text(key, if *value { "true" } else { "false" }),
    });
}

/// A hasher of what is a hash already.
#[derive(Debug, Default)]
pub(super) struct Already(u64);

impl std::hash::Hasher for Already {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, byte| hash.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// What goes into a filter, as 64-bit hashes. Part of the file format: another hash needs another [`MAGIC`].
pub(super) mod hash {
    /// A word of the message.
    pub(in super::super) fn word(word: &str) -> u64 {
        of(1, "", word.as_bytes())
    }
    /// `service` is this.
    pub(in super::super) fn service(text: &str) -> u64 {
        of(2, "", text.as_bytes())
    }
    /// `target` is this.
    pub(in super::super) fn target(text: &str) -> u64 {
        of(3, "", text.as_bytes())
    }
    /// `trace_id` is this, in lower-case hexadecimal digits.
    pub(in super::super) fn trace_id(text: &str) -> u64 {
        of(4, "", text.as_bytes())
    }
    /// `span_id` is this, in lower-case hexadecimal digits.
    pub(in super::super) fn span_id(text: &str) -> u64 {
        of(5, "", text.as_bytes())
    }
    /// The attribute exists.
    pub(in super::super) fn key(key: &str) -> u64 {
        of(6, key, b"")
    }
    /// The attribute is this text.
    pub(in super::super) fn text(key: &str, text: &str) -> u64 {
        of(7, key, text.as_bytes())
    }
    /// The attribute is this number.
    pub(in super::super) fn number(key: &str, number: f64) -> u64 {
        // -0.0 equals 0.0.
        let number = if number == 0.0 { 0.0 } else { number };
        of(8, key, &number.to_bits().to_le_bytes())
    }

    /// Multiply and rotate over eight bytes at a time, finished as MurmurHash3 finishes, so that each bit depends on each
    /// byte. Not ahash or the standard library's: theirs change with the version and the process.
    fn of(kind: u64, key: &str, value: &[u8]) -> u64 {
        let mut hash = 0xcbf2_9ce4_8422_2325 ^ kind;
        // The lengths keep `ab` + `c` apart from `a` + `bc`.
        for bytes in [key.as_bytes(), value] {
            hash = step(hash, bytes.len() as u64);
            let (words, tail) = bytes.as_chunks::<8>();
            for word in words {
                hash = step(hash, u64::from_le_bytes(*word));
            }
            if !tail.is_empty() {
                let mut word = [0; 8];
                word[..tail.len()].copy_from_slice(tail);
                hash = step(hash, u64::from_le_bytes(word));
            }
        }
        hash ^= hash >> 33;
        hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash ^= hash >> 33;
        hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        hash ^ hash >> 33
    }

    fn step(hash: u64, word: u64) -> u64 {
        (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
    }
}
