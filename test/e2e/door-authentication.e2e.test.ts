import { setTimeout as sleep } from 'node:timers/promises';
import { ForbiddenException, UnauthorizedException } from '@nestjs/common';
import { describe, expect, it, vi } from 'vitest';
import type { Authenticate } from '../../src/index.js';
import { byQuery, startApp } from '../support/app.js';
import { connect, refusal } from '../support/client.js';

const reasonOf = ({ status, body }: { status: number; body: unknown }) => [
  status,
  (body as { reason: string }).reason,
];

describe('authenticate', () => {
  it.each<[string, Authenticate]>([
    ['at once', byQuery],
    ['later', async (request) => sleep(30).then(() => byQuery(request))],
    [
      'with more than it has to',
      (request) => ({ ...byQuery(request), userId: 'alice', metadata: { tier: 'gold' }, priority: 3 }),
    ],
  ])('that answers %s lets the user in', async (_title, authenticate) => {
    const { url, service } = await startApp({ options: { authenticate } });
    const client = await connect(`${url}/ws?userId=alice`);
    expect(await client.echo(1)).toBe(1);
    expect(service.managersOf('alice')).toHaveLength(1);
  });

  const rejects = (error: Error) => async () => Promise.reject(error);
  it.each<[string, Authenticate, number, string]>([
    ['gives null', () => null, 401, 'unauthenticated'],
    ['gives undefined', () => undefined, 401, 'unauthenticated'],
    ['gives false', () => false as never, 401, 'unauthenticated'],
    ['gives an empty string', () => '' as never, 401, 'unauthenticated'],
    ['resolves to null', async () => null, 401, 'unauthenticated'],
    ['rejects with UnauthorizedException', rejects(new UnauthorizedException()), 401, 'unauthenticated'],
    ['rejects with ForbiddenException', rejects(new ForbiddenException()), 401, 'unauthenticated'],
    ['rejects', rejects(new Error('directory away')), 500, 'internal'],
    ['hangs', () => new Promise<never>(() => {}), 500, 'internal'],
    ['gives no object', () => 'alice' as never, 500, 'internal'],
    ['gives no number as priority', () => ({ userId: 'a', priority: 'high' as never }), 500, 'internal'],
    ['gives no date as expiresAt', () => ({ userId: 'a', expiresAt: new Date('soon') }), 500, 'internal'],
    ['gives no string as user id', () => ({ userId: 7 as never }), 400, 'bad_request'],
  ])('that %s refuses', async (_title, authenticate, status, reason) => {
    const { url, of, service } = await startApp({
      options: { authenticate, admission: { authenticateTimeoutMs: 100 } },
    });
    const startedAt = performance.now();
    expect(reasonOf(await refusal(`${url}/ws?userId=alice`))).toEqual([status, reason]);
    expect(performance.now() - startedAt).toBeLessThan(1_500);
    expect(of('hook_failed').map(({ hook }) => hook)).toEqual(status === 500 ? ['authenticate'] : []);
    expect(service.managersOf('alice')).toEqual([]);
  });

  it('that throws says nothing of the error to the client, and the next one is let in', async () => {
    const authenticate: Authenticate = (request) => {
      if (request.headers['x-fail']) throw new UnauthorizedException('secret-token-123');
      return byQuery(request);
    };
    const { url } = await startApp({ options: { authenticate } });
    const answer = await refusal(`${url}/ws?userId=alice`, { headers: { 'x-fail': '1' } });
    expect(answer.status).toBe(401);
    expect(JSON.stringify(answer)).not.toContain('secret');
    await connect(`${url}/ws?userId=alice`);
  });
});

describe('credentials', () => {
  const expiring: Authenticate = (request) => {
    const expiresIn = Number(new URL(request.url ?? '', 'ws://x').searchParams.get('expiresIn'));
    const asDate = request.headers['x-as-date'] !== undefined;
    const at = Date.now() + expiresIn;
    return { userId: 'alice', sessionKey: 'tab', expiresAt: asDate ? new Date(at) : at };
  };

  it('that have expired are none', async () => {
    const { url } = await startApp({ options: { authenticate: expiring } });
    expect(reasonOf(await refusal(`${url}/ws?expiresIn=-1`))).toEqual([401, 'unauthenticated']);
  });

  it.each<Record<string, string>>([{}, { 'x-as-date': '1' }])(
    'that expire close their own connection with 4106 (%j)',
    async (headers) => {
      const { url, service } = await startApp({
        options: { authenticate: expiring, heartbeat: { intervalMs: 1_000 } },
      });
      const lasting = await connect(`${url}/ws?expiresIn=100000000000`);
      const startedAt = performance.now();
      const client = await connect(`${url}/ws?expiresIn=400`, { headers });
      expect(await client.closed()).toEqual({ code: 4106, reason: 'token_expired' });
      expect(performance.now() - startedAt).toBeGreaterThan(350);
      expect(client.received).toEqual([
        { event: 'ws:closing', data: { code: 4106, reason: 'token_expired', retryable: true } },
      ]);
      expect(await lasting.echo('still here')).toBe('still here');
      expect(service.managersOf('alice')).toHaveLength(1);
    },
  );
});

