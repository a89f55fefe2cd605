//! Rules pushed by the server that takes the events, over the connection that already leads there.
//!
//! A sink that knows no such service (any other OTLP server) is asked again once a minute: a newer version may come up
//! behind the same address.

use std::{fmt, future::Future, path::PathBuf, pin::Pin, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, transport::Channel};

use super::{Cache, Documents, Follower, Pause, RuleSource, stopped};
use crate::{
    proto::v1::{SubscribeRequest, rules_service_client::RulesServiceClient},
    reload::Reload,
    transport::Channels,
};

/// Between questions to a sink that has no rules to give.
const UNIMPLEMENTED_PAUSE: Duration = Duration::from_secs(60);
/// A server that restarts is back within seconds, and its rules are to be in force within one more.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Rules pushed by the server.
pub struct PushSource {
    channels: Channels,
    service: String,
    instance: String,
    cache: Option<Cache>,
}

impl PushSource {
    /// Rules for `service` over this channel, whose keep-alive shows a lost server. `instance` is what the server's list of
    /// instances calls this process. The last good rules are kept in `cache_dir`.
    pub fn new(
        channel: Channel,
        service: impl Into<String>,
        instance: impl Into<String>,
        cache_dir: Option<PathBuf>,
    ) -> Self {
        Self::over(Arc::new(move || Some(channel.clone())), service.into(), instance.into(), cache_dir)
    }

    /// The same where there are several servers: each subscription is to any of them.
    pub(crate) fn over(channels: Channels, service: String, instance: String, cache_dir: Option<PathBuf>) -> Self {
        let cache = cache_dir.map(|dir| Cache::new(&dir, &service));
        Self { channels, service, instance, cache }
    }

    async fn follow(&self, reload: Arc<Reload>) {
        let mut follower = Follower::start(reload, self.cache.clone()).await;
        let mut pause = Pause::new(PAUSE_FIRST, PAUSE_MAX);
        loop {
            match self.subscribe(&mut follower, &mut pause).await {
                Err(status) if status.code() == Code::Unimplemented => sleep(UNIMPLEMENTED_PAUSE).await,
                // The transport tells that the server is away; here nothing changes.
                Err(_) | Ok(()) => pause.wait().await,
            }
        }
    }

    /// One subscription, until the server or the connection ends it.
    async fn subscribe(&self, follower: &mut Follower, pause: &mut Pause) -> Result<(), Status> {
        let Some(channel) = (self.channels)() else { return Ok(()) };
        // One report under way and one waiting: each holds all there is to say.
        let (reports, outgoing) = mpsc::channel(2);
        let _ = reports.send(self.report(&follower.reload)).await;
        let mut client = RulesServiceClient::new(channel);
        let mut incoming = client.subscribe(ReceiverStream::new(outgoing)).await?.into_inner();
        while let Some(rules) = incoming.message().await? {
            pause.reset();
            let documents = Documents { revision: rules.revision, global: rules.global, service: rules.service };
            follower.receive(documents).await;
            if reports.send(self.report(&follower.reload)).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    fn report(&self, reload: &Reload) -> SubscribeRequest {
        let status = reload.status();
        let (refused_revision, error) = status.refused.map(|refused| (refused.revision, refused.error)).unzip();
        SubscribeRequest {
            service: self.service.clone(),
            instance: self.instance.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: status.revision,
            refused_revision: refused_revision.unwrap_or_default(),
            error: error.unwrap_or_default(),
        }
    }
}

impl fmt::Debug for PushSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushSource").field("service", &self.service).finish_non_exhaustive()
    }
}

impl RuleSource for PushSource {
    fn run(
        self: Box<Self>,
        reload: Arc<Reload>,
        mut stop: watch::Receiver<bool>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            tokio::select! {
                () = self.follow(reload) => {}
                () = stopped(&mut stop) => {}
            }
        })
    }
}
