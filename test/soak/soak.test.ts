import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { connect, type NetConnectOpts } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it, onTestFinished } from 'vitest';
import { type KnockOptions, sleep, until } from '../support/stranger.js';
import { now, watchLags } from './clock.mjs';
import { type Attempt, Crowd, Newcomers, type Seat } from './crowd.js';
import { FAULTS, knockUntilHeard, type Scene } from './faults.js';
import { plot, type Row, type Tick } from './plot.js';
import { type Sample, SoakedServer } from './soaked-server.js';
import { Stalls } from './stalls.js';

/** How long clients come and go and faults happen; before it comes the warm-up, after it the end. */
const MINUTES = Number(process.env.SOAK_MINUTES ?? 30);
const IS_LONG = MINUTES >= 20;
/** Where the series, the plot and the figures go: into the documents only after a long run. */
const OUTPUT =
  process.env.SOAK_OUTPUT ??
  (IS_LONG ? fileURLToPath(new URL('../../docs', import.meta.url)) : mkdtempSync(join(tmpdir(), 'soak-')));

const WARM_UP_MS = IS_LONG ? 60_000 : 20_000;
const SAMPLE_MS = IS_LONG ? 10_000 : 5_000;
const FAULT_EVERY_MS = 3_000;
const NEWCOMERS_PER_S = 4;
const CHANGES_PER_S = 30;

/** The contract: `heartbeat.probeTimeoutMs` + 100 ms, in which nobody is to have stood still. */
const IN_WITHIN_MS = 1_100;
/** What a loaded machine may take for a socket, beside the stalls that it is seen to have. */
const MACHINE_MS = 150;
/** The larger of `graceMs` and `forcedEvictionRefillMs`. */
const MOST_WAIT_MS = 10_000;

/** Users of each size; a user may have 20. */
const SIZES: readonly { readonly users: number; readonly seats: number }[] = [
  { users: 120, seats: 3 },
  { users: 140, seats: 10 },
  { users: 30, seats: 16 },
  { users: 38, seats: 20 },
];
const LIMIT = 20;

const UNHEARD = /^(ECONNRESET|ETIMEDOUT|ECONNREFUSED)$/;
/** Of all newcomers; more would be a server that does not accept. */
const MOST_UNHEARD_SHARE = 0.01;

const MIB = 2 ** 20;
/** A heap is never the same twice; this is what a build of optimised code and a few buffers may make out. */
const HEAP_SLACK_MIB = 3;
const HEAP_SLACK_SHARE = 0.1;
/** Without clients: what was compiled and cached meanwhile. */
const EMPTY_HEAP_SLACK_MIB = 8;

function seatsOfAll(): Seat[] {
  return SIZES.flatMap(({ users, seats }) =>
    Array.from({ length: users }, (_, user) =>
      Array.from({ length: seats }, (_, seat) => ({
        userId: `of-${seats}-${user}`,
        sessionKey: seat % 2 ? `tab-${seat}` : undefined,
        isFull: seats === LIMIT,
        resumes: seats <= LIMIT / 2,
      })),
    ).flat(),
  );
}

interface Wait {
  readonly userId: string;
  readonly from: number;
  readonly to: number;
}

class Soak {
  readonly rows: (Row & Record<string, number | undefined>)[] = [];
  readonly ticks: Tick[] = [];
  /** What must not be, in words. */
  readonly wrong: string[] = [];
  /** Milliseconds that newcomers waited for their yes, without the stalls. */
  readonly waits: number[] = [];
  private recent: number[] = [];
  refusals = 0;
  overtaken = 0;
  /** Newcomers that the kernel's queue had no room for: the server has not heard of them. */
  unheard = 0;
  faults = 0;
  private readonly forNewcomers = new Stalls();
  private readonly forFaults = new Stalls();
  private readonly ownLags = watchLags();
  private faultWaits: Wait[] = [];
  private readonly underWay = new Map<string, Promise<void>>();
  private number = 0;
  private readonly startedAt = now();
  private judging: Promise<void> | undefined;

