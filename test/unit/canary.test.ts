import { afterEach, describe, expect, it, vi } from 'vitest';
import { Canary, type CanaryResult } from '../../src/admission/canary.js';
import { CleanupRun } from '../../src/cleanup/cleanup-run.js';
import { CLEANUP_LEVELS, type CleanupLevel } from '../../src/events/vocabulary.js';
import { ZombieDetectorService } from '../../src/liveness/zombie-detector.service.js';
import { resolveOptions } from '../../src/options/resolve-options.js';
import type { WebSocketManagerOptions } from '../../src/options/websocket-manager-options.interface.js';
import { FakeClock } from '../../src/testing/index.js';

async function flown(options: Partial<WebSocketManagerOptions> = {}): Promise<CanaryResult> {
  const clock = new FakeClock();
  const run = new Canary(clock, resolveOptions({ authenticate: () => null, ...options })).run();
  await clock.advance(10_000);
  return run;
}

/** Leaves out what a level gives up for a newcomer. */
function withoutExpendableAt(broken: CleanupLevel): void {
  const { takeExpendable } = CleanupRun.prototype;
  vi.spyOn(CleanupRun.prototype, 'takeExpendable').mockImplementation(function (this: CleanupRun, ...args) {
    if (this.level !== broken) takeExpendable.apply(this, args);
  });
}

const SABOTAGE: Record<CleanupLevel, () => void> = {
  conservative: () => void vi.spyOn(CleanupRun.prototype, 'takeDead').mockReturnValue(),
  moderate: () => withoutExpendableAt('moderate'),
  aggressive: () => void vi.spyOn(ZombieDetectorService.prototype, 'probe').mockResolvedValue(),
  force: () => withoutExpendableAt('force'),
};

describe('the canary', () => {
  afterEach(() => {
    vi.restoreAllMocks();
  });

  it('sings where every level works', async () => {
    expect(await flown()).toMatchObject({ ok: true, failures: [] });
  });

  it.each<[string, Partial<WebSocketManagerOptions>]>([
    ['a limit of one', { limits: { managersPerUser: 1 } }],
    ['a full node', { limits: { managersPerNode: 1 } }],
    ['a tiny idle time', { cleanup: { idleAfterMs: 1 } }],
    ['no resume window', { session: { resumeWindowMs: 0 } }],
    ['a long grace', { cleanup: { graceMs: 60_000 } }],
    ['one eviction in a long time', { cleanup: { forcedEvictionBurst: 1, forcedEvictionRefillMs: 1e6 } }],
    ['a slow probe', { heartbeat: { probeTimeoutMs: 5_000 } }],
  ])('sings whatever the options: %s', async (_, options) => {
    expect(await flown(options)).toMatchObject({ ok: true, failures: [] });
  });

  it.each(CLEANUP_LEVELS)('falls silent when the level %s is broken, and names it', async (level) => {
    SABOTAGE[level]();
    const { ok, failures } = await flown();
    expect(ok).toBe(false);
    expect(failures.map((failure) => failure.split(':')[0])).toContain(level);
  });

  it('says what a level threw', async () => {
    vi.spyOn(CleanupRun.prototype, 'takeOverdue').mockImplementation(() => {
      throw new Error('broken');
    });
    expect((await flown()).failures).toEqual(CLEANUP_LEVELS.map((level) => `${level}: broken`));
  });

  it('leaves nothing behind', async () => {
    const clock = new FakeClock();
    const canary = new Canary(clock, resolveOptions({ authenticate: () => null }));
    for (let i = 0; i < 3; i++) {
      const run = canary.run();
      await clock.advance(30_000);
      await run;
    }
    expect(clock.timerCount).toBe(0);
  });

  it('flies every so often, and not at all when it is switched off', async () => {
    const clock = new FakeClock();
    const often = new Canary(
      clock,
      resolveOptions({ authenticate: () => null, canary: { intervalMs: 5_000 } }),
    );
    const off = new Canary(clock, resolveOptions({ authenticate: () => null, canary: { intervalMs: 0 } }));
    often.start();
    off.start();
    await clock.advance(4_000);
    const first = often.lastResult?.at;
    await clock.advance(10_000);
    expect(often.lastResult?.at).toBeGreaterThan(first as number);
    expect(off.lastResult).toBeUndefined();
    often.stop();
    const last = often.lastResult?.at;
    await clock.advance(20_000);
    expect(often.lastResult?.at).toBe(last);
  });
});
