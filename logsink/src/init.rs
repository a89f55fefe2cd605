//! Placeholder.
#![allow(missing_docs)]
pub struct Builder;
pub struct Guard;
pub fn builder() -> Builder {
    Builder
}
pub fn init() -> Result<Guard, crate::InitError> {
    Ok(Guard)
}
