//! The real `logsink-server` binary as a child process.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

use serde_json::Value;

use crate::{
    http,
    process::{self, Process, free_port, succeed},
    stack,
    tls::{Authority, Member},
    until,
};

/// A debug build on a busy machine opens its store and its clients within this.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// A server: standalone, or one process of a cluster.
#[derive(Debug)]
pub struct Server {
    process: Process,
    dir: PathBuf,
    config: Option<PathBuf>,
    grpc: u16,
    http: u16,
    /// The options with which commands reach it over TLS; empty without.
    credentials: Vec<OsString>,
}

/// The path of the binary: `$LOGSINK_TEST_SERVER`, else beside this test.
///
/// # Panics
/// When there is none; says how to build it.
pub fn binary() -> PathBuf {
    let path = std::env::var_os("LOGSINK_TEST_SERVER")
        .map_or_else(|| process::target_dir().join("logsink-server"), PathBuf::from);
    assert!(
        path.exists(),
        "{} is missing: build it with `cargo build -p logsink-server`, or run `make test`",
        path.display()
    );
    path
}

/// A command line of the binary.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = process::command(&binary());
    command.args(arguments);
    command
}

impl Server {
    /// A standalone server over `dir/data`, ready.
    pub fn standalone(dir: &Path) -> Self {
        Self::launch(dir, None, Vec::new())
    }

    /// As [`Server::standalone`], with TLS on both listeners. With `client`, only who shows a certificate of the same
    /// authority is let in; the commands of this server do.
    pub fn secure(dir: &Path, authority: &Authority, client: Option<&Member>) -> Self {
        let own = authority.sign("server");
        let mut text = format!("[tls]\ncert = {:?}\nkey = {:?}\n", own.certificate, own.key);
        let mut credentials = vec!["--ca".into(), authority.certificate.clone().into_os_string()];
        if let Some(client) = client {
            text += &format!("client_ca = {:?}\n", authority.certificate);
            credentials.extend(["--cert".into(), client.certificate.clone().into_os_string()]);
            credentials.extend(["--key".into(), client.key.clone().into_os_string()]);
        }
        let config = dir.join("server.toml");
        fs::write(&config, text).expect("the configuration is written");
        Self::launch(dir, Some(config), credentials)
    }

    /// As [`Server::standalone`], with these settings.
    pub fn configured(dir: &Path, settings: &str) -> Self {
        let config = dir.join("server.toml");
        fs::write(&config, settings).expect("the configuration is written");
        Self::launch(dir, Some(config), Vec::new())
    }

    /// One process of a cluster over the stack: `roles` as in the file, with its own topic and data stream.
    pub fn cluster(dir: &Path, name: &str, roles: &[&str], space: &Space) -> Self {
        let config = dir.join(format!("{name}.toml"));
        fs::write(&config, space.config(roles)).expect("the configuration is written");
        let home = dir.join(name);
        fs::create_dir_all(&home).expect("the directory is made");
        Self::launch(&home, Some(config), Vec::new())
    }

    fn launch(dir: &Path, config: Option<PathBuf>, credentials: Vec<OsString>) -> Self {
        let (grpc, http) = (free_port(), free_port());
        let process = Self::spawn(dir, config.as_deref(), grpc, http);
        let mut server = Self { process, dir: dir.to_owned(), config, grpc, http, credentials };
        server.await_ready();
        server
    }

    fn spawn(dir: &Path, config: Option<&Path>, grpc: u16, http: u16) -> Process {
        let mut command = command(&[]);
        if let Some(config) = config {
            command.arg("--config").arg(config);
        }
        command
            .arg("--data-dir")
            .arg(dir.join("data"))
            .args(["--listen-grpc", &format!("127.0.0.1:{grpc}")])
            .args(["--listen-http", &format!("127.0.0.1:{http}")])
            // No configuration file of the one who runs the tests is found.
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        Process::start(&mut command, &dir.join("server.log"))
    }

