import type { Refused } from '../../src/admission/websocket-manager.factory.js';
import type {
  AdmittedEvent,
  DrainingEvent,
  RejectedEvent,
  SuspectedEvent,
  WebSocketManagerEvent,
  ZombieDetectedEvent,
} from '../../src/events/websocket-manager-event.js';
import type { Manager } from '../../src/manager/manager.js';
import type { Core } from '../support/core.js';
import { EvictionJudge } from './eviction-judge.js';
import { type Member, type Model, nameOf } from './model.js';
import type { HistorySocket } from './scripted-socket.js';
import type { Setting } from './setting.js';

/** Somebody at the door. */
export interface Arrival {
  readonly user: string;
  readonly key: string | undefined;
  readonly at: number;
  /** How long the event loop had stood still by then. */
  readonly stalledMs: number;
  isGone: boolean;
  /** A suspect was known when it came, and no other one waited: no new probe is needed. */
  readonly knowsSuspect: boolean;
  /** What the function of limits said of it; undefined: nothing that can be used. */
  readonly limit: number | undefined;
  /** The most managers that the user has had since. */
  most: number;
  /** Managers of the user that had been made when it was refused. */
  madeWhenRefused?: number | undefined;
  /** Told to come back now: since when nobody else of the user was given a place, and of how many places. */
  readonly promise: { readonly managersMade: number; readonly limit: number } | undefined;
}

/** What a newcomer may wait beside its probe. */
const DOOR_MS = 100;
/** With fewer the thresholds do not apply. */
const LEAST_SLOTS = 4;
/** Unsent bytes above the limit may stay for so long without moving, or be so many times the limit. */
const UNMOVED_MS = 1_000;
const MOST_TIMES_LIMIT = 16;
const LATE_MS = 100;

/** Sees everything at the moment when it happens, and writes down what may not be. Nothing here may throw. */
export class Witness {
  readonly broken: string[] = [];
  /** At the door, in the order of arrival. */
  readonly waiting: Arrival[] = [];
  /** Managers ever made, by user. */
  readonly made = new Map<string, number>();
  stalledMs = 0;
  lastStallAt = Number.NEGATIVE_INFINITY;
  /** When the event loop stood still. */
  readonly stalls: { readonly from: number; readonly to: number }[] = [];
  /** Until when a probe of the user may have been asked for by an incoming connection or an operator. */
  private readonly probedUntil = new Map<string, number>();
  /** Everybody answers and nobody arrives: who is there stays. */
  isQuiet = false;
  /** Since when nobody may be let in. */
  drainsSince: number | undefined;
  drainEvents: DrainingEvent[] = [];
  refused = 0;
  /** How often what happened, for who wants to know what the histories came to. */
  readonly tally = new Map<string, number>();
  readonly judge: EvictionJudge;
  private readonly ended = new Map<string, Member>();
  /** Connections that were reported as dead, and managers that were evicted as suspects. */
  private readonly reportedDead = new Set<string>();

  constructor(
    private readonly core: Core,
    private readonly model: Model,
    private readonly setting: Setting,
  ) {
    this.judge = new EvictionJudge(this, model, setting);
    core.events.events$.subscribe((event) => this.see(event));
    core.registry.observe({
      managerAdded: (manager) => this.added(manager),
      managerRemoved: (manager) => this.removed(manager),
      userForgotten: ({ userId }) => this.forgotten(userId),
    });
  }

  complain(what: string): void {
    const { clock } = this.core;
    this.broken.push(`at ${clock.now() - 1_000_000} ms: ${what}`);
  }

  /** After everything of an instant has happened. */
  settled(): void {
    // Who was being served when the drain began is sent away, and all others go, too.
    if (this.drainsSince !== undefined) this.judge.roomMade.clear();
    for (const [user, at] of this.judge.roomMade)
      this.complain(`${user} lost a living session at ${at - 1_000_000} ms for nobody`);
    this.judge.roomMade.clear();
    this.judge.suspectsGone.clear();
  }

  get hasStalled(): boolean {
    return this.stalledMs > 0;
  }

  /** An incoming connection, or an operator's cleanup, may probe all of the user's connections from now on. */
  noteProbe(user: string): void {
    this.probedUntil.set(user, this.now + 3 * this.setting.probe + DOOR_MS);
  }

  get now(): number {
    return this.core.clock.now();
  }

