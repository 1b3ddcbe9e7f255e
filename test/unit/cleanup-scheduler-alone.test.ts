import type { DiscoveryService, ModuleRef } from '@nestjs/core';
import { expect, it, vi } from 'vitest';
import { CleanupScheduler } from '../../src/cleanup/cleanup-scheduler.js';
import { Core } from '../support/core.js';

const loaded = vi.hoisted(() => ({ times: 0 }));
vi.mock('@nestjs/schedule', (original) => {
  loaded.times++;
  return original();
});

/** One of the application's providers, which the package is not needed for, or might be. */
class Calendar {
  addInterval() {}
}
class Timetable extends Calendar {
  deleteInterval() {}
}

async function startBeside(...providers: unknown[]) {
  const core = await Core.start();
  const moduleRef = {
    get: () => {
      throw new Error('not imported');
    },
  } as unknown as ModuleRef;
  const discovery = {
    getProviders: () => providers.map((token) => ({ token })),
  } as unknown as DiscoveryService;
  const scheduler = new CleanupScheduler(core.clock, core.cleanup, moduleRef, discovery, core.options);
  await scheduler.start();
  scheduler.stop();
}

it('loads @nestjs/schedule for nobody who does without it', async () => {
  await startBeside(Calendar, 'calendar', Symbol('calendar'), () => {});
  expect(loaded.times).toBe(0);
  await startBeside(Calendar, Timetable);
  expect(loaded.times).toBe(1);
});
