# Every command that a user, a developer or CI runs. `make` alone lists them.

.DEFAULT_GOAL := help
.PHONY: help demo build check fmt clippy features doc deny msrv deploy-check check-instructions test test-versions test-unit faults models sanitize memcheck bench bench-instructions bench-library bench-server bench-peers stack stack-stop clean
SHELL := /bin/bash

# Everything, Kafka over TLS included, which needs OpenSSL's headers. In this form cargo builds one set of artifacts for every
# recipe.
FEATURES := logsink/kafka-ssl,logsink/etcd,logsink/opentelemetry,logsink-server/real-servers
# Where cargo-deny and the like are kept; the servers for the tests are in STACK_HOME [~/.cache/logsink-stack].
export LOGSINK_CACHE ?= $(HOME)/.cache/logsink-dev

help: ## list the recipes
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## standalone server, the axum example under its own traffic, a search; Ctrl-C ends it (ONCE=1: ends by itself)
	@dev/setup build
	@ONCE=$(ONCE) dev/demo

build: ## the server binary, optimised: target/release/logsink-server
	@dev/setup build
	cargo build --release -p logsink-server

check: setup-check fmt clippy features-check doc deny msrv deploy-check check-instructions ## what CI checks before the tests: fmt, clippy, features, docs, deny, MSRV, deploy files, instructions per event

.PHONY: setup-check
setup-check:
	@dev/setup check

fmt: ## formatting, checked only
	cargo fmt --all --check
	cargo fmt --manifest-path benches/peers/Cargo.toml --check

clippy: ## lints, warnings are errors: everything with all transports, and the library as users get it by default
	cargo clippy --workspace --all-targets --features $(FEATURES) -- -D warnings
	cargo clippy -p logsink --lib -- -D warnings

features: ## every set of the library's features by itself; how long the default one takes to build, and of what (minutes)
	@dev/setup check
	@dev/features powerset
	@dev/features time

.PHONY: features-check
features-check:
	@dev/features each
	@dev/features default

doc: ## documentation, warnings are errors
	@# The server is a program: its reader has the source, private items and all.
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --no-deps -p logsink -p logsink-server --features $(FEATURES)

deny: ## licences, sources and bans of the dependencies; advisories where their database can be reached
	@dev/setup check
	@dev/deny

msrv: ## rust-version in Cargo.toml against what the dependencies ask for
	@dev/msrv

deploy-check: ## the files below deploy/ parse
	@dev/deploy-check

check-instructions: ## instructions per event on the caller and per record in the server are those of benches/instructions.txt, within 3 %
	@dev/setup check
	@dev/instructions --check

test: ## real Kafka, Elasticsearch, OpenSearch and etcd on free ports, every test, and the servers stopped again
	@dev/setup test
	@FEATURES=$(FEATURES) dev/test $(TEST)

faults: ## what takes minutes, on servers of its own: restarts and scale-out under load, memory while Elasticsearch is away
	@dev/setup test
	@FEATURES=$(FEATURES) dev/test -p logsink-tests -p logsink-server --test faults --test endurance -- --nocapture --test-threads=1 $(FAULTS)

test-versions: ## the index's own tests on the last Elasticsearch 8 and 7 and OpenSearch 2
	@dev/setup test
	@FEATURES=$(FEATURES) dev/test-versions

test-unit: ## the unit tests, which need no server
	@dev/setup build
	cargo test --workspace --exclude logsink-models --features $(FEATURES) --lib --bins

models: ## every interleaving of the lock-free parts, by loom (part of `make test`)
	cargo test -p logsink-models

sanitize: ## the library's unit tests and the server's unsafe code under AddressSanitizer, with a nightly toolchain (minutes)
	@dev/sanitize

memcheck: ## the server's messages that lie in librdkafka's memory, on a real Kafka, under valgrind (minutes)
	@dev/setup check
	@dev/setup test
	@FEATURES=$(FEATURES) CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="valgrind -q --error-exitcode=9" dev/test --exclude logsink-transcode --exclude logsink-models --lib -- queue::kafka::tests::broker queue::kafka::tests::large

bench: ## the benches below benches/
	@dev/setup build
	cargo bench -p logsink-benches -p logsink-transcode

bench-instructions: ## instructions per event on the caller and per record in the server, by callgrind
	@dev/setup check
	dev/instructions

bench-library: ## the library beside its peers in one run: tables and a plot (BENCH=--quick for a short one)
	@dev/setup check
	@dev/bench-library $(BENCH)

bench-server: ## the server beside its peers and the machine's limits, on a real Kafka, in one run (QUICK=1, CASE=drain: see dev/bench-server)
	@dev/setup test
	@FEATURES=$(FEATURES) dev/bench-server

bench-peers: ## install the server's peers for `make bench-server`: the OpenTelemetry Collector and rsyslog
	@dev/setup test
	@dev/stack/stack install collector collector-drain rsyslog

stack: ## start the servers for working by hand, on their usual ports (dev/stack/stack for more)
	@dev/setup test
	@dev/stack/stack install kafka elasticsearch etcd && dev/stack/stack start kafka elasticsearch etcd && dev/stack/stack env

stack-stop: ## stop them
	@dev/stack/stack stop

clean: ## remove what cargo built
	cargo clean
