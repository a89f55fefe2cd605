//! Names of fields as rules write them: `user.email`, `*token*`.
//!
//! A name covers the field of that name and all that lies below it (`user` covers `user.email`). `*` stands for any text, dots
//! included. Letters of A to Z are the same in either case, so that `Password` is no way round `password`. What a `*` covers
//! leaves `target` out, by which events are found and judged: it has to be named.

/// Names in one list: more than anyone writes by hand, few enough to compare each field with.
pub(super) const NAMES_MAX: usize = 256;
/// The longest name: far above what anyone calls a field, and a bound for the time a comparison takes.
pub(super) const NAME_BYTES_MAX: usize = 256;

/// The name by which rules speak of an event's body.
pub const MESSAGE: &str = "message";

/// Some names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names(Vec<Name>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Name {
    text: String,
    glob: bool,
}

impl Names {
    /// No names.
    pub const NONE: Self = Self(Vec::new());

    /// The names as written.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self(names.into_iter().map(|text| Name { glob: text.contains('*'), text }).collect())
    }

    /// Whether these are names of fields that may be changed or left out.
    ///
    /// # Errors
    /// Which is not, and why.
    pub fn check(&self) -> Result<(), String> {
        if self.0.len() > NAMES_MAX {
            return Err(format!("{} fields are named, more than {NAMES_MAX}", self.0.len()));
        }
        for Name { text, .. } in &self.0 {
            match text.as_str() {
                "" => return Err("the name of a field is empty".to_owned()),
                // They are what the event is found, routed and compared by.
                "level" | "service" | "trace_id" | "span_id" => {
                    return Err(format!("`{text}` cannot be redacted, cut or left out"));
                }
                long if long.len() > NAME_BYTES_MAX => {
                    return Err(format!(
                        "the name of a field has {} bytes, more than {NAME_BYTES_MAX} bytes",
                        long.len()
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether the field at this dotted path is named, or lies below one that is.
    pub fn cover(&self, path: &str) -> bool {
        self.0.iter().any(|name| name.covers(path))
    }

    /// Whether a field below the map at this path may be covered. Not asked where the map itself is.
    pub fn reach_below(&self, path: &str) -> bool {
        let reaches = |text: &str| {
            text.as_bytes().get(path.len()) == Some(&b'.')
                && text.as_bytes()[..path.len()].eq_ignore_ascii_case(path.as_bytes())
        };
        self.0.iter().any(|name| name.glob || reaches(&name.text))
    }

    /// The names as written.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|name| &*name.text)
    }
}

impl Name {
    fn covers(&self, path: &str) -> bool {
        let (path, name) = (path.as_bytes(), self.text.as_bytes());
        if !self.glob {
            return path.split_at_checked(name.len()).is_some_and(|(start, rest)| {
                matches!(rest.first(), None | Some(b'.')) && start.eq_ignore_ascii_case(name)
            });
        }
        if path == b"target" {
            return false;
        }
        // The path itself, or one that it lies below.
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'.').map(|(at, _)| at);
        ends.chain([path.len()]).any(|end| matches(name, &path[..end]))
    }
}

/// Whether the pattern stands for the whole text. Without recursion: a `*` that has taken too little takes one byte more, and
/// only the last one ever has to.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut read) = (0, 0);
    // Behind the last `*`, and where in the text it ends.
    let mut star: Option<(usize, usize)> = None;
    while read < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                at += 1;
                star = Some((at, read));
            }
            Some(byte) if byte.eq_ignore_ascii_case(&text[read]) => {
                at += 1;
                read += 1;
            }
            _ => {
                let Some((behind, end)) = &mut star else { return false };
                *end += 1;
                (at, read) = (*behind, *end);
            }
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_cover_what_they_name_and_all_below() {
        for (name, covered, others) in [
            ("user", &["user", "user.email", "USER", "User.Email.x"][..], &["username", "a.user", "use", ""][..]),
            ("user.email", &["user.email", "user.email.domain"], &["user", "user.emails"]),
            ("*token*", &["token", "api_token", "Tokens", "auth.token.id", "auth.token"], &["tok", "target"]),
            ("*_token", &["a_token", "a_token.value", "x.a_token"], &["a_tokens", "token"]),
            ("http.*.secret", &["http.a.secret", "http.a.b.secret", "http.a.secret.x"], &["http.secret", "http.a"]),
            ("http.*", &["http.a", "http.a.b"], &["http", "https.a"]),
            ("*", &["a", "message", "a.b"], &["target"]),
            ("a**b", &["ab", "axb"], &["a", "ba"]),
            ("target", &["target"], &["targets"]),
            ("*ž*", &["kůžž", "ž"], &["z"]),
        ] {
            let names = Names::new([name.to_owned()]);
            for path in covered {
                assert!(names.cover(path), "{name} covers {path}");
            }
            for path in others {
                assert!(!names.cover(path), "{name} does not cover {path}");
            }
        }
        let names = Names::new(["user.email".to_owned(), "x".to_owned()]);
        assert!(names.reach_below("user") && names.reach_below("USER"));
        assert!(!names.reach_below("x") && !names.reach_below("use") && !names.reach_below("user.email"));
        assert!(Names::new(["*x".to_owned()]).reach_below("anything"));
    }

    proptest! {
        #[test]
        fn a_glob_agrees_with_a_regular_expression(pattern in "[ab*.]{0,8}", text in "[ab.]{0,10}") {
            let parts: Vec<_> = pattern.split('*').map(regex::escape).collect();
            let regex = regex::Regex::new(&format!("^(?s:{})$", parts.join(".*"))).unwrap();
            prop_assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), regex.is_match(&text));
        }
    }
}
