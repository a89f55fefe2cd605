//! Values and attribute lists as they lie in the wire bytes. Total: on bytes that [`super::check`] would refuse, a list ends
//! early and a value is empty.

use std::borrow::Cow;

use logsink::filter::Value;
use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{tag, wire::Reader, wire::WireError};

/// An `AnyValue`.
///
/// Serializes as JSON does in OTLP's spirit: bytes as base64 text, a double that JSON has no number for as `"NaN"`,
/// `"Infinity"` or `"-Infinity"`, an empty value as null.
#[derive(Debug, Clone, Copy)]
pub enum AnyView<'a> {
    /// No value.
    Empty,
    /// Text.
    Str(&'a str),
    /// `true` or `false`.
    Bool(bool),
    /// A 64-bit integer.
    Int(i64),
    /// A double.
    Double(f64),
    /// Bytes.
    Bytes(&'a [u8]),
    /// A list of values.
    Array(Elements<'a>),
    /// A list of keys and values.
    Map(Pairs<'a>),
}

impl<'a> AnyView<'a> {
    /// Reads the value of an `AnyValue` message: the last one that stands in it.
    pub(crate) fn read(mut message: Reader<'a>) -> Result<Self, WireError> {
        let mut value = Self::Empty;
        while let Some(key) = message.key()? {
            value = match key {
                tag::any_value::STRING => Self::Str(message.string("string value")?),
                tag::any_value::BOOL => Self::Bool(message.varint()? != 0),
                tag::any_value::INT => Self::Int(message.varint()?.cast_signed()),
                tag::any_value::DOUBLE => Self::Double(f64::from_bits(message.fixed64()?)),
                tag::any_value::ARRAY => Self::Array(Elements(message.len_bytes()?)),
                tag::any_value::KVLIST => Self::Map(Pairs::new(message.len_bytes()?, tag::list::VALUES)),
                tag::any_value::BYTES => Self::Bytes(message.len_bytes()?),
                tag::any_value::STRING_STRINDEX => {
                    message.varint()?;
                    Self::Empty
                }
                _ => {
                    message.skip(key, tag::any_value::KNOWN)?;
                    value
                }
            };
        }
        Ok(value)
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    /// The value's text form: integers in decimal, doubles as JSON writes them, bytes in base64, lists in JSON; empty for an
    /// empty value.
    pub fn text(&self) -> Cow<'a, str> {
        match *self {
            Self::Empty => Cow::Borrowed(""),
            Self::Str(text) => Cow::Borrowed(text),
            Self::Bool(value) => Cow::Borrowed(if value { "true" } else { "false" }),
            Self::Int(value) => Cow::Owned(itoa::Buffer::new().format(value).to_owned()),
            Self::Double(value) => Cow::Owned(match non_finite(value) {
                Some(name) => name.to_owned(),
                None => zmij::Buffer::new().format_finite(value).to_owned(),
            }),
            Self::Bytes(bytes) => Cow::Owned(base64(bytes)),
            Self::Array(_) | Self::Map(_) => Cow::Owned(self.to_json().to_string()),
        }
    }

    /// The value in JSON. In a map whose key stands twice, the last one counts.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match *self {
            Self::Empty => Json::Null,
            Self::Str(text) => Json::from(text),
            Self::Bool(value) => Json::from(value),
            Self::Int(value) => Json::from(value),
            Self::Double(value) => non_finite(value).map_or_else(|| Json::from(value), Json::from),
            Self::Bytes(bytes) => Json::from(base64(bytes)),
            Self::Array(elements) => elements.iter().map(|value| value.to_json()).collect(),
            Self::Map(pairs) => Json::Object(pairs.to_json()),
        }
    }

    /// The value as the expression language sees it; none for an empty value.
    pub fn to_value(self) -> Option<Value<'a>> {
        Some(match self {
            Self::Empty => return None,
            Self::Bool(value) => Value::Bool(value),
            Self::Int(value) => Value::Int(value),
            Self::Double(value) => Value::Double(value),
            Self::Str(_) | Self::Bytes(_) | Self::Array(_) | Self::Map(_) => Value::Text(self.text()),
        })
    }
}

impl Serialize for AnyView<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match *self {
            Self::Empty => to.serialize_unit(),
            Self::Str(text) => to.serialize_str(text),
            Self::Bool(value) => to.serialize_bool(value),
            Self::Int(value) => to.serialize_i64(value),
            Self::Double(value) => match non_finite(value) {
                Some(name) => to.serialize_str(name),
                None => to.serialize_f64(value),
            },
            Self::Bytes(bytes) => to.serialize_str(&base64(bytes)),
            Self::Array(elements) => to.collect_seq(elements),
            Self::Map(pairs) => pairs.serialize(to),
        }
    }
}

/// The values of an `ArrayValue`.
#[derive(Debug, Clone, Copy)]
pub struct Elements<'a>(pub(super) &'a [u8]);

impl<'a> Elements<'a> {
    /// The values, in order.
    pub fn iter(&self) -> impl Iterator<Item = AnyView<'a>> + use<'a> {
        self.into_iter()
    }
}

