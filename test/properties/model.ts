import { type AssessmentRules, proofOf } from '../../src/liveness/assessment.js';
import type { Manager } from '../../src/manager/manager.js';
import type { Check } from './history.js';
import { type HistorySocket, ScriptedSocket } from './scripted-socket.js';
import type { Setting } from './setting.js';

/** A session as the history tells it. Only what the wire alone can show is looked up in the connection. */
export interface Member {
  readonly id: string;
  readonly user: string;
  readonly key: string | undefined;
  readonly priority: number;
  readonly createdAt: number;
  readonly manager: Manager;
  activeAt: number;
  /** When the last connection left; undefined while there is one, or before the first. */
  leftAt: number | undefined;
  busy: number;
  check: Check | undefined;
  /** When its own check last said that somebody is there. */
  vouchedAt: number;
  /** Its own check has said that nobody is there; that stands until it says something else. */
  wasDenied: boolean;
  sockets: HistorySocket[];
}

export type Status = 'healthy' | 'idle' | 'zombie' | 'inactive' | 'unknown';

const BARRED_MS = 60_000;
/** Output under way extends the time for an answer: a second for each so many bytes, up to the most. */
const BYTES_PER_SECOND = 16 * 1_024;
const MOST_EXTENSION_MS = 60_000;
const MOST_UNREAD = 60 * BYTES_PER_SECOND;
/** Timers know whole milliseconds only. */
const ROUNDING_MS = 3;
/** A heartbeat may be so late, or a share of its tick, and count as one in time. */
const LATE_MS = 100;
const LATE_SHARE_OF_INTERVAL = 1 / 64;

/**
 * The rules once more, from the contract, without an index, a queue, or any thought for cost: lists are walked,
 * and what follows from something else is worked out again whenever it is asked for.
 */
export class Model {
  members: Member[] = [];
  /** When each user's living sessions were asked to leave, oldest first. */
  readonly evictions = new Map<string, number[]>();
  /** By user and key: when it was evicted while alive, and when it was told to come back. */
  readonly barred = new Map<string, { at: number; promisedAt: number | undefined }>();

  private readonly rules: AssessmentRules;

  constructor(private readonly setting: Setting) {
    this.rules = {
      idleAfterMs: setting.idle,
      graceMs: setting.grace,
      resumeWindowMs: setting.window,
      missedBeforeZombie: setting.missed,
      lookMs: setting.interval / 4,
      maxBufferedBytes: setting.buffered,
    };
  }

  of(user: string): Member[] {
    return this.members.filter((member) => member.user === user);
  }

  inactiveSince(member: Member): number | undefined {
    if (member.sockets.length > 0) return undefined;
    return member.leftAt ?? member.createdAt + Math.max(this.setting.grace, 100);
  }

  windowOf(member: Member): number {
    return member.key === undefined ? 0 : this.setting.window;
  }

  status(member: Member, now: number): Status {
    const inactiveSince = this.inactiveSince(member);
    if (inactiveSince !== undefined) return now >= inactiveSince ? 'inactive' : 'unknown';
    if (member.sockets.every((socket) => this.isProven(socket))) return 'zombie';
    if (!member.sockets.some(({ connection }) => connection.confirmed)) return 'unknown';
    return this.isIdle(member, now) ? 'idle' : 'healthy';
  }

  isIdle(member: Member, now: number): boolean {
    return now - member.activeAt >= this.setting.idle;
  }

  /** As the code has found; {@link unproven} is what the wire says of it. */
  isProven(socket: HistorySocket): boolean {
    return socket.state !== 'open' || proofOf(socket.connection, this.rules) !== undefined;
  }

  /** How long an answer to a ping may take, without output. */
  get patienceMs(): number {
    const { missed, interval } = this.setting;
    return missed * interval - interval / 4;
  }

  /** How long a connection that never becomes a suspect may take. */
  get probePatienceMs(): number {
    const { probe, interval } = this.setting;
    return Math.min(probe, 0.75 * interval - 60) + LATE_MS;
  }

  /** Whether this one of the suspects may go before the other. */
  mayGoBefore(one: Member, other: Member): boolean {
    const [ofOne, ofOther] = [this.outputUnderWay(one), this.outputUnderWay(other)];
    if (ofOne === 'unknown' || ofOther === 'unknown') return true;
    return ofOne === ofOther ? silentSince(one) <= silentSince(other) : ofOther;
  }

