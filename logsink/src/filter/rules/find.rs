//! What is replaced inside text: what a regular expression or a known kind of secret matches.
//!
//! The engine takes time in proportion to the text. A text with more than [`MATCHES_MAX`] matches is replaced as a whole, since
//! looking for each next match may read the rest of the text again.

use regex::{Regex, RegexBuilder};

use super::super::expr::Pattern;

/// The longest regular expression, as written: a page.
pub(super) const PATTERN_BYTES_MAX: usize = 4 * 1024;
/// What one regular expression may take when compiled, as in conditions.
const REGEX_BYTES_MAX: usize = 1 << 20;
/// Matches that are replaced one by one.
const MATCHES_MAX: usize = 1_000;

/// Something to find in a text.
#[derive(Debug, Clone, PartialEq)]
pub struct Finder {
    pattern: Pattern,
    /// Whether the digits of a match must have a right check digit.
    luhn: bool,
}

/// Kinds that are known by name, and how they look. They are meant to find what is written plainly, with few false alarms; what
/// is split, encoded or spelt out they do not find.
const KINDS: [(&str, &str, bool); 5] = [
    ("bearer", r"(?i)(?-u:\b)(?:bearer|basic)\s+[A-Za-z0-9._~+/=-]+", false),
    ("credit-card", r"(?-u:\b)[0-9](?:[ -]?[0-9]){11,18}(?-u:\b)", true),
    ("email", r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+", false),
    (
        "ipv4",
        r"(?-u:\b)(?:(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])\.){3}(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])(?-u:\b)",
        false,
    ),
    ("jwt", r"(?-u:\b)eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*", false),
];

/// The names of the known kinds.
pub(super) const KIND_NAMES: [&str; KINDS.len()] = [KINDS[0].0, KINDS[1].0, KINDS[2].0, KINDS[3].0, KINDS[4].0];

impl Finder {
    /// Finds what this regular expression matches.
    ///
    /// # Errors
    /// When it is none, is too large, or matches the empty text.
    pub(super) fn pattern(text: &str) -> Result<Self, String> {
        if text.len() > PATTERN_BYTES_MAX {
            return Err(format!("the pattern has {} bytes, more than {PATTERN_BYTES_MAX}", text.len()));
        }
        let regex = RegexBuilder::new(text).size_limit(REGEX_BYTES_MAX).build().map_err(|error| {
            let error = error.to_string();
            // A syntax error is drawn over several lines; the last says what it is.
            let reason = error.rsplit("error: ").next().unwrap_or(&error).trim().replace('\n', " ");
            format!("bad regular expression, {reason}")
        })?;
        if regex.is_match("") {
            return Err("the pattern matches the empty text, so it would be found everywhere".to_owned());
        }
        Ok(Self { pattern: Pattern(regex), luhn: false })
    }

    /// Finds a known kind.
    pub(super) fn kind(name: &str) -> Option<Self> {
        let (_, pattern, luhn) = KINDS.iter().find(|(known, ..)| *known == name)?;
        Some(Self { luhn: *luhn, ..Self::pattern(pattern).ok()? })
    }

    /// Writes `text` to `out` with everything found replaced; `false`, with nothing written, when there is nothing.
    pub(super) fn replace(&self, text: &str, with: &str, out: &mut String) -> bool {
        let regex: &Regex = &self.pattern.0;
        let start = out.len();
        let mut copied = 0;
        let mut count = 0;
        for found in regex.find_iter(text) {
            if found.is_empty() || self.luhn && !has_check_digit(found.as_str()) {
                continue;
            }
            count += 1;
            if count > MATCHES_MAX {
                out.truncate(start);
                out.push_str(with);
                return true;
            }
            out.push_str(&text[copied..found.start()]);
            out.push_str(with);
            copied = found.end();
        }
        if count > 0 {
            out.push_str(&text[copied..]);
        }
        count > 0
    }
}

/// Luhn's check, which every card number passes and nine of ten other numbers do not.
fn has_check_digit(text: &str) -> bool {
    let digits = text.bytes().rev().filter(u8::is_ascii_digit).map(|digit| u32::from(digit - b'0'));
    let sum: u32 = digits
        .enumerate()
        .map(|(at, digit)| match at % 2 {
            0 => digit,
            _ if digit < 5 => digit * 2,
            _ => digit * 2 - 9,
        })
        .sum();
    sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(finder: &Finder, text: &str) -> String {
        let mut out = "before ".to_owned();
        let found = finder.replace(text, "#", &mut out);
        let written = out.strip_prefix("before ").unwrap().to_owned();
        assert_eq!(found, !written.is_empty());
        if found { written } else { text.to_owned() }
    }

    #[test]
    fn known_kinds_are_found_and_the_like_is_not() {
        for (kind, text, expected) in [
            ("email", "from ada@example.co.uk to <a.b+c@x-y.org>!", "from # to <#>!"),
            ("email", "user@localhost, @handle, a@b", "user@localhost, @handle, a@b"),
            ("credit-card", "card 4111 1111 1111 1111, 5500-0000-0000-0004.", "card #, #."),
            ("credit-card", "order 4111111111111112, 123456789", "order 4111111111111112, 123456789"),
            ("bearer", "Authorization: Bearer abc.DEF-1~2+/==, ok", "Authorization: #, ok"),
            ("bearer", "authorization: basic QWxhZGRpbg==", "authorization: #"),
            ("bearer", "the bearer", "the bearer"),
            ("jwt", "t=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dozjgN_-1;", "t=#;"),
            ("jwt", "eyJ alone", "eyJ alone"),
            ("ipv4", "10.0.0.1 and 255.255.255.255:80", "# and #:80"),
            ("ipv4", "1.2.3 256.1.1.1 v1.2.3.4a", "1.2.3 256.1.1.1 v1.2.3.4a"),
        ] {
            assert_eq!(replaced(&Finder::kind(kind).unwrap(), text), expected, "{kind}");
        }
        assert!(KIND_NAMES.iter().all(|name| Finder::kind(name).is_some()), "{KIND_NAMES:?}");
        assert_eq!(Finder::kind("iban"), None);
    }

    #[test]
    fn patterns_that_cannot_be_used_are_refused() {
        for (pattern, message) in [
            ("(", "bad regular expression"),
            ("x*", "matches the empty text"),
            ("", "matches the empty text"),
            (&"x".repeat(PATTERN_BYTES_MAX + 1), "4097 bytes"),
            (r"\w{1000}{1000}", "size limit"),
        ] {
            let error = Finder::pattern(pattern).unwrap_err();
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn a_text_full_of_matches_is_replaced_as_a_whole() {
        let finder = Finder::pattern("[0-9]").unwrap();
        assert_eq!(replaced(&finder, &"1a".repeat(MATCHES_MAX)), "#a".repeat(MATCHES_MAX));
        assert_eq!(replaced(&finder, &"1a".repeat(MATCHES_MAX + 1)), "#");
        // Matches the empty text, though not at the start of it.
        assert_eq!(replaced(&Finder::pattern(r"\b|x").unwrap(), "a x"), "a x");
    }
}
