//! How bad a line says that it is, as OTLP's severity number and a text.

use super::tree::Json;

/// By name, as the OpenTelemetry data model maps them; syslog's and those of the usual libraries.
const NAMES: [(&str, i32); 26] = [
    ("trace", 1),
    ("verbose", 1),
    ("debug", 5),
    ("d", 5),
    ("info", 9),
    ("information", 9),
    ("informational", 9),
    ("i", 9),
    ("notice", 10),
    ("warn", 13),
    ("warning", 13),
    ("w", 13),
    ("error", 17),
    ("err", 17),
    ("e", 17),
    ("severe", 17),
    ("crit", 18),
    ("critical", 18),
    ("alert", 19),
    ("fatal", 21),
    ("f", 21),
    ("emerg", 21),
    ("emergency", 21),
    ("panic", 21),
    ("t", 1),
    ("dpanic", 18),
];

/// syslog's severities, 0 to 7.
const SYSLOG: [(&str, i32); 8] = [
    ("emerg", 21),
    ("alert", 19),
    ("crit", 18),
    ("err", 17),
    ("warning", 13),
    ("notice", 10),
    ("info", 9),
    ("debug", 5),
];

/// Severity number and text; none when it is no level. In the field `name`, which for `pri` says that syslog's facility is
/// in the number too.
pub(super) fn severity(name: &str, value: &Json) -> Option<(i32, String)> {
    match value {
        Json::Text(text) => of_text(name, text.trim()),
        Json::Int(number) => of_number(name, *number),
        Json::Double(number) if number.fract() == 0.0 && number.abs() < 1e6 => of_number(name, *number as i64),
        _ => None,
    }
}

fn of_text(name: &str, text: &str) -> Option<(i32, String)> {
    if let Ok(number) = text.parse() {
        return of_number(name, number);
    }
    let (_, number) = NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(text))?;
    Some((*number, text.to_owned()))
}

fn of_number(name: &str, number: i64) -> Option<(i32, String)> {
    if name == "pri" && (0..192).contains(&number) {
        return of_number("", number & 7);
    }
    if let Some((text, severity)) = usize::try_from(number).ok().and_then(|number| SYSLOG.get(number)) {
        return Some((*severity, (*text).to_owned()));
    }
    // pino's and bunyan's.
    let (text, severity) = match number {
        10 => ("trace", 1),
        20 => ("debug", 5),
        30 => ("info", 9),
        40 => ("warn", 13),
        50 => ("error", 17),
        60 => ("fatal", 21),
        _ => return None,
    };
    Some((severity, text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_of_all_kinds() {
        for (name, value, expected) in [
            ("level", Json::Text("WARN".into()), Some((13, "WARN"))),
            ("level", Json::Text("Information".into()), Some((9, "Information"))),
            ("syslogseverity", Json::Text("3".into()), Some((17, "err"))),
            ("pri", Json::Text("13".into()), Some((10, "notice"))),
            ("pri", Json::Int(191), Some((5, "debug"))),
            ("level", Json::Int(0), Some((21, "emerg"))),
            ("level", Json::Int(30), Some((9, "info"))),
            ("level", Json::Int(13), None),
            ("level", Json::Text("loud".into()), None),
            ("level", Json::Bool(true), None),
        ] {
            let expected = expected.map(|(number, text)| (number, text.to_owned()));
            assert_eq!(severity(name, &value), expected, "{name} {value:?}");
        }
    }
}
