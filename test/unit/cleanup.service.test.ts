import { describe, expect, it, vi } from 'vitest';
import { CleanupRun } from '../../src/cleanup/cleanup-run.js';
import type { CleanupLevel } from '../../src/events/vocabulary.js';
import type { Manager } from '../../src/manager/manager.js';
import type { FakeSocket } from '../../src/testing/index.js';
import { Core, type CoreOptions, type Past, type Placed } from '../support/core.js';

const WINDOW_MS = 30_000;
const LIVE = { userId: 'alice', openedAgoMs: 60_000, activeAgoMs: 1_000 } as const;

/** Pings of the heartbeat, and sweeps, are far away: only what is asked for happens. */
const QUIET: CoreOptions = { heartbeat: { intervalMs: 3_600_000 }, cleanup: { intervalMs: 3_600_000 } };

/** A user with one of everything that a cleanup looks at; each by a name of its own. */
async function withOneOfEach(options: CoreOptions = QUIET) {
  const core = await Core.start(options);
  const away = (leftAgoMs: number): Past => ({ ...LIVE, connection: 'none', leftAgoMs });
  const pasts: Record<string, Past> = {
    dead: { ...LIVE, connection: 'silent', missedPongs: 2 },
    deadWithKey: { ...LIVE, connection: 'silent', missedPongs: 2, sessionKey: 'dead' },
    over: { ...away(WINDOW_MS + 1_000), sessionKey: 'over' },
    half: { ...away(WINDOW_MS / 2 + 1_000), sessionKey: 'half' },
    quarter: { ...away(WINDOW_MS / 4 + 1_000), sessionKey: 'quarter' },
    justLeft: { ...away(1_000), sessionKey: 'just' },
    stale: { ...LIVE, activeAgoMs: 50_000 },
    live: LIVE,
    young: { ...LIVE, openedAgoMs: 1_000 },
  };
  const managers = new Map(Object.entries(pasts).map(([name, past]) => [name, core.place(past).manager]));
  const user = (managers.get('live') as Manager).user;
  const nameOf = (id: string) => [...managers].find(([, manager]) => manager.id === id)?.[0];
  const open = () => [...managers].filter(([, { isOpen }]) => isOpen).map(([name]) => name);
  return { core, user, managers, nameOf, open };
}

