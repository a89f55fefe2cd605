//! Rules from etcd: `/logsink/rules/global`, and `/logsink/rules/service/<name>` after it.
//!
//! Both keys are read in one transaction, then watched from the revision of that reading; a notice leads to the next
//! reading. After any break (connection lost, member without a leader, history compacted) it begins again with a reading: as
//! cheap as resuming the watch, and nothing can be missed in between.

use std::{collections::BTreeMap, future::Future, path::PathBuf, pin::Pin, sync::Arc, time::Duration};

use etcd_client::{Client, ConnectOptions, GetOptions, KeyValue, Txn, TxnOp, TxnOpResponse, WatchOptions, WatchStream};
use tokio::{sync::watch, time::timeout};

use super::{
    Cache, Follower, Pause, RuleSource,
    follower::{Received, name},
    stopped,
};
use crate::{reload::Reload, voice::say};

/// The key of the document for all services.
pub const GLOBAL_KEY: &str = "/logsink/rules/global";
/// What the key of a service's document begins with; its name follows.
pub const SERVICE_PREFIX: &str = "/logsink/rules/service/";
/// What all keys of rules begin with.
pub const PREFIX: &str = "/logsink/rules/";

/// For connecting and for each answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// A connection on which nothing comes for this long is asked for a sign of life, so that a lost member shows.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(5);
const KEEP_ALIVE_WITHIN: Duration = Duration::from_secs(3);
/// Short, for rules are to take effect within a second of etcd's return.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_millis(800);
/// Keys that are asked for at once, at first. The client takes no answer of more than 4 MiB, so that of large documents there are
/// fewer in one: fifteen of the largest that are taken for rules.
const PAGE_KEYS: i64 = 1_024;
/// gRPC's status of an answer that is more than the client takes.
const OUT_OF_RANGE: i32 = 11;

/// Rules from etcd.
#[derive(Debug)]
pub struct EtcdSource {
    endpoints: Vec<String>,
    service: String,
    cache: Option<Cache>,
}

impl EtcdSource {
    /// Rules for `service` from the members at these URLs. The last good ones are kept in `cache_dir`.
    pub fn new(
        endpoints: impl IntoIterator<Item = impl Into<String>>,
        service: impl Into<String>,
        cache_dir: Option<PathBuf>,
    ) -> Self {
        let service = service.into();
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            cache: cache_dir.map(|dir| Cache::new(&dir, &service)),
            service,
        }
    }
}

impl RuleSource for EtcdSource {
    fn run(
        self: Box<Self>,
        reload: Arc<Reload>,
        mut stop: watch::Receiver<bool>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let service_key = format!("{SERVICE_PREFIX}{}", self.service);
            let range = Range::Keys(vec![GLOBAL_KEY.to_owned(), service_key.clone()]);
            let run = async {
                let mut follower = Follower::start(reload, self.cache.clone()).await;
                let mut readings = Readings::new(self.endpoints.clone(), range);
                loop {
                    let reading = readings.next().await;
                    follower.receive(received(&reading, [GLOBAL_KEY, &service_key])).await;
                }
            };
            tokio::select! {
                () = run => {}
                () = stopped(&mut stop) => {}
            }
        })
    }
}

/// The revision names both documents, so that all processes of a service call the same rules the same.
fn received(reading: &Reading, keys: [&str; 2]) -> Received {
    let entries = keys.map(|key| reading.entries.get(key));
    let revisions = entries.map(|entry| entry.map_or(0, |entry| entry.revision).to_string());
    let text = |entry: &Entry| match std::str::from_utf8(&entry.value) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => Err("the value is not UTF-8".to_owned()),
    };
    Received {
        revision: name(revisions.each_ref().map(String::as_str)),
        texts: entries.map(|entry| entry.map(text).transpose()),
    }
}

/// What is read and watched.
#[derive(Debug, Clone)]
pub enum Range {
    /// These keys.
    Keys(Vec<String>),
    /// All keys that begin so.
    Prefix(String),
}

/// All keys of a range that exist, as they were at one moment.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// By key.
    pub entries: BTreeMap<String, Entry>,
    /// etcd's revision of that moment.
    pub revision: i64,
}

