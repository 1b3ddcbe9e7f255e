import type { SlotReply, SlotRequest, SlotStore, SlotStoreHost } from '../options/slot-store.interface.js';

/**
 * Counts the slots of one process, by looking: the user's managers are the slots. There is no second number that
 * could drift from the first, and so no slot that could stay taken by nobody.
 */
export class MemorySlotStore implements SlotStore {
  readonly name = 'memory';
  private host: SlotStoreHost | undefined;

  attach(host: SlotStoreHost): void {
    this.host = host;
  }

  reserve({ userId, limit }: SlotRequest): SlotReply {
    const count = this.host?.countOf(userId) ?? 0;
    return count < limit ? { granted: true, count: count + 1 } : { granted: false, count, elsewhere: [] };
  }

  release(): void {
    // The manager is gone from the registry already, and that was the slot.
  }

  leave(): void {
    // Nobody else counts what this process held.
  }
}