describe("an operator's cleanup", () => {
  const cases: [CleanupLevel, number | undefined, string[]][] = [
    ['conservative', undefined, ['dead', 'over']],
    ['moderate', undefined, ['dead', 'over', 'half']],
    ['aggressive', undefined, ['dead', 'over', 'half', 'quarter']],
    ['force', undefined, ['dead', 'over', 'half', 'quarter']],
    ['force', 1, ['dead', 'over', 'half', 'quarter', 'justLeft']],
    ['force', 2, ['dead', 'over', 'half', 'quarter', 'justLeft', 'deadWithKey']],
    ['force', 3, ['dead', 'over', 'half', 'quarter', 'justLeft', 'deadWithKey', 'stale']],
    ['aggressive', 2, ['dead', 'over', 'half', 'quarter']],
  ];

  it.each(cases)('at the level %s (count %s) ends %j', async (level, count, expected) => {
    const { core, user, managers, open, nameOf } = await withOneOfEach();
    const asked = core.cleanup.cleanManually(user, { level, count });
    await core.clock.advance(10_000);
    const { evicted, ...report } = await asked;
    expect(evicted.map(({ managerId }) => nameOf(managerId))).toEqual(expected);
    expect(open()).toEqual([...managers.keys()].filter((name) => !expected.includes(name)));
    expect(report).toMatchObject({ level, examined: 9, freed: expected.length, outcome: 'freed' });
    expect(core.reportedOf('cleanup_finished')).toMatchObject([
      { userId: 'alice', level, trigger: 'manual', examined: 9, freed: expected.length, outcome: 'freed' },
    ]);
  });

  it.each(cases)(
    'rehearsed at the level %s (count %s) names %j and ends nobody',
    async (level, count, expected) => {
      const { core, user, nameOf, open } = await withOneOfEach();
      const untouched = await withOneOfEach();
      const before = core.reported.length;
      const { evicted, ...report } = await core.cleanup.cleanManually(user, { level, count, dryRun: true });
      expect(evicted.map(({ managerId }) => nameOf(managerId))).toEqual(expected);
      expect(report).toEqual({ level, examined: 9, freed: 0, durationMs: 0, outcome: 'dry_run' });
      expect(user.managers.size).toBe(9);
      expect(core.reported.length).toBe(before);
      // What time alone does comes as it would have.
      for (const world of [core, untouched.core]) await world.clock.advance(1_000);
      expect(open()).toEqual(untouched.open());
      expect(core.reported.map(({ type }) => type)).toEqual(untouched.core.reported.map(({ type }) => type));
    },
  );

  it.each([true, false])('says why, and on what evidence (rehearsed: %s)', async (dryRun) => {
    const { core, user, nameOf } = await withOneOfEach();
    const asked = core.cleanup.cleanManually(user, { level: 'force', count: 3, dryRun });
    await core.clock.advance(10_000);
    const whys = (await asked).evicted.map(({ managerId, reason, evidence }) => [
      nameOf(managerId),
      reason,
      evidence.signal,
      evidence.inactiveForMs,
    ]);
    expect(whys).toEqual([
      ['dead', 'no_pong', 'missed_pongs', 1_000],
      ['over', 'inactive', 'inactive', 1_000],
      ['half', 'inactive', 'inactive', 1_000],
      ['quarter', 'inactive', 'inactive', 1_000],
      ['justLeft', 'inactive', 'inactive', dryRun ? 1_000 : expect.any(Number)],
      ['deadWithKey', 'inactive', 'inactive', dryRun ? 1_000 : expect.any(Number)],
      ['stale', 'evicted', 'least_valuable', dryRun ? 50_000 : expect.any(Number)],
    ]);
  });

  it('that finds all in their grace says so', async () => {
    const core = await Core.start(QUIET);
    const { manager } = core.place({ ...LIVE, openedAgoMs: 1_000 });
    const asked = core.cleanup.cleanManually(manager.user, { level: 'force', count: 1 });
    await core.clock.advance(5_000);
    expect(await asked).toMatchObject({ evicted: [], freed: 0, outcome: 'all_protected' });
  });

  it('that has nobody to end says so', async () => {
    const core = await Core.start(QUIET);
    const { manager } = core.place(LIVE);
    const asked = core.cleanup.cleanManually(manager.user, { level: 'conservative' });
    await core.clock.settle();
    expect(await asked).toMatchObject({ examined: 1, freed: 0, outcome: 'nothing_to_do', durationMs: 0 });
  });

  it('resolves when the hooks of the application are done, and says if they failed', async () => {
    const core = await Core.start(QUIET);
    const { manager } = core.place({ ...LIVE, connection: 'none', leftAgoMs: 60_000, closeHook: 'hangs' });
    let outcome: string | undefined;
    void core.cleanup.cleanManually(manager.user, { level: 'conservative' }).then((report) => {
      outcome = report.outcome;
    });
    await core.clock.advance(1_999);
    expect(manager.isOpen).toBe(false);
    expect(outcome).toBeUndefined();
    await core.clock.advance(1);
    expect(outcome).toBe('hooks_failed');
    expect(core.reportedOf('cleanup_finished')).toMatchObject([{ outcome: 'hooks_failed', freed: 1 }]);
  });
});

