//! What needs no broker, or only librdkafka's own mock of one (`mock`); the rest is for `make test`, which has a real one.

#[cfg(feature = "real-servers")]
mod broker;
#[cfg(feature = "real-servers")]
mod large;
#[cfg(feature = "real-servers")]
mod letters;
mod mock;
#[cfg(feature = "real-servers")]
mod offsets;

use super::*;
use crate::{
    metrics::Metrics,
    queue::{Batch, QueueWriter},
};

fn batch(index: u64) -> Batch {
    let instance = format!("instance-{}", index % 16);
    Batch {
        payload: Bytes::from(format!("payload {index}")),
        headers: Headers { instance: Some(instance), sequence: Some(index), ..Headers::default() },
    }
}

#[tokio::test]
async fn brokers_that_are_away_are_unavailable() {
    let options = KafkaOptions { brokers: vec!["127.0.0.1:1".into()], ..KafkaOptions::default() };
    let error = KafkaWriter::connect(&options, Metrics::new()).unwrap().append(batch(0)).await.unwrap_err();
    assert!(matches!(error, QueueError::Unavailable(_)), "{error:?}");
}

#[test]
fn headers_come_back_with_those_of_others() {
    let headers = Headers {
        instance: Some("i".into()),
        sequence: Some(9),
        rules: Some("r".into()),
        first: 300,
        others: vec![("traceparent".into(), Bytes::from_static(b"00-1"))],
        ..Headers::default()
    };
    assert_eq!(from_kafka(Some(&to_kafka(&headers))), headers);
    assert_eq!(from_kafka(None::<&OwnedHeaders>), Headers::default());
    let bad = OwnedHeaders::new()
        .insert(Header { key: header::SEQUENCE, value: Some("not a number") })
        .insert(Header { key: header::FIRST, value: Some("-1") })
        .insert(Header { key: header::LOST, value: Some(b"\xff".as_slice()) });
    assert_eq!(from_kafka(Some(&bad)), Headers::default(), "ours, but not as they should be");
    let many =
        (0..10).fold(OwnedHeaders::new(), |many, _| many.insert(Header { key: "big", value: Some(&[0; 2_000]) }));
    assert_eq!(from_kafka(Some(&many)).others.len(), 4, "a bound on what is kept");
}

#[test]
fn a_trace_is_read_from_another_producers_header() {
    let trace = |value: &'static str| {
        let others = vec![("Traceparent".into(), Bytes::from_static(value.as_bytes()))];
        Headers { others, ..Headers::default() }.trace()
    };
    let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    assert_eq!(trace(good), Some((0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c, 0xb7ad_6b71_6920_3331)));
    for bad in [
        "",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    ] {
        assert_eq!(trace(bad), None, "{bad}");
    }
    assert_eq!(Headers::default().trace(), None);
}
