/** Something that can wait in a {@link DueQueue}. The queue owns the field; start it at {@link NOT_QUEUED}. */
export interface Due {
  dueTick: number;
}

export const NOT_QUEUED = -1;

/**
 * Who is due when, in O(1) for each entry and move, whatever the number waiting.
 *
 * A calendar of buckets `granularityMs` wide, made when the first item falls into them and dropped when
 * they empty. An item waits in at most one bucket, and never comes up before its time.
 */
export class DueQueue<T extends Due> {
  private readonly buckets = new Map<number, Set<T>>();
  private nextTick: number;

  constructor(
    private readonly granularityMs: number,
    now: number,
  ) {
    this.nextTick = Math.floor(now / granularityMs) + 1;
  }

  /** Items waiting. */
  get size(): number {
    let size = 0;
    for (const bucket of this.buckets.values()) size += bucket.size;
    return size;
  }

  /** Puts the item down for `at`, or moves it there. @returns when it will come up: then, or a little later. */
  schedule(item: T, at: number): number {
    const tick = Math.max(Math.ceil(at / this.granularityMs), this.nextTick);
    if (item.dueTick !== tick) {
      this.cancel(item);
      item.dueTick = tick;
      const bucket = this.buckets.get(tick);
      if (bucket) bucket.add(item);
      else this.buckets.set(tick, new Set([item]));
    }
    return tick * this.granularityMs;
  }

  /** When the next item comes up, if that is before `until`. */
  nextDue(until: number): number | undefined {
    const last = Math.floor(until / this.granularityMs);
    if (last - this.nextTick < this.buckets.size) {
      for (let tick = this.nextTick; tick <= last; tick++) {
        if (this.buckets.has(tick)) return tick * this.granularityMs;
      }
      return undefined;
    }
    let next = Number.POSITIVE_INFINITY;
    for (const tick of this.buckets.keys()) if (tick >= this.nextTick) next = Math.min(next, tick);
    return next <= last ? next * this.granularityMs : undefined;
  }

  cancel(item: T): void {
    if (item.dueTick === NOT_QUEUED) return;
    const bucket = this.buckets.get(item.dueTick);
    bucket?.delete(item);
    if (bucket?.size === 0) this.buckets.delete(item.dueTick);
    item.dueTick = NOT_QUEUED;
  }

  /** Hands over, in order, what is due at `now`. Items may be scheduled again from within `onDue`. */
  advance(now: number, onDue: (item: T) => void): void {
    const last = Math.floor(now / this.granularityMs);
    const first = this.nextTick;
    if (last < first) return;
    // Before the first hand-over: what is put down again while we walk belongs to a later advance.
    this.nextTick = last + 1;
    if (last - first < this.buckets.size) {
      for (let tick = first; tick <= last; tick++) this.empty(tick, onDue);
      return;
    }
    // After a long stall there may be far more ticks than buckets.
    const ticks = [...this.buckets.keys()].filter((tick) => tick <= last);
    for (const tick of ticks.sort((a, b) => a - b)) this.empty(tick, onDue);
  }

  /** What one item cancels or moves must not come up: each is taken out of the bucket as it is its turn. */
  private empty(tick: number, onDue: (item: T) => void): void {
    for (const item of this.buckets.get(tick) ?? NOTHING) {
      this.cancel(item);
      onDue(item);
    }
  }
}

const NOTHING: readonly never[] = [];

/** First in, first out, in O(1) however many wait. An array's own `shift` moves all that are behind. */
export class Fifo<T> {
  private items: (T | undefined)[] = [];
  private head = 0;

  get size(): number {
    return this.items.length - this.head;
  }

  get first(): T | undefined {
    return this.items[this.head];
  }

  push(item: T): void {
    this.items.push(item);
  }

  /** Puts the item before all others. */
  unshift(item: T): void {
    if (this.head > 0) this.items[--this.head] = item;
    else this.items.unshift(item);
  }

  shift(): T | undefined {
    if (this.size === 0) return undefined;
    const item = this.items[this.head];
    this.items[this.head++] = undefined;
    if (this.size === 0) {
      this.items = [];
      this.head = 0;
    } else if (this.head >= COMPACT_FROM && this.head >= this.items.length / 2) {
      this.items = this.items.slice(this.head);
      this.head = 0;
    }
    return item;
  }
}

/** Fewer items that have been taken out are not worth a copy of the rest. */
const COMPACT_FROM = 1_024;
