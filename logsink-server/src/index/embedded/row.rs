//! A row of a block, shown to the matcher as the record was, and turned back into a hit.

use std::{borrow::Cow, cell::OnceCell, collections::HashMap};

use arrow_array::{
    Array, BooleanArray, DictionaryArray, FixedSizeBinaryArray, Float64Array, Int32Array, Int64Array, RecordBatch,
    StringArray, TimestampNanosecondArray, cast::AsArray, types::Int32Type,
};
use logsink::{
    Severity,
    filter::{EventView, Value},
};
use serde_json::Map;

use super::{columns, key::Key};
use crate::{
    otlp::{AnyView, RecordView},
    query::Hit,
};

type Json = serde_json::Value;

/// Text, as it is stored: plain or through a dictionary.
pub(super) enum Texts<'a> {
    Plain(&'a StringArray),
    Dictionary(&'a DictionaryArray<Int32Type>, &'a StringArray),
}

impl<'a> Texts<'a> {
    fn of(array: &'a dyn Array) -> Option<Self> {
        if let Some(plain) = array.as_string_opt::<i32>() {
            return Some(Self::Plain(plain));
        }
        let dictionary = array.as_dictionary_opt::<Int32Type>()?;
        Some(Self::Dictionary(dictionary, dictionary.values().as_string_opt::<i32>()?))
    }

    pub(super) fn get(&self, row: usize) -> Option<&'a str> {
        match self {
            Self::Plain(array) => array.is_valid(row).then(|| array.value(row)),
            Self::Dictionary(array, values) => Some(values.value(array.key(row)?)),
        }
    }
}

