//! Webhooks: a batch is one HTTP POST, signed if there is a secret. Redirects are not followed.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};
use stormkeep_core::{consume::shortened, group::Form};

use super::{
    payload::content_type,
    settings::WebhookSettings,
    signature,
    trouble::{Kind, Trouble},
};
use crate::aws::words;

type Pool = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// See the module's docs.
pub(super) struct Webhooks {
    settings: WebhookSettings,
    /// Made with the first call.
    pool: OnceLock<Result<Connections, String>>,
}

struct Connections {
    pool: Pool,
    /// Why there is no TLS.
    no_tls: Option<String>,
}

/// One request.
pub(super) struct Call<'a> {
    pub(super) url: &'a str,
    pub(super) secret: Option<&'a str>,
    pub(super) form: Form,
    pub(super) id: String,
    pub(super) body: Bytes,
}

impl Webhooks {
    pub(super) fn new(settings: WebhookSettings) -> Self {
        Webhooks { settings, pool: OnceLock::new() }
    }

    /// Bytes of a body at the most.
    pub(super) fn bytes_max(&self) -> usize {
        self.settings.body_bytes_max
    }

    /// Sends a request, and waits for the whole answer. `None`: the answer is a success, and no JSON.
    pub(super) async fn post(
        &self,
        call: Call<'_>,
        within: Duration,
    ) -> Result<Option<Bytes>, Trouble> {
        let uri = address(call.url).map_err(|what| Trouble::new(Kind::Settings, what))?;
        let made = self.pool.get_or_init(|| connections(&self.settings));
        let Connections { pool, no_tls } =
            made.as_ref().map_err(|what| Trouble::new(Kind::Settings, what.clone()))?;
        if let Some(what) = no_tls
            && uri.scheme_str() == Some("https")
        {
            return Err(Trouble::new(Kind::Settings, what.clone()));
        }
        let request = request(uri, call, SystemTime::now())?;
        let exchange = async {
            let response = pool.request(request).await.map_err(|error| {
                let kind = if error.is_connect() { Kind::Unreachable } else { Kind::Broken };
                Trouble::new(kind, words(&error))
            })?;
            let (head, body) = response.into_parts();
            let body = self.read(body).await;
            judge(head.status, &head.headers, body)
        };
        match tokio::time::timeout(within, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(Trouble::new(Kind::Silent, format!("no answer within {within:?}"))),
        }
    }

    async fn read(&self, body: Incoming) -> Result<Bytes, Trouble> {
        let bytes_max = self.settings.answer_bytes_max;
        match Limited::new(body, bytes_max).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => {
                let what = format!("the answer has more than {bytes_max} bytes");
                Err(Trouble::new(Kind::Nonsense, what))
            }
            Err(error) => Err(Trouble::new(Kind::Broken, words(&*error))),
        }
    }
}

/// The address of a webhook, if it is one that can be called. The error does not repeat it: it may hold a secret.
pub fn address(url: &str) -> Result<Uri, String> {
    let uri: Result<Uri, _> = url.parse();
    match uri {
        Ok(uri)
            if matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.host().is_some_and(|host| !host.is_empty()) =>
        {
            Ok(uri)
        }
        _ => Err("the group's webhook is no address: write https://host/path".to_owned()),
    }
}

fn request(uri: Uri, call: Call<'_>, now: SystemTime) -> Result<Request<Full<Bytes>>, Trouble> {
    let wrong = |what: String| Trouble::new(Kind::Settings, what);
    let time_s = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut request = Request::post(uri)
        .header(header::CONTENT_TYPE, content_type(call.form))
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, concat!("stormkeep/", env!("CARGO_PKG_VERSION")))
        .header("webhook-id", &call.id)
        .header("webhook-timestamp", time_s);
    if let Some(secret) = call.secret {
        let key = signature::key(secret).map_err(|error| wrong(error.to_string()))?;
        let signed = signature::sign(&key, &call.id, time_s, &call.body);
        request = request.header("webhook-signature", signed);
    }
    request.body(Full::new(call.body)).map_err(|error| wrong(error.to_string()))
}

/// What an answer means.
fn judge(
    status: StatusCode,
    headers: &HeaderMap,
    body: Result<Bytes, Trouble>,
) -> Result<Option<Bytes>, Trouble> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let said = || match &body {
        Ok(body) if !body.is_empty() => {
            format!("{status}: {}", shortened(&String::from_utf8_lossy(body)))
        }
        _ => status.to_string(),
    };
    match status.as_u16() {
        200..=299 => {
            let kind = text(header::CONTENT_TYPE).unwrap_or_default();
            let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
            let is_json = kind == "application/json" || kind.ends_with("+json");
            body.map(|body| is_json.then_some(body))
        }
        429 | 503 => {
            let wait = text(header::RETRY_AFTER).and_then(|t| retry_after(t, SystemTime::now()));
            Err(Trouble::new(Kind::Busy, said()).after(wait))
        }
        300..=399 => Err(Trouble::new(Kind::Redirected, status.to_string())),
        _ => Err(Trouble::new(Kind::Status, said())),
    }
}

/// Seconds, or a date. Source: RFC 9110, section 10.2.3.
fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    match text.trim().parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => {
            let date = httpdate::parse_http_date(text.trim()).ok()?;
            Some(date.duration_since(now).unwrap_or_default())
        }
    }
}

