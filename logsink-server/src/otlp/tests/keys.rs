//! Keys with numbers are the keys that stand there, however they came to be known.

use super::*;

/// Scans and returns how many records had numbers for their keys; those numbers are checked.
fn numbered(payload: &[u8], vocabulary: &mut Vocabulary) -> usize {
    let mut numbered = 0;
    let scanned = scan_lists(payload, Some(vocabulary), &mut |_, attributes, ids, vocabulary| {
        let Some(vocabulary) = vocabulary else { return };
        numbered += 1;
        let texts: Vec<&str> = vocabulary.texts().collect();
        assert_eq!(texts.len(), vocabulary.count());
        let read: Vec<&str> = ids.iter().map(|id| texts[id.index()]).collect();
        assert_eq!(read, attributes.iter().map(|(key, _)| *key).collect::<Vec<_>>());
        let mut ids: Vec<usize> = ids.iter().map(|id| id.index()).collect();
        ids.sort_unstable();
        assert!(ids.windows(2).all(|two| two[0] < two[1]) && !ids.contains(&0), "{read:?}");
    });
    scanned.unwrap();
    numbered
}

fn request_of(records: &[Vec<&str>]) -> Vec<u8> {
    let value = Some(AnyValue { value: Some(any_value::Value::IntValue(300)) });
    let record = |keys: &Vec<&str>| LogRecord {
        attributes: key_values(keys.iter().map(|key| ((*key).to_owned(), value.clone())).collect()),
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        ..LogRecord::default()
    };
    let log_records = records.iter().map(record).collect();
    let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
    ExportLogsServiceRequest { resource_logs: vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }] }
        .encode_to_vec()
}

#[test]
fn keys_in_any_order_keep_their_numbers() {
    let records =
        [vec!["a", "b", "c"], vec!["a", "b", "c"], vec!["c", "a"], vec![], vec!["b", "d", "a", "c"], vec!["a"]];
    let payload = request_of(&records);
    let mut vocabulary = Vocabulary::default();
    for _ in 0..3 {
        assert_eq!(numbered(&payload, &mut vocabulary), records.len());
        assert_eq!((vocabulary.count(), vocabulary.era()), (1 + 4, 1));
    }
}

#[test]
fn keys_that_stand_twice_or_are_long_have_no_numbers() {
    let long = "l".repeat(128);
    let records = [vec!["a", "b", "a"], vec!["a", "b"], vec!["a", "a"], vec![&*long], vec!["a", &long[1..]], vec!["b"]];
    let payload = request_of(&records);
    let mut vocabulary = Vocabulary::default();
    for _ in 0..2 {
        assert_eq!(numbered(&payload, &mut vocabulary), 3);
    }
}

#[test]
fn keys_made_to_share_their_places_are_read_all_the_same() {
    // Alike in length, beginning and end.
    let keys: Vec<String> = (0..100).map(|n| format!("beginning.{n:04}.the.end")).collect();
    let records: Vec<Vec<&str>> = keys.iter().map(|key| vec![key.as_str()]).collect();
    let payload = request_of(&records);
    let mut vocabulary = Vocabulary::default();
    for _ in 0..2 {
        assert_eq!(numbered(&payload, &mut vocabulary), 8);
    }
    assert_eq!((vocabulary.count(), vocabulary.era()), (1 + 8, 1));
}

#[test]
fn more_keys_than_there_is_room_for_are_forgotten_and_met_again() {
    let keys: Vec<String> = (0..3_000).map(|n| format!("key.{n}")).collect();
    let records: Vec<Vec<&str>> = keys.chunks(7).map(|keys| keys.iter().map(String::as_str).collect()).collect();
    let payload = request_of(&records);
    let mut vocabulary = Vocabulary::default();
    for era in 1..=3 {
        // Once a request: as many as there is room for, of seven a record, but for those that found no place.
        let of = numbered(&payload, &mut vocabulary);
        assert!((100..=1_024 / 7).contains(&of), "{of} of {}", records.len());
        assert!(vocabulary.count() <= 1_025);
        assert_eq!(vocabulary.era(), era);
    }
    // The next request's keys are not those of the one before.
    assert_eq!(numbered(&request_of(&[vec!["other"], vec!["other"]]), &mut vocabulary), 2);
}
