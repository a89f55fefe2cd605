//! Messages as a service sends them, the same ones in every run. Written by hand: the official types would take longer to build
//! than all that is measured.

use logsink_transcode::queue::{Headers, Message, Position};

/// A message of so many records.
pub(crate) fn message(index: u32, records: u32) -> Message {
    let mut random = Random(u64::from(index) + 1);
    let mut resource = Fields::default();
    for (key, value) in [
        ("service.name", "checkout"),
        ("service.version", "1.42.0"),
        ("service.instance.id", "checkout-7d9f8b6c5d-x2x9q"),
        ("deployment.environment.name", "production"),
        ("host.name", "ip-10-0-12-34"),
        ("telemetry.sdk.name", "logsink"),
    ] {
        resource.bytes(1, &pair(key, &text(value)));
    }
    resource.bytes(1, &pair("process.pid", &int(4_711)));
    let mut scope_logs = Fields::default();
    scope_logs.bytes(1, &Fields::default().bytes(1, b"checkout::http").0);
    for n in 0..records {
        scope_logs.bytes(2, &record(&mut random, index * records + n).0);
    }
    let mut resource_logs = Fields::default();
    resource_logs.bytes(1, &resource.0).bytes(2, &scope_logs.0);
    let mut request = Fields::default();
    request.bytes(1, &resource_logs.0);
    Message {
        position: Position { partition: 1, offset: i64::from(index) },
        payload: request.0.into(),
        headers: Headers::default(),
        dropped: Vec::new(),
    }
}

fn record(random: &mut Random, n: u32) -> Fields {
    const PATHS: [&str; 4] = ["/api/v1/orders", "/api/v1/orders/items", "/api/v1/payments/confirm", "/api/v1/carts"];
    const WORDS: [&str; 8] =
        ["request", "finished", "payment", "for order", "\"retry\"", "after", "timeout of", "upstream"];
    let mut body = String::new();
    let length = 60 + random.below(140) as usize;
    while body.len() < length {
        body.push_str(WORDS[random.below(8) as usize]);
        body.push(' ');
    }
    body.truncate(length);
    let time = 1_767_225_600_000_000_000 + u64::from(n) * 1_234_567;
    let mut record = Fields::default();
    record.fixed64(1, time).varint(2, 9).bytes(3, b"INFO").bytes(5, &text(&body).0);
    for (key, value) in [
        ("target", text("checkout::http::server::respond")),
        ("code.file.path", text("crates/checkout/src/http/server.rs")),
        ("code.line.number", int(217)),
        ("thread.name", text("tokio-runtime-worker")),
        ("http.request.method", text("POST")),
        ("url.path", text(PATHS[random.below(4) as usize])),
        ("http.response.status_code", int(200 + random.below(4) * 100)),
        ("user_id", int(random.below(1 << 40))),
        ("latency_ms", double(random.below(1 << 20) as f64 / 1_000.0)),
        ("cache_hit", boolean(random.below(2) == 0)),
    ] {
        record.bytes(6, &pair(key, &value));
    }
    record.fixed32(8, 1);
    record.bytes(9, &[random.next().to_be_bytes(), random.next().to_be_bytes()].concat());
    record.bytes(10, &random.next().to_be_bytes()).fixed64(11, time + 1_000);
    record
}

fn pair(key: &str, value: &Fields) -> Vec<u8> {
    std::mem::take(&mut Fields::default().bytes(1, key.as_bytes()).bytes(2, &value.0).0)
}

fn text(text: &str) -> Fields {
    std::mem::take(Fields::default().bytes(1, text.as_bytes()))
}

fn boolean(value: bool) -> Fields {
    std::mem::take(Fields::default().varint(2, value.into()))
}

fn int(value: u64) -> Fields {
    std::mem::take(Fields::default().varint(3, value))
}

fn double(value: f64) -> Fields {
    std::mem::take(Fields::default().fixed64(4, value.to_bits()))
}

/// The fields of a message.
#[derive(Default)]
struct Fields(Vec<u8>);

impl Fields {
    fn varint(&mut self, field: u8, value: u64) -> &mut Self {
        self.0.push(field << 3);
        self.raw_varint(value)
    }

    fn fixed64(&mut self, field: u8, value: u64) -> &mut Self {
        self.0.push(field << 3 | 1);
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn bytes(&mut self, field: u8, bytes: &[u8]) -> &mut Self {
        self.0.push(field << 3 | 2);
        self.raw_varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    fn fixed32(&mut self, field: u8, value: u32) -> &mut Self {
        self.0.push(field << 3 | 5);
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn raw_varint(&mut self, mut value: u64) -> &mut Self {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
        self
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
