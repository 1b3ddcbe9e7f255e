import { Inject, Injectable } from '@nestjs/common';
import { Clock, type TimerHandle } from '../clock/clock.js';
import { EventStream } from '../events/event-stream.js';
import { NodeCounters } from '../events/node-counters.js';
import { type Connection, SLOWEST_BYTES_PER_SECOND } from '../manager/connection.js';
import { ManagerRegistry } from '../manager/manager-registry.js';
import { RESOLVED_OPTIONS, type ResolvedOptions } from '../options/websocket-manager-options.interface.js';
import { LOOKS_PER_INTERVAL } from './assessment.js';
import { HeartbeatWheel } from './heartbeat-wheel.js';
import { SelfPreservation } from './self-preservation.js';

/** The first ping of a connection, to find the dead on arrival. */
const FIRST_PING_MS = 2_000;
/** ... or this share of a shorter interval. */
const FIRST_PING_SHARE = 0.75;
/** A tick later than this, or than this share of a tick, says that our own event loop stood still. */
const LATE_MS = 100;
const LATE_SHARE = 0.125;
/** So many looks, of which every fourth is a ping as a rule, take a few milliseconds. */
const LOOKS_AT_ONCE = 250;
/** The next look without a byte is the one that pings. */
const LAST_QUIET_LOOK = LOOKS_PER_INTERVAL - 2;
/** Who is next in the wheel is looked at so long after a late tick, or a tick, whichever is shorter. */
const AFTER_VOID_MS = 100;
/** Late ticks in a row after which the next one counts, or a node that is always late would never judge. */
const MOST_VOIDS = 3;

/**
 * Asks every silent connection whether somebody is there, and counts what is not answered.
 *
 * A connection is looked at four times an interval. New bytes are life, and cost no ping. After four looks
 * without any it is pinged; a ping has three looks to be answered before it counts as missed, and the next one
 * follows at the fourth. So `missedBeforeZombie` are counted at most
 * `(missedBeforeZombie + 1) x intervalMs - intervalMs / 4` after the last byte.
 *
 * Silence is counted in looks on ticks that ran on time, never in clock time: a tick that comes late looks at nobody,
 * and the next one follows soon, so that what waits in the sockets is read before anybody is judged. The beat goes on
 * meanwhile, so that ticks which are often a little late find the dead no later.
 */
@Injectable()
export class Heartbeat {
  private readonly wheel: HeartbeatWheel;
  private readonly preservation: SelfPreservation;
  private readonly tickListeners: ((now: number) => void)[] = [];
  private timer: TimerHandle | undefined;
  /** When the timer is to fire. */
  private nextTick = Number.NEGATIVE_INFINITY;
  /** When the next slot is due by the beat, which goes on whatever happens to the ticks. */
  private nextSlotAt = 0;
  /** Set where the listeners are to be called before the next tick. */
  private waker: TimerHandle | undefined;
  private wakesAt = Number.POSITIVE_INFINITY;
  private voidsInARow = 0;
  /** The connections of the slot that is being looked at, and how many of them have been. */
  private slot: readonly Connection[] = NOBODY;
  private seen = 0;
  /** Those of them of whom there is something that may be proof. */
  private readonly accused: Connection[] = [];
  private tickedAt: number;
  private visitor: HeartbeatVisitor | undefined;
  /** What the slowest live peer reads between two looks. */
  private readonly readInOneLook: number;

  constructor(
    private readonly clock: Clock,
    private readonly registry: ManagerRegistry,
    private readonly events: EventStream,
    private readonly counters: NodeCounters,
    @Inject(RESOLVED_OPTIONS) private readonly options: ResolvedOptions,
  ) {
    const { intervalMs } = options.heartbeat;
    this.wheel = new HeartbeatWheel(intervalMs);
    this.preservation = new SelfPreservation(
      intervalMs,
      this.wheel.slotCount,
      (active, silent, connections) =>
        this.events.report({ type: 'self_preservation', active, silent, connections }),
    );
    this.readInOneLook = (SLOWEST_BYTES_PER_SECOND * intervalMs) / LOOKS_PER_INTERVAL / 1_000;
    this.tickedAt = clock.now();
    registry.observe({
      connectionAdded: (connection) => this.add(connection),
      connectionRemoved: (connection) => this.wheel.remove(connection),
    });
  }

  /** Most of the node fell silent at once: nobody is ended in the background for being silent. */
  get isSelfPreserving(): boolean {
    return this.preservation.isActive;
  }

  /** Milliseconds since the heartbeat last came round. */
  get sinceLastTickMs(): number {
    return this.clock.now() - this.tickedAt;
  }

  get tickMs(): number {
    return this.wheel.tickMs;
  }

