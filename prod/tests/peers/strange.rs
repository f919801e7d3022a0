//! Callers and doors that speak nonsense.

use std::{
    io::{Read, Write},
    sync::Arc,
};

use axum::{
    Router, body::Body, http::StatusCode, response::Response as HttpResponse, routing::post,
};
use bytes::Bytes;
use http_body_util::Full;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use stormkeep::peers::Settings;
use stormkeep_core::env::CallError;

use crate::fixture::{PEER, anywhere, call, echo, echoed, listen, listen_with, network, read};

#[tokio::test]
async fn nonsense_is_turned_away_at_the_door() {
    let settings = Settings::default();
    let peer = listen(&settings, echo);
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let uri = format!("http://{}/peer/call", peer.address);
    let large = vec![0; 3 * 1024 * 1024];
    let to = PEER.0.to_string();
    let usual = [("stormkeep-to", to.as_str()), ("stormkeep-left-ms", "5000")];
    let mut other = usual;
    other[0].1 = "8";
    let mut timeless = usual;
    timeless[1].1 = "soon";
    for (headers, body, status, why) in [
        (&usual[..], &b"garbage"[..], StatusCode::BAD_REQUEST, "garbled"),
        (&usual[..], &[][..], StatusCode::BAD_REQUEST, "garbled"),
        // Of a later version.
        (&usual[..], &[2, 0, 0, 0, 0][..], StatusCode::BAD_REQUEST, "garbled"),
        // Its sum is right; it is no request.
        (&usual[..], &[1, 0, 0, 0, 0][..], StatusCode::BAD_REQUEST, "garbled"),
        (&usual[..], &large, StatusCode::BAD_REQUEST, "garbled"),
        (&usual[..1], b"", StatusCode::BAD_REQUEST, "garbled"),
        (&timeless[..], b"", StatusCode::BAD_REQUEST, "garbled"),
        (&usual[1..], b"", StatusCode::MISDIRECTED_REQUEST, "misdirected"),
        (&other[..], b"", StatusCode::MISDIRECTED_REQUEST, "misdirected"),
    ] {
        let mut request = http::Request::post(&uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body))).unwrap();
        let answer = client.request(request).await.unwrap();
        let said = answer.headers().get("stormkeep-turned-away").unwrap();
        assert_eq!((answer.status(), said.to_str().unwrap()), (status, why), "{headers:?}");
    }
    let elsewhere = format!("http://{}/streams/a", peer.address).parse().unwrap();
    assert_eq!(client.get(elsewhere).await.unwrap().status(), StatusCode::NOT_FOUND);
    // No HTTP at all: the connection is closed.
    let mut raw = std::net::TcpStream::connect(peer.address).unwrap();
    raw.write_all(b"\x00\x01\x02 what is this\r\n\r\n").unwrap();
    let mut said = Vec::new();
    raw.read_to_end(&mut said).unwrap();
    assert!(!said.starts_with(b"HTTP/1.1 200"), "{said:?}");
    assert_eq!(peer.seen(), 0);
    let (network, _) = network(&settings, peer.address).await;
    assert_eq!(call(&network, read(5)).await, echoed(5), "it still serves");
}

#[tokio::test]
async fn what_a_door_answers_is_no_better_than_it_is() {
    fn answer(status: u16, away: Option<&'static str>, body: &'static [u8]) -> HttpResponse {
        let mut answer = HttpResponse::new(Body::from(body));
        *answer.status_mut() = StatusCode::from_u16(status).unwrap();
        if let Some(away) = away {
            answer.headers_mut().insert("stormkeep-turned-away", away.parse().unwrap());
        }
        answer
    }
    for (status, away, body, due) in [
        (200, None, &b"garbage"[..], CallError::Unknown),
        (200, None, &[1, 0, 0, 0, 0][..], CallError::Unknown),
        (204, None, b"", CallError::Unknown),
        (500, None, b"", CallError::Unknown),
        // Of a proxy: nobody knows what is behind it.
        (401, None, b"", CallError::Unknown),
        (503, None, b"", CallError::Unknown),
        (503, Some("busy"), b"", CallError::Refused),
        (401, Some("stranger"), b"", CallError::Refused),
        (400, Some("for a reason of a later version"), b"", CallError::Refused),
    ] {
        let router =
            Router::new().route("/peer/call", post(async move || answer(status, away, body)));
        let door = listen_with(anywhere(), None, router, Arc::default());
        let (network, _) = network(&Settings::default(), door.address).await;
        assert_eq!(call(&network, read(0)).await, Err(due), "{status} {away:?} {body:?}");
    }
}
