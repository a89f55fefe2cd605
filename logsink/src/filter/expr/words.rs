//! Text → words, as Elasticsearch's `standard` analyzer cuts it: the words of Unicode UAX #29, lower-cased letter by
//! letter, over-long ones cut into pieces of 255.
//!
//! Two classes of text differ from it, because the default rules of UAX #29 do: emoji are no words here, and runs of Thai,
//! Lao, Khmer and Myanmar letters are cut where UAX #29 cuts them. Nothing is allocated.

use std::ops::ControlFlow;

use unicode_segmentation::UnicodeSegmentation;

use super::Keyword;

/// The analyzer's `max_token_length`, in UTF-16 code units as Java counts.
const WORD_UNITS_MAX: usize = 255;
/// A word in UTF-8: up to three bytes a unit, and lower-casing keeps to that (Ⱥ grows from two to three).
const WORD_BYTES_MAX: usize = WORD_UNITS_MAX * 3 + 1;

/// Calls `each` with every word of `text`, lower-cased, as Elasticsearch's `standard` analyzer cuts it.
pub fn words(text: &str, each: &mut dyn FnMut(&str)) {
    let _ = scan(text, &mut |word| {
        each(word);
        ControlFlow::Continue(())
    });
}

impl Keyword {
    /// The words of this text.
    pub fn new(text: &str) -> Self {
        let mut found = Vec::new();
        words(text, &mut |word| found.push(word.to_owned()));
        Self { text: text.to_owned(), words: found }
    }

