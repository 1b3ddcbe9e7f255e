import { randomFillSync } from 'node:crypto';
import { Inject, Injectable } from '@nestjs/common';
import { CleanupService } from '../cleanup/cleanup.service.js';
import { Clock } from '../clock/clock.js';
import { isThenable, type TimeBudget } from '../clock/deadline.js';
import { EventStream } from '../events/event-stream.js';
import type { AdmissionOutcome } from '../events/vocabulary.js';
import type { Manager } from '../manager/manager.js';
import { ManagerRegistry } from '../manager/manager-registry.js';
import type { UserRecord } from '../manager/user-record.js';
import type { SlotHolder, SlotRequest } from '../options/slot-store.interface.js';
import { synchronous } from '../options/synchronous.js';
import { type CheckedUserContext, checkUserContext, type UserContext } from '../options/user-context.js';
import { RESOLVED_OPTIONS, type ResolvedOptions } from '../options/websocket-manager-options.interface.js';
import { type LedgerReply, SlotLedger } from '../store/slot-ledger.js';
import { DrainState } from './drain-state.js';
import { LimitFunctionError, ManagerLimitError, NodeUnavailableError } from './errors.js';
import { EvictedSessions } from './evicted-sessions.js';
import { SlotQueue, Turns, type Wake } from './turns.js';

export interface Admitted {
  readonly admitted: true;
  readonly manager: Manager;
  readonly outcome: AdmissionOutcome;
}

export interface Refused {
  readonly admitted: false;
  readonly reason: 'over_limit' | 'try_later' | 'draining' | 'internal';
  readonly retryAfterMs: number | undefined;
  readonly error?: unknown;
}

/** Who waits outside may go again; nobody is to be evicted for somebody who has. */
export interface Newcomer {
  isGone(): boolean;
}

const IN_CODE: Newcomer = { isGone: () => false };

/** A full node says: between half and one and a half times this, so that not all come back together. */
const NODE_FULL_RETRY_MS = 5_000;
/** A slot that was freed may be taken by another node: how often to try before refusing. */
const MOST_ATTEMPTS = 3;

/**
 * The only way to a manager. The door asks it for every upgrade, and an application may ask it in code; there is
 * no second way, and no number of managers below which any of it is off.
 */
@Injectable()
export class WebSocketManagerFactory {
  /** Admissions of one user are served one at a time. */
  private readonly turns = new Turns<UserRecord>();
  /** Admissions that wait for a slot, of users that have any. */
  private readonly slotQueues = new Map<UserRecord, SlotQueue>();
  private readonly ids = new ManagerIds();

  constructor(
    private readonly clock: Clock,
    private readonly registry: ManagerRegistry,
    private readonly ledger: SlotLedger,
    private readonly cleanup: CleanupService,
    private readonly evicted: EvictedSessions,
    private readonly drain: DrainState,
    private readonly events: EventStream,
    @Inject(RESOLVED_OPTIONS) private readonly options: ResolvedOptions,
  ) {}

  /**
   * A manager for the user: the one that has this session key, or a new one, for which room is made at the limit.
   *
   * One that nobody attaches a connection to within `cleanup.graceMs` is inactive, and goes.
   *
   * @throws InvalidUserContextError if the context cannot be used
   * @throws ManagerLimitError with `retryAfterMs`, if the user is at the limit and nobody may be evicted yet
   * @throws NodeUnavailableError if this node is full or draining
   * @throws LimitFunctionError if `limits.managersPerUser` is a function that failed
   */
  async create(context: UserContext): Promise<Manager> {
    const pending = this.admit(checkUserContext(context));
    const admission = isThenable(pending) ? await pending : pending;
    if (admission.admitted) return admission.manager;
    const { reason, retryAfterMs = 0 } = admission;
    if (reason === 'internal') throw admission.error;
    throw reason === 'over_limit'
      ? new ManagerLimitError(retryAfterMs)
      : new NodeUnavailableError(reason, retryAfterMs);
  }

  /**
   * The decision, for the door: what {@link create} does, with a refusal as an answer. Never throws. At once where
   * the store answers at once and nobody has to go.
   */
  admit(
    context: CheckedUserContext,
    newcomer: Newcomer = IN_CODE,
  ): Admitted | Refused | Promise<Admitted | Refused> {
    const startedAt = this.clock.now();
    if (this.drain.isDraining) return this.refuseDraining(context, startedAt);
    const user = this.registry.enter(context.userId);
    user.admissions++;
    let decision: ReturnType<typeof this.decide> | undefined;
    try {
      decision = this.decide(user, context, newcomer, startedAt);
    } finally {
      if (!decision || !isThenable(decision)) this.leave(user);
    }
    return isThenable(decision) ? this.leaveAfter(decision, user) : decision;
  }

