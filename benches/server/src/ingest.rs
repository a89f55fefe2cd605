//! One ingest: a program, a topic that is empty, and a load generator.

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};

use crate::{
    cases::{Case, Ingest},
    figures::Figures,
    plan::Plan,
    process::{self, Process, Profile},
    program::{Identity, Ports, Program},
    run::Sample,
    topic,
};

/// It listens within this.
const START_MAX: Duration = Duration::from_secs(60);
/// No run takes longer.
const LOAD_MAX: Duration = Duration::from_secs(600);

/// Requests of one record cost ten times as much: fewer of them say as much.
fn records(plan: &Plan, ingest: Ingest) -> u64 {
    match ingest.per_request {
        ..10 => plan.records / 10,
        10..100 => plan.records / 2,
        _ => plan.records,
    }
}

/// Measures it once.
pub(crate) fn measure(plan: &Plan, case: &Case, ingest: Ingest, round: u32) -> anyhow::Result<Sample> {
    let topic = format!("bench-{}-{}-{round}", case.name, std::process::id());
    topic::create(&plan.brokers, &topic)?;
    let measured = load(plan, case, ingest, &topic);
    topic::delete(&plan.brokers, &topic)?;
    measured
}

fn load(plan: &Plan, case: &Case, ingest: Ingest, topic: &str) -> anyhow::Result<Sample> {
    let identity = identity(&plan.work)?;
    let ports = Ports { grpc: plan.port + 1, http: plan.port + 2 };
    let mut command = case.program.ingest(plan, topic, ingest, &identity, ports)?;
    let mut program = Process::start(&mut command, plan.work.join(format!("{}.log", case.name)))?;
    let address = format!("127.0.0.1:{}", ports.grpc);
    let start = Instant::now();
    while TcpStream::connect(&address).is_err() {
        program.check()?;
        ensure!(start.elapsed() < START_MAX, "it does not listen: {}", program.output());
        thread::sleep(Duration::from_millis(20));
    }
    let profile = Profile::start(&program, &plan.work)?;
    let broker = process::of_stack(&plan.stack_work, "kafka")?;
    let (before, broker_before) = (program.usage()?.cpu_s, process::usage(broker)?.cpu_s);

    let mut command = Command::new(std::env::current_exe()?);
    command.args(["load", "--address", &address, "--encoding", ingest.encoding]);
    command.args(["--records", &records(plan, ingest).to_string(), "--per-request", &ingest.per_request.to_string()]);
    if ingest.has_tls {
        command.arg("--ca").arg(&identity.certificate);
    }
    let mut generator = Process::start(&mut command, plan.work.join("load.log"))?;
    let status = generator.wait(LOAD_MAX)?;
    let usage = program.usage()?;
    profile.stop()?;
    let broker_cpu = process::usage(broker)?.cpu_s - broker_before;
    let output = generator.output();
    ensure!(status.success(), "the load generator: {status}: {output}{}", program.output());
    let figures = Figures::parse(&output).context("the load generator told no figures")?;

    let (acked, found) = (figures.get("requests")?, topic::messages(&plan.brokers, topic)?);
    ensure!(found as f64 >= acked, "{acked} requests were acknowledged and {found} messages lie in the topic");
    if case.program == Program::Server {
        let status = program.stop()?;
        ensure!(status.success(), "it ended with {status}: {}", program.output());
    }
    let records = figures.get("records")?;
    let millions = records / 1e6;
    Ok(Sample {
        cpu_s: (usage.cpu_s - before) / millions,
        records_per_s: records / figures.get("seconds")?,
        peak_mb: usage.peak_mb,
        p50_ms: Some(figures.get("p50_ms")?),
        p99_ms: Some(figures.get("p99_ms")?),
        refused: figures.get("refused")?,
        load_cpu_s: Some(figures.get("cpu_s")? / millions),
        broker_cpu_s: Some(broker_cpu / millions),
        ..Sample::default()
    })
}

/// A certificate for the loopback address, which is its own authority; made once.
fn identity(work: &Path) -> anyhow::Result<Identity> {
    let file = |name: &str| -> PathBuf { work.join(name) };
    let identity = Identity { certificate: file("server.pem"), key: file("server.key") };
    if identity.certificate.exists() {
        return Ok(identity);
    }
    let config = file("openssl.cnf");
    fs::write(
        &config,
        "[req]\ndistinguished_name = name\n[name]\n[own]\nbasicConstraints = critical, CA:FALSE\nsubjectAltName = IP:127.0.0.1\n",
    )?;
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=bench", "-extensions", "own", "-config"])
        .args([&config, Path::new("-keyout"), &identity.key, Path::new("-out"), &identity.certificate])
        .output()
        .context("openssl")?;
    ensure!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
    Ok(identity)
}
