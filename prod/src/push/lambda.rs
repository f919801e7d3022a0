//! Lambda functions: a batch is one synchronous invocation.
//!
//! The SDK is told to repeat nothing: an invocation whose answer was lost may have done its work, and the core decides what
//! comes again. Its clients are made when a function is first called, one for each region, and anew when their credentials are
//! not taken: rotated credentials are used without a restart. An invocation that is given up goes on at the service.
//!
//! Sources: AWS Lambda API reference, "Invoke"; developer guide, "Lambda quotas"; read 2026-03.

use std::{collections::BTreeMap, sync::OnceLock, time::Duration};

use aws_config::Region;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_lambda::{
    Client,
    config::{
        SharedHttpClient, StalledStreamProtectionConfig, retry::RetryConfig, timeout::TimeoutConfig,
    },
    error::{ProvideErrorMetadata, SdkError},
    operation::{RequestId as _, invoke::InvokeError},
    primitives::Blob,
    types::{InvocationType, ThrottleReason},
};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use bytes::Bytes;
use hyper_util::client::legacy;
use stormkeep_core::consume::shortened;
use tokio::{sync::Mutex, time::Instant};
use tracing::info;

use super::{
    settings::LambdaSettings,
    trouble::{Kind, Trouble},
};
use crate::aws::{self, Access};

/// Bytes of the payload of a synchronous invocation at the most.
pub(super) const PAYLOAD_BYTES_MAX: usize = 6 * 1024 * 1024;
/// How often credentials are read anew at the most.
const RENEW_EVERY: Duration = Duration::from_secs(5);

/// See the module's docs.
pub(super) struct Functions {
    settings: LambdaSettings,
    credentials: Option<SharedCredentialsProvider>,
    http: OnceLock<SharedHttpClient>,
    /// By region; `None`: that of the settings or the surroundings.
    clients: Mutex<BTreeMap<Option<String>, (Client, Instant)>>,
}

impl Functions {
    pub(super) fn new(
        settings: LambdaSettings,
        credentials: Option<SharedCredentialsProvider>,
    ) -> Self {
        Functions { settings, credentials, http: OnceLock::new(), clients: Mutex::default() }
    }

    /// Invokes a function, by its name or ARN, and waits for its answer.
    pub(super) async fn invoke(
        &self,
        function: &str,
        body: Bytes,
        within: Duration,
    ) -> Result<Bytes, Trouble> {
        let region = region_of(function);
        let call = async {
            let client = self.client(region).await?;
            let invoke = client
                .invoke()
                .function_name(function)
                .invocation_type(InvocationType::RequestResponse)
                .payload(Blob::new(body));
            invoke.send().await.map_err(|error| trouble(&error))
        };
        let answer = match tokio::time::timeout(within, call).await {
            Ok(answer) => answer,
            Err(_) => Err(Trouble::new(Kind::Silent, format!("no answer within {within:?}"))),
        };
        if answer.as_ref().is_err_and(|trouble| trouble.kind == Kind::Credentials) {
            self.forget(region).await;
        }
        let answer = answer?;
        let payload = answer.payload.map(Blob::into_inner).unwrap_or_default();
        match answer.function_error {
            Some(kind) => Err(Trouble::new(Kind::FunctionError, function_error(&kind, &payload))),
            None => Ok(payload.into()),
        }
    }

    async fn client(&self, region: Option<&str>) -> Result<Client, Trouble> {
        let mut clients = self.clients.lock().await;
        let name = region.map(str::to_owned);
        if let Some((client, _)) = clients.get(&name) {
            return Ok(client.clone());
        }
        let settings = &self.settings;
        let http = self.http.get_or_init(|| aws::connections(settings.idle_connections_max));
        let asked = region.or(settings.region.as_deref());
        let access = Access {
            region: asked.map(|region| Region::new(region.to_owned())),
            endpoint: settings.endpoint.as_deref(),
            profile: settings.profile.as_deref(),
            credentials: self.credentials.clone(),
        };
        let config = aws::load(access, http).await;
        if config.region().is_none() {
            let what = "lambda.region: no AWS region is set, nor does the environment, a profile or the machine say one";
            return Err(Trouble::new(Kind::Settings, what));
        }
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(Duration::from_millis(settings.connect_timeout_ms))
            .build();
        let config = aws_sdk_lambda::config::Builder::from(&config)
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts)
            // A function says nothing until it has done its work.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .build();
        let client = Client::from_conf(config);
        clients.insert(name, (client.clone(), Instant::now()));
        Ok(client)
    }

    /// Reads the credentials anew with the next call, unless that was done a moment ago.
    async fn forget(&self, region: Option<&str>) {
        let mut clients = self.clients.lock().await;
        let name = region.map(str::to_owned);
        if clients.get(&name).is_some_and(|(_, since)| since.elapsed() >= RENEW_EVERY) {
            clients.remove(&name);
            info!("the credentials of Lambda were not taken: they are read anew");
        }
    }
}