  /** By itself, so that who is answered at once pays for no closure. */
  private leaveAfter<T>(decision: Promise<T>, user: UserRecord): Promise<T> {
    return decision.finally(() => this.leave(user));
  }

  private leave(user: UserRecord): void {
    user.admissions--;
    this.registry.forgetIfUnused(user);
  }

  private decide(
    user: UserRecord,
    context: CheckedUserContext,
    newcomer: Newcomer,
    startedAt: number,
  ): Admitted | Refused | Promise<Admitted | Refused> {
    const joined = this.join(user, context, startedAt);
    if (joined) return joined;
    let limit: number;
    try {
      limit = this.limitFor(context);
    } catch (error) {
      return this.refuse(context, startedAt, 'internal', undefined, { error });
    }
    const { userId, priority } = context;
    const request: SlotRequest = { userId, managerId: this.ids.next(), limit, priority };
    const budget = this.ledger.startBudget();
    // With nobody before us and a store that answers at once, there is no queue to stand in.
    const isFree = !this.turns.isTaken(user) && !this.isNodeFull;
    const reply = isFree ? this.ledger.reserve(request, budget) : undefined;
    const admission: PendingAdmission = { user, context, newcomer, startedAt, limit, request, budget, reply };
    if (reply && !isThenable(reply) && reply.granted) return this.accept(admission, reply.count, 'admitted');
    return this.serve(admission);
  }

  /** Turn after turn, until there is an answer; an admission that waits for a slot in between delays no other. */
  private async serve(admission: PendingAdmission): Promise<Admitted | Refused> {
    const { user, limit } = admission;
    let wake: Wake | undefined;
    try {
      for (;;) {
        // A connection that was woken for a free slot needs no probe.
        admission.probe = wake === 'freed' ? undefined : this.probeWhileWaiting(user, limit);
        const turn = await this.turns.take(user, () => this.takeTurn(admission, wake));
        if (!('waiting' in turn)) {
          const isSlotUsed = turn.admitted && turn.outcome !== 'joined';
          if (wake) this.slotQueues.get(user)?.settled(wake, !isSlotUsed);
          wake = undefined;
          return turn;
        }
        if (wake) this.slotQueues.get(user)?.settled(wake, false);
        wake = await turn.waiting;
        this.renew(admission, this.ledger.startBudget());
      }
    } finally {
      if (wake) this.slotQueues.get(user)?.settled(wake, true);
      this.ledger.giveBack(admission.request);
    }
  }

