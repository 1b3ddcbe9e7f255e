import { Inject, Injectable } from '@nestjs/common';
import { Clock } from '../clock/clock.js';
import { STALLS_COUNT, settleWithin } from '../clock/deadline.js';
import { EventStream } from '../events/event-stream.js';
import type { Connection } from '../manager/connection.js';
import type { Manager } from '../manager/manager.js';
import { ManagerRegistry } from '../manager/manager-registry.js';
import { RESOLVED_OPTIONS, type ResolvedOptions } from '../options/websocket-manager-options.interface.js';
import { SlotLedger } from '../store/slot-ledger.js';
import { DrainState } from './drain-state.js';
import { GatewayHooks } from './gateway-hooks.js';
import { Refusals } from './refusal.js';

/** Closes come in waves, at least this far apart. */
const LEAST_WAVE_MS = 20;

/** The store has so long to be told, where the closes have taken the whole `drain.timeoutMs`; or that, if it is less. */
const LEAST_LEAVE_MS = 1_000;

/** What `ws` says of a socket that went without a closing handshake. */
const ABNORMAL_CLOSURE = 1006;

/** Ends every session politely before the process goes: told why, closed with 1012, spread over time. */
@Injectable()
export class DrainService {
  private drained: Promise<void> | undefined;
  /** Everybody who was there when it began, or whose handshake was under way. */
  private readonly connections = new Set<Connection>();

  constructor(
    private readonly clock: Clock,
    private readonly registry: ManagerRegistry,
    private readonly ledger: SlotLedger,
    private readonly hooks: GatewayHooks,
    private readonly refusals: Refusals,
    private readonly state: DrainState,
    private readonly events: EventStream,
    @Inject(RESOLVED_OPTIONS) private readonly options: ResolvedOptions,
  ) {}

  /** From now on nobody is let in, and readiness says so. */
  begin(): void {
    if (this.state.isDraining) return;
    this.state.begin();
    const connections = this.registry.connectionCount;
    this.events.report({ type: 'draining', phase: 'started', connections, terminated: 0 });
  }

  /**
   * Closes every connection over `drain.spreadMs`, waits for the application's hooks, terminates what is left after
   * `drain.timeoutMs`, and gives the slots back. A second call gets the first one's promise.
   */
  drain(): Promise<void> {
    this.begin();
    this.drained ??= this.run();
    return this.drained;
  }

  private async run(): Promise<void> {
    const { connections } = this;
    const { timeoutMs } = this.options.drain;
    const endsAt = this.clock.now() + timeoutMs;
    for (const manager of this.registry.allManagers) this.note(manager);
    const closing = this.closeAll();
    const whenGone = async () => {
      await closing;
      await Promise.all([...connections].map((connection) => connection.whenGone()));
      // A request-scoped gateway is made before its hook is called.
      await new Promise<void>((resolve) => this.clock.afterReads(resolve));
      await this.hooks.whenDisconnected();
      await this.refusals.whenHeldAreGone();
    };
    // A supervisor kills the process after its own time, whatever the event loop has done meanwhile.
    await settleWithin(this.clock, timeoutMs, whenGone, STALLS_COUNT);
    // After a stall of ours there may be some whose turn has not come; nobody may come to them any more.
    for (const manager of this.registry.allManagers) void this.close(manager);
    const left = [...connections].filter((connection) => !connection.closed);
    for (const connection of left) connection.transport.terminate();
    // `ws` does the same, some seconds after a close that nobody answers.
    const unanswered = [...connections].filter(({ closed }) => !closed || closed.code === ABNORMAL_CLOSURE);
    await this.ledger.leave(Math.max(endsAt - this.clock.now(), Math.min(timeoutMs, LEAST_LEAVE_MS)));
    this.events.report({
      type: 'draining',
      phase: 'finished',
      connections: connections.size,
      terminated: unanswered.length,
    });
  }

  private async closeAll(): Promise<void> {
    const managers = shuffled([...this.registry.allManagers]);
    const { spreadMs } = this.options.drain;
    const waves = Math.max(1, Math.min(managers.length, Math.floor(spreadMs / LEAST_WAVE_MS)));
    const perWave = Math.ceil(managers.length / waves);
    const closing: Promise<unknown>[] = [];
    for (let next = 0; next < managers.length; next += perWave) {
      if (next > 0) await this.pause(spreadMs / waves);
      for (const manager of managers.slice(next, next + perWave)) closing.push(this.close(manager));
    }
    await Promise.all(closing);
  }

  private note(manager: Manager): void {
    for (const connection of manager.connections) this.connections.add(connection);
  }

  private pause(ms: number): Promise<void> {
    return new Promise((resolve) => void this.clock.setTimeout(resolve, ms));
  }

  /** Each connection gets a time of its own to come back at. */
  private close(manager: Manager): Promise<boolean> {
    this.note(manager);
    const [, ...others] = [...manager.connections].reverse() as [Connection?, ...Connection[]];
    const ending = () => ({ reason: 'draining', retryAfterMs: this.state.drawRetryAfterMs() }) as const;
    for (const connection of others) connection.end(ending());
    return manager.close(ending());
  }
}

function shuffled<T>(items: T[]): T[] {
  for (let i = items.length - 1; i > 0; i--) {
    const j = Math.floor(Math.random() * (i + 1));
    [items[i], items[j]] = [items[j] as T, items[i] as T];
  }
  return items;
}
