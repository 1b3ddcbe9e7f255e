import { Inject, Injectable } from '@nestjs/common';
import { Clock, type TimerHandle } from '../clock/clock.js';
import { isThenable, settleWithin, type TimeBudget } from '../clock/deadline.js';
import { type Due, DueQueue, Fifo, NOT_QUEUED } from '../clock/due-queue.js';
import { EventStream } from '../events/event-stream.js';
import { NodeCounters } from '../events/node-counters.js';
import { ManagerRegistry } from '../manager/manager-registry.js';
import {
  checkReply,
  type SlotReply,
  type SlotRequest,
  type SlotStore,
} from '../options/slot-store.interface.js';
import { RESOLVED_OPTIONS, type ResolvedOptions } from '../options/websocket-manager-options.interface.js';
import { MemorySlotStore } from './memory-slot-store.js';

/**
 * Background calls (releases, and late registrations) in flight for the whole node. A call that failed keeps its
 * place for {@link COOL_MS}, so a store that fails at once is called at most 640 times a second.
 */
const MOST_IN_FLIGHT = 64;
/** ... and for one user, so that a user whose calls hang leaves places for the others. */
const MOST_PER_USER = 4;
const COOL_MS = 100;
/** Exponential back-off of a failed background call, each with a jitter of half of it. */
const FIRST_RETRY_MS = 250;
const MOST_RETRY_MS = 2_000;
/** An unanswered call is reported after the first time, and counts as lost after the second: then it is retried. */
const OVERDUE_MS = 10_000;
const LOST_MS = 30_000;
/** After a failed `reserve` this user's admissions do not wait for the store, so that a crowd does not wait in turn. */
const USER_AWAY_MS = 250;
const GRANULARITY_MS = 25;
/** The first pause between two attempts to leave. */
const LEAVE_RETRY_MS = 50;

/** What a user of the ledger has outstanding at the store; dropped with the last slot in it. */
interface UserSlots {
  readonly userId: string;
  /** Slots of the user in the ledger. */
  slots: number;
  /** Slots that are not wanted any more, and that the store may still count. */
  owed: number;
  /** Places that the user's background calls have. */
  places: number;
  /** Slots that wait for one of the user's places. */
  parked: Fifo<Slot> | undefined;
  awayUntil: number;
  /** Called once when an owed slot has been given back. */
  onReleased: (() => void)[] | undefined;
}

/** An answer of the store, or this node's own in its place. */
export type LedgerReply = SlotReply & {
  /** The store was not asked, or did not answer: this node's own count. */
  readonly alone?: true;
};

/**
 * The state of one slot that is not settled. A slot is in the ledger while a call for it is in flight, or while what
 * the store knows differs from what is wanted. All other slots are held by the managers of the registry, or free.
 */
class Slot implements Due {
  /** While a call is in flight: when it is overdue or lost. Otherwise: when the back-off ends. */
  dueTick = NOT_QUEUED;
  /** What the store has said last; unknown after a failure, which may have been executed. */
  known: 'free' | 'held' | 'unknown';
  /** An admission decides yet; a manager needs the slot; or it is to be free. */
  phase: 'admitting' | 'wanted' | 'unwanted' = 'admitting';
  /** At most one call for each slot. */
  inFlight: 'reserve' | 'release' | undefined;
  /** The number of the call; the answer to an earlier one is that of a call which counted as lost. */
  call = 0;
  calledAt = 0;
  /** Whether the call in flight has one of the places for background calls. */
  hasPlace = false;
  /** Waits for a place. */
  isQueued = false;
  /** In a row. */
  failures = 0;
  /** The store granted, in the answer to a lost call, what has been asked to be released since. */
  wasGrantedLate = false;

  constructor(
    readonly user: UserSlots,
    readonly managerId: string,
    /** For a late registration: the manager exists, so it is counted whatever the limit. */
    public limit: number,
    readonly priority: number,
    known: Slot['known'],
  ) {
    this.known = known;
  }

  get isSettled(): boolean {
    return this.known === (this.phase === 'wanted' ? 'held' : 'free');
  }
}

/**
 * The store, made safe to rely on. A slow or broken store can cost accuracy, never a connection: an admission waits
 * for it within one time budget, and after that this node decides by its own count.
 *
 * What the store was not told, or did not confirm, is told in the background until it is confirmed: releases, and
 * managers that were admitted while the store did not answer. There is one call in flight for each slot, a bounded
 * number for the node and for each user, and a back-off after a failure. A slow success is a success.
 */
