import { describe, expect, it } from 'vitest';
import {
  candidatesOf,
  expendable,
  graceLeftMs,
  levelFor,
  overdue,
  reaches,
} from '../../src/cleanup/policy.js';
import { CLEANUP_LEVELS, type CleanupLevel } from '../../src/events/vocabulary.js';
import type { ManagerFacts } from '../../src/liveness/assessment.js';
import { aConnection, aManager, NOW, RULES, seeded, shuffled } from '../support/snapshots.js';

const THRESHOLDS = { proactiveThreshold: 0.6, moderateThreshold: 0.65, aggressiveThreshold: 0.7 };

const IDLE = RULES.idleAfterMs;
const WINDOW = RULES.resumeWindowMs;

const left = (id: string, agoMs: number) =>
  aManager({ id, sessionKey: id, leftAt: NOW - agoMs, connections: [] });
const idleFor = (id: string, ms: number, more: Partial<ManagerFacts> = {}) =>
  aManager({ id, createdAt: NOW - 10 * IDLE, lastActivityAt: NOW - ms, ...more });
const silentFor = (id: string, ms: number) =>
  aManager({ id, connections: [aConnection({ lastHeardAt: NOW - ms, suspectedAt: NOW - 10 })] });

const taken = (managers: ManagerFacts[], level: CleanupLevel) =>
  expendable(candidatesOf(managers, NOW, RULES), level, NOW, RULES);
const takenIds = (managers: ManagerFacts[], level: CleanupLevel) =>
  taken(managers, level).map(({ managerId }) => managerId);
const overdueIds = (managers: ManagerFacts[], level: CleanupLevel) =>
  overdue(candidatesOf(managers, NOW, RULES), level, NOW, RULES).map(({ managerId }) => managerId);

describe('levelFor', () => {
  it.each([
    [0, undefined],
    [11 / 20, undefined],
    [12 / 20, 'conservative'],
    [0.649, 'conservative'],
    [13 / 20, 'moderate'],
    [0.699, 'moderate'],
    [14 / 20, 'aggressive'],
    [1, 'aggressive'],
    [1.5, 'aggressive'],
  ] as const)('%f asks for %s', (pressure, level) => {
    expect(levelFor({ pressure, hasThresholds: true }, THRESHOLDS)).toBe(level);
  });

  it('never asks for force', () => {
    for (let count = 0; count <= 40; count++)
      expect(levelFor({ pressure: count / 20, hasThresholds: true }, THRESHOLDS)).not.toBe('force');
  });

  it('asks for none where the thresholds do not apply', () => {
    expect(levelFor({ pressure: 1, hasThresholds: false }, THRESHOLDS)).toBeUndefined();
  });
});

describe('levels', () => {
  it('are cumulative', () => {
    for (const [i, level] of CLEANUP_LEVELS.entries()) {
      for (const [j, other] of CLEANUP_LEVELS.entries()) expect(reaches(level, other)).toBe(i >= j);
    }
  });

  it.each([
    ['conservative', WINDOW],
    ['moderate', WINDOW / 2],
    ['aggressive', WINDOW / 4],
    ['force', WINDOW / 4],
  ] as const)('%s leaves a session without connection %d ms', (level, leftMs) => {
    const managers = [left('at', leftMs), left('before', leftMs - 1), left('after', leftMs + 1)];
    expect(overdueIds(managers, level)).toEqual(['after', 'at']);
  });

  it('a session without a key has no window', () => {
    expect(overdueIds([aManager({ id: 'keyless', leftAt: NOW, connections: [] })], 'conservative')).toEqual([
      'keyless',
    ]);
  });

  it('a manager that nobody attached to has its grace', () => {
    const never = (id: string, ageMs: number) =>
      aManager({ id, createdAt: NOW - ageMs, neverAttached: true, connections: [] });
    const managers = [never('new', RULES.graceMs - 1), never('old', RULES.graceMs)];
    expect(overdueIds(managers, 'conservative')).toEqual(['old']);
  });

  it.each(CLEANUP_LEVELS)('%s never counts a connected manager as overdue', (level) => {
    const managers = [aManager({ id: 'live' }), idleFor('idle', 100 * IDLE), silentFor('suspect', 60_000)];
    expect(overdueIds(managers, level)).toEqual([]);
  });
});

