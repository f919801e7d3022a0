// What the client's own samples do not reach: results and exceptions, as the client shows them.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { once } from "node:events";

import {
  ANY,
  BACKWARDS,
  DeadlineExceededError,
  END,
  FORWARDS,
  KurrentDBClient,
  MaxAppendSizeExceededError,
  NO_STREAM,
  PARK,
  PINNED,
  PersistentSubscriptionDoesNotExistError,
  PersistentSubscriptionExistsError,
  PersistentSubscriptionMaximumSubscribersReachedError,
  RETRY,
  START,
  STREAM_EXISTS,
  StreamDeletedError,
  StreamNotFoundError,
  UnsupportedError,
  WrongExpectedVersionError,
  binaryEvent,
  eventTypeFilter,
  excludeSystemEvents,
  jsonEvent,
  persistentSubscriptionToAllSettingsFromDefaults,
  persistentSubscriptionToStreamSettingsFromDefaults,
  streamNameFilter,
} from "@kurrent/kurrentdb-client";

const url = process.env.STORMKEEP_URL;
const client = KurrentDBClient.connectionString(url);
// With credentials of its own, a call does not use the batches that all calls share, but one append.
const unbatched = { credentials: { username: "admin", password: "changeit" } };

const name = (prefix) => `${prefix}-${randomUUID()}`;
const event = (type = "checked", data = { checked: true }) => jsonEvent({ type, data });
const all = async (events) => {
  const read = [];
  for await (const { event } of events) read.push(event);
  return read;
};
const revisions = async (events) => (await all(events)).map(({ revision }) => Number(revision));

