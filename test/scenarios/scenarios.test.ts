import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { type History, live } from '../support/history.js';

/** Ours, and those that are kept beside the project where there are any. */
const FOLDERS = [
  new URL('./histories/', import.meta.url),
  new URL('../../../shared/scenarios/', import.meta.url),
];

const histories = new Map<string, History>();
for (const folder of FOLDERS.filter((url) => existsSync(url))) {
  for (const file of readdirSync(folder).filter((name) => name.endsWith('.json'))) {
    const history = JSON.parse(readFileSync(new URL(file, folder), 'utf8')) as History;
    histories.set(history.name, history);
  }
}

describe('histories', () => {
  it.each([...histories.values()].map((history) => [history.name, history] as const))('%s', (_, history) =>
    live(history),
  );

  it('are there', () => {
    expect(histories.size).toBeGreaterThanOrEqual(10);
  });

  it.each([
    ['of the history', { surprise: 1 }],
    ['of a group', { users: { alice: [{ name: 'a', surprise: 1 }] } }],
    ['of a step', { steps: [{ atMs: 0, surprise: {} }] }],
    ['of an admission', { steps: [{ atMs: 0, admit: { user: 'alice', surprise: 1 } }] }],
    ['of an expectation', { expect: [{ atMs: 0, surprise: 1 }] }],
    ['of what always holds', { always: { surprise: 1 } }],
    ['of the options', { options: { surprise: 1 } }],
  ])('an unknown key %s is not passed over', async (_, part) => {
    const history = { name: 'x', users: {}, steps: [], expect: [], ...part } as unknown as History;
    await expect(live(history)).rejects.toThrow('surprise');
  });

  it('that are not as they say fail', async () => {
    const wrong: History = {
      name: 'wrong',
      users: { alice: [{ name: 'live', count: 2 }] },
      steps: [{ atMs: 10, admit: { user: 'alice' } }],
      expect: [{ atMs: 20, managers: { alice: 2 } }],
    };
    await expect(live(wrong)).rejects.toThrow('managers of alice');
    await expect(live({ ...wrong, expect: [], always: { managersAtMost: 2 } })).rejects.toThrow('at most 2');
  });

  it('have connections that leave, freeze, thaw and answer late', async () => {
    await live({
      name: 'vocabulary',
      options: { heartbeat: { intervalMs: 1_000 } },
      users: {
        alice: [
          { name: 'live', count: 4, openedAgoMs: 60_000 },
          { name: 'slow', count: 3, connection: 'answersAfterMs', answersAfterMs: 300 },
          { name: 'shut', count: 2, connection: 'closed' },
        ],
      },
      steps: [
        { atMs: 5_000, leave: { user: 'alice', group: 'live', count: 1 } },
        { atMs: 10_000, become: { user: 'alice', group: 'slow', connection: 'silent' } },
        { atMs: 11_000, become: { user: 'alice', group: 'slow', connection: { answersAfterMs: 200 } } },
        { atMs: 20_000, become: { user: 'alice', group: 'live', connection: 'silent' } },
        { atMs: 25_000, stall: { forMs: 5_000 } },
      ],
      expect: [
        { atMs: 4_000, evicted: { shut: 2, slow: 0, live: 0 }, managers: { alice: 7 } },
        { atMs: 6_000, evicted: { live: 0 }, managers: { alice: 6 } },
        { atMs: 19_000, evicted: { slow: 0 }, managers: { alice: 6 } },
        { atMs: 24_000, evicted: { live: 3 }, managers: { alice: 3 } },
        { atMs: 40_000, evicted: { slow: 0 }, managers: { alice: 3 } },
      ],
    });
  });
});
