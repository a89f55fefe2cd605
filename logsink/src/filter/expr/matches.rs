//! The matcher.
use super::{Expr, Op};
use std::cmp::Ordering;
impl Op {
    /// Whether the comparison holds for two values that compare so.
    pub fn holds(self, ordering: Ordering) -> bool {
        match self {
            Self::Eq => ordering.is_eq(),
            Self::Ne => ordering.is_ne(),
            Self::Lt => ordering.is_lt(),
            Self::Le => ordering.is_le(),
            Self::Gt => ordering.is_gt(),
            Self::Ge => ordering.is_ge(),
        }
    }
}
pub(super) fn matches(_expr: &Expr, _event: &dyn crate::filter::EventView) -> bool {
    unimplemented!()
}