/// One key's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its bytes.
    pub value: Vec<u8>,
    /// The revision that wrote it.
    pub revision: i64,
}

/// An endless sequence of readings: the first at once, the next whenever something has changed.
pub struct Readings {
    endpoints: Vec<String>,
    range: Range,
    session: Option<Session>,
    pause: Pause,
    /// Whether the outage that lasts has been told.
    told: bool,
}

struct Session {
    client: Client,
    watch: WatchStream,
    /// Of the last reading: what a notice of an older change is compared with.
    revision: i64,
}

impl Readings {
    /// Readings of this range, from the members at these URLs.
    pub fn new(endpoints: Vec<String>, range: Range) -> Self {
        Self { endpoints, range, session: None, pause: Pause::new(PAUSE_FIRST, PAUSE_MAX), told: false }
    }

    /// The next reading. Does not return while etcd is away: says so on stderr, once, and goes on trying.
    /// May be dropped; the next call then begins with a reading.
    pub async fn next(&mut self) -> Reading {
        loop {
            match self.advance().await {
                Ok(reading) => {
                    self.pause.reset();
                    if self.told {
                        say(format_args!("etcd at {} is back", self.endpoints.join(",")));
                        self.told = false;
                    }
                    return reading;
                }
                Err(error) => {
                    if !self.told && self.pause.next > self.pause.first {
                        say(format_args!(
                            "etcd at {} is away, what it said last stays in force: {error}",
                            self.endpoints.join(",")
                        ));
                        self.told = true;
                    }
                    self.pause.wait().await;
                }
            }
        }
    }

    async fn advance(&mut self) -> Result<Reading, String> {
        // Taken out: what fails, or is dropped half-way, is not used again.
        let mut session = match self.session.take() {
            Some(mut session) => {
                session.changed().await?;
                session
            }
            None => {
                let (session, reading) = self.connect().await?;
                self.session = Some(session);
                return Ok(reading);
            }
        };
        let reading = read(&mut session.client, &self.range).await?;
        session.revision = reading.revision;
        self.session = Some(session);
        Ok(reading)
    }

    async fn connect(&self) -> Result<(Session, Reading), String> {
        let mut client = connect(&self.endpoints).await?;
        let reading = read(&mut client, &self.range).await?;
        let options = || WatchOptions::new().with_start_revision(reading.revision + 1).with_progress_notify();
        let mut watch: Option<WatchStream> = None;
        let (keys, prefix) = match &self.range {
            Range::Keys(keys) => (keys.as_slice(), false),
            Range::Prefix(prefix) => (std::slice::from_ref(prefix), true),
        };
        for key in keys {
            let options = if prefix { options().with_prefix() } else { options() };
            match &mut watch {
                None => watch = Some(within(client.watch(key.as_str(), Some(options))).await?),
                Some(watch) => within(watch.watch(key.as_str(), Some(options))).await?,
            }
        }
        let watch = watch.ok_or("nothing to watch")?;
        Ok((Session { client, watch, revision: reading.revision }, reading))
    }
}

impl Session {
    /// Waits until something has changed since the last reading.
    async fn changed(&mut self) -> Result<(), String> {
        loop {
            let notice = self.watch.message().await.map_err(|error| plain(&error))?;
            let notice = notice.ok_or("the watch has ended")?;
            if notice.canceled() {
                return Err(match notice.compact_revision() {
                    0 => format!("the watch was cancelled: {}", notice.cancel_reason()),
                    revision => format!("the watch was cancelled: history before {revision} is compacted"),
                });
            }
            let newest = notice.events().iter().filter_map(|event| event.kv()).map(KeyValue::mod_revision).max();
            if newest.is_some_and(|newest| newest > self.revision) {
                return Ok(());
            }
        }
    }
}

/// Connects to the members at these URLs.
///
/// # Errors
/// What etcd's client says, or that it took too long.
pub async fn connect(endpoints: &[String]) -> Result<Client, String> {
    let options = ConnectOptions::new()
        .with_connect_timeout(ANSWER_WITHIN)
        .with_keep_alive(KEEP_ALIVE_EVERY, KEEP_ALIVE_WITHIN)
        .with_keep_alive_while_idle(true)
        // A member cut off from the others says so instead of answering with what is old.
        .with_require_leader(true);
    within(Client::connect(endpoints, Some(options))).await
}

