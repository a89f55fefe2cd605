//! Events → a real Kafka broker of this test's own that asks for TLS, a client certificate and a password, makes no topics by
//! itself, lets not everybody write, and is killed in the end: each trouble is told apart, and what passes costs no event.
//!
//! Needs what `dev/stack/stack install kafka` installs, and OpenSSL's command:
//! `cargo test -p logsink --features kafka-ssl --test kafka_secure -- --ignored`

#![cfg(feature = "kafka-ssl")]

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use logsink::{
    Config, Guard,
    config::Secret,
    metrics::{KafkaTrouble, Reason},
};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use prost::Message as _;
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
};
use tracing_subscriber::layer::SubscriberExt;

const PATIENCE: Duration = Duration::from_secs(60);

/// What the certificates may be used for; the command line gives the rest.
const OPENSSL: &str = "\
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
[member]
basicConstraints = critical, CA:FALSE
subjectAltName = IP:127.0.0.1, DNS:localhost
";

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}{}", text(&output.stdout), text(&output.stderr));
}

/// A certificate and its key, signed by another or by itself.
fn certificate(dir: &Path, name: &str, kind: &str, signer: Option<&str>) -> (PathBuf, PathBuf) {
    let file = |name: &str, ending: &str| dir.join(format!("{name}.{ending}"));
    let config = dir.join("openssl.cnf");
    fs::write(&config, OPENSSL).unwrap();
    let (certificate, key) = (file(name, "pem"), file(name, "key"));
    let mut command = Command::new("openssl");
    command
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"])
        .args(["-subj", &format!("/CN={name}"), "-extensions", kind, "-config"])
        .arg(config)
        .args([Path::new("-keyout"), &key, Path::new("-out"), &certificate]);
    if let Some(signer) = signer {
        command.args([Path::new("-CA"), &file(signer, "pem"), Path::new("-CAkey"), &file(signer, "key")]);
    }
    run(&mut command);
    (certificate, key)
}

/// The broker, by the script that starts all real servers.
struct Broker {
    dir: tempfile::TempDir,
    plain: u16,
    environment: Vec<(&'static str, String)>,
    secure: u16,
}

impl Broker {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        certificate(dir.path(), "authority", "authority", None);
        certificate(dir.path(), "stranger", "authority", None);
        certificate(dir.path(), "client", "member", Some("authority"));
        let (own, key) = certificate(dir.path(), "broker", "member", Some("authority"));
        let store = dir.path().join("broker.store.pem");
        fs::write(&store, fs::read_to_string(key).unwrap() + &fs::read_to_string(own).unwrap()).unwrap();

        // Held together, so that they differ.
        let listeners: Vec<_> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<_> = listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
        let [plain, controller, secure] = ports[..] else { unreachable!() };
        drop(listeners);
        let authority = dir.path().join("authority.pem");
        let extra = format!(
            "listeners=PLAINTEXT://127.0.0.1:{plain},CONTROLLER://127.0.0.1:{controller},SASL_SSL://127.0.0.1:{secure}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{plain},SASL_SSL://127.0.0.1:{secure}\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL\n\
             sasl.enabled.mechanisms=PLAIN\n\
             listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule \
             required user_writer=\"s3cret\" user_stranger=\"s3cret\";\n\
             ssl.keystore.type=PEM\nssl.keystore.location={}\nssl.truststore.type=PEM\nssl.truststore.location={}\n\
             ssl.client.auth=required\n\
             authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
             super.users=User:ANONYMOUS;User:writer\n\
             auto.create.topics.enable=false\n",
            store.display(),
            authority.display()
        );
        let broker = Self {
            plain,
            secure,
            environment: vec![
                ("STACK_WORK", dir.path().join("work").display().to_string()),
                ("KAFKA_PORT", plain.to_string()),
                ("KAFKA_CONTROLLER_PORT", controller.to_string()),
                ("KAFKA_EXTRA", extra),
            ],
            dir,
        };
        broker.control("start");
        broker
    }