  constructor(
    readonly soaked: SoakedServer,
    readonly crowd: Crowd,
    readonly newcomers: Newcomers,
    readonly fullUsers: readonly string[],
  ) {}

  private get s(): number {
    return Math.round(now() - this.startedAt) / 1_000;
  }

  /** Runs for so long: a fault every few seconds, newcomers judged every second, a sample now and then. */
  async run(ms: number): Promise<void> {
    const endsAt = now() + ms;
    let faultAt = now() + FAULT_EVERY_MS;
    let sampleAt = now() + SAMPLE_MS;
    let order: string[] = [];
    while (now() < endsAt) {
      await sleep(250);
      if (now() >= faultAt) {
        if (order.length === 0) order = shuffled(Object.keys(FAULTS));
        const name = order.pop() as string;
        // Faults that take long are not done twice at once.
        if (!this.underWay.has(name)) this.start(name);
        faultAt += FAULT_EVERY_MS;
      }
      if (now() >= sampleAt) {
        await this.sample();
        sampleAt += SAMPLE_MS;
      }
      await this.judge();
    }
  }

  async whenFaultsAreOver(): Promise<void> {
    await Promise.all(this.underWay.values());
    await sleep(1_000);
    await this.judge();
  }

  private start(name: string): void {
    this.ticks.push({ s: this.s, name });
    this.faults++;
    const scene: Scene = {
      soaked: this.soaked,
      crowd: this.crowd,
      newcomers: this.newcomers,
      fullUsers: this.fullUsers,
      next: () => ++this.number,
      letIn: async (userId) => {
        // From when the kernel has a place for it in its queue: what comes before, the server has not heard of.
        let from = now();
        const createConnection = ((options: NetConnectOpts) =>
          connect(options).once('connect', () => {
            from = now();
          })) as KnockOptions['createConnection'];
        const answer = await knockUntilHeard(this.soaked.socketUrl(userId), { createConnection });
        if (answer.refusal) throw new Error(`${userId} was refused with ${answer.refusal.body.reason}`);
        this.faultWaits.push({ userId, from, to: now() });
        return answer;
      },
    };
    const fault = FAULTS[name] as (scene: Scene) => Promise<void>;
    const done = fault(scene)
      .catch((error: unknown) => void this.wrong.push(`${name} at ${this.s} s: ${String(error)}`))
      .finally(() => this.underWay.delete(name));
    this.underWay.set(name, done);
  }

  /** Judges who has been answered, once it is known when anybody stood still. */
  judge(): Promise<void> {
    this.judging ??= this.judgeAll().finally(() => {
      this.judging = undefined;
    });
    return this.judging;
  }

  private async judgeAll(): Promise<void> {
    const until = now() - 1_500;
    const stalls = await this.soaked.readStalls();
    this.forNewcomers.note([...stalls, ...this.newcomers.stalls.splice(0)]);
    this.forFaults.note([...stalls, ...this.ownLags()]);
    for (const known of [this.forNewcomers, this.forFaults]) known.forget(now() - 120_000);
    for (const attempt of this.newcomers.take(until)) await this.judgeAttempt(attempt);
    const ready = this.faultWaits.filter(({ to }) => to < until);
    this.faultWaits = this.faultWaits.filter(({ to }) => to >= until);
    for (const wait of ready) this.judgeWait(wait, this.forFaults);
  }

  private async judgeAttempt(attempt: Attempt): Promise<void> {
    const { userId, status, reason, retryAfterMs = 0, round, from, closed } = attempt;
    if (closed !== undefined) {
      this.wrong.push(`newcomer of ${userId} was closed with ${closed} within its grace`);
    } else if (status === 101) {
      this.judgeWait(attempt, this.forNewcomers);
      this.recent.push(attempt.to - from);
    } else if (status === 0 && UNHEARD.test(reason ?? '')) {
      this.unheard++;
    } else if (status !== 429 || reason !== 'over_limit' || !this.fullUsers.includes(userId)) {
      this.wrong.push(`newcomer of ${userId} was refused: ${status} ${reason}`);
    } else {
      this.refusals++;
      if (retryAfterMs > MOST_WAIT_MS) this.wrong.push(`newcomer of ${userId} was told ${retryAfterMs} ms`);
      if (round > 1) await this.judgePromise(attempt);
    }
  }

