//! Records → Arrow columns, and which attribute keys get a column of their own.
//!
//! The schema is meant to be read by people with DuckDB, Polars or pandas: plain columns for what every event has, a typed
//! nullable column `attributes.<key>` for each frequent key, and the JSON column `attributes` for the rest.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use arrow_array::{
    ArrayRef, RecordBatch,
    builder::{
        BooleanBuilder, FixedSizeBinaryBuilder, Float64Builder, Int32Builder, Int64Builder, StringBuilder,
        StringDictionaryBuilder, TimestampNanosecondBuilder,
    },
    types::Int32Type,
};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef, TimeUnit};

use super::key::Key;
use crate::otlp::{AnyView, RecordView};

pub(super) const TIME: &str = "time";
pub(super) const OBSERVED_TIME: &str = "observed_time";
pub(super) const SEVERITY: &str = "severity";
pub(super) const SEVERITY_TEXT: &str = "severity_text";
pub(super) const SERVICE: &str = "service";
pub(super) const TARGET: &str = "target";
pub(super) const SCOPE: &str = "scope";
pub(super) const EVENT_NAME: &str = "event_name";
pub(super) const MESSAGE: &str = "message";
pub(super) const TRACE_ID: &str = "trace_id";
pub(super) const SPAN_ID: &str = "span_id";
pub(super) const RESOURCE: &str = "resource";
pub(super) const LOG_OFFSET: &str = "log_offset";
pub(super) const LOG_INDEX: &str = "log_index";
/// The attributes that have no column of their own, as a JSON object.
pub(super) const ATTRIBUTES: &str = "attributes";
/// Before the key in the name of an attribute's own column.
pub(super) const ATTRIBUTE_PREFIX: &str = "attributes.";

/// Attribute columns in a block. Each costs about 1 KB of metadata in memory while its block is in use; beyond the most
/// frequent few dozen, keys are found well enough through the filters.
const COLUMNS_MAX: usize = 48;
/// A key in fewer than one of this many rows stays in the JSON column: a column would be mostly nulls.
const COLUMN_ROWS_SHARE: usize = 64;
/// Keys counted while choosing. A sender that makes keys up does not get to use memory for them.
const KEYS_COUNTED_MAX: usize = 10_000;
/// Values looked at to decide whether a text column repeats itself enough for a dictionary.
const DICTIONARY_SAMPLE: usize = 4_096;

/// How an attribute's column is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Text that repeats itself.
    Dictionary,
    Text,
    Int,
    Double,
    Bool,
}

/// The columns of one block.
#[derive(Debug)]
pub(super) struct Plan {
    /// Key and kind, most frequent first.
    attributes: Vec<(String, Kind)>,
    pub(super) schema: SchemaRef,
}

