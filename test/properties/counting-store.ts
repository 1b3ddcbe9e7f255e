import type { SlotReply, SlotRequest } from '../../src/options/slot-store.interface.js';
import { MemorySlotStore } from '../../src/store/memory-slot-store.js';

/** The real one, with a note of what was taken and given back. */
export class CountingStore extends MemorySlotStore {
  readonly taken = new Map<string, number>();

  override reserve(request: SlotRequest): SlotReply {
    const reply = super.reserve(request);
    if (reply.granted) this.taken.set(request.managerId, (this.taken.get(request.managerId) ?? 0) + 1);
    return reply;
  }

  override release(_userId?: string, managerId = ''): void {
    this.taken.set(managerId, (this.taken.get(managerId) ?? 0) - 1);
  }
}
