import type { Connection } from '../manager/connection.js';
import { LOOKS_PER_INTERVAL } from './assessment.js';

/** A turn of the wheel is cut into this many slots, fewer where they would be shorter than a timer can keep. */
const MOST_SLOTS = 32;
const SHORTEST_TICK_MS = 25;

/**
 * Spreads the looks at all connections evenly over time: each connection sits in one slot, and each tick
 * visits one slot. A turn takes a quarter of the heartbeat interval.
 */
export class HeartbeatWheel {
  readonly tickMs: number;
  private readonly slots: Connection[][];
  private cursor = 0;
  private size = 0;
  /** Full turns so far. */
  turn = 0;

  constructor(intervalMs: number) {
    const turnMs = intervalMs / LOOKS_PER_INTERVAL;
    const count = Math.max(1, Math.min(MOST_SLOTS, Math.floor(turnMs / SHORTEST_TICK_MS)));
    this.tickMs = turnMs / count;
    this.slots = Array.from({ length: count }, () => []);
  }

  get slotCount(): number {
    return this.slots.length;
  }

  /**
   * Puts a connection into the slot that comes up `inTicks` from now, or into a later one of the same turn where
   * that is crowded: ten thousand that come back together after a restart are not to be pinged together.
   */
  add(connection: Connection, inTicks: number): void {
    const count = this.slots.length;
    const crowded = 16 + (2 * this.size) / count;
    let slot = (this.cursor + Math.max(1, inTicks)) % count;
    // There is one that is not: so many is more than twice the average.
    while ((this.slots[slot] as Connection[]).length > crowded) slot = (slot + 1) % count;
    const members = this.slots[slot] as Connection[];
    connection.liveness.slot = slot;
    connection.liveness.position = members.length;
    members.push(connection);
    this.size++;
  }

  remove(connection: Connection): void {
    const { slot, position } = connection.liveness;
    if (slot < 0) return;
    const members = this.slots[slot] as Connection[];
    const last = members.pop() as Connection;
    if (last !== connection) {
      members[position] = last;
      last.liveness.position = position;
    }
    connection.liveness.slot = -1;
    this.size--;
  }

  /** Moves on by one slot and visits its connections, each once; a visit may remove any of them. */
  advance(visit: (connection: Connection) => void): void {
    this.cursor = (this.cursor + 1) % this.slots.length;
    if (this.cursor === 0) this.turn++;
    for (const connection of [...(this.slots[this.cursor] as Connection[])]) {
      if (connection.liveness.slot === this.cursor) visit(connection);
    }
  }
}