const checks = {
  async everyExpectedState() {
    // A call with credentials of its own needs TLS in this client.
    const ways = url.includes("tls=false") ? [{}] : [{}, unbatched];
    for (const way of ways) {
      const stream = name("states");
      const append = (streamState) => client.appendToStream(stream, event(), { streamState, ...way });
      const wrong = (streamState, actual) =>
        assert.rejects(append(streamState), (error) => {
          assert(error instanceof WrongExpectedVersionError, error);
          assert.equal(error.streamName, stream);
          assert.equal(error.expectedState, streamState);
          assert.equal(error.actualState, actual);
          return true;
        });
      await wrong(STREAM_EXISTS, NO_STREAM);
      await wrong(0n, NO_STREAM);
      assert.equal((await append(NO_STREAM)).nextExpectedRevision, 0n);
      assert.equal((await append(0n)).nextExpectedRevision, 1n);
      assert.equal((await append(STREAM_EXISTS)).nextExpectedRevision, 2n);
      const last = await append(ANY);
      assert.equal(last.nextExpectedRevision, 3n);
      assert(last.success && last.position.commit > 0n);
      assert.equal(last.position.commit, last.position.prepare);
      await wrong(NO_STREAM, 3n);
      await wrong(1n, 3n);
      await wrong(4n, 3n);
    }
  },

  async manyAtOnceAndInParts() {
    const streams = Array.from({ length: 100 }, () => name("many"));
    const append = (stream) => client.appendToStream(stream, [event(), event()], { streamState: NO_STREAM });
    for (const { nextExpectedRevision } of await Promise.all(streams.map(append))) {
      assert.equal(nextExpectedRevision, 1n);
    }
    const stream = name("parts");
    const events = Array.from({ length: 200 }, (_, n) => event("part", { n, fill: "x".repeat(500) }));
    // A batch is sent in parts of this many bytes.
    await client.appendToStream(stream, events, { batchAppendSize: 4096 });
    const read = await all(client.readStream(stream));
    assert.deepEqual(read.map(({ data }) => data.n), events.map(({ data }) => data.n));
  },

  async repeatsAreOneAppend() {
    const [stream, events] = [name("repeats"), [event(), event()]];
    const first = await client.appendToStream(stream, events, { streamState: NO_STREAM });
    const second = await client.appendToStream(stream, events, { streamState: NO_STREAM });
    assert.deepEqual(second, first);
    assert.deepEqual(await revisions(client.readStream(stream)), [0, 1]);
  },

  async eventsAreAsTheyWereWritten() {
    const stream = name("größe");
    const json = jsonEvent({ type: "gewählt", data: { a: [1] }, metadata: { m: "ü" } });
    const binary = binaryEvent({ type: "raw", data: Buffer.from([0, 255, 7]), metadata: Buffer.from([1]) });
    const { position } = await client.appendToStream(stream, [json, binary]);
    const [first, second] = await all(client.readStream(stream));
    assert.deepEqual([first.id, first.type, first.data, first.metadata], [json.id, json.type, json.data, json.metadata]);
    assert.equal(first.streamId, stream);
    assert(first.isJson && !second.isJson);
    assert.deepEqual([...second.data], [0, 255, 7]);
    assert.deepEqual(second.position, position);
    assert(Math.abs(Date.now() - first.created.getTime()) < 3_600_000);
  },

  async readsInBothDirections() {
    const stream = name("order");
    await client.appendToStream(stream, Array.from({ length: 100 }, () => event()));
    const read = (options) => revisions(client.readStream(stream, options));
    assert.deepEqual(await read({ fromRevision: START, maxCount: 2 }), [0, 1]);
    assert.deepEqual(await read({ fromRevision: 7n, direction: FORWARDS, maxCount: 2 }), [7, 8]);
    assert.deepEqual(await read({ fromRevision: END, direction: BACKWARDS, maxCount: 2 }), [99, 98]);
    assert.deepEqual(await read({ fromRevision: 7n, direction: BACKWARDS, maxCount: 2 }), [7, 6]);
    assert.equal((await read({})).length, 100);
    const back = await all(client.readAll({ fromPosition: END, direction: BACKWARDS, maxCount: 30 }));
    const commits = back.map(({ position }) => position.commit);
    assert.deepEqual(commits, commits.toSorted((a, b) => (a < b ? 1 : -1)));
    const at = back[10].position;
    const forth = await all(client.readAll({ fromPosition: at, maxCount: 11 }));
    assert.deepEqual(forth.map(({ id }) => id), back.slice(0, 11).map(({ id }) => id).reverse());
    const [before] = await all(client.readAll({ fromPosition: at, direction: BACKWARDS, maxCount: 1 }));
    assert.equal(before.id, back[11].id);
  },

  async deletionAndNotFound() {
    const stream = name("deleted");
    await assert.rejects(all(client.readStream(stream)), StreamNotFoundError);
    await assert.rejects(client.deleteStream(stream), WrongExpectedVersionError);
    await client.appendToStream(stream, [event(), event()]);
    await assert.rejects(client.deleteStream(stream, { expectedRevision: 7n }), (error) => {
      assert(error instanceof WrongExpectedVersionError, error);
      assert.deepEqual([error.streamName, error.expectedState, error.actualState], [stream, 7n, 1n]);
      return true;
    });
    const { position } = await client.deleteStream(stream, { expectedRevision: 1n });
    assert(position.commit > 0n);
    await assert.rejects(all(client.readStream(stream)), StreamNotFoundError);
    const again = await client.appendToStream(stream, event(), { streamState: NO_STREAM });
    assert.equal(again.nextExpectedRevision, 2n);
    assert.deepEqual(await revisions(client.readStream(stream)), [2]);
  },

  async tombstones() {
    const stream = name("größe-ended");
    await client.appendToStream(stream, event());
    assert((await client.tombstoneStream(stream)).position.commit > 0n);
    await assert.rejects(all(client.readStream(stream)), StreamDeletedError);
    await assert.rejects(client.appendToStream(stream, event()), StreamDeletedError);
    await assert.rejects(client.tombstoneStream(stream), StreamDeletedError);
    await assert.rejects(client.deleteStream(stream), StreamDeletedError);
    const followed = client.subscribeToStream(stream);
    const [error] = await once(followed, "error").catch((error) => [error]);
    assert(error instanceof StreamDeletedError, error);
  },

  async metadata() {
    const stream = name("described");
    await client.appendToStream(stream, [event(), event(), event()]);
    assert.equal((await client.getStreamMetadata(stream)).metadata, undefined);
    const metadata = { maxCount: 2, maxAge: 86_400, cacheControl: 9, acl: { readRoles: "admin" }, mine: [1] };
    await client.setStreamMetadata(stream, metadata, { expectedRevision: NO_STREAM });
    const read = await client.getStreamMetadata(stream);
    assert.deepEqual(read.metadata, metadata);
    assert.equal(read.streamName, stream);
    assert.deepEqual(await revisions(client.readStream(stream)), [1, 2]);
    await client.setStreamMetadata(stream, { truncateBefore: 2 });
    assert.deepEqual(await revisions(client.readStream(stream)), [2]);
  },

  async deadlines() {
    await assert.rejects(client.appendToStream(name("late"), event(), { deadline: -1 }), DeadlineExceededError);
    await assert.rejects(client.deleteStream(name("late"), { deadline: -1 }), DeadlineExceededError);
  },

  async sizes() {
    const stream = name("sizes");
    const append = (bytes) => client.appendToStream(stream, binaryEvent({ type: "large", data: Buffer.alloc(bytes) }));
    await append(1_000_000);
    for (const bytes of [1_100_000, 3_000_000, 6_000_000]) {
      await assert.rejects(append(bytes), (error) => {
        assert(error instanceof MaxAppendSizeExceededError, error);
        assert.equal(error.maxAppendSize, 1_047_552);
        return true;
      });
    }
    assert.equal((await append(1)).nextExpectedRevision, 1n);
  },

  async badRequests() {
    await assert.rejects(client.appendToStream(name("bad"), event("")), /metadata\[type\]/);
    await assert.rejects(client.appendToStream("$all", event()), /`\$all` is no stream/);
    await assert.rejects(client.deleteStream(""), /stream: the name is empty/);
    const refused = once(client.subscribeToAll({ filter: eventTypeFilter({ regex: "(" }) }), "error");
    const [error] = await refused.catch((error) => [error]);
    assert.match(error.message, /filter\.regex: /);
  },

  async filters() {
    const mark = randomUUID();
    for (const [stream, type] of [["one", "red"], ["two", "red"], ["one", "blue"]]) {
      await client.appendToStream(`${mark}-${stream}`, event(`${mark}-${type}`));
    }
    const found = async (filter, options = {}) =>
      (await all(client.readAll({ filter, ...options }))).map(
        ({ streamId, type }) => `${streamId.slice(37)} ${type.slice(37)}`,
      );
    const [reds, ones] = [["one red", "two red"], ["one red", "one blue"]];
    assert.deepEqual(await found(eventTypeFilter({ prefixes: [`${mark}-r`] })), reds);
    assert.deepEqual(await found(eventTypeFilter({ regex: `^${mark}-re?d$` })), reds);
    assert.deepEqual(await found(streamNameFilter({ prefixes: [`${mark}-one`, `${mark}-three`] })), ones);
    assert.deepEqual(await found(streamNameFilter({ regex: `${mark}-(one|three)` })), ones);
    const back = { fromPosition: END, direction: BACKWARDS, maxCount: 1 };
    assert.deepEqual(await found(eventTypeFilter({ prefixes: [mark] }), back), ["one blue"]);
    const [last] = await all(client.readAll({ filter: excludeSystemEvents(), ...back }));
    assert(!last.type.startsWith("$"));
  },

  async subscriptionToAStream() {
    const stream = name("followed");
    await client.appendToStream(stream, [event(), event(), event()]);
    const followed = client.subscribeToStream(stream, { fromRevision: 0n });
    const told = [];
    const done = new Promise((resolve, reject) => {
      followed.on("error", reject);
      followed.on("confirmation", () => told.push("confirmation"));
      followed.on("caughtUp", ({ revision, date }) => {
        assert(date instanceof Date);
        told.push(`caught up at ${revision}`);
        client.appendToStream(stream, event()).catch(reject);
      });
      followed.on("data", ({ event }) => {
        told.push(Number(event.revision));
        if (event.revision === 3n) resolve();
      });
    });
    await done;
    await followed.unsubscribe();
    assert.deepEqual(told, ["confirmation", 1, 2, "caught up at 2", 3]);
  },

  async subscriptionToAllWithCheckpoints() {
    const [start] = await all(client.readAll({ fromPosition: END, direction: BACKWARDS, maxCount: 1 }));
    const [wanted, noise] = [name("wanted"), name("noise")];
    await client.appendToStream(wanted, event());
    const last = await client.appendToStream(noise, Array.from({ length: 40 }, () => event()));
    const [events, points] = [[], []];
    const filter = streamNameFilter({
      prefixes: [wanted],
      maxSearchWindow: 5,
      checkpointInterval: 2,
      checkpointReached: (_, { commit }) => void points.push(commit),
    });
    const followed = client.subscribeToAll({ fromPosition: start.position, filter });
    await new Promise((resolve, reject) => {
      followed.on("error", reject);
      followed.on("caughtUp", ({ position }) => {
        assert(position.commit >= last.position.commit);
        client.appendToStream(wanted, event()).catch(reject);
      });
      followed.on("data", ({ event }) => events.push(event.revision) === 2 && resolve());
    });
    await followed.unsubscribe();
    assert.deepEqual(events, [0n, 1n]);
    assert(points.length >= 4 && points.some((at) => at >= last.position.commit), points);
    const end = client.subscribeToAll({ fromPosition: END });
    const live = once(end, "data");
    await once(end, "caughtUp");
    await client.appendToStream(wanted, event());
    assert.equal((await live)[0].event.streamId, wanted);
    await end.unsubscribe();
  },

  async groupsAndTheirErrors() {
    const [stream, group] = [name("stream"), name("group")];
    const missing = (call) => assert.rejects(call, PersistentSubscriptionDoesNotExistError);
    await missing(client.deletePersistentSubscriptionToStream(stream, group));
    await missing(client.getPersistentSubscriptionToStreamInfo(stream, group));
    const settings = persistentSubscriptionToStreamSettingsFromDefaults({
      startFrom: START,
      consumerStrategyName: PINNED,
      maxSubscriberCount: 1,
    });
    await client.createPersistentSubscriptionToStream(stream, group, settings);
    const again = client.createPersistentSubscriptionToStream(stream, group, settings);
    await assert.rejects(again, PersistentSubscriptionExistsError);
    await client.updatePersistentSubscriptionToStream(stream, group, { ...settings, maxRetryCount: 3 });
    const info = await client.getPersistentSubscriptionToStreamInfo(stream, group);
    assert.deepEqual(info.settings, { ...settings, maxRetryCount: 3 });
    assert.deepEqual([info.eventSource, info.groupName], [stream, group]);
    const listed = await client.listPersistentSubscriptionsToStream(stream);
    assert.deepEqual(listed.map(({ groupName }) => groupName), [group]);
    const first = client.subscribeToPersistentSubscriptionToStream(stream, group);
    await once(first, "confirmation");
    const second = client.subscribeToPersistentSubscriptionToStream(stream, group);
    const [full] = await once(second, "error");
    assert(full instanceof PersistentSubscriptionMaximumSubscribersReachedError, full);
    await client.deletePersistentSubscriptionToStream(stream, group);
    const [deleted] = await once(first.resume(), "error");
    assert(deleted instanceof PersistentSubscriptionDoesNotExistError, deleted);
  },

  async eventsThatFail() {
    const [stream, group] = [name("failing"), name("group")];
    const settings = persistentSubscriptionToAllSettingsFromDefaults({ startFrom: END });
    const filter = streamNameFilter({ prefixes: [stream] });
    await client.createPersistentSubscriptionToAll(group, settings, { filter });
    const events = Array.from({ length: 30 }, () => event());
    await client.appendToStream(stream, events);
    const [tries, read] = [[], []];
    const subscription = client.subscribeToPersistentSubscriptionToAll(group, { bufferSize: 5 });
    for await (const resolved of subscription) {
      const { event, retryCount } = resolved;
      if (event.id === events[7].id && tries.length < 3) {
        tries.push(retryCount);
        await subscription.nack(tries.length < 3 ? RETRY : PARK, "a check", resolved);
        continue;
      }
      await subscription.ack(resolved);
      if (!read.includes(event.id)) read.push(event.id);
      if (read.length === 29) break;
    }
    // A loop that is left does not end the call: the client would go on to be given events, and nobody to handle them.
    await subscription.unsubscribe();
    assert.deepEqual(tries, [0, 1, 2]);
    assert.deepEqual(read, events.filter((_, n) => n !== 7).map(({ id }) => id));
    while ((await client.getPersistentSubscriptionToAllInfo(group)).stats.parkedMessageCount === 0n);
    await client.replayParkedMessagesToAll(group);
    const replay = client.subscribeToPersistentSubscriptionToAll(group);
    for await (const resolved of replay) {
      await replay.ack(resolved);
      if (resolved.event.id === events[7].id) break;
    }
    await replay.unsubscribe();
    await client.deletePersistentSubscriptionToAll(group);
  },

  async whatIsNotHere() {
    await assert.rejects(client.multiStreamAppend([]), UnsupportedError);
    await assert.rejects(client.listProjections(), /Projections\/Statistics is not part of this server/);
  },
};

console.log("our check through @kurrent/kurrentdb-client");
const late = setTimeout(() => {
  console.error("it takes too long");
  process.exit(1);
}, 120_000);
for (const [title, check] of Object.entries(checks)) {
  try {
    await check();
  } catch (error) {
    console.error(`${title}: failed`);
    throw error;
  }
  console.log(`  ${title}`);
}
clearTimeout(late);
await client.dispose();
process.exit(0);
