//! What takes minutes: drains that come, go and stand still under load, and the memory of one whose index is away. `make faults`
//! runs it; `make test` does not. One story at a time: the machine is theirs.

#[path = "numbers.rs"]
mod numbers;

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use logsink_tests::{
    Load, Server, http,
    load::{self, request},
    server::Space,
    stack::{alone, control, elasticsearch, elasticsearch2},
    unique, until,
};
use prost::Message as _;

const PATIENCE: Duration = Duration::from_secs(240);
/// How long a group waits for a member that says nothing (`session.timeout.ms`).
const SESSION: Duration = Duration::from_secs(10);

fn drains(dir: &Path, space: &Space, count: usize) -> Vec<Server> {
    (0..count).map(|index| Server::cluster(dir, &format!("drain-{index}"), &["drain"], space)).collect()
}

/// The partitions that a drain has.
fn partitions(drain: &Server) -> BTreeSet<u32> {
    let Ok(answer) = http::get(&drain.http_url("/metrics")) else { return BTreeSet::new() };
    let number =
        |line: &str| line.strip_prefix("logsink_drain_lag_records{partition=\"")?.split('"').next()?.parse().ok();
    answer.body.lines().filter_map(number).collect()
}

fn await_indexed(space: &Space, count: u64) {
    // Elasticsearch counts by itself, so that the pages are read once.
    let url = format!("{}/{}/_count", elasticsearch(), space.data_stream);
    until("all is indexed", PATIENCE, || {
        let answer = http::get(&url)?;
        let indexed = serde_json::from_str::<serde_json::Value>(&answer.body).map_err(|error| error.to_string())?;
        if indexed["count"].as_u64() >= Some(count) { Ok(()) } else { Err(answer.body) }
    });
    // Each copy of a shard shows new documents when it refreshes, and another one may answer the next search.
    let refreshed = http::post(&url.replace("_count", "_refresh"), "application/json", Vec::new());
    assert_eq!(refreshed.expect("Elasticsearch refreshes").status, 200);
}

/// When each partition was last seen with an owner, and the longest time that one was without.
struct Owners {
    seen: BTreeMap<u32, Instant>,
    longest: Duration,
}

impl Owners {
    fn new(space: &Space) -> Self {
        Self {
            seen: (0..space.partitions).map(|partition| (partition, Instant::now())).collect(),
            longest: Duration::ZERO,
        }
    }

    fn look<'d>(&mut self, drains: impl Iterator<Item = &'d Server>) {
        let owned: BTreeSet<u32> = drains.flat_map(partitions).collect();
        let now = Instant::now();
        for (partition, seen) in &mut self.seen {
            self.longest = self.longest.max(now.duration_since(*seen));
            if owned.contains(partition) {
                *seen = now;
            }
        }
    }
}

#[test]
fn three_drains_are_restarted_in_turn_under_load_and_nothing_is_lost_or_doubled() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let space = Space::new("rolling").partitions(12);
    let mut drains = drains(dir.path(), &space, 3);
    let query = Server::cluster(dir.path(), "query", &["query"], &space);
    let all = |drains: &[Server]| drains.iter().flat_map(partitions).collect::<BTreeSet<_>>().len() as u32;
    until("all partitions have owners", PATIENCE, || if all(&drains) == 12 { Ok(()) } else { Err(String::new()) });
    let service = unique("steady");
    let load = Load::start(&space, &service, 5, Duration::from_millis(100));
    let mut owners = Owners::new(&space);
    let started = Instant::now();
    for round in 0..2 {
        for index in 0..3 {
            let before = load.sent();
            assert!(drains[index].stop().success(), "round {round}, drain {index}");
            owners.look(drains.iter().enumerate().filter(|(other, _)| *other != index).map(|(_, drain)| drain));
            drains[index].relaunch();
            until("it has partitions again", PATIENCE, || {
                owners.look(drains.iter());
                if partitions(&drains[index]).is_empty() { Err(String::new()) } else { Ok(()) }
            });
            assert!(load.sent() > before, "under load");
        }
    }
    until("every partition has an owner", PATIENCE, || {
        owners.look(drains.iter());
        if all(&drains) == 12 { Ok(()) } else { Err(String::new()) }
    });
    let sent = load.finish();
    eprintln!(
        "{sent} events in {:?}; a partition was without an owner for {:?} at most",
        started.elapsed(),
        owners.longest
    );
    assert!(owners.longest < SESSION, "{:?}", owners.longest);
    await_indexed(&space, sent);
    numbers::exactly_once(&query.query(&format!("service={service}")), sent);
}

