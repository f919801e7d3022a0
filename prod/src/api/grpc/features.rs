//! What there is, and who there is.

use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::message;
use crate::api::proto::{
    gossip::{ClusterInfo, EndPoint, MemberInfo, gossip_server::Gossip, member_info::VNodeState},
    server_features::{SupportedMethod, SupportedMethods, server_features_server::ServerFeatures},
    shared::Empty,
};

/// The version of the protocol's first implementation that offers what is offered here: clients decide by it what they
/// may ask for.
const PROTOCOL_VERSION: &str = "24.10.0";

pub(super) struct Features;

#[tonic::async_trait]
impl ServerFeatures for Features {
    async fn get_supported_methods(
        &self,
        _request: Request<Empty>,
    ) -> Result<Response<SupportedMethods>, Status> {
        let method = |name: &str, service: &str, features: &[&str]| SupportedMethod {
            method_name: name.to_owned(),
            service_name: format!("event_store.client.{service}"),
            features: features.iter().map(|f| (*f).to_owned()).collect(),
        };
        let streams = |name, features| method(name, "streams.streams", features);
        let methods = vec![
            streams("read", &["position", "events"]),
            streams("append", &[]),
            streams("delete", &[]),
            streams("tombstone", &[]),
            streams("batchappend", &["deadline_duration"]),
            method("getsupportedmethods", "server_features.serverfeatures", &[]),
            method("read", "gossip.gossip", &[]),
        ];
        let event_store_server_version = PROTOCOL_VERSION.to_owned();
        Ok(Response::new(SupportedMethods { methods, event_store_server_version }))
    }
}

/// The one member of the cluster.
pub(super) struct Members {
    id: Uuid,
    address: (String, u16),
}

impl Members {
    pub(super) fn new(address: (String, u16)) -> Self {
        Members { id: Uuid::new_v4(), address }
    }
}

#[tonic::async_trait]
impl Gossip for Members {
    async fn read(&self, _request: Request<Empty>) -> Result<Response<ClusterInfo>, Status> {
        let (address, port) = self.address.clone();
        let member = MemberInfo {
            instance_id: Some(message::uuid(self.id, false)),
            time_stamp: message::timestamp().seconds,
            state: VNodeState::Leader.into(),
            is_alive: true,
            http_end_point: Some(EndPoint { address, port: port.into() }),
        };
        Ok(Response::new(ClusterInfo { members: vec![member] }))
    }
}
