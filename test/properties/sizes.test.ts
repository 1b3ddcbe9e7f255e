import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Core, type Past } from '../support/core.js';

const HISTORIES = Math.ceil(Number(process.env.HISTORIES ?? 100) / 10);
const SEED = Number(process.env.SEED ?? 20_261_123);

const BURST = 5;
const MINUTE = 60_000;

/** Everybody that a user's place can be held by. */
const PASTS: Record<string, Omit<Past, 'userId'>> = {
  used: { openedAgoMs: MINUTE, activeAgoMs: 1_000 },
  new: { openedAgoMs: 500 },
  idle: { openedAgoMs: 30 * MINUTE, activeAgoMs: 6 * MINUTE },
  frozen: { openedAgoMs: MINUTE, activeAgoMs: 1_000, connection: 'silent' },
  closed: { openedAgoMs: MINUTE, activeAgoMs: 1_000, connection: 'closed' },
  left: { openedAgoMs: MINUTE, connection: 'none', leftAgoMs: 2_000 },
};
type Kind = 'used' | 'new' | 'idle' | 'frozen' | 'closed' | 'left';

const anyUser = fc.record({
  limit: fc.integer({ min: 1, max: 100 }),
  /** Of the limit; above 1 where the limit was lowered. */
  share: fc.oneof(
    { weight: 3, arbitrary: fc.constant(1) },
    { weight: 2, arbitrary: fc.double({ min: 0, max: 2, noNaN: true }) },
  ),
  kinds: fc.uniqueArray(fc.constantFrom<Kind[]>('used', 'new', 'idle', 'frozen', 'closed', 'left'), {
    minLength: 1,
  }),
  newcomers: fc.integer({ min: 1, max: 8 }),
});

describe('any number of sessions', () => {
  it(`is served by what is promised (${HISTORIES}, seed ${SEED})`, async () => {
    const property = fc.asyncProperty(anyUser, async ({ limit, share, kinds, newcomers }) => {
      const size = Math.min(200, Math.round(limit * share));
      const core = await Core.start({
        limits: { managersPerUser: limit },
        cleanup: { forcedEvictionBurst: BURST },
      });
      const placed = Array.from({ length: size }, (_, i) => {
        const kind = kinds[i % kinds.length] as Kind;
        const key = kind === 'left' ? { sessionKey: `left-${i}` } : {};
        return { kind, ...core.place({ userId: 'alice', ...PASTS[kind], ...key }) };
      });
      const count = (...some: Kind[]) => placed.filter(({ kind }) => some.includes(kind)).length;
      let most = size;
      core.registry.observe({
        managerAdded: ({ user }) => {
          most = Math.max(most, user.managers.size);
        },
      });

      const asked = Promise.all(Array.from({ length: newcomers }, () => core.admit('alice')));
      await core.clock.advance(1_100);
      const admitted = (await asked).filter(({ result }) => result.admitted).length;

      // A lowered limit is made good by those who go by themselves; a newcomer takes the place of one.
      const atNoCost = Math.max(0, limit - size) + count('frozen', 'closed', 'left');
      const onBudget = Math.min(BURST, count('used', 'idle'));
      const expected = Math.min(newcomers, size > limit ? newcomers : atNoCost + onBudget);
      expect(most, 'never above the limit').toBeLessThanOrEqual(Math.max(limit, size));
      const livingGone = placed.filter(
        ({ kind, manager }) => ['used', 'idle', 'new'].includes(kind) && !manager.isOpen,
      );
      if (size <= limit) {
        expect(admitted, 'admitted').toBe(expected);
        expect(livingGone.length, 'living sessions').toBe(Math.max(0, expected - atNoCost));
      }
      expect(livingGone.length, 'living sessions').toBeLessThanOrEqual(Math.min(BURST, admitted));
      expect(livingGone.filter(({ kind }) => kind === 'new').length, 'in their grace').toBe(0);
      const usedGone = livingGone.filter(({ kind }) => kind === 'used').length;
      if (usedGone > 0) expect(count('idle'), 'idle before used').toBe(livingGone.length - usedGone);
      expect(core.reportedOf('rejected').filter(({ lockout }) => lockout)).toEqual([]);
      if (placed.length % 5 > 0) return;
      await core.clock.advance(MINUTE);
      const goneSince = placed.filter(
        ({ kind, manager }) => ['used', 'idle', 'new'].includes(kind) && !manager.isOpen,
      );
      expect(goneSince.length, 'in a quiet network').toBe(livingGone.length);
      expect(placed.filter(({ kind, manager }) => kind === 'frozen' && manager.isOpen).length, 'frozen').toBe(
        0,
      );
    });
    await fc.assert(property, { numRuns: HISTORIES, seed: SEED });
  }, 0);
});
