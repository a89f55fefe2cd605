//! What all records of a resource and a scope have in their documents, written once. Each message repeats its resource: the
//! same bytes give the same JSON.

use super::{
    super::{fields::Owner, json},
    ANY, Shape,
    attributes::{self, ATTRIBUTES, distinct, fields, keep, object},
    keys::Seen,
    notes::Notes,
};
use crate::{
    otlp::{ResourceView, ScopeView},
    text::Out,
};

const RESOURCE: &[u8; 12] = b",\"resource\":";

/// The parts of the resource and the scope at hand.
#[derive(Default)]
pub(super) struct Parts {
    /// Where their bytes are in the message at hand; none before its first record. Addresses say nothing of another message.
    place: Option<[(usize, usize); 2]>,
    /// The wire bytes that the rest was made of; none at first.
    made_of: Option<(Vec<u8>, Vec<u8>)>,
    /// `,"service.name":"…",…,"resource":{…},"scope":{…}`
    json: Out,
    /// What the index has to be told about the resource.
    notes: Notes<'static>,
}

impl Parts {
    pub(super) fn follow_message(&mut self) {
        self.place = None;
    }

    /// Whether it may be another one than before.
    #[inline]
    pub(super) fn follow(&mut self, shape: Shape, resource: ResourceView<'_>, scope: ScopeView<'_>) -> bool {
        let place = [resource.raw, scope.raw].map(|raw| (raw.as_ptr().addr(), raw.len()));
        let may_be_another = self.place != Some(place);
        if may_be_another {
            self.place = Some(place);
            self.change(shape, resource, scope);
        }
        may_be_another
    }

    #[inline(never)]
    fn change(&mut self, shape: Shape, resource: ResourceView<'_>, scope: ScopeView<'_>) {
        let made_of = self.made_of.take();
        if made_of.as_ref().is_some_and(|(old, old_scope)| *old == resource.raw && *old_scope == scope.raw) {
            self.made_of = made_of;
            return;
        }
        self.made_of = Some((resource.raw.to_vec(), scope.raw.to_vec()));
        let pairs: Vec<_> = resource.attributes().iter().collect();
        let pairs = distinct(&pairs);
        let keys = Seen::of(&pairs, Owner::Resource);
        self.json.clear();
        json::field(&mut self.json, b",\"service.name\":\"", resource.service);
        fields(&mut self.json, &pairs, &keys, shape.names);
        let start = self.json.len();
        self.json.literal(RESOURCE);
        let mut notes = Notes::default();
        attributes::resource(&mut self.json, &pairs, &keys, &mut notes);
        if notes.has_long_path || notes.has_long && shape.is_flat_object {
            keep(&mut self.json, start, RESOURCE);
            notes.opaque(ANY.into());
        }
        if notes.has_flat_end && shape.is_flat_object {
            notes.opaque(ANY.into());
        }
        self.notes = notes.into_owned();
        if !scope.raw.is_empty() {
            json::field(&mut self.json, b",\"scope\":{\"name\":\"", scope.name);
            json::field(&mut self.json, b",\"version\":\"", scope.version);
            self.json.literal(ATTRIBUTES);
            object(&mut self.json, scope.attributes(), None, &mut Notes::default());
            self.json.byte(b'}');
        }
    }

    #[inline]
    pub(super) fn json(&self) -> &[u8] {
        self.json.as_bytes()
    }

    #[inline]
    pub(super) fn notes(&self) -> &Notes<'static> {
        &self.notes
    }
}