describe('sessions whose window is over', () => {
  const gone = [left('b', 40_000), left('a', 31_000), left('c', 50_000)];

  it('go in the order in which they were left, and cost no budget', () => {
    const choices = overdue(candidatesOf(gone, NOW, RULES), 'conservative', NOW, RULES);
    expect(choices.map(({ managerId }) => managerId)).toEqual(['c', 'b', 'a']);
    expect(choices.map(({ living, signal }) => [living, signal])).toEqual(
      gone.map(() => [false, 'inactive']),
    );
  });
});

describe('at the limit', () => {
  it('conservative takes nobody', () => {
    expect(
      taken([left('a', 1), idleFor('b', 9 * IDLE), silentFor('c', 60_000), aManager({})], 'conservative'),
    ).toEqual([]);
  });

  it('moderate takes the inactive, longest gone first, then the idle of twice the time, longest idle first', () => {
    const managers = [
      idleFor('idle-2', 2 * IDLE),
      left('gone-1', 1_000),
      idleFor('idle-almost', 2 * IDLE - 1),
      idleFor('idle-3', 3 * IDLE),
      left('gone-2', 2_000),
      aManager({ id: 'live' }),
      silentFor('suspect', 9_000),
    ];
    expect(takenIds(managers, 'moderate')).toEqual(['gone-2', 'gone-1', 'idle-3', 'idle-2']);
  });

  it('aggressive takes the suspects, longest silent first, then any idle manager, longest idle first', () => {
    const managers = [
      idleFor('idle-1', IDLE),
      silentFor('suspect-5', 5_000),
      idleFor('idle-almost', IDLE - 1),
      idleFor('idle-3', 3 * IDLE),
      silentFor('suspect-9', 9_000),
      aManager({ id: 'live' }),
    ];
    expect(takenIds(managers, 'aggressive')).toEqual(['suspect-9', 'suspect-5', 'idle-3', 'idle-1']);
  });

  it('a manager with one connection that answers is no suspect', () => {
    const connections = [aConnection({ suspectedAt: NOW - 10 }), aConnection({})];
    expect(takenIds([aManager({ connections })], 'aggressive')).toEqual([]);
  });

  it('force takes by priority, then idle, then not busy, then least recent activity, then the oldest', () => {
    const managers = [
      aManager({ id: 'oldest', createdAt: NOW - 90_000 }),
      aManager({ id: 'younger', createdAt: NOW - 80_000 }),
      aManager({ id: 'stale', lastActivityAt: NOW - 50_000 }),
      aManager({ id: 'busy', lastActivityAt: NOW - 60_000, isBusy: true }),
      idleFor('idle', IDLE),
      idleFor('busy-idle', 2 * IDLE, { isBusy: true }),
      aManager({ id: 'cheap', priority: -1 }),
      idleFor('dear', 9 * IDLE, { priority: 1 }),
    ];
    expect(takenIds(shuffled(managers, seeded(3)), 'force')).toEqual([
      ...['cheap', 'idle', 'busy-idle', 'stale', 'oldest', 'younger', 'busy', 'dear'],
    ]);
  });

  it('force never takes one in its grace', () => {
    const managers = [
      aManager({ id: 'new', createdAt: NOW - RULES.graceMs + 1, priority: -9 }),
      aManager({ id: 'just', createdAt: NOW - RULES.graceMs }),
    ];
    expect(takenIds(managers, 'force')).toEqual(['just']);
  });

  it('only the living cost the budget', () => {
    const managers = [left('gone', 1_000), idleFor('idle', 5 * IDLE), silentFor('suspect', 9_000)];
    expect(taken(managers, 'moderate').map(({ living }) => living)).toEqual([false, true]);
    expect(taken(managers, 'aggressive').map(({ living }) => living)).toEqual([false, false, true]);
    expect(taken(managers, 'force').map(({ living }) => living)).toEqual([false, false, true]);
    expect(taken([aManager({})], 'force').map(({ living }) => living)).toEqual([true]);
  });
});

