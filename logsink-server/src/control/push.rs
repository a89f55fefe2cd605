//! Rules pushed to subscribed processes: the server's half of `logsink.v1.RulesService`.

use std::{sync::Arc, time::Duration};

use logsink::proto::v1::{SubscribeRequest, SubscribeResponse};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

pub use super::proto::rules_service_server::RulesServiceServer;
use super::{Control, SERVICE_BYTES_MAX, proto::rules_service_server::RulesService};

/// A subscriber says who it is at once, or is none.
const FIRST_REPORT_WITHIN: Duration = Duration::from_secs(10);

/// The service to add to the gRPC server. Call [`Control::close`] before the server is to stop.
pub fn service(control: Arc<Control>) -> RulesServiceServer<Push> {
    RulesServiceServer::new(Push { control })
}

/// The service's implementation.
pub struct Push {
    control: Arc<Control>,
}

#[tonic::async_trait]
impl RulesService for Push {
    type SubscribeStream = ReceiverStream<Result<SubscribeResponse, Status>>;

    async fn subscribe(
        &self,
        request: Request<Streaming<SubscribeRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let mut reports = request.into_inner();
        let first = match timeout(FIRST_REPORT_WITHIN, reports.message()).await {
            Ok(first) => {
                first?.ok_or_else(|| Status::invalid_argument("the subscription ended before its first report"))?
            }
            Err(_) => return Err(Status::deadline_exceeded("the subscription sent no report")),
        };
        if first.service.len() > SERVICE_BYTES_MAX {
            return Err(Status::invalid_argument(format!("a service's name has at most {SERVICE_BYTES_MAX} bytes")));
        }
        // One set of rules waiting: a subscriber that reads slowly is given the newest when it reads again.
        let (rules, answers) = mpsc::channel(1);
        let subscription = Subscription { control: Arc::clone(&self.control), service: first.service.clone() };
        tokio::spawn(subscription.run(first, reports, rules));
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

struct Subscription {
    control: Arc<Control>,
    service: String,
}

/// Takes the process off the list, however the subscription ends.
struct Listed<'a> {
    control: &'a Control,
    number: u64,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.control.instances.leave(self.number);
        self.control.metrics.rules_subscribers.dec();
    }
}

impl Subscription {
    async fn run(
        self,
        first: SubscribeRequest,
        mut reports: Streaming<SubscribeRequest>,
        rules: mpsc::Sender<Result<SubscribeResponse, Status>>,
    ) {
        let listed = Listed { control: &self.control, number: self.control.instances.enter(first) };
        self.control.metrics.rules_subscribers.inc();
        let (mut store, mut closing) = (self.control.watch(), self.control.closing.subscribe());
        store.mark_changed();
        let mut sent = None;
        loop {
            tokio::select! {
                _ = closing.wait_for(|closing| *closing) => return,
                report = reports.message() => match report {
                    Ok(Some(report)) => self.control.instances.update(listed.number, report),
                    // It has gone, or the connection broke: either way it comes back by itself.
                    Ok(None) | Err(_) => return,
                },
                // Waits for room first, so that what is sent is the newest. A wait that is given up here loses neither.
                ready = async { (rules.reserve().await, store.changed().await) } => {
                    let (Ok(room), Ok(())) = ready else { return };
                    let documents = match &*store.borrow_and_update() {
                        Some(snapshot) => snapshot.for_service(&self.service),
                        None => continue,
                    };
                    if sent.as_ref() != Some(&documents) {
                        let sending = documents.clone();
                        sent = Some(documents);
                        room.send(Ok(SubscribeResponse {
                            revision: sending.revision,
                            global: sending.global,
                            service: sending.service,
                        }));
                    }
                }
            }
        }
    }
}