describe('a cleanup in the background', () => {
  async function withSilent() {
    const core = await Core.start(QUIET);
    core.placeMany(3, { ...LIVE, connection: 'silent' });
    const { manager } = core.place(LIVE);
    return { core, user: manager.user };
  }

  it('probes at the level aggressive, makes suspects of the silent connections, and closes none', async () => {
    const { core, user } = await withSilent();
    for (let run = 0; run < 5; run++) {
      const asked = core.cleanup.clean(user, 'aggressive', 'scheduled');
      await core.clock.advance(1_000);
      expect(await asked).toMatchObject({ freed: 0, outcome: 'nothing_to_do', durationMs: 1_000 });
    }
    expect(core.reportedOf('suspected')).toHaveLength(3);
    expect(user.managers.size).toBe(4);
    expect(core.reportedOf('zombie_detected')).toEqual([]);
    expect(core.reportedOf('evicted')).toEqual([]);
  });

  it('leaves the suspects to the heartbeat, which proves them dead', async () => {
    const core = await Core.start({ cleanup: { intervalMs: 3_600_000 } });
    const silent = core.placeMany(3, { ...LIVE, connection: 'silent' });
    core.place(LIVE);
    const [
      {
        manager: { user },
      },
    ] = silent as [Placed, ...Placed[]];
    void core.cleanup.clean(user, 'aggressive', 'scheduled');
    await core.clock.advance(30_100);
    expect(user.managers.size).toBe(1);
    expect(core.reportedOf('zombie_detected').map(({ wasSuspect }) => wasSuspect)).toEqual([
      true,
      true,
      true,
    ]);
  });

  it.each<CleanupLevel>(['conservative', 'moderate'])('asks nobody at the level %s', async (level) => {
    const { core, user } = await withSilent();
    const asked = core.cleanup.clean(user, level, 'scheduled');
    await core.clock.settle();
    expect(await asked).toMatchObject({ level, freed: 0, outcome: 'nothing_to_do' });
  });

  it('never ends the living, not even by force', async () => {
    const { core, user, open } = await withOneOfEach();
    void core.cleanup.clean(user, 'force', 'scheduled');
    await core.clock.advance(10_000);
    expect(open()).toEqual(['deadWithKey', 'justLeft', 'stale', 'live', 'young']);
  });

  it('is joined by a call for as much or less, and followed by one for more', async () => {
    const { core, user } = await withSilent();
    const first = core.cleanup.clean(user, 'moderate', 'proactive');
    expect(core.cleanup.clean(user, 'moderate', 'scheduled')).toBe(first);
    expect(core.cleanup.clean(user, 'conservative', 'scheduled')).toBe(first);
    const second = core.cleanup.clean(user, 'aggressive', 'scheduled');
    expect(second).not.toBe(first);
    expect(core.cleanup.clean(user, 'moderate', 'scheduled')).toBe(second);
    await core.clock.advance(5_000);
    const levels = core.reportedOf('cleanup_finished').map(({ level, trigger }) => [level, trigger]);
    expect(levels).toEqual([
      ['moderate', 'proactive'],
      ['aggressive', 'scheduled'],
    ]);
    expect(core.cleanup.clean(user, 'moderate', 'scheduled')).not.toBe(second);
    await core.clock.settle();
  });

  it('that goes wrong in itself is reported, and the next one is tried', async () => {
    const { core, user } = await withSilent();
    const probe = vi.spyOn(core.detector, 'probe').mockRejectedValue(new Error('broken'));
    expect(await core.cleanup.clean(user, 'aggressive', 'scheduled')).toEqual({
      ...{ level: 'aggressive', examined: 4, evicted: [], freed: 0, durationMs: 0 },
      outcome: 'nothing_freed',
    });
    expect(core.reportedOf('hook_failed')).toMatchObject([{ hook: 'cleanup', error: new Error('broken') }]);
    probe.mockRestore();
    const asked = core.cleanup.clean(user, 'aggressive', 'scheduled');
    await core.clock.advance(3_000);
    expect(await asked).toMatchObject({ outcome: 'nothing_to_do', durationMs: 1_000 });
  });

  it.each([
    [11, undefined],
    [12, 'conservative'],
    [13, 'moderate'],
    [14, 'aggressive'],
    [20, 'aggressive'],
  ])('follows an admission that makes %d of 20: %s', async (count, level) => {
    const core = await Core.start(QUIET);
    core.placeMany(count - 1, LIVE);
    await core.admit('alice');
    await core.clock.advance(5_000);
    const finished = core.reportedOf('cleanup_finished');
    expect(finished.map(({ level, trigger }) => [level, trigger])).toEqual(
      level ? [[level, 'proactive']] : [],
    );
  });
});