fn connections(settings: &WebhookSettings) -> Result<Connections, String> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(Duration::from_millis(settings.connect_timeout_ms)));
    let (tls, no_tls) = match tls(settings) {
        Ok(tls) => (tls, None),
        // Plain HTTP needs no authorities.
        Err(what) => {
            let nobody = trusting(RootCertStore::empty())?;
            (HttpsConnectorBuilder::new().with_tls_config(nobody), Some(what))
        }
    };
    let connector = tls.https_or_http().enable_all_versions().wrap_connector(http);
    let pool = Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_max_idle_per_host(settings.idle_connections_max)
        .build(connector);
    Ok(Connections { pool, no_tls })
}

type Tls = HttpsConnectorBuilder<hyper_rustls::builderstates::WantsSchemes>;

fn tls(settings: &WebhookSettings) -> Result<Tls, String> {
    let builder = HttpsConnectorBuilder::new();
    let Some(file) = &settings.tls_authority else {
        return builder.with_provider_and_native_roots(ring::default_provider()).map_err(|error| {
            format!(
                "this machine trusts no certificate authority: {error}: install ca-certificates, or set webhook.tls_authority"
            )
        });
    };
    let wrong = |what: String| format!("webhook.tls_authority: {}: {what}", file.display());
    let mut roots = RootCertStore::empty();
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    let certificates: Vec<CertificateDer<'static>> = read.map_err(|e| wrong(e.to_string()))?;
    if certificates.is_empty() {
        return Err(wrong("there is no certificate in it".to_owned()));
    }
    for certificate in certificates {
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    Ok(builder.with_tls_config(trusting(roots)?))
}

fn trusting(roots: RootCertStore) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().map_err(|e| e.to_string())?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test: what is wrong here must stop it
mod tests {
    use super::*;

    fn answered(
        status: u16,
        headers: &[(&'static str, &str)],
        body: &str,
    ) -> Result<Option<Bytes>, Trouble> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        judge(
            StatusCode::from_u16(status).unwrap(),
            &map,
            Ok(Bytes::copy_from_slice(body.as_bytes())),
        )
    }

    #[test]
    fn each_status_has_its_kind() {
        let json = [("content-type", "application/json; charset=utf-8")];
        assert_eq!(answered(200, &json, "{}"), Ok(Some("{}".into())));
        assert_eq!(answered(202, &[("content-type", "text/html")], "{oh"), Ok(None));
        assert_eq!(answered(204, &[], ""), Ok(None));
        for (status, kind) in [
            (301, Kind::Redirected),
            (400, Kind::Status),
            (401, Kind::Status),
            (404, Kind::Status),
            (429, Kind::Busy),
            (500, Kind::Status),
            (502, Kind::Status),
            (503, Kind::Busy),
        ] {
            assert_eq!(answered(status, &[], "words").unwrap_err().kind, kind, "{status}");
        }
        assert_eq!(
            answered(422, &[], "no such player").unwrap_err().what,
            "422 Unprocessable Entity: no such player"
        );
    }

    #[test]
    fn a_busy_handler_says_when() {
        let after = |text| answered(503, &[("retry-after", text)], "").unwrap_err().retry_after;
        assert_eq!(after("7"), Some(Duration::from_secs(7)));
        assert_eq!(after("86400"), Some(super::super::trouble::RETRY_AFTER_MAX));
        assert_eq!(after("Fri, 31 Dec 1999 23:59:59 GMT"), Some(Duration::ZERO));
        assert_eq!(after("soon"), None);
        let then = UNIX_EPOCH + Duration::from_secs(946_684_790);
        let left = retry_after("Fri, 31 Dec 1999 23:59:59 GMT", then);
        assert_eq!(left, Some(Duration::from_secs(9)));
    }

    #[test]
    fn an_address_must_be_one() {
        for good in ["http://127.0.0.1:1/x?y=z", "https://example.com"] {
            assert!(address(good).is_ok(), "{good}");
        }
        for bad in ["", "example.com", "ftp://h/", "http://", "/path", "http://a b/"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_request_is_signed_over_what_it_carries() {
        let call = |secret| Call {
            url: "",
            secret,
            form: Form::CloudEvents,
            id: "msg_1".into(),
            body: Bytes::from_static(b"[]"),
        };
        let now = UNIX_EPOCH + Duration::from_secs(5);
        let uri: Uri = "http://h/".parse().unwrap();
        let made = request(uri.clone(), call(Some("secret")), now).unwrap();
        let of = |name: &str| made.headers().get(name).unwrap().to_str().unwrap().to_owned();
        assert_eq!(of("content-type"), "application/cloudevents-batch+json");
        assert_eq!((of("webhook-id"), of("webhook-timestamp")), ("msg_1".into(), "5".into()));
        assert_eq!(of("webhook-signature"), signature::sign(b"secret", "msg_1", 5, b"[]"));
        assert!(
            request(uri.clone(), call(None), now)
                .unwrap()
                .headers()
                .get("webhook-signature")
                .is_none()
        );
        assert_eq!(request(uri, call(Some("whsec_*")), now).unwrap_err().kind, Kind::Settings);
    }

    #[test]
    fn a_file_without_certificates_is_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let settings = WebhookSettings {
            tls_authority: Some(file.path().to_owned()),
            ..WebhookSettings::default()
        };
        let what = connections(&settings).unwrap().no_tls.unwrap();
        assert!(what.ends_with("there is no certificate in it"), "{what}");
    }
}