@Injectable()
export class SlotLedger {
  private readonly store: SlotStore;
  private readonly slots = new Map<string, Slot>();
  private readonly users = new Map<string, UserSlots>();
  private readonly due: DueQueue<Slot>;
  private readonly ready = new Fifo<Slot>();
  /** Background calls that have a place: in flight, or failed less than {@link COOL_MS} ago. */
  private places = 0;
  private cooling: UserSlots[] = [];
  private coolTimer: TimerHandle | undefined;
  private dueTimer: TimerHandle | undefined;
  private dueTimerAt = 0;
  private isPumping = false;
  private degraded = false;
  private succeededAt = Number.NEGATIVE_INFINITY;
  private hasLeft = false;

  constructor(
    private readonly clock: Clock,
    private readonly registry: ManagerRegistry,
    private readonly events: EventStream,
    private readonly counters: NodeCounters,
    @Inject(RESOLVED_OPTIONS) private readonly options: ResolvedOptions,
  ) {
    this.store = options.store ?? new MemorySlotStore();
    this.due = new DueQueue(GRANULARITY_MS, clock.now());
    registry.observe({ managerRemoved: (manager) => this.release(manager.userId, manager.id) });
  }

  get name(): string {
    return this.store.name;
  }

  /** The store failed, and no operation has succeeded since. */
  get isDegraded(): boolean {
    return this.degraded;
  }

  /** Connects the store to this node. Must not keep the application from starting: a failure is reported. */
  async start(): Promise<void> {
    const host = {
      countOf: (userId: string) => this.localCount(userId),
      has: (managerId: string) => this.registry.manager(managerId) !== undefined,
      evict: (managerId: string) => this.giveUp(managerId),
    };
    await this.ask('attach', this.options.storeTimeoutMs, () => this.store.attach(host));
  }

  /** The time that one admission may wait for the store, in all of its calls. */
  startBudget(): TimeBudget {
    return this.options.store ? { leftMs: this.options.storeTimeoutMs } : UNSPENT;
  }

  /**
   * Takes a slot for an admission. Answers at once when the store does. Never throws. The admission ends with
   * {@link adopt} or {@link giveBack} of the same request.
   */
  reserve(request: SlotRequest, budget = this.startBudget()): LedgerReply | Promise<LedgerReply> {
    if (budget.leftMs < 1 || (this.slots.size > 0 && this.mustNotAsk(request)))
      return this.decideAlone(request);
    let reply: SlotReply | Promise<SlotReply>;
    try {
      reply = this.store.reserve(request);
      if (!isThenable(reply)) {
        checkReply(reply, request.limit);
        this.noteSuccess();
        const before = this.slots.size > 0 ? this.slots.get(request.managerId) : undefined;
        if (before) before.known = reply.granted ? 'held' : 'free';
        return this.accepted(request, reply);
      }
    } catch (error) {
      const slot = this.open(request, 'unknown');
      slot.known = 'unknown';
      this.reserveFailed(slot, error);
      return this.decideAlone(request);
    }
    return this.awaitReply(request, reply, budget);
  }

  /** The admission has made its manager: the slot is held, or is registered in the background. */
  adopt(managerId: string): void {
    const slot = this.slots.size > 0 ? this.slots.get(managerId) : undefined;
    if (slot) this.setPhase(slot, 'wanted');
  }

  /** The admission has ended without a manager: what the store granted, or may have granted, is released. */
  giveBack({ userId, managerId }: SlotRequest, wasGranted = false): void {
    if (wasGranted) this.release(userId, managerId);
    else {
      const slot = this.slots.size > 0 ? this.slots.get(managerId) : undefined;
      if (slot?.phase === 'admitting') this.setPhase(slot, 'unwanted');
    }
  }

  /** Slots of the user that are free here, and that the store may still count. */
  owedBy(userId: string): number {
    return this.users.get(userId)?.owed ?? 0;
  }

  /** Waits until the store has confirmed a release of the user, within the budget. */
  async whenReleased(userId: string, budget: TimeBudget): Promise<void> {
    const user = this.users.get(userId);
    if (!user || user.owed === 0) return;
    await settleWithin(this.clock, budget, () => {
      return new Promise<void>((resolve) => {
        user.onReleased ??= [];
        user.onReleased.push(resolve);
      });
    });
  }