describe('the end of somebody by itself, outside any cleanup', () => {
  it('is accounted for as scheduled: a window that is over', async () => {
    const core = await Core.start(QUIET);
    const { socket } = core.place({ ...LIVE, sessionKey: 'tab' });
    socket?.leave();
    await core.clock.advance(WINDOW_MS + 1_000_000 + 3_600_000);
    expect(core.reportedOf('evicted')).toMatchObject([
      { reason: 'inactive', level: 'conservative', trigger: 'scheduled' },
    ]);
    expect(core.reportedOf('cleanup_finished')).toMatchObject([
      { trigger: 'scheduled', examined: 1, freed: 1, outcome: 'freed' },
    ]);
  });

  it('is accounted for as scheduled: a connection that the heartbeat found dead', async () => {
    const core = await Core.start({ heartbeat: { intervalMs: 1_000 } });
    core.place({ ...LIVE, connection: 'silent' });
    await core.clock.advance(5_000);
    expect(core.reportedOf('evicted')).toMatchObject([
      { reason: 'no_pong', level: 'conservative', trigger: 'scheduled' },
    ]);
    expect(core.reportedOf('zombie_detected')).toMatchObject([{ wasSuspect: false }]);
  });
});

describe('the sweep', () => {
  it('looks only at who is under pressure, and says at how many', async () => {
    const core = await Core.start({ ...QUIET, cleanup: { intervalMs: 3_600_000, proactiveThreshold: 0.5 } });
    core.placeMany(9, { ...LIVE, userId: 'bob' });
    core.placeMany(10, LIVE);
    const swept = core.cleanup.sweep();
    expect(core.cleanup.sweep()).toBe(swept);
    await core.clock.settle();
    await swept;
    expect(core.reportedOf('cleanup_finished')).toMatchObject([
      { userId: 'alice', level: 'conservative', trigger: 'scheduled' },
    ]);
    expect(core.reportedOf('sweep_finished')).toMatchObject([{ users: 1, durationMs: 0 }]);
    void core.cleanup.sweep();
    await core.clock.settle();
    expect(core.reportedOf('sweep_finished')).toHaveLength(2);
  });

  it('looks at who has a breaker too, at the lowest level', async () => {
    const core = await Core.start(QUIET);
    const { manager } = core.place(LIVE);
    core.breaker.begin(manager.user, 100).settle(false);
    void core.cleanup.sweep();
    await core.clock.settle();
    expect(core.reportedOf('cleanup_finished')).toMatchObject([{ userId: 'alice', level: 'conservative' }]);
    expect([...core.breaker.troubled]).toEqual([]);
  });

  it('looks after fifty users at a time', async () => {
    const core = await Core.start({ ...QUIET, limits: { managersPerUser: 4 } });
    core.placeMany(4 * 51, (i) => ({ ...LIVE, userId: `user-${i % 51}`, connection: 'silent' }));
    void core.cleanup.sweep();
    await core.clock.advance(1_999);
    expect(core.reportedOf('suspected')).toHaveLength(4 * 50);
    await core.clock.advance(1);
    expect(core.reportedOf('suspected')).toHaveLength(4 * 51);
    expect(core.reportedOf('sweep_finished')).toMatchObject([{ users: 51, durationMs: 2_000 }]);
  });

  it.each([1, 2, 3])(
    'does not probe a user with a limit of %i, which pressure says nothing about',
    async (limit) => {
      const core = await Core.start({ ...QUIET, limits: { managersPerUser: limit } });
      const placed = core.placeMany(limit, { ...LIVE, connection: 'silent' });
      void core.cleanup.sweep();
      core.cleanup.startProactive(placed[0]?.manager.user as never);
      await core.clock.advance(10_000);
      expect(placed.map(({ socket }) => socket?.pings)).toEqual(placed.map(() => 0));
      expect(core.reportedOf('sweep_finished')).toMatchObject([{ users: 0 }]);
      expect(core.count('alice')).toBe(limit);
    },
  );
});