    fn control(&self, verb: &str) {
        let script = std::env::var_os("LOGSINK_TEST_STACK")
            .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../dev/stack/stack")), PathBuf::from);
        // Other tests have a broker of theirs in the environment.
        run(Command::new(script).args([verb, "kafka"]).envs(self.environment.iter().cloned()));
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn plain(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", format!("127.0.0.1:{}", self.plain));
        client
    }

    fn create(&self, topic: &str) {
        let admin: AdminClient<DefaultClientContext> = self.plain().create().unwrap();
        let topic = NewTopic::new(topic, 1, TopicReplication::Fixed(1)).set("max.message.bytes", "300000");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let created = runtime.block_on(admin.create_topics([&topic], &AdminOptions::new())).unwrap();
        assert!(created.iter().all(Result::is_ok), "{created:?}");
    }

    /// How many records the topic has, once there are so many.
    fn records(&self, topic: &str, count: usize) -> usize {
        let consumer: BaseConsumer =
            self.plain().set("group.id", "test").set("enable.auto.commit", "false").create().unwrap();
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
        consumer.assign(&partitions).unwrap();
        let deadline = Instant::now() + PATIENCE;
        let mut records = 0;
        while records < count {
            assert!(Instant::now() < deadline, "{records} of {count} records");
            if let Some(Ok(message)) = consumer.poll(Duration::from_millis(200)) {
                let request = ExportLogsServiceRequest::decode(message.payload().unwrap()).unwrap();
                let scopes = request.resource_logs.iter().flat_map(|logs| &logs.scope_logs);
                records += scopes.map(|scope| scope.log_records.len()).sum::<usize>();
            }
        }
        records
    }

    /// The library as `user`, who trusts `ca`.
    fn with(&self, topic: &str, user: &str, password: &str, ca: &str, body: impl FnOnce(&Guard)) {
        let url = format!("kafkas://127.0.0.1:{}/{topic}", self.secure);
        let file = |name: &str| Some(self.file(name));
        let (ca, certificate, key) = (file(ca), file("client.pem"), file("client.key"));
        fs::write(self.file("password"), password).unwrap();
        let (user, password_file) = (user.to_owned(), file("password"));
        let configure = move |config: &mut Config| {
            config.send.timeout_ms = 2_000;
            config.send.flush_timeout_ms = 100;
            config.sasl.mechanism = Some("PLAIN".to_owned());
            config.sasl.username = Some(user);
            config.sasl.password_file = password_file;
            config.tls.ca = ca;
            config.tls.certificate = certificate;
            config.tls.key = key;
            config.kafka.insert("statistics.interval.ms".to_owned(), Secret("200".to_owned()));
        };
        let (layer, guard) = logsink::builder().alone().endpoint(url).configure(configure).layer().unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || body(&guard));
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.control("stop");
    }
}

fn emit(count: i64) {
    (0..count).for_each(|n| tracing::info!(n, "event"));
}

/// Waits until a batch has failed for this reason.
fn meets(guard: &Guard, trouble: KafkaTrouble) {
    wait_until(guard, |guard| guard.metrics().kafka.is_some_and(|kafka| kafka.trouble == Some(trouble)));
}

fn wait_until(guard: &Guard, condition: impl Fn(&Guard) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition(guard) {
        assert!(Instant::now() < deadline, "{guard:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
#[ignore = "starts a Kafka broker: see the head of this file"]
fn the_troubles_of_a_secured_cluster_are_told_apart() {
    let broker = Broker::start();
    broker.create("ours");

    // Who is known writes, and the client's figures are there.
    broker.with("ours", "writer", "s3cret\n", "authority.pem", |guard| {
        emit(1_000);
        guard.flush(PATIENCE).unwrap();
        assert_eq!(broker.records("ours", 1_000), 1_000);
        wait_until(guard, |guard| {
            let kafka = guard.metrics().kafka.unwrap_or_default();
            let up = kafka.brokers.iter().any(|broker| broker.state == "UP" && broker.round_trip_us_avg > 0);
            up && kafka.sent_bytes > 0 && kafka.topic_bytes_max == Some(300_000)
        });
        assert_eq!((guard.metrics().lost(), guard.metrics().kafka.unwrap().trouble), (0, None));
    });

    // A wrong password and a certificate that nobody we trust has signed pass when they are put right; so nothing is lost.
    for (password, ca) in [("wrong", "authority.pem"), ("s3cret", "stranger.pem")] {
        broker.with("ours", "writer", password, ca, |guard| {
            emit(10);
            meets(guard, KafkaTrouble::Authentication);
            assert_eq!(guard.metrics().lost(), 0);
        });
    }

    // Who may not write hears it at once, and the events are counted.
    broker.with("ours", "stranger", "s3cret", "authority.pem", |guard| {
        emit(10);
        guard.flush(PATIENCE).unwrap();
        assert_eq!(guard.metrics().dropped_for(Reason::Permanent), 10);
        meets(guard, KafkaTrouble::Authorization);
    });

    // A topic that does not exist is made by somebody, and then everything arrives.
    broker.with("late", "writer", "s3cret", "authority.pem", |guard| {
        emit(10);
        meets(guard, KafkaTrouble::TopicMissing);
        broker.create("late");
        guard.flush(PATIENCE).unwrap();
        assert_eq!((guard.metrics().sent, guard.metrics().lost()), (10, 0));
        assert_eq!(guard.metrics().kafka.unwrap().trouble, None);

        // The broker dies, and comes back.
        broker.control("kill");
        emit(5);
        meets(guard, KafkaTrouble::Unreachable);
        broker.control("start");
        guard.flush(PATIENCE).unwrap();
        assert_eq!((guard.metrics().sent, guard.metrics().lost()), (15, 0));
    });
    assert_eq!(broker.records("late", 15), 15);
}
