import { Inject, Injectable } from '@nestjs/common';
import { DiscoveryService, ModuleRef } from '@nestjs/core';
import type { SchedulerRegistry } from '@nestjs/schedule';
import { Clock, type TimerHandle } from '../clock/clock.js';
import { importOptional } from '../options/import-optional.js';
import { RESOLVED_OPTIONS, type ResolvedOptions } from '../options/websocket-manager-options.interface.js';
import { CleanupService } from './cleanup.service.js';

/** The name of the sweep among the application's scheduled intervals. */
export const SWEEP_INTERVAL = 'websocket-manager:sweep';

/**
 * Runs the sweep. Where the application has `ScheduleModule`, the interval is registered in its SchedulerRegistry,
 * to be seen and stopped there like any other; otherwise it runs all the same.
 */
@Injectable()
export class CleanupScheduler {
  private interval: TimerHandle | undefined;
  private registry: SchedulerRegistry | undefined;
  private sweptAt: number;

  constructor(
    private readonly clock: Clock,
    private readonly cleanup: CleanupService,
    private readonly moduleRef: ModuleRef,
    private readonly discovery: DiscoveryService,
    @Inject(RESOLVED_OPTIONS) private readonly options: ResolvedOptions,
  ) {
    this.sweptAt = clock.now();
  }

  /** Milliseconds since a sweep last came to its end. */
  get sinceLastSweepMs(): number {
    return this.clock.now() - this.sweptAt;
  }

  async start(): Promise<void> {
    this.sweptAt = this.clock.now();
    this.interval = this.clock.setInterval(() => void this.sweep(), this.options.cleanup.intervalMs);
    this.registry = await this.findRegistry();
    if (this.registry && !this.registry.doesExist('interval', SWEEP_INTERVAL)) {
      this.registry.addInterval(SWEEP_INTERVAL, this.interval);
    }
  }

  stop(): void {
    this.clock.clearInterval(this.interval);
    const isOurs =
      this.registry?.doesExist('interval', SWEEP_INTERVAL) &&
      this.registry.getInterval(SWEEP_INTERVAL) === this.interval;
    if (isOurs) this.registry?.deleteInterval(SWEEP_INTERVAL);
    this.interval = undefined;
  }

  private async sweep(): Promise<void> {
    await this.cleanup.sweep();
    this.sweptAt = this.clock.now();
  }

  /** A registry of our own beside the application's would take its place in injection: only theirs is used. */
  private async findRegistry(): Promise<SchedulerRegistry | undefined> {
    // Many have the package installed and do without it. Loaded for them, it would be a megabyte of their heap.
    if (!this.discovery.getProviders().some(({ token }) => looksLikeRegistry(token))) return undefined;
    const schedule = await importOptional(() => import('@nestjs/schedule'), '@nestjs/schedule');
    if (!schedule) return undefined;
    try {
      return this.moduleRef.get(schedule.SchedulerRegistry, { strict: false });
    } catch {
      // Something that looks like one: another copy of the package, or the application's own.
      return undefined;
    }
  }
}

/** By what it can do, as its name may have been minified; the token, whatever stands for it in the application. */
function looksLikeRegistry(token: unknown): boolean {
  const { prototype } = (token ?? {}) as { prototype?: Partial<SchedulerRegistry> };
  return typeof prototype?.addInterval === 'function' && typeof prototype.deleteInterval === 'function';
}
