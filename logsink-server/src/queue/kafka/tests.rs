//! What needs no broker, or only librdkafka's own mock of one (`mock`); the rest is in `broker`, for `make test`, which has
//! a real one.

#[cfg(feature = "real-servers")]
mod broker;
mod mock;

use super::*;
use crate::queue::{Batch, QueueWriter};

fn batch(index: u64) -> Batch {
    let instance = format!("instance-{}", index % 16);
    Batch {
        payload: Bytes::from(format!("payload {index}")),
        records: 1,
        service: "shop".into(),
        headers: Headers { instance: Some(instance), sequence: Some(index), ..Headers::default() },
    }
}

#[tokio::test]
async fn brokers_that_are_away_are_unavailable() {
    let options = KafkaOptions { brokers: vec!["127.0.0.1:1".into()], ..KafkaOptions::default() };
    let error = KafkaWriter::connect(&options).unwrap().append(batch(0)).await.unwrap_err();
    assert!(matches!(error, QueueError::Unavailable(_)), "{error:?}");
}

#[test]
fn headers_of_others_are_passed_over() {
    let headers = Headers { instance: Some("i".into()), rules: Some("r".into()), ..Headers::default() };
    let kafka = to_kafka(&headers)
        .insert(Header { key: "traceparent", value: Some("00-1") })
        .insert(Header { key: header::SEQUENCE, value: Some("not a number") })
        .insert(Header { key: header::LOST, value: Some(b"\xff".as_slice()) });
    assert_eq!(from_kafka(Some(&kafka)), headers);
    assert_eq!(from_kafka(None::<&OwnedHeaders>), Headers::default());
}