/// An attribute's own column.
pub(super) enum Attribute<'a> {
    Text(Texts<'a>),
    Int(&'a Int64Array),
    Double(&'a Float64Array),
    Bool(&'a BooleanArray),
}

impl<'a> Attribute<'a> {
    pub(super) fn get(&self, row: usize) -> Option<AnyView<'a>> {
        match self {
            Self::Text(texts) => texts.get(row).map(AnyView::Str),
            Self::Int(array) => array.is_valid(row).then(|| AnyView::Int(array.value(row))),
            Self::Double(array) => array.is_valid(row).then(|| AnyView::Double(array.value(row))),
            Self::Bool(array) => array.is_valid(row).then(|| AnyView::Bool(array.value(row))),
        }
    }
}

/// Some rows and some columns of a block. What was not read shows as absent: whoever reads asks for what he needs.
pub(super) struct Rows<'a> {
    pub(super) len: usize,
    time: &'a TimestampNanosecondArray,
    offset: &'a Int64Array,
    index: &'a Int32Array,
    severity: Option<&'a Int32Array>,
    service: Option<Texts<'a>>,
    target: Option<Texts<'a>>,
    message: Option<Texts<'a>>,
    trace_id: Option<&'a FixedSizeBinaryArray>,
    span_id: Option<&'a FixedSizeBinaryArray>,
    resource: Option<Texts<'a>>,
    /// By the resource's place in its dictionary, else by row; parsed when first asked for.
    resources: Vec<OnceCell<Map<String, Json>>>,
    rest: Option<Texts<'a>>,
    /// By row; parsed when first asked for.
    rests: Vec<OnceCell<Map<String, Json>>>,
    pub(super) attributes: HashMap<&'a str, Attribute<'a>>,
}

impl<'a> Rows<'a> {
    /// Looks at a batch of a block's rows.
    ///
    /// # Errors
    /// Says which column is not what this store writes.
    pub(super) fn of(batch: &'a RecordBatch) -> Result<Self, String> {
        let column = |name: &str| batch.column_by_name(name).map(|array| array.as_ref());
        let texts = |name: &str| column(name).map(|array| Texts::of(array).ok_or_else(|| odd(name))).transpose();
        let ids = |name: &str| {
            column(name).map(|array| array.as_fixed_size_binary_opt().ok_or_else(|| odd(name))).transpose()
        };
        let mut attributes = HashMap::new();
        for (field, array) in batch.schema_ref().fields().iter().zip(batch.columns()) {
            if let Some(key) = field.name().strip_prefix(columns::ATTRIBUTE_PREFIX) {
                // The batch's schema lives as long as the batch.
                attributes.insert(key, attribute(array).ok_or_else(|| odd(field.name()))?);
            }
        }
        let resource = texts(columns::RESOURCE)?;
        let resources = match &resource {
            None => 0,
            Some(Texts::Plain(array)) => array.len(),
            Some(Texts::Dictionary(_, values)) => values.len(),
        };
        let rest = texts(columns::ATTRIBUTES)?;
        let rests = if rest.is_some() { batch.num_rows() } else { 0 };
        Ok(Self {
            len: batch.num_rows(),
            time: column(columns::TIME).and_then(|array| array.as_primitive_opt()).ok_or_else(|| odd(columns::TIME))?,
            offset: column(columns::LOG_OFFSET)
                .and_then(|array| array.as_primitive_opt())
                .ok_or_else(|| odd(columns::LOG_OFFSET))?,
            index: column(columns::LOG_INDEX)
                .and_then(|array| array.as_primitive_opt())
                .ok_or_else(|| odd(columns::LOG_INDEX))?,
            severity: column(columns::SEVERITY)
                .map(|array| array.as_primitive_opt().ok_or_else(|| odd(columns::SEVERITY)))
                .transpose()?,
            service: texts(columns::SERVICE)?,
            target: texts(columns::TARGET)?,
            message: texts(columns::MESSAGE)?,
            trace_id: ids(columns::TRACE_ID)?,
            span_id: ids(columns::SPAN_ID)?,
            resource,
            resources: (0..resources).map(|_| OnceCell::new()).collect(),
            rest,
            rests: (0..rests).map(|_| OnceCell::new()).collect(),
            attributes,
        })
    }

    pub(super) fn key(&self, row: usize) -> Key {
        Key {
            time_ns: self.time.value(row),
            offset: self.offset.value(row),
            index: self.index.value(row).cast_unsigned(),
        }
    }

    /// The attributes without a column of their own.
    pub(super) fn rest(&self, row: usize) -> Option<&Map<String, Json>> {
        let text = self.rest.as_ref()?.get(row)?;
        Some(self.rests[row].get_or_init(|| object(text)))
    }

    /// The resource's attributes, and a number that is the same for the same resource within these rows.
    pub(super) fn resource(&self, row: usize) -> Option<(usize, &Map<String, Json>)> {
        let texts = self.resource.as_ref()?;
        let place = match texts {
            Texts::Plain(_) => row,
            Texts::Dictionary(array, _) => array.key(row)?,
        };
        let text = texts.get(row)?;
        Some((place, self.resources[place].get_or_init(|| object(text))))
    }

    /// The row as a hit; all columns must have been read.
    pub(super) fn hit(&self, row: usize) -> Hit {
        let view = self.view(row);
        let mut attributes = self.rest(row).cloned().unwrap_or_default();
        for (key, column) in &self.attributes {
            if let Some(value) = column.get(row) {
                attributes.insert((*key).to_owned(), value.to_json());
            }
        }
        let resource = self.resource(row).map(|(_, resource)| resource.clone()).unwrap_or_default();
        hit(self.key(row), &view, attributes, resource)
    }

    /// The row, for the matcher.
    pub(super) fn view(&self, row: usize) -> Row<'_> {
        Row { rows: self, row }
    }
}

/// One row.
pub(super) struct Row<'a> {
    rows: &'a Rows<'a>,
    row: usize,
}

impl EventView for Row<'_> {
    fn severity(&self) -> Severity {
        let number = self.rows.severity.map_or(0, |array| array.value(self.row));
        Severity(u8::try_from(number).unwrap_or_default())
    }

    fn service(&self) -> &str {
        self.rows.service.as_ref().and_then(|texts| texts.get(self.row)).unwrap_or_default()
    }

    fn target(&self) -> &str {
        self.rows.target.as_ref().and_then(|texts| texts.get(self.row)).unwrap_or_default()
    }

    fn message(&self) -> Cow<'_, str> {
        Cow::Borrowed(self.rows.message.as_ref().and_then(|texts| texts.get(self.row)).unwrap_or_default())
    }

    fn trace_id(&self) -> Option<[u8; 16]> {
        id(self.rows.trace_id, self.row)
    }

    fn span_id(&self) -> Option<[u8; 8]> {
        id(self.rows.span_id, self.row)
    }

    fn attribute(&self, key: &str) -> Option<Value<'_>> {
        if let Some(value) = self.rows.attributes.get(key).and_then(|column| column.get(self.row)) {
            return value.to_value();
        }
        let own = self.rows.rest(self.row).and_then(|rest| find(rest, key));
        let found = own.or_else(|| find(self.rows.resource(self.row)?.1, key))?;
        value(found)
    }
}

