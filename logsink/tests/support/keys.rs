//! Which keys would a type take from a document? Asked of its `Deserialize` alone.

use std::{collections::BTreeSet, fmt};

use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// The paths of all keys that hold a value: `batch.bytes_max`. A list of tables counts as one table, a table with keys of the
/// user's own as one value.
pub(crate) fn of<T: DeserializeOwned>() -> BTreeSet<String> {
    let (mut found, mut open) = (BTreeSet::new(), vec![Vec::new()]);
    while let Some(path) = open.pop() {
        let mut below = None;
        // The answer does not matter: a value may well refuse what it is given.
        let _ = T::deserialize(Probe { path: &path, below: &mut below });
        match below {
            Some(names) => open.extend(names.iter().map(|name| [&path[..], &[*name]].concat())),
            None => drop(found.insert(path.join("."))),
        }
    }
    found
}

/// Walks down `path`, and tells which fields the struct at its end has; nothing when there is no struct.
struct Probe<'p> {
    path: &'p [&'static str],
    below: &'p mut Option<&'static [&'static str]>,
}

#[derive(Debug)]
struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("refused")
    }
}

impl std::error::Error for Refused {}

impl de::Error for Refused {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Refused;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_str("")
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_seq(Once(Some(self)))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        match self.path.split_first() {
            Some((key, path)) => visitor.visit_map(Field { key: Some(key), value: Probe { path, below: self.below } }),
            None => {
                *self.below = Some(fields);
                Err(Refused)
            }
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct tuple
        tuple_struct map enum identifier ignored_any
    }
}

/// A list with one element.
struct Once<'p>(Option<Probe<'p>>);

impl<'de> SeqAccess<'de> for Once<'_> {
    type Error = Refused;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Refused> {
        self.0.take().map(|probe| seed.deserialize(probe)).transpose()
    }
}

/// A struct of which one field is given.
struct Field<'p> {
    key: Option<&'static str>,
    value: Probe<'p>,
}

impl<'de> MapAccess<'de> for Field<'_> {
    type Error = Refused;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Refused> {
        let key = self.key.take().map(de::value::BorrowedStrDeserializer::new);
        key.map(|key| seed.deserialize(key)).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Refused> {
        let Probe { path, below } = &mut self.value;
        seed.deserialize(Probe { path, below })
    }
}