#[test]
fn one_two_and_four_drains_share_twelve_partitions_and_index_each_event_once() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let space = Space::new("share").partitions(12);
    let query = Server::cluster(dir.path(), "query", &["query"], &space);
    let mut drains = Vec::new();
    let service = unique("steady");
    let mut load = None;
    for count in [1, 2, 4] {
        while drains.len() < count {
            let name = format!("drain-{}", drains.len());
            drains.push(Server::cluster(dir.path(), &name, &["drain"], &space));
        }
        load.get_or_insert_with(|| Load::start(&space, &service, 5, Duration::from_millis(100)));
        until(&format!("{count} drains share"), PATIENCE, || {
            let shares: Vec<_> = drains.iter().map(partitions).collect();
            let all: BTreeSet<_> = shares.iter().flatten().collect();
            let is_fair = shares.iter().all(|share| share.len() == 12 / count) && all.len() == 12;
            if is_fair { Ok(()) } else { Err(format!("{shares:?}")) }
        });
        let before: Vec<_> = drains.iter().map(|drain| drain.counter("logsink_drain_records_total")).collect();
        until("each of them indexes", PATIENCE, || {
            let now = drains.iter().map(|drain| drain.counter("logsink_drain_records_total"));
            if now.zip(&before).all(|(now, before)| now > *before) { Ok(()) } else { Err(String::new()) }
        });
    }
    let sent = load.expect("it was started").finish();
    await_indexed(&space, sent);
    numbers::exactly_once(&query.query(&format!("service={service}")), sent);
}

/// A process that is not scheduled for longer than its session: the others take over, and when it wakes it still has things under
/// way that are no longer its own.
#[test]
fn a_drain_that_was_suspended_beyond_its_session_neither_loses_nor_doubles() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let space = Space::new("sleeper").partitions(4);
    let drains = drains(dir.path(), &space, 2);
    let query = Server::cluster(dir.path(), "query", &["query"], &space);
    until("both have partitions", PATIENCE, || {
        let shares: Vec<_> = drains.iter().map(|drain| partitions(drain).len()).collect();
        if shares == [2, 2] { Ok(()) } else { Err(format!("{shares:?}")) }
    });
    let service = unique("steady");
    let load = Load::start(&space, &service, 10, Duration::from_millis(50));
    until("it flows", PATIENCE, || {
        if drains[0].counter("logsink_drain_records_total") > 500 { Ok(()) } else { Err(String::new()) }
    });
    drains[0].signal("STOP");
    until("the other takes over", PATIENCE, || {
        if partitions(&drains[1]).len() == 4 { Ok(()) } else { Err(String::new()) }
    });
    let before = load.sent();
    until("the load goes on", PATIENCE, || if load.sent() > before + 2_000 { Ok(()) } else { Err(String::new()) });
    drains[0].signal("CONT");
    until("it comes back", PATIENCE, || {
        let shares: Vec<_> = drains.iter().map(|drain| partitions(drain).len()).collect();
        if shares == [2, 2] { Ok(()) } else { Err(format!("{shares:?}")) }
    });
    let sent = load.finish();
    await_indexed(&space, sent);
    numbers::exactly_once(&query.query(&format!("service={service}")), sent);
}

