import fc from 'fast-check';
import { afterAll, describe, it } from 'vitest';
import type { Manager } from '../../src/manager/manager.js';
import { checkUserContext } from '../../src/options/user-context.js';
import { type FakePeer, FakeSocket } from '../../src/testing/index.js';
import { Core } from '../support/core.js';
import { HistoryClock } from './history-clock.js';
import { makeIdsRepeatable, restartIds } from './repeatable-ids.js';
import { INVALID, type Mood, type NodeStore, PROMPT_MS, type Scope, SharedStore } from './shared-store.js';

const HISTORIES = Math.ceil(Number(process.env.HISTORIES ?? 100) / 10);
const SEED = Number(process.env.SEED ?? 20_261_123);

const NODES = 2;
const USERS = ['alice', 'bob'];
const TIMEOUT = 100;
const PROBE = 200;
const INTERVAL = 400;
const REFILL = 500;
/** An unanswered call counts as lost after so long, and a failed one is repeated within the back-off. */
const LOST = 30_000;
const BACK_OFF = 2_000;

type Action =
  | {
      readonly do: 'arrive';
      readonly node: number;
      readonly user: number;
      readonly count: number;
      readonly key: number | undefined;
      readonly peer: FakePeer;
      readonly goneAfter: number | undefined;
    }
  | { readonly do: 'leave' | 'freeze' | 'end'; readonly who: number }
  | {
      readonly do: 'mood';
      readonly node: number;
      readonly user: number | undefined;
      readonly operation: Scope['operation'];
      readonly becomes: Mood;
    }
  | { readonly do: 'recover'; readonly node: number }
  | { readonly do: 'stall'; readonly for: number }
  | { readonly do: 'wait'; readonly for: number };

interface Setting {
  readonly limit: number;
  readonly grace: number;
  readonly window: number;
  readonly queue: number;
  readonly burst: number;
}

const anyNode = fc.nat({ max: NODES - 1 });
const anyMs = fc.oneof(
  fc.constantFrom(0, 1, 49, 50, 51, 99, 100, 101, 199, 250, 251, 400),
  fc.nat({ max: 900 }),
);
const option = <T>(freq: number, arbitrary: fc.Arbitrary<T>) =>
  fc.option(arbitrary, { nil: undefined, freq });

const anyMood: fc.Arbitrary<Mood> = fc.oneof(
  { weight: 3, arbitrary: fc.constant<Mood>('prompt') },
  {
    weight: 5,
    arbitrary: fc.record({ there: fc.nat({ max: PROMPT_MS - 4 }), back: fc.nat({ max: 4 }) }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ there: fc.constantFrom(0, 1, 50, 99, 100, 101, 300), back: fc.nat({ max: 300 }) }),
  },
  { weight: 1, arbitrary: fc.record({ invalid: fc.nat({ max: INVALID.length - 1 }) }) },
  { weight: 1, arbitrary: fc.constant<Mood>('twice') },
  {
    weight: 3,
    arbitrary: fc.constantFrom<Mood[]>('throws', 'rejects', 'lost on the way back', 'lost on the way there'),
  },
);

const anyAction: fc.Arbitrary<Action> = fc.oneof(
  {
    weight: 10,
    arbitrary: fc.record({
      do: fc.constant('arrive' as const),
      node: anyNode,
      user: fc.constantFrom(0, 0, 0, 1),
      count: fc.constantFrom(1, 1, 1, 2, 3),
      key: option(2, fc.nat({ max: 3 })),
      peer: fc.constantFrom<FakePeer[]>('answers', 'answers', 'silent', 'closed'),
      goneAfter: option(12, anyMs),
    }),
  },
  { weight: 8, arbitrary: fc.record({ do: fc.constant('wait' as const), for: anyMs }) },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constantFrom('leave', 'leave', 'freeze', 'end'),
      who: fc.nat({ max: 20 }),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('mood' as const),
      node: anyNode,
      user: fc.constantFrom(undefined, undefined, 0, 1),
      operation: fc.constantFrom<Scope['operation'][]>(undefined, undefined, 'reserve', 'release'),
      becomes: anyMood,
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('recover' as const), node: anyNode }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('stall' as const), for: anyMs }) },
);