  /** Somebody who came back when it was told to was refused again: only for one of the same user who was quicker. */
  private async judgePromise({ userId, round, toldAt = 0 }: Attempt): Promise<void> {
    // On the way to the client the no takes a moment, in which another may be let in.
    if ((await this.soaked.admittedAt(userId)) < toldAt - 100) {
      this.wrong.push(`newcomer of ${userId} came back when told, before everybody else, and found no place`);
    }
    this.overtaken++;
    if (round >= 8) this.wrong.push(`newcomer of ${userId} was refused ${round} times in a row: locked out`);
  }

  private judgeWait({ userId, from, to }: Wait, stalls: Stalls): void {
    const waited = to - from - stalls.within(from, to);
    this.waits.push(waited);
    if (waited > IN_WITHIN_MS + MACHINE_MS)
      this.wrong.push(
        `newcomer of ${userId} was in only after ${Math.round(waited)} ms (${Math.round(to - from)} with stalls)`,
      );
  }

  async sample(): Promise<Sample> {
    const [sample, metrics] = [await this.soaked.sample(), await this.soaked.metrics()];
    const of = (name: string) => metrics.sum(`websocket_manager_${name}`);
    const times = this.recent.splice(0).sort((a, b) => a - b);
    const { resources } = sample;
    this.rows.push({
      s: this.s,
      connections: of('connections'),
      managers: of('managers'),
      users: of('users'),
      usersAtLimit: of('users_at_limit'),
      heapMiB: sample.heapUsed / MIB,
      rssMiB: sample.rss / MIB,
      files: sample.files,
      sockets: resources.TCPSocketWrap ?? 0,
      timers: resources.Timeout ?? 0,
      otherHandles: Object.entries(resources)
        .filter(([kind]) => kind !== 'TCPSocketWrap' && kind !== 'Timeout')
        .reduce((sum, [, count]) => sum + count, 0),
      newcomers: times.length,
      p50Ms: at(0.5, times),
      p99Ms: at(0.99, times),
      refused: of('rejections_total'),
      evicted: of('evictions_total'),
      zombies: of('zombies_detected_total'),
      lockouts: of('lockouts_total'),
    });
    return sample;
  }

  csv(): string {
    const names = Object.keys(this.rows[0] ?? {});
    const faultsIn = (from: number, to: number) =>
      this.ticks.filter(({ s }) => s > from && s <= to).map(({ name }) => name);
    const lines = this.rows.map((row, i) => {
      const cells = names.map((name) => {
        const value = row[name];
        return value === undefined ? '' : Number.isInteger(value) ? `${value}` : value.toFixed(2);
      });
      return [...cells, faultsIn(this.rows[i - 1]?.s ?? 0, row.s).join(' ')].join(',');
    });
    return `${[[...names, 'faults'].join(','), ...lines].join('\n')}\n`;
  }
}

function at(share: number, sorted: readonly number[]): number | undefined {
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
}

function shuffled<T>(items: T[]): T[] {
  return items
    .map((item) => [Math.random(), item] as const)
    .sort(([a], [b]) => a - b)
    .map(([, item]) => item);
}

let soaked: SoakedServer | undefined;
let crowd: Crowd | undefined;
let newcomers: Newcomers | undefined;
afterAll(async () => {
  if (crowd?.wrong.length) console.log(`of the crowd: ${JSON.stringify(crowd.wrong.slice(0, 20), null, 2)}`);
  crowd?.kill();
  newcomers?.kill();
  await soaked?.server.stop();
});

