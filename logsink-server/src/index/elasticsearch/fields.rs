//! Well-known attributes, which have fields of their own in the index, typed and under the names that Kibana and Grafana know.
//!
//! An attribute of which the value has the field's type is moved out of `attributes` (or `resource`) into its field, so that it
//! is written and indexed once. Any other value under that name stays where it is: nothing is refused for a string where a
//! number was. In the one naming the fields are called as OpenTelemetry's semantic conventions have them, in the other as the
//! Elastic Common Schema has them; in both the other name is an alias.

use serde::{Deserialize, Serialize};

use crate::otlp::AnyView;

/// How the fields of documents are called.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FieldNames {
    /// As in OpenTelemetry's semantic conventions, and as we call what those have no name for.
    #[default]
    Otel,
    /// As in the Elastic Common Schema.
    Ecs,
}

/// Members of every document, of which the name depends: `,"name":`.
impl FieldNames {
    #[inline]
    pub(super) fn level(self) -> &'static [u8] {
        self.either(b",\"level\":", b",\"log.level\":")
    }

    #[inline]
    pub(super) fn target(self) -> &'static [u8] {
        self.either(b",\"target\":", b",\"log.logger\":")
    }

    #[inline]
    pub(super) fn trace_id(self) -> &'static [u8] {
        self.either(b",\"trace_id\":", b",\"trace.id\":")
    }

    #[inline]
    pub(super) fn span_id(self) -> &'static [u8] {
        self.either(b",\"span_id\":", b",\"span.id\":")
    }

    #[inline]
    pub(super) fn event_name(self) -> &'static [u8] {
        self.either(b",\"event_name\":", b",\"event.action\":")
    }

    #[inline]
    fn either(self, otel: &'static [u8], ecs: &'static [u8]) -> &'static [u8] {
        match self {
            Self::Otel => otel,
            Self::Ecs => ecs,
        }
    }
}

/// What a well-known attribute usually describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    Record,
    Resource,
}

/// Which values a field takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Text that fits into a term.
    Keyword,
    /// Integers that a double holds exactly: the expression language compares doubles.
    Long,
}

/// A well-known attribute's field.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// The attribute, and the field in the one naming.
    pub(super) name: &'static str,
    /// The field in the other.
    pub(super) ecs: &'static str,
    pub(super) owner: Owner,
    pub(super) kind: Kind,
    /// `,"name":` in either.
    members: [&'static str; 2],
}

/// The largest integer up to which doubles hold every one.
pub(super) const EXACT_MAX: i64 = 1 << 53;

macro_rules! known {
    ($($owner:ident { $($name:literal $(= $ecs:literal)?: $kind:ident,)* })*) => {
        /// All of them. A name that has an alias in the list's other column must not begin another name followed by a dot.
        pub(super) static KNOWN: &[Known] = &[$($(known!(@ $owner $name $($ecs)? ; $kind),)*)*];
    };
    (@ $owner:ident $name:literal ; $kind:ident) => { known!(@ $owner $name $name ; $kind) };
    (@ $owner:ident $name:literal $ecs:literal ; $kind:ident) => {
        Known {
            name: $name,
            ecs: $ecs,
            owner: Owner::$owner,
            kind: Kind::$kind,
            members: [concat!(",\"", $name, "\":"), concat!(",\"", $ecs, "\":")],
        }
    };
}

known! {
    Record {
        "http.request.method": Keyword,
        "http.response.status_code": Long,
        "http.route": Keyword,
        "url.path": Keyword,
        "url.full": Keyword,
        "url.domain": Keyword,
        "client.address": Keyword,
        "server.address": Keyword,
        "user.id": Keyword,
        "user.name": Keyword,
        "exception.type" = "error.type": Keyword,
        "exception.message" = "error.message": Keyword,
        "code.file.path" = "log.origin.file.name": Keyword,
        "code.line.number" = "log.origin.file.line": Long,
        "code.function.name" = "log.origin.function": Keyword,
        "thread.name" = "process.thread.name": Keyword,
        "thread.id" = "process.thread.id": Long,
    }
    Resource {
        "service.version": Keyword,
        "service.instance.id" = "service.node.name": Keyword,
        "deployment.environment.name" = "service.environment": Keyword,
        "host.name": Keyword,
        "host.id": Keyword,
        "process.pid": Long,
        "container.id": Keyword,
        "container.name": Keyword,
        "k8s.cluster.name" = "orchestrator.cluster.name": Keyword,
        "k8s.namespace.name" = "kubernetes.namespace": Keyword,
        "k8s.node.name" = "kubernetes.node.name": Keyword,
        "k8s.deployment.name" = "kubernetes.deployment.name": Keyword,
        "k8s.pod.name" = "kubernetes.pod.name": Keyword,
        "k8s.pod.uid" = "kubernetes.pod.uid": Keyword,
        "k8s.container.name" = "kubernetes.container.name": Keyword,
        "cloud.region": Keyword,
        "cloud.provider": Keyword,
    }
}

