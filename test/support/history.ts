import { expect } from 'vitest';
import type { FakePeer, FakeSocket } from '../../src/testing/index.js';
import { type Admission, Core, type CoreOptions, type Past, type Placed } from './core.js';

/** A number, or the least and the most. */
type Amount = number | readonly [number, number];

interface PeerScript {
  readonly connection?: string | { readonly answersAfterMs: number };
  readonly answersAfterMs?: number;
}

interface Group extends PeerScript {
  readonly name: string;
  readonly count?: number;
  readonly openedAgoMs?: number;
  readonly activeAgoMs?: number;
  readonly leftAgoMs?: number;
  readonly missedPongs?: number;
  readonly sessionKey?: boolean | string;
  readonly priority?: number;
  readonly busy?: boolean;
  readonly closeHook?: 'throws' | 'hangs';
}

interface Admit extends PeerScript {
  readonly user: string;
  readonly count?: number;
  readonly priority?: number;
  readonly sessionKey?: string;
}

interface Become extends PeerScript {
  readonly user?: string;
  readonly group: string;
  readonly count?: number;
}

interface Leave {
  readonly user?: string;
  readonly group: string;
  readonly count?: number;
}

interface Step {
  readonly atMs: number;
  readonly admit?: Admit | readonly Admit[];
  readonly become?: Become | readonly Become[];
  readonly leave?: Leave | readonly Leave[];
  readonly stall?: { readonly forMs: number };
}

interface Expectation {
  readonly atMs: number;
  readonly admitted?: Amount;
  readonly rejected?: Amount;
  readonly managers?: Readonly<Record<string, Amount>>;
  readonly evicted?: Readonly<Record<string, Amount>>;
  readonly withinMs?: number;
  readonly retryAfterMsAtMost?: number;
  readonly breaker?: Readonly<Record<string, string>>;
}

/** One history, as the files in histories/ tell it. */
export interface History {
  readonly name: string;
  readonly why?: string;
  readonly options?: CoreOptions;
  readonly users: Readonly<Record<string, readonly Group[]>>;
  readonly steps: readonly Step[];
  readonly expect: readonly Expectation[];
  readonly always?: { readonly managersAtMost?: number };
}

const PEER_KEYS = ['connection', 'answersAfterMs'];
const GROUP_KEYS = [
  ...PEER_KEYS,
  ...['name', 'count', 'openedAgoMs', 'activeAgoMs', 'leftAgoMs', 'missedPongs'],
  ...['sessionKey', 'priority', 'busy', 'closeHook'],
];
const EXPECT_KEYS = [
  ...['atMs', 'admitted', 'rejected', 'managers', 'evicted', 'withinMs', 'retryAfterMsAtMost', 'breaker'],
];

/** Lives a history through, and fails where it is not as it says. */
export async function live(history: History): Promise<void> {
  checkKeys('history', history, ['name', 'why', 'options', 'users', 'steps', 'expect', 'always']);
  const core = await Core.start(history.options);
  const run = new Run(history, core);
  await run.toTheEnd();
}

interface Member extends Placed {
  readonly user: string;
  readonly group: string;
}

interface Asked {
  readonly startedAt: number;
  admission: Admission | undefined;
}

class Run {
  private readonly members: Member[] = [];
  private readonly asked: Asked[] = [];
  /** What was found against `always`. */
  private readonly broken: string[] = [];
  private readonly startedAt: number;

  constructor(
    private readonly history: History,
    private readonly core: Core,
  ) {
    this.startedAt = core.clock.now();
    checkKeys('always', history.always ?? {}, ['managersAtMost']);
    for (const [user, groups] of Object.entries(history.users))
      for (const group of groups) this.place(user, group);
    core.registry.observe({ managerAdded: () => this.checkAlways() });
  }

