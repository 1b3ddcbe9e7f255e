import type { CleanupLevel, Evidence } from '../../src/events/vocabulary.js';
import type { EvictedEvent } from '../../src/events/websocket-manager-event.js';
import { type Member, type Model, nameOf } from './model.js';
import type { HistorySocket } from './scripted-socket.js';
import type { Setting } from './setting.js';
import type { Arrival } from './witness.js';

const SHARE_OF_WINDOW: Record<CleanupLevel, number> = {
  conservative: 1,
  moderate: 0.5,
  aggressive: 0.25,
  force: 0.25,
};

/** What the judge is told by. */
export interface Scene {
  readonly now: number;
  /** At the door, in the order of arrival. */
  readonly waiting: readonly Arrival[];
  /** Everybody answers and nobody arrives. */
  readonly isQuiet: boolean;
  /** The event loop has stood still at least once. */
  readonly hasStalled: boolean;
  complain(what: string): void;
  noteLiveSuspect(): void;
}

/** Judges every end that was not the client's own: whether it had to be, and whether it was this one's turn. */
export class EvictionJudge {
  /** A living session went for a newcomer, who has to be in at the same instant. */
  readonly roomMade = new Map<string, number>();
  /** Users that lost a suspect for an incoming connection, which has to be in at the same instant. */
  readonly suspectsGone = new Set<string>();
  evictedLiving = 0;

  constructor(
    private readonly scene: Scene,
    private readonly model: Model,
    private readonly setting: Setting,
  ) {}

  private get now(): number {
    return this.scene.now;
  }

  private complain(what: string): void {
    this.scene.complain(what);
  }

  judge(
    victim: Member | undefined,
    { managerId, userId, reason, level, trigger, evidence }: EvictedEvent,
  ): void {
    if (!victim) {
      this.complain(`evicted without having been there: ${managerId}`);
      return;
    }
    const name = `${nameOf(victim)} (${reason}, ${evidence.signal}, ${trigger} ${level})`;
    if (this.scene.isQuiet && victim.sockets.length > 0 && reason !== 'idle')
      this.complain(`${name} went in a quiet network`);
    const { idleTimeout } = this.setting;
    // Who came back since, and has died or stayed away, is another matter.
    if (reason !== 'evicted' && reason !== 'idle') this.model.barred.delete(`${userId} ${victim.key}`);
    switch (reason) {
      case 'inactive':
        this.checkInactive(victim, name, trigger === 'admission' || level === 'force', level);
        return;
      case 'no_pong':
        if (evidence.signal === 'missed_probe') this.checkSuspect(victim, name, userId, trigger);
        else this.checkDead(victim, name, evidence);
        return;
      case 'idle':
        if (idleTimeout === undefined || this.now - victim.activeAt < idleTimeout || victim.busy > 0)
          this.complain(`${name} was not idle for so long`);
        return;
      case 'evicted':
        if (victim.key !== undefined)
          this.model.barred.set(`${userId} ${victim.key}`, { at: this.now, promisedAt: undefined });
        if (trigger !== 'manual') this.checkLivingVictim(victim, name, userId, level, evidence.signal);
        return;
      default:
        this.complain(`${name} was evicted`);
    }
  }

  private checkDead(victim: Member, name: string, { signal }: Evidence): void {
    if (this.model.isResponding(victim, this.now, this.model.patienceMs)) this.complain(`${name} answers`);
    for (const socket of victim.sockets) this.checkProof(victim, socket, signal);
  }

  /** Promise 3: nothing but what the wire proves. */
  checkProof(member: Member, socket: HistorySocket, signal: string): void {
    const { now, hasStalled } = this.scene;
    if (signal === 'is_alive' && !member.wasDenied) this.complain(`${nameOf(member)} was denied by nothing`);
    if (signal === 'missed_probe') this.complain(`${nameOf(member)} was taken for dead for a missed probe`);
    const reason = this.model.unproven(socket, signal, now, hasStalled);
    if (reason) this.complain(`${nameOf(member)} was taken for dead (${signal}): ${reason}`);
  }