  /** When it comes round next; before it is started, long ago. */
  get nextTickAt(): number {
    return this.nextTick;
  }

  /** Calls back on every tick, late or not, with the time. For whatever is due by the clock. */
  onTick(listener: (now: number) => void): void {
    this.tickListeners.push(listener);
  }

  /** Calls the listeners by then, where the next tick would come later. */
  wakeBy(at: number): void {
    if (at >= this.nextTick || at >= this.wakesAt) return;
    this.clock.clearTimeout(this.waker);
    this.wakesAt = at;
    this.waker = this.clock.setTimeout(
      () => {
        this.wakesAt = Number.POSITIVE_INFINITY;
        this.tellListeners(this.clock.now());
      },
      Math.max(1, Math.ceil(at - this.clock.now())),
    );
  }

  /** A connection that answered the heartbeat so far has missed a probe: that is silence as well. */
  noteSuspect({ missedPongs }: Connection): void {
    if (missedPongs === 0) this.preservation.noteSilence();
  }

  /** A probe has pinged the connection: that is the first ping of the heartbeat, and the next look's ping repeats it. */
  noteProbe(connection: Connection): void {
    connection.quietLooks = Math.max(connection.quietLooks, LAST_QUIET_LOOK);
  }

  start(visitor: HeartbeatVisitor): void {
    this.visitor = visitor;
    this.nextSlotAt = this.clock.now() + this.wheel.tickMs;
    this.nextTick = this.nextSlotAt;
    this.sleep();
  }

  stop(): void {
    this.clock.clearTimeout(this.timer);
    this.timer = undefined;
    this.slot = NOBODY;
    this.clock.clearTimeout(this.waker);
    this.wakesAt = Number.POSITIVE_INFINITY;
    this.nextTick = Number.NEGATIVE_INFINITY;
  }

  private add(connection: Connection): void {
    const firstPingMs = Math.min(FIRST_PING_MS, FIRST_PING_SHARE * this.options.heartbeat.intervalMs);
    // Rather sooner than later: at most half a tick late.
    const ticks = Math.max(1, Math.round(firstPingMs / this.wheel.tickMs));
    const turnsBefore = Math.ceil(ticks / this.wheel.slotCount) - 1;
    // So many looks are to pass that the one at the first ping's time is the one that pings.
    connection.quietLooks = LAST_QUIET_LOOK - turnsBefore;
    connection.lead = this.wheel.add(connection, ticks) % LOOKS_PER_INTERVAL;
    // The beat is to be when it will be pinged: what the one touches is then at hand for the other.
    connection.looksToBeat = 1 + ((turnsBefore - connection.lead + LOOKS_PER_INTERVAL) % LOOKS_PER_INTERVAL);
  }

  private sleep(): void {
    const now = this.clock.now();
    // Who is behind, by work of its own too, catches up at the pace of the ticks: between two of them the peers have
    // their time.
    if (this.nextTick <= now) this.nextTick = now + this.wheel.tickMs;
    this.timer = this.clock.setTimeout(() => this.tick(), Math.ceil(this.nextTick - now));
  }

  private tick(): void {
    const now = this.clock.now();
    // Timers know whole milliseconds only, so some come before their tick.
    const isEarly = now < this.nextTick;
    if (!isEarly) this.tickedAt = now;
    try {
      if (!isEarly) this.comeRound(now);
    } finally {
      if (this.timer) this.sleep();
    }
    // Only now is it known when the next tick is, and what is due before it.
    if (!isEarly) this.tellListeners(now);
  }

  private comeRound(now: number): void {
    const { tickMs } = this.wheel;
    const mostLateMs = Math.max(LATE_MS, LATE_SHARE * tickMs);
    if (now - this.nextTick > mostLateMs && this.voidsInARow < MOST_VOIDS) {
      this.voidsInARow++;
      this.counters.eventLoopVoids++;
      this.nextTick = now + Math.min(tickMs, AFTER_VOID_MS);
      return;
    }
    this.voidsInARow = 0;
    this.turnWheel();
    // A timer that fires a little late every time must not slow the beat: catch up by one slot, no more.
    if (now >= this.nextSlotAt) this.turnWheel();
    // What a long stall has missed is not made up for.
    if (now - this.nextSlotAt > mostLateMs) this.nextSlotAt = now + tickMs;
    this.nextTick = this.nextSlotAt;
  }

  private turnWheel(): void {
    this.nextSlotAt += this.wheel.tickMs;
    // The machine has hardly kept up: who was not looked at since the last tick is now.
    while (this.slot !== NOBODY) this.lookAtSome();
    this.slot = this.wheel.advance();
    this.seen = 0;
    this.lookOn(this.slot);
  }