/// The region that an ARN names: `arn:aws:lambda:eu-central-1:123456789012:function:scores`.
fn region_of(function: &str) -> Option<&str> {
    let mut parts = function.split(':');
    (parts.next() == Some("arn")).then(|| parts.nth(2)).flatten().filter(|r| !r.is_empty())
}

/// What a function that ended with an error said: `{"errorType": …, "errorMessage": …}`.
fn function_error(kind: &str, payload: &[u8]) -> String {
    let said: serde_json::Value = serde_json::from_slice(payload).unwrap_or_default();
    let text = |name: &str| said[name].as_str().map(shortened);
    match (text("errorType"), text("errorMessage")) {
        (Some(what), Some(message)) => format!("{what}: {message}"),
        (Some(text), None) | (None, Some(text)) => text,
        (None, None) => format!("{kind}: {}", shortened(&String::from_utf8_lossy(payload))),
    }
}

fn trouble(error: &SdkError<InvokeError, HttpResponse>) -> Trouble {
    let response = error.raw_response();
    let status = response.map(|response| response.status().as_u16());
    let kind = match error {
        SdkError::ServiceError(_) => match (error.as_service_error(), error.code()) {
            (Some(InvokeError::TooManyRequestsException(e)), _) => throttled(e.reason()),
            (_, Some(code)) if aws::is_of_clock(code, error.message()) => Kind::Clock,
            (_, Some(code)) => by_code(code, status),
            (_, None) => by_status(status),
        },
        SdkError::TimeoutError(_) => Kind::Silent,
        _ if aws::is_unsigned(error) => Kind::Credentials,
        SdkError::ConstructionFailure(_) => Kind::Settings,
        // The one time limit of a client is that of its connections.
        SdkError::DispatchFailure(failure) if failure.is_timeout() => Kind::Unreachable,
        SdkError::DispatchFailure(_) if never_connected(error) => Kind::Unreachable,
        SdkError::DispatchFailure(_) => Kind::Broken,
        _ => by_status(status),
    };
    let mut what = aws::words(error);
    if let Some(id) = error.request_id() {
        what = format!("{what} (request {id})");
    }
    let seconds = response.and_then(|response| response.headers().get("retry-after"));
    let retry_after = seconds.and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs);
    Trouble::new(kind, what).after(retry_after)
}

