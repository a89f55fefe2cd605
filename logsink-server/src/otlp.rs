//! The wire view: a scanner over the bytes of an `ExportLogsServiceRequest` that copies nothing.
//!
//! Ingest checks a request with [`check`] and forwards its bytes; drain, the indexes and the server's rules look at the
//! records through [`scan`], which checks as it goes, [`for_each_record`], which checks first, or [`walk`], which relies on a
//! check made before. None builds objects. A [`Vocabulary`] keeps the keys that a scan has met for the next one. What a view
//! shows is what a full protobuf decoder would have decoded (the tests compare it with prost), with these choices of our own:
//! - groups, and a singular message field that stands twice (which a decoder would have to merge), are refused: no OTLP
//!   sender writes them;
//! - values nest [`wire::DEPTH_MAX`] deep at most;
//! - where a key stands twice in one list of attributes, the last one counts.

mod check;
mod plain;
pub(crate) mod tag;
mod value;
mod view;
mod vocabulary;
pub mod wire;

#[cfg(test)]
mod tests;

pub use check::{Limits, Summary, Visit, check, scan};
pub use plain::Unread;
pub use value::{AnyView, Elements, Pairs};
pub use view::{RecordView, ResourceView, ScopeView, any_resource, walk};
pub use vocabulary::{KeyId, Vocabulary};
pub use wire::{WireError, WireFault};

/// Calls `each` with every record of a request, in wire order, and returns how many there were.
///
/// The whole payload is checked first (structure, UTF-8, depth; no other limit), so `each` sees either all of the records
/// or none. Who can take back what it made of them uses [`scan`], which goes over the bytes once.
///
/// # Errors
/// When the payload is not an `ExportLogsServiceRequest`.
pub fn for_each_record<'a>(payload: &'a [u8], each: &mut dyn FnMut(RecordView<'a>)) -> Result<u32, WireError> {
    let summary = check(payload, &Limits::UNLIMITED)?;
    walk(payload, each)?;
    Ok(summary.records)
}
