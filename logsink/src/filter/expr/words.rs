//! Words.
/// W.
pub fn words(_text: &str, _each: &mut dyn FnMut(&str)) {
    unimplemented!()
}
