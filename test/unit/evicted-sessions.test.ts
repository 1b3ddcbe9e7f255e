import { describe, expect, it } from 'vitest';
import type { EndReason } from '../../src/events/close-reason.js';
import { Core } from '../support/core.js';

/** How long a session evicted to make room evicts no living one, and is counted as returned. */
const BARRED_MS = 60_000;
const RETURNED_MS = 30_000;

async function withEnded(reason: EndReason, sessionKey: string | undefined = 'tab') {
  const core = await Core.start();
  core.place({ userId: 'alice' });
  const end = (why: EndReason, key = sessionKey) => {
    const { manager } = core.place({ userId: 'alice', sessionKey: key, connection: 'none', leftAgoMs: 0 });
    void manager.close({ reason: why });
    return manager.user;
  };
  const user = end(reason);
  const mayEvict = (key: string | undefined = 'tab') => core.evicted.mayEvictLiving(user, key);
  const isReturning = (key: string | undefined = 'tab') => core.evicted.isReturning(user, key);
  const advance = (ms: number) => core.clock.advance(ms);
  return { core, user, end, mayEvict, isReturning, advance };
}

describe('a session that ended', () => {
  it.each<[EndReason, boolean, boolean]>([
    ['evicted', true, true],
    ['no_pong', true, false],
    ['inactive', true, false],
    ['left', false, false],
    ['terminated_by_admin', false, false],
    ['idle', false, false],
  ])(
    'as %s: counted when it returns: %s, barred from evicting the living: %s',
    async (reason, counts, barred) => {
      const { mayEvict, isReturning } = await withEnded(reason);
      expect(isReturning()).toBe(counts);
      expect(mayEvict()).toBe(!barred);
    },
  );

  it('is no other session, nor that of somebody else, nor one without a key', async () => {
    const { core, mayEvict, isReturning } = await withEnded('evicted');
    const bob = core.place({ userId: 'bob' }).manager.user;
    expect([mayEvict('other'), core.evicted.mayEvictLiving(bob, 'tab')]).toEqual([true, true]);
    expect([isReturning('other'), core.evicted.isReturning(bob, 'tab')]).toEqual([false, false]);
    const keyless = await withEnded('evicted', undefined);
    expect(keyless.core.evicted.mayEvictLiving(keyless.user, undefined)).toBe(true);
    expect(keyless.core.evicted.isReturning(keyless.user, undefined)).toBe(false);
  });

  it('is forgotten for a thousand later ones of its user, the oldest first', async () => {
    const { end, isReturning } = await withEnded('inactive');
    for (let i = 1; i < 1_000; i++) end('inactive', `tab-${i}`);
    expect(isReturning()).toBe(true);
    end('inactive', 'one more');
    expect([isReturning(), isReturning('tab-1'), isReturning('one more')]).toEqual([false, true, true]);
  });

  it('has returned within 30 s, and is barred for a minute', async () => {
    const { mayEvict, isReturning, advance } = await withEnded('evicted');
    await advance(RETURNED_MS - 1);
    expect(isReturning()).toBe(true);
    await advance(1);
    expect(isReturning()).toBe(false);
    await advance(BARRED_MS - RETURNED_MS - 1);
    expect(mayEvict()).toBe(false);
    await advance(1);
    expect(mayEvict()).toBe(true);
  });

  it('and again is barred from then on', async () => {
    const { end, mayEvict, advance } = await withEnded('evicted');
    await advance(40_000);
    end('evicted');
    await advance(40_000);
    expect(mayEvict()).toBe(false);
    await advance(20_000);
    expect(mayEvict()).toBe(true);
  });

  it('and again, but dead, is barred no more', async () => {
    const { end, mayEvict } = await withEnded('evicted');
    end('no_pong');
    expect(mayEvict()).toBe(true);
  });
});

describe('a promise', () => {
  it('is kept, the bar notwithstanding, and the first one counts', async () => {
    const { core, user, mayEvict, advance } = await withEnded('evicted');
    core.evicted.notePromise(user, 'tab', 4_000);
    await advance(2_000);
    core.evicted.notePromise(user, 'tab', 10_000);
    expect(mayEvict()).toBe(false);
    await advance(1_999);
    expect(mayEvict()).toBe(false);
    await advance(1);
    expect(mayEvict()).toBe(true);
  });

  it('to a session that was not evicted changes nothing', async () => {
    const { core, user, mayEvict } = await withEnded('left');
    core.evicted.notePromise(user, 'tab', 4_000);
    core.evicted.notePromise(user, undefined, 4_000);
    expect(mayEvict()).toBe(true);
  });
});

describe('what is kept', () => {
  const kept = (core: Core) => {
    const [byUser] = Object.values(core.evicted).filter((value) => value instanceof Map);
    return [...(byUser as Map<unknown, Map<string, unknown>>).values()].map((keys) => [...keys.keys()]);
  };

  it('is no more than a minute old when something is added', async () => {
    const { core, end, advance } = await withEnded('evicted', 'a');
    await advance(30_000);
    end('inactive', 'b');
    await advance(29_999);
    end('evicted', 'c');
    expect(kept(core)).toEqual([['a', 'b', 'c']]);
    end('evicted', 'b');
    await advance(1);
    end('evicted', 'd');
    expect(kept(core)).toEqual([['c', 'b', 'd']]);
  });

  it('is forgotten with the user', async () => {
    const { core, user, advance } = await withEnded('evicted');
    for (const manager of [...user.managers]) void manager.close({ reason: 'left' });
    await advance(core.options.cleanup.graceMs + 1_000);
    expect(core.registry.userCount).toBe(0);
    expect(kept(core)).toEqual([]);
  });
});