    /// Waits until it is ready.
    ///
    /// # Panics
    /// When it does not become so in time, or ends.
    pub fn await_ready(&mut self) {
        let url = self.http_url("/readyz");
        until("the server is ready", START_DEADLINE, || {
            if let Some(status) = self.process.ended() {
                panic!("the server ended: {status}");
            }
            if !self.credentials.is_empty() {
                // The command knows how to get in.
                return self.try_query("").map(drop);
            }
            let answer = http::get(&url)?;
            if answer.status == 200 { Ok(()) } else { Err(answer.body) }
        });
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// SIGTERM, and waits for a graceful end.
    pub fn stop(&mut self) -> ExitStatus {
        self.process.signal("TERM");
        self.process.wait(Duration::from_secs(40))
    }

    /// Starts it again after [`Server::kill`] or [`Server::stop`], with the same files and ports; waits until it is ready.
    pub fn restart(&mut self) {
        self.relaunch();
        self.await_ready();
    }

    /// As [`Server::restart`], without waiting.
    pub fn relaunch(&mut self) {
        self.process = Self::spawn(&self.dir, self.config.as_deref(), self.grpc, self.http);
    }

    /// Sends a signal by name, such as `STOP`, `CONT`.
    pub fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// Bytes of its memory that are resident.
    ///
    /// # Panics
    /// When it is gone.
    pub fn resident_bytes(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The most bytes that ever were resident.
    ///
    /// # Panics
    /// When it is gone.
    pub fn peak_bytes(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/status", self.process.child.id());
        let status = fs::read_to_string(path).expect("the server runs");
        let kib =
            status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse::<u64>().ok());
        kib.expect("the kernel says it") << 10
    }

    /// What it wrote to stderr, over all its lives.
    pub fn stderr(&self) -> String {
        self.process.stderr()
    }

    /// The endpoint for senders.
    pub fn grpc_url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme(), self.grpc)
    }

    /// An URL of its HTTP door.
    pub fn http_url(&self, path: &str) -> String {
        format!("{}://127.0.0.1:{}{path}", self.scheme(), self.http)
    }

    fn scheme(&self) -> &'static str {
        if self.credentials.is_empty() { "http" } else { "https" }
    }

    /// The options with which commands reach it.
    fn address(&self) -> Vec<OsString> {
        [&["--server".into(), self.http_url("").into()][..], &self.credentials].concat()
    }

    /// A counter of `/metrics`, by its full name; 0 when it is not there.
    ///
    /// # Panics
    /// When the server does not answer.
    pub fn counter(&self, name: &str) -> u64 {
        let answer = http::get(&self.http_url("/metrics")).expect("the server answers");
        let value = |line: &str| line.strip_prefix(name)?.trim().parse().ok();
        answer.body.lines().find_map(value).unwrap_or_default()
    }

    /// `logsink-server query`, all pages of the last hour, newest first.
    ///
    /// # Errors
    /// When the command fails: with its words.
    pub fn try_query(&self, expression: &str) -> Result<Vec<Value>, String> {
        self.try_query_in(expression, &["--from", "-1h"])
    }

    /// As [`Server::try_query`], of the time that these options say.
    ///
    /// # Errors
    /// As [`Server::try_query`].
    pub fn try_query_in(&self, expression: &str, time: &[&str]) -> Result<Vec<Value>, String> {
        let output = process::run(
            command(&["query", expression, "--json", "--all"]).args(time).args(self.address()).current_dir(&self.dir),
        );
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines().map(|line| serde_json::from_str(line).map_err(|error| format!("{error}: {line}"))).collect()
    }

    /// As [`Server::try_query`].
    ///
    /// # Panics
    /// When the command fails.
    pub fn query(&self, expression: &str) -> Vec<Value> {
        self.try_query(expression).unwrap_or_else(|error| panic!("query {expression}: {error}"))
    }

    /// Waits until this search has at least `count` hits.
    ///
    /// # Panics
    /// When it has not within the deadline.
    pub fn await_hits(&self, expression: &str, count: usize, deadline: Duration) -> Vec<Value> {
        until(&format!("{count} hits of {expression}"), deadline, || {
            let hits = self.try_query(expression)?;
            if hits.len() >= count { Ok(hits) } else { Err(format!("{} hits", hits.len())) }
        })
    }

    /// `logsink-server servers` with this server's configuration.
    pub fn servers(&self) -> String {
        let config = self.config.as_ref().expect("a server with a configuration");
        succeed(command(&["servers", "--config"]).arg(config).current_dir(&self.dir))
    }

    /// `logsink-server rules …` against this server; returns its standard output.
    pub fn rules(&self, arguments: &[&str]) -> String {
        succeed(command(&["rules"]).args(arguments).args(self.address()).current_dir(&self.dir))
    }
}

/// What keeps one test's cluster apart from the others' on the same stack.
#[derive(Debug, Clone)]
pub struct Space {
    /// The Kafka topic, and the consumer group.
    pub topic: String,
    /// The data stream.
    pub data_stream: String,
    /// Partitions of the topic.
    pub partitions: u32,
    /// Lines at the end of `[kafka]`.
    pub kafka: String,
    /// The URLs of Elasticsearch's nodes, or of what stands in front of them; empty: the stack's first.
    pub nodes: Vec<String>,
    /// Lines at the end of `[elasticsearch]`.
    pub elasticsearch: String,
    /// Whether the servers have etcd; without it nobody finds them there, and their rules are files.
    pub etcd: bool,
    /// Further sections.
    pub sections: String,
}

impl Space {
    /// A new one.
    pub fn new(prefix: &str) -> Self {
        let name = crate::unique(prefix);
        Self {
            topic: name.clone(),
            data_stream: format!("logs-{name}"),
            partitions: 4,
            kafka: String::new(),
            nodes: Vec::new(),
            elasticsearch: String::new(),
            etcd: true,
            sections: String::new(),
        }
    }

    /// With so many partitions instead of four.
    pub fn partitions(self, partitions: u32) -> Self {
        Self { partitions, ..self }
    }

    /// With this URL for Elasticsearch's.
    pub fn through(self, proxy: String) -> Self {
        Self { nodes: vec![proxy], ..self }
    }

    /// The endpoint for a library that writes to Kafka itself.
    pub fn kafka_url(&self) -> String {
        format!("kafka://{}/{}", stack::kafka(), self.topic)
    }

    /// The endpoint for a library that finds the servers of this space in etcd.
    pub fn etcd_url(&self) -> String {
        format!("{}/{}", stack::etcd().replace("http://", "etcd://"), self.topic)
    }

    fn config(&self, roles: &[&str]) -> String {
        let etcd = match self.etcd {
            true => format!("[etcd]\nendpoints = [{:?}]\nfleet = {:?}\n", stack::etcd(), self.topic),
            false => String::new(),
        };
        let nodes = if self.nodes.is_empty() { vec![stack::elasticsearch()] } else { self.nodes.clone() };
        format!(
            "mode = \"cluster\"\nroles = {roles:?}\n\n[kafka]\nbrokers = [{:?}]\ntopic = {:?}\ngroup = {:?}\npartitions = {}\n{}\n\
             [elasticsearch]\nurls = {nodes:?}\ndata_stream = {:?}\n{}\n{etcd}{}\n",
            stack::kafka(),
            self.topic,
            self.topic,
            self.partitions,
            self.kafka,
            self.data_stream,
            self.elasticsearch,
            self.sections,
        )
    }
}
