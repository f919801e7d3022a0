"""What the client's own samples do not reach: results and exceptions, as the client shows them."""

import os
import sys
import uuid

from kurrentdbclient import (
    CaughtUp,
    Checkpoint,
    KurrentDBClient,
    NewEvent,
    RecordedEvent,
    StreamState,
)
from kurrentdbclient.exceptions import (
    AlreadyExistsError,
    GrpcDeadlineExceededError,
    GrpcError,
    KurrentDBClientError,
    MaximumAppendSizeExceededError,
    MaximumSubscriptionsReachedError,
    NotFoundError,
    StreamIsDeletedError,
    WrongCurrentVersionError,
)

ADDRESS = os.environ["STORMKEEP_ADDRESS"]
CA = os.environ.get("STORMKEEP_CA") or None
TLS = f"Tls=true&TlsCaFile={CA}" if CA else "Tls=false"
SERVER = f"admin:changeit@{ADDRESS}?{TLS}"
CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


def name(prefix):
    return f"{prefix}-{uuid.uuid4()}"


def event(kind="checked", data=b"{}"):
    return NewEvent(type=kind, data=data)


def raises(kind, call):
    try:
        result = call()
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} expected, not {result!r}")


@check
def every_expected_state(client):
    stream = name("states")

    # One event is an append, several are a batch.
    for new in (lambda: event(), lambda: [event(), event()]):
        stream = name("states")
        append = lambda at: client.append_to_stream(stream, current_version=at, events=new())
        for at in (StreamState.EXISTS, 0):
            error = raises(WrongCurrentVersionError, lambda: append(at))
            assert error.actual_version is StreamState.NO_STREAM, error.actual_version
            assert error.expected_version == at and error.stream_name == stream
        append(StreamState.NO_STREAM)
        last = client.get_current_version(stream)
        append(last)
        append(StreamState.EXISTS)
        append(StreamState.ANY)
        last = client.get_current_version(stream)
        for at in (StreamState.NO_STREAM, last - 1, last + 1):
            error = raises(WrongCurrentVersionError, lambda: append(at))
            assert error.actual_version == last, (error.actual_version, last)


@check
def repeats_are_one_append(client):
    for count in (1, 3):
        stream, events = name("repeats"), [event() for _ in range(count)]
        events = events[0] if count == 1 else events
        append = lambda at: client.append_to_stream(stream, current_version=at, events=events)
        first = append(StreamState.NO_STREAM)
        assert append(StreamState.NO_STREAM) == first and append(StreamState.ANY) == first
        assert len(client.get_stream(stream)) == count


@check
def events_are_as_they_were_written(client):
    stream = name("größe")
    json = NewEvent(type="gewählt", data=b'{"a": 1}', metadata=b'{"m": 2}')
    binary = NewEvent(
        type="raw", data=bytes(range(256)), metadata=b"\x00", content_type="application/octet-stream"
    )
    position = client.append_to_stream(
        stream, current_version=StreamState.NO_STREAM, events=[json, binary]
    )
    first, second = client.get_stream(stream)
    assert first == json and second == binary
    assert second.commit_position == second.prepare_position == position
    assert first.stream_name == stream and first.recorded_at.year >= 2024


@check
def streams_that_are_not_there(client):
    stream = name("absent")
    raises(NotFoundError, lambda: client.get_stream(stream))
    raises(NotFoundError, lambda: tuple(client.read_stream(stream, backwards=True)))
    assert client.get_current_version(stream) is StreamState.NO_STREAM
    for at in (StreamState.ANY, StreamState.EXISTS, 0):
        raises(NotFoundError, lambda: client.delete_stream(stream, current_version=at))
    raises(NotFoundError, lambda: client.tombstone_stream(stream, current_version=0))


@check
def deletion(client):
    stream = name("deleted")
    append = lambda at: client.append_to_stream(stream, current_version=at, events=[event()])
    append(StreamState.NO_STREAM)
    append(0)
    error = raises(
        WrongCurrentVersionError, lambda: client.delete_stream(stream, current_version=7)
    )
    assert (error.expected_version, error.actual_version) == (7, 1)
    client.delete_stream(stream, current_version=1)
    raises(NotFoundError, lambda: client.get_stream(stream))
    assert client.get_stream_metadata(stream)[0]["$tb"] == 2**63 - 1
    append(StreamState.NO_STREAM)
    assert [e.stream_position for e in client.get_stream(stream)] == [2]


@check
def tombstones(client):
    stream = name("ended")
    client.append_to_stream(stream, current_version=StreamState.ANY, events=[event()])
    client.tombstone_stream(stream, current_version=0)
    raises(StreamIsDeletedError, lambda: client.get_stream(stream))
    batch = [event(), event()]
    raises(
        StreamIsDeletedError,
        lambda: client.append_to_stream(stream, current_version=StreamState.ANY, events=batch),
    )
    raises(
        StreamIsDeletedError, lambda: client.tombstone_stream(stream, current_version=StreamState.ANY)
    )
    raises(StreamIsDeletedError, lambda: next(client.subscribe_to_stream(stream)))


