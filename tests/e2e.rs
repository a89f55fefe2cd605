//! The stories of the product, from the first line of an application to a search hit, on real servers.
//!
//! One module a subject; each test is one story. Stories run side by side, so each has its own service name, topic, data
//! stream and server. What kills or pauses a shared server is in `faults.rs`.

/// One process: the axum example, kill -9, the page, the counters.
mod standalone;

/// Kafka, Elasticsearch and etcd: both ways in, and roles in processes of their own.
mod cluster;

/// Messages that no index takes, and what a person does with them.
mod poison;

/// A drain that is told to stop while requests to the index are under way.
mod shutdown;

/// Rules that change in running processes.
mod rules;

/// Servers that take events in come, go and die, and the library finds them through etcd.
mod discovery;

/// The same without etcd: an application is given a list.
mod list;

/// A service that floods, beside a small one; one that is over its rate.
mod limits;

/// Others' programs at our doors: the OpenTelemetry SDKs for Python and Go, OTLP over HTTP by hand.
mod sdk;

/// A real OpenTelemetry Collector between the library and the server.
mod collector;

/// Whose work an event was part of: `traceparent` beside requests and messages.
mod trace;

/// Headers of messages that other programs write.
mod headers;

/// A topic of JSON lines, by a real rsyslog and as others write them.
mod lines;

/// Our bytes before others' eyes: a Kafka message decoded with the official OTLP types.
mod wire;

/// The project's examples, run as their headers say.
mod examples;

/// What is wrong is said in one clear sentence, and nothing that was accepted is lost.
mod refusals;

/// Clients that connect and do not get on with it.
mod doors;

/// What operators look at, before a real Prometheus: the panels of the dashboard, and the alerts.
mod prometheus;

/// TLS from the application to the server and from the command to the server; certificates that are not right.
mod tls;

/// The oracle.
mod numbers;

/// Faults between the server and Elasticsearch.
#[path = "../logsink-server/tests/bulk/proxy.rs"]
mod proxy;
