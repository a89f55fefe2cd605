//! Doubles as text that sorts as they do: the index compares the values of a flattened field as text.
//!
//! The code is the double's bits in hexadecimal, turned so that they rise with the value (the sign flipped, a negative
//! number's other bits too), without the zeros at its end: they are the lowest digit, so leaving them away keeps the order,
//! and a whole number such as 250 becomes five characters, `c06f4`.

use crate::text::{self, Out};

/// The code of `-∞`: no number's code is below it.
pub(super) const MIN: &str = "000fffffffffffff";
/// The code of `+∞`: only NaN's is above it.
pub(super) const MAX: &str = "fff";

/// A double's code.
pub(super) fn code(value: f64) -> String {
    let mut code = Out::default();
    write(&mut code, rising(value));
    String::from_utf8_lossy(code.as_bytes()).trim_matches('"').to_owned()
}

/// A double's bits, turned so that they rise with the value: what its code is made of, and sorts as the code does.
#[inline]
pub(super) fn rising(value: f64) -> u64 {
    let bits = match value {
        // One zero and one NaN.
        0.0 => 0,
        _ if value.is_nan() => f64::NAN.to_bits() & !(1 << 63),
        _ => value.to_bits(),
    };
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}

/// Writes the code made of such bits, in quotes.
#[inline]
pub(super) fn write(out: &mut Out, rising: u64) {
    out.digits([text::hex(rising)], 16 - rising.trailing_zeros().min(60) as usize / 4);
}

/// The double of a code; none when it is not one.
pub(super) fn parse(code: &str) -> Option<f64> {
    let rising = u64::from_str_radix(&format!("{code:0<16}"), 16).ok()?;
    let bits = if rising >> 63 == 1 { rising & !(1 << 63) } else { !rising };
    Some(f64::from_bits(bits))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn codes_are_short_for_everyday_numbers() {
        assert_eq!(code(250.0), "c06f4");
        assert_eq!(code(0.0), "8");
        assert_eq!(code(-0.0), code(0.0));
        assert_eq!((code(f64::NEG_INFINITY).as_str(), code(f64::INFINITY).as_str()), (MIN, MAX));
        assert!(code(f64::NAN).as_str() > MAX && code(-f64::NAN).as_str() > MAX);
    }

    proptest! {
        #[test]
        fn codes_sort_as_numbers_do(a in any::<f64>(), b in any::<f64>()) {
            prop_assume!(!a.is_nan() && !b.is_nan());
            prop_assert_eq!(a.partial_cmp(&b), Some(code(a).cmp(&code(b))));
        }

        #[test]
        fn a_codes_number_is_the_one_it_was_made_of(value in any::<f64>()) {
            let read = parse(&code(value)).unwrap();
            prop_assert!(read == value || read.is_nan() && value.is_nan());
        }
    }
}
