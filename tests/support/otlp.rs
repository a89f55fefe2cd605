//! Exports over both of OTLP's doors, once and without a retry, and all that the answer says.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use prost::Message;
use tonic::{client::Grpc, codegen::http::uri::PathAndQuery, transport::Channel};

use crate::{Server, http};

/// A request that hangs would hang its story.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Which way in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// OTLP over gRPC.
    Grpc,
    /// OTLP over HTTP, protobuf.
    Http,
}

/// An answer that is no success.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// The code of gRPC, or HTTP's status.
    pub code: u16,
    /// When to come again: `RetryInfo` of gRPC, `Retry-After` of HTTP.
    pub wait: Option<Duration>,
    /// The words.
    pub message: String,
}

/// What gRPC answers a service that is to come later.
pub const RESOURCE_EXHAUSTED: u16 = 8;

impl Door {
    /// Sends a request.
    ///
    /// # Errors
    /// When the server does not take it.
    ///
    /// # Panics
    /// When there is no answer.
    pub fn export(self, server: &Server, request: &ExportLogsServiceRequest) -> Result<(), Refusal> {
        self.export_with(server, request, &[])
    }

    /// Sends a request with these headers, of HTTP, or metadata, of gRPC.
    ///
    /// # Errors
    /// As [`Door::export`].
    ///
    /// # Panics
    /// As [`Door::export`].
    pub fn export_with(
        self,
        server: &Server,
        request: &ExportLogsServiceRequest,
        headers: &[(&'static str, &str)],
    ) -> Result<(), Refusal> {
        match self {
            Self::Http => over_http(&server.http_url("/v1/logs"), request, headers),
            Self::Grpc => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(over_grpc(server.grpc_url(), request.clone(), headers))
            }
        }
    }
}

fn over_http(url: &str, request: &ExportLogsServiceRequest, headers: &[(&str, &str)]) -> Result<(), Refusal> {
    let headers = [&[("content-type", "application/x-protobuf")], headers].concat();
    let answer = http::post_with(url, &headers, request.encode_to_vec()).expect("the server answers");
    if answer.status == 200 {
        return Ok(());
    }
    let wait = answer.headers.get("retry-after").map(|wait| wait.to_str().expect("text").parse().expect("seconds"));
    Err(Refusal { code: answer.status, wait: wait.map(Duration::from_secs), message: answer.body })
}

async fn over_grpc(
    url: String,
    request: ExportLogsServiceRequest,
    headers: &[(&'static str, &str)],
) -> Result<(), Refusal> {
    let channel = Channel::from_shared(url).expect("a URL").timeout(TIMEOUT).connect().await.expect("it connects");
    let mut client = Grpc::new(channel);
    client.ready().await.expect("it is ready");
    let path = PathAndQuery::from_static("/opentelemetry.proto.collector.logs.v1.LogsService/Export");
    let codec = tonic_prost::ProstCodec::<_, ExportLogsServiceResponse>::default();
    let mut request = tonic::Request::new(request);
    for (name, value) in headers {
        request.metadata_mut().insert(*name, value.parse().expect("metadata"));
    }
    let answer = client.unary(request, path, codec).await;
    answer.map(drop).map_err(|status| Refusal {
        code: status.code() as u16,
        wait: retry_delay(status.details()),
        message: status.message().to_owned(),
    })
}

/// The delay of the `RetryInfo` in a `google.rpc.Status`.
fn retry_delay(details: &[u8]) -> Option<Duration> {
    let status = Status::decode(details).expect("a google.rpc.Status");
    let info = status.details.iter().find(|any| any.type_url.ends_with("google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(info.value.as_slice()).expect("a RetryInfo").retry_delay?;
    Some(Duration::new(delay.seconds as u64, delay.nanos as u32))
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Delay>,
}

#[derive(Clone, PartialEq, Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}
