import type { Due, DueQueue } from '../../src/clock/due-queue.js';
import { MANAGER_STATUSES } from '../../src/events/vocabulary.js';
import type { Connection } from '../../src/manager/connection.js';
import type { Manager } from '../../src/manager/manager.js';
import type { UserRecord } from '../../src/manager/user-record.js';
import { USERS } from './history.js';
import { nameOf } from './model.js';
import type { World } from './world.js';

/** What no public name shows, and what must agree with what it shows. */
interface Hidden {
  readonly heartbeat: { readonly wheel: { readonly slots: Connection[][]; readonly size: number } };
  readonly statusKeeper: { readonly managers: DueQueue<Manager>; readonly expiries: DueQueue<Connection> };
  readonly registry: { readonly unused: DueQueue<UserRecord> };
  readonly detector: { readonly rounds: Map<UserRecord, unknown>; readonly consulted: Set<Connection> };
  readonly breaker: {
    readonly breakers: Map<UserRecord, unknown>;
    readonly reported: Map<UserRecord, unknown>;
  };
  readonly cleanup: {
    readonly budgets: Map<UserRecord, unknown>;
    readonly running: Map<UserRecord, unknown>;
  };
  readonly factory: { readonly turns: { readonly lines: Map<UserRecord, unknown> } };
  readonly evicted: { readonly byUser: Map<UserRecord, unknown> };
}

/** How late what is due by the clock may be noticed: its queue's grain, and a tick. */
const GRAIN_MS = 50;

/** Counts everything by hand, and says where the books say something else. */
export function* recount(world: World): Generator<string> {
  yield* recountManagers(world);
  yield* recountStatuses(world);
  yield* recountWheel(world);
  yield* recountQueues(world);
  yield* recountSlots(world);
  yield* lookForStrangers(world);
  yield* lookForUndiscovered(world);
  yield* lookForSlowConsumers(world);
}

function* recountManagers({ core: { registry }, model, setting }: World): Generator<string> {
  const { members } = model;
  if (registry.managerCount !== members.length)
    yield `${registry.managerCount} managers instead of ${members.length}`;
  for (const { id, manager } of members)
    if (registry.manager(id) !== manager) yield 'the managers are not those that came and stayed';
  const connections = members.flatMap(({ manager }) => manager.connections);
  const there = new Set(connections);
  let attached = 0;
  for (const { sockets } of members) {
    attached += sockets.length;
    for (const { connection } of sockets)
      if (!there.has(connection)) yield `${connection.id} is not among the connections`;
  }
  if (connections.length !== attached) yield `${connections.length} connections, and ${attached} sockets`;
  if (registry.connectionCount !== connections.length)
    yield `${registry.connectionCount} connections in the books`;
  const buffered = connections.reduce((sum, { bufferedSeen }) => sum + bufferedSeen, 0);
  if (registry.bufferedBytes !== buffered)
    yield `${registry.bufferedBytes} bytes waiting instead of ${buffered}`;
  for (const user of USERS) {
    const own = model.of(user);
    const record = registry.user(user);
    if (own.length > setting.limit && !setting.tiers) yield `${user} has ${own.length} managers`;
    if ((record?.managers.size ?? 0) !== own.length)
      yield `${user} has ${record?.managers.size} of ${own.length}`;
    // The limit is what the last newcomer's was; which one that is, the history does not tell.
    const limit = setting.tiers ? (record?.limit ?? Number.POSITIVE_INFINITY) : setting.limit;
    // With a limit below four slots the thresholds do not apply.
    const isPressed = own.length / limit >= setting.thresholds[0] && (record?.limit ?? 0) >= 4;
    if (record && registry.usersUnderPressure.has(record) !== isPressed) yield `the pressure of ${user}`;
    if (record && registry.usersAtLimit.has(record) !== own.length >= limit) yield `${user} at the limit`;
    for (const { key, manager, leftAt } of own) {
      if (key === undefined && leftAt !== undefined) yield `${user} has a session that nobody can find again`;
      if (own.filter((other) => key !== undefined && other.key === key).length > 1)
        yield `${user} has ${key} twice`;
      if (key !== undefined && record?.session(key) !== manager) yield `nobody finds ${user}'s ${key}`;
    }
  }
}