  private added(manager: Manager): void {
    const { user, userId, id, sessionKey: key, priority } = manager;
    this.made.set(userId, (this.made.get(userId) ?? 0) + 1);
    const { size } = user.managers;
    // Where the limit was lowered, a newcomer takes a place and adds none.
    const waiting = this.waiting.filter((one) => one.user === userId);
    const allowed = Math.max(0, ...waiting.map(({ limit = 0, most }) => Math.max(limit, most)));
    if (size > allowed) this.complain(`${userId} has ${size} managers of ${allowed}`);
    for (const arrival of waiting) arrival.most = Math.max(arrival.most, size);
    if (this.drainsSince !== undefined) this.complain(`${userId} was let in while draining`);
    const { perNode } = this.setting;
    if (perNode !== undefined && this.core.registry.managerCount > perNode)
      this.complain('the node is overfull');
    this.model.members.push({
      id,
      user: userId,
      key,
      priority,
      manager,
      createdAt: this.now,
      activeAt: this.now,
      leftAt: undefined,
      busy: 0,
      check: undefined,
      wasDenied: false,
      vouchedAt: Number.NEGATIVE_INFINITY,
      sockets: [],
    });
  }

  private removed({ id, userId }: Manager): void {
    const member = this.model.members.find((one) => one.id === id);
    if (!member) {
      this.complain(`a manager of ${userId} ended that was not there`);
      return;
    }
    this.model.members = this.model.members.filter((one) => one !== member);
    this.ended.set(id, member);
  }

  private forgotten(user: string): void {
    this.model.evictions.delete(user);
    for (const name of [...this.model.barred.keys()])
      if (name.startsWith(`${user} `)) this.model.barred.delete(name);
  }

  private see(event: WebSocketManagerEvent): void {
    this.count(event);
    try {
      switch (event.type) {
        case 'admitted':
          this.judge.roomMade.delete(event.userId);
          this.judge.suspectsGone.delete(event.userId);
          this.checkAdmission(event);
          break;
        case 'rejected':
          this.checkRefusal(event);
          break;
        case 'suspected':
          this.checkSuspicion(event);
          break;
        case 'zombie_detected':
          this.checkZombie(event);
          break;
        case 'evicted':
          if (event.evidence.signal === 'missed_probe') this.reportedDead.add(event.managerId);
          this.judge.judge(this.ended.get(event.managerId), event);
          break;
        case 'draining':
          this.drainEvents.push(event);
          break;
        case 'detached':
          this.checkDetached(event.managerId, event.connectionId, event.reason);
          break;
      }
    } catch (error) {
      this.complain(error instanceof Error ? String(error.stack) : String(error));
    }
  }

  private count(event: WebSocketManagerEvent): void {
    let name: string = event.type;
    if (event.type === 'evicted')
      name = `evicted ${event.reason} ${event.level ?? ''} ${event.evidence.signal}`;
    else if (event.type === 'rejected') name = `rejected ${event.reason}`;
    else if (event.type === 'admitted') name = `admitted ${event.outcome}`;
    else if (event.type === 'breaker_changed') name = `breaker ${event.to}`;
    else if (event.type === 'zombie_detected') name = `zombie ${event.evidence.signal}`;
    else if (event.type === 'detached') name = `detached ${event.reason}`;
    else if (event.type === 'cleanup_finished') name = `cleanup ${event.level} ${event.outcome}`;
    this.countOne(name);
  }

  private countOne(name: string): void {
    this.tally.set(name, (this.tally.get(name) ?? 0) + 1);
  }

  /** A byte came in so long after a ping. */
  noteAnswer(afterMs: number): void {
    const { patienceMs } = this.model;
    if (afterMs > patienceMs) this.countOne('answer after the patience, thanks to output under way');
    else if (afterMs > 0.75 * patienceMs) this.countOne('answer in the last quarter of the patience');
    else if (afterMs > this.setting.probe) this.countOne('answer after the probe');
    else this.countOne('answer');
  }

  /** A live session, as far as the wire tells, went for an incoming connection because it was a suspect. */
  noteLiveSuspect(): void {
    this.countOne('live suspect evicted');
  }

  private checkAdmission({ userId, sessionKey, durationMs, outcome }: AdmittedEvent): void {
    const at = this.now - durationMs;
    const arrival = this.waiting.find(
      (one) => one.user === userId && one.at === at && one.key === sessionKey,
    );
    if (!arrival) {
      this.complain(`${userId} was admitted without having come`);
      return;
    }
    this.checkWait(arrival, outcome);
    if (arrival.knowsSuspect && durationMs > 0 && arrival.stalledMs === this.stalledMs)
      this.complain(`${userId} waited ${durationMs} ms although there was a suspect`);
  }

