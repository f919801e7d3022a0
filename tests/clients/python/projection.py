"""docs/PROJECTIONS.md and docs/HANDLERS.md, run: what they show stands here, and is shown word for word."""

import json
import os
import sqlite3
import sys
import uuid

from kurrentdbclient import KurrentDBClient, NewEvent, StreamState
from kurrentdbclient.exceptions import NotFoundError

ADDRESS = os.environ["STORMKEEP_ADDRESS"]
CA = os.environ.get("STORMKEEP_CA") or None
TLS = f"Tls=true&TlsCaFile={CA}" if CA else "Tls=false"
SERVER = f"kurrentdb://admin:changeit@{ADDRESS}?{TLS}"


def open_table(path):
    table = sqlite3.connect(path)
    table.execute("CREATE TABLE IF NOT EXISTS score (player TEXT PRIMARY KEY, points INTEGER)")
    table.execute("CREATE TABLE IF NOT EXISTS folded (name TEXT PRIMARY KEY, position INTEGER)")
    return table


def fold(table, event):
    with table:  # one transaction: the change, and how far it got
        table.execute(
            "INSERT INTO score VALUES (?, ?)"
            " ON CONFLICT (player) DO UPDATE SET points = points + excluded.points",
            (event.stream_name, json.loads(event.data)["points"]),
        )
        table.execute(
            "INSERT INTO folded VALUES ('scores', ?)"
            " ON CONFLICT (name) DO UPDATE SET position = excluded.position",
            (event.commit_position,),
        )


def project(client, table, category):
    row = table.execute("SELECT position FROM folded WHERE name = 'scores'").fetchone()
    with client.subscribe_to_all(
        commit_position=row[0] if row else None,  # behind this one; None: from the beginning
        filter_by_stream_name=True,
        filter_include=[f"{category}-.*"],
    ) as events:
        for event in events:
            fold(table, event)
            yield event  # to whoever wants to know how far it is


def state_after(state, event):
    return {"points": state["points"] + json.loads(event.data)["points"]}


def load(client, stream):
    """The state of a stream, and the revision that it is at."""
    state, revision = {"points": 0}, None
    try:
        newest = client.get_stream(f"snapshot-{stream}", backwards=True, limit=1)
        snapshot = json.loads(newest[0].data)
        state, revision = snapshot["state"], snapshot["revision"]
    except NotFoundError:
        pass
    behind = 0 if revision is None else revision + 1
    try:
        for event in client.get_stream(stream, stream_position=behind):
            state, revision = state_after(state, event), event.stream_position
    except NotFoundError:
        pass  # nothing is behind the snapshot
    return state, revision


def snapshot(client, stream, state, revision):
    data = json.dumps({"revision": revision, "state": state}).encode()
    client.append_to_stream(
        f"snapshot-{stream}",
        current_version=StreamState.ANY,
        events=[NewEvent(type="snapshot", data=data)],
    )


def keep_only_the_newest(client, stream):
    client.set_stream_metadata(
        f"snapshot-{stream}", metadata={"$maxCount": 1}, current_version=StreamState.ANY
    )


def open_players(path):
    table = sqlite3.connect(path)
    table.execute(
        "CREATE TABLE IF NOT EXISTS player (stream TEXT PRIMARY KEY, points INTEGER, next INTEGER)"
    )
    return table


def handle(table, batch):
    """A handler: what it is sent, and what it answers."""
    failures, stopped = [], set()
    for record in batch["records"]:
        stream, revision = record["stream"], record["revision"]
        if stream in stopped:
            continue  # it comes again, behind the one that failed
        try:
            with table:  # one transaction: the change, and the revision that comes next
                table.execute("INSERT OR IGNORE INTO player VALUES (?, 0, 0)", (stream,))
                table.execute(
                    "UPDATE player SET points = points + ?, next = ? WHERE stream = ? AND next <= ?",
                    (record["data"]["points"], revision + 1, stream, revision),
                )
        except Exception as error:
            stopped.add(stream)
            failures.append({"itemIdentifier": record["position"], "reason": repr(error)})
    return {"batchItemFailures": failures}