  /**
   * Gives up all that the store holds for this node, within `withinMs`: attempts follow each other until one succeeds.
   * Outstanding releases are attempted meanwhile, and are covered by the success.
   */
  async leave(withinMs = this.options.storeTimeoutMs): Promise<void> {
    const endsAt = this.clock.now() + withinMs;
    let succeed = () => {};
    const success = new Promise<void>((resolve) => {
      succeed = resolve;
    });
    // An earlier attempt that succeeds while a later one waits is a success.
    const attempt = () => Promise.race([success, (async () => this.store.leave())().then(succeed)]);
    for (let pauseMs = LEAVE_RETRY_MS; ; pauseMs *= 2) {
      const leftMs = endsAt - this.clock.now();
      if (leftMs < 1) break;
      // Each attempt leaves time for another one, as long as that is worth it.
      const mostMs = leftMs > 2 * this.options.storeTimeoutMs ? leftMs / 2 : leftMs;
      if (await this.ask('leave', mostMs, attempt)) break;
      await this.pause(Math.min(pauseMs, endsAt - this.clock.now()), success);
    }
    this.stop();
  }

  private pause(ms: number, orUntil: Promise<void>): Promise<void> {
    if (ms < 1) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = this.clock.setTimeout(resolve, ms);
      void orUntil.then(() => {
        this.clock.clearTimeout(timer);
        resolve();
      });
    });
  }

  private stop(): void {
    this.hasLeft = true;
    this.clock.clearTimeout(this.coolTimer);
    for (const slot of this.slots.values()) this.due.cancel(slot);
    this.slots.clear();
    this.users.clear();
    this.disarm();
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

  /** A call for the slot is in flight, or the store has just failed this user. */
  private mustNotAsk({ userId, managerId }: SlotRequest): boolean {
    const user = this.users.get(userId);
    if (user && this.clock.now() < user.awayUntil) return true;
    const slot = this.slots.get(managerId);
    return slot !== undefined && (slot.inFlight !== undefined || slot.isQueued);
  }

  private async awaitReply(
    request: SlotRequest,
    reply: PromiseLike<SlotReply>,
    budget: TimeBudget,
  ): Promise<LedgerReply> {
    const slot = this.open(request, 'unknown');
    if (slot.phase === 'unwanted') slot.user.owed--;
    slot.phase = 'admitting';
    const startedAt = this.clock.now();
    const answer = this.track(slot, 'reserve', reply, request.limit);
    const settled = await settleWithin(this.clock, budget, () => answer);
    this.counters.onStoreOperation?.('reserve', this.clock.now() - startedAt);
    if (settled.status === 'done') {
      slot.user.awayUntil = Number.NEGATIVE_INFINITY;
      return this.accepted(request, settled.value as SlotReply);
    }
    // An answer that fails, now or later, is reported where it arrives.
    if (settled.status === 'late')
      this.reserveFailed(slot, new Error(`no answer within ${this.options.storeTimeoutMs} ms`));
    return this.decideAlone(request);
  }

  /** The store may not know of managers that were let in while it was away; this node does. */
  private accepted(request: SlotRequest, reply: SlotReply): LedgerReply {
    if (!reply.granted || this.localCount(request.userId) < request.limit) return reply;
    const count = this.localCount(request.userId);
    this.giveBack(request, true);
    return { granted: false, count, elsewhere: [], alone: true };
  }

  /** By this node's own count. The store is told of the decision in the background. */
  private decideAlone(request: SlotRequest): LedgerReply {
    this.open(request, 'free');
    const count = this.localCount(request.userId);
    return count < request.limit
      ? { granted: true, count: count + 1, alone: true }
      : { granted: false, count, elsewhere: [], alone: true };
  }

  private reserveFailed(slot: Slot, error: unknown): void {
    slot.user.awayUntil = this.clock.now() + USER_AWAY_MS;
    this.noteFailure('reserve', error);
  }

  private release(userId: string, managerId: string): void {
    if (this.hasLeft) {
      this.releaseOnce(userId, managerId);
      return;
    }
    const slot = this.slots.size > 0 ? this.slots.get(managerId) : undefined;
    if (slot) {
      this.setPhase(slot, 'unwanted');
      return;
    }
    if (!this.mayCall(this.users.get(userId))) {
      this.setPhase(this.open({ userId, managerId, limit: 0, priority: 0 }, 'held'), 'unwanted');
      return;
    }
    let answer: void | Promise<void>;
    try {
      answer = this.store.release(userId, managerId);
      if (!isThenable(answer)) {
        this.noteSuccess();
        return;
      }
    } catch (error) {
      answer = Promise.reject(error);
    }
    const opened = this.open({ userId, managerId, limit: 0, priority: 0 }, 'held');
    opened.phase = 'unwanted';
    opened.user.owed++;
    this.takePlace(opened);
    void this.track(opened, 'release', answer);
  }

  /** After the node has left, only what is granted too late has to be released; there is no time for a retry. */
  private releaseOnce(userId: string, managerId: string): void {
    void this.ask('release', LOST_MS, () => this.store.release(userId, managerId));
  }

  private open({ userId, managerId, limit, priority }: SlotRequest, known: Slot['known']): Slot {
    const before = this.slots.get(managerId);
    if (before) {
      before.limit = Math.max(before.limit, limit);
      return before;
    }
    let user = this.users.get(userId);
    if (!user) {
      user = {
        userId,
        slots: 0,
        owed: 0,
        places: 0,
        parked: undefined,
        awayUntil: Number.NEGATIVE_INFINITY,
        onReleased: undefined,
      };
      this.users.set(userId, user);
    }
    user.slots++;
    const slot = new Slot(user, managerId, limit, priority, known);
    this.slots.set(managerId, slot);
    return slot;
  }

  private setPhase(slot: Slot, phase: 'wanted' | 'unwanted'): void {
    if (slot.phase === phase) return;
    if (phase === 'unwanted') slot.user.owed++;
    else if (slot.phase === 'unwanted') slot.user.owed--;
    slot.phase = phase;
    // A call in flight, a place in the queue or a back-off comes to its end first, and sees the new phase then.
    if (slot.inFlight || slot.isQueued) return;
    if (slot.isSettled) this.forget(slot);
    else if (slot.dueTick === NOT_QUEUED) this.reconcile(slot);
  }

  /** Closes the difference between what the store knows and what is wanted. */
  private reconcile(slot: Slot): void {
    if (slot.phase === 'admitting') return;
    if (slot.isSettled) {
      this.forget(slot);
      return;
    }
    // A release is made at once; a registration follows a failure, so the store is given time.
    if (slot.failures === 0 && slot.known === 'held') this.enqueue(slot);
    else this.backOff(slot);
  }

  private forget(slot: Slot): void {
    const { user } = slot;
    this.due.cancel(slot);
    this.slots.delete(slot.managerId);
    user.slots--;
    if (slot.phase === 'unwanted') {
      user.owed--;
      for (const notify of user.onReleased ?? []) notify();
      user.onReleased = undefined;
    }
    this.forgetIfUnused(user);
    if (this.slots.size === 0) this.disarm();
  }

  private forgetIfUnused(user: UserSlots): void {
    if (user.slots === 0 && user.places === 0 && this.users.get(user.userId) === user)
      this.users.delete(user.userId);
  }

  private backOff(slot: Slot): void {
    const mostMs = Math.min(MOST_RETRY_MS, FIRST_RETRY_MS * 2 ** Math.max(0, slot.failures - 1));
    this.schedule(slot, this.clock.now() + mostMs * (1 - jitterOf(slot) / 2));
  }

  private enqueue(slot: Slot): void {
    slot.isQueued = true;
    const { user } = slot;
    if (user.places >= MOST_PER_USER) {
      user.parked ??= new Fifo();
      user.parked.push(slot);
    } else {
      this.ready.push(slot);
      this.pump();
    }
  }

  private mayCall(user: UserSlots | undefined): boolean {
    return (
      this.places < MOST_IN_FLIGHT &&
      this.ready.size === 0 &&
      (user === undefined || user.places < MOST_PER_USER)
    );
  }

  /** Makes the next calls: as many as there are places, in one turn of the event loop. */
  private pump(): void {
    if (this.isPumping) return;
    this.isPumping = true;
    for (let calls = 0; calls < MOST_IN_FLIGHT && this.places < MOST_IN_FLIGHT; calls++) {
      const slot = this.ready.shift();
      if (!slot) break;
      this.callNext(slot);
    }
    this.isPumping = false;
    // Answers that come at once give their places back in this turn; the rest of the queue waits for the next.
    if (this.ready.size > 0 && this.places < MOST_IN_FLIGHT) this.pumpLater();
  }

  private pumpLater(): void {
    if (this.isPumping) return;
    this.isPumping = true;
    this.clock.afterReads(() => {
      this.isPumping = false;
      this.pump();
    });
  }

  private callNext(slot: Slot): void {
    slot.isQueued = false;
    if (this.hasLeft) return;
    if (slot.isSettled) {
      this.forget(slot);
      this.unpark(slot.user);
      return;
    }
    if (slot.user.places >= MOST_PER_USER) {
      this.enqueue(slot);
      return;
    }
    const { user, managerId, limit, priority } = slot;
    this.takePlace(slot);
    try {
      if (slot.phase === 'wanted') {
        const reply = this.store.reserve({ userId: user.userId, managerId, limit, priority });
        if (isThenable(reply)) void this.track(slot, 'reserve', reply, limit);
        else {
          checkReply(reply, limit);
          this.answered(slot, ++slot.call, 'reserve', reply);
        }
      } else {
        const answer = this.store.release(user.userId, managerId);
        if (isThenable(answer)) void this.track(slot, 'release', answer);
        else this.answered(slot, ++slot.call, 'release', undefined);
      }
    } catch (error) {
      this.failed(slot, ++slot.call, slot.phase === 'wanted' ? 'reserve' : 'release', error);
    }
  }

  /** Follows a call until its answer, however late that is. @returns the checked answer. */
  private track(
    slot: Slot,
    operation: 'reserve' | 'release',
    pending: PromiseLike<unknown>,
    limit = 0,
  ): Promise<unknown> {
    const call = ++slot.call;
    slot.inFlight = operation;
    slot.calledAt = this.clock.now();
    this.schedule(slot, slot.calledAt + OVERDUE_MS);
    const checked = Promise.resolve(pending).then((reply) => {
      if (operation === 'reserve') checkReply(reply, limit);
      return reply;
    });
    checked.then(
      // What a store answers to a release says nothing.
      (reply) =>
        this.answered(slot, call, operation, operation === 'reserve' ? (reply as SlotReply) : undefined),
      (error: unknown) => this.failed(slot, call, operation, error),
    );
    return checked;
  }

  private answered(
    slot: Slot,
    call: number,
    operation: 'reserve' | 'release',
    reply: SlotReply | undefined,
  ): void {
    this.noteSuccess();
    if (call !== slot.call) {
      this.answeredLost(slot, operation, reply?.granted === true);
      return;
    }
    this.endCall(slot, operation, true);
    slot.failures = 0;
    slot.known = reply?.granted || slot.wasGrantedLate ? 'held' : 'free';
    slot.wasGrantedLate = false;
    // A registration counts a manager that exists, so it is repeated with a limit that has room for it.
    if (reply && !reply.granted) slot.limit = Math.max(slot.limit, reply.count + 1);
    if (this.hasLeft) {
      if (slot.known === 'held') this.answeredAfterLeave(slot);
    } else this.reconcile(slot);
  }

  /** The call was counted as lost, and may have been repeated since. */
  private answeredLost(slot: Slot, operation: 'reserve' | 'release', wasGranted: boolean): void {
    if (operation === 'reserve' && !wasGranted) return;
    if (this.hasLeft) {
      if (operation === 'reserve') this.answeredAfterLeave(slot);
      return;
    }
    if (slot.inFlight) {
      slot.wasGrantedLate ||= operation === 'reserve';
      return;
    }
    if (this.slots.get(slot.managerId) === slot) {
      slot.known = operation === 'reserve' ? 'held' : 'free';
      if (slot.isQueued) return;
      if (slot.isSettled) this.forget(slot);
      return;
    }
    // The slot was settled without this answer; only a grant that no manager needs has to be given back.
    if (operation === 'reserve' && !this.registry.manager(slot.managerId))
      this.release(slot.user.userId, slot.managerId);
  }

  private answeredAfterLeave(slot: Slot): void {
    if (!this.registry.manager(slot.managerId)) this.releaseOnce(slot.user.userId, slot.managerId);
  }

  private failed(slot: Slot, call: number, operation: 'reserve' | 'release', error: unknown): void {
    this.noteFailure(operation, error);
    if (call !== slot.call) return;
    this.endCall(slot, operation, false);
    slot.failures++;
    slot.known = 'unknown';
    if (this.hasLeft) return;
    if (slot.phase === 'admitting') slot.user.awayUntil = this.clock.now() + USER_AWAY_MS;
    else this.reconcile(slot);
  }

  private endCall(slot: Slot, operation: 'reserve' | 'release', isSuccess: boolean): void {
    this.due.cancel(slot);
    if (slot.inFlight && slot.hasPlace)
      this.counters.onStoreOperation?.(operation, this.clock.now() - slot.calledAt);
    slot.inFlight = undefined;
    if (!slot.hasPlace) return;
    slot.hasPlace = false;
    if (isSuccess) this.leavePlace(slot.user);
    else this.cool(slot.user);
  }

  private takePlace(slot: Slot): void {
    slot.hasPlace = true;
    slot.user.places++;
    this.places++;
  }

  private leavePlace(user: UserSlots): void {
    this.places--;
    user.places--;
    this.unpark(user);
    this.forgetIfUnused(user);
    if (this.ready.size > 0) this.pumpLater();
  }

  /** The next slot of a user that has too few places takes its turn among the others. */
  private unpark(user: UserSlots): void {
    const next = user.parked?.shift();
    if (next) this.ready.push(next);
  }

  /** The place of a failed call stays taken for a while: failures must not follow each other without a pause. */
  private cool(user: UserSlots): void {
    this.cooling.push(user);
    if (this.hasLeft) return;
    this.coolTimer ??= this.clock.setTimeout(() => {
      this.coolTimer = undefined;
      for (const cooled of this.cooling.splice(0)) this.leavePlace(cooled);
    }, COOL_MS);
  }

  private schedule(slot: Slot, at: number): void {
    const dueAt = this.due.schedule(slot, at);
    if (this.dueTimer && this.dueTimerAt <= dueAt) return;
    this.arm(dueAt);
  }

  private arm(at: number): void {
    this.clock.clearTimeout(this.dueTimer);
    this.dueTimerAt = at;
    this.dueTimer = this.clock.setTimeout(
      () => {
        // After an event-loop stall, answers that have arrived are read before a call is overdue.
        this.clock.afterReads(() => this.comeDue());
      },
      Math.max(1, Math.ceil(at - this.clock.now())),
    );
  }

  private disarm(): void {
    this.clock.clearTimeout(this.dueTimer);
    this.dueTimer = undefined;
  }

  private comeDue(): void {
    this.dueTimer = undefined;
    if (this.hasLeft) return;
    const now = this.clock.now();
    this.due.advance(now, (slot) => this.onDue(slot, now));
    const next = this.due.nextDue(now + LOST_MS + GRANULARITY_MS);
    if (next !== undefined && (!this.dueTimer || next < this.dueTimerAt)) this.arm(next);
  }

  private onDue(slot: Slot, now: number): void {
    if (!slot.inFlight) {
      if (slot.isSettled) this.forget(slot);
      else this.enqueue(slot);
      return;
    }
    const error = () => new Error(`no answer within ${Math.round(now - slot.calledAt)} ms`);
    if (now - slot.calledAt < LOST_MS) {
      // Where others are answered and wait for this place, it is given up sooner.
      const isLost = slot.hasPlace && this.ready.size > 0 && this.succeededAt > slot.calledAt;
      if (!isLost) {
        this.noteFailure(slot.inFlight, error());
        this.schedule(slot, slot.calledAt + LOST_MS);
        return;
      }
    }
    this.failed(slot, slot.call, slot.inFlight, error());
    slot.call++;
  }

  private async ask(
    operation: string,
    withinMs: number,
    call: () => void | PromiseLike<void>,
  ): Promise<boolean> {
    const startedAt = this.clock.now();
    const settled = await settleWithin<void>(this.clock, withinMs, call);
    this.counters.onStoreOperation?.(operation, this.clock.now() - startedAt);
    if (settled.status === 'done') {
      this.noteSuccess();
      return true;
    }
    this.noteFailure(
      operation,
      settled.status === 'failed' ? settled.error : new Error(`no answer within ${Math.round(withinMs)} ms`),
    );
    return false;
  }

  private noteSuccess(): void {
    if (this.degraded || this.slots.size > 0) this.succeededAt = this.clock.now();
    this.degraded = false;
  }

  private noteFailure(operation: string, error: unknown): void {
    this.degraded = true;
    this.events.report({ type: 'store_failed', operation, error });
  }

  private localCount(userId: string): number {
    return this.registry.user(userId)?.managers.size ?? 0;
  }
}

/** No admission waits for the memory store. */
const UNSPENT: TimeBudget = { leftMs: Number.POSITIVE_INFINITY };

/** From 0 to 1, of the random id: the same slot waits differently from time to time, and histories can be repeated. */
function jitterOf({ managerId, failures }: Slot): number {
  const at = failures % Math.max(1, managerId.length);
  return ((managerId.charCodeAt(at) * 31 + managerId.charCodeAt(managerId.length - 1) * 7) % 64) / 64;
}