  /** In pieces: whoever talks meanwhile is not to wait until all of a slot have been asked. */
  private lookOn(slot: readonly Connection[]): void {
    if (slot !== this.slot) return;
    this.lookAtSome();
    if (slot === this.slot) this.clock.afterReads(() => this.lookOn(slot));
  }

  private lookAtSome(): void {
    const { slot } = this;
    const until = Math.min(this.seen + LOOKS_AT_ONCE, slot.length);
    while (this.seen < until) {
      const connection = slot[this.seen++] as Connection;
      // Somebody of the same slot may have ended it.
      if (connection.slot >= 0) this.look(connection);
    }
    if (this.seen === slot.length) this.leaveSlot();
  }

  /** Only now is it known how many of them are silent, and so whose fault that is. */
  private leaveSlot(): void {
    this.preservation.tick(this.clock.now(), this.registry.connectionCount);
    this.slot = NOBODY;
    for (const connection of this.accused.splice(0)) this.visitor?.noteProof(connection);
  }

  private tellListeners(now: number): void {
    for (const listener of this.tickListeners) listener(now);
  }

  private look(connection: Connection): void {
    connection.looksToBeat--;
    if (!connection.isCalm || connection.looksToBeat <= 0) {
      this.lookClosely(connection);
    } else if (!connection.bytesCame || !this.lookForBytes(connection)) {
      if (connection.quietLooks < LAST_QUIET_LOOK) connection.quietLooks++;
      else this.lookClosely(connection);
    }
  }

  private lookForBytes(connection: Connection): boolean {
    const wasPinged = connection.quietLooks === LAST_QUIET_LOOK + 1;
    if (!connection.lookForBytes()) return false;
    // From this look to the next one is a whole time.
    connection.stalledLooks = 0;
    if (wasPinged && connection.lead > 0) {
      // Its next ping comes before the interval is over, so that not all that came together are pinged together.
      connection.quietLooks = Math.min(connection.lead, LAST_QUIET_LOOK);
      connection.lead -= connection.quietLooks;
    }
    return true;
  }

  private lookClosely(connection: Connection): void {
    const { transport } = connection;
    if (transport.state !== 'open') {
      // A closing handshake takes a moment; one that is still under way at the next look has nobody at its end.
      if (transport.state === 'closed' || connection.closingSeen) this.accused.push(connection);
      connection.closingSeen = true;
      connection.isCalm = false;
      return;
    }
    // We are not reading, so silence says nothing.
    if (transport.paused) return;
    const wasHeard = this.lookForBytes(connection);
    connection.noteWritten(wasHeard ? this.readInOneLook : 0);
    if (!wasHeard) this.countSilence(connection);
    if (connection.detached) return;
    const { bufferedAmount } = transport;
    this.registry.noteBuffered(connection, bufferedAmount);
    if (bufferedAmount > 0) connection.checkBacklog();
    connection.isCalm =
      transport.isAttentive === true &&
      bufferedAmount === 0 &&
      connection.drainedSeen === undefined &&
      connection.missedPongs === 0 &&
      connection.unreadBytes < SLOWEST_BYTES_PER_SECOND;
    if (connection.looksToBeat > 0) return;
    connection.looksToBeat = LOOKS_PER_INTERVAL;
    this.visitor?.noteBeat(connection);
  }

  private countSilence(connection: Connection): void {
    const { transport } = connection;
    const { bytesQueued } = transport;
    if (bytesQueued === 0) {
      connection.stalledLooks = 0;
      connection.drainedSeen = undefined;
      this.countUnanswered(connection);
    } else {
      const drained = transport.bytesWritten - bytesQueued;
      const taken = connection.takenBytes;
      if (taken === connection.drainedSeen) connection.stalledLooks++;
      else connection.stalledLooks = 0;
      connection.drainedSeen = taken;
      // A ping that still waits in our own queue has asked nobody anything.
      if (drained >= connection.pingMark) this.countUnanswered(connection);
    }
    if (connection.missedPongs > 0 || connection.stalledLooks > 0) this.accused.push(connection);
  }

  private countUnanswered(connection: Connection): void {
    const phase = ++connection.quietLooks - (LOOKS_PER_INTERVAL - 1);
    if (phase % LOOKS_PER_INTERVAL === 0) connection.ping();
    if (phase % LOOKS_PER_INTERVAL !== LOOKS_PER_INTERVAL - 1) return;
    // One that missed a probe before has been counted then.
    if (++connection.missedPongs === 1 && connection.suspectedAt === undefined)
      this.preservation.noteSilence();
  }
}

const NOBODY: readonly never[] = [];

/** Who draws the conclusions. */
export interface HeartbeatVisitor {
  /** The connection was silent, or is no longer open: is that proof? */
  noteProof(connection: Connection): void;
  /** Once every interval, for every connection. */
  noteBeat(connection: Connection): void;
}
