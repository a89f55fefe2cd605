use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{AnyValue, any_value},
    logs::v1::LogRecord,
};
use proptest::prelude::*;
use prost::Message;

use super::*;

fn frame(record: &LogRecord) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_field(&mut bytes, 2, &record.encode_to_vec());
    bytes
}

fn record(number: u64, bytes: usize) -> Vec<u8> {
    let text = any_value::Value::StringValue("x".repeat(bytes));
    frame(&LogRecord { time_unix_nano: number, body: Some(AnyValue { value: Some(text) }), ..LogRecord::default() })
}

fn envelope() -> Arc<Envelope> {
    Arc::new(Envelope::new(&[
        ("service.name".to_owned(), Attribute::Text("checkout".to_owned())),
        ("process.pid".to_owned(), Attribute::Int(42)),
    ]))
}

fn batcher(bytes_max: usize, records_max: u32) -> Batcher {
    let limits = Limits { bytes_max, records_max, age_max: Duration::from_millis(200) };
    Batcher::new(limits, envelope(), Instant::now())
}

/// The records' numbers, read by the official types.
fn numbers(sealed: &Sealed) -> Vec<u64> {
    let request = ExportLogsServiceRequest::decode(sealed.payload.clone()).unwrap();
    let [resource_logs] = &request.resource_logs[..] else { panic!("one resource") };
    let [scope_logs] = &resource_logs.scope_logs[..] else { panic!("one scope") };
    let attributes = &resource_logs.resource.as_ref().unwrap().attributes;
    assert_eq!(attributes[0].key, "service.name");
    assert_eq!(attributes[1].value.as_ref().unwrap().value, Some(any_value::Value::IntValue(42)));
    assert_eq!(scope_logs.scope.as_ref().unwrap().name, "logsink");
    assert_eq!(scope_logs.log_records.len(), sealed.records as usize);
    scope_logs.log_records.iter().map(|record| record.time_unix_nano).collect()
}

proptest! {
    /// However the records lie in runs: none is lost, doubled or moved, and no batch is above a bound.
    #[test]
    fn every_record_is_in_one_batch_in_order(
        runs in prop::collection::vec(prop::collection::vec(0usize..300, 0..20), 0..20),
        bytes_max in 200usize..2000,
        records_max in 1u32..30,
    ) {
        let mut batcher = batcher(bytes_max, records_max);
        let mut sealed = Vec::new();
        let mut count = 0;
        for run in &runs {
            let mut bytes = Vec::new();
            for size in run {
                bytes.extend(record(count, *size));
                count += 1;
            }
            batcher.push(&bytes, Instant::now(), &mut |batch| sealed.push(batch));
        }
        sealed.extend(batcher.seal());
        for batch in &sealed {
            prop_assert!(batch.records <= records_max);
            prop_assert!(batch.payload.len() <= bytes_max || batch.records == 1);
        }
        prop_assert_eq!(sealed.iter().flat_map(numbers).collect::<Vec<_>>(), (0..count).collect::<Vec<_>>());
    }

    #[test]
    fn halves_together_are_the_whole(sizes in prop::collection::vec(0usize..300, 2..40)) {
        let mut batcher = batcher(1 << 20, 8192);
        let run: Vec<u8> = sizes.iter().enumerate().flat_map(|(index, size)| record(index as u64, *size)).collect();
        batcher.push(&run, Instant::now(), &mut |_| panic!("nothing is full"));
        let whole = batcher.seal().unwrap();
        let (first, second) = whole.split(&envelope()).unwrap();
        prop_assert!(first.records.abs_diff(second.records) <= 1);
        prop_assert_eq!([numbers(&first), numbers(&second)].concat(), numbers(&whole));
    }
}

#[test]
fn a_single_record_is_not_split() {
    let mut batcher = batcher(100, 10);
    batcher.push(&record(1, 500), Instant::now(), &mut |_| panic!("nothing is full"));
    let sealed = batcher.seal().unwrap();
    assert_eq!(numbers(&sealed), [1]);
    assert!(sealed.split(&envelope()).is_none());
}

#[test]
fn a_batch_is_due_when_its_oldest_record_is_old_enough() {
    let mut batcher = batcher(1 << 20, 10);
    let start = Instant::now();
    let later = start + Duration::from_millis(200);
    assert!(batcher.due(later).is_none(), "empty");
    batcher.push(&record(1, 5), start + Duration::from_millis(1), &mut |_| {});
    batcher.push(&record(2, 5), later, &mut |_| {});
    assert!(batcher.due(later).is_none());
    assert_eq!(numbers(&batcher.due(later + Duration::from_millis(1)).unwrap()), [1, 2]);
    assert!(batcher.seal().is_none());
}