describe('limits', () => {
  it('may be a function of who is connecting', async () => {
    const { url, service } = await startApp({
      options: {
        authenticate: (request) => {
          const context = byQuery(request);
          return context && { ...context, metadata: { tier: context.userId } };
        },
        limits: {
          managersPerUser: ({ metadata }) =>
            (metadata as { tier: string }).tier === 'gold' ? Number.POSITIVE_INFINITY : 2,
        },
      },
    });
    for (let i = 0; i < 5; i++) await connect(`${url}/ws?userId=gold`);
    for (let i = 0; i < 2; i++) await connect(`${url}/ws?userId=tin`);
    expect(reasonOf(await refusal(`${url}/ws?userId=tin`))).toEqual([429, 'over_limit']);
    expect(service.managersOf('gold')).toHaveLength(5);
  });

  it.each([0, -1, 1.5, Number.NaN, '3', undefined])('a function that returns %s refuses', async (limit) => {
    const { url, of } = await startApp({ options: { limits: { managersPerUser: () => limit as number } } });
    expect(reasonOf(await refusal(`${url}/ws?userId=alice`))).toEqual([500, 'internal']);
    expect(of('hook_failed').map(({ hook }) => hook)).toEqual(['limits.managersPerUser']);
  });

  it('let a newcomer in after the time that it was told, at the cost of one session', async () => {
    const { url, service } = await startApp({
      options: {
        limits: { managersPerUser: 2 },
        cleanup: { graceMs: 600 },
        heartbeat: { probeTimeoutMs: 100 },
      },
    });
    const first = await connect(`${url}/ws?userId=alice`);
    const second = await connect(`${url}/ws?userId=alice`);
    const { body } = await refusal(`${url}/ws?userId=alice`);
    const { retryAfterMs } = body as { retryAfterMs: number };
    expect(retryAfterMs).toBeLessThanOrEqual(600);
    await sleep(retryAfterMs);
    await connect(`${url}/ws?userId=alice`);
    expect(await first.closed()).toEqual({ code: 4510, reason: 'evicted' });
    expect(first.received).toEqual([
      { event: 'ws:closing', data: { code: 4510, reason: 'evicted', retryable: false } },
    ]);
    expect(await second.echo('mine')).toBe('mine');
    expect(service.managersOf('alice')).toHaveLength(2);
  });

  it('of a full node refuse newcomers, while who is here may trade a session that was left', async () => {
    const { url, service } = await startApp({
      options: { limits: { managersPerNode: 2 }, cleanup: { graceMs: 0 } },
    });
    const alice = await connect(`${url}/ws?userId=alice`);
    const bob = await connect(`${url}/ws?userId=bob&sessionKey=left`);
    expect(reasonOf(await refusal(`${url}/ws?userId=carol`))).toEqual([503, 'try_later']);
    expect(reasonOf(await refusal(`${url}/ws?userId=bob`))).toEqual([503, 'try_later']);
    expect([await alice.echo('a'), await bob.echo('b')]).toEqual(['a', 'b']);
    await bob.leave();
    await vi.waitFor(() => expect(service.managersOf('bob')[0]?.status).toBe('inactive'));
    const again = await connect(`${url}/ws?userId=bob`);
    expect([await alice.echo('a'), await again.echo('b')]).toEqual(['a', 'b']);
    await alice.leave();
    await vi.waitFor(() => expect(service.managersOf('alice')).toEqual([]));
    await connect(`${url}/ws?userId=carol`);
  });

  it('wait for a slot where they are told to, first come first served', async () => {
    const { url, service } = await startApp({
      options: { limits: { managersPerUser: 1 }, admission: { queueTimeoutMs: 3_000 } },
    });
    const first = await connect(`${url}/ws?userId=alice`);
    const second = connect(`${url}/ws?userId=alice`);
    await sleep(100);
    expect(service.managersOf('alice')).toHaveLength(1);
    await first.leave();
    expect(await (await second).echo('in')).toBe('in');
  });
});
