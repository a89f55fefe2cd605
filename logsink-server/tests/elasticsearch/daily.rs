//! An index for each day.

use logsink_server::{
    config::LayoutChoice,
    index::{IndexWriter, elasticsearch::ElasticsearchOptions},
};

use super::{
    indices::{DAY_NS, batch, count, get, names, now_ns},
    options, server_with,
};

#[tokio::test]
async fn an_event_goes_to_the_index_of_its_day_however_often() {
    let options = ElasticsearchOptions { layout: LayoutChoice::Daily, ..options() };
    let name = options.data_stream.clone();
    let today = now_ns() / DAY_NS * DAY_NS + DAY_NS / 2;
    // The last ends on the next day.
    let messages = [
        batch(1, 10, "shop", today, now_ns()),
        batch(2, 20, "shop", today - 3 * DAY_NS, now_ns()),
        batch(3, 2, "shop", today + DAY_NS / 2 - 1, now_ns()),
    ];
    let server = server_with(options.clone());
    assert_eq!(server.index.write(&messages).await.unwrap().stored, 32);
    assert_eq!(names(&format!("{name}-*")).await.len(), 3);
    // By another process on another day, as far as the queue's time goes.
    let again = server_with(options);
    assert_eq!(again.index.write(&messages).await.unwrap().stored, 32);
    assert_eq!(again.metrics.index_duplicates.get(), 32);
    assert_eq!(count(&format!("{name}-*")).await, 32);
    again.until_found(32).await;
    let three_days_ago = names(&format!("{name}-*")).await.into_iter().min().unwrap();
    assert_eq!(count(&three_days_ago).await, 20);
    let mapping = get(&format!("/{three_days_ago}/_mapping")).await;
    assert_eq!(mapping[&three_days_ago]["mappings"]["_meta"]["managed_by"], "logsink", "made from the template");
}

#[tokio::test]
async fn far_times_make_one_index_together() {
    let options = ElasticsearchOptions { layout: LayoutChoice::Daily, ..options() };
    let name = options.data_stream.clone();
    let server = server_with(options);
    // From 1970 to 2262, without the weeks around now; one without a time would have the queue's.
    let is_far = |time: &u64| time.abs_diff(now_ns()) > 60 * DAY_NS;
    let times: Vec<u64> = (1..210).map(|n| n * 500 * DAY_NS).filter(is_far).chain([1, u64::MAX]).take(200).collect();
    let messages: Vec<_> = times.iter().zip(0..).map(|(&time, n)| batch(n, 1, "shop", time, now_ns())).collect();
    assert_eq!(server.index.write(&messages).await.unwrap().stored, 200);
    assert_eq!(*server.buried.0.lock().unwrap(), []);
    assert_eq!(names(&format!("{name}-*")).await, [format!("{name}-outside")]);
    assert_eq!(count(&format!("{name}-outside")).await, 200);
    assert_eq!(server.index.write(&messages).await.unwrap().stored, 200);
    assert_eq!(server.metrics.index_duplicates.get(), 200);
}