const anyHistory = fc.record({
  setting: fc.record({
    limit: fc.integer({ min: 1, max: 4 }),
    grace: fc.constantFrom(0, 100, 400),
    window: fc.constantFrom(0, 300, 1_000),
    queue: fc.constantFrom(0, 0, 300),
    burst: fc.integer({ min: 1, max: 3 }),
  }),
  actions: fc.array(anyAction, { maxLength: 40, size: 'max' }),
});

interface Waiting {
  readonly node: number;
  readonly user: string;
  readonly at: number;
  readonly stalledMs: number;
  /** Newcomers of the user before it on this node, whose turn comes first. */
  readonly before: number;
}

/** Several nodes, one store, and what must be true of all of them together. */
class Cluster {
  readonly clock = new HistoryClock();
  readonly store: SharedStore;
  readonly stores: NodeStore[];
  readonly nodes: Core[] = [];
  private readonly sockets: { socket: FakeSocket; manager: Manager }[] = [];
  private readonly waiting: Waiting[] = [];
  private readonly admitted = new Set<string>();
  /** Incoming connections of each user, and sessions that were evicted for them. */
  private readonly arrivals = new Map<string, number>();
  private readonly evictions = new Map<string, number>();
  /** Users that the store has counted above the limit, after nodes decided alone. */
  private readonly above = new Set<string>();
  private stalledMs = 0;

  private constructor(readonly setting: Setting) {
    this.store = new SharedStore(this.clock, setting.grace);
    this.stores = Array.from({ length: NODES }, (_, node) => this.store.forNode(node));
  }

  static async live(setting: Setting, actions: readonly Action[]): Promise<void> {
    restartIds();
    const cluster = new Cluster(setting);
    for (const [node, store] of cluster.stores.entries()) {
      const { limit, grace, window, queue, burst } = setting;
      const core = await Core.start(
        {
          store,
          storeTimeoutMs: TIMEOUT,
          limits: { managersPerUser: limit },
          heartbeat: { intervalMs: INTERVAL, probeTimeoutMs: PROBE },
          cleanup: {
            graceMs: grace,
            intervalMs: 1_000,
            hookTimeoutMs: 100,
            forcedEvictionBurst: burst,
            forcedEvictionRefillMs: REFILL,
          },
          session: { resumeWindowMs: window },
          admission: { queueTimeoutMs: queue },
        },
        cluster.clock,
      );
      cluster.store.join(core);
      cluster.nodes.push(core);
      cluster.watch(core);
      core.registry.observe({
        managerAdded: (manager) => cluster.added(manager),
        userForgotten: ({ userId }) => cluster.store.forget(node, userId),
      });
    }
    for (const action of actions) {
      await cluster.take(action);
      await cluster.clock.settle();
      cluster.look(JSON.stringify(action));
    }
    await cluster.end();
  }

  /** No node decides alone about a user whose calls were all answered promptly. */
  private watch(core: Core): void {
    const ledger = core.ledger as unknown as { decideAlone(request: { userId: string }): unknown };
    const decideAlone = ledger.decideAlone.bind(ledger);
    ledger.decideAlone = (request) => {
      if (!this.store.away.has(request.userId))
        this.store.broken.push(`a node decided alone about ${request.userId}`);
      return decideAlone(request);
    };
    core.events.events$.subscribe((event) => {
      if (event.type !== 'evicted') return;
      if (event.trigger === 'admission' || event.evidence.signal === 'taken_over')
        this.noteEviction(event.userId);
    });
  }

  private noteEviction(user: string): void {
    const evictions = (this.evictions.get(user) ?? 0) + 1;
    this.evictions.set(user, evictions);
    const arrivals = this.arrivals.get(user) ?? 0;
    if (evictions > arrivals)
      this.store.broken.push(`${evictions} sessions of ${user} were evicted for ${arrivals} connections`);
  }

