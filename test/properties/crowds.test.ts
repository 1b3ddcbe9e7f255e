import fc from 'fast-check';
import { afterAll, describe, it } from 'vitest';
import type { EvictedEvent } from '../../src/events/websocket-manager-event.js';
import { type FakePeer, FakeSocket } from '../../src/testing/index.js';
import { Core } from '../support/core.js';
import { HistoryClock } from './history-clock.js';
import { makeIdsRepeatable, restartIds } from './repeatable-ids.js';

const HISTORIES = Math.ceil(Number(process.env.HISTORIES ?? 100) / 50);
const SEED = Number(process.env.SEED ?? 20_261_123);

const INTERVAL = 1_000;
const LIMIT = 4;
const AT_THE_LIMIT = { proactiveThreshold: 1, moderateThreshold: 1, aggressiveThreshold: 1 };
/** So many sessions a user has at first. */
const OF_ONE = 3;
/** Fewer connections prove nothing about the node. */
const MANY = 100;
/** For so long, at most, nothing is taken for being silent. */
const BEATS = 3;
/** The wheel's tick, and a timer's millisecond. */
const TICK = 25 + 2;

type Action =
  /** So many of a hundred of those who are there fall silent, answer again, or are closed unnoticed. */
  | { readonly do: 'become'; readonly share: number; readonly from: number; readonly peer: FakePeer }
  | { readonly do: 'arrive'; readonly user: number }
  | { readonly do: 'wait'; readonly for: number };

const anyAction: fc.Arbitrary<Action> = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('become' as const),
      share: fc.constantFrom(10, 40, 49, 50, 51, 55, 60, 80, 100),
      from: fc.nat({ max: 200 }),
      peer: fc.constantFrom<FakePeer[]>('silent', 'silent', 'silent', 'answers', 'closed', {
        answersAfterMs: 900,
      }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('arrive' as const), user: fc.nat({ max: 30 }) }) },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('wait' as const),
      for: fc.oneof(fc.constantFrom(250, 750, 1_000, 2_000, 3_000, 3_100), fc.nat({ max: 4_000 })),
    }),
  },
);

const anyCrowd = fc.record({
  size: fc.constantFrom(60, 99, 100, 101, 102, 120, 160, 200),
  missed: fc.integer({ min: 1, max: 3 }),
  /** How long they took to come. */
  over: fc.constantFrom(0, 300, 2_500),
  actions: fc.array(anyAction, { minLength: 1, maxLength: 12 }),
});

interface One {
  readonly socket: FakeSocket;
  readonly user: string;
}

/** A node full of connections, and what is said about why they fall silent. */
class Crowd {
  readonly clock = new HistoryClock();
  readonly all: One[] = [];
  readonly broken: string[] = [];
  /** When it began to blame itself; undefined: it does not. */
  private blamesSince: number | undefined;
  private readonly fellSilentAt = new Map<FakeSocket, number>();
  private readonly atDoor = new Set<string>();

  private constructor(
    readonly core: Core,
    readonly missed: number,
  ) {
    core.events.events$.subscribe((event) => {
      if (event.type === 'self_preservation') this.changed(event.active, event.silent, event.connections);
      else if (event.type === 'evicted') this.evicted(event);
    });
  }

  static async live({
    size,
    missed,
    over,
    actions,
  }: typeof anyCrowd extends fc.Arbitrary<infer T> ? T : never): Promise<Crowd> {
    restartIds();
    const clock = new HistoryClock();
    const core = await Core.start(
      {
        limits: { managersPerUser: LIMIT },
        heartbeat: { intervalMs: INTERVAL, missedBeforeZombie: missed, probeTimeoutMs: 200 },
        // Only who is at the limit is asked by every sweep; of all others the heartbeat has to find it.
        cleanup: { ...AT_THE_LIMIT, intervalMs: 700, graceMs: 100 },
      },
      clock,
    );
    const crowd = new Crowd(core, missed);
    Object.assign(crowd, { clock });
    for (let i = 0; i < size; i++) {
      await crowd.arrive(Math.floor(i / OF_ONE));
      if (over > 0) await clock.advance(over / size);
    }
    for (const action of actions) await crowd.take(action);
    await crowd.end();
    return crowd;
  }

  /** What the contract says of it: more than half of more than a hundred. */
  private changed(active: boolean, silent: number, connections: number): void {
    const now = this.clock.now();
    if (active) {
      if (this.blamesSince !== undefined) this.broken.push('it blames itself twice');
      if (connections !== this.core.registry.connectionCount)
        this.broken.push('the connections were miscounted');
      if (connections <= MANY || silent <= connections / 2)
        this.broken.push(`it blames itself for ${silent} of ${connections}`);
      this.blamesSince = now;
      return;
    }
    if (this.blamesSince === undefined) this.broken.push('it stops blaming itself, and never began');
    this.blamesSince = undefined;
  }

