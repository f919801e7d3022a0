//! What the server can do and who is in the cluster: what clients ask before anything else.

use std::{net::IpAddr, sync::Arc};

use stormkeep_core::env::Env;
use tonic::{Request, Response, Status};

use super::{
    proto::event_store::client::{
        Empty, Uuid,
        gossip::{ClusterInfo, EndPoint, MemberInfo, gossip_server, member_info::VNodeState},
        server_features::{SupportedMethod, SupportedMethods, server_features_server},
        uuid,
    },
    response,
};
use crate::service::{NotReady, Service};

/// The service of streams.
pub(crate) const STREAMS: &str = "event_store.client.streams.Streams";
/// Its methods.
pub(crate) const STREAMS_METHODS: [&str; 5] =
    ["Read", "Append", "BatchAppend", "Delete", "Tombstone"];
/// The service of groups.
pub(crate) const PERSISTENT: &str =
    "event_store.client.persistent_subscriptions.PersistentSubscriptions";
/// Its methods.
pub(crate) const PERSISTENT_METHODS: [&str; 8] =
    ["Create", "Update", "Delete", "Read", "GetInfo", "ReplayParked", "List", "RestartSubsystem"];
/// The service that says what there is.
pub(crate) const FEATURES: &str = "event_store.client.server_features.ServerFeatures";
/// Its method.
pub(crate) const FEATURES_METHOD: &str = "GetSupportedMethods";
/// The service that says who is in the cluster.
pub(crate) const GOSSIP: &str = "event_store.client.gossip.Gossip";
/// Its method.
pub(crate) const GOSSIP_METHOD: &str = "Read";

/// The version of KurrentDB whose streams are spoken here: the last one before appends to several streams (25.1).
/// Clients compare it with the version in which a feature came, down to caught-up messages (23.10).
const VERSION: &str = "25.0.0";
/// The port of a client that names none.
const PORT: u32 = 2113;

/// Says what there is. Clients look for names in lower case.
pub(crate) struct Features;

#[tonic::async_trait]
impl server_features_server::ServerFeatures for Features {
    async fn get_supported_methods(
        &self,
        _: Request<Empty>,
    ) -> Result<Response<SupportedMethods>, Status> {
        let of = |service: &'static str, methods: &'static [&'static str]| {
            methods.iter().map(move |method| SupportedMethod {
                method_name: method.to_ascii_lowercase(),
                service_name: service.to_ascii_lowercase(),
                features: features(service, method).iter().map(|name| (*name).to_owned()).collect(),
            })
        };
        let methods = of(STREAMS, &STREAMS_METHODS)
            .chain(of(PERSISTENT, &PERSISTENT_METHODS))
            .chain(of(FEATURES, &[FEATURES_METHOD]))
            .chain(of(GOSSIP, &[GOSSIP_METHOD]))
            .collect();
        let event_store_server_version = VERSION.to_owned();
        Ok(Response::new(SupportedMethods { methods, event_store_server_version }))
    }
}

fn features(service: &str, method: &str) -> &'static [&'static str] {
    match (service, method) {
        (STREAMS, "Read") => &["position", "events"],
        (STREAMS, "BatchAppend") => &["deadline_duration"],
        (PERSISTENT, "RestartSubsystem") => &[],
        (PERSISTENT, _) => &["stream", "all"],
        _ => &[],
    }
}

/// Says who is in the cluster: this server, at the address where it was asked, which the client can certainly reach.
pub(crate) struct Gossip<E: Env> {
    service: Service<E>,
    instance: uuid::Value,
}

/// The address where the server was asked.
#[derive(Clone)]
pub(crate) struct Asked(pub(crate) Arc<str>);

impl<E: Env> Gossip<E> {
    pub(crate) fn new(service: Service<E>) -> Self {
        let instance = uuid::Value::String(::uuid::Uuid::new_v4().to_string());
        Gossip { service, instance }
    }
}

#[tonic::async_trait]
impl<E: Env> gossip_server::Gossip for Gossip<E> {
    async fn read(&self, request: Request<Empty>) -> Result<Response<ClusterInfo>, Status> {
        let asked = request.extensions().get::<Asked>().cloned();
        let closes = self.service.readiness() == Err(NotReady::Draining);
        let state = if closes { VNodeState::ShuttingDown } else { VNodeState::Leader };
        let member = MemberInfo {
            instance_id: Some(Uuid { value: Some(self.instance.clone()) }),
            // In units of 100 ns, as everything of the protocol.
            time_stamp: (response::since_epoch().as_nanos() / 100) as i64,
            state: state.into(),
            is_alive: !closes,
            http_end_point: Some(end_point(asked.as_ref().map_or("", |asked| &asked.0))),
        };
        Ok(Response::new(ClusterInfo { members: vec![member] }))
    }
}

/// `localhost:2113`, `[::1]:2113`, `::1` or `localhost`.
fn end_point(authority: &str) -> EndPoint {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if authority.parse::<IpAddr>().is_err() => match port.parse::<u16>() {
            Ok(port) => (host, u32::from(port)),
            Err(_) => (authority, PORT),
        },
        _ => (authority, PORT),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let address = if host.is_empty() { "localhost" } else { host };
    EndPoint { address: address.to_owned(), port }
}

#[cfg(test)]
mod tests {
    use server_features_server::ServerFeatures as _;

    use super::*;

    #[test]
    fn the_member_is_where_it_was_asked() {
        for (authority, address, port) in [
            ("localhost:2113", "localhost", 2113),
            ("127.0.0.1:3000", "127.0.0.1", 3000),
            ("[::1]:3000", "::1", 3000),
            ("[::1]", "::1", 2113),
            ("::1", "::1", 2113),
            ("events.example", "events.example", 2113),
            ("", "localhost", 2113),
        ] {
            let point = end_point(authority);
            assert_eq!((point.address.as_str(), point.port), (address, port), "{authority}");
        }
    }

    #[tokio::test]
    async fn methods_are_told_in_lower_case() {
        let told = Features.get_supported_methods(Request::new(Empty {})).await.unwrap();
        let told = told.into_inner();
        assert_eq!(told.event_store_server_version, "25.0.0");
        assert!(told.methods.iter().any(|method| method.method_name == "batchappend"
            && method.service_name == "event_store.client.streams.streams"));
        let of_all = told.methods.iter().filter(|method| method.features.contains(&"all".into()));
        assert_eq!(of_all.count(), 7, "the Rust and Node clients look for it");
        assert_eq!(told.methods.len(), 15);
    }
}
