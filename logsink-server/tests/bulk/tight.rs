//! A server of its own with hardly any room: it refuses what is too much for now, and what is too large.

use std::{path::PathBuf, process::Command};

use super::*;

/// A stack of its own, stopped at the end.
struct Tight {
    url: String,
    dir: tempfile::TempDir,
}

impl Tight {
    fn start() -> Self {
        let free = || std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).unwrap().port();
        let (port, peer) = (free(), free());
        let tight = Self { url: format!("http://127.0.0.1:{port}"), dir: tempfile::tempdir().unwrap() };
        // Half a megabyte of writes at a time, two of them waiting, and requests of 300 KB.
        let settings = "indexing_pressure.memory.limit: 512kb\nthread_pool.write.size: 1\n\
                        thread_pool.write.queue_size: 2\nhttp.max_content_length: 300kb\naction.auto_create_index: false";
        let ports = [("ELASTICSEARCH_PORT", port.to_string()), ("ELASTICSEARCH_PEER_PORT", peer.to_string())];
        tight.stack("start", ports.into_iter().chain([("ELASTICSEARCH_EXTRA", settings.to_owned())]));
        tight
    }

    fn stack(&self, verb: &str, environment: impl IntoIterator<Item = (&'static str, String)>) {
        let script = std::env::var_os("LOGSINK_TEST_STACK")
            .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../dev/stack/stack")), PathBuf::from);
        // The servers of the other tests are installed where this one is.
        let home = std::env::var_os("STACK_HOME").map_or_else(
            || PathBuf::from(std::env::var_os("HOME").expect("$HOME is set")).join(".cache/logsink-stack"),
            PathBuf::from,
        );
        let mut command = Command::new(script);
        command.args([verb, "elasticsearch"]).env("STACK_HOME", home).env("STACK_WORK", self.dir.path());
        command.env("ELASTICSEARCH_HEAP", "384m").envs(environment);
        let output = command.output().expect("the stack's script runs");
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}");
    }
}

impl Drop for Tight {
    fn drop(&mut self) {
        self.stack("stop", []);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_hardly_any_room_gets_everything_in_pieces() {
    let tight = Tight::start();

    // 413: requests are halved, and the next ones are no larger.
    let large = story_with(options(&tight.url), &tight.url);
    let written = large.write(vec![message(1, 3_000, 300)]).await;
    assert_eq!((written.stored, written.dead, large.stored().await), (3_000, 0, 3_000));
    let refused = large.retries("too_large");
    assert!(refused >= 1, "{}", large.metrics.encode());
    let written = large.write(vec![message(2, 3_000, 300)]).await;
    assert_eq!((written.stored, large.stored().await), (3_000, 6_000));
    assert_eq!(large.retries("too_large"), refused, "the ceiling is remembered");
    // One event alone that is too large is a dead letter.
    let written = large.write(vec![message(3, 1, 400_000), message(4, 2, 20)]).await;
    assert_eq!((written.stored, written.dead), (2, 1));
    assert!(large.buried.0.lock().unwrap()[0].3.starts_with("too_large: 413"), "{:?}", large.buried.0.lock().unwrap());

    // 429: many at a time find no room; each is stored once in the end.
    let busy = story_with(ElasticsearchOptions { shards: Some(8), ..options(&tight.url) }, &tight.url);
    busy.write(vec![message(0, 1, 20)]).await;
    let writes: Vec<_> = (1..=12).map(|offset| busy.writing(vec![message(offset, 400, 300)])).collect();
    let mut stored = 0;
    for write in writes {
        let written = write.await.unwrap();
        assert_eq!(written.dead, 0);
        stored += written.stored;
    }
    assert_eq!((stored, busy.stored().await), (4_800, 4_801));
    assert!(busy.retries("http_429") >= 1, "{}", busy.metrics.encode());
    assert_eq!(busy.metrics.index_duplicates.get(), 0, "what was stored is not sent again");

    // 404: nobody makes the data stream, until somebody does.
    let missing = story_with(ElasticsearchOptions { setup: false, ..options(&tight.url) }, &tight.url);
    let writing = missing.writing(vec![message(1, 4, 20)]);
    missing.until_unready("index_not_found_exception").await;
    assert!(!writing.is_finished());
    let path = format!("/{}", missing.data_stream);
    assert_eq!(missing.call("PUT", &path, Some(json!({}))).await.0, 200);
    assert_eq!((writing.await.unwrap().stored, missing.stored().await), (4, 4));
    // A closed index.
    assert_eq!(missing.call("POST", &format!("{path}/_close"), None).await.0, 200);
    let writing = missing.writing(vec![message(2, 4, 20)]);
    missing.until_unready("index_closed_exception").await;
    assert_eq!(missing.call("POST", &format!("{path}/_open"), None).await.0, 200);
    assert_eq!((writing.await.unwrap().stored, missing.stored().await), (4, 8));
}
