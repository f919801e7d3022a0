//! Every end that an invocation may have, and what the core is told of it.

use std::{sync::Arc, time::Duration};

use futures::FutureExt;
use serde_json::json;
use stormkeep::push::{Handlers, Kind, LambdaSettings, Outcome, Settings, Via};
use stormkeep_core::{
    env::{DeliverError, Delivered, Handled, Handler},
    group::{Form, Target},
};

use super::{
    delivery,
    function::{End, Lambda},
    handlers, to_lambda,
};

const SOON: Duration = Duration::from_secs(10);

/// Delivers two events to a function that ends so.
async fn ends(
    end: impl Fn() -> End + Send + Sync + 'static,
) -> (Result<Delivered, DeliverError>, Handlers) {
    let function = Lambda::start(Arc::new(move |name, _| {
        assert_eq!(name, "scores");
        let end = end();
        async move { end }.boxed()
    }));
    let function = function.await;
    let handlers = handlers(&function.endpoint);
    let within = Duration::from_millis(if cfg!(debug_assertions) { 3000 } else { 1000 });
    (handlers.deliver(delivery(to_lambda(Form::Records), 2, within)).await, handlers)
}

#[tokio::test]
async fn an_answer_tells_of_each_event() {
    let (answer, handlers) = ends(|| End::Returns(json!(null))).await;
    assert_eq!(answer.unwrap().handled, [Handled::Yes, Handled::Yes]);
    assert_eq!(handlers.counts().pushes(Via::Lambda, Outcome::Handled), 1);
    let second = (1_700_000_000_000_001u64 << 12).to_string();
    let (answer, handlers) = ends(move || {
        End::Returns(json!({ "batchItemFailures": [{ "itemIdentifier": second, "reason": "no" }] }))
    })
    .await;
    assert_eq!(answer.unwrap().handled, [Handled::Yes, Handled::Failed("no".into())]);
    assert_eq!(handlers.counts().pushes(Via::Lambda, Outcome::Partial), 1);
}

#[tokio::test]
async fn a_function_that_fails_fails_the_batch() {
    let (answer, handlers) = ends(|| End::Errs("KeyError", "'points'".into())).await;
    assert_eq!(answer, Err(DeliverError::Failed("KeyError: 'points'".into())));
    let failed = Outcome::Trouble(Kind::FunctionError);
    assert_eq!(handlers.counts().pushes(Via::Lambda, failed), 1);
    assert_eq!(handlers.counts().ailments()[0].what, "KeyError: 'points'");
    let (answer, _) = ends(|| End::Returns(json!({ "batchItemFailures": "all" }))).await;
    assert!(matches!(answer, Err(DeliverError::Failed(_))), "{answer:?}");
}

#[tokio::test]
async fn what_the_service_refuses_has_its_kind_and_its_fix() {
    for (status, error, reason, kind) in [
        (
            429,
            "TooManyRequestsException",
            "ReservedFunctionConcurrentInvocationLimitExceeded",
            Kind::Reserved,
        ),
        (429, "TooManyRequestsException", "ConcurrentInvocationLimitExceeded", Kind::Concurrency),
        (429, "TooManyRequestsException", "CallerRateLimitExceeded", Kind::Rate),
        (429, "TooManyRequestsException", "FunctionInvocationRateLimitExceeded", Kind::Rate),
        (502, "EC2ThrottledException", "", Kind::Starting),
        (502, "ENILimitReachedException", "", Kind::Starting),
        (404, "ResourceNotFoundException", "", Kind::Missing),
        (403, "AccessDeniedException", "", Kind::Denied),
        (403, "ExpiredTokenException", "", Kind::Credentials),
        (502, "KMSDisabledException", "", Kind::Function),
        (500, "ServiceException", "", Kind::Service),
        (400, "InvalidRequestContentException", "", Kind::Refused),
        (413, "RequestTooLargeException", "", Kind::Refused),
    ] {
        let (answer, handlers) = ends(move || {
            End::Refused(
                status,
                error,
                json!({ "message": "words", "Reason": reason, "retryAfter": 7 }),
            )
        })
        .await;
        assert_eq!(
            handlers.counts().pushes(Via::Lambda, Outcome::Trouble(kind)),
            1,
            "{error} {reason}"
        );
        match kind {
            Kind::Reserved | Kind::Concurrency | Kind::Rate | Kind::Starting => {
                let retry_after = Some(Duration::from_secs(7));
                assert_eq!(
                    answer,
                    Err(DeliverError::Throttled { retry_after }),
                    "{error} {reason}"
                );
            }
            Kind::Refused => {
                let Err(DeliverError::Failed(what)) = answer else { panic!("{error}: {answer:?}") };
                assert!(what.contains("words"), "{what}");
            }
            _ => {
                let Err(DeliverError::Unreachable(what)) = answer else {
                    panic!("{error}: {answer:?}")
                };
                assert!(what.contains("words") && what.ends_with(kind.fix()), "{what}");
            }
        }
        let mut text = String::new();
        handlers.counts().render(&mut text);
        let ailing = format!("target=\"lambda\",why=\"{}\"}} 1", kind.label());
        assert!(text.contains(&ailing), "{text}");
    }
}