function* recountStatuses({ core: { registry, clock }, model, setting, witness }: World): Generator<string> {
  const now = clock.now();
  const counted = { healthy: 0, idle: 0, zombie: 0, inactive: 0, unknown: 0 };
  for (const { manager } of model.members) counted[manager.status]++;
  for (const status of MANAGER_STATUSES)
    if (registry.statusCounts[status] !== counted[status])
      yield `${registry.statusCounts[status]} ${status} instead of ${counted[status]}`;
  // A tick that a stall has delayed comes with the next turn.
  const patience = GRAIN_MS + (now === witness.lastStallAt ? Number.POSITIVE_INFINITY : 2);
  for (const member of model.members) {
    const { status } = member.manager;
    const right = [model.status(member, now), model.status(member, now - patience)];
    // What only a look at the socket shows is noticed at that look.
    if (right.includes('zombie') || status === 'zombie' || right.includes(status)) continue;
    const since = Math.max(member.activeAt, member.leftAt ?? member.createdAt);
    yield `${nameOf(member)} is ${status} instead of ${right[0]}, ${now - since} ms after (${setting.idle})`;
  }
}

function* recountWheel({ core, model }: World): Generator<string> {
  const { slots, size } = (core as unknown as Hidden).heartbeat.wheel;
  const connections = model.members.flatMap(({ manager }) => manager.connections);
  let there = 0;
  for (const slot of slots) there += slot.length;
  // So many places, and each of so many found in one of its own: nobody is there twice.
  if (size !== there || there !== connections.length) yield `${size} of ${connections.length} in the wheel`;
  for (const connection of connections) {
    const { slot, position } = connection;
    if (slots[slot]?.[position] !== connection) yield `nobody finds ${connection.id} in the wheel`;
  }
}

function* recountQueues({ core, clock, model, setting, witness }: World): Generator<string> {
  const hidden = core as unknown as Hidden;
  const waiting = new Map<Manager, number>();
  for (const [manager, at] of entries(hidden.statusKeeper.managers, GRAIN_MS)) {
    if (!manager.isOpen) yield `${manager.id} waits for its time, and has ended`;
    waiting.set(manager, at);
  }
  const expiring = new Map(entries(hidden.statusKeeper.expiries, GRAIN_MS));
  let expected = 0;
  for (const { connection, expiresAt } of model.members.flatMap(({ sockets }) => sockets)) {
    if (expiresAt === undefined) continue;
    expected++;
    const at = expiring.get(connection) ?? Number.POSITIVE_INFINITY;
    if (at > Math.max(expiresAt, connection.openedAt) + 2 * GRAIN_MS)
      yield `the credentials of ${connection.id} never end`;
    const lateMs = clock.now() - Math.max(expiresAt, connection.openedAt, witness.lastStallAt);
    if (lateMs > GRAIN_MS + 2) yield `${connection.id} has outlived its credentials by ${lateMs} ms`;
  }
  if (expiring.size !== expected)
    yield `${expiring.size} credentials wait for their end instead of ${expected}`;
  const now = clock.now();
  for (const member of model.members) {
    const inactiveSince = model.inactiveSince(member);
    const at = waiting.get(member.manager);
    const idleAt = member.activeAt + setting.idle;
    const isInUse = model.status(member, now) === 'healthy' && idleAt > now;
    const due = inactiveSince === undefined ? idleAt : inactiveSince + model.windowOf(member);
    if (
      (isInUse || (inactiveSince !== undefined && due > now)) &&
      (at === undefined || at > due + 2 * GRAIN_MS)
    )
      yield `${nameOf(member)} is not noticed when due`;
    if (inactiveSince !== undefined && at === undefined)
      yield `${nameOf(member)} is absent, and never comes up`;
  }
  for (const [user] of entries(hidden.registry.unused, 100))
    if (core.registry.user(user.userId) !== user) yield `${user.userId} is forgotten twice`;
  for (const user of core.registry.allUsers)
    if (user.isUnused && user.dueTick < 0) yield `${user.userId} is never forgotten`;
}