describe(`${MINUTES} minutes of coming and going, with a fault every ${FAULT_EVERY_MS / 1_000} s`, () => {
  it('locks nobody out, loses nobody alive, and leaves nothing behind', {
    timeout: MINUTES * 60_000 + WARM_UP_MS + 300_000,
  }, async () => {
    soaked = await SoakedServer.start();
    crowd = new Crowd(3);
    newcomers = new Newcomers();
    const seats = seatsOfAll();
    const userIds = [...new Set(seats.map(({ userId }) => userId))];
    const fullUsers = [...new Set(seats.filter(({ isFull }) => isFull).map(({ userId }) => userId))];
    const soak = new Soak(soaked, crowd, newcomers, fullUsers);
    await until(async () => (await soaked?.managersOf('nobody')) === 0, 5_000, 'the server');
    await knockOnce(soaked);
    const empty = await soak.sample();

    onTestFinished(() => write(soak, seats.length, userIds.length));
    crowd.start(soaked.url, seats, CHANGES_PER_S);
    // Who has come may be away for a moment already.
    await until(() => (crowd?.open ?? 0) > 0.9 * seats.length, 60_000, 'all to have come', 200);
    // Half of the newcomers are of users at the limit.
    const newcomersOf = [...userIds, ...Array(8).fill(fullUsers).flat()];
    newcomers.start(soaked.url, newcomersOf, NEWCOMERS_PER_S);
    await soak.run(WARM_UP_MS);
    await soak.whenFaultsAreOver();
    await newcomers.stop(90_000);
    await crowd.settle(seats.length, 60_000);
    const warm = await settled(soak, userIds.length);

    crowd.goOn();
    newcomers.start(soaked.url, newcomersOf, NEWCOMERS_PER_S);
    await soak.run(MINUTES * 60_000);
    await soak.whenFaultsAreOver();
    await newcomers.stop(90_000);
    await soak.judge();
    await crowd.settle(seats.length, 60_000);
    const end = await settled(soak, userIds.length);
    const endMetrics = await soaked.metrics();
    const endOpen = crowd.open;

    await crowd.leave(20_000);
    const gone = async () => {
      const metrics = await soaked?.metrics();
      const names = ['users', 'managers', 'connections', 'buffered_bytes', 'users_at_limit'];
      return names.every((name) => metrics?.sum(`websocket_manager_${name}`) === 0);
    };
    await until(gone, 60_000, 'nothing to be left', 500);
    await sleep(3_000);
    const after = await soak.sample();

    const of = (name: string, labels = {}) => endMetrics.sum(`websocket_manager_${name}`, labels);
    const waits = [...soak.waits].sort((a, b) => a - b);
    const mib = (bytes: number) => Math.round((bytes / MIB) * 10) / 10;
    const figures = {
      minutes: MINUTES,
      clients: seats.length,
      users: userIds.length,
      usersAtLimit: fullUsers.length,
      faults: countedBy(soak.ticks.map(({ name }) => name)),
      connectionsOpened: end.told.attached,
      endedAsTheirClientsKnow: crowd.ended,
      sessionsFoundAgain: crowd.resumed,
      excusedByAStallOfTheClient: crowd.excused,
      newcomers: {
        letIn: waits.length,
        p50Ms: round(at(0.5, waits)),
        p99Ms: round(at(0.99, waits)),
        slowestMs: round(waits.at(-1)),
        toldToWait: soak.refusals,
        overtakenByOthersOfTheirUser: soak.overtaken,
        notHeardOfByTheServer: soak.unheard,
        // By the server's own clock, from the factory being asked to its answer.
        decided: of('admission_duration_seconds_count'),
        decidedWithin1100Ms: of('admission_duration_seconds_bucket', { le: '1.1' }),
      },
      heapMiB: {
        empty: mib(empty.heapUsed),
        warm: mib(warm.heapUsed),
        end: mib(end.heapUsed),
        allGone: mib(after.heapUsed),
      },
      files: { empty: empty.files, warm: warm.files, end: end.files, allGone: after.files },
      handles: {
        empty: empty.resources,
        warm: warm.resources,
        end: end.resources,
        allGone: after.resources,
      },
      evictions: of('evictions_total'),
      zombies: of('zombies_detected_total'),
      suspects: {
        confirmed: of('zombie_suspects_total', { verdict: 'confirmed' }),
        recovered: of('zombie_suspects_total', { verdict: 'recovered' }),
      },
      rejections: of('rejections_total'),
      lockoutsPrevented: of('lockouts_prevented_total'),
      lockouts: of('lockouts_total'),
      wrong: [...crowd.wrong, ...soak.wrong],
    };
    mkdirSync(OUTPUT, { recursive: true });
    writeFileSync(join(OUTPUT, 'soak.json'), `${JSON.stringify(figures, null, 2)}\n`);
    console.log(`${JSON.stringify(figures, null, 2)}\nwritten to ${OUTPUT}`);

    expect(figures.wrong).toEqual([]);
    expect(figures.lockouts).toBe(0);
    expect(soak.unheard).toBeLessThan(1 + MOST_UNHEARD_SHARE * soak.waits.length);
    expect(of('canary_ok')).toBe(1);
    expect(soak.waits.length).toBeGreaterThan(MINUTES * 60 * NEWCOMERS_PER_S * 0.5);
    // What was told adds up to what is there, on both sides of the wire.
    expect(end.told.attached).toBe((end.told.detached ?? 0) + of('connections'));
    expect(of('connections')).toBe(endOpen);
    expect(after.told.attached).toBe(after.told.detached);
    const admitted = ['admitted', 'joined', 'admitted_after_cleanup'].map((outcome) =>
      of('admissions_total', { outcome }),
    );
    expect(admitted.reduce((sum, count) => sum + count, 0)).toBe(
      (end.told.admitted ?? 0) + (end.told.joined ?? 0),
    );
    expect(of('rejections_total')).toBe(end.told.rejected);
    expect(of('evictions_total')).toBe(end.told.evicted);
    expect(Object.values(end.detachedFor).reduce((sum, count) => sum + count, 0)).toBe(end.told.detached);
    // Nothing has grown.
    expect(end.heapUsed).toBeLessThan(warm.heapUsed * (1 + HEAP_SLACK_SHARE) + HEAP_SLACK_MIB * MIB);
    expect(after.heapUsed).toBeLessThan(empty.heapUsed + EMPTY_HEAP_SLACK_MIB * MIB);
    for (const [before, later] of [
      [warm, end],
      [empty, after],
    ] as const) {
      expect(later.files).toBeLessThanOrEqual(before.files + 10);
      for (const [kind, count] of Object.entries(later.resources)) {
        expect([kind, count <= (before.resources[kind] ?? 0) + 10]).toEqual([kind, true]);
      }
    }
  });
});

