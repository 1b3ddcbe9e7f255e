import type {
  SlotReply,
  SlotRequest,
  SlotStore,
  SlotStoreHost,
} from '../../src/options/slot-store.interface.js';
import type { FakeClock } from '../../src/testing/index.js';

/** A store in memory that answers as late, and as badly, as it is told to. */
export class ScriptedStore implements SlotStore {
  readonly name = 'scripted';
  /** Milliseconds until an answer; undefined: at once, synchronously. */
  delayMs: number | undefined = 5;
  failsWith: Error | undefined;
  /** It throws, instead of rejecting. */
  throws = false;
  readonly slots = new Map<string, Set<string>>();
  readonly calls: string[] = [];
  host: SlotStoreHost | undefined;

  constructor(private readonly clock: FakeClock) {}

  attach(host: SlotStoreHost): void | Promise<void> {
    this.host = host;
    return this.answer('attach', () => {});
  }

  reserve({ userId, managerId, limit }: SlotRequest): SlotReply | Promise<SlotReply> {
    return this.answer('reserve', () => {
      const held = this.heldBy(userId);
      if (!held.has(managerId) && held.size >= limit)
        return { granted: false, count: held.size, elsewhere: [] };
      held.add(managerId);
      return { granted: true, count: held.size };
    });
  }

  release(userId: string, managerId: string): void | Promise<void> {
    return this.answer('release', () => {
      this.heldBy(userId).delete(managerId);
    });
  }

  leave(): void | Promise<void> {
    return this.answer('leave', () => this.slots.clear());
  }

  heldBy(userId: string): Set<string> {
    const held = this.slots.get(userId) ?? new Set<string>();
    this.slots.set(userId, held);
    return held;
  }

  private answer<T>(call: string, decide: () => T): T | Promise<T> {
    this.calls.push(call);
    const { delayMs, failsWith } = this;
    if (failsWith && this.throws) throw failsWith;
    if (delayMs === undefined && !failsWith) return decide();
    return new Promise((resolve, reject) => {
      this.clock.io(() => (failsWith ? reject(failsWith) : resolve(decide())), delayMs ?? 0);
    });
  }
}