  /**
   * One decision. Never more than one session is evicted for it, whatever the store counts.
   * @param wake why the admission was woken, if it has waited for a slot
   * @returns `waiting` where there is no slot, and time to wait for one.
   */
  private async takeTurn(
    admission: PendingAdmission,
    wake: Wake | undefined,
  ): Promise<Admitted | Refused | { waiting: Promise<Wake> }> {
    const { user, newcomer, budget } = admission;
    // Where the limit was lowered, an incoming connection takes the place of one session and adds none.
    let limit = Math.max(admission.limit, user.managers.size);
    let outcome: AdmissionOutcome = 'admitted';
    for (let attempt = 0; ; ) {
      if (wake === 'gone' || (wake && newcomer.isGone())) return this.refuseOverLimit(admission);
      const answer = await this.answerWithoutSlot(admission);
      if (answer) return answer;
      const request = { ...admission.request, limit };
      const pending = admission.reply ?? this.ledger.reserve(request, budget);
      admission.reply = undefined;
      // Without a pause where the store needs none: between its yes and the manager nobody else is to come.
      const reply = isThenable(pending) ? await pending : pending;
      if (reply.granted) {
        if (!this.isNodeFull && !this.drain.isDraining) return this.accept(admission, reply.count, outcome);
        // The node has filled up, or begun to drain, while the store was thinking.
        this.ledger.giveBack(request, true);
        this.renew(admission, admission.budget);
        if (++attempt > MOST_ATTEMPTS) break;
        continue;
      }
      const { count, elsewhere = [] } = reply;
      this.noteCount(user, admission.limit, count);
      // What the store was asked may be under way: it is given back, and no id is reserved again after its release.
      if (reply.alone) this.renew(admission, admission.budget);
      // Releases that the store has not confirmed may be all that it counts too many: no session is evicted for them.
      const owed = reply.alone ? 0 : this.ledger.owedBy(user.userId);
      if (owed > 0 && owed > count - limit && budget.leftMs >= 1) {
        await this.ledger.whenReleased(user.userId, budget);
        continue;
      }
      if (admission.hasEvicted || attempt >= MOST_ATTEMPTS) break;

      outcome = 'admitted_after_cleanup';
      const { size } = user.managers;
      // Making room probes 20 connections: many users that come at once share each turn of the event loop.
      await this.clock.yieldIfOverBudget('admission');
      if (user.managers.size < size || this.drain.isDraining) continue;
      await this.makeRoom(admission);
      // Above the limit, the incoming connection takes the place of that session.
      if (admission.hasEvicted) limit = Math.max(limit, count);
      if (newcomer.isGone()) break;
      attempt++;
      if (user.managers.size < size) continue;
      const victim = this.victimElsewhere(admission, elsewhere);
      if (victim && !this.drain.isDraining) {
        admission.hasEvicted = true;
        const transferred = await this.takeOver(
          admission,
          { ...admission.request, limit: Math.max(limit, count), insteadOf: victim.managerId },
          victim,
        );
        if (transferred) return this.accept(admission, transferred.count, outcome);
      }
      // A session may have ended, or been found dead, in the very moment: no refusal is without need.
      if (user.managers.size >= size && !this.cleanup.couldHaveFreed(user) && !this.drain.isDraining) break;
    }
    const waitMs = this.slotWaitMs(admission);
    if (waitMs <= 0) return this.refuseOverLimit(admission);
    // In the same turn as the decision: no slot that becomes free is missed.
    return { waiting: this.waitForSlot(admission, waitMs, wake !== undefined) };
  }

  /** Of who needs no slot, or can have none. */
  private async answerWithoutSlot(admission: PendingAdmission): Promise<Admitted | Refused | undefined> {
    const { user, context, startedAt } = admission;
    const joined = this.join(user, context, startedAt);
    if (joined) return joined;
    if (this.drain.isDraining) return this.refuseDraining(context, startedAt);
    const isRoom = !this.isNodeFull || (await this.makeRoomOnNode(admission));
    return isRoom ? undefined : this.refuseFull(context, startedAt);
  }

  /**
   * Another try, with an id of its own: what is still under way for the first one cannot affect it.
   * @param budget what is left of it; all of it for an admission that has waited for a slot, since that is a new decision
   */
  private renew(admission: PendingAdmission, budget: TimeBudget): void {
    this.ledger.giveBack(admission.request);
    admission.request = { ...admission.request, managerId: this.ids.next() };
    admission.budget = budget;
  }

  /** Who waits for a turn, where those before may take the last slot, must not wait for a probe after that. */
  private probeWhileWaiting(user: UserRecord, limit: number): Promise<void> | undefined {
    const isWaiting = this.turns.isTaken(user);
    return isWaiting && user.managers.size + user.admissions > limit
      ? this.cleanup.startProbe(user)
      : undefined;
  }

  private join(user: UserRecord, context: CheckedUserContext, startedAt: number): Admitted | undefined {
    const manager = user.session(context.sessionKey);
    if (!manager) return undefined;
    this.reportAdmitted(manager, 'joined', this.clock.now() - startedAt, false);
    return { admitted: true, manager, outcome: 'joined' };
  }

  private accept(
    { user, context, limit, request, startedAt }: PendingAdmission,
    count: number,
    outcome: AdmissionOutcome,
  ) {
    const returned = this.evicted.isReturning(user, context.sessionKey);
    user.limit = limit;
    const now = this.clock.now();
    const manager = this.registry.add(user, request.managerId, context, now);
    this.ledger.adopt(request.managerId);
    this.noteCount(user, limit, count);
    this.reportAdmitted(manager, outcome, now - startedAt, returned);
    this.cleanup.startProactive(user);
    return { admitted: true, manager, outcome } as const;
  }

  private noteCount(user: UserRecord, limit: number, count: number): void {
    const countEverywhere = count > user.managers.size ? count : undefined;
    // For nearly every newcomer: the registry has just sorted the user by this.
    if (user.limit === limit && user.countEverywhere === countEverywhere) return;
    user.limit = limit;
    user.countEverywhere = countEverywhere;
    this.registry.pressureChanged(user);
  }