describe('any crowd', () => {
  it.each([0, 1, 2, 3, 19, 20, 21, 50, 100, 200])('of %d, in any order, gives the same answer', (size) => {
    const random = seeded(size + 1);
    const crowd = Array.from({ length: size }, (_, i) => aRandomManager(String(i), random));
    for (const level of CLEANUP_LEVELS) {
      const expected = takenIds(crowd, level);
      for (let round = 0; round < 5; round++) {
        const again = shuffled(crowd, random);
        expect(takenIds(again, level)).toEqual(expected);
        expect(overdueIds(again, level).sort()).toEqual(overdueIds(crowd, level).sort());
      }
      expect(new Set(expected).size).toBe(expected.length);
    }
  });

  it('is taken from least to most use', () => {
    const random = seeded(11);
    for (let round = 0; round < 201; round++) {
      const crowd = Array.from({ length: round }, (_, i) => aRandomManager(String(i), random));
      const byId = new Map(crowd.map((manager) => [manager.id, manager]));
      const candidates = candidatesOf(crowd, NOW, RULES);
      const statusOf = new Map(candidates.map(({ manager, status }) => [manager.id, status]));
      const moderate = takenIds(crowd, 'moderate').map((id) => statusOf.get(id));
      expect(moderate.filter((status) => status !== 'inactive' && status !== 'idle')).toEqual([]);
      const idle = taken(crowd, 'aggressive').filter(({ signal }) => signal === 'idle');
      expect(idle.filter(({ managerId }) => statusOf.get(managerId) !== 'idle')).toEqual([]);
      // Who is absent or suspect goes before anybody living, at every level that may take the living.
      const all = taken(crowd, 'force');
      const absent = candidates.filter(({ status, suspect }) => status === 'inactive' || suspect);
      expect(all.slice(0, absent.length).map(({ living }) => living)).toEqual(absent.map(() => false));
      const living = all.slice(absent.length);
      expect(living.every((choice) => choice.living)).toBe(true);
      const forced = living.map(({ managerId }) => byId.get(managerId) as ManagerFacts);
      expect(forced.filter((manager) => NOW - manager.createdAt < RULES.graceMs)).toEqual([]);
      const priorities = forced.map(({ priority }) => priority);
      expect(priorities).toEqual([...priorities].sort((a, b) => a - b));
      const outOfGrace = crowd.filter(
        ({ id, createdAt }) =>
          NOW - createdAt >= RULES.graceMs && !absent.some(({ manager }) => manager.id === id),
      );
      expect(forced).toHaveLength(outOfGrace.length);
    }
  });
});

describe('sessions that are alike in all', () => {
  it('go in an order of their own, whoever was there first', () => {
    const twins = ['b', 'a', 'c'].map((id) => aManager({ id }));
    for (const crowd of [twins, [...twins].reverse()])
      expect(takenIds(crowd, 'force')).toEqual(['a', 'b', 'c']);
    expect(taken(twins, 'force')[0]?.signal).toBe('least_valuable');
  });
});

describe('graceLeftMs', () => {
  const leftAbove = (tooMany: number, ...agesMs: number[]) => {
    const managers = agesMs.map((ms) => aManager({ createdAt: NOW - ms }));
    return graceLeftMs(candidatesOf(managers, NOW, RULES), tooMany, NOW, RULES);
  };
  const leftFor = (...agesMs: number[]) => leftAbove(0, ...agesMs);

  it('is what the oldest still has', () => {
    expect(leftFor(1_000, 3_000)).toBe(RULES.graceMs - 3_000);
    expect(leftFor(1_000, 6_000)).toBe(0);
    expect(leftFor()).toBe(RULES.graceMs);
  });

  it('is true of who is left when so many have gone as are too many', () => {
    expect(leftAbove(1, 1_000, 3_000, 2_000)).toBe(RULES.graceMs - 2_000);
    expect(leftAbove(2, 1_000, 3_000, 2_000)).toBe(RULES.graceMs - 1_000);
    expect(leftAbove(-3, 1_000, 3_000)).toBe(RULES.graceMs - 3_000);
  });
});

function aRandomManager(id: string, random: () => number): ManagerFacts {
  const createdAt = NOW - Math.floor(random() * 3 * IDLE) - Number(id);
  const lastActivityAt = Math.max(createdAt, NOW - Math.floor(random() * 3 * IDLE)) + Number(id) / 1_000;
  const connections =
    random() < 0.3
      ? []
      : [
          aConnection({
            lastHeardAt: NOW - Math.floor(random() * 60_000) - Number(id) / 1_000,
            missedPongs: Math.floor(random() * 3),
            suspectedAt: random() < 0.2 ? NOW - 10 : undefined,
          }),
        ];
  return aManager({
    id,
    sessionKey: random() < 0.5 ? id : undefined,
    priority: Math.floor(random() * 3),
    isBusy: random() < 0.2,
    createdAt,
    lastActivityAt,
    connections,
    leftAt: connections.length > 0 ? undefined : NOW - Math.floor(random() * 60_000) - Number(id) / 1_000,
  });
}