describe('room for a newcomer', () => {
  const room = { needed: 1, mayEvictLiving: true, isAbandoned: () => false } as const;

  it('is made at the lowest level that has somebody, and nobody is asked anything before', async () => {
    const core = await Core.start(QUIET);
    const placed = core.placeMany(19, LIVE);
    const { manager } = core.place({ ...LIVE, connection: 'closed' });
    void core.cleanup.makeRoom(manager.user, room);
    await core.clock.settle();
    expect(core.reportedOf('evicted')).toMatchObject([{ level: 'conservative', trigger: 'admission' }]);
    expect(core.reportedOf('cleanup_finished')[0]).toMatchObject({
      ...{ level: 'conservative', trigger: 'admission', examined: 20, freed: 1, outcome: 'freed' },
    });
    expect(placed.map(({ socket }) => socket?.pings)).toEqual(placed.map(() => 0));
  });

  it('is made at no higher level once there is enough: windows are kept', async () => {
    const core = await Core.start(QUIET);
    const away = (leftAgoMs: number, sessionKey: string) =>
      core.place({ ...LIVE, connection: 'none', leftAgoMs, sessionKey }).manager;
    const half = away(WINDOW_MS / 2 + 1, 'half');
    const quarter = away(WINDOW_MS / 4 + 1, 'quarter');
    void core.cleanup.makeRoom(half.user, room);
    await core.clock.settle();
    expect([half.isOpen, quarter.isOpen]).toEqual([false, true]);
    expect(core.reportedOf('evicted')).toMatchObject([{ level: 'moderate' }]);
    expect(core.reportedOf('cleanup_finished')).toMatchObject([{ level: 'moderate', freed: 1 }]);
  });

  it('costs a suspect, of which nothing is proven, before an idle session', async () => {
    const core = await Core.start(QUIET);
    const suspect = core.place({ ...LIVE, connection: 'silent' });
    void core.detector.probe(suspect.manager.user);
    await core.clock.advance(1_000);
    const idle = core.place({ ...LIVE, openedAgoMs: 900_000, activeAgoMs: 400_000 });
    void core.cleanup.makeRoom(idle.manager.user, { ...room, needed: 2 });
    await core.clock.settle();
    const gone = core.reportedOf('evicted').map(({ managerId, reason }) => [managerId, reason]);
    expect(gone).toEqual([
      [suspect.manager.id, 'no_pong'],
      [idle.manager.id, 'evicted'],
    ]);
    expect(core.reportedOf('evicted')).toMatchObject([{ evidence: { signal: 'missed_probe' } }, {}]);
    expect(core.reportedOf('zombie_detected')).toEqual([]);
  });

  it('costs a suspect without unacknowledged output first, and among equals the longest silent', async () => {
    const core = await Core.start(QUIET);
    const silent = (activeAgoMs: number) => core.place({ ...LIVE, activeAgoMs, connection: 'silent' });
    const downloading = silent(9_000);
    const [short, long] = [silent(3_000), silent(6_000)];
    downloading.manager.send('part', 'x'.repeat(1_000));
    void core.detector.probe(downloading.manager.user);
    await core.clock.advance(1_000);
    for (let i = 0; i < 3; i++) {
      void core.cleanup.makeRoom(downloading.manager.user, room);
      await core.clock.settle();
    }
    const order = core.reportedOf('evicted').map(({ managerId }) => managerId);
    expect(order).toEqual([long, short, downloading].map(({ manager }) => manager.id));
  });

  it('is not there before as much is free as is needed', async () => {
    const core = await Core.start(QUIET);
    const [leaving, silent] = [core.place(LIVE), core.place({ ...LIVE, connection: 'silent' })];
    let freed: number | undefined;
    void core.cleanup
      .makeRoom(leaving.manager.user, { ...room, needed: 2, mayEvictLiving: false })
      .then((report) => {
        freed = report.freed;
      });
    await core.clock.advance(200);
    leaving.socket?.leave();
    await core.clock.advance(700);
    expect(freed).toBeUndefined();
    await core.clock.advance(100);
    expect(freed).toBe(1);
    expect(silent.manager.isOpen).toBe(false);
  });

  it('is where a client was on the way out by itself: nobody was evicted', async () => {
    const core = await Core.start(QUIET);
    core.placeMany(19, LIVE);
    const { manager, socket } = core.place(LIVE);
    socket?.become('silent');
    socket?.close(1000, '');
    await core.admitWithin(0, 'alice');
    expect(manager.endedBy).toBe('left');
    expect(core.reportedOf('evicted')).toEqual([]);
    expect(core.reportedOf('zombie_detected')).toEqual([]);
    expect(core.reportedOf('detached')).toMatchObject([{ managerId: manager.id, reason: 'left' }]);
  });

  it('costs who has been closing for longer as any other who is dead', async () => {
    const core = await Core.start(QUIET);
    core.placeMany(19, LIVE);
    const { manager, socket } = core.place(LIVE);
    socket?.become('silent');
    socket?.close(1000, '');
    Object.assign(socket?.connection ?? {}, { closingSeen: true });
    await core.admitWithin(0, 'alice');
    expect(core.reportedOf('evicted')).toMatchObject([
      { managerId: manager.id, reason: 'no_pong', evidence: { signal: 'closed_socket' } },
    ]);
  });

  it('while our own loop may be to blame costs who is silent one by one, longest silent first', async () => {
    const core = await Core.start({ heartbeat: { intervalMs: 1_000 }, limits: { managersPerUser: 120 } });
    const placed = core.placeMany(120, LIVE);
    await core.clock.advance(5_000);
    const longest = placed[70]?.socket;
    longest?.become('silent');
    await core.clock.advance(900);
    for (const { socket } of placed) socket?.become('silent');
    while (!core.heartbeat.isSelfPreserving) await core.clock.advance(25);
    const lost = placed.filter(({ manager }) => !manager.isOpen).length;
    await core.clock.advance(1_200);
    const silentSince = placed
      .filter(({ manager }) => manager.isOpen)
      .map(({ socket }) => socket?.connection.lastHeardAt ?? 0);
    const refilled = core.placeMany(lost, LIVE);
    await core.admitWithin(0, 'alice');
    const [{ managerId, evidence } = { managerId: '', evidence: undefined }] = core
      .reportedOf('evicted')
      .filter(({ trigger }) => trigger === 'admission');
    const victim = placed.find(({ manager }) => manager.id === managerId);
    expect(victim?.socket?.connection.lastHeardAt).toBe(Math.min(...silentSince));
    expect(evidence?.signal).toBe('missed_pongs');
    expect(core.reportedOf('evicted').filter(({ trigger }) => trigger === 'admission')).toHaveLength(1);
    expect(refilled.every(({ manager }) => manager.isOpen)).toBe(true);
  });

  it('is made though a listener ends the others meanwhile', async () => {
    const core = await Core.start(QUIET);
    const placed = core.placeMany(3, (i) => ({
      ...LIVE,
      ...{ connection: 'none', leftAgoMs: WINDOW_MS + i, sessionKey: `${i}` },
    }));
    const [first] = placed;
    core.events.events$.subscribe((event) => {
      if (event.type === 'evicted') for (const { manager } of placed) void manager.close({ reason: 'left' });
    });
    if (!first) return expect.unreachable();
    const report = await core.cleanup.clean(first.manager.user, 'conservative', 'scheduled');
    expect(report).toMatchObject({ freed: 1, outcome: 'freed' });
  });
});