impl Known {
    /// `,"name":`
    #[inline]
    pub(super) fn member(&self, names: FieldNames) -> &'static str {
        self.members[names as usize]
    }

    /// Whether the field takes this value; if not, the attribute stays where attributes are.
    #[inline]
    pub(super) fn takes(&self, value: AnyView<'_>) -> bool {
        match (self.kind, value) {
            (Kind::Keyword, AnyView::Str(text)) => text.len() <= super::body::TERM_CHARS_MAX,
            (Kind::Long, AnyView::Int(value)) => value.unsigned_abs() <= EXACT_MAX.unsigned_abs(),
            _ => false,
        }
    }
}

/// The field of a well-known attribute.
#[inline]
pub(super) fn known(name: &str) -> Option<&'static Known> {
    let known = KNOWN.get(usize::from(SLOTS[usize::from(hash(name) >> 8)]))?;
    (known.name == name).then_some(known)
}

/// Whether a name with this hash may have a field.
#[inline]
pub(super) fn may_be_known(hash: u16) -> bool {
    SLOTS[usize::from(hash >> 8)] != u8::MAX
}

/// The place in [`KNOWN`] of the attribute whose name has a hash that begins so; none of them where it is beyond the end.
static SLOTS: [u8; 256] = {
    let mut slots = [u8::MAX; 256];
    let mut index = 0;
    while index < KNOWN.len() {
        let slot = &mut slots[(hash(KNOWN[index].name) >> 8) as usize];
        assert!(*slot == u8::MAX, "the hashes of two names begin alike: choose another FACTOR");
        *slot = index as u8;
        index += 1;
    }
    slots
};

/// One for which no two of the names have hashes that begin alike.
const FACTOR: u64 = 0x5c6e_4337_15ba_2bdd;

/// A hash of a name: of its length, its beginning and its end.
#[inline]
pub(super) const fn hash(name: &str) -> u16 {
    let bytes = name.as_bytes();
    let word = match (bytes.first_chunk(), bytes.last_chunk()) {
        (Some(first), Some(last)) => u64::from_le_bytes(*first) ^ u64::from_le_bytes(*last).rotate_left(23),
        _ => match (bytes.first_chunk(), bytes.last_chunk()) {
            (Some(first), Some(last)) => u32::from_le_bytes(*first) as u64 | (u32::from_le_bytes(*last) as u64) << 32,
            _ => match bytes {
                [] => 0,
                [only] => *only as u64,
                [first, .., last] => *first as u64 | (*last as u64) << 8,
            },
        },
    };
    ((word ^ bytes.len() as u64).wrapping_mul(FACTOR) >> 48) as u16
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_name_is_found_by_its_hash() {
        for field in KNOWN {
            assert_eq!(known(field.name), Some(field));
        }
        assert_eq!(known("user"), None);
        assert_eq!(known(""), None);
    }

    #[test]
    fn names_fit_into_one_mapping() {
        let names: BTreeSet<&str> = KNOWN.iter().flat_map(|field| [field.name, field.ecs]).collect();
        for name in &names {
            for (at, _) in name.match_indices('.') {
                assert!(!names.contains(&name[..at]), "{name} is a field in a field");
            }
        }
        let mut ecs: Vec<_> = KNOWN.iter().map(|field| field.ecs).collect();
        ecs.sort_unstable();
        assert!(ecs.windows(2).all(|two| two[0] != two[1]), "an ECS name stands for one attribute");
    }
}