  /**
   * Whether a connection that is not proven dead has output that nothing has come in after. What was sent before may be
   * unread as well; how much is a guess of the code's.
   */
  private outputUnderWay({ sockets }: Member): boolean | 'unknown' {
    const open = sockets.filter((socket) => !this.isProven(socket));
    if (open.some(({ record }) => record.outputSinceHeard > 0)) return true;
    const isGuessed = open.some(
      ({ connection }) => connection.hasUnacknowledgedOutput || connection.unreadBytes >= BYTES_PER_SECOND,
    );
    return isGuessed ? 'unknown' : false;
  }

  /** When the oldest open ping has to be answered; undefined: there is none. */
  deadlineOf({ record }: HistorySocket): number | undefined {
    const [first] = record.openPings;
    return first && first.at + this.patienceMs + extensionMs(record.outputSinceHeard);
  }

  /**
   * Why the connection may not be taken for dead on this evidence, by promise 3 and by the wire alone; undefined: it may.
   * After a stall a heartbeat that was a little late may have looked at output that moved since the one before.
   */
  unproven(socket: HistorySocket, signal: string, now: number, hasStalled: boolean): string | undefined {
    const lateMs = hasStalled ? Math.max(LATE_MS, LATE_SHARE_OF_INTERVAL * this.setting.interval) : 0;
    const { record, movedAt } = socket;
    const [first] = record.openPings;
    const deadline = this.deadlineOf(socket);
    if (signal === 'missed_pongs' || signal === 'never_completed') {
      if (!first || deadline === undefined) return 'no ping is open';
      if (now < deadline - ROUNDING_MS) return `${deadline - now} ms before its deadline`;
    } else if (signal === 'stalled_output') {
      if (movedAt === undefined) return 'nothing waits';
      const stillMs = now - Math.max(movedAt, record.heardAt);
      if (stillMs < 2 * this.setting.interval - ROUNDING_MS - lateMs)
        return `its output moved ${stillMs} ms ago`;
    } else {
      return undefined;
    }
    if (!first || deadline === undefined) return undefined;
    const answerAt = socket.answerAt(first.mark);
    if (answerAt <= deadline - ROUNDING_MS) return `it would answer in ${answerAt - now} ms, in time`;
    // A peer that has always read so much a second has no more than this in front of the ping.
    if (first.underWay > Math.min(first.mostUnread, MOST_UNREAD)) return undefined;
    const inTime = first.at + this.patienceMs + secondsFor(first.underWay) - ROUNDING_MS;
    if (answerAt <= inTime)
      return `it reads ${first.underWay} bytes, and would answer in ${answerAt - now} ms`;
    return undefined;
  }

  /** A connection is there that answers within the heartbeat's patience, as far as the wire tells. */
  isLive(member: Member, now: number): boolean {
    return (
      !member.wasDenied &&
      member.sockets.some((socket) => {
        if (socket.state !== 'open' || socket.deadSince !== undefined) return false;
        const [first] = socket.record.openPings;
        const deadline = this.deadlineOf(socket) ?? now + this.patienceMs;
        return socket.answerAt(first?.mark) <= deadline;
      })
    );
  }

  isSuspect(member: Member): boolean {
    return member.sockets.length > 0 && member.sockets.every((socket) => isAccused(socket, this));
  }

  /** Everybody of the session has been gone at least since then, whatever we know of it. */
  isDeadSince(member: Member, time: number): boolean {
    const mayBeVouchedFor = member.vouchedAt >= time || member.check === 'late';
    return (
      member.sockets.length > 0 &&
      member.sockets.every(({ deadSince, state, connection }) => {
        if (deadSince === undefined || deadSince > time || connection.openedAt >= time) return false;
        return state === 'closed' || !mayBeVouchedFor;
      })
    );
  }

  /** A connection is there that answers within every deadline, and has been for long enough to be heard. */
  isResponding(member: Member, now: number, patienceMs: number): boolean {
    return (
      !member.wasDenied &&
      member.sockets.some(
        (socket) =>
          socket instanceof ScriptedSocket &&
          socket.state === 'open' &&
          !socket.isStuck &&
          socket.delayMs !== undefined &&
          socket.delayMs <= patienceMs - LATE_MS &&
          now - socket.changedAt > socket.delayMs + 1,
      )
    );
  }

