//! What the services of AWS have in common: where they are, who asks, and what their errors say.

use std::error::Error;

use aws_config::{
    BehaviorVersion, Region, SdkConfig, profile::ProfileFileCredentialsProvider,
    provider_config::ProviderConfig,
};
use aws_credential_types::provider::{SharedCredentialsProvider, error::CredentialsError};
use aws_sdk_kinesis::config::SharedHttpClient;
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, rustls_provider::CryptoMode},
};

/// Where a service is, and who asks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Access<'a> {
    /// Not set: that of the environment, of the profile, or of the machine.
    pub(crate) region: Option<Region>,
    /// Not set: that of AWS.
    pub(crate) endpoint: Option<&'a str>,
    /// Not set: the usual chain.
    pub(crate) profile: Option<&'a str>,
    /// Stronger than all others, if given.
    pub(crate) credentials: Option<SharedCredentialsProvider>,
}

/// Connections, of which so many to a host are kept open without use.
pub(crate) fn connections(idle_max: usize) -> SharedHttpClient {
    Builder::new()
        .pool_max_idle_per_host(idle_max)
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .build_https()
}

/// Reads the region and finds whoever gives credentials. Credentials themselves are asked for with the first call.
pub(crate) async fn load(access: Access<'_>, http: &SharedHttpClient) -> SdkConfig {
    let Access { region, endpoint, profile, credentials } = access;
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12()).http_client(http.clone());
    if let Some(region) = region.clone() {
        loader = loader.region(region);
    }
    if let Some(profile) = profile {
        // Named by the operator, it comes before what the environment happens to say.
        let base = ProviderConfig::without_region().with_http_client(http.clone());
        let files = ProfileFileCredentialsProvider::builder().configure(&base.with_region(region));
        loader =
            loader.profile_name(profile).credentials_provider(files.profile_name(profile).build());
    }
    if let Some(credentials) = credentials {
        loader = loader.credentials_provider(credentials);
    }
    if let Some(endpoint) = endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    loader.load().await
}

/// Whether an error says that credentials are missing, expired or unknown. Source: AWS, "Common Errors"; read 2026-03.
pub(crate) fn is_of_credentials(code: &str) -> bool {
    matches!(
        code,
        "ExpiredTokenException"
            | "ExpiredToken"
            | "UnrecognizedClientException"
            | "InvalidClientTokenId"
            | "InvalidAccessKeyId"
            | "IncompleteSignature"
            | "IncompleteSignatureException"
            | "MissingAuthenticationToken"
            | "MissingAuthenticationTokenException"
            | "InvalidSignatureException"
            | "SignatureDoesNotMatch"
    )
}

/// Whether an error says that the clock of this machine is wrong. A signature of a wrong clock has an error code of its own only
/// in some services: "Signature expired: … is now earlier than …", "Signature not yet current: …".
pub(crate) fn is_of_clock(code: &str, message: Option<&str>) -> bool {
    let speaks_of_time = || {
        message.is_some_and(|m| m.contains("Signature expired") || m.contains("not yet current"))
    };
    matches!(code, "RequestExpired" | "RequestTimeTooSkewed" | "RequestInTheFuture")
        || (code == "InvalidSignatureException" && speaks_of_time())
}

/// Whether an error says that the credentials do not allow the action.
pub(crate) fn is_of_permission(code: &str) -> bool {
    matches!(code, "AccessDeniedException" | "AccessDenied" | "NotAuthorized" | "OptInRequired")
}

/// Whether an error is certain to come before anything was sent: the request could not be signed.
pub(crate) fn is_unsigned(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(|error| error.is::<CredentialsError>())
}

/// An error and what brought it about, from the outside in.
pub(crate) fn causes<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let source: fn(&&'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> =
        |error| (*error).source();
    std::iter::successors(Some(error), source)
}

/// All that an error says, from the outside in.
pub(crate) fn words(error: &(dyn Error + 'static)) -> String {
    let mut words = String::new();
    for error in causes(error) {
        let more = error.to_string();
        if words.is_empty() {
            words = more;
        } else if !words.contains(&more) {
            words = format!("{words}: {more}");
        }
    }
    words
}
