//! The base filter: `info,hyper=warn`, the static half of `EnvFilter`'s directive syntax.
//!
//! A directive is `level`, `target=level` or `target`; the longest target that the event's target starts with decides,
//! and among equals the later. Directives that look into spans are refused: a rule says the same with a condition.

use std::fmt;

use crate::Severity;

/// Directives in one filter: more than anyone writes by hand, few enough to scan for each undecided event.
const DIRECTIVES_MAX: usize = 256;

/// A parsed base filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseFilter {
    /// As written.
    text: String,
    /// For targets that no directive names.
    fallback: Threshold,
    /// Longest target first.
    directives: Vec<(String, Threshold)>,
}

/// The least severe level that passes; `None` is `off`.
type Threshold = Option<Severity>;

/// What is wrong with a base filter: the byte offset in its text, the problem, what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BaseError {
    pub(super) offset: usize,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl BaseFilter {
    /// Lets everything at this level and above pass.
    pub fn at(level: Severity) -> Self {
        Self { text: level.name().to_owned(), fallback: Some(level), directives: Vec::new() }
    }

    pub(super) fn parse(text: &str) -> Result<Self, BaseError> {
        let mut parsed = Self { text: text.trim().to_owned(), fallback: None, directives: Vec::new() };
        let mut offset = 0;
        let mut any = false;
        for part in text.split(',') {
            let start = offset + (part.len() - part.trim_start().len());
            offset += part.len() + 1;
            let directive = part.trim();
            if directive.is_empty() {
                continue;
            }
            any = true;
            if let Some(at) = directive.find(['[', '{']) {
                return Err(BaseError {
                    offset: start + at,
                    message: format!(
                        "the directive `{directive}` looks into spans or fields, which a base filter cannot"
                    ),
                    hint: Some(
                        "write a rule instead: then = \"keep\", when = 'target=my_crate level>=debug user=alice'"
                            .to_owned(),
                    ),
                });
            }
            match directive.split_once('=') {
                Some((target, level)) => {
                    let (target, level) = (target.trim(), level.trim());
                    let level_at = start + directive.find('=').unwrap_or(0) + 1;
                    if target.is_empty() {
                        return Err(BaseError {
                            offset: start,
                            message: format!("the directive `{directive}` names no target"),
                            hint: Some("write a level alone (`info`) or `target=level`".to_owned()),
                        });
                    }
                    parsed.set(target, threshold(level).ok_or_else(|| unknown_level(level, level_at))?);
                }
                None => match threshold(directive) {
                    Some(level) => parsed.fallback = level,
                    None if is_target(directive) => match near_level(directive) {
                        Some(_) => return Err(unknown_level(directive, start)),
                        None => parsed.set(directive, Some(Severity::TRACE)),
                    },
                    None => {
                        return Err(BaseError {
                            offset: start,
                            message: format!("`{directive}` is neither a level nor a target"),
                            hint: Some("write directives like `info,hyper=warn`".to_owned()),
                        });
                    }
                },
            }
            if parsed.directives.len() > DIRECTIVES_MAX {
                return Err(BaseError {
                    offset: start,
                    message: format!("a base filter takes at most {DIRECTIVES_MAX} directives"),
                    hint: None,
                });
            }
        }
        if !any {
            return Err(BaseError {
                offset: 0,
                message: "the base filter is empty".to_owned(),
                hint: Some("write a level such as `info`, or `off`".to_owned()),
            });
        }
        Ok(parsed)
    }

    fn set(&mut self, target: &str, level: Threshold) {
        self.directives.retain(|(known, _)| known != target);
        let at = self.directives.partition_point(|(known, _)| known.len() >= target.len());
        self.directives.insert(at, (target.to_owned(), level));
    }

    /// Whether an event of this target and severity passes. One without a severity passes unless its target is `off`.
    pub fn wants(&self, target: &str, severity: Severity) -> bool {
        let decided = self.directives.iter().find(|(prefix, _)| target.starts_with(prefix.as_str()));
        let threshold = decided.map_or(self.fallback, |(_, threshold)| *threshold);
        threshold.is_some_and(|least| severity >= least || severity == Severity::UNSPECIFIED)
    }

    /// The least severe level that passes for any target; none when everything is `off`.
    pub(crate) fn least(&self) -> Threshold {
        self.directives.iter().map(|(_, level)| *level).chain([self.fallback]).flatten().min()
    }

    /// `Some` when the answer for this severity is the same whatever the target.
    pub(in crate::filter) fn wants_any_target(&self, severity: Severity) -> Option<bool> {
        let passes = |threshold: Threshold| threshold.is_some_and(|least| severity >= least);
        let first = passes(self.fallback);
        self.directives.iter().all(|(_, level)| passes(*level) == first).then_some(first)
    }
}