/// Whether it was the making of the connection that failed.
fn never_connected(error: &(dyn std::error::Error + 'static)) -> bool {
    aws::causes(error)
        .filter_map(|cause| cause.downcast_ref::<legacy::Error>())
        .any(legacy::Error::is_connect)
}

fn throttled(reason: Option<&ThrottleReason>) -> Kind {
    match reason {
        Some(
            ThrottleReason::ReservedFunctionConcurrentInvocationLimitExceeded
            | ThrottleReason::ReservedFunctionInvocationRateLimitExceeded,
        ) => Kind::Reserved,
        Some(ThrottleReason::ConcurrentInvocationLimitExceeded) => Kind::Concurrency,
        Some(
            ThrottleReason::CallerRateLimitExceeded
            | ThrottleReason::FunctionInvocationRateLimitExceeded,
        ) => Kind::Rate,
        Some(ThrottleReason::ConcurrentSnapshotCreateLimitExceeded) => Kind::Starting,
        _ => Kind::Busy,
    }
}

/// By the service's name of the error.
fn by_code(code: &str, status: Option<u16>) -> Kind {
    match code {
        code if aws::is_of_permission(code) => Kind::Denied,
        code if aws::is_of_clock(code, None) => Kind::Clock,
        code if aws::is_of_credentials(code) => Kind::Credentials,
        "ResourceNotFoundException" | "NoPublishedVersionException" => Kind::Missing,
        "RequestTooLargeException"
        | "SerializedRequestEntityTooLargeException"
        | "InvalidRequestContentException"
        | "UnsupportedMediaTypeException" => Kind::Refused,
        "InvalidParameterValueException" | "ValidationException" => Kind::Settings,
        "ThrottlingException" | "Throttling" | "RequestLimitExceeded" => Kind::Rate,
        "EC2ThrottledException"
        | "ENILimitReachedException"
        | "ENINotReadyException"
        | "SubnetIPAddressLimitReachedException"
        | "SnapStartNotReadyException"
        | "SnapStartTimeoutException"
        | "ResourceNotReadyException"
        | "ResourceConflictException"
        | "CodeArtifactUserPendingException"
        | "ServiceQuotaExceededException" => Kind::Starting,
        "RecursiveInvocationException"
        | "ModeNotSupportedException"
        | "InvalidRuntimeException"
        | "InvalidSecurityGroupIDException"
        | "InvalidSubnetIDException"
        | "InvalidZipFileException" => Kind::Function,
        code if ["EC2", "EFS", "KMS", "S3Files", "SnapStart", "CodeArtifact"]
            .iter()
            .any(|of| code.starts_with(of)) =>
        {
            Kind::Function
        }
        _ => by_status(status),
    }
}

/// An answer without a name that is known: of a proxy, perhaps.
fn by_status(status: Option<u16>) -> Kind {
    match status {
        Some(429) => Kind::Busy,
        Some(413) => Kind::Refused,
        _ => Kind::Service,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_of_the_service_has_its_kind() {
        for (code, status, kind) in [
            ("ResourceNotFoundException", 404, Kind::Missing),
            ("AccessDeniedException", 403, Kind::Denied),
            ("ExpiredTokenException", 403, Kind::Credentials),
            ("UnrecognizedClientException", 403, Kind::Credentials),
            ("RequestExpired", 400, Kind::Clock),
            ("RequestTooLargeException", 413, Kind::Refused),
            ("InvalidRequestContentException", 400, Kind::Refused),
            ("InvalidParameterValueException", 400, Kind::Settings),
            ("EC2ThrottledException", 502, Kind::Starting),
            ("ENILimitReachedException", 502, Kind::Starting),
            ("ResourceNotReadyException", 502, Kind::Starting),
            ("KMSDisabledException", 502, Kind::Function),
            ("EFSMountTimeoutException", 408, Kind::Function),
            ("EC2AccessDeniedException", 502, Kind::Function),
            ("RecursiveInvocationException", 400, Kind::Function),
            ("ServiceException", 500, Kind::Service),
            ("SomethingNew", 400, Kind::Service),
            ("SomethingNew", 429, Kind::Busy),
        ] {
            assert_eq!(by_code(code, Some(status)), kind, "{code}");
        }
        assert_eq!(by_status(None), Kind::Service);
    }

    #[test]
    fn each_reason_of_a_throttle_has_its_kind() {
        for (reason, kind) in [
            ("ReservedFunctionConcurrentInvocationLimitExceeded", Kind::Reserved),
            ("ReservedFunctionInvocationRateLimitExceeded", Kind::Reserved),
            ("ConcurrentInvocationLimitExceeded", Kind::Concurrency),
            ("CallerRateLimitExceeded", Kind::Rate),
            ("FunctionInvocationRateLimitExceeded", Kind::Rate),
            ("ConcurrentSnapshotCreateLimitExceeded", Kind::Starting),
            ("SomethingNew", Kind::Busy),
        ] {
            assert_eq!(throttled(Some(&ThrottleReason::from(reason))), kind, "{reason}");
        }
        assert_eq!(throttled(None), Kind::Busy);
    }

    #[test]
    fn an_arn_says_its_region() {
        let arn = "arn:aws:lambda:eu-central-1:123456789012:function:scores:live";
        assert_eq!(region_of(arn), Some("eu-central-1"));
        for name in ["scores", "scores:live", "123456789012:function:scores", "arn:aws:lambda"] {
            assert_eq!(region_of(name), None, "{name}");
        }
    }

    #[test]
    fn what_a_function_said_is_told() {
        let said = br#"{"errorType":"KeyError","errorMessage":"'points'","stackTrace":[]}"#;
        assert_eq!(function_error("Unhandled", said), "KeyError: 'points'");
        assert_eq!(function_error("Unhandled", b"{\"errorMessage\":\"out\"}"), "out");
        assert_eq!(function_error("Unhandled", b"gone"), "Unhandled: gone");
    }
}