function* entries<T extends Due>(queue: DueQueue<T>, grain: number): Generator<[T, number]> {
  const { buckets } = queue as unknown as { buckets: Map<number, Set<T>> };
  for (const [tick, bucket] of buckets) {
    if (bucket.size === 0) throw new Error('an empty bucket');
    for (const item of bucket) {
      if (item.dueTick !== tick) throw new Error('waits elsewhere');
      yield [item, tick * grain];
    }
  }
}

/** Each slot once taken, and once released. */
function* recountSlots({ store, model }: World): Generator<string> {
  const open = new Set(model.members.map(({ id }) => id));
  for (const [id, taken] of store.taken)
    if (taken !== (open.has(id) ? 1 : 0)) yield `the slot of ${id} is held ${taken} times`;
  for (const id of open) if (!store.taken.has(id)) yield `${id} has no slot`;
}

/** Nothing is kept for a user or a connection that is not here. */
function* lookForStrangers({ core, model, witness }: World): Generator<string> {
  const { detector, breaker, cleanup, factory, evicted } = core as unknown as Hidden;
  const kept = {
    rounds: detector.rounds,
    breakers: breaker.breakers,
    'breaker reports': breaker.reported,
    budgets: cleanup.budgets,
    evicted: evicted.byUser,
  };
  for (const [what, map] of Object.entries(kept)) {
    for (const user of map.keys())
      if (core.registry.user(user.userId) !== user) yield `${what}: ${user.userId} is kept, and forgotten`;
  }
  for (const user of factory.turns.lines.keys())
    if (!witness.waiting.some((one) => one.user === user.userId))
      yield `${user.userId} has a queue, and nobody in it`;
  const connections = new Set(model.members.flatMap(({ manager }) => manager.connections));
  for (const connection of detector.consulted)
    if (!connections.has(connection)) yield `${connection.id} is asked about, and gone`;
}

/** Promise 4: silence has an end; up to a minute later where output was under way. */
function* lookForUndiscovered({ core, clock, model, setting, witness }: World): Generator<string> {
  if (core.heartbeat.isSelfPreserving) return;
  const patience = (setting.missed + 1) * setting.interval + 2;
  for (const member of model.members) {
    for (const { deadSince, isStuck, record } of member.sockets) {
      if (deadSince === undefined || isStuck) continue;
      const silentMs = clock.now() - Math.max(deadSince, witness.lastStallAt);
      const most = patience + (record.hadOutput ? 60_000 : 0);
      if (silentMs > most) yield `${nameOf(member)} has been silent for ${silentMs} ms`;
    }
  }
}

/** Unsent bytes are bounded: a client that does not read them is found a second later, or by the next heartbeat. */
function* lookForSlowConsumers({ clock, model, setting, witness }: World): Generator<string> {
  for (const member of model.members) {
    for (const { state, paused, bufferedAmount, movedAt, record } of member.sockets) {
      if (state !== 'open' || paused || bufferedAmount <= setting.buffered || movedAt === undefined) continue;
      const since = Math.max(movedAt, record.overSince, witness.lastStallAt);
      if (clock.now() - since > 2_000 + setting.interval)
        yield `${nameOf(member)} keeps ${bufferedAmount} bytes that do not move`;
      if (record.bufferedBeforeTurn > 16 * setting.buffered)
        yield `${nameOf(member)} keeps ${bufferedAmount} bytes`;
    }
  }
}
