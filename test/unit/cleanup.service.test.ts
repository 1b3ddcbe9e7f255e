import { describe, expect, it, vi } from 'vitest';
import type { CleanupLevel } from '../../src/events/vocabulary.js';
import type { Manager } from '../../src/manager/manager.js';
import { Core, type CoreOptions, type Past } from '../support/core.js';

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
      const { core, user, nameOf } = await withOneOfEach();
      const before = core.reported.length;
      const { evicted, ...report } = await core.cleanup.cleanManually(user, { level, count, dryRun: true });
      expect(evicted.map(({ managerId }) => nameOf(managerId))).toEqual(expected);
      expect(report).toEqual({ level, examined: 9, freed: 0, durationMs: 0, outcome: 'dry_run' });
      await core.clock.advance(1_000);
      expect(user.managers.size).toBe(9);
      expect(core.reported.length).toBe(before);
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
    expect(whys.filter(([name]) => name !== 'deadWithKey')).toEqual([
      ['dead', 'no_pong', 'missed_pongs', 1_000],
      ['over', 'inactive', 'inactive', 1_000],
      ['half', 'inactive', 'inactive', 1_000],
      ['quarter', 'inactive', 'inactive', 1_000],
      ['justLeft', 'inactive', 'inactive', dryRun ? 1_000 : expect.any(Number)],
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

  it('probes at the level aggressive, asks the suspects once more, and ends who misses again', async () => {
    const { core, user } = await withSilent();
    const asked = core.cleanup.clean(user, 'aggressive', 'scheduled');
    await core.clock.advance(1_999);
    expect(user.managers.size).toBe(4);
    await core.clock.advance(1);
    expect(await asked).toMatchObject({ level: 'aggressive', freed: 3, outcome: 'freed', durationMs: 2_000 });
    expect(core.reportedOf('zombie_detected').map(({ wasSuspect }) => wasSuspect)).toEqual([
      true,
      true,
      true,
    ]);
    expect(core.reportedOf('cleanup_finished')).toMatchObject([
      { level: 'aggressive', trigger: 'scheduled', examined: 4, freed: 3, durationMs: 2_000 },
    ]);
    expect(core.reportedOf('evicted')).toMatchObject(
      Array.from({ length: 3 }, () => ({ reason: 'no_pong', level: 'aggressive', trigger: 'scheduled' })),
    );
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
    expect(await asked).toMatchObject({ freed: 3 });
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
    const core = await Core.start({ ...QUIET, limits: { managersPerUser: 1 } });
    core.placeMany(51, (i) => ({ ...LIVE, userId: `user-${i}`, connection: 'silent', sessionKey: `${i}` }));
    void core.cleanup.sweep();
    await core.clock.advance(1_999);
    expect(core.reportedOf('suspected')).toHaveLength(50);
    await core.clock.advance(2_001);
    expect(core.reportedOf('suspected')).toHaveLength(51);
    expect(core.reportedOf('sweep_finished')).toMatchObject([{ users: 51, durationMs: 4_000 }]);
  });
});
