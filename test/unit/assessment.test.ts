import { describe, expect, it } from 'vitest';
import {
  assess,
  type ConnectionFacts,
  evidenceOf,
  type ManagerFacts,
  proofOf,
  STALLED_LOOKS,
  scoreOf,
  windowOf,
} from '../../src/liveness/assessment.js';
import { aConnection, aManager, NOW, RULES } from '../support/snapshots.js';

const statusOf = (more: Partial<ManagerFacts>) => assess(aManager(more), NOW, RULES).status;
const scoreAt = (now: number, more: Partial<ManagerFacts> = {}) =>
  scoreOf(assess(aManager(more), now, RULES), now, RULES);
/** As the heartbeat leaves it after so many unanswered pings: the last one has had its time. */
const unanswered = (pings: number, more: Partial<ConnectionFacts> = {}) =>
  ({ missedPongs: pings, quietLooks: 4 * pings + 2, ...more }) as const;
const dead = () => aConnection(unanswered(2));

describe('proof', () => {
  it.each([
    ['nothing', {}, undefined],
    ['a closing socket', { state: 'closing' }, 'closed_socket'],
    ['a closed socket', { state: 'closed' }, 'closed_socket'],
    ['one missed pong', unanswered(1), undefined],
    ['two missed pongs', unanswered(2), 'missed_pongs'],
    ['two missed pongs and never a byte', unanswered(2, { confirmed: false }), 'never_completed'],
    ['output that stands still for two heartbeats', { stalledLooks: STALLED_LOOKS }, 'stalled_output'],
    ['output that stands still for less', { stalledLooks: STALLED_LOOKS - 1 }, undefined],
    ['a detector', { detectedBy: 'signed_out' }, 'signed_out'],
    ['a missed probe', { suspectedAt: NOW }, undefined],
    ['hours of silence', { lastHeardAt: NOW - 9e6 }, undefined],
  ] as const)('%s', (_, more, signal) => {
    expect(proofOf(aConnection(more), RULES)).toBe(signal);
  });
});

describe('output under way', () => {
  const withUnread = (unreadBytes: number, more: Partial<ConnectionFacts>) =>
    proofOf(aConnection({ unreadBytes, ...more }), RULES);
  /** Looks beyond those that prove a connection without output. */
  const extended = (looks: number) => ({ missedPongs: 9, quietLooks: 10 + looks });

  it.each([
    [0, 0],
    [31, 0],
    [32, 1],
    [16 * 1024, 1],
    [60 * 1024, 1],
    [60 * 1024 + 1, 2],
    [64 * 1024, 2],
    [960 * 1024, 16],
  ])('of %i bytes extends the time for an answer by %i liveness checks', (bytes, looks) => {
    if (looks > 0) expect(withUnread(bytes, extended(looks - 1))).toBeUndefined();
    expect(withUnread(bytes, extended(looks))).toBe('missed_pongs');
  });

  it('extends the time of output that does not move as well', () => {
    expect(withUnread(960 * 1024, { stalledLooks: STALLED_LOOKS + 15 })).toBeUndefined();
    expect(withUnread(960 * 1024, { stalledLooks: STALLED_LOOKS + 16 })).toBe('stalled_output');
  });

  it('adds a second for each 16 KiB with any interval', () => {
    const rules = { ...RULES, lookMs: 250 };
    const facts = { unreadBytes: 960 * 1024, missedPongs: 9 };
    expect(proofOf(aConnection({ ...facts, quietLooks: 10 + 239 }), rules)).toBeUndefined();
    expect(proofOf(aConnection({ ...facts, quietLooks: 10 + 240 }), rules)).toBe('missed_pongs');
  });

  it('is reported of a session unless its connection is dead', () => {
    const busy = aConnection({ hasUnacknowledgedOutput: true, suspectedAt: NOW });
    expect(assess(aManager({ connections: [busy] }), NOW, RULES).hasOutputUnderWay).toBe(true);
    const gone = aConnection({ hasUnacknowledgedOutput: true, state: 'closed' });
    expect(assess(aManager({ connections: [gone] }), NOW, RULES).hasOutputUnderWay).toBe(false);
    expect(assess(aManager(), NOW, RULES).hasOutputUnderWay).toBe(false);
  });
});