async fn read(client: &mut Client, range: &Range) -> Result<Reading, String> {
    match range {
        Range::Keys(keys) => read_keys(client, keys).await,
        Range::Prefix(prefix) => read_prefix(client, prefix).await,
    }
}

async fn read_keys(client: &mut Client, keys: &[String]) -> Result<Reading, String> {
    let operations: Vec<TxnOp> = keys.iter().map(|key| TxnOp::get(key.as_str(), None)).collect();
    let answer = within(client.txn(Txn::new().and_then(operations))).await?;
    let mut reading = Reading { revision: answer.header().map_or(0, |header| header.revision()), ..Reading::default() };
    for response in answer.op_responses() {
        let TxnOpResponse::Get(mut found) = response else { continue };
        reading.entries.extend(found.take_kvs().into_iter().filter_map(entry));
    }
    Ok(reading)
}

/// Page by page, all as of the first one's revision.
async fn read_prefix(client: &mut Client, prefix: &str) -> Result<Reading, String> {
    let (mut reading, mut page_keys) = (Reading::default(), PAGE_KEYS);
    let (mut from, end) = (prefix.as_bytes().to_vec(), end_of(prefix));
    loop {
        let options =
            GetOptions::new().with_range(end.as_slice()).with_limit(page_keys).with_revision(reading.revision);
        let page = async {
            match client.get(from.as_slice(), Some(options)).await {
                Err(etcd_client::Error::GRpcStatus(status))
                    if i32::from(status.code()) == OUT_OF_RANGE && page_keys > 1 =>
                {
                    Ok(None)
                }
                page => page.map(Some),
            }
        };
        let Some(mut page) = within(page).await? else {
            page_keys /= 4;
            continue;
        };
        let revision = page.header().map_or(0, |header| header.revision());
        let pairs = page.take_kvs();
        // A later page's revision is that of its moment.
        if reading.revision == 0 {
            reading.revision = revision;
        }
        let last = pairs.last().map(|pair| [pair.key(), b"\0"].concat());
        reading.entries.extend(pairs.into_iter().filter_map(entry));
        match last {
            Some(next) if page.more() => from = next,
            _ => return Ok(reading),
        }
    }
}

/// The first key after all that begin with `prefix`, whose last character is ASCII.
fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

/// A key that is no text is none of ours.
fn entry(pair: KeyValue) -> Option<(String, Entry)> {
    let revision = pair.mod_revision();
    let (key, value) = pair.into_key_value();
    Some((String::from_utf8(key).ok()?, Entry { value, revision }))
}

async fn within<T>(answer: impl Future<Output = Result<T, etcd_client::Error>>) -> Result<T, String> {
    match timeout(ANSWER_WITHIN, answer).await {
        Ok(answer) => answer.map_err(|error| plain(&error)),
        Err(_) => Err(format!("no answer within {} s", ANSWER_WITHIN.as_secs())),
    }
}

/// The error in a few words: a status in full is a paragraph.
fn plain(error: &etcd_client::Error) -> String {
    match error {
        etcd_client::Error::GRpcStatus(status) => status.message().to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_shows_each_scope_by_itself() {
        let entry = |value: &[u8], revision| Entry { value: value.to_vec(), revision };
        let own = "/logsink/rules/service/app";
        let mut reading = Reading { revision: 9, ..Reading::default() };
        assert_eq!(
            received(&reading, [GLOBAL_KEY, own]),
            Received { revision: "g0-s0".into(), texts: [Ok(None), Ok(None)] }
        );
        reading.entries.insert(GLOBAL_KEY.into(), entry(b"filter = \"warn\"", 4));
        reading.entries.insert(own.into(), entry(b"\xff", 7));
        let expected = [Ok(Some("filter = \"warn\"".into())), Err("the value is not UTF-8".into())];
        assert_eq!(received(&reading, [GLOBAL_KEY, own]), Received { revision: "g4-s7".into(), texts: expected });
    }
}
