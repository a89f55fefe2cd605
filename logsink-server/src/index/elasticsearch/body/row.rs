//! The attributes of a record, written as they are read. What a key means for a document is made once, and for the values that
//! nearly all attributes have it is all that is to be known; a record with any other value, or with a key that is new or stands
//! twice, is looked at as a whole instead ([`super::attributes`]).

use super::{
    super::{
        fields::{self, EXACT_MAX, Kind, Owner},
        json, number,
    },
    FLAT_END, Shape, TERM_CHARS_MAX,
    attributes::{ATTRIBUTES, enclose, key},
    notes::Notes,
};
use crate::{
    otlp::{AnyView, KeyId, Unread, Vocabulary},
    text::Out,
};

/// What a buffer keeps of its memory for the next record.
const KEPT_BYTES_MAX: usize = 64 << 10;

/// The row of a record: what its attributes come to in its document. Members have a comma before them.
#[derive(Default)]
pub(super) struct Row {
    /// What is known of the keys, by their numbers.
    columns: Vec<Column>,
    /// The vocabulary's, whose numbers they are.
    era: u64,
    /// `,"key":value`
    attributes: Out,
    /// `,"name":value` of those that have fields of their own.
    fields: Out,
    /// `,"key":"code"` of numbers.
    numbers: Out,
    /// The text `target`, as JSON.
    target: Out,
    /// Whether there is a value that takes more than this.
    is_strange: bool,
}

struct Column {
    /// `,"key":`
    key: Piece,
    /// `,"name":` of the field for those values that have one; nothing for `target`.
    field: Piece,
    /// Which values those are.
    takes: Takes,
    /// Whether the index has to be told of the key itself.
    is_strange: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Takes {
    Nothing,
    Text,
    Integers,
    /// The text stands beside the attributes.
    Target,
}

/// Text that is mostly short, written without a look at its length.
struct Piece {
    short: [u8; SHORT],
    len: usize,
    /// All of it when it is longer.
    long: Box<[u8]>,
}

const SHORT: usize = 32;

impl Row {
    /// Before a record.
    #[inline]
    pub(super) fn begin(&mut self, vocabulary: &Vocabulary, shape: Shape) {
        if self.era != vocabulary.era() || self.columns.len() != vocabulary.count() {
            self.learn(vocabulary, shape);
        }
        for out in [&mut self.attributes, &mut self.fields, &mut self.numbers, &mut self.target] {
            out.clear_to(KEPT_BYTES_MAX);
        }
        self.is_strange = false;
    }

    /// Learns what is new in the vocabulary.
    #[cold]
    fn learn(&mut self, vocabulary: &Vocabulary, shape: Shape) {
        if self.era != vocabulary.era() {
            self.era = vocabulary.era();
            self.columns.clear();
        }
        let known = self.columns.len();
        self.columns.extend(vocabulary.texts().skip(known).map(|text| Column::new(text, shape)));
    }

    /// The record's next attribute.
    #[inline(always)]
    pub(super) fn put(&mut self, id: KeyId, value: AnyView<'_>) {
        // A key that is met for the first time is learned before the next record.
        let Some(column) = self.columns.get(id.index()) else {
            self.is_strange = true;
            return;
        };
        self.is_strange |= column.is_strange;
        match value {
            AnyView::Str(text) if text.len() <= TERM_CHARS_MAX => {
                let (out, name) = column.place_of_text(&mut self.attributes, &mut self.fields, &mut self.target);
                name.write(out);
                out.string(text);
            }
            AnyView::Int(value)
                if column.takes == Takes::Integers && value.unsigned_abs() <= EXACT_MAX.unsigned_abs() =>
            {
                column.field.write(&mut self.fields);
                json::int(&mut self.fields, value);
            }
            AnyView::Int(value) => {
                column.key.write(&mut self.attributes);
                json::int(&mut self.attributes, value);
                column.number(&mut self.numbers, value as f64);
            }
            AnyView::Double(value) if value.is_finite() => {
                column.key.write(&mut self.attributes);
                json::double(&mut self.attributes, value);
                column.number(&mut self.numbers, value);
            }
            AnyView::Bool(value) => {
                column.key.write(&mut self.attributes);
                json::boolean(&mut self.attributes, value);
            }
            _ => self.is_strange = true,
        }
    }

    /// The record's next attribute, text of fewer bytes than a term may have. Whether it is UTF-8.
    #[inline(always)]
    pub(super) fn put_text(&mut self, id: KeyId, text: Unread<'_>) -> bool {
        let Some(column) = self.columns.get(id.index()) else {
            self.is_strange = true;
            return text.read().is_some();
        };
        self.is_strange |= column.is_strange;
        let (out, name) = column.place_of_text(&mut self.attributes, &mut self.fields, &mut self.target);
        name.write(out);
        out.string_of(text.bytes, text.len)
    }

    /// Whether this is all that there is to write of the record's attributes.
    #[inline]
    pub(super) fn is_plain(&self) -> bool {
        !self.is_strange
    }

    /// The text `target` as JSON, when there is one.
    #[inline]
    pub(super) fn target(&self) -> Option<&[u8]> {
        Some(self.target.as_bytes()).filter(|target| !target.is_empty())
    }

    /// Writes the attributes, and what the index has to be told about them and the resource's; `keys` are the record's.
    #[inline]
    pub(super) fn write(&self, out: &mut Out, resource: &Notes<'static>, keys: &Vocabulary) {
        out.put(self.fields.as_bytes());
        out.literal(ATTRIBUTES);
        let start = out.len();
        out.put(self.attributes.as_bytes());
        enclose(out, start, b"{}");
        resource.write_inherited(out, self.numbers.as_bytes(), |path| keys.is_in_list(path));
    }
}

impl Column {
    fn new(text: &str, shape: Shape) -> Self {
        let is_strange = shape.is_flat_object && text.contains(FLAT_END);
        let mut written = Out::default();
        key(&mut written, text);
        let key = Piece::new(written.as_bytes());
        match fields::known(text).filter(|field| field.owner == Owner::Record) {
            Some(field) => {
                let takes = match field.kind {
                    Kind::Keyword => Takes::Text,
                    Kind::Long => Takes::Integers,
                };
                Self { key, field: Piece::new(field.member(shape.names).as_bytes()), takes, is_strange }
            }
            None => {
                let takes = if text == "target" { Takes::Target } else { Takes::Nothing };
                Self { key, field: Piece::new(b""), takes, is_strange }
            }
        }
    }

    /// Where text under this key is written, and behind which name.
    #[inline(always)]
    fn place_of_text<'r>(
        &'r self,
        attributes: &'r mut Out,
        fields: &'r mut Out,
        target: &'r mut Out,
    ) -> (&'r mut Out, &'r Piece) {
        match self.takes {
            Takes::Nothing | Takes::Integers => (attributes, &self.key),
            Takes::Text => (fields, &self.field),
            Takes::Target => (target, &self.field),
        }
    }

    #[inline]
    fn number(&self, out: &mut Out, value: f64) {
        self.key.write(out);
        number::write(out, number::rising(value));
    }
}

impl Piece {
    fn new(text: &[u8]) -> Self {
        let mut short = [0; SHORT];
        let long = if text.len() > SHORT { text.into() } else { Box::default() };
        if text.len() <= SHORT {
            short[..text.len()].copy_from_slice(text);
        }
        Self { short, len: text.len(), long }
    }

    #[inline]
    fn write(&self, out: &mut Out) {
        if self.len <= SHORT {
            out.first(&self.short, self.len);
        } else {
            out.put(&self.long);
        }
    }
}