    /// Whether the words stand in `text`, adjacent and in this order. Words beyond the 64th are not looked at.
    pub fn is_in(&self, text: &str) -> bool {
        let words = &self.words[..self.words.len().min(64)];
        let Some(last) = words.len().checked_sub(1) else { return true };
        // Bit i: the words up to i are those read last ("shift-and").
        let mut seen = 0_u64;
        scan(text, &mut |word| {
            let here = words.iter().enumerate().filter(|(_, wanted)| *wanted == word);
            let here = here.fold(0_u64, |bits, (index, _)| bits | 1 << index);
            seen = (seen << 1 | 1) & here;
            if seen >> last & 1 == 1 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .is_break()
    }
}

fn scan(text: &str, each: &mut impl FnMut(&str) -> ControlFlow<()>) -> ControlFlow<()> {
    if text.is_ascii() { scan_ascii(text, each) } else { scan_unicode(text, each) }
}

fn scan_unicode(text: &str, each: &mut impl FnMut(&str) -> ControlFlow<()>) -> ControlFlow<()> {
    text.unicode_words().try_for_each(|word| lower(word, each))
}

/// UAX #29 restricted to ASCII, where three rules are left: letters, digits and `_` join; `'` `.` `:` join two letters;
/// `'` `.` `,` `;` join two digits.
fn scan_ascii(text: &str, each: &mut impl FnMut(&str) -> ControlFlow<()>) -> ControlFlow<()> {
    let bytes = text.as_bytes();
    let is_part = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let mut at = 0;
    while at < bytes.len() {
        if !is_part(bytes[at]) {
            at += 1;
            continue;
        }
        let start = at;
        let mut has_word = false;
        while let Some(&byte) = bytes.get(at) {
            if is_part(byte) {
                has_word |= byte != b'_';
                at += 1;
                continue;
            }
            let (before, after) = (bytes[at - 1], bytes.get(at + 1).copied().unwrap_or(b' '));
            let joins = match byte {
                b'\'' | b'.' => {
                    before.is_ascii_alphabetic() && after.is_ascii_alphabetic()
                        || before.is_ascii_digit() && after.is_ascii_digit()
                }
                b':' => before.is_ascii_alphabetic() && after.is_ascii_alphabetic(),
                b',' | b';' => before.is_ascii_digit() && after.is_ascii_digit(),
                _ => false,
            };
            if !joins {
                break;
            }
            at += 1;
        }
        if has_word {
            lower(&text[start..at], each)?;
        }
    }
    ControlFlow::Continue(())
}

/// Hands one word on in lower case, in pieces when it is too long.
fn lower(word: &str, each: &mut impl FnMut(&str) -> ControlFlow<()>) -> ControlFlow<()> {
    let fits = word.len() <= WORD_UNITS_MAX;
    if fits && word.bytes().all(|b| b.is_ascii() && !b.is_ascii_uppercase()) {
        return each(word);
    }
    let mut buffer = [0_u8; WORD_BYTES_MAX];
    let (mut length, mut units) = (0, 0);
    for c in word.chars() {
        if units + c.len_utf16() > WORD_UNITS_MAX {
            each(std::str::from_utf8(&buffer[..length]).unwrap_or_default())?;
            (length, units) = (0, 0);
        }
        units += c.len_utf16();
        // Letter by letter, as Java's `Character.toLowerCase`: İ becomes i, and a final Σ is a σ like any other.
        let lower = c.to_lowercase().next().unwrap_or(c);
        length += lower.encode_utf8(&mut buffer[length..]).len();
    }
    each(std::str::from_utf8(&buffer[..length]).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(text: &str) -> Vec<String> {
        Keyword::new(text).words
    }

    #[test]
    fn cuts_like_the_standard_analyzer() {
        for (text, expected) in [
            // The example of Elasticsearch's reference for the analyzer, with its `max_token_length` untouched.
            (
                "The 2 QUICK Brown-Foxes jumped over the lazy dog's bone.",
                &["the", "2", "quick", "brown", "foxes", "jumped", "over", "the", "lazy", "dog's", "bone"][..],
            ),
            ("foo_bar.baz:qux 10.0.0.1:8080", &["foo_bar.baz:qux", "10.0.0.1", "8080"]),
            ("a.1 1.a 1,000;5 a,b a;b", &["a", "1", "1", "a", "1,000;5", "a", "b", "a", "b"]),
            ("___ _a_ __1", &["_a_", "__1"]),
            ("app::db user@example.com", &["app", "db", "user", "example.com"]),
            ("ÄRGER Straße İstanbul ΟΔΟΣ", &["ärger", "straße", "istanbul", "οδοσ"]),
            ("東京 カタカナ", &["東", "京", "カタカナ"]),
            ("", &[]),
            (" .,:- ", &[]),
        ] {
            assert_eq!(cut(text), expected, "{text}");
        }
    }

    #[test]
    fn long_words_are_cut_at_255() {
        assert_eq!(cut(&"x".repeat(600)).iter().map(String::len).collect::<Vec<_>>(), [255, 255, 90]);
        // Two UTF-16 units each.
        let deseret = cut(&"𐐀".repeat(200));
        assert_eq!(deseret.iter().map(|word| word.chars().count()).collect::<Vec<_>>(), [127, 73]);
        assert!(deseret[0].starts_with('𐐨'));
        assert_eq!(cut(&"Ⱥ".repeat(255)), ["ⱥ".repeat(255)]);
    }

    #[test]
    fn finds_phrases() {
        for (phrase, text, found) in [
            ("connection refused", "Connection REFUSED by peer", true),
            ("connection refused", "connection was refused", false),
            ("connection refused", "refused connection", false),
            ("a a b", "a a a b", true),
            ("a b a b c", "a b a b a b c", true),
            ("refuse", "refused", false),
            ("", "anything", true),
            ("--", "", true),
            ("x", "", false),
        ] {
            assert_eq!(Keyword::new(phrase).is_in(text), found, "{phrase} in {text}");
        }
    }

    fn by(scan: impl Fn(&mut Vec<String>)) -> Vec<String> {
        let mut found = Vec::new();
        scan(&mut found);
        found
    }

    proptest! {
        #[test]
        fn the_ascii_path_agrees_with_unicode(text in "[aZ09_'.:,; \\-\"\r\n\t@/]{0,24}|[ -~]{0,40}|[\\x00-\\x7f]{0,16}") {
            let fast = by(|found| { let _ = scan_ascii(&text, &mut |w| { found.push(w.to_owned()); ControlFlow::Continue(()) }); });
            let full = by(|found| { let _ = scan_unicode(&text, &mut |w| { found.push(w.to_owned()); ControlFlow::Continue(()) }); });
            prop_assert_eq!(fast, full);
        }

        #[test]
        fn any_text_is_cut_and_contains_its_own_words(text in ".{0,60}") {
            let keyword = Keyword::new(&text);
            prop_assert!(keyword.is_in(&text));
            for word in &keyword.words {
                prop_assert!(!word.is_empty());
                prop_assert!(Keyword::new(word).is_in(&text) || cut(word) != [word.clone()]);
            }
        }

        #[test]
        fn a_phrase_is_found_where_a_plain_search_finds_it(
            phrase in proptest::collection::vec("[ab]", 0..5), text in proptest::collection::vec("[ab]", 0..12)
        ) {
            let expected = phrase.is_empty() || text.windows(phrase.len()).any(|window| window == phrase);
            prop_assert_eq!(Keyword::new(&phrase.join(" ")).is_in(&text.join(" ")), expected);
        }
    }
}
