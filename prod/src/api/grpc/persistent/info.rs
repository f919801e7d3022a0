//! What there is to tell of a group, as clients take it apart.
//!
//! A place is written as a revision, `7`, or a position, `C:7/P:7`; -1 is the end. How far a group is is told for `$all` alone:
//! elsewhere clients would take the number for a revision of a stream, and a group counts in positions.

use std::{collections::BTreeMap, time::Duration};

use stormkeep_core::{
    consume::{ConsumerId, GroupInfo, UnitInfo},
    group::{Group, Source, Start, Strategy},
    shard::ShardId,
    time::{GlobalPosition, HybridTime},
};

use crate::api::grpc::proto::event_store::client::persistent_subscriptions::{
    SubscriptionInfo, subscription_info::ConnectionInfo,
};

/// What a group's status is when it is worked on.
const LIVE: &str = "Live";
/// And when it is not, or not all of it.
const NOT_READY: &str = "NotReady";
/// And when it is not asked for.
const UNKNOWN: &str = "Unknown";

/// A group, without what is live.
pub(super) fn settled(group: &Group) -> SubscriptionInfo {
    let settings = &group.settings;
    let buffer = number(settings.buffer_max.into());
    SubscriptionInfo {
        event_source: group.id.source.to_string(),
        group_name: group.id.name.to_string(),
        status: UNKNOWN.into(),
        resolve_link_tos: settings.resolve_links,
        start_from: start(group),
        message_timeout_milliseconds: millis(settings.message_timeout),
        extra_statistics: settings.extra_statistics,
        max_retry_count: number(settings.max_retries.into()),
        live_buffer_size: buffer,
        buffer_size: buffer,
        read_batch_size: number(settings.read_batch.into()),
        check_point_after_milliseconds: millis(settings.checkpoint_after),
        min_check_point_count: number(settings.checkpoint_min.into()),
        max_check_point_count: number(settings.checkpoint_max.into()),
        named_consumer_strategy: strategy_name(settings.strategy).into(),
        max_subscriber_count: number(settings.consumers_max.into()),
        ..SubscriptionInfo::default()
    }
}

/// A group, with what is live.
pub(super) fn live(info: &GroupInfo) -> SubscriptionInfo {
    let sum = |of: fn(&UnitInfo) -> u64| info.units.iter().map(of).sum::<u64>();
    let (in_flight, retrying) = (sum(|unit| unit.in_flight), sum(|unit| unit.retrying));
    let waiting =
        sum(|unit| unit.held.saturating_sub(unit.in_flight + unit.retrying + unit.parking));
    let is_live = !info.partial && !info.units.is_empty();
    let (checkpointed, known) = places(info);
    SubscriptionInfo {
        status: if is_live { LIVE } else { NOT_READY }.into(),
        connections: connections(info),
        total_items: sum(|unit| unit.settled) as i64,
        last_checkpointed_event_position: checkpointed,
        last_known_event_position: known,
        read_buffer_count: number(waiting),
        retry_buffer_count: number(retrying),
        total_in_flight_messages: number(in_flight),
        outstanding_messages_count: number(in_flight + retrying),
        parked_message_count: info.parked as i64,
        ..settled(&info.group)
    }
}

fn connections(info: &GroupInfo) -> Vec<ConnectionInfo> {
    let mut held: BTreeMap<ConsumerId, u64> = BTreeMap::new();
    for (consumer, count) in info.units.iter().flat_map(|unit| &unit.consumers) {
        *held.entry(*consumer).or_default() += count;
    }
    let connection = |(consumer, count): (ConsumerId, u64)| ConnectionInfo {
        in_flight_messages: number(count),
        connection_name: uuid::Uuid::from_u128(consumer.0).to_string(),
        ..ConnectionInfo::default()
    };
    held.into_iter().map(connection).collect()
}