/// A cluster of two. What a node was answering when it died is unknown, and some of the shards' primaries were there: their copies
/// take over.
#[test]
fn a_node_of_elasticsearch_dies_under_load_and_comes_back_and_each_event_is_indexed_once() {
    let _alone = alone();
    control("start", &["elasticsearch2"]);
    let dir = tempfile::tempdir().unwrap();
    let nodes = vec![elasticsearch(), elasticsearch2()];
    let elasticsearch = "shards = 2\nreplicas = 1\n".to_owned();
    let space = Space { nodes, elasticsearch, ..Space::new("nodes") };
    let server = Server::cluster(dir.path(), "all", &["drain", "query"], &space);
    let service = unique("steady");
    let load = Load::start(&space, &service, 5, Duration::from_millis(20));
    let of_second = |metric: &str| {
        let second = elasticsearch2();
        server.counter(&format!("{metric}{{node=\"{}\"}}", second.trim_start_matches("http://")))
    };
    let works = || {
        let before = of_second("logsink_index_request_duration_seconds_count");
        until("both nodes are asked, and each shard has its copy", PATIENCE, || {
            let url =
                format!("{}/_cluster/health/{}?wait_for_status=green&timeout=1s", space.nodes[0], space.data_stream);
            let (health, asked) = (http::get(&url)?, of_second("logsink_index_request_duration_seconds_count"));
            let is_well = health.status == 200 && of_second("logsink_index_node_up") == 1;
            if is_well && asked > before + 5 { Ok(()) } else { Err(format!("{asked} {}", health.body)) }
        });
    };
    works();
    for _ in 0..2 {
        control("kill", &["elasticsearch2"]);
        let before = server.counter("logsink_drain_records_total");
        until("the other takes all", PATIENCE, || {
            let now = server.counter("logsink_drain_records_total");
            let is_out = of_second("logsink_index_node_up") == 0;
            if is_out && now > before + 2_000 { Ok(()) } else { Err(format!("{now} {is_out}")) }
        });
        control("start", &["elasticsearch2"]);
        works();
    }
    let sent = load.finish();
    await_indexed(&space, sent);
    numbers::exactly_once(&server.query(&format!("service={service}")), sent);
    control("stop", &["elasticsearch2"]);
}

/// `LOGSINK_FAULTS_MINUTES` [2]: how long Elasticsearch is away.
#[test]
fn the_memory_of_a_drain_stays_when_elasticsearch_is_away_under_full_load() {
    /// A message as services send it: 100 records of about 530 bytes.
    const RECORDS: u64 = 100;
    const MESSAGES: u64 = 20_000;
    let _alone = alone();
    let minutes: f64 = env::var("LOGSINK_FAULTS_MINUTES").ok().and_then(|text| text.parse().ok()).unwrap_or(2.0);
    let dir = tempfile::tempdir().unwrap();
    let space = Space::new("away").partitions(6);
    let mut drain = Server::cluster(dir.path(), "drain", &["drain"], &space);
    let service = unique("heavy");
    let mut payload = request(&service, 0..RECORDS);
    for record in &mut payload.resource_logs[0].scope_logs[0].log_records {
        let text = "lorem ipsum dolor sit amet ".repeat(16);
        record.body = record.body.take().map(|_| opentelemetry_proto::tonic::common::v1::AnyValue {
            value: Some(opentelemetry_proto::tonic::common::v1::any_value::Value::StringValue(text)),
        });
    }
    let payload = payload.encode_to_vec();
    let producer = load::producer(&[("acks", "1")]);
    for message in 0..MESSAGES {
        load::send(&producer, &space.topic, (message % 6) as i32, &payload);
    }
    load::flush(&producer);
    // Full load: there is more to read than the drain gets done.
    let warm = drain.counter("logsink_drain_records_total") + 50_000;
    until("it is under full load", PATIENCE, || {
        let now = drain.counter("logsink_drain_records_total");
        if now >= warm { Ok(()) } else { Err(now.to_string()) }
    });
    let loaded = (0..40).map(|_| sample(&drain)).max().expect("samples");
    control("pause", &["elasticsearch"]);
    let (mut most, until_then) = (0, Instant::now() + Duration::from_secs_f64(minutes * 60.0));
    while Instant::now() < until_then {
        most = most.max(sample(&drain));
    }
    let done = drain.counter("logsink_drain_records_total");
    control("resume", &["elasticsearch"]);
    assert!(done < RECORDS * MESSAGES, "there still was something to read");
    until("it goes on", PATIENCE, || {
        let now = drain.counter("logsink_drain_records_total");
        if now > done { Ok(()) } else { Err(now.to_string()) }
    });
    let peak = drain.peak_bytes();
    eprintln!(
        "resident: {loaded} under load, {most} at most without Elasticsearch for {minutes} min, {peak} at the peak"
    );
    assert!(most * 10 < loaded * 11, "{most} bytes without Elasticsearch, {loaded} with it");
    drain.kill();
}

fn sample(server: &Server) -> u64 {
    thread::sleep(Duration::from_millis(250));
    server.resident_bytes()
}