# What follows is not shown: it checks that the above does what it says.


def scored(points):
    return NewEvent(type="scored", data=json.dumps({"points": points}).encode())


def check_projection(client):
    category = f"projected{uuid.uuid4().hex}"
    append = lambda player, *points: client.append_to_stream(
        f"{category}-{player}", current_version=StreamState.ANY, events=[scored(p) for p in points]
    )
    append(1, 5, 7)
    append(2, 1)
    table = open_table(":memory:")

    def until(count):
        seen = project(client, table, category)
        for _ in range(count):
            next(seen)
        seen.close()

    points = lambda: dict(table.execute("SELECT player, points FROM score"))
    # It ends in the middle, more than once, and goes on where it was.
    until(2)
    until(1)
    append(1, 10)
    until(1)
    assert points() == {f"{category}-1": 22, f"{category}-2": 1}, points()

    # What fails between the change and the position has not happened.
    event = client.get_stream(f"{category}-2")[0]
    table.execute("DROP TABLE folded")
    try:
        fold(table, event)
        raise AssertionError("there is no table for the position")
    except sqlite3.OperationalError:
        pass
    assert points() == {f"{category}-1": 22, f"{category}-2": 1}, points()


def check_snapshots(client):
    stream = f"snapped-{uuid.uuid4()}"
    assert load(client, stream) == ({"points": 0}, None)
    client.append_to_stream(
        stream, current_version=StreamState.NO_STREAM, events=[scored(p) for p in (1, 2, 3)]
    )
    assert load(client, stream) == ({"points": 6}, 2)
    keep_only_the_newest(client, stream)
    for _ in range(2):
        snapshot(client, stream, *load(client, stream))
        assert load(client, stream) == ({"points": 6}, 2)
    assert len(client.get_stream(f"snapshot-{stream}")) == 1
    client.append_to_stream(stream, current_version=2, events=[scored(4)])
    assert load(client, stream) == ({"points": 10}, 3)
    # The snapshot is what is read: with another one, another state.
    snapshot(client, stream, {"points": 1000}, 3)
    assert load(client, stream) == ({"points": 1000}, 3)


def check_handler():
    table = open_players(":memory:")
    record = lambda stream, revision, **data: {
        "stream": stream, "revision": revision, "position": f"{stream}/{revision}", "data": data,
    }
    points = lambda: dict(table.execute("SELECT stream, points FROM player"))
    batch = {"records": [record("a", 0, points=5), record("a", 1, points=6), record("b", 0, points=1)]}
    assert handle(table, batch) == {"batchItemFailures": []}
    # Its answer was lost: it comes again, in halves and in another company.
    assert handle(table, {"records": batch["records"][1:]}) == {"batchItemFailures": []}
    assert points() == {"a": 11, "b": 1}
    # One fails: what follows it in its stream is not touched, its neighbours are.
    answer = handle(table, {"records": [record("a", 2), record("a", 3, points=7), record("b", 1, points=1)]})
    assert [failure["itemIdentifier"] for failure in answer["batchItemFailures"]] == ["a/2"]
    assert points() == {"a": 11, "b": 2}
    # It was parked; its stream goes on without it.
    assert handle(table, {"records": [record("a", 3, points=7)]}) == {"batchItemFailures": []}
    assert points() == {"a": 18, "b": 2}


def main():
    client = KurrentDBClient(SERVER)
    print("docs/PROJECTIONS.md and docs/HANDLERS.md")
    for check in (lambda: check_projection(client), lambda: check_snapshots(client), check_handler):
        check()
    client.close()
    print("  projection, snapshots, handler")


if __name__ == "__main__":
    sys.exit(main())
