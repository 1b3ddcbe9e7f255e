import type { Connection } from '../manager/connection.js';
import { LOOKS_PER_INTERVAL } from './assessment.js';

/**
 * A turn of the wheel is cut into five slots: fewer where they would be shorter than a timer can keep, more where they would
 * be so long that a first ping is not in time. Each tick wakes the process, and so do the answers that come in after it:
 * many small ticks cost more than a few in which much is done.
 */
const SLOTS = 5;
const SHORTEST_TICK_MS = 25;
const LONGEST_TICK_MS = 750;
const MOST_SLOTS = 400;
/** So many of those that come one after another go to one slot, where there is a choice. */
const RUN = 16;
/** A slot with more than this, by the average, is crowded. */
const CROWD = 1.25;

/**
 * Spreads the looks at all connections evenly over time: each connection sits in one slot, and each tick
 * visits one slot. A turn takes a quarter of the heartbeat interval.
 */
export class HeartbeatWheel {
  readonly tickMs: number;
  private readonly slots: Connection[][];
  private cursor = 0;
  private size = 0;
  /** Where newcomers go for the moment, how many more of them, and for which slot they have come. */
  private filling = 0;
  private room = 0;
  private wanted = -1;

  constructor(intervalMs: number) {
    const turnMs = intervalMs / LOOKS_PER_INTERVAL;
    const count = Math.min(
      Math.max(
        1,
        Math.min(SLOTS, Math.floor(turnMs / SHORTEST_TICK_MS)),
        Math.ceil(turnMs / LONGEST_TICK_MS),
      ),
      MOST_SLOTS,
    );
    this.tickMs = turnMs / count;
    this.slots = Array.from({ length: count }, () => []);
  }

  get slotCount(): number {
    return this.slots.length;
  }

  /**
   * Puts a connection into the slot that comes up `inTicks` from now, or into a later one of the same turn where
   * that is crowded: ten thousand that come back together after a restart are not to be pinged together. Who comes
   * one after another is visited one after another: their memory lies side by side.
   *
   * @returns how many such runs were in the slot before
   */
  add(connection: Connection, inTicks: number): number {
    const wanted = (this.cursor + inTicks) % this.slots.length;
    if (this.room === 0 || wanted !== this.wanted) this.fillAfter(wanted);
    this.room--;
    const members = this.slots[this.filling] as Connection[];
    connection.slot = this.filling;
    connection.position = members.length;
    members.push(connection);
    this.size++;
    return Math.floor(connection.position / RUN);
  }

  /** Looks for a slot that is not crowded, from the wanted one on. */
  private fillAfter(wanted: number): void {
    const count = this.slots.length;
    const crowded = Math.max(RUN, (CROWD * this.size) / count);
    this.wanted = wanted;
    this.filling = wanted;
    this.room = RUN;
    // There is one that is not: so many is more than the average.
    while ((this.slots[this.filling] as Connection[]).length > crowded)
      this.filling = (this.filling + 1) % count;
  }

  remove(connection: Connection): void {
    const { slot, position } = connection;
    if (slot < 0) return;
    const members = this.slots[slot] as Connection[];
    const last = members.pop() as Connection;
    if (last !== connection) {
      members[position] = last;
      last.position = position;
    }
    connection.slot = -1;
    this.size--;
  }

  /** Moves on by one slot. @returns its connections as they are now; who is removed later has no slot any more. */
  advance(): readonly Connection[] {
    this.cursor = (this.cursor + 1) % this.slots.length;
    return [...(this.slots[this.cursor] as Connection[])];
  }
}
