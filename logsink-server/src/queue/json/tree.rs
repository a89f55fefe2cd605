//! JSON as it stands in a line: members in their order, repeated keys kept, numbers told apart.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Json {
    Null,
    Bool(bool),
    Int(i64),
    /// A whole number above what OTLP's integers hold.
    Large(u64),
    Double(f64),
    Text(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl<'de> Deserialize<'de> for Json {
    // serde_json refuses what nests deeper than 128.
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(AnyJson)
    }
}

struct AnyJson;

impl<'de> Visitor<'de> for AnyJson {
    type Value = Json;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Int(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Json, E> {
        Ok(i64::try_from(value).map_or(Json::Large(value), Json::Int))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Double(value))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Json, E> {
        Ok(Json::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Json, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = from.next_element()? {
            values.push(value);
        }
        Ok(Json::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Json, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = from.next_entry()? {
            members.push(member);
        }
        Ok(Json::Object(members))
    }
}

/// Finds the first member of that name, or at that path, whose value `take` can use, and takes it out.
pub(super) fn take<T>(
    members: &mut Vec<(String, Json)>,
    name: &str,
    take_value: &mut dyn FnMut(&Json) -> Option<T>,
) -> Option<T> {
    for index in 0..members.len() {
        let (key, value) = &mut members[index];
        if key == name {
            if let Some(taken) = take_value(value) {
                members.remove(index);
                return Some(taken);
            }
            continue;
        }
        let rest = name.strip_prefix(key.as_str()).and_then(|rest| rest.strip_prefix('.'));
        if let (Some(rest), Json::Object(below)) = (rest, value)
            && let Some(taken) = take(below, rest, take_value)
        {
            // Of an object of which nothing is left there is nothing to tell.
            if below.is_empty() {
                members.remove(index);
            }
            return Some(taken);
        }
    }
    None
}