  /** Promise 2: in within the probe's deadline. A queue to wait in is an option, and a stall is nobody's wait. */
  private checkWait({ user, at, stalledMs }: Arrival, what: string): void {
    const { probe, queue, perNode } = this.setting;
    if (stalledMs !== this.stalledMs || perNode !== undefined) return;
    const most = queue === 0 ? probe + DOOR_MS : queue + 2 * (probe + DOOR_MS);
    if (this.now - at > most) this.complain(`${user} was ${what} after ${this.now - at} ms`);
  }

  private checkRefusal({ userId, reason, durationMs, retryAfterMs, lockout }: RejectedEvent): void {
    const user = userId as string;
    // Of several who came at once, the event does not say which it was: one must fit.
    const arrivals = this.waiting.filter((one) => one.user === user && one.at === this.now - durationMs);
    const [first] = arrivals;
    if (!first) {
      this.complain(`${user} was refused without having come`);
      return;
    }
    if (reason === 'draining') {
      this.checkDraining(user, retryAfterMs);
      return;
    }
    if (reason === 'internal') {
      if (arrivals.every(({ limit }) => limit !== undefined))
        this.complain(`${user} was refused for nothing`);
      if (durationMs > 0) this.complain(`${user} was kept waiting for a limit`);
      return;
    }
    if (reason !== 'over_limit') {
      if (reason !== 'try_later' || this.setting.perNode === undefined)
        this.complain(`refused with ${reason}`);
      return;
    }
    if (lockout) this.complain(`${user} was locked out`);
    for (const arrival of arrivals) arrival.madeWhenRefused = this.made.get(user);
    this.judgeRefusal(first, arrivals, retryAfterMs);
  }

  /** Told by the answer: of several who came at once, the event does not say which it was. */
  notePromise({ user, key }: Arrival, { reason, retryAfterMs }: Refused): void {
    const bar = this.model.barred.get(`${user} ${key}`);
    if (bar && reason === 'over_limit' && retryAfterMs !== undefined)
      bar.promisedAt ??= this.now + retryAfterMs;
  }

  /** Drawn for each, so that they do not come back together. */
  private checkDraining(user: string, retryAfterMs = Number.NaN): void {
    if (this.drainsSince === undefined) this.complain(`${user} was sent away, and nothing drains`);
    const spread = Math.max(1_000, 2 * this.setting.drainSpread);
    if (!(retryAfterMs >= 500 && retryAfterMs <= 500 + spread))
      this.complain(`${user} was told to come back in ${retryAfterMs} ms`);
  }

  private judgeRefusal(first: Arrival, arrivals: readonly Arrival[], retryAfterMs: number | undefined): void {
    if (arrivals.some(({ isGone }) => isGone)) return;
    this.refused++;
    this.checkWait(first, 'refused');
    const complaints = arrivals.map((arrival) => this.complaintAbout(arrival, retryAfterMs));
    if (complaints[0] && complaints.every(Boolean)) this.complain(complaints[0]);
  }

  /** What is wrong with a refusal; undefined: nothing is. */
  private complaintAbout(
    { user, key, at, promise, limit = 0 }: Arrival,
    retryAfterMs = Infinity,
  ): string | undefined {
    const { grace, refill, perNode } = this.setting;
    // A place that was made for the next in line is not free.
    const taken = this.model.of(user).length + (this.judge.roomMade.has(user) ? 1 : 0);
    if (taken < limit && perNode === undefined) return `${user} was refused below the limit`;
    const somebody = this.model.whoCouldGo(user, key, at, this.now);
    if (somebody) return `${user} was refused, and ${somebody}`;
    if (retryAfterMs > Math.max(grace, refill, 1)) return `${user} was told to wait ${retryAfterMs} ms`;
    const waitMs = Math.max(1, this.model.waitMs(user, key, limit, this.now));
    const isBarred = this.model.barred.has(`${user} ${key}`);
    if (!isBarred && Math.abs(retryAfterMs - waitMs) > 1.001)
      return `${user} was told ${retryAfterMs} instead of ${waitMs} ms`;
    // The place was one of so many; the application may have taken it back meanwhile.
    if (promise && promise.limit <= limit && promise.managersMade === this.made.get(user))
      return `${user} came back as told, for nothing`;
    return undefined;
  }

