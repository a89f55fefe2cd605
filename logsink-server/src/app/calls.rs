//! A gRPC call → its service. There are two, and nearly all calls are exports: these pass no router on their way.

use std::{convert::Infallible, pin::Pin, sync::Arc};

use http::{Request, Response};
use hyper::{body::Incoming, service::Service};
use tonic::{Status, body::Body, codegen::Service as _, server::NamedService};

use crate::{
    control::push::{Push, RulesServiceServer},
    ingest::{self, Ingest},
};

/// The services of the gRPC listener.
pub(super) struct Calls {
    /// None without the role ingest: then there is no listener.
    pub(super) ingest: Option<Arc<Ingest>>,
    pub(super) rules: RulesServiceServer<Push>,
}

impl Service<Request<Incoming>> for Calls {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let path = request.uri().path();
        match &self.ingest {
            Some(ingest) if path == ingest::grpc::EXPORT => {
                let ingest = Arc::clone(ingest);
                Box::pin(async move { Ok(ingest::grpc::export(&ingest, request).await) })
            }
            _ if is_of::<RulesServiceServer<Push>>(path) => self.rules.clone().call(request),
            _ => {
                let status = Status::unimplemented(format!("there is no {path}"));
                Box::pin(async move { Ok(status.into_http()) })
            }
        }
    }
}

/// Whether a path is that of a method of this service: `/SERVICE/METHOD`.
fn is_of<S: NamedService>(path: &str) -> bool {
    path.strip_prefix('/').and_then(|path| path.strip_prefix(S::NAME)).is_some_and(|rest| rest.starts_with('/'))
}
