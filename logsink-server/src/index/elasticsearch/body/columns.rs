//! What each key of the vocabulary means for a document, made once: a record whose keys are all known is not asked anew.

use super::{
    super::fields::{self, FieldNames, Known, Owner},
    attributes::key,
    keys::Keys,
};
use crate::{
    otlp::{self, Attributes, Vocabulary},
    text::Out,
};

/// What is known of the keys of a vocabulary, by their numbers.
#[derive(Default)]
pub(super) struct Columns {
    /// The vocabulary's.
    era: u64,
    columns: Vec<Column>,
}

struct Column {
    /// `,"key":`
    key: Piece,
    /// The field for values that it takes, and `,"name":`.
    field: Option<(&'static Known, Piece)>,
    is_target: bool,
}

/// Text that is mostly short, written without a look at its length.
struct Piece {
    short: [u8; SHORT],
    len: usize,
    /// All of it when it is longer.
    long: Box<[u8]>,
}

const SHORT: usize = 32;

impl Columns {
    /// Learns what is new in the vocabulary.
    #[inline]
    fn follow(&mut self, vocabulary: &Vocabulary, names: FieldNames) {
        if self.era != vocabulary.era() || self.columns.len() != vocabulary.count() {
            self.learn(vocabulary, names);
        }
    }

    #[cold]
    fn learn(&mut self, vocabulary: &Vocabulary, names: FieldNames) {
        if self.era != vocabulary.era() {
            self.era = vocabulary.era();
            self.columns.clear();
        }
        let known = self.columns.len();
        self.columns.extend(vocabulary.texts().skip(known).map(|text| Column::new(text, names)));
    }

    /// What the keys of a record mean; none when some have no number.
    #[inline]
    pub(super) fn row<'r>(
        &'r mut self,
        keys: Option<otlp::Keys<'r>>,
        pairs: Attributes<'_, '_>,
        names: FieldNames,
    ) -> Option<Row<'r>> {
        let keys = keys?;
        self.follow(keys.vocabulary, names);
        let mut row = Row { ids: keys.ids, columns: &self.columns, known: 0, target: None };
        for (index, (id, (_, value))) in keys.ids.iter().zip(pairs).enumerate() {
            let column = self.columns.get(id.index())?;
            if let Some((field, _)) = &column.field {
                row.known |= u64::from(index < 64 && field.takes(*value)) << (index & 63);
            } else if column.is_target {
                row.target = Some(index);
            }
        }
        Some(row)
    }
}

impl Column {
    fn new(text: &str, names: FieldNames) -> Self {
        let mut written = Out::default();
        key(&mut written, text);
        let field = fields::known(text).filter(|field| field.owner == Owner::Record);
        Self {
            key: Piece::new(written.as_bytes()),
            field: field.map(|field| (field, Piece::new(field.member(names).as_bytes()))),
            is_target: text == "target",
        }
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

/// The keys of a record, each of them known and none twice.
pub(super) struct Row<'r> {
    ids: &'r [otlp::KeyId],
    columns: &'r [Column],
    known: u64,
    target: Option<usize>,
}

impl Row<'_> {
    #[inline]
    fn column(&self, index: usize) -> Option<&Column> {
        self.columns.get(self.ids.get(index)?.index())
    }
}

impl Keys for Row<'_> {
    #[inline]
    fn known(&self) -> u64 {
        self.known
    }

    #[inline]
    fn field(&self, out: &mut Out, index: usize, _: &str, _: FieldNames) {
        if let Some((_, piece)) = self.column(index).and_then(|column| column.field.as_ref()) {
            piece.write(out);
        }
    }

    #[inline]
    fn key(&self, out: &mut Out, index: usize, _: &str) {
        if let Some(column) = self.column(index) {
            column.key.write(out);
        }
    }

    #[inline]
    fn target(&self) -> Option<usize> {
        self.target
    }

    #[inline]
    fn may_have(&self, _: &str) -> bool {
        true
    }
}
