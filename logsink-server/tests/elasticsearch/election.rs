//! Who looks after old indices: one of several real processes, elected in a real etcd, and another when that one is killed.

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use etcd_client::{Client, GetOptions, SortOrder, SortTarget};
use logsink_server::{
    config::LayoutChoice,
    index::{IndexWriter, elasticsearch::ElasticsearchOptions},
};

use super::{
    indices::{DAY_NS, batch, names, now_ns},
    options, server_with, url,
};

/// The lease of a process that is gone ends after 15 s.
const PATIENCE: Duration = Duration::from_secs(90);

struct Process {
    child: Child,
    _dir: tempfile::TempDir,
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(stream: &str, etcd: &str) -> Process {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("server.toml");
    // Without Kafka: it is away, as it may be when a server starts.
    let text = format!(
        "roles = ['drain']\nlog = 'info,logsink_server::kafka=off'\ndata_dir = '{}'\n[listen]\ngrpc = '127.0.0.1:0'\nhttp = '127.0.0.1:0'\n\
         [kafka]\nbrokers = ['127.0.0.1:9']\n[etcd]\nendpoints = ['{etcd}']\nfleet = 'shop'\n\
         [elasticsearch]\nurls = ['{}']\ndata_stream = '{stream}'\nlayout = 'daily'\nreplicas = 0\n\
         [elasticsearch.retention]\nby = 'logsink'\nage = '2d'\nevery = '1s'\n",
        dir.path().display(),
        url(),
    );
    std::fs::write(&config, text).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_logsink-server"))
        .arg("--config")
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    Process { child, _dir: dir }
}

/// The process in office: the oldest key of the election.
async fn holder(etcd: &mut Client, stream: &str) -> Option<u32> {
    let options = GetOptions::new().with_prefix().with_sort(SortTarget::Create, SortOrder::Ascend).with_limit(1);
    let answer = etcd.get(format!("/logsink/retention/{stream}@shop/"), Some(options)).await.unwrap();
    let value = answer.kvs().first()?.value_str().unwrap().to_owned();
    value.rsplit_once(':')?.1.parse().ok()
}

async fn until_removed(name: &str, what: &str) {
    let start = Instant::now();
    // Today's stays.
    while names(&format!("{name}-*")).await.len() > 1 {
        assert!(start.elapsed() < PATIENCE, "{what} was not removed");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn one_is_elected_and_another_when_it_is_killed() {
    let endpoint = std::env::var("ETCD_ENDPOINTS").expect("ETCD_ENDPOINTS names an etcd");
    let endpoint = endpoint.split(',').next().unwrap();
    let mut etcd = Client::connect([endpoint], None).await.unwrap();
    let options = ElasticsearchOptions { layout: LayoutChoice::Daily, ..options() };
    let name = options.data_stream.clone();
    let server = server_with(options);
    // Each write makes today's index and one of four days ago, in messages that came three days ago.
    let then = now_ns() - 3 * DAY_NS;
    let write = async |sequence: u64| {
        let messages =
            [batch(sequence, 1, "shop", then - DAY_NS, then), batch(sequence + 1, 1, "shop", now_ns(), now_ns())];
        server.index.write(&messages).await.unwrap();
    };
    write(1).await;
    let mut processes = [start(&name, endpoint), start(&name, endpoint)];
    until_removed(&name, "the first old day").await;
    let first = holder(&mut etcd, &name).await.expect("one is elected");
    let killed = processes.iter_mut().find(|process| process.child.id() == first).expect("it is one of ours");
    killed.child.kill().unwrap();
    killed.child.wait().unwrap();
    write(3).await;
    until_removed(&name, "what came after the death of the holder").await;
    let second = holder(&mut etcd, &name).await.expect("the other is elected");
    assert!(second != first && processes.iter().any(|process| process.child.id() == second));
    // One that ends in order gives up its office before its lease ends.
    assert!(Command::new("kill").args(["-TERM", &second.to_string()]).status().unwrap().success());
    let stopped = processes.iter_mut().find(|process| process.child.id() == second).unwrap();
    assert!(stopped.child.wait().unwrap().success());
    assert_eq!(holder(&mut etcd, &name).await, None);
}