/// A record that is not in a file yet, as a hit.
pub(super) fn hit_of_record(key: Key, record: &RecordView<'_>) -> Hit {
    let mut attributes = record.attributes().to_json();
    if attributes.get(columns::TARGET).is_some_and(Json::is_string)
        && matches!(record.attributes().get(columns::TARGET), Some(AnyView::Str(_)))
    {
        attributes.remove(columns::TARGET);
    }
    hit(key, record, attributes, record.resource.attributes().to_json())
}

fn hit(key: Key, event: &dyn EventView, attributes: Map<String, Json>, resource: Map<String, Json>) -> Hit {
    Hit {
        id: key.id(),
        time_ns: key.time_ns,
        time: rfc3339(key.time_ns),
        severity: event.severity().0,
        level: event.severity().name().to_owned(),
        service: event.service().to_owned(),
        message: event.message().into_owned(),
        target: event.target().to_owned(),
        trace_id: event.trace_id().map(|id| hex(&id)).unwrap_or_default(),
        span_id: event.span_id().map(|id| hex(&id)).unwrap_or_default(),
        attributes,
        resource,
    }
}

/// The JSON value at a dotted path, found as `otlp::Pairs::find` finds it.
pub(super) fn find<'a>(map: &'a Map<String, Json>, path: &str) -> Option<&'a Json> {
    map.get(path).or_else(|| {
        path.match_indices('.').find_map(|(dot, _)| match map.get(&path[..dot]) {
            Some(Json::Object(inner)) => find(inner, &path[dot + 1..]),
            _ => None,
        })
    })
}

/// A stored value as the expression language sees it; none for null.
pub(super) fn value(json: &Json) -> Option<Value<'_>> {
    Some(match json {
        Json::Null => return None,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => match number.as_i64() {
            Some(number) => Value::Int(number),
            None => Value::Double(number.as_f64()?),
        },
        Json::String(text) => Value::Text(Cow::Borrowed(text)),
        Json::Array(_) | Json::Object(_) => Value::Text(Cow::Owned(json.to_string())),
    })
}

/// The object that a text holds. A text that holds none was not written by this store: it shows as empty.
fn object(text: &str) -> Map<String, Json> {
    serde_json::from_str(text).unwrap_or_default()
}

fn attribute(array: &dyn Array) -> Option<Attribute<'_>> {
    if let Some(array) = array.as_primitive_opt() {
        return Some(Attribute::Int(array));
    }
    if let Some(array) = array.as_primitive_opt() {
        return Some(Attribute::Double(array));
    }
    if let Some(array) = array.as_boolean_opt() {
        return Some(Attribute::Bool(array));
    }
    Texts::of(array).map(Attribute::Text)
}

fn id<const N: usize>(array: Option<&FixedSizeBinaryArray>, row: usize) -> Option<[u8; N]> {
    let array = array.filter(|array| array.is_valid(row))?;
    array.value(row).try_into().ok()
}

fn odd(name: &str) -> String {
    format!("column `{name}` is missing or of another type than this store writes")
}

/// Lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| DIGITS[usize::from(digit)] as char).collect()
}

/// `2026-11-22T18:00:00.000000000Z`
fn rfc3339(time_ns: i64) -> String {
    match jiff::Timestamp::from_nanosecond(i128::from(time_ns)) {
        Ok(time) => time.strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string(),
        // Any 64-bit number of nanoseconds is within the years that jiff knows.
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_reach_into_maps_and_whole_keys_come_first() {
        let map = object(r#"{"a":{"b":1,"c.d":2},"a.b":3,"x":null}"#);
        assert_eq!(find(&map, "a.b"), Some(&Json::from(3)));
        assert_eq!(find(&map, "a.c.d"), Some(&Json::from(2)));
        assert_eq!(find(&map, "a.e"), None);
        assert_eq!(find(&map, "x").and_then(value), None);
    }

    #[test]
    fn times_have_nine_decimals() {
        assert_eq!(rfc3339(1_700_000_000_000_000_001), "2023-11-14T22:13:20.000000001Z");
        assert_eq!(rfc3339(i64::MAX - 1).len(), 30);
    }
}
