//! The parser.
use super::{Expr, SyntaxError};
pub(super) fn parse(text: &str) -> Result<Expr, SyntaxError> {
    if text.trim().is_empty() {
        return Ok(Expr::And(Vec::new()));
    }
    unimplemented!()
}
pub(crate) fn nearest<'a>(_text: &str, _known: &[&'a str]) -> Option<&'a str> {
    None
}