describe('a cleanup that frees nothing although somebody could have gone', () => {
  it('says so, and is a failure for the breaker', async () => {
    vi.spyOn(CleanupRun.prototype, 'takeExpendable').mockReturnValue();
    const core = await Core.start({ ...QUIET, limits: { managersPerUser: 1 } });
    const { manager } = core.place({ ...LIVE, connection: 'none', leftAgoMs: 1, sessionKey: 'left' });
    const failures = core.options.circuitBreaker.failureThreshold;
    for (let i = 0; i < failures; i++) {
      expect(core.breaker.stateOf(manager.user)).toBe('closed');
      void core.cleanup.makeRoom(manager.user, { needed: 1, mayEvictLiving: true, isAbandoned: () => false });
      await core.clock.advance(50);
    }
    vi.restoreAllMocks();
    expect(core.reportedOf('cleanup_finished').map(({ outcome }) => outcome)).toEqual(
      Array.from({ length: failures }, () => 'nothing_freed'),
    );
    expect(core.breaker.stateOf(manager.user)).toBe('open');
  });

  it.each<[string, Partial<Past>, boolean]>([
    ['absent', { connection: 'none', leftAgoMs: 1, sessionKey: 'left' }, true],
    ['dead', { connection: 'silent', missedPongs: 2 }, true],
    ['in use', {}, false],
    ['idle', { openedAgoMs: 900_000, activeAgoMs: 400_000 }, false],
  ])('is told from one that finds all in use: %s', async (_, past, couldHave) => {
    const core = await Core.start(QUIET);
    const { manager } = core.place(LIVE);
    core.place({ ...LIVE, ...past });
    expect(core.cleanup.couldHaveFreed(manager.user)).toBe(couldHave);
  });
});