impl Plan {
    /// Chooses the columns for these records.
    pub(super) fn choose<'a>(rows: &[(Key, RecordView<'a>)]) -> Self {
        struct Count<'a> {
            rows: usize,
            kind: Option<Kind>,
            sampled: usize,
            distinct: HashSet<&'a str>,
        }
        let mut counts: HashMap<&'a str, Count<'a>> = HashMap::new();
        for (_, record) in rows {
            for (key, value) in record.attributes() {
                if counts.len() == KEYS_COUNTED_MAX && !counts.contains_key(key) {
                    continue;
                }
                let kind = match value {
                    AnyView::Str(_) => Some(Kind::Text),
                    AnyView::Int(_) => Some(Kind::Int),
                    AnyView::Double(_) => Some(Kind::Double),
                    AnyView::Bool(_) => Some(Kind::Bool),
                    AnyView::Empty | AnyView::Bytes(_) | AnyView::Array(_) | AnyView::Map(_) => None,
                };
                let count =
                    counts.entry(key).or_insert_with(|| Count { rows: 0, kind, sampled: 0, distinct: HashSet::new() });
                count.rows += 1;
                if count.kind != kind {
                    // A key with values of several kinds stays in the JSON column, where each keeps its own.
                    count.kind = None;
                }
                if let (AnyView::Str(text), true) = (value, count.sampled < DICTIONARY_SAMPLE) {
                    count.sampled += 1;
                    count.distinct.insert(text);
                }
            }
        }
        // `target` has its own column, unless it is not text.
        let mut chosen: Vec<(&str, usize, Kind)> = counts
            .into_iter()
            .filter(|(key, count)| *key != TARGET && count.rows * COLUMN_ROWS_SHARE >= rows.len())
            .filter_map(|(key, count)| {
                let kind = match count.kind? {
                    Kind::Text if count.distinct.len() * 2 <= count.sampled => Kind::Dictionary,
                    kind => kind,
                };
                Some((key, count.rows, kind))
            })
            .collect();
        chosen.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        chosen.truncate(COLUMNS_MAX);
        let attributes: Vec<_> = chosen.into_iter().map(|(key, _, kind)| (key.to_owned(), kind)).collect();
        let schema = schema(&attributes);
        Self { attributes, schema }
    }

    /// Puts these records into columns.
    pub(super) fn fill(&self, rows: &[(Key, RecordView<'_>)]) -> Result<RecordBatch, ArrowError> {
        let mut fixed = Fixed::new(rows.len());
        let mut columns: Vec<Column> = self.attributes.iter().map(|(_, kind)| Column::new(*kind)).collect();
        let places: HashMap<&str, usize> =
            self.attributes.iter().enumerate().map(|(place, (key, _))| (key.as_str(), place)).collect();
        let mut values: Vec<AnyView<'_>> = vec![AnyView::Empty; columns.len()];
        for (key, record) in rows {
            let mut rest = serde_json::Map::new();
            values.fill(AnyView::Empty);
            for (name, value) in record.attributes() {
                match (places.get(name), value) {
                    // Where a key stands twice, the last one counts.
                    (Some(&place), value) => values[place] = value,
                    (None, AnyView::Str(_)) if name == TARGET => {}
                    (None, value) => _ = rest.insert(name.to_owned(), value.to_json()),
                }
            }
            for (column, value) in columns.iter_mut().zip(&values) {
                column.append(*value)?;
            }
            fixed.append(key, record, rest)?;
        }
        let mut arrays = fixed.finish();
        arrays.extend(columns.into_iter().map(Column::finish));
        RecordBatch::try_new(self.schema.clone(), arrays)
    }
}

fn dictionary() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

fn schema(attributes: &[(String, Kind)]) -> SchemaRef {
    let time = || DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
    let mut fields = vec![
        Field::new(TIME, time(), false),
        Field::new(OBSERVED_TIME, time(), true),
        Field::new(SEVERITY, DataType::Int32, false),
        Field::new(SEVERITY_TEXT, dictionary(), true),
        Field::new(SERVICE, dictionary(), false),
        Field::new(TARGET, dictionary(), false),
        Field::new(SCOPE, dictionary(), true),
        Field::new(EVENT_NAME, dictionary(), true),
        Field::new(MESSAGE, DataType::Utf8, false),
        Field::new(TRACE_ID, DataType::FixedSizeBinary(16), true),
        Field::new(SPAN_ID, DataType::FixedSizeBinary(8), true),
        Field::new(RESOURCE, dictionary(), false),
        Field::new(LOG_OFFSET, DataType::Int64, false),
        Field::new(LOG_INDEX, DataType::Int32, false),
        Field::new(ATTRIBUTES, DataType::Utf8, true),
    ];
    fields.extend(attributes.iter().map(|(key, kind)| {
        let kind = match kind {
            Kind::Dictionary => dictionary(),
            Kind::Text => DataType::Utf8,
            Kind::Int => DataType::Int64,
            Kind::Double => DataType::Float64,
            Kind::Bool => DataType::Boolean,
        };
        Field::new(format!("{ATTRIBUTE_PREFIX}{key}"), kind, true)
    }));
    Arc::new(Schema::new(fields))
}

type Texts = StringDictionaryBuilder<Int32Type>;

/// The columns that every block has, in the schema's order.
struct Fixed {
    time: TimestampNanosecondBuilder,
    observed_time: TimestampNanosecondBuilder,
    severity: Int32Builder,
    severity_text: Texts,
    service: Texts,
    target: Texts,
    scope: Texts,
    event_name: Texts,
    message: StringBuilder,
    trace_id: FixedSizeBinaryBuilder,
    span_id: FixedSizeBinaryBuilder,
    resource: Texts,
    log_offset: Int64Builder,
    log_index: Int32Builder,
    attributes: StringBuilder,
    /// The JSON of each resource, by where its bytes lie: the records of a message share theirs.
    resources: HashMap<(*const u8, usize), String>,
}

impl Fixed {
    fn new(rows: usize) -> Self {
        Self {
            time: TimestampNanosecondBuilder::with_capacity(rows).with_timezone("UTC"),
            observed_time: TimestampNanosecondBuilder::with_capacity(rows).with_timezone("UTC"),
            severity: Int32Builder::with_capacity(rows),
            severity_text: Texts::new(),
            service: Texts::new(),
            target: Texts::new(),
            scope: Texts::new(),
            event_name: Texts::new(),
            message: StringBuilder::with_capacity(rows, rows * 128),
            trace_id: FixedSizeBinaryBuilder::with_capacity(rows, 16),
            span_id: FixedSizeBinaryBuilder::with_capacity(rows, 8),
            resource: Texts::new(),
            log_offset: Int64Builder::with_capacity(rows),
            log_index: Int32Builder::with_capacity(rows),
            attributes: StringBuilder::new(),
            resources: HashMap::new(),
        }
    }

    fn append(
        &mut self,
        key: &Key,
        record: &RecordView<'_>,
        rest: serde_json::Map<String, serde_json::Value>,
    ) -> Result<(), ArrowError> {
        self.time.append_value(key.time_ns);
        let observed = i64::try_from(record.observed_time_unix_nano).ok().filter(|&time| time != 0);
        self.observed_time.append_option(observed);
        self.severity.append_value(i32::from(record.severity.0));
        self.severity_text.append_option(some(record.severity_text));
        self.service.append(record.resource.service)?;
        self.target.append(record.target())?;
        self.scope.append_option(some(record.scope_name()));
        self.event_name.append_option(some(record.event_name));
        self.message.append_value(record.body.text());
        match record.trace_id() {
            Some(id) => self.trace_id.append_value(id)?,
            None => self.trace_id.append_null(),
        }
        match record.span_id() {
            Some(id) => self.span_id.append_value(id)?,
            None => self.span_id.append_null(),
        }
        let raw = record.resource.raw;
        let json = self
            .resources
            .entry((raw.as_ptr(), raw.len()))
            .or_insert_with(|| serde_json::Value::Object(record.resource.attributes().to_json()).to_string());
        self.resource.append(json.as_str())?;
        self.log_offset.append_value(key.offset);
        // A request has 16 MiB at most, and a record two bytes at least.
        self.log_index.append_value(i32::try_from(key.index).map_err(|_| {
            ArrowError::InvalidArgumentError(format!("record index {} is above what a request can hold", key.index))
        })?);
        if rest.is_empty() {
            self.attributes.append_null();
        } else {
            self.attributes.append_value(serde_json::Value::Object(rest).to_string());
        }
        Ok(())
    }

    fn finish(mut self) -> Vec<ArrayRef> {
        vec![
            Arc::new(self.time.finish()),
            Arc::new(self.observed_time.finish()),
            Arc::new(self.severity.finish()),
            Arc::new(self.severity_text.finish()),
            Arc::new(self.service.finish()),
            Arc::new(self.target.finish()),
            Arc::new(self.scope.finish()),
            Arc::new(self.event_name.finish()),
            Arc::new(self.message.finish()),
            Arc::new(self.trace_id.finish()),
            Arc::new(self.span_id.finish()),
            Arc::new(self.resource.finish()),
            Arc::new(self.log_offset.finish()),
            Arc::new(self.log_index.finish()),
            Arc::new(self.attributes.finish()),
        ]
    }
}

fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// One attribute's column.
enum Column {
    Dictionary(Texts),
    Text(StringBuilder),
    Int(Int64Builder),
    Double(Float64Builder),
    Bool(BooleanBuilder),
}

impl Column {
    fn new(kind: Kind) -> Self {
        match kind {
            Kind::Dictionary => Self::Dictionary(Texts::new()),
            Kind::Text => Self::Text(StringBuilder::new()),
            Kind::Int => Self::Int(Int64Builder::new()),
            Kind::Double => Self::Double(Float64Builder::new()),
            Kind::Bool => Self::Bool(BooleanBuilder::new()),
        }
    }

    /// Appends a value of the column's kind, or nothing.
    fn append(&mut self, value: AnyView<'_>) -> Result<(), ArrowError> {
        match (self, value) {
            (Self::Dictionary(column), AnyView::Str(text)) => _ = column.append(text)?,
            (Self::Dictionary(column), _) => column.append_null(),
            (Self::Text(column), AnyView::Str(text)) => column.append_value(text),
            (Self::Text(column), _) => column.append_null(),
            (Self::Int(column), AnyView::Int(number)) => column.append_value(number),
            (Self::Int(column), _) => column.append_null(),
            (Self::Double(column), AnyView::Double(number)) => column.append_value(number),
            (Self::Double(column), _) => column.append_null(),
            (Self::Bool(column), AnyView::Bool(value)) => column.append_value(value),
            (Self::Bool(column), _) => column.append_null(),
        }
        Ok(())
    }

    fn finish(self) -> ArrayRef {
        match self {
            Self::Dictionary(mut column) => Arc::new(column.finish()),
            Self::Text(mut column) => Arc::new(column.finish()),
            Self::Int(mut column) => Arc::new(column.finish()),
            Self::Double(mut column) => Arc::new(column.finish()),
            Self::Bool(mut column) => Arc::new(column.finish()),
        }
    }
}
