//! Pushing events to handlers: Lambda functions and webhooks.
//!
//! The core decides what is given when, and what follows from each outcome; here a batch becomes a request, and the answer an
//! outcome. What is promised:
//! - a request is sent once: nothing here repeats one whose outcome is unknown;
//! - an event counts as handled only if its handler said so;
//! - no event is blamed for what is wrong between here and the handler: no permission, no connection, a service that is not
//!   well. Such batches come again whole, and what to mend is told;
//! - nothing is asked of AWS before a group has a Lambda function for its target.
//!
//! `docs/HANDLERS.md` says what a handler is sent and how it answers.

mod answer;
mod counts;
mod lambda;
mod payload;
mod settings;
mod signature;
mod trouble;
mod webhook;

use std::{sync::Arc, time::Duration};

use aws_credential_types::provider::SharedCredentialsProvider;
use stormkeep_core::{
    consume::Given,
    env::{DeliverError, Delivered, Delivery, Handled, Handler},
    group::{Form, Target},
};

pub use counts::{Ailment, Counts, Outcome, Via};
pub use settings::{InvalidSetting, LambdaSettings, Settings, WebhookSettings};
pub use signature::{InvalidSecret, key, sign};
pub use trouble::Kind;
pub use webhook::address;

use counts::Attempt;
use payload::Payload;
use trouble::Trouble;

/// What an adapter leaves of the core's time to itself, so that it is the one that sees a timeout: a tenth, and this at the most.
const MARGIN_MAX: Duration = Duration::from_secs(1);

/// See the module's docs. Clones share connections and counts.
#[derive(Clone)]
pub struct Handlers(Arc<Inner>);

struct Inner {
    lambda: lambda::Functions,
    webhook: webhook::Webhooks,
    counts: Counts,
}

impl Default for Handlers {
    fn default() -> Self {
        Handlers::new(Settings::default())
    }
}

impl Handlers {
    /// Handlers, of which none has been called. Lambda is asked with the credentials of the usual chain.
    pub fn new(settings: Settings) -> Self {
        Handlers::made(settings, None)
    }

    /// The same, for whoever embeds this and has credentials of its own.
    pub fn with_credentials(settings: Settings, credentials: SharedCredentialsProvider) -> Self {
        Handlers::made(settings, Some(credentials))
    }

    fn made(settings: Settings, credentials: Option<SharedCredentialsProvider>) -> Self {
        Handlers(Arc::new(Inner {
            lambda: lambda::Functions::new(settings.lambda, credentials),
            webhook: webhook::Webhooks::new(settings.webhook),
            counts: Counts::default(),
        }))
    }

    /// What was sent, how it ended, and what ails now.
    pub fn counts(&self) -> &Counts {
        &self.0.counts
    }

    async fn send(
        &self,
        delivery: &Delivery,
        payload: &Payload,
        attempt: &mut Attempt<'_>,
    ) -> Result<Vec<Handled>, Trouble> {
        let within = delivery.within - (delivery.within / 10).min(MARGIN_MAX);
        let body = payload.body.clone();
        let sent: Vec<&Given> = payload.sent.iter().map(|at| &delivery.events[*at]).collect();
        attempt.sends(sent.len(), body.len());
        match &delivery.target {
            Target::Consumers => Err(Trouble::new(Kind::Settings, "the group has no handler")),
            Target::Lambda { function, .. } => {
                let answer = self.0.lambda.invoke(function, body, within).await?;
                answer::read(&answer, &sent)
            }
            Target::Webhook { url, secret, form } => {
                let id = signature::message_id(&delivery.group, delivery.unit, &sent);
                let call = webhook::Call { url, secret: secret.as_deref(), form: *form, id, body };
                match self.0.webhook.post(call, within).await? {
                    Some(answer) => answer::read(&answer, &sent),
                    None => answer::read(b"", &sent),
                }
            }
        }
    }
}

impl Handler for Handlers {
    async fn deliver(&self, delivery: Delivery) -> Result<Delivered, DeliverError> {
        let (via, form, bytes_max) = match &delivery.target {
            Target::Consumers => (Via::Webhook, Form::default(), usize::MAX),
            Target::Lambda { form, .. } => (Via::Lambda, *form, lambda::PAYLOAD_BYTES_MAX),
            Target::Webhook { form, .. } => (Via::Webhook, *form, self.0.webhook.bytes_max()),
        };
        let payload = payload::encode(&delivery.group, &delivery.events, form, bytes_max);
        if payload.sent.is_empty() {
            return Ok(Delivered { handled: payload.handled });
        }
        let mut attempt = self.0.counts.begin(via);
        match self.send(&delivery, &payload, &mut attempt).await {
            Ok(handled) => {
                let all = handled.iter().all(|handled| *handled == Handled::Yes);
                attempt.ended(if all { Outcome::Handled } else { Outcome::Partial });
                self.0.counts.works(&delivery.group);
                Ok(Delivered { handled: payload.with(handled) })
            }
            Err(trouble) => {
                attempt.ended(Outcome::Trouble(trouble.kind));
                self.0.counts.ails(&delivery.group, via, &trouble);
                Err(trouble.into())
            }
        }
    }
}
