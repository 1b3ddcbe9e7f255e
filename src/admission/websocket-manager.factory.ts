import { randomFillSync } from 'node:crypto';
import { Inject, Injectable } from '@nestjs/common';
import { CleanupService } from '../cleanup/cleanup.service.js';
import { Clock } from '../clock/clock.js';
import { isThenable, whenSettled } from '../clock/deadline.js';
import { EventStream } from '../events/event-stream.js';
import type { AdmissionOutcome } from '../events/vocabulary.js';
import type { Manager } from '../manager/manager.js';
import { ManagerRegistry } from '../manager/manager-registry.js';
import type { UserRecord } from '../manager/user-record.js';
import type { SlotHolder, SlotReply, SlotRequest } from '../options/slot-store.interface.js';
import { synchronous } from '../options/synchronous.js';
import { type CheckedUserContext, checkUserContext, type UserContext } from '../options/user-context.js';
import { RESOLVED_OPTIONS, type ResolvedOptions } from '../options/websocket-manager-options.interface.js';
import { SlotLedger } from '../store/slot-ledger.js';
import { DrainState } from './drain-state.js';
import { LimitFunctionError, ManagerLimitError, NodeUnavailableError } from './errors.js';
import { EvictedSessions } from './evicted-sessions.js';
import { Turns } from './turns.js';

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
/** The room that was made may be taken by another node: how often to make some before saying no. */
const MOST_ATTEMPTS = 3;

/**
 * The only way to a manager. The door asks it for every upgrade, and an application may ask it in code; there is
 * no second way, and no number of managers below which any of it is off.
 */