  /** A bucket filled at first, one drop in each refill time; worked out from the beginning each time. */
  tokens(user: string, now: number): number {
    const { burst, refill } = this.setting;
    let tokens = burst;
    let before = Number.NEGATIVE_INFINITY;
    for (const at of this.evictions.get(user) ?? []) {
      tokens = Math.min(burst, tokens + (at - before) / refill) - 1;
      before = at;
    }
    return Math.min(burst, tokens + (now - before) / refill);
  }

  mayEvict(user: string, key: string | undefined, now: number): boolean {
    const bar = this.barred.get(`${user} ${key}`);
    if (key === undefined || !bar) return true;
    return now - bar.at >= BARRED_MS || (bar.promisedAt !== undefined && now >= bar.promisedAt);
  }

  /** What a newcomer is to be told, before rounding up. */
  waitMs(user: string, key: string | undefined, limit: number, now: number): number {
    const { grace, refill } = this.setting;
    // Above a lowered limit so many may end, and nobody can come for it.
    const [outOfGrace = now] = this.of(user)
      .map(({ createdAt }) => createdAt + grace)
      .sort((a, b) => a - b)
      .slice(Math.max(0, this.of(user).length - limit));
    const waits = [(1 - this.tokens(user, now)) * refill, outOfGrace - now, 0];
    if (!this.mayEvict(user, key, now)) waits.push(refill);
    return Math.max(...waits);
  }

  /** Why a newcomer that was not let in should have been; undefined: rightly so. */
  whoCouldGo(user: string, key: string | undefined, arrivedAt: number, now: number): string | undefined {
    const members = this.of(user);
    for (const member of members) {
      const status = this.status(member, now);
      if (status === 'inactive' || status === 'zombie') return `${nameOf(member)} is ${status}`;
      if (this.isSuspect(member)) return `${nameOf(member)} is a suspect`;
      if (this.isDeadSince(member, arrivedAt)) return `${nameOf(member)} has been dead since it came`;
    }
    // Whether it is barred is asked once, when its turn comes.
    if (this.tokens(user, now) < 1 - 1e-6 || !this.mayEvict(user, key, arrivedAt)) return undefined;
    for (const member of members) {
      if (this.status(member, now) === 'idle') return `${nameOf(member)} is idle`;
      if (now - member.createdAt >= this.setting.grace) return `${nameOf(member)} is out of its grace`;
    }
    return undefined;
  }

  /** Whoever may be the first to go at the level `force`; more than one where nothing tells them apart. */
  leastValuable(members: readonly Member[], now: number): Member[] {
    let left = members.filter(({ createdAt }) => now - createdAt >= this.setting.grace);
    left = least(left, ({ priority }) => priority);
    left = least(left, (member) => (this.status(member, now) === 'idle' ? 0 : 1));
    left = least(left, ({ busy }) => (busy > 0 ? 1 : 0));
    left = least(left, ({ activeAt }) => activeAt);
    return least(left, ({ createdAt }) => createdAt);
  }

  /** Whoever may be the first of the idle to go; suspects go on their own account. */
  longestIdle(members: readonly Member[], now: number, isModerate: boolean): Member[] {
    let left = members.filter((member) => this.status(member, now) === 'idle');
    left = isModerate
      ? left.filter(({ activeAt }) => now - activeAt >= 2 * this.setting.idle)
      : left.filter((member) => !this.isSuspect(member));
    left = least(left, ({ busy }) => (busy > 0 ? 1 : 0));
    return least(left, ({ activeAt }) => activeAt);
  }
}

export function nameOf(member: Member): string {
  return `${member.user}'s ${member.key === undefined ? member.id.slice(0, 6) : `session ${member.key}`}`;
}

function silentSince({ manager, sockets }: Member): number {
  return Math.max(manager.lastHeardAt ?? 0, ...sockets.map(({ connection }) => connection.lastHeardAt));
}

function isAccused(socket: HistorySocket, model: Model): boolean {
  const { connection } = socket;
  // A byte that nobody has looked at yet acquits.
  const isSilent = connection.bytesSeen === socket.bytesRead;
  return model.isProven(socket) || (connection.suspectedAt !== undefined && isSilent);
}

function secondsFor(bytes: number): number {
  return (bytes / BYTES_PER_SECOND) * 1_000;
}

/** A second for each whole 16 KiB. */
function extensionMs(bytes: number): number {
  return Math.min(MOST_EXTENSION_MS, Math.floor(bytes / BYTES_PER_SECOND) * 1_000);
}

function least(members: readonly Member[], of: (member: Member) => number): Member[] {
  const smallest = Math.min(...members.map(of));
  return members.filter((member) => of(member) === smallest);
}
