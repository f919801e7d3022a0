//! The SDK's clients, set so that it hides nothing: no retries, every attempt with a time limit.
//!
//! The SDK would repeat a put whose answer was lost, and the caller would never learn that its outcome was unknown. The core
//! repeats instead, with the identical bytes.
//!
//! Credentials come from the usual chain. The SDK remembers what it read from a profile for as long as the process lives; so
//! when the service does not take the credentials, or there are none, everything is read anew: rotated credentials are
//! used without a restart.

use std::{
    future::Future,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aws_config::{Region, SdkConfig};
use aws_sdk_kinesis::{
    Client,
    config::{
        SharedHttpClient, StalledStreamProtectionConfig, retry::RetryConfig, timeout::TimeoutConfig,
    },
    error::{ProvideErrorMetadata, SdkError},
};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use tokio::time::Instant;
use tracing::info;

use super::{
    OpenError,
    health::Health,
    settings::Settings,
    trouble::{Kind, Trouble},
};
use crate::aws::{self, Access};

/// How often credentials are read anew at the most.
const RENEW_EVERY: Duration = Duration::from_secs(5);

/// One client for puts and one for everything else: they differ in their time limits. They share connections.
#[derive(Debug, Clone)]
struct Pair {
    put: Client,
    other: Client,
}

/// See the module's docs.
#[derive(Debug)]
pub(super) struct Clients {
    settings: Settings,
    region: Region,
    http: SharedHttpClient,
    current: Mutex<(Pair, Instant)>,
    health: Health,
}

impl Clients {
    pub(super) async fn new(settings: &Settings, health: Health) -> Result<Self, OpenError> {
        let http = aws::connections(settings.idle_connections_max);
        let configured = settings.region.clone().map(Region::new);
        let config = load(settings, configured, &http).await;
        let region = config.region().cloned().ok_or(OpenError::NoRegion)?;
        let current = Mutex::new((pair(settings, &config), Instant::now()));
        Ok(Clients { settings: settings.clone(), region, http, current, health })
    }

    /// The region that is used.
    pub(super) fn region(&self) -> &str {
        self.region.as_ref()
    }

    /// Makes a put.
    pub(super) async fn put<T, E, F>(
        &self,
        action: &'static str,
        call: impl FnOnce(Client) -> F,
    ) -> Result<T, Trouble>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    {
        let client = self.current().0.put.clone();
        self.judge(action, call(client).await).await
    }

    /// Makes any other call, and notes how it went.
    pub(super) async fn call<T, E, F>(
        &self,
        action: &'static str,
        call: impl FnOnce(Client) -> F,
    ) -> Result<T, Trouble>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    {
        let client = self.current().0.other.clone();
        self.judge(action, call(client).await).await
    }

    /// Makes a call whose *no* is no ailment.
    pub(super) async fn quiet<T, E, F>(&self, call: impl FnOnce(Client) -> F) -> Result<T, Trouble>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    {
        let client = self.current().0.other.clone();
        call(client).await.map_err(|error| Trouble::of(&error))
    }

    async fn judge<T, E>(
        &self,
        action: &'static str,
        result: Result<T, SdkError<E, HttpResponse>>,
    ) -> Result<T, Trouble>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        match result {
            Ok(answer) => {
                self.health.works(action);
                Ok(answer)
            }
            Err(error) => {
                let trouble = Trouble::of(&error);
                self.health.ails(action, &trouble);
                if trouble.kind == Kind::Credentials {
                    self.renew().await;
                }
                Err(trouble)
            }
        }
    }

    /// Reads the credentials anew, unless that was done a moment ago.
    async fn renew(&self) {
        {
            let mut current = self.current();
            if current.1.elapsed() < RENEW_EVERY {
                return;
            }
            current.1 = Instant::now();
        }
        let config = load(&self.settings, Some(self.region.clone()), &self.http).await;
        self.current().0 = pair(&self.settings, &config);
        info!("the credentials of the log service were not taken: they are read anew");
    }

    fn current(&self) -> MutexGuard<'_, (Pair, Instant)> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn load(settings: &Settings, region: Option<Region>, http: &SharedHttpClient) -> SdkConfig {
    let (endpoint, profile) = (settings.endpoint.as_deref(), settings.profile.as_deref());
    aws::load(Access { region, endpoint, profile, credentials: None }, http).await
}

fn pair(settings: &Settings, config: &SdkConfig) -> Pair {
    let client = |timeout| {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(Duration::from_millis(settings.connect_timeout_ms))
            .operation_attempt_timeout(timeout)
            .operation_timeout(timeout)
            .build();
        let config = aws_sdk_kinesis::config::Builder::from(config)
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts)
            // The time limits bound a stalled answer; a subscription may be quiet for seconds.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .build();
        Client::from_conf(config)
    };
    Pair { put: client(settings.put_timeout()), other: client(settings.read_timeout()) }
}