  async toTheEnd(): Promise<void> {
    const { clock } = this.core;
    const moments = [
      ...this.history.steps.map((step) => ({ atMs: step.atMs, order: 0, act: () => this.take(step) })),
      ...this.history.expect.map((expected) => ({
        atMs: expected.atMs,
        order: 1,
        act: () => this.check(expected),
      })),
    ].sort((a, b) => a.atMs - b.atMs || a.order - b.order);
    this.checkAlways();
    for (const { atMs, act } of moments) {
      // A stall may have carried us past it.
      await clock.advanceTo(Math.max(clock.now(), this.startedAt + atMs));
      await act();
      await clock.settle();
      this.checkAlways();
      this.failOnBrokenRule();
    }
  }

  /** Called from where nothing may throw. */
  private checkAlways(): void {
    const most = this.history.always?.managersAtMost;
    if (most === undefined) return;
    for (const user of new Set([
      ...Object.keys(this.history.users),
      ...this.members.map((member) => member.user),
    ])) {
      const count = this.core.count(user);
      if (count > most)
        this.broken.push(`${user} has ${count} managers ${this.sinceStart()} ms in; at most ${most}`);
    }
  }

  private failOnBrokenRule(): void {
    if (this.broken.length > 0) throw new Error(`always: ${this.broken[0]}`);
  }

  private place(user: string, group: Group): void {
    checkKeys(`group ${group.name}`, group, GROUP_KEYS);
    const { name, count = 1, sessionKey, leftAgoMs, connection: _, answersAfterMs: __, ...past } = group;
    const peer = peerOf(group);
    for (let i = 0; i < count; i++) {
      const full: Past = {
        userId: user,
        ...past,
        ...(peer === undefined ? {} : { connection: peer }),
        ...(leftAgoMs === undefined ? {} : { leftAgoMs }),
        ...(sessionKey ? { sessionKey: sessionKey === true ? `${name}-${i}` : sessionKey } : {}),
      };
      this.members.push({ user, group: name, ...this.core.place(full) });
    }
  }

  private async take(step: Step): Promise<void> {
    checkKeys('step', step, ['atMs', 'admit', 'become', 'leave', 'stall']);
    for (const admit of listOf(step.admit)) this.admit(admit);
    for (const become of listOf(step.become)) this.become(become);
    for (const leave of listOf(step.leave)) this.leave(leave);
    if (!step.stall) return;
    checkKeys('stall', step.stall, ['forMs']);
    await this.core.clock.stall(step.stall.forMs);
  }

  private admit(admit: Admit): void {
    checkKeys('admit', admit, [...PEER_KEYS, 'user', 'count', 'priority', 'sessionKey']);
    const { user, count = 1, priority, sessionKey } = admit;
    const connection = peerOf(admit) ?? 'answers';
    for (let i = 0; i < count; i++) {
      const asked: Asked = { startedAt: this.core.clock.now(), admission: undefined };
      this.asked.push(asked);
      void this.core.admit(user, { priority, sessionKey, connection }).then((admission) => {
        asked.admission = admission;
        const { result, socket } = admission;
        if (result.admitted) this.members.push({ user, group: 'newcomers', manager: result.manager, socket });
      });
    }
  }

  private become(become: Become): void {
    checkKeys('become', become, [...PEER_KEYS, 'user', 'group', 'count']);
    const peer = peerOf(become);
    for (const socket of this.openSocketsOf(become)) {
      if (peer === 'none') socket.leave();
      else if (peer !== undefined) socket.become(peer);
    }
  }

  private leave(leave: Leave): void {
    checkKeys('leave', leave, ['user', 'group', 'count']);
    for (const socket of this.openSocketsOf(leave)) socket.leave();
  }

  private openSocketsOf({ user, group, count = Number.POSITIVE_INFINITY }: Leave): FakeSocket[] {
    const members = this.members.filter(
      (member) => member.group === group && (!user || member.user === user),
    );
    if (members.length === 0) throw new Error(`There is no group ${group}`);
    return members
      .flatMap(({ socket }) => (socket && !socket.connection.detached ? [socket] : []))
      .slice(0, count);
  }

