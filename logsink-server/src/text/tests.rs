use proptest::prelude::*;

use super::{out::PIECE, *};

fn check(text: &str) {
    let mut out = Out::new(b"before".to_vec());
    out.string(text);
    let written = String::from_utf8(out.into_bytes()).unwrap();
    assert_eq!(written.strip_prefix("before").unwrap(), serde_json::to_string(text).unwrap());
    // The same among other bytes, of which enough follow to look at them sixteen at a time, or not.
    for after in [&b""[..], b"\"\xff\0", &[b'"'; WIDTH]] {
        let mut out = Out::new(b"before".to_vec());
        assert!(out.string_of(&[text.as_bytes(), after].concat(), text.len()));
        assert_eq!(String::from_utf8(out.into_bytes()).unwrap(), written);
    }
}

#[test]
fn every_byte_at_every_place_is_as_serde_json_writes_it() {
    for len in 0..40 {
        for at in 0..len {
            for byte in 0..0x80 {
                let mut text = vec![b'x'; len];
                text[at] = byte;
                check(std::str::from_utf8(&text).unwrap());
            }
        }
    }
}

#[test]
fn long_text_is_escaped_piece_by_piece() {
    for len in [PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 7] {
        check(&"\u{1}".repeat(len));
        check(&format!("{}\n", "é".repeat(len)));
    }
}

#[test]
fn bytes_of_every_length_are_put_whole() {
    let bytes: Vec<u8> = (0..100).collect();
    for len in 0..bytes.len() {
        let mut out = Out::new(vec![b'<']);
        out.put(&bytes[..len]);
        out.literal(b">");
        out.first(&[1, 2, 3], 2);
        out.set(0, b'[');
        out.digits([hex(0x1234), hex(5)], 3);
        assert_eq!(out.into_bytes(), [b"[", &bytes[..len], b">\x01\x02\"000\""].concat());
    }
}

#[test]
fn text_of_every_length_is_utf8_or_not() {
    for len in 1..50 {
        for at in 0..len {
            let mut bytes = vec![b'a'; len];
            assert_eq!(utf8(&bytes).map(str::as_bytes), Ok(&*bytes));
            assert!(are_ascii(&[&bytes[..], &[0xff; WIDTH]].concat(), len));
            bytes[at] = 0xff;
            assert_eq!(utf8(&bytes), std::str::from_utf8(&bytes), "{len} {at}");
            assert!(!are_ascii(&[&bytes[..], b"sixteen and more bytes"].concat(), len), "{len} {at}");
            assert!(!Out::default().string_of(&bytes, len) && Out::default().string_of(&bytes, at));
        }
    }
    assert_eq!(utf8("é".as_bytes()), Ok("é"));
}

proptest! {
    #[test]
    fn any_text_is_as_serde_json_writes_it(text in prop::collection::vec(any::<char>(), 0..40)) {
        check(&String::from_iter(text));
    }

    #[test]
    fn text_full_of_escapes_is_too(text in "[\"\\\\\n\u{0}-\u{22}a-e\u{7f}é🦀]{0,80}") {
        check(&text);
    }

    #[test]
    fn utf8_is_what_the_standard_library_says(bytes in prop::collection::vec(prop_oneof![0x20_u8..0x7f, any::<u8>()], 0..40)) {
        prop_assert_eq!(utf8(&bytes), std::str::from_utf8(&bytes));
    }
}

#[test]
fn texts_are_alike_up_to_where_they_part() {
    for len in (0..300).chain([1_000]) {
        let one: Vec<u8> = (0..len).map(|at| at as u8).collect();
        for at in 0..=len {
            let mut other = one.clone();
            if let Some(byte) = other.get_mut(at) {
                *byte ^= 0x80;
            }
            assert_eq!(alike(&one, &other), at);
            assert_eq!((alike(&one[..at], &one), alike(&one, &one[..at])), (at, at));
        }
    }
}

proptest! {
    #[test]
    fn members_begin_with_a_comma_before_a_quote(text: [u8; MEMBERS]) {
        // Commas, quotes and others.
        let text = text.map(|byte| b",\"x"[usize::from(byte % 3)]);
        let expected = (0..MEMBERS - 1).filter(|at| text[*at..].starts_with(b",\"")).fold(0, |bits, at| bits | 1 << at);
        prop_assert_eq!(members(&text), expected, "{}", text.escape_ascii());
    }
}