/** A newcomer before the first sample: what is loaded on the first use is loaded then. */
async function knockOnce(server: SoakedServer): Promise<void> {
  for (let i = 0; i < 50; i++) {
    const { client } = await knockUntilHeard(server.socketUrl('first'));
    client?.socket.close();
    await client?.whenClosed();
  }
  await until(async () => (await server.managersOf('first')) === 0, 5_000, 'the first to be gone');
}

/** Waits until nobody is there but the crowd, and takes a sample. */
async function settled(soak: Soak, users: number): Promise<Sample> {
  const isQuiet = async () => {
    const metrics = await soak.soaked.metrics();
    return (
      metrics.sum('websocket_manager_users') === users &&
      Math.abs(metrics.sum('websocket_manager_connections') - soak.crowd.open) <= 8
    );
  };
  await until(isQuiet, 60_000, 'nobody to be there but the crowd', 500);
  await sleep(2_000);
  return soak.sample();
}

/** The series and the plot, of a run that failed too. */
function write(soak: Soak, clients: number, users: number): void {
  mkdirSync(OUTPUT, { recursive: true });
  writeFileSync(join(OUTPUT, 'soak.csv'), soak.csv());
  const title = `Soak: ${MINUTES} minutes, ${clients} clients of ${users} users, ${soak.faults} faults`;
  writeFileSync(join(OUTPUT, 'soak.svg'), plot(soak.rows, soak.ticks, title));
  if (soak.wrong.length > 0) console.log(`wrong: ${JSON.stringify(soak.wrong.slice(0, 50), null, 2)}`);
}

function countedBy(names: readonly string[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const name of names) counts[name] = (counts[name] ?? 0) + 1;
  return counts;
}

const round = (value: number | undefined) => Math.round(value ?? 0);
