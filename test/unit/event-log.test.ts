import { createHash } from 'node:crypto';
import { Logger } from '@nestjs/common';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { EventStream } from '../../src/events/event-stream.js';
import { EventLog } from '../../src/observability/event-log.js';
import type { LogUserIds } from '../../src/options/websocket-manager-options.interface.js';
import { FakeClock } from '../../src/testing/index.js';

let clock: FakeClock;
let events: EventStream;
let written: string[];

beforeEach(() => {
  clock = new FakeClock();
  events = new EventStream(clock);
  written = [];
  for (const level of ['log', 'warn', 'error'] as const) {
    vi.spyOn(Logger.prototype, level).mockImplementation((text: string) => void written.push(text));
  }
});
afterEach(() => vi.restoreAllMocks());

function startLog(logUserIds: LogUserIds = 'full'): EventLog {
  return new EventLog(events, { logUserIds });
}

function reject(userId: string | undefined): void {
  const rest = { durationMs: 1, retryAfterMs: 500, lockout: false, detail: undefined };
  events.report({ type: 'rejected', reason: 'over_limit', userId, ...rest });
}

const shownOf = (line: string | undefined) => /^Rejected user (.*): over_limit/.exec(line ?? '')?.[1];

describe('EventLog', () => {
  const email = 'alice.example@example.org';
  it.each<[LogUserIds, string, string]>([
    ['hash', email, createHash('sha256').update(email).digest('hex').slice(0, 12)],
    ['hash', 'zoë', createHash('sha256').update(Buffer.from('zoë')).digest('hex').slice(0, 12)],
    ['short', email, 'alice.ex...'],
    ['short', 'alice', 'alice'],
    ['full', email, email],
    ['full', 'x'.repeat(256), 'x'.repeat(256)],
    ['full', 'zoë', 'zo\\u00eb'],
  ])('shows user ids as logUserIds says: %s of %s', (logUserIds, userId, shown) => {
    startLog(logUserIds);
    reject(userId);
    expect(shownOf(written[0])).toBe(shown);
  });

  it('shows the same hash for the same user in every kind of line', () => {
    startLog('hash');
    reject(email);
    events.report({ type: 'breaker_changed', userId: email, from: 'closed', to: 'open' });
    events.report({
      type: 'evicted',
      userId: email,
      managerId: 'm',
      sessionKey: undefined,
      reason: 'evicted',
      evidence: { signal: 'idle', score: 0, silentForMs: 1, inactiveForMs: 1, missedPongs: 0 } as never,
      level: 'force',
      trigger: 'admission',
      createdAt: 0,
    });
    const hash = shownOf(written[0]) as string;
    expect(hash).toHaveLength(12);
    expect(written).toHaveLength(3);
    for (const line of written) {
      expect(line).toContain(`user ${hash}`);
      expect(line).not.toContain('alice');
    }
  });

  it('limits users separately whose shown ids are the same', () => {
    startLog('short');
    for (let i = 0; i < 50; i++) reject('customer-1');
    reject('customer-2');
    expect(written).toHaveLength(11);
  });

  it('reports suppressed lines when a drain is finished, the listeners of events$ included', () => {
    startLog();
    events.events$.subscribe((event) => {
      if (event.type === 'rejected') throw new Error('listener');
    });
    for (let i = 0; i < 38; i++) reject('noisy');
    events.report({ type: 'draining', phase: 'finished', connections: 0, terminated: 0 });
    expect(written.slice(-3).toSorted()).toEqual([
      '... and 28 more lines of this kind: listeners of events$',
      '... and 28 more lines of this kind: rejected over_limit',
      'Drained 0 connections, 0 of them terminated',
    ]);
    expect(clock.timerCount).toBe(0);
  });

  it('reports suppressed lines when it is stopped', () => {
    const log = startLog();
    for (let i = 0; i < 12; i++) reject('noisy');
    log.stop();
    expect(written.at(-1)).toBe('... and 2 more lines of this kind: rejected over_limit');
  });
});