impl fmt::Display for BaseFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// `None` when the text is no level; `Some(None)` for `off`.
fn threshold(text: &str) -> Option<Threshold> {
    if text.eq_ignore_ascii_case("off") {
        return Some(None);
    }
    // EnvFilter knows five levels; `fatal` is OTLP's, and harmless here.
    text.parse().ok().map(Some)
}

fn is_target(text: &str) -> bool {
    text.chars().all(|c| c.is_alphanumeric() || "_-:./@$".contains(c))
}

const LEVELS: [&str; 8] = ["trace", "debug", "info", "warn", "warning", "error", "fatal", "off"];

fn near_level(text: &str) -> Option<&'static str> {
    crate::filter::expr::nearest(text, &LEVELS)
}

fn unknown_level(text: &str, offset: usize) -> BaseError {
    BaseError {
        offset,
        message: format!("unknown level `{text}`"),
        hint: Some(match near_level(text) {
            Some(level) => format!("did you mean `{level}`?"),
            None => "write off, error, warn, info, debug or trace".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_target_decides() {
        let filter = BaseFilter::parse("info, hyper=warn,hyper::client=trace,h2=off,mine").unwrap();
        for (target, severity, wanted) in [
            ("app", Severity::INFO, true),
            ("app", Severity::DEBUG, false),
            ("hyper", Severity::INFO, false),
            ("hyper::server", Severity::WARN, true),
            ("hyper::client::pool", Severity::TRACE, true),
            ("h2::codec", Severity::FATAL, false),
            ("mine", Severity::TRACE, true),
            ("app", Severity::UNSPECIFIED, true),
            ("h2", Severity::UNSPECIFIED, false),
        ] {
            assert_eq!(filter.wants(target, severity), wanted, "{target} {severity}");
        }
        assert_eq!(filter.least(), Some(Severity::TRACE));
        assert_eq!(BaseFilter::parse("off").unwrap().least(), None);
        assert_eq!(BaseFilter::parse("warn,a=info").unwrap().wants_any_target(Severity::ERROR), Some(true));
        assert_eq!(BaseFilter::parse("warn,a=info").unwrap().wants_any_target(Severity::INFO), None);
    }

    #[test]
    fn agrees_with_the_targets_filter_of_tracing_subscriber() {
        for text in
            ["info", "info,hyper=warn", "hyper=warn", "a=off,a::b=trace,error", "a,ab=error,info", "debug,debug"]
        {
            let ours = BaseFilter::parse(text).unwrap();
            let theirs: tracing_subscriber::filter::Targets = text.parse().unwrap();
            for target in ["a", "ab", "a::b", "a::b::c", "hyper", "hyper::x", "z", ""] {
                for level in [
                    tracing_core::Level::TRACE,
                    tracing_core::Level::DEBUG,
                    tracing_core::Level::INFO,
                    tracing_core::Level::WARN,
                    tracing_core::Level::ERROR,
                ] {
                    let expected = theirs.would_enable(target, &level);
                    assert_eq!(ours.wants(target, Severity::from(&level)), expected, "{text}: {target} {level}");
                }
            }
        }
    }

    #[test]
    fn refuses_with_a_place_and_a_hint() {
        for (text, offset, message, hint) in [
            ("info,hyper=wran", 11, "unknown level `wran`", "did you mean `warn`?"),
            ("inof", 0, "unknown level `inof`", "did you mean `info`?"),
            ("info,app[span]=debug", 8, "looks into spans", "write a rule instead"),
            ("info,{user=1}=debug", 5, "looks into spans", "write a rule instead"),
            ("=info", 0, "names no target", "level alone"),
            (" , ", 0, "empty", "info"),
            ("two words", 0, "neither a level nor a target", "info,hyper=warn"),
        ] {
            let error = BaseFilter::parse(text).unwrap_err();
            assert_eq!(error.offset, offset, "{text}");
            assert!(error.message.contains(message), "{text}: {}", error.message);
            assert!(error.hint.as_deref().unwrap_or_default().contains(hint), "{text}: {:?}", error.hint);
        }
    }
}
