import { describe, expect, it } from 'vitest';
import { type Due, DueQueue, NOT_QUEUED } from '../../src/clock/due-queue.js';
import { seeded } from '../support/snapshots.js';

class Item implements Due {
  dueTick = NOT_QUEUED;
  constructor(readonly name: string) {}
}

function upTo(queue: DueQueue<Item>, now: number): string[] {
  const names: string[] = [];
  queue.advance(now, (item) => names.push(item.name));
  return names;
}

describe('DueQueue', () => {
  it('hands over what is due, in order, and not before its time', () => {
    const queue = new DueQueue<Item>(50, 1_000);
    queue.schedule(new Item('late'), 1_260);
    queue.schedule(new Item('early'), 1_101);
    expect(upTo(queue, 1_100)).toEqual([]);
    expect(upTo(queue, 1_149)).toEqual([]);
    expect(upTo(queue, 1_150)).toEqual(['early']);
    expect(upTo(queue, 5_000)).toEqual(['late']);
    expect(queue.size).toBe(0);
  });

  it('hands an item over once, even when it is due in the past', () => {
    const queue = new DueQueue<Item>(50, 1_000);
    queue.schedule(new Item('overdue'), 3);
    expect(upTo(queue, 1_050)).toEqual(['overdue']);
    expect(upTo(queue, 2_000)).toEqual([]);
  });

  it('says when the next one comes up, and when one that is put down will', () => {
    const queue = new DueQueue<Item>(50, 1_000);
    expect(queue.nextDue(Number.MAX_SAFE_INTEGER)).toBeUndefined();
    expect(queue.schedule(new Item('late'), 9_260)).toBe(9_300);
    const early = new Item('early');
    expect(queue.schedule(early, 1_101)).toBe(1_150);
    expect(queue.schedule(new Item('overdue'), 3)).toBe(1_050);
    expect(queue.nextDue(1_049)).toBeUndefined();
    expect(queue.nextDue(1_050)).toBe(1_050);
    // Few buckets in a long time, and many ticks in a short one.
    expect(queue.nextDue(1_000_000)).toBe(1_050);
    upTo(queue, 1_050);
    expect(queue.nextDue(1_149)).toBeUndefined();
    expect(queue.nextDue(1_150)).toBe(1_150);
    queue.cancel(early);
    expect(queue.nextDue(9_299)).toBeUndefined();
    expect(queue.nextDue(9_300)).toBe(9_300);
  });

  it('moves an item instead of keeping it twice', () => {
    const queue = new DueQueue<Item>(50, 0);
    const item = new Item('moved');
    queue.schedule(item, 100);
    queue.schedule(item, 500);
    expect(queue.size).toBe(1);
    expect(upTo(queue, 400)).toEqual([]);
    expect(upTo(queue, 500)).toEqual(['moved']);
  });

  it('forgets what is cancelled', () => {
    const queue = new DueQueue<Item>(50, 0);
    const item = new Item('cancelled');
    queue.schedule(item, 100);
    queue.cancel(item);
    queue.cancel(item);
    expect(queue.size).toBe(0);
    expect(upTo(queue, 1_000)).toEqual([]);
  });

  it('takes an item again from within its own turn, for a later one', () => {
    const queue = new DueQueue<Item>(50, 0);
    const item = new Item('again');
    let turns = 0;
    queue.schedule(item, 100);
    const again = () => {
      turns++;
      queue.schedule(item, 0);
    };
    queue.advance(100, again);
    expect(turns).toBe(1);
    queue.advance(150, again);
    expect(turns).toBe(2);
  });

  it('does not hand over what another item of the same time cancelled', () => {
    const queue = new DueQueue<Item>(50, 0);
    const [first, second] = [new Item('first'), new Item('second')];
    queue.schedule(first, 100);
    queue.schedule(second, 100);
    const seen: string[] = [];
    queue.advance(100, (item) => {
      seen.push(item.name);
      queue.cancel(second);
    });
    expect(seen).toEqual(['first']);
  });

  it('keeps in one place what another item of the same time moved', () => {
    const queue = new DueQueue<Item>(50, 0);
    const [first, second] = [new Item('first'), new Item('second')];
    queue.schedule(first, 100);
    queue.schedule(second, 100);
    const seen: string[] = [];
    queue.advance(100, (item) => {
      seen.push(item.name);
      if (item === first) queue.schedule(second, 500);
    });
    expect(seen).toEqual(['first']);
    expect(queue.size).toBe(1);
    expect(upTo(queue, 450)).toEqual([]);
    expect(upTo(queue, 500)).toEqual(['second']);
  });

  it('agrees with a sorted list, however it is used', () => {
    const random = seeded(7);
    const queue = new DueQueue<Item>(10, 0);
    const waiting = new Map<Item, number>();
    const items = Array.from({ length: 50 }, (_, i) => new Item(String(i)));
    let now = 0;
    for (let step = 0; step < 5_000; step++) {
      const item = items[Math.floor(random() * items.length)] as Item;
      const action = random();
      if (action < 0.5) {
        const at = now + Math.floor(random() * 300);
        queue.schedule(item, at);
        waiting.set(item, at);
      } else if (action < 0.6) {
        queue.cancel(item);
        waiting.delete(item);
      } else {
        now += Math.floor(random() * (action > 0.98 ? 10_000 : 20));
        queue.advance(now, (due) => {
          expect(waiting.get(due)).toBeLessThanOrEqual(now);
          waiting.delete(due);
        });
        for (const at of waiting.values()) expect(at).toBeGreaterThan(now - 20);
      }
      expect(queue.size).toBe(waiting.size);
    }
  });
});