  private check(expected: Expectation): void {
    checkKeys('expect', expected, EXPECT_KEYS);
    const results = this.asked.flatMap(({ admission }) => (admission ? [admission.result] : []));
    const at = (what: string) => `${what} at ${expected.atMs} ms`;
    expectAmount(at('admitted'), results.filter(({ admitted }) => admitted).length, expected.admitted);
    expectAmount(at('rejected'), results.filter(({ admitted }) => !admitted).length, expected.rejected);
    for (const [user, amount] of Object.entries(expected.managers ?? {})) {
      expectAmount(at(`managers of ${user}`), this.core.count(user), amount);
    }
    for (const [group, amount] of Object.entries(expected.evicted ?? {})) {
      expectAmount(at(`evicted of ${group}`), this.evictedOf(group), amount);
    }
    if (expected.withinMs !== undefined) {
      expect(this.slowestMs(), at('slowest admission')).toBeLessThanOrEqual(expected.withinMs);
    }
    if (expected.retryAfterMsAtMost !== undefined) {
      const waits = results.map((result) => (result.admitted ? 0 : (result.retryAfterMs ?? 0)));
      expect(Math.max(0, ...waits), at('retryAfterMs')).toBeLessThanOrEqual(expected.retryAfterMsAtMost);
    }
    for (const [user, state] of Object.entries(expected.breaker ?? {})) {
      const now = this.core.breaker.stateOf(this.core.registry.user(user));
      expect(now, at(`breaker of ${user}`)).toBe(state.replace('_', '-'));
    }
  }

  private evictedOf(group: string): number {
    const members = this.members.filter((member) => member.group === group);
    if (members.length === 0) throw new Error(`There is no group ${group}`);
    return members.filter(({ manager: { endedBy } }) => endedBy !== undefined && endedBy !== 'left').length;
  }

  /** Who still waits counts with the wait so far. */
  private slowestMs(): number {
    const now = this.core.clock.now();
    return Math.max(0, ...this.asked.map(({ startedAt, admission }) => admission?.tookMs ?? now - startedAt));
  }

  private sinceStart(): number {
    return this.core.clock.now() - this.startedAt;
  }
}

function expectAmount(what: string, actual: number, expected: Amount | undefined): void {
  if (expected === undefined) return;
  const [least, most] = typeof expected === 'number' ? [expected, expected] : expected;
  expect(actual, what).toBeGreaterThanOrEqual(least);
  expect(actual, what).toBeLessThanOrEqual(most);
}

/** `answers`, `answersAfterMs` with a number beside it, in it or after it, `silent`, `closed`, `none`. */
function peerOf({ connection, answersAfterMs }: PeerScript): FakePeer | 'none' | undefined {
  if (typeof connection === 'object') {
    checkKeys('connection', connection, ['answersAfterMs']);
    return connection;
  }
  const delayMs = answersAfterMs ?? Number(/^answersAfterMs[ :=]+(\d+)$/.exec(connection ?? '')?.[1]);
  if (!Number.isNaN(delayMs)) return { answersAfterMs: delayMs };
  switch (connection) {
    case 'answers':
    case 'silent':
    case 'closed':
    case 'none':
    case undefined:
      return connection;
    default:
      throw new Error(`There is no connection that is ${connection}`);
  }
}

function listOf<T extends object>(value: T | readonly T[] | undefined): readonly T[] {
  if (value === undefined) return [];
  return Array.isArray(value) ? value : [value as T];
}

/** Nothing that a history says is to be passed over. */
function checkKeys(what: string, value: object, known: readonly string[]): void {
  const unknown = Object.keys(value).filter((key) => !known.includes(key));
  if (unknown.length > 0) throw new Error(`${what}: nobody knows ${unknown.join(', ')}`);
}