describe('status', () => {
  it.each<[string, Partial<ManagerFacts>, string]>([
    ['healthy with traffic', {}, 'healthy'],
    ['healthy just before it is idle', { lastActivityAt: NOW - RULES.idleAfterMs + 1 }, 'healthy'],
    ['idle without traffic', { lastActivityAt: NOW - RULES.idleAfterMs }, 'idle'],
    ['never a zombie for want of traffic', { lastActivityAt: NOW - 1000 * RULES.idleAfterMs }, 'idle'],
    ['zombie when its only connection is dead', { connections: [dead()] }, 'zombie'],
    ['zombie when all are dead', { connections: [dead(), aConnection({ state: 'closed' })] }, 'zombie'],
    ['healthy while one lives', { connections: [dead(), aConnection()] }, 'healthy'],
    ['unknown until something came in', { connections: [aConnection({ confirmed: false })] }, 'unknown'],
    ['inactive when all left', { connections: [], leftAt: NOW }, 'inactive'],
    [
      'unknown while nobody attached yet',
      { connections: [], neverAttached: true, createdAt: NOW - 4_999 },
      'unknown',
    ],
    [
      'inactive when nobody did',
      { connections: [], neverAttached: true, createdAt: NOW - 5_000 },
      'inactive',
    ],
  ])('%s', (_, more, status) => {
    expect(statusOf(more)).toBe(status);
  });

  it('says since when it is inactive, and only then', () => {
    expect(assess(aManager({ connections: [], leftAt: NOW - 7 }), NOW, RULES).inactiveSince).toBe(NOW - 7);
    expect(assess(aManager(), NOW, RULES).inactiveSince).toBeUndefined();
  });

  it('is suspect when every connection is, or is dead', () => {
    const suspect = aConnection({ suspectedAt: NOW });
    const isSuspect = (...connections: ManagerFacts['connections'][number][]) =>
      assess(aManager({ connections }), NOW, RULES).suspect;
    expect(isSuspect(suspect)).toBe(true);
    expect(isSuspect(suspect, dead())).toBe(true);
    expect(isSuspect(suspect, aConnection())).toBe(false);
    expect(isSuspect()).toBe(false);
  });
});

describe('score', () => {
  it.each<[string, Partial<ManagerFacts>, number]>([
    ['active now', {}, 1],
    ['half way to idle', { lastActivityAt: NOW - RULES.idleAfterMs / 2 }, 0.8],
    ['idle', { lastActivityAt: NOW - RULES.idleAfterMs }, 0.6],
    ['idle for twice the time', { lastActivityAt: NOW - 2 * RULES.idleAfterMs }, 0.4],
    ['idle for ever', { lastActivityAt: NOW - 99 * RULES.idleAfterMs }, 0.4],
    ['one pong missed of two', { connections: [aConnection({ missedPongs: 1 })] }, 0.5],
    ['a suspect', { connections: [aConnection({ suspectedAt: NOW })] }, 0.5],
    ['a full buffer', { connections: [aConnection({ bufferedBytes: RULES.maxBufferedBytes })] }, 0.5],
    ['the best connection counts', { connections: [dead(), aConnection()] }, 1],
    ['dead', { connections: [dead()] }, 0],
    ['new', { connections: [aConnection({ confirmed: false })] }, 0.5],
    ['left just now, with a key', { sessionKey: 'k', connections: [], leftAt: NOW }, 0.25],
    [
      'left half a window ago',
      { sessionKey: 'k', connections: [], leftAt: NOW - RULES.resumeWindowMs / 2 },
      0.125,
    ],
    ['left a window ago', { sessionKey: 'k', connections: [], leftAt: NOW - RULES.resumeWindowMs }, 0],
    ['left, without a key', { connections: [], leftAt: NOW }, 0],
  ])('%s', (_, more, score) => {
    expect(scoreAt(NOW, more)).toBeCloseTo(score, 10);
  });

  it('only falls while nothing happens', () => {
    let last = 1;
    for (let now = NOW; now < NOW + 3 * RULES.idleAfterMs; now += 7_919) {
      const score = scoreAt(now);
      expect(score).toBeLessThanOrEqual(last);
      expect(score).toBeGreaterThan(0);
      last = score;
    }
  });
});

describe('evidence', () => {
  it('says what it rests on', () => {
    const manager = aManager({
      lastActivityAt: NOW - 9_000.4,
      connections: [
        aConnection({ lastHeardAt: NOW - 3_000, missedPongs: 1 }),
        aConnection({ lastHeardAt: NOW - 7_000 }),
      ],
    });
    expect(evidenceOf(manager, 'idle', NOW, RULES)).toEqual({
      signal: 'idle',
      silentForMs: 3_000,
      inactiveForMs: 9_000,
      missedPongs: 1,
    });
  });

  it('counts the silence of the absent from when they left', () => {
    const manager = aManager({ connections: [], leftAt: NOW - 4_000 });
    expect(evidenceOf(manager, 'inactive', NOW, RULES)).toMatchObject({ silentForMs: 4_000, missedPongs: 0 });
  });
});

describe('windowOf', () => {
  it('is the resume window for a session with a key, and nothing without', () => {
    expect(windowOf(aManager({ sessionKey: 'k' }), RULES)).toBe(RULES.resumeWindowMs);
    expect(windowOf(aManager(), RULES)).toBe(0);
  });
});