  /** Only for an incoming connection, and of those that are live only one. */
  private checkSuspect(victim: Member, name: string, user: string, trigger: EvictedEvent['trigger']): void {
    const { model, now } = this;
    if (trigger === 'manual') return;
    if (trigger !== 'admission') this.complain(`${name} was only a suspect`);
    if (!model.isSuspect(victim)) this.complain(`${name} was no suspect`);
    if (model.isResponding(victim, now, model.probePatienceMs)) this.complain(`${name} answers probes`);
    const others = model.of(user);
    if (!this.scene.waiting.some((one) => one.user === user))
      this.complain(`${name} was evicted for no incoming connection`);
    for (const other of others) {
      const status = model.status(other, now);
      if (status === 'zombie' || status === 'inactive')
        this.complain(`${name} was only a suspect, and ${nameOf(other)} is ${status}`);
    }
    for (const other of others)
      if (model.isSuspect(other) && !model.mayGoBefore(victim, other))
        this.complain(`${name} went before ${nameOf(other)}`);
    if (this.suspectsGone.has(user))
      this.complain(`${name} is the second suspect that is evicted for one incoming connection`);
    this.suspectsGone.add(user);
    if (!model.isLive(victim, now)) return;
    this.scene.noteLiveSuspect();
    if (this.roomMade.has(user))
      this.complain(`${name} is the second live session that is evicted for one incoming connection`);
    this.roomMade.set(user, now);
  }

  private checkInactive(
    victim: Member,
    name: string,
    isAsked: boolean,
    level = 'conservative' as EvictedEvent['level'],
  ): void {
    const since = this.model.inactiveSince(victim);
    const share = SHARE_OF_WINDOW[level ?? 'conservative'];
    const windowMs = isAsked ? 0 : share * this.model.windowOf(victim);
    if (since === undefined || this.now < since + windowMs)
      this.complain(`${name} was not inactive for so long`);
  }

  /** Promise 3, at the limit. */
  private checkLivingVictim(
    victim: Member,
    name: string,
    user: string,
    level: EvictedEvent['level'],
    signal: string,
  ): void {
    const { model, now } = this;
    const others = model.of(user);
    const isNodeFull = this.setting.perNode !== undefined;
    // For whom it went cannot be told from here: one must fit.
    const asked = this.scene.waiting.filter((one) => one.user === user);
    const isFull = asked.some(({ limit = 0 }) => others.length + 1 >= limit);
    if (!isFull && !isNodeFull) this.complain(`${name} went, which leaves ${user} ${others.length}`);
    if (this.roomMade.has(user)) this.complain(`${name} is the second to go for one newcomer`);
    this.roomMade.set(user, now);
    this.evictedLiving++;
    const arrival = this.scene.waiting.find((one) => one.user === user);
    if (!arrival) {
      this.complain(`${name} went for nobody`);
      return;
    }
    if (model.tokens(user, now) < 1 - 1e-6) this.complain(`${name} is beyond the budget`);
    // Whose turn it is cannot be told from here, where several wait.
    const served = this.scene.waiting.filter((one) => one.user === user);
    if (!served.some(({ key }) => model.mayEvict(user, key, now)))
      this.complain(`${name} went for a session that is barred`);
    model.evictions.set(user, [...(model.evictions.get(user) ?? []), now]);
    if (model.inactiveSince(victim) !== undefined && model.status(victim, now) === 'inactive')
      this.complain(`${name} was absent, and went on the living's account`);
    if (signal !== 'idle' && now - victim.createdAt < this.setting.grace)
      this.complain(`${name} is in its grace`);
    const all = [...others, victim];
    const first =
      signal === 'idle' ? model.longestIdle(all, now, level === 'moderate') : model.leastValuable(all, now);
    if (!first.includes(victim)) this.complain(`${name} went before ${first.map(nameOf).join(' or ')}`);
    const suspect = level === 'moderate' ? undefined : others.find((other) => model.isSuspect(other));
    if (suspect) this.complain(`${name} went before ${nameOf(suspect)}, a suspect`);
    if (model.isIdle(victim, now)) return;
    for (const other of others) {
      const status = model.status(other, now);
      if (status === 'inactive' || status === 'zombie' || model.isSuspect(other))
        this.complain(`${name} was in use, and ${nameOf(other)} is ${status}`);
      if (model.isDeadSince(other, arrival.at))
        this.complain(`${name} was in use, and ${nameOf(other)} dead`);
    }
  }
}