@Injectable()
export class WebSocketManagerFactory {
  /** Admissions of one user are served one at a time. */
  private readonly turns = new Turns<UserRecord>();
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
    const admission: PendingAdmission = { user, context, newcomer, startedAt, request };
    // With nobody before us and a store that answers at once, there is no queue to stand in.
    const isFree = !this.turns.isTaken(user) && !this.isNodeFull;
    const reply = isFree ? this.ledger.reserve(request) : undefined;
    if (reply && !isThenable(reply) && reply.granted) return this.accept(admission, reply.count, 'admitted');
    return this.serve({ ...admission, reply });
  }

  /** Turn after turn, until there is an answer; who waits for a slot in between holds nobody else up. */
  private async serve(admission: PendingAdmission): Promise<Admitted | Refused> {
    const { user, request } = admission;
    for (let { reply } = admission; ; reply = undefined) {
      const probe = this.probeWhileWaiting(user, request.limit);
      const answer = await this.turns.take(user, () => this.takeTurn({ ...admission, reply, probe }));
      if (answer) return answer;
      await this.waitForSlot(admission);
      if (admission.newcomer.isGone()) return this.refuseOverLimit(admission);
    }
  }

  /** @returns undefined where there is no slot, and time to wait for one. */
  private async takeTurn(admission: PendingAdmission): Promise<Admitted | Refused | undefined> {
    const { user, newcomer } = admission;
    // Where the limit was lowered, a newcomer takes one place and adds none: it cannot cost all that are too many.
    const request = { ...admission.request, limit: Math.max(admission.request.limit, user.managers.size) };
    let { reply, probe } = admission;
    let outcome: AdmissionOutcome = 'admitted';
    // Making room asks 20 sockets: many users who come at once take turns of the event loop.
    const pause = this.clock.breathe();
    if (pause) {
      await pause;
      if (!isThenable(reply)) reply = undefined;
    }
    for (let attempt = 0; ; attempt++) {
      const answer = await this.answerWithoutSlot(admission);
      if (answer) {
        this.giveBackLater(request, reply);
        return answer;
      }
      const pending = reply ?? this.ledger.reserve(request);
      // Without a pause where the store needs none: between its yes and the manager nobody else is to come.
      const { granted, count, elsewhere } = flat(isThenable(pending) ? await pending : pending);
      reply = undefined;
      if (granted && !this.isNodeFull && !this.drain.isDraining)
        return this.accept(admission, count, outcome);
      if (granted) {
        // The node has filled up, or begun to drain, while the store was thinking.
        this.ledger.giveBack(request);
        if (attempt >= MOST_ATTEMPTS) break;
        continue;
      }
      this.noteCount(user, admission.request.limit, count);
      if (attempt >= MOST_ATTEMPTS) break;

      outcome = 'admitted_after_cleanup';
      const { size } = user.managers;
      const isRoom = await this.makeRoom(admission, { needed: count - request.limit + 1, probe });
      probe = undefined;
      if (newcomer.isGone()) break;
      if (isRoom) continue;
      const transferred = await this.takeOver(admission, elsewhere);
      if (transferred) return this.accept(admission, transferred.count, outcome);
      // Somebody may have gone, or been found dead, in the very moment: nobody is refused for nothing.
      if (user.managers.size >= size && !this.cleanup.couldHaveFreed(user)) break;
    }
    if (this.slotWaitMs(admission) > 0) return undefined;
    return this.refuseOverLimit(admission);
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

  /** A slot that the store was asked for before it was known that nobody needs it. */
  private giveBackLater(request: SlotRequest, reply: SlotReply | Promise<SlotReply> | undefined): void {
    if (!reply) return;
    void whenSettled(reply, ({ granted }) => {
      if (granted) this.ledger.giveBack(request);
    });
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
    { user, context, request, startedAt }: PendingAdmission,
    count: number,
    outcome: AdmissionOutcome,
  ) {
    const returned = this.evicted.isReturning(user, context.sessionKey);
    user.limit = request.limit;
    const now = this.clock.now();
    const manager = this.registry.add(user, request.managerId, context, now);
    this.noteCount(user, request.limit, count);
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

  /** @returns whether anything was freed. */
  private async makeRoom(
    { user, context, newcomer }: PendingAdmission,
    room: { needed: number; probe?: Promise<void> | undefined; sparesLiving?: boolean },
  ): Promise<boolean> {
    const before = user.managers.size;
    await this.cleanup.makeRoom(user, {
      needed: Math.min(room.needed, before),
      mayEvictLiving: !room.sparesLiving && this.evicted.mayEvictLiving(user, context.sessionKey),
      isAbandoned: () => newcomer.isGone(),
      probe: room.probe,
    });
    return user.managers.size < before;
  }

  private get isNodeFull(): boolean {
    const { managersPerNode } = this.options.limits;
    return managersPerNode !== undefined && this.registry.managerCount >= managersPerNode;
  }

  /** Nobody living goes for want of room on the node; but a user's own dead and absent sessions may. */
  private async makeRoomOnNode(admission: PendingAdmission): Promise<boolean> {
    if (admission.user.managers.size === 0) return false;
    await this.makeRoom(admission, { needed: 1, sparesLiving: true });
    return !this.isNodeFull;
  }

  /** Takes the slot of a manager on another node, if the store says that there is one who can go. */
  private async takeOver(
    { user, request, context }: PendingAdmission,
    elsewhere: readonly SlotHolder[],
  ): Promise<{ count: number } | undefined> {
    const mayEvictLiving =
      this.evicted.mayEvictLiving(user, context.sessionKey) && this.cleanup.mayForceEviction(user);
    const victim = victimElsewhere(elsewhere, mayEvictLiving, this.options.cleanup.graceMs);
    if (!victim) return undefined;
    const reply = await this.ledger.reserve({ ...request, insteadOf: victim.managerId });
    if (!reply.granted) return undefined;
    // Somebody may be using it, there as well as here: it is on the same account.
    if (!victim.suspect) this.cleanup.noteForcedEviction(user);
    return reply;
  }

  private retryAfterMs({ user, context, request }: PendingAdmission): number {
    const { forcedEvictionRefillMs } = this.options.cleanup;
    const waitMs = this.cleanup.forcedEvictionWaitMs(user, request.limit);
    const isBarred = !this.evicted.mayEvictLiving(user, context.sessionKey);
    return Math.max(1, Math.ceil(isBarred ? Math.max(waitMs, forcedEvictionRefillMs) : waitMs));
  }

  /** How long the newcomer may wait for a slot; 0: it is told now. */
  private slotWaitMs(admission: PendingAdmission): number {
    if (admission.newcomer.isGone()) return 0;
    const until = admission.startedAt + this.options.admission.queueTimeoutMs;
    return Math.min(until - this.clock.now(), this.retryAfterMs(admission));
  }

  /** Until a slot comes free, or an eviction is allowed again, or its time is over. */
  private async waitForSlot(admission: PendingAdmission): Promise<void> {
    await new Promise<void>((resolve) => {
      const wake = () => {
        stopListening();
        this.clock.clearTimeout(timer);
        resolve();
      };
      const stopListening = admission.user.onFreed(wake);
      const timer = this.clock.setTimeout(wake, this.slotWaitMs(admission));
    });
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
  readonly request: SlotRequest;
  /** The store's first answer, where it was asked on arrival. */
  readonly reply?: SlotReply | Promise<SlotReply> | undefined;
  /** Begun before its turn, where there was a queue. */
  readonly probe?: Promise<void> | undefined;
}

function flat(reply: SlotReply): { granted: boolean; count: number; elsewhere: readonly SlotHolder[] } {
  return { elsewhere: [], ...reply };
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