#[tokio::test]
async fn a_function_that_says_nothing_times_out_before_the_core_gives_up() {
    let (answer, handlers) = ends(|| End::Hangs).await;
    assert_eq!(answer, Err(DeliverError::TimedOut));
    assert_eq!(handlers.counts().pushes(Via::Lambda, Outcome::Trouble(Kind::Silent)), 1);
    assert_eq!(handlers.counts().pushes(Via::Lambda, Outcome::Abandoned), 0);
}

#[tokio::test]
async fn where_nobody_listens_nothing_was_handled() {
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let handlers = handlers(&endpoint);
    let answer = handlers.deliver(delivery(to_lambda(Form::Records), 1, SOON)).await;
    let Err(DeliverError::Unreachable(what)) = answer else { panic!("{answer:?}") };
    assert!(what.contains("check that the handler runs"), "{what}");
}

#[tokio::test]
async fn a_connection_that_breaks_leaves_it_open_what_was_handled() {
    let broken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", broken.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = broken.accept().await {
            // It reads the beginning of a request, and goes.
            let mut some = [0; 64];
            let _ = tokio::io::AsyncReadExt::read(&mut socket, &mut some).await;
        }
    });
    let handlers = handlers(&endpoint);
    let answer = handlers.deliver(delivery(to_lambda(Form::Records), 1, SOON)).await;
    assert!(matches!(answer, Err(DeliverError::Failed(_))), "{answer:?}");
    assert_eq!(handlers.counts().pushes(Via::Lambda, Outcome::Trouble(Kind::Broken)), 1);
}

#[tokio::test]
async fn an_arn_is_called_in_its_own_region_and_cloud_events_are_a_list() {
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let sees = seen.clone();
    let function = Lambda::start(Arc::new(move |name, payload: bytes::Bytes| {
        let batch: serde_json::Value = serde_json::from_slice(&payload).unwrap();
        sees.lock().unwrap().push((
            name,
            batch[0]["subject"].clone(),
            batch[1]["revision"].clone(),
        ));
        async { End::Returns(json!({})) }.boxed()
    }))
    .await;
    // Without a region of its own: the ARN has one.
    let settings = Settings {
        lambda: LambdaSettings { endpoint: Some(function.endpoint.clone()), ..Default::default() },
        ..Settings::default()
    };
    let credentials = aws_credential_types::Credentials::new("stand-in", "s", None, None, "tests");
    let handlers = Handlers::with_credentials(
        settings,
        aws_credential_types::provider::SharedCredentialsProvider::new(credentials),
    );
    let arn = "arn:aws:lambda:us-west-2:123456789012:function:scores:live";
    let target = Target::Lambda { function: arn.into(), form: Form::CloudEvents };
    handlers.deliver(delivery(target, 2, SOON)).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), [(arn.to_owned(), json!("player-1"), json!("1"))]);
}
