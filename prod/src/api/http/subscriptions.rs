//! Groups, which are called subscriptions here: making, changing, looking, replaying, deleting.

use axum::{
    body::Body,
    extract::{Path, State, rejection::PathRejection},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode, Uri};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use stormkeep_core::{
    consume::{Manage, UnitInfo},
    env::Env,
    group::GroupId,
};
use uuid::Uuid;

use super::{
    Http, Kind, Problem,
    body::Layout,
    consume::unit_text,
    operate::json_response,
    query::{Query, invalid, takes_json},
};
use crate::group::{
    json::{GroupInput, group_json},
    parse_id,
};

/// What a path says of a group: its source and its name, decoded if they could be.
pub(super) type GroupPath = Result<Path<(String, String)>, PathRejection>;

/// The group that a path names.
pub(super) fn group_id(path: GroupPath) -> Result<GroupId, Problem> {
    let Path((source, name)) =
        path.map_err(|error| invalid(format!("subscription: {}", error.body_text())))?;
    parse_id(&source, &name).map_err(invalid)
}

impl<E: Env> Http<E> {
    /// Reads a body of one document; nothing at all is an empty object.
    pub(super) async fn document<T: DeserializeOwned>(
        &self,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<T, Problem> {
        let body = self.body(headers, body).await?;
        if body.layout == Layout::Lines {
            let detail = "Content-Type: this is one document: send application/json";
            return Err(Problem::new(Kind::MediaType, detail));
        }
        let bytes: &[u8] = if body.bytes.is_empty() { b"{}" } else { &body.bytes };
        serde_json::from_slice(bytes).map_err(|error| Problem::json(&error, None))
    }
}

pub(super) async fn list<E: Env>(
    State(http): State<Http<E>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    Query::of(&uri, &[], &[])?;
    takes_json(&headers)?;
    let groups = http.service.groups(http.options.request_timeout).await;
    let groups: Vec<_> = groups.map_err(Problem::manage)?.iter().map(group_json).collect();
    Ok(json_response(json!({ "subscriptions": groups }).to_string()))
}

pub(super) async fn create<E: Env>(
    State(http): State<Http<E>>,
    path: GroupPath,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let id = group_id(path)?;
    Query::of(&uri, &[], &[])?;
    takes_json(&headers)?;
    let input: GroupInput = http.document(&headers, body).await?;
    input.check_id(&id.source.to_string(), &id.name).map_err(invalid)?;
    let new = input.new_group(id.clone()).map_err(invalid)?;
    let timeout = http.options.request_timeout;
    http.service.manage(Manage::Create(new), timeout).await.map_err(Problem::manage)?;
    Ok((StatusCode::CREATED, shown(&http, &id).await?).into_response())
}

pub(super) async fn update<E: Env>(
    State(http): State<Http<E>>,
    path: GroupPath,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let id = group_id(path)?;
    Query::of(&uri, &[], &[])?;
    takes_json(&headers)?;
    let input: GroupInput = http.document(&headers, body).await?;
    input.check_id(&id.source.to_string(), &id.name).map_err(invalid)?;
    input.check_change().map_err(invalid)?;
    let timeout = http.options.request_timeout;
    let now = http.service.group(&id, timeout).await.map_err(Problem::manage)?;
    let settings = input.settings(&now.settings).map_err(invalid)?;
    let target = input.target(&now.target).map_err(invalid)?;
    let update = Manage::Update { id: id.clone(), settings, target };
    http.service.manage(update, timeout).await.map_err(Problem::manage)?;
    shown(&http, &id).await
}

pub(super) async fn delete<E: Env>(
    State(http): State<Http<E>>,
    path: GroupPath,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id = group_id(path)?;
    Query::of(&uri, &[], &[])?;
    takes_json(&headers)?;
    let deleted = http.service.manage(Manage::Delete(id), http.options.request_timeout).await;
    deleted.map_err(Problem::manage)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn info<E: Env>(
    State(http): State<Http<E>>,
    path: GroupPath,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id = group_id(path)?;
    Query::of(&uri, &[], &[])?;
    takes_json(&headers)?;
    let info = http.service.group_info(id, http.options.request_timeout).await;
    let info = info.map_err(Problem::manage)?;
    let mut object = group_json(&info.group);
    let units: Vec<Value> = info.units.iter().map(unit_json).collect();
    object.insert("units".into(), units.into());
    object.insert("parked".into(), info.parked.into());
    object.insert("partial".into(), info.partial.into());
    Ok(json_response(Value::Object(object).to_string()))
}

pub(super) async fn replay<E: Env>(
    State(http): State<Http<E>>,
    path: GroupPath,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id = group_id(path)?;
    let query = Query::of(&uri, &["stop_at"], &[])?;
    takes_json(&headers)?;
    let stop_at = query.number("stop_at", 0, u64::MAX)?;
    let replay = Manage::Replay { id: id.clone(), stop_at };
    let timeout = http.options.request_timeout;
    http.service.manage(replay, timeout).await.map_err(Problem::manage)?;
    Ok((StatusCode::ACCEPTED, shown(&http, &id).await?).into_response())
}

/// A group as it is now.
async fn shown<E: Env>(http: &Http<E>, id: &GroupId) -> Result<Response, Problem> {
    let group = http.service.group(id, http.options.request_timeout).await;
    let object = group_json(&group.map_err(Problem::manage)?);
    Ok(json_response(Value::Object(object).to_string()))
}

fn unit_json(info: &UnitInfo) -> Value {
    let consumer = |(id, held): &(stormkeep_core::consume::ConsumerId, u64)| json!({ "consumer": Uuid::from_u128(id.0), "held": held });
    let shown = json!({
        "node": info.node.map(|node| node.0),
        "next": info.next,
        "read": info.read,
        "held": info.held,
        "in_flight": info.in_flight,
        "retrying": info.retrying,
        "parking": info.parking,
        "settled": info.settled,
        "parked": info.parked,
        "given_again": info.given_again,
        "consumers": info.consumers.iter().map(consumer).collect::<Vec<_>>(),
    });
    let mut object = Map::new();
    if let Some(unit) = info.unit {
        object.insert("unit".into(), unit_text(unit).into());
        object.insert("shard".into(), unit.shard.0.into());
        object.insert("replay".into(), unit.replay.into());
    }
    if let Value::Object(shown) = shown {
        object.extend(shown);
    }
    Value::Object(object)
}
