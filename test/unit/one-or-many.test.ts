import fc from 'fast-check';
import { expect, it } from 'vitest';
import { OneOrMany } from '../../src/manager/one-or-many.js';

const MEMBERS = Array.from({ length: 5 }, (_, i) => ({ i }));

it('is a Set', () => {
  const anyStep = fc.record({ adds: fc.boolean(), which: fc.nat({ max: MEMBERS.length - 1 }) });
  fc.assert(
    fc.property(fc.array(anyStep), (steps) => {
      const [real, ours] = [new Set<object>(), new OneOrMany<object>()];
      for (const { adds, which } of steps) {
        const member = MEMBERS[which] as object;
        for (const set of [real, ours]) adds ? set.add(member) : set.delete(member);
        expect([...ours]).toEqual([...real]);
        expect(ours.size).toBe(real.size);
      }
    }),
  );
});

it('does not bring up who is deleted while it is gone through', () => {
  const [a, b, c] = MEMBERS as [object, object, object];
  const set = new OneOrMany<object>();
  for (const member of [a, b, c]) set.add(member);
  const seen: object[] = [];
  for (const member of set) {
    seen.push(member);
    set.delete(b);
  }
  expect(seen).toEqual([a, c]);
});
