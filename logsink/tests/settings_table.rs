//! The guide's table of settings (`docs/settings.md`) against the settings that there are.
//!
//! The keys are asked of [`Config`] itself: what it would deserialize is walked by a deserializer that gives it nothing.

mod support {
    pub(crate) mod keys;
}

use std::collections::{BTreeMap, BTreeSet};

use logsink::Config;

const TABLE: &str = include_str!("../docs/settings.md");

/// A row of the first table.
struct Row {
    key: &'static str,
    variable: Option<&'static str>,
    builder: Option<&'static str>,
    default: &'static str,
}

/// `cell` as it is written between backticks; `None` when it is empty.
fn code(cell: &'static str) -> Option<&'static str> {
    cell.strip_prefix('`').and_then(|cell| cell.split('`').next())
}

fn rows() -> Vec<Row> {
    let table = TABLE.lines().skip_while(|line| !line.starts_with("| key |")).skip(2);
    table
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [key, variable, builder, default, effect] = cells[..] else { panic!("not five cells: {line}") };
            assert!(!effect.is_empty(), "{key} has no effect?");
            let key = code(key).unwrap_or_else(|| panic!("no key: {line}"));
            Row { key, variable: code(variable), builder: code(builder), default }
        })
        .collect()
}

#[test]
fn every_key_has_its_row_and_every_row_its_key() {
    let keys = support::keys::of::<Config>();
    assert!(keys.contains("batch.bytes_max") && keys.contains("endpoint"), "the walk works: {keys:?}");
    // A key of a further sink that is named like one of the main sink means the same.
    let keys: BTreeSet<_> =
        keys.iter().filter(|key| key.strip_prefix("sink.").is_none_or(|of| !keys.contains(of))).cloned().collect();
    let listed: Vec<_> = rows().iter().map(|row| row.key.to_owned()).collect();
    let unique: BTreeSet<_> = listed.iter().cloned().collect();
    assert_eq!(unique.len(), listed.len(), "a key twice: {listed:?}");
    let missing: Vec<_> = keys.difference(&unique).collect();
    let unknown: Vec<_> = unique.difference(&keys).collect();
    assert!(missing.is_empty(), "not in docs/settings.md: {missing:?}");
    assert!(unknown.is_empty(), "in docs/settings.md, but no key: {unknown:?}");
}

#[test]
fn every_variable_is_read_and_named_after_its_key() {
    for row in rows() {
        let Some(variable) = row.variable else { continue };
        let expected = format!("LOGSINK_{}", row.key.replace('.', "_").to_uppercase());
        assert_eq!(variable, expected, "of {}", row.key);
        // One of these is no value that it can stand for, or one that changes something.
        let read = ["7", "k=v", "on", "off", "x"].into_iter().any(|value| {
            let mut config = Config::default();
            let applied = config.apply_env(&|name| (name == variable).then(|| value.to_owned()));
            applied.is_err() || config != Config::default()
        });
        assert!(read, "{variable} is not read");
    }
}

#[test]
fn every_call_of_the_builder_is_there() {
    let source = include_str!("../src/init.rs");
    for row in rows() {
        let Some(call) = row.builder else { continue };
        let name = call.trim_start_matches('.').split('(').next().unwrap();
        assert!(source.contains(&format!("pub fn {name}(")), "{call} of {} is no call of the builder", row.key);
    }
}

#[test]
fn numbers_that_are_given_as_defaults_are_the_defaults() {
    // The debug form of the defaults, read as `key: number` pairs below their structs.
    let shown = format!("{:#?}", Config::default());
    let mut defaults = BTreeMap::new();
    let mut path: Vec<&str> = Vec::new();
    for line in shown.lines().map(str::trim).skip(1) {
        if line.starts_with(['}', ')', ']']) {
            path.pop();
        } else if let Some((key, value)) = line.split_once(": ") {
            let value = value.trim_end_matches(',');
            if value.ends_with(['{', '(', '[']) {
                path.push(key);
            } else {
                defaults.insert([&path[..], &[key]].concat().join("."), value.to_owned());
            }
        }
    }
    let mut checked = 0;
    for row in rows() {
        let number: String = row.default.chars().take_while(char::is_ascii_digit).collect();
        if number.is_empty() {
            continue;
        }
        assert_eq!(defaults.get(row.key), Some(&number), "the default of {}", row.key);
        checked += 1;
    }
    assert!(checked > 5, "only {checked} defaults were found");
}

#[test]
fn the_examples_can_be_read() {
    let examples: Vec<_> = TABLE.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(!examples.is_empty());
    for example in examples {
        Config::from_toml(example, "the example").unwrap();
    }
}
