import { Inject, Injectable } from '@nestjs/common';
import { Clock } from '../clock/clock.js';
import { isThenable, type Settled, settleWithin } from '../clock/deadline.js';
import { EventStream } from '../events/event-stream.js';
import { NodeCounters } from '../events/node-counters.js';
import { ManagerRegistry } from '../manager/manager-registry.js';
import type { SlotReply, SlotRequest, SlotStore } from '../options/slot-store.interface.js';
import { RESOLVED_OPTIONS, type ResolvedOptions } from '../options/websocket-manager-options.interface.js';
import { MemorySlotStore } from './memory-slot-store.js';

/** After a failure the store is left alone this long, so that not every newcomer waits for it. */
const AWAY_MS = 250;
/** How often a release that failed is tried again: as often as the store is asked at all. */
const RETRY_MS = AWAY_MS;

/**
 * The store, made safe to rely on: every call has a deadline, a failure is reported, and while the store is away
 * this node decides by its own count. A slow or broken store can cost accuracy, never a connection.
 */
@Injectable()
export class SlotLedger {
  private readonly store: SlotStore;
  private awayUntil = Number.NEGATIVE_INFINITY;
  private failures = 0;
  /** Releases that the store has not heard of yet: manager id to user id. */
  private readonly owed = new Map<string, string>();
  private retrying = false;
  private hasLeft = false;

  constructor(
    private readonly clock: Clock,
    private readonly registry: ManagerRegistry,
    private readonly events: EventStream,
    private readonly counters: NodeCounters,
    @Inject(RESOLVED_OPTIONS) private readonly options: ResolvedOptions,
  ) {
    this.store = options.store ?? new MemorySlotStore();
    registry.observe({ managerRemoved: (manager) => this.release(manager.userId, manager.id) });
  }

  get name(): string {
    return this.store.name;
  }

  /** The store did not answer the last time it was asked. */
  get isDegraded(): boolean {
    return this.failures > 0;
  }

  /** Connects the store to this node. Must not keep the application from starting: a failure is reported. */
  async start(): Promise<void> {
    const host = {
      countOf: (userId: string) => this.localCount(userId),
      has: (managerId: string) => this.registry.manager(managerId) !== undefined,
      evict: (managerId: string) => this.giveUp(managerId),
    };
    await this.ask('attach', () => this.store.attach(host));
  }

  /** Takes a slot. Answers at once when the store does. Never throws. */
  reserve(request: SlotRequest): SlotReply | Promise<SlotReply> {
    if (this.isDegraded && this.clock.now() < this.awayUntil) return this.decideAlone(request);
    let reply: SlotReply | Promise<SlotReply>;
    try {
      reply = this.store.reserve(request);
    } catch (error) {
      this.noteFailure('reserve', error);
      return this.decideAlone(request);
    }
    return isThenable(reply) ? this.awaitReply(request, reply) : this.accepted(request, reply);
  }

  /** A slot that was granted and is not wanted after all. */
  giveBack({ userId, managerId }: SlotRequest): void {
    this.release(userId, managerId);
  }

  /** Gives up what the store holds for this node. */
  async leave(): Promise<void> {
    this.hasLeft = true;
    this.owed.clear();
    await this.ask('leave', () => this.store.leave());
  }

  /** Another node has taken the slot over. */
  private giveUp(managerId: string): void {
    const manager = this.registry.manager(managerId);
    if (!manager) return;
    const now = this.clock.now();
    const evidence = {
      signal: 'taken_over',
      silentForMs: Math.round(
        now - Math.max(manager.createdAt, ...manager.connections.map((c) => c.lastHeardAt)),
      ),
      inactiveForMs: Math.round(now - manager.lastActivityAt),
      missedPongs: 0,
    };
    void manager.close({ reason: 'evicted', evidence });
  }

  private async awaitReply(request: SlotRequest, reply: PromiseLike<SlotReply>): Promise<SlotReply> {
    const started = this.clock.now();
    const settled = await settleWithin(this.clock, this.options.storeTimeoutMs, () => reply);
    this.counters.onStoreOperation?.('reserve', this.clock.now() - started);
    if (settled.status === 'done') return this.accepted(request, settled.value);
    this.noteFailure('reserve', reasonOf(settled, this.options.storeTimeoutMs));
    if (settled.status === 'late') this.settleLateGrant(request, reply);
    return this.decideAlone(request);
  }

  /** The store may not know of managers that were let in while it was away; this node does. */
  private accepted(request: SlotRequest, reply: SlotReply): SlotReply {
    this.failures = 0;
    if (!reply.granted || this.localCount(request.userId) < request.limit) return reply;
    const alone = this.decideAlone(request);
    this.giveBack(request);
    return alone;
  }

  /** A slot granted after we stopped waiting belongs to the manager if it came to be, or to nobody. */
  private settleLateGrant({ userId, managerId }: SlotRequest, reply: PromiseLike<SlotReply>): void {
    reply.then(
      (late) => {
        if (late.granted && !this.registry.manager(managerId)) this.release(userId, managerId);
      },
      (error: unknown) => this.noteFailure('reserve', error),
    );
  }

  private release(userId: string, managerId: string): void {
    const settled = this.callRelease(userId, managerId);
    if (settled === undefined) return;
    settled.then((ok) => {
      if (!ok) this.owe(userId, managerId);
    });
  }

  /** undefined: done at once. */
  private callRelease(userId: string, managerId: string): Promise<boolean> | undefined {
    try {
      const answer = this.store.release(userId, managerId);
      if (!isThenable(answer)) return undefined;
      return this.ask('release', () => answer);
    } catch (error) {
      this.noteFailure('release', error);
      return Promise.resolve(false);
    }
  }

  private owe(userId: string, managerId: string): void {
    // The store has been told, or has failed to hear, that all of this node's slots are free.
    if (this.hasLeft) return;
    this.owed.set(managerId, userId);
    if (this.retrying) return;
    this.retrying = true;
    this.clock.setTimeout(() => {
      this.retrying = false;
      const owed = [...this.owed];
      this.owed.clear();
      for (const [id, user] of owed) this.release(user, id);
    }, RETRY_MS);
  }

  private async ask(operation: string, call: () => void | PromiseLike<void>): Promise<boolean> {
    const started = this.clock.now();
    const settled = await settleWithin<void>(this.clock, this.options.storeTimeoutMs, call);
    this.counters.onStoreOperation?.(operation, this.clock.now() - started);
    if (settled.status === 'done') return true;
    this.noteFailure(operation, reasonOf(settled, this.options.storeTimeoutMs));
    return false;
  }

  private noteFailure(operation: string, error: unknown): void {
    this.failures++;
    this.awayUntil = this.clock.now() + AWAY_MS;
    this.events.report({ type: 'store_failed', operation, error });
  }

  private decideAlone({ userId, limit }: SlotRequest): SlotReply {
    const count = this.localCount(userId);
    return count < limit ? { granted: true, count: count + 1 } : { granted: false, count, elsewhere: [] };
  }

  private localCount(userId: string): number {
    return this.registry.user(userId)?.managers.size ?? 0;
  }
}

function reasonOf(settled: Exclude<Settled<unknown>, { status: 'done' }>, deadlineMs: number): unknown {
  return settled.status === 'failed' ? settled.error : new Error(`no answer within ${deadlineMs} ms`);
}