  private added({ id, userId }: Manager): void {
    this.admitted.add(id);
    const { broken, away } = this.store;
    this.checkNodes(userId);
    const total = this.managersOf(userId).length;
    if (away.has(userId)) return;
    if (total > this.setting.limit) broken.push(`${userId} has ${total} managers in all`);
    if (!this.store.held.has(id)) broken.push(`${id} has no slot`);
  }

  /** A node by itself keeps the limit, however it decided; above it, an incoming connection adds no session. */
  private checkNodes(user: string): void {
    const held = this.store.of(user).length;
    if (held > this.setting.limit) this.above.add(user);
    if (this.above.has(user)) return;
    for (const { registry } of this.nodes) {
      const { size = 0 } = registry.user(user)?.managers ?? {};
      if (size > this.setting.limit) this.store.broken.push(`${user} has ${size} managers on one node`);
    }
  }

  private managersOf(user: string): Manager[] {
    return this.nodes.flatMap(({ registry }) => [...(registry.user(user)?.managers ?? [])]);
  }

  /** A living session that goes elsewhere is a forced eviction like any other, on the account of who asked. */
  private checkBudget(): void {
    for (const user of USERS) {
      for (let node = 0; node < NODES; node++) {
        const { burst } = this.setting;
        let [tokens, before] = [burst, Number.NEGATIVE_INFINITY];
        for (const one of this.store.charged) {
          if (one.user !== user || one.node !== node || !one.isLiving) continue;
          tokens = Math.min(burst, tokens + (one.at - before) / REFILL) - 1;
          before = one.at;
          if (tokens < -1e-6)
            this.store.broken.push(`${user} lost a living session elsewhere beyond the budget`);
        }
      }
    }
  }

  private async take(action: Action): Promise<void> {
    switch (action.do) {
      case 'arrive':
        for (let i = 0; i < action.count; i++) this.arrive(action);
        return;
      case 'mood':
        this.stores[action.node]?.become(action.becomes, {
          operation: action.operation,
          user: action.user === undefined ? undefined : USERS[action.user],
        });
        return;
      case 'recover':
        this.stores[action.node]?.recover();
        return;
      case 'wait':
        return this.clock.advance(action.for);
      case 'stall':
        this.stalledMs += action.for;
        return this.clock.stall(action.for);
      default: {
        const open = this.sockets.filter(({ socket }) => socket.state === 'open');
        const one = open[action.who % Math.max(1, open.length)];
        if (action.do === 'leave') one?.socket.leave();
        else if (action.do === 'freeze') one?.socket.become('silent');
        else void one?.manager.close({ reason: 'terminated_by_admin' });
      }
    }
  }

  private arrive({ node, user: index, key, peer, goneAfter }: Extract<Action, { do: 'arrive' }>): void {
    const user = USERS[index] as string;
    const { factory, registry } = this.nodes[node] as Core;
    const before = this.waiting.filter((one) => one.user === user && one.node === node).length;
    const arrival: Waiting = { node, user, at: this.clock.now(), stalledMs: this.stalledMs, before };
    this.waiting.push(arrival);
    this.arrivals.set(user, (this.arrivals.get(user) ?? 0) + 1);
    let isGone = false;
    if (goneAfter !== undefined)
      this.clock.io(() => {
        isGone = true;
      }, goneAfter);
    const context = checkUserContext({
      userId: user,
      sessionKey: key === undefined ? undefined : `tab-${key}`,
    });
    const asked = factory.admit(context, { isGone: () => isGone });
    void Promise.resolve(asked).then((result) => {
      this.waiting.splice(this.waiting.indexOf(arrival), 1);
      this.checkWait(arrival, 'served');
      const { broken, away } = this.store;
      if (!result.admitted) {
        if (result.reason !== 'over_limit') broken.push(`${user} was refused with ${result.reason}`);
        if (!away.has(user) && !isGone && (this.store.fullAt.get(user) ?? 0) < arrival.at)
          broken.push(`${user} was refused below the limit`);
        return;
      }
      const { manager } = result;
      if (registry.manager(manager.id) === undefined || isGone) return;
      const socket = new FakeSocket(this.clock, peer);
      socket.bind(manager.attach(socket));
      this.sockets.push({ socket, manager });
    });
  }

