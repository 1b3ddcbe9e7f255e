import type { DiscoveryService, ModuleRef } from '@nestjs/core';
import { SchedulerRegistry } from '@nestjs/schedule';
import { describe, expect, it } from 'vitest';
import { CleanupScheduler, SWEEP_INTERVAL } from '../../src/cleanup/cleanup-scheduler.js';
import { Core } from '../support/core.js';

const INTERVAL_MS = 10_000;

/** `registry`: of the application's ScheduleModule, which not every application has. */
async function withScheduler(registry?: SchedulerRegistry) {
  const core = await Core.start({ cleanup: { intervalMs: INTERVAL_MS } });
  const swept: number[] = [];
  let finish: (() => void) | undefined;
  const cleanup = {
    sweep: () => {
      swept.push(core.clock.now());
      return new Promise<void>((resolve) => {
        finish = resolve;
      });
    },
  } as typeof core.cleanup;
  const moduleRef = {
    get: (_: unknown, { strict }: { strict: boolean }) => {
      if (!registry || strict) throw new Error('not imported here');
      return registry;
    },
  } as unknown as ModuleRef;
  const discovery = {
    getProviders: () => [
      { token: 'core' },
      { token: Core },
      ...(registry ? [{ token: SchedulerRegistry }] : []),
    ],
  } as unknown as DiscoveryService;
  const scheduler = new CleanupScheduler(core.clock, cleanup, moduleRef, discovery, core.options);
  return { core, scheduler, swept, finish: () => finish?.() };
}

describe('the sweep', () => {
  it.each([undefined, new SchedulerRegistry()])(
    'runs every interval, until it is stopped',
    async (registry) => {
      const { core, scheduler, swept } = await withScheduler(registry);
      await scheduler.start();
      await core.clock.advance(3 * INTERVAL_MS);
      expect(swept).toHaveLength(3);
      scheduler.stop();
      await core.clock.advance(3 * INTERVAL_MS);
      expect(swept).toHaveLength(3);
      scheduler.stop();
    },
  );

  it('that hangs is seen by the time since the last one that came to its end', async () => {
    const { core, scheduler, finish } = await withScheduler();
    await core.clock.advance(INTERVAL_MS);
    expect(scheduler.sinceLastSweepMs).toBe(INTERVAL_MS);
    await scheduler.start();
    expect(scheduler.sinceLastSweepMs).toBe(0);
    await core.clock.advance(2 * INTERVAL_MS);
    expect(scheduler.sinceLastSweepMs).toBe(2 * INTERVAL_MS);
    finish();
    await core.clock.settle();
    expect(scheduler.sinceLastSweepMs).toBe(0);
  });
});

describe("the application's SchedulerRegistry", () => {
  it('has the sweep by its name while it runs', async () => {
    const registry = new SchedulerRegistry();
    const { scheduler } = await withScheduler(registry);
    await scheduler.start();
    expect(registry.getIntervals()).toEqual(['websocket-manager:sweep']);
    scheduler.stop();
    expect(registry.getIntervals()).toEqual([]);
  });

  it('keeps an interval of that name that is not ours', async () => {
    const registry = new SchedulerRegistry();
    const theirs = setInterval(() => {}, 60_000);
    registry.addInterval(SWEEP_INTERVAL, theirs);
    const { core, scheduler, swept } = await withScheduler(registry);
    await scheduler.start();
    await core.clock.advance(INTERVAL_MS);
    expect(swept).toHaveLength(1);
    scheduler.stop();
    expect(registry.getInterval(SWEEP_INTERVAL)).toBe(theirs);
    registry.deleteInterval(SWEEP_INTERVAL);
  });
});