@check
def metadata_hides_events(client):
    stream = name("described")
    for at in (StreamState.NO_STREAM, 0, 1, 2, 3):
        client.append_to_stream(stream, current_version=at, events=event())
    shown = lambda: [e.stream_position for e in client.get_stream(stream)]
    assert client.get_stream_metadata(stream) == ({}, StreamState.NO_STREAM)
    described = {"$maxCount": 2, "$acl": {"$r": "admin"}, "$cacheControl": 9, "mine": [1]}
    client.set_stream_metadata(stream, metadata=described, current_version=StreamState.NO_STREAM)
    assert client.get_stream_metadata(stream) == (described, 0)
    assert shown() == [3, 4]
    client.set_stream_metadata(stream, metadata={"$tb": 1}, current_version=0)
    assert shown() == [1, 2, 3, 4]
    raises(
        WrongCurrentVersionError,
        lambda: client.set_stream_metadata(stream, metadata={}, current_version=0),
    )


@check
def deadlines(client):
    raises(
        GrpcDeadlineExceededError,
        lambda: client.append_to_stream(
            name("late"), current_version=StreamState.ANY, events=event(), timeout=-1.0
        ),
    )


@check
def sizes(client):
    stream = name("sizes")
    append = lambda size: client.append_to_stream(
        stream, current_version=StreamState.ANY, events=[event(data=b"x" * size)]
    )
    append(1_000_000)
    for size in (1_100_000, 3_000_000):
        error = raises(MaximumAppendSizeExceededError, lambda: append(size))
        assert "Max size is 1047552" in str(error), error
    error = raises(KurrentDBClientError, lambda: append(6_000_000))
    assert "Maximum Append Size of" in str(error), error
    assert len(client.get_stream(stream)) == 1


@check
def bad_requests(client):
    refused = lambda call: str(raises(GrpcError, call))
    append = lambda stream, new: client.append_to_stream(
        stream, current_version=StreamState.ANY, events=new
    )
    assert "stream: " in refused(lambda: append("", event()))
    assert "metadata[type]" in refused(lambda: append(name("bad"), event(kind="")))
    assert "filter.regex: " in refused(lambda: tuple(client.read_all(filter_include=["("])))
    create = lambda **settings: client.create_subscription_to_all(name("group"), **settings)
    assert "settings.max_retry_count" in refused(lambda: create(max_retry_count=-1))
    assert "`PinnedByCorrelation`" in refused(lambda: create(consumer_strategy="PinnedByCorrelation"))


@check
def all_events_and_filters(client):
    mark = uuid.uuid4().hex
    written = {}
    for stream, kind in (("one", "red"), ("two", "red"), ("one", "blue")):
        new = event(kind=f"{mark}-{kind}")
        at = client.append_to_stream(
            f"{mark}-{stream}", current_version=StreamState.ANY, events=new
        )
        written[at] = f"{stream} {kind}"
    first, second, third = sorted(written)
    read = lambda **how: [written.get(e.commit_position) for e in client.read_all(**how)]
    reds, ones = ["one red", "two red"], ["one red", "one blue"]
    assert read(filter_include=[f"{mark}-red"]) == reds
    assert read(filter_include=[f"{mark}-r"], filter_by_prefix=True) == reds
    assert read(filter_include=[f"{mark}-one"], filter_by_stream_name=True) == ones
    assert read(
        filter_include=[f"{mark}-o"], filter_by_stream_name=True, filter_by_prefix=True, limit=1
    ) == ones[:1]
    assert read(filter_exclude=[f"{mark}-red", "(?!" + mark + ").*"]) == ["one blue"]
    # Forwards the event at the position is read, backwards it is not.
    assert read(commit_position=second)[:2] == ["two red", "one blue"]
    assert read(commit_position=second, limit=1) == ["two red"]
    assert read(commit_position=second, backwards=True, limit=1) == ["one red"]
    assert client.get_commit_position() == third


@check
def subscriptions(client):
    stream = name("followed")
    events = [event() for _ in range(3)]
    client.append_to_stream(stream, current_version=StreamState.NO_STREAM, events=events)
    with client.subscribe_to_stream(stream, stream_position=0, include_caught_up=True) as told:
        assert next(told) == events[1] and next(told) == events[2]
        caught_up = next(told)
        assert isinstance(caught_up, CaughtUp) and caught_up.stream_position == 2
        assert caught_up.recorded_at is not None
        live = event()
        client.append_to_stream(stream, current_version=2, events=live)
        assert next(told) == live
    with client.subscribe_to_stream(stream, from_end=True, include_caught_up=True) as told:
        assert isinstance(next(told), CaughtUp)
        last = event()
        client.append_to_stream(stream, current_version=3, events=last)
        assert next(told) == last