describe('a cleanup that takes its time', () => {
  it.each([
    // Four probes and three hooks: more than all of its own deadlines together.
    [9_999, 0],
    [10_001, 1],
  ])('of %d ms is a failure: %d', async (stallMs, failed) => {
    const core = await Core.start({ ...QUIET, circuitBreaker: { failureThreshold: 1 } });
    const { manager, socket } = core.place(LIVE);
    socket?.become({ answersAfterMs: 1 });
    const asked = core.cleanup.cleanManually(manager.user, { level: 'aggressive' });
    await core.clock.settle();
    await core.clock.stall(stallMs);
    await core.clock.settle();
    await asked;
    expect(core.breaker.count('open')).toBe(failed);
  });
});

describe('an open breaker', () => {
  it('spares probes and hooks, in the background too', async () => {
    const core = await Core.start({ ...QUIET, circuitBreaker: { failureThreshold: 1 } });
    const { manager, socket } = core.place({ ...LIVE, connection: 'silent' });
    const left = core.place({ ...LIVE, connection: 'none', leftAgoMs: WINDOW_MS, sessionKey: 'left' });
    let called = 0;
    left.manager.onClose(() => {
      called++;
    });
    core.breaker.begin(manager.user, 100).settle(false);
    const asked = core.cleanup.clean(manager.user, 'aggressive', 'scheduled');
    await core.clock.settle();
    expect(await asked).toMatchObject({ freed: 1, outcome: 'freed' });
    expect([socket?.pings, called, left.manager.isOpen]).toEqual([0, 0, false]);
  });
});

describe('a user of whom nothing is left', () => {
  it('is not remembered for having been cleaned up', async () => {
    const core = await Core.start(QUIET);
    const { manager } = core.place(LIVE);
    const { user } = manager;
    void manager.close({ reason: 'left' });
    await core.clock.advance(core.options.cleanup.graceMs + 2_000_000);
    expect(core.registry.user('alice')).toBeUndefined();
    const asked = core.cleanup.cleanManually(user, { level: 'aggressive' });
    await core.clock.settle();
    expect(await asked).toMatchObject({ examined: 0, outcome: 'nothing_to_do' });
    const forced = core.cleanup.cleanManually(user, { level: 'force', count: 1 });
    await core.clock.settle();
    expect(await forced).toMatchObject({ examined: 0, outcome: 'nothing_to_do' });
    for (const part of [core.cleanup, core.detector, core.breaker]) {
      for (const [name, value] of Object.entries(part))
        if (value instanceof Map || value instanceof Set) expect(value.size, name).toBe(0);
    }
  });
});

describe('a session of two connections, of which one is frozen', () => {
  it('loses that one to the heartbeat, and continues with the other', async () => {
    const core = await Core.start({ cleanup: { intervalMs: 3_600_000 } });
    const { manager, socket } = core.place(LIVE);
    core.attach(manager, 'silent');
    void core.cleanup.clean(manager.user, 'aggressive', 'scheduled');
    await core.clock.advance(2_000);
    expect(manager.connections).toHaveLength(2);
    await core.clock.advance(28_100);
    expect(core.reportedOf('zombie_detected')).toMatchObject([{ managerEnds: false }]);
    expect(manager.connections).toEqual([socket?.connection]);
    expect(core.reportedOf('zombie_detected')).toHaveLength(1);
    expect(core.reportedOf('evicted')).toEqual([]);
  });
});

describe('an incoming connection during self-preservation', () => {
  it('ends one session with a key, not all that are silent', async () => {
    const core = await Core.start({ cleanup: { intervalMs: 3_600_000 } });
    core.placeMany(150, (i) => ({ ...LIVE, userId: `other-${i}` }));
    const placed = core.placeMany(20, (i) => ({ ...LIVE, sessionKey: `tab-${i}` }));
    for (const manager of core.registry.allManagers)
      for (const { transport } of manager.connections) (transport as FakeSocket).become('silent');
    await core.clock.advance(50_000);
    expect(core.heartbeat.isSelfPreserving).toBe(true);
    expect((await core.admitWithin(1_100, 'alice')).result.admitted).toBe(true);
    expect(placed.filter(({ socket }) => socket?.connection.detached)).toHaveLength(1);
    expect(placed.filter(({ manager }) => !manager.isOpen)).toHaveLength(1);
  });
});