  /** The time that an admission may wait for the store, and the probe's. */
  private checkWait({ user, at, stalledMs, before }: Waiting, what: string): void {
    const once = PROBE + 100 + TIMEOUT;
    const most = (before + 1) * (once + this.setting.queue);
    const waitedMs = this.clock.now() - at;
    if (stalledMs === this.stalledMs && waitedMs > most)
      this.store.broken.push(`${user} was ${what} after ${waitedMs} ms`);
  }

  private look(when: string): void {
    const { held, broken, away } = this.store;
    for (const arrival of this.waiting) this.checkWait(arrival, 'still waiting');
    for (const user of USERS) {
      this.checkNodes(user);
      if (away.has(user)) continue;
      const managers = this.managersOf(user);
      if (managers.length > this.setting.limit) broken.push(`${user} has ${managers.length} managers in all`);
      for (const { id } of managers) if (!held.has(id)) broken.push(`${id} has no slot`);
    }
    this.checkBudget();
    if (broken.length > 0) throw new Error(`${broken[0]} (after ${when})`);
  }

  /** The store has recovered, and is told what it has missed; then all leave. */
  private async end(): Promise<void> {
    for (const store of this.stores) store.recover();
    const { queue, window, grace } = this.setting;
    await this.clock.advance(3 * (PROBE + 100 + TIMEOUT + queue) * (this.waiting.length + 1));
    this.look('the recovery of the store');
    if (this.waiting.length > 0) throw new Error('an incoming connection waits for ever');
    await this.clock.advance(LOST + BACK_OFF + 1_000);
    this.checkSlots();
    for (const { socket } of this.sockets) socket.leave();
    await this.clock.advance(4 * INTERVAL + 2 * window + 2 * Math.max(100, grace) + 2_000);
    this.look('all have left');
    for (const node of this.nodes) this.checkEmpty(node);
    if (this.store.held.size > 0) throw new Error(`${this.store.held.size} slots have no manager`);
    const timers = this.clock.timerCount - 2 * NODES;
    if (timers > 0) throw new Error(`${timers} timers are left`);
    for (const { by, user } of this.store.takenOver)
      if (!this.store.away.has(user) && !this.admitted.has(by))
        throw new Error(`a session was evicted elsewhere for ${by}, which was not admitted`);
  }

  /** Nothing has grown: all that is kept for a time is gone with its cause. */
  private checkEmpty({ registry, ledger, factory }: Core): void {
    if (registry.managerCount + registry.userCount > 0) throw new Error('a manager or a user is left');
    if (ledger.isDegraded) throw new Error('the node is still degraded');
    const { places } = ledger as unknown as { places: number };
    if (places !== 0) throw new Error(`${places} places are taken`);
    for (const part of [ledger, factory]) {
      for (const [name, value] of Object.entries(part)) {
        const { size } = (value ?? {}) as { size?: unknown };
        if (typeof size === 'number' && size > 0) throw new Error(`${size} entries are left in ${name}`);
      }
    }
  }

  /** The store counts the managers that exist, and nothing else, whatever has gone wrong before. */
  private checkSlots(): void {
    const open = new Set(USERS.flatMap((user) => this.managersOf(user)).map(({ id }) => id));
    for (const id of this.store.held.keys())
      if (!open.has(id)) throw new Error(`the slot of ${id} has no manager`);
    for (const id of open) if (!this.store.held.has(id)) throw new Error(`${id} has no slot`);
  }
}

afterAll(makeIdsRepeatable());

describe('any store', () => {
  it(`costs no connection, and keeps the limit of a user whose calls it answers (${HISTORIES}, seed ${SEED})`, async () => {
    const property = fc.asyncProperty(anyHistory, async ({ setting, actions }) => {
      await Cluster.live(setting, actions);
    });
    await fc.assert(property, { numRuns: HISTORIES, seed: SEED, interruptAfterTimeLimit: 600_000 });
  }, 0);
});