@check
def checkpoints(client):
    start = client.get_commit_position()
    wanted, noise = name("wanted"), name("noise")
    first = client.append_to_stream(wanted, current_version=StreamState.ANY, events=event())
    last = client.append_to_stream(
        noise, current_version=StreamState.ANY, events=[event() for _ in range(40)]
    )
    points, events = [], []
    with client.subscribe_to_all(
        commit_position=start,
        filter_include=[wanted],
        filter_by_stream_name=True,
        include_checkpoints=True,
        include_caught_up=True,
        window_size=5,
        checkpoint_interval_multiplier=2,
    ) as told:
        for it in told:
            if isinstance(it, CaughtUp):
                assert it.commit_position >= last
                break
            if isinstance(it, Checkpoint):
                points.append(it.commit_position)
            else:
                assert type(it) is RecordedEvent
                events.append(it.commit_position)
        assert events == [first], events
        assert len(points) >= 4 and points == sorted(points) and points[-1] >= last, points
        live = event()
        client.append_to_stream(wanted, current_version=0, events=live)
        assert next(it for it in told if type(it) is RecordedEvent) == live


@check
def groups_and_their_errors(client):
    group, stream = name("group"), name("stream")
    of = dict(group_name=group, stream_name=stream)
    raises(NotFoundError, lambda: client.get_subscription_info(**of))
    raises(NotFoundError, lambda: client.delete_subscription(**of))
    assert client.list_subscriptions_to_stream(stream) == []
    raises(NotFoundError, lambda: client.read_subscription_to_stream(**of))
    client.create_subscription_to_stream(
        **of, consumer_strategy="Pinned", max_subscriber_count=1, stream_position=1
    )
    raises(AlreadyExistsError, lambda: client.create_subscription_to_stream(**of))
    info = client.get_subscription_info(**of)
    assert (info.event_source, info.group_name, info.start_from) == (stream, group, "1")
    assert (info.consumer_strategy, info.max_subscriber_count) == ("Pinned", 1)
    client.update_subscription_to_stream(**of, max_retry_count=3, from_end=True)
    updated = client.get_subscription_info(**of)
    assert updated.max_retry_count == 3 and updated.consumer_strategy == "Pinned"
    assert [it.group_name for it in client.list_subscriptions_to_stream(stream)] == [group]
    with client.read_subscription_to_stream(**of) as first:
        second = lambda: client.read_subscription_to_stream(**of)
        raises(MaximumSubscriptionsReachedError, second)
        events = [event() for _ in range(100)]
        client.append_to_stream(stream, current_version=StreamState.NO_STREAM, events=events)
        read = []
        for it in first:
            read.append(it)
            first.ack(it)
            if len(read) == 99:
                break
        assert read == events[1:], "in their order, from the revision on"
    client.delete_subscription(**of)
    raises(NotFoundError, lambda: client.read_subscription_to_stream(**of))


@check
def events_that_fail(client):
    group, category = name("group"), uuid.uuid4().hex
    of = dict(group_name=group, stream_name=f"$ce-{category}")
    client.create_subscription_to_stream(**of)
    streams = {f"{category}-{n}": [event(), event()] for n in range(10)}
    for stream, events in streams.items():
        client.append_to_stream(stream, current_version=StreamState.NO_STREAM, events=events)
    failing = streams[f"{category}-3"][0]
    tries, done = [], {stream: [] for stream in streams}
    with client.read_subscription_to_stream(**of) as subscription:
        for it in subscription:
            if it == failing:
                tries.append(it.retry_count)
                subscription.nack(it, "park" if it.retry_count == 2 else "retry")
                continue
            subscription.ack(it)
            if it not in done[it.stream_name]:
                done[it.stream_name].append(it)
            if tries == [0, 1, 2] and sum(map(len, done.values())) == 19:
                break
    assert all(done[s] == [e for e in streams[s] if e != failing] for s in streams), done
    while client.get_subscription_info(**of).parked_message_count == 0:
        pass
    client.replay_parked_events(**of)
    with client.read_subscription_to_stream(**of) as subscription:
        for it in subscription:
            subscription.ack(it)
            if it == failing:
                break
    client.delete_subscription(**of)


@check
def discovery(client):
    (member,) = client.read_gossip()
    host, port = ADDRESS.rsplit(":", 1)
    assert (member.state, member.address, member.port) == ("NODE_STATE_LEADER", host, int(port))
    discovering = KurrentDBClient(f"kurrentdb+discover://{SERVER}")
    assert discovering.get_commit_position() > 0
    discovering.close()


def main():
    client = KurrentDBClient(f"kurrentdb://{SERVER}")
    print("our check through kurrentdbclient")
    for function in CHECKS:
        function(client)
        print(f"  {function.__name__}")
    client.close()


if __name__ == "__main__":
    sys.exit(main())