  private evicted({ userId, reason, evidence, trigger }: EvictedEvent): void {
    if (reason !== 'no_pong' || evidence.signal === 'closed_socket') return;
    if (this.blamesSince !== undefined && !(trigger === 'admission' && this.atDoor.has(userId)))
      this.broken.push(`${userId} lost a session for its silence, which was ours`);
  }

  private async take(action: Action): Promise<void> {
    switch (action.do) {
      case 'arrive':
        await this.arrive(action.user);
        break;
      case 'become': {
        const open = this.all.filter(({ socket }) => socket.state === 'open');
        const count = Math.floor((open.length * action.share) / 100);
        for (let i = 0; i < count; i++)
          this.become(open[(action.from + i) % open.length] as One, action.peer);
        break;
      }
      case 'wait':
        await this.pass(action.for);
    }
    this.look();
  }

  private become({ socket }: One, peer: FakePeer): void {
    socket.become(peer);
    if (peer === 'silent') this.fellSilentAt.set(socket, this.fellSilentAt.get(socket) ?? this.clock.now());
    else this.fellSilentAt.delete(socket);
  }

  /** A newcomer gets in at the limit, too, where one of the user's sessions is silent: promise 2. */
  private async arrive(index: number): Promise<void> {
    const user = `user-${index}`;
    const own = this.all.filter((one) => one.user === user && one.socket.state === 'open');
    const isSomebodySilent = own.some(({ socket }) => this.fellSilentAt.has(socket));
    this.atDoor.add(user);
    let isAnswered = false;
    const asked = this.core.admit(user).then(({ socket, result }) => {
      isAnswered = true;
      this.atDoor.delete(user);
      if (socket) this.all.push({ socket, user });
      else if (isSomebodySilent || own.length < LIMIT)
        this.broken.push(`${user} was refused with ${(result as { reason?: string }).reason}`);
    });
    await this.clock.settle();
    if (isAnswered) return;
    await this.pass(200 + 100);
    if (!isAnswered) this.broken.push(`${user} waits for too long`);
    await asked;
  }

  /** In small steps: it must not blame itself for longer than three beats at any time. */
  private async pass(ms: number): Promise<void> {
    const until = this.clock.now() + ms;
    while (this.clock.now() < until) {
      await this.clock.advance(Math.min(250, until - this.clock.now()));
      this.look();
    }
  }

  private look(): void {
    const now = this.clock.now();
    const { isSelfPreserving, isSelfPreserving: blames } = this.core.heartbeat;
    if (isSelfPreserving !== (this.blamesSince !== undefined))
      this.broken.push('it does not say what it does');
    if (this.blamesSince !== undefined && now - this.blamesSince > BEATS * INTERVAL + TICK)
      this.broken.push(`it has blamed itself for ${now - this.blamesSince} ms`);
    for (const [socket, at] of this.fellSilentAt) {
      if (socket.connection.detached) this.fellSilentAt.delete(socket);
      // Blamed once on ourselves, silence has its time once more at most.
      else if (
        !blames &&
        now - at > (this.missed + 1 + BEATS + 1) * INTERVAL + TICK &&
        !this.hasBlamedSince(at)
      )
        this.broken.push(`somebody has been silent for ${now - at} ms`);
    }
    if (this.broken.length > 0) throw new Error(this.broken[0]);
  }

  /** It may begin anew, if others fall silent meanwhile. */
  private hasBlamedSince(at: number): boolean {
    return (
      this.core.reportedOf('self_preservation').filter((event) => event.active && event.at > at + WALL)
        .length > 1
    );
  }

  /** With nothing more happening, all of the silent are found, and nobody else. */
  private async end(): Promise<void> {
    // Who takes most of a beat to answer falls silent anew with every beat.
    for (const { socket } of this.all) if (!this.fellSilentAt.has(socket)) socket.become('answers');
    await this.pass((this.missed + 1 + BEATS + 2) * INTERVAL);
    for (const { socket, user } of this.all) {
      const isThere = !socket.connection.detached;
      if (isThere && this.fellSilentAt.has(socket))
        throw new Error(`${user} has a session with nobody in it`);
    }
    if (this.core.heartbeat.isSelfPreserving) throw new Error('it blames itself for ever');
  }
}

/** From the clock's time to what people read. */
const WALL = Date.UTC(2024, 0, 1) - 1_000_000;

afterAll(makeIdsRepeatable());

describe('any crowd', () => {
  it(`is never taken for gone because of ourselves for longer than three beats (${HISTORIES}, seed ${SEED})`, async () => {
    const seen = { blamed: 0, histories: 0 };
    const property = fc.asyncProperty(anyCrowd, async (history) => {
      const { core } = await Crowd.live(history);
      seen.histories++;
      if (core.reportedOf('self_preservation').length > 0) seen.blamed++;
    });
    await fc.assert(property, { numRuns: HISTORIES, seed: SEED });
    if (HISTORIES >= 20 && seen.blamed === 0) throw new Error('it never blamed itself, so nothing was tried');
  }, 0);
});