  /** Frees one slot, if a session may be evicted for it. `sparesSuspects`: only a dead or disconnected session may. */
  private async makeRoom(admission: PendingAdmission, sparesSuspects = false): Promise<void> {
    const { user, context, newcomer, probe } = admission;
    admission.probe = undefined;
    const { evicted } = await this.cleanup.makeRoom(user, {
      needed: Math.min(1, user.managers.size),
      mayEvictLiving: !sparesSuspects && this.evicted.mayEvictLiving(user, context.sessionKey),
      sparesSuspects,
      isAbandoned: () => newcomer.isGone(),
      probe,
    });
    if (evicted.length > 0) admission.hasEvicted = true;
  }

  private get isNodeFull(): boolean {
    const { managersPerNode } = this.options.limits;
    return managersPerNode !== undefined && this.registry.managerCount >= managersPerNode;
  }

  /** Nobody living goes for want of room on the node; but a user's own dead and absent sessions may. */
  private async makeRoomOnNode(admission: PendingAdmission): Promise<boolean> {
    if (admission.user.managers.size === 0) return false;
    await this.clock.yieldIfOverBudget('admission');
    if (this.isNodeFull && !admission.hasEvicted) await this.makeRoom(admission, true);
    return !this.isNodeFull;
  }

  /** A session on another node that may be evicted for the incoming connection. */
  private victimElsewhere(
    { user, context }: PendingAdmission,
    elsewhere: readonly SlotHolder[],
  ): SlotHolder | undefined {
    const mayEvictLiving =
      this.evicted.mayEvictLiving(user, context.sessionKey) && this.cleanup.mayForceEviction(user);
    return victimElsewhere(elsewhere, mayEvictLiving, this.options.cleanup.graceMs);
  }

  /** Takes the slot of a manager on another node. No slot is taken over once a drain has begun. */
  private async takeOver(
    { user, budget }: PendingAdmission,
    request: SlotRequest,
    victim: SlotHolder,
  ): Promise<{ count: number } | undefined> {
    const pending = this.ledger.reserve(request, budget);
    const reply = isThenable(pending) ? await pending : pending;
    if (!reply.granted) return undefined;
    // Somebody may be using it, there as well as here: it is on the same account.
    if (!victim.suspect) this.cleanup.noteForcedEviction(user);
    if (!this.drain.isDraining) return reply;
    this.ledger.giveBack(request, true);
    return undefined;
  }

  private retryAfterMs({ user, context, limit }: PendingAdmission): number {
    const { forcedEvictionRefillMs } = this.options.cleanup;
    const waitMs = this.cleanup.forcedEvictionWaitMs(user, limit);
    const isBarred = !this.evicted.mayEvictLiving(user, context.sessionKey);
    return Math.max(1, Math.ceil(isBarred ? Math.max(waitMs, forcedEvictionRefillMs) : waitMs));
  }

  /** How long the newcomer may wait for a slot; 0: it is told now. */
  private slotWaitMs(admission: PendingAdmission): number {
    if (admission.newcomer.isGone()) return 0;
    return admission.startedAt + this.options.admission.queueTimeoutMs - this.clock.now();
  }

  /** Until a slot comes free, or an eviction is allowed again, or its time is over. */
  private waitForSlot(admission: PendingAdmission, mostMs: number, atFront: boolean): Promise<Wake> {
    const { user, context, newcomer, limit } = admission;
    let queue = this.slotQueues.get(user);
    if (!queue) {
      const evictionWaitMs = () => this.cleanup.forcedEvictionWaitMs(user, user.limit ?? limit);
      queue = new SlotQueue(this.clock, user, evictionWaitMs, () => this.slotQueues.delete(user));
      this.slotQueues.set(user, queue);
    }
    const waiter = {
      isGone: () => newcomer.isGone(),
      mayEvict: () => !admission.hasEvicted && this.evicted.mayEvictLiving(user, context.sessionKey),
    };
    return queue.wait(waiter, mostMs, atFront);
  }

  private limitFor(context: CheckedUserContext): number {
    const { managersPerUser } = this.options.limits;
    if (typeof managersPerUser === 'number') return managersPerUser;
    let limit: number;
    try {
      limit = synchronous(managersPerUser(context), 'limits.managersPerUser');
    } catch (error) {
      throw new LimitFunctionError(error instanceof Error ? error.message : 'the function threw', {
        cause: error,
      });
    }
    if (limit === Number.POSITIVE_INFINITY || (Number.isSafeInteger(limit) && limit >= 1)) return limit;
    throw new LimitFunctionError(`the function returned ${String(limit)}; allowed: a whole number from 1`);
  }