impl<'a> IntoIterator for Elements<'a> {
    type Item = AnyView<'a>;
    type IntoIter = ElementsIter<'a>;

    fn into_iter(self) -> ElementsIter<'a> {
        ElementsIter(Fields { reader: Reader::new(self.0), field: tag::list::VALUES })
    }
}

/// Iterates over [`Elements`].
#[derive(Debug, Clone)]
pub struct ElementsIter<'a>(Fields<'a>);

impl<'a> Iterator for ElementsIter<'a> {
    type Item = AnyView<'a>;

    fn next(&mut self) -> Option<AnyView<'a>> {
        AnyView::read(self.0.next()?).ok()
    }
}

/// A list of `KeyValue`: attributes, or the inside of a `KeyValueList`.
///
/// Serializes as a map, in wire order and with every key that is there.
#[derive(Debug, Clone, Copy)]
pub struct Pairs<'a> {
    /// The message that holds them, among other fields.
    message: &'a [u8],
    /// The key of the field that they are in.
    field: u32,
}

impl<'a> Pairs<'a> {
    pub(crate) fn new(message: &'a [u8], field: u32) -> Self {
        Self { message, field }
    }

    /// The keys and values, in wire order.
    pub fn iter(&self) -> PairsIter<'a> {
        PairsIter(Fields { reader: Reader::new(self.message), field: self.field })
    }

    /// The value of exactly this key.
    pub fn get(&self, key: &str) -> Option<AnyView<'a>> {
        self.iter().filter(|&(own, _)| own == key).last().map(|(_, value)| value)
    }

    /// The value at a dotted path: of the key that is the whole path, else the leaf `b` of a map under `a` for `a.b`.
    pub fn find(&self, path: &str) -> Option<AnyView<'a>> {
        let (mut exact, mut nested) = (None, None);
        for (key, value) in self.iter() {
            let Some(rest) = path.strip_prefix(key) else { continue };
            if rest.is_empty() {
                exact = Some(value);
            } else if let (Some(rest), AnyView::Map(inner)) = (rest.strip_prefix('.'), value) {
                nested = inner.find(rest).or(nested);
            }
        }
        exact.or(nested)
    }

    /// The text under a key; empty when there is none, or something else than text.
    pub fn text(&self, key: &str) -> &'a str {
        match self.get(key) {
            Some(AnyView::Str(text)) => text,
            _ => "",
        }
    }

    /// The list as a JSON object; where a key stands twice, the last one counts.
    pub fn to_json(&self) -> serde_json::Map<String, serde_json::Value> {
        self.iter().map(|(key, value)| (key.to_owned(), value.to_json())).collect()
    }
}

impl<'a> IntoIterator for Pairs<'a> {
    type Item = (&'a str, AnyView<'a>);
    type IntoIter = PairsIter<'a>;

    fn into_iter(self) -> PairsIter<'a> {
        self.iter()
    }
}

impl Serialize for Pairs<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        for (key, value) in self.iter() {
            map.serialize_entry(key, &value)?;
        }
        map.end()
    }
}

/// Iterates over [`Pairs`].
#[derive(Debug, Clone)]
pub struct PairsIter<'a>(Fields<'a>);

impl<'a> Iterator for PairsIter<'a> {
    type Item = (&'a str, AnyView<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        pair(self.0.next()?).ok()
    }
}

fn pair(mut message: Reader<'_>) -> Result<(&str, AnyView<'_>), WireError> {
    let (mut key, mut value) = ("", AnyView::Empty);
    while let Some(field) = message.key()? {
        match field {
            tag::key_value::KEY => key = message.string("attribute key")?,
            tag::key_value::VALUE => value = AnyView::read(message.message()?)?,
            _ => message.pass(field)?,
        }
    }
    Ok((key, value))
}

/// The messages in one repeated field.
#[derive(Debug, Clone)]
struct Fields<'a> {
    reader: Reader<'a>,
    field: u32,
}

impl<'a> Iterator for Fields<'a> {
    type Item = Reader<'a>;

    fn next(&mut self) -> Option<Reader<'a>> {
        while let Some(key) = self.reader.key().ok()? {
            if key == self.field {
                return self.reader.message().ok();
            }
            self.reader.pass(key).ok()?;
        }
        None
    }
}

/// The name, as protobuf's JSON mapping has it, of a double that is not a number in JSON.
fn non_finite(value: f64) -> Option<&'static str> {
    match value {
        _ if value.is_finite() => None,
        f64::INFINITY => Some("Infinity"),
        f64::NEG_INFINITY => Some("-Infinity"),
        _ => Some("NaN"),
    }
}

/// RFC 4648 base64, padded: what protobuf's JSON mapping writes for bytes.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0, |group, &byte| group << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
        for index in 0..4 {
            let symbol = ALPHABET[(group >> (18 - 6 * index)) as usize & 63];
            text.push(if index <= chunk.len() { symbol as char } else { '=' });
        }
    }
    text
}