/// How far everything is settled, and read.
fn places(info: &GroupInfo) -> (String, String) {
    if info.group.id.source != Source::All {
        return (String::new(), String::new());
    }
    let units = || info.units.iter().filter(|info| info.unit.is_some_and(|unit| !unit.replay));
    let at = |shard: ShardId, place: u64| GlobalPosition::of(HybridTime(place), shard);
    let shard = |info: &UnitInfo| info.unit.map_or(ShardId(0), |unit| unit.shard);
    let settled = units().map(|unit| at(shard(unit), unit.next)).min();
    let read = units().map(|unit| at(shard(unit), unit.read)).max();
    let text = |at: Option<GlobalPosition>| at.map(position).unwrap_or_default();
    (text(settled), text(read))
}

fn position(at: GlobalPosition) -> String {
    format!("C:{at}/P:{at}")
}

fn start(group: &Group) -> String {
    let is_all = group.id.source == Source::All;
    match group.began {
        Start::Beginning if is_all => position(GlobalPosition::START),
        Start::Beginning => "0".into(),
        Start::End if is_all => "C:-1/P:-1".into(),
        Start::End => "-1".into(),
        Start::Revision(revision) => revision.to_string(),
        Start::Position(at) => position(at),
    }
}

/// What clients call a strategy.
pub(super) fn strategy_name(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::DispatchToSingle => "DispatchToSingle",
        Strategy::RoundRobin => "RoundRobin",
        Strategy::Pinned => "Pinned",
    }
}

fn number(count: u64) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn millis(time: Duration) -> i32 {
    i32::try_from(time.as_millis()).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use stormkeep_core::{
        consume::Unit,
        env::NodeId,
        group::{GroupId, GroupNumber, Settings, Target},
    };

    use super::*;

    fn group(source: Source, began: Start) -> Group {
        Group {
            id: GroupId::new(source, "mail").unwrap(),
            number: GroupNumber(1),
            began,
            start: GlobalPosition(0),
            first_revision: 0,
            filter: None,
            target: Target::Consumers,
            settings: Settings::default(),
            replay_below: 0,
        }
    }

    #[test]
    fn a_start_is_written_as_clients_read_it() {
        let stream = || Source::Category("player".into());
        for (source, began, text) in [
            (stream(), Start::End, "-1"),
            (stream(), Start::Beginning, "0"),
            (stream(), Start::Revision(7), "7"),
            (Source::All, Start::End, "C:-1/P:-1"),
            (Source::All, Start::Beginning, "C:0/P:0"),
            (Source::All, Start::Position(GlobalPosition(7)), "C:7/P:7"),
        ] {
            assert_eq!(settled(&group(source, began)).start_from, text);
        }
    }

    #[test]
    fn what_is_live_is_summed_over_the_units() {
        let unit = |shard: u32, next: u64, replay: bool| UnitInfo {
            unit: Some(Unit { group: GroupNumber(5), shard: ShardId(shard), lease: 1, replay }),
            node: Some(NodeId(1)),
            next,
            read: next + 5,
            held: 10,
            in_flight: 3,
            retrying: 2,
            parking: 1,
            settled: 100,
            consumers: vec![(ConsumerId(7), 2), (ConsumerId(u128::from(shard)), 1)],
            ..UnitInfo::default()
        };
        let units = vec![unit(1, 50, false), unit(2, 40, false), unit(2, 1, true)];
        let group = group(Source::All, Start::Beginning);
        let told = live(&GroupInfo { group: group.clone(), units, parked: 4, partial: false });
        assert_eq!(
            (told.status.as_str(), told.total_items, told.parked_message_count),
            (LIVE, 300, 4)
        );
        assert_eq!((told.total_in_flight_messages, told.retry_buffer_count), (9, 6));
        assert_eq!((told.read_buffer_count, told.outstanding_messages_count), (12, 15));
        let at = |shard, place| position(GlobalPosition::of(HybridTime(place), ShardId(shard)));
        assert_eq!(told.last_checkpointed_event_position, at(2, 40));
        assert_eq!(told.last_known_event_position, at(1, 55));
        let held: Vec<i32> = told.connections.iter().map(|c| c.in_flight_messages).collect();
        assert_eq!(held, [1, 2, 6]);
        let none = live(&GroupInfo { group, units: vec![], parked: 0, partial: false });
        assert_eq!(none.status, NOT_READY);
    }
}