  /** A suspect has missed a whole probe; with few slots only an incoming connection or an operator causes one. */
  private checkSuspicion({ userId, managerId, connectionId }: SuspectedEvent): void {
    const found = this.socketOf(managerId, connectionId);
    if (!found) return;
    const { member, socket } = found;
    const [first] = socket.record.openPings;
    const { probe, tiers } = this.setting;
    if (!first) this.complain(`${nameOf(member)} is a suspect, and was not asked`);
    else if (this.now - first.at < probe - 2)
      this.complain(`${nameOf(member)} is a suspect ${this.now - first.at} ms after it was asked`);
    if (this.waiting.some((one) => one.user === userId)) this.noteProbe(userId);
    const isAsked = (this.probedUntil.get(userId) ?? 0) >= this.now || this.hasStalled;
    if ((this.core.registry.user(userId)?.limit ?? 0) < LEAST_SLOTS && !tiers && !isAsked)
      this.complain(`${nameOf(member)} was probed in the background, with ${this.setting.limit} slots`);
  }

  private checkZombie({ managerId, connectionId, evidence }: ZombieDetectedEvent): void {
    this.reportedDead.add(connectionId);
    const found = this.socketOf(managerId, connectionId);
    if (!found) return;
    const { member, socket } = found;
    const alone = { ...member, sockets: [socket] };
    if (this.model.isResponding(alone, this.now, this.model.patienceMs))
      this.complain(`a connection of ${nameOf(member)} answers, and was taken for dead`);
    this.judge.checkProof(member, socket, evidence.signal);
    if (socket.state === 'open') this.checkSilence(member, socket, evidence.silentForMs);
  }

  /**
   * The evidence tells for how long no byte has come in; one that no event tells of is found by a liveness check, which
   * does not look for bytes of a closed socket.
   */
  private checkSilence(member: Member, { record }: HistorySocket, silentForMs: number): void {
    if (member.sockets.length > 1 || member.manager.lastHeardAt !== undefined || this.hasStalled) return;
    const silentMs = this.now - record.heardAt;
    if (Math.abs(silentForMs - silentMs) > this.setting.interval / 4 + 2)
      this.complain(`${nameOf(member)} has been silent for ${silentMs} ms, and not for ${silentForMs}`);
  }

  private socketOf(managerId: string, connectionId: string) {
    const member = this.model.members.find(({ id }) => id === managerId) ?? this.ended.get(managerId);
    const socket = member?.sockets.find(({ connection }) => connection.id === connectionId);
    return member && socket ? { member, socket } : undefined;
  }

  /** By what does not move, and never within the turn that sent it. */
  private checkSlowConsumer(member: Member, { record, movedAt, paused }: HistorySocket): void {
    const { buffered } = this.setting;
    const unsent = record.bufferedBeforeTurn;
    if (unsent > MOST_TIMES_LIMIT * buffered) return;
    if (unsent <= buffered) {
      this.complain(`${nameOf(member)} is a slow consumer of ${unsent} bytes${paused ? ', paused' : ''}`);
      return;
    }
    const since = Math.max(movedAt ?? this.now, record.overSince);
    const stillMs = this.now - since - this.stalledSince(since);
    // Of each stall the timers do not notice so much.
    const lateMs = LATE_MS * this.stalls.filter(({ to }) => to >= since).length;
    if (stillMs < UNMOVED_MS - lateMs - 2)
      this.complain(`${nameOf(member)} is a slow consumer of ${unsent} bytes that moved ${stillMs} ms ago`);
  }

  private stalledSince(time: number): number {
    return this.stalls.reduce((sum, { from, to }) => sum + Math.max(0, to - Math.max(from, time)), 0);
  }

  private checkDetached(managerId: string, connectionId: string, reason: string): void {
    const member = this.model.members.find(({ id }) => id === managerId) ?? this.ended.get(managerId);
    const socket = member?.sockets.find(({ connection }) => connection.id === connectionId);
    if (!member || !socket) {
      this.complain(`${connectionId} left without having been there`);
      return;
    }
    if (reason === 'no_pong' && !this.reportedDead.has(connectionId) && !this.reportedDead.has(managerId))
      this.complain(`a connection of ${nameOf(member)} was taken for dead without evidence`);
    if (reason === 'slow_consumer') this.checkSlowConsumer(member, socket);
    if (this.isQuiet && reason === 'no_pong')
      this.complain(`a connection of ${nameOf(member)} ended in a quiet network`);
    const { expiresAt = Number.POSITIVE_INFINITY } = socket;
    if (reason === 'token_expired' && this.now < expiresAt)
      this.complain(`a connection of ${nameOf(member)} ended before its credentials`);
    if (reason === 'draining' && this.drainsSince === undefined)
      this.complain(`a connection of ${nameOf(member)} was drained, and nothing drains`);
    member.sockets = member.sockets.filter((one) => one !== socket);
    if (member.sockets.length === 0) member.leftAt = this.now;
  }
}
