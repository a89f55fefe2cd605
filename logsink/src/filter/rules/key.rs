//! What tells events apart where a rule treats them key by key: some fields, hashed to 64 bits.
//!
//! The hash is the same in every process, so that a share of the users is the same share everywhere. Two keys of the same
//! hash count as one, which takes billions of keys to happen by accident; it is no defence against somebody who looks for
//! such keys.

use crate::filter::{EventView, Value, expr::Field};

/// Fields of one key: more tell nothing further apart.
pub(super) const KEY_FIELDS_MAX: usize = 8;

/// The fields that make a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// Target, file and line; target and message where file and line are not told.
    Callsite,
    Level,
    Field(Field),
}

impl Key {
    /// The key of these fields, `callsite` and `level` among them.
    pub fn new<'n>(names: impl IntoIterator<Item = &'n str>) -> Self {
        let part = |name: &str| match name {
            "callsite" => Part::Callsite,
            "level" => Part::Level,
            "message" => Part::Field(Field::Message),
            "service" => Part::Field(Field::Service),
            "target" => Part::Field(Field::Target),
            "trace_id" => Part::Field(Field::TraceId),
            "span_id" => Part::Field(Field::SpanId),
            _ => Part::Field(Field::Attribute(name.to_owned())),
        };
        Self { parts: names.into_iter().map(part).collect() }
    }

    /// The event's key; `None` when it has none of the fields. Values are compared as text, so 7 and "7" are one key.
    pub(super) fn of(&self, event: &dyn EventView) -> Option<u64> {
        let mut hash = Hash(SEED);
        let mut any = false;
        for part in &self.parts {
            any |= match part {
                Part::Callsite => hash.callsite(event),
                Part::Level => hash.word(event.severity().floor().0.into()),
                Part::Field(field) => {
                    field.with_text(event, &mut |text| hash.bytes(text.as_bytes())) || !hash.word(ABSENT)
                }
            };
        }
        any.then_some(hash.0)
    }
}

/// Digits of the golden ratio and of the square root of 2: odd, and without a pattern of their own.
const SEED: u64 = 0x9E37_79B9_7F4A_7C15;
const FACTOR: u64 = 0xB504_F333_F9DE_6485;
/// Stands for a field that the event does not have.
const ABSENT: u64 = u64::MAX;

/// Multiplies word by word and folds the two halves of the product, eight bytes at a time.
struct Hash(u64);

impl Hash {
    /// Always true: what is hashed is there.
    fn word(&mut self, word: u64) -> bool {
        let product = u128::from(self.0 ^ word) * u128::from(FACTOR);
        // The rotation keeps a state of 0 from staying 0.
        self.0 = (product as u64 ^ (product >> 64) as u64).rotate_left(23) ^ SEED;
        true
    }

    fn bytes(&mut self, bytes: &[u8]) -> bool {
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            if let Ok(word) = chunk.try_into() {
                self.word(u64::from_le_bytes(word));
            }
        }
        let rest = chunks.remainder();
        let mut word = [0; 8];
        word[..rest.len()].copy_from_slice(rest);
        self.word(u64::from_le_bytes(word));
        // So that "a", "b" is another key than "ab", "".
        self.word(bytes.len() as u64)
    }

    fn callsite(&mut self, event: &dyn EventView) -> bool {
        self.bytes(event.target().as_bytes());
        // As OpenTelemetry calls them, now and in the past.
        match event.attribute("code.file.path").or_else(|| event.attribute("code.filepath")) {
            Some(Value::Text(file)) => {
                self.bytes(file.as_bytes());
                match event.attribute("code.line.number").or_else(|| event.attribute("code.lineno")) {
                    Some(Value::Int(line)) => self.word(line as u64),
                    _ => true,
                }
            }
            _ => self.bytes(event.message().as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Severity, filter::expr::tests::Sample};

    fn with(attributes: &[(&'static str, Value<'static>)]) -> Sample {
        Sample { target: "app", message: "m", attributes: attributes.to_vec(), ..Sample::default() }
    }

    #[test]
    fn keys_differ_where_their_fields_do() {
        let text = |text: &'static str| Value::Text(text.into());
        for (names, one, other, same) in [
            (&["a"][..], with(&[("a", text("x"))]), with(&[("a", text("x")), ("b", text("y"))]), true),
            (&["a"], with(&[("a", Value::Int(7))]), with(&[("a", text("7"))]), true),
            (&["a"], with(&[("a", text(""))]), with(&[("a", text("\0"))]), false),
            (&["a", "b"], with(&[("a", text("ab"))]), with(&[("a", text("a")), ("b", text("b"))]), false),
            (&["a", "b"], with(&[("a", text("x"))]), with(&[("b", text("x"))]), false),
            (&["message"], with(&[]), Sample { message: "n", ..with(&[]) }, false),
            (&["level"], with(&[]), Sample { severity: Severity::ERROR, ..with(&[]) }, false),
            (
                &["level"],
                Sample { severity: Severity(17), ..with(&[]) },
                Sample { severity: Severity(19), ..with(&[]) },
                true,
            ),
            // Without a place in the code, the message tells callsites apart.
            (&["callsite"], with(&[]), Sample { message: "n", ..with(&[]) }, false),
            (
                &["callsite"],
                with(&[("code.file.path", text("f")), ("code.line.number", Value::Int(1))]),
                Sample { message: "n", ..with(&[("code.file.path", text("f")), ("code.line.number", Value::Int(1))]) },
                true,
            ),
            (
                &["callsite"],
                with(&[("code.file.path", text("f")), ("code.line.number", Value::Int(1))]),
                with(&[("code.file.path", text("f")), ("code.line.number", Value::Int(2))]),
                false,
            ),
            (&["callsite"], with(&[]), Sample { target: "other", ..with(&[]) }, false),
        ] {
            let key = Key::new(names.iter().copied());
            assert!(key.of(&one).is_some() && key.of(&other).is_some());
            assert_eq!(key.of(&one) == key.of(&other), same, "{names:?}: {one:?} {other:?}");
        }
        assert_eq!(Key::new(["a", "trace_id"]).of(&with(&[("b", text("x"))])), None);
    }

    #[test]
    fn numbered_keys_spread_evenly() {
        let key = Key::new(["id"]);
        let mut counts = [0; 16];
        for id in 0..16_000 {
            counts[(key.of(&with(&[("id", Value::Int(id))])).unwrap() >> 60) as usize] += 1;
        }
        // A thousand each, give or take five standard deviations.
        assert!(counts.iter().all(|count| (845..1_155).contains(count)), "{counts:?}");
    }
}
