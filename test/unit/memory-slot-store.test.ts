import { describe, expect, it } from 'vitest';
import { MemorySlotStore } from '../../src/store/memory-slot-store.js';

const LIMIT = 3;

function withManagers(count: number): MemorySlotStore {
  const store = new MemorySlotStore();
  store.attach({ countOf: (userId) => (userId === 'alice' ? count : 0), has: () => false, evict: () => {} });
  return store;
}

const request = (userId: string) => ({ userId, managerId: 'm', limit: LIMIT, priority: 0 });

describe('MemorySlotStore', () => {
  it('grants up to the limit, and says how many there are with the new one', () => {
    expect(withManagers(0).reserve(request('alice'))).toEqual({ granted: true, count: 1 });
    expect(withManagers(LIMIT - 1).reserve(request('alice'))).toEqual({ granted: true, count: LIMIT });
  });

  it('refuses at the limit, and knows of nobody elsewhere', () => {
    for (const count of [LIMIT, LIMIT + 1])
      expect(withManagers(count).reserve(request('alice'))).toEqual({ granted: false, count, elsewhere: [] });
  });

  it('counts each user alone', () => {
    expect(withManagers(LIMIT).reserve(request('bob'))).toEqual({ granted: true, count: 1 });
  });

  it('counts nobody before it is attached', () => {
    expect(new MemorySlotStore().reserve(request('alice'))).toEqual({ granted: true, count: 1 });
  });
});