  private reportAdmitted(
    manager: Manager,
    outcome: AdmissionOutcome,
    durationMs: number,
    returned: boolean,
  ): void {
    this.registry.counters.onAdmission?.(outcome, durationMs, returned);
    if (!this.events.hears('admitted')) return;
    const { pressure } = manager.user;
    this.events.report({ type: 'admitted', ...manager.identity, outcome, durationMs, returned, pressure });
  }

  private refuseDraining(context: CheckedUserContext, startedAt: number): Refused {
    return this.refuse(context, startedAt, 'draining', this.drain.drawRetryAfterMs());
  }

  private refuseOverLimit(admission: PendingAdmission): Refused {
    const { user, context, newcomer, startedAt } = admission;
    if (this.drain.isDraining) return this.refuseDraining(context, startedAt);
    const retryAfterMs = this.retryAfterMs(admission);
    const lockout = !newcomer.isGone() && this.cleanup.couldHaveFreed(user);
    this.evicted.notePromise(user, context.sessionKey, retryAfterMs);
    return this.refuse(context, startedAt, 'over_limit', retryAfterMs, { lockout });
  }

  private refuseFull(context: CheckedUserContext, startedAt: number): Refused {
    return this.refuse(context, startedAt, 'try_later', drawAround(NODE_FULL_RETRY_MS));
  }

  private refuse(
    { userId }: CheckedUserContext,
    startedAt: number,
    reason: Refused['reason'],
    retryAfterMs: number | undefined,
    { error, lockout = false }: { error?: unknown; lockout?: boolean } = {},
  ): Refused {
    const durationMs = this.clock.now() - startedAt;
    const detail = error instanceof Error ? error.message : undefined;
    this.events.report({ type: 'rejected', reason, userId, durationMs, retryAfterMs, lockout, detail });
    if (error !== undefined)
      this.events.report({ type: 'hook_failed', hook: 'limits.managersPerUser', error });
    return { admitted: false, reason, retryAfterMs, ...(error === undefined ? {} : { error }) };
  }
}

interface PendingAdmission {
  readonly user: UserRecord;
  readonly context: CheckedUserContext;
  readonly newcomer: Newcomer;
  readonly startedAt: number;
  /** The user's limit; the store may be asked with a higher one, where more sessions exist. */
  readonly limit: number;
  request: SlotRequest;
  /** What is left of the time that the decision may wait for the store. */
  budget: TimeBudget;
  /** The store's first answer, where it was asked on arrival. */
  reply: LedgerReply | Promise<LedgerReply> | undefined;
  /** Begun before its turn, where there was a queue. */
  probe?: Promise<void> | undefined;
  /** A session was evicted for it, here or on another node: no second one is. */
  hasEvicted?: boolean;
}

/** The same order as at home: absent, then idle, then the least valuable out of its grace. */
function victimElsewhere(
  holders: readonly SlotHolder[],
  mayEvictLiving: boolean,
  graceMs: number,
): SlotHolder | undefined {
  const suspect = holders.find((holder) => holder.suspect);
  if (suspect || !mayEvictLiving) return suspect;
  const outOfGrace = holders.filter((holder) => holder.ageMs >= graceMs);
  return outOfGrace.sort(
    (a, b) =>
      a.priority - b.priority ||
      Number(b.idle) - Number(a.idle) ||
      Number(a.busy) - Number(b.busy) ||
      b.inactiveForMs - a.inactiveForMs,
  )[0];
}

function drawAround(ms: number): number {
  return Math.round(ms * (0.5 + Math.random()));
}

/** 128 bits: nobody guesses one, and no two are ever the same. */
const ID_BYTES = 16;
const IDS_AT_ONCE = 128;

/**
 * Ids of managers: random, 22 characters that need no escaping in a URL. A UUID of Node's takes twice as long to make,
 * of twenty pieces that all stay in memory until somebody reads into it.
 */
export class ManagerIds {
  /** Not of Node's pool: what is not given out yet is not to lie beside what an application sends. */
  private readonly random = Buffer.alloc(ID_BYTES * IDS_AT_ONCE);
  private used = this.random.length;

  next(): string {
    if (this.used === this.random.length) {
      randomFillSync(this.random);
      this.used = 0;
    }
    const from = this.used;
    this.used += ID_BYTES;
    return this.random.toString('base64url', from, this.used);
  }
}
