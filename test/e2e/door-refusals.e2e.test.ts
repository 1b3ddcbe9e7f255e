import { STATUS_CODES } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { WebSocketGateway, WebSocketServer } from '@nestjs/websockets';
import { describe, expect, it, vi } from 'vitest';
import type { WebSocketManagerOptions } from '../../src/index.js';
import { byQuery, EchoGateway, type RunningApp, startApp } from '../support/app.js';
import { attempt, Client, connect, type HttpRefusal, refusal } from '../support/client.js';

/** A body has these keys, and no others. */
function expectRefusal({ status, headers, body }: HttpRefusal, expected: number, reason: string): number {
  const retryAfterMs = (body as { retryAfterMs?: number }).retryAfterMs;
  expect(status).toBe(expected);
  expect(body).toStrictEqual({
    statusCode: expected,
    error: STATUS_CODES[expected],
    reason,
    message: expect.stringMatching(/\S/),
    ...(retryAfterMs === undefined ? {} : { retryAfterMs: expect.any(Number) }),
  });
  expect(headers['content-type']).toMatch(/^application\/json/);
  expect(headers['retry-after']).toBe(
    retryAfterMs === undefined ? undefined : String(Math.ceil(retryAfterMs / 1_000)),
  );
  return retryAfterMs ?? Number.NaN;
}

/** Told in one frame, then closed with the code; and not at once, so that a loop of reconnects stays slow. */
async function expectClose(
  url: string,
  { code, reason, retryable }: { code: number; reason: string; retryable: boolean },
  options = fromBrowser(url),
): Promise<number> {
  const client = await connect(url, options);
  const openedAt = performance.now();
  client.send('echo', 'nobody hears this');
  expect(await client.closed()).toEqual({ code, reason });
  expect(performance.now() - openedAt).toBeGreaterThan(150);
  expect(client.received).toHaveLength(1);
  const [frame] = client.received as [{ event: string; data: { retryAfterMs?: number } }];
  const { retryAfterMs } = frame.data;
  expect(frame).toStrictEqual({
    event: 'ws:closing',
    data: { code, reason, retryable, ...(retryAfterMs === undefined ? {} : { retryAfterMs }) },
  });
  return retryAfterMs ?? Number.NaN;
}

/** A browser on a page of the same host. */
function fromBrowser(url: string): { origin: string } {
  return { origin: `http://${new URL(url).host}` };
}

@WebSocketGateway({ path: '/ws' })
class SlowToLeaveGateway {
  async handleDisconnect(): Promise<void> {
    await sleep(1_500);
  }
}

/** Sends to everybody, as many gateways do. */
@WebSocketGateway({ path: '/ws' })
class NewsGateway {
  @WebSocketServer() private readonly server!: { readonly clients: Iterable<{ send(data: string): void }> };

  tellAll(event: string): void {
    for (const client of this.server.clients) client.send(JSON.stringify({ event }));
  }
}

interface Case {
  readonly title: string;
  readonly options: Partial<WebSocketManagerOptions>;
  readonly gateway?: typeof SlowToLeaveGateway;
  /** What has to happen first. */
  readonly before?: (running: RunningApp) => unknown;
  readonly http: number;
  readonly close: { code: number; reason: string; retryable: boolean };
  /** The longest that `retryAfterMs` may be; absent: there is none. */
  readonly retryAtMost?: number;
}

const CASES: Case[] = [
  {
    title: 'not authenticated',
    options: { authenticate: () => null },
    http: 401,
    close: { code: 4501, reason: 'unauthenticated', retryable: false },
  },
  {
    title: 'user at the limit, and everybody in the grace',
    options: {
      limits: { managersPerUser: 1 },
      cleanup: { graceMs: 5_000, forcedEvictionRefillMs: 1_000 },
      heartbeat: { probeTimeoutMs: 100 },
    },
    before: ({ url }) => connect(`${url}/ws?userId=alice`),
    http: 429,
    close: { code: 4129, reason: 'over_limit', retryable: true },
    retryAtMost: 5_000,
  },
  {
    title: 'node full',
    options: { limits: { managersPerNode: 1 } },
    before: ({ url }) => connect(`${url}/ws?userId=bob`),
    http: 503,
    close: { code: 1013, reason: 'try_later', retryable: true },
    retryAtMost: 10_000,
  },
  {
    title: 'draining',
    options: { drain: { spreadMs: 0, timeoutMs: 3_000 } },
    gateway: SlowToLeaveGateway,
    before: async ({ url, of, close }) => {
      const client = await connect(`${url}/ws?userId=bob`);
      void close();
      await client.closed();
      expect(of('draining')).toHaveLength(1);
    },
    http: 503,
    close: { code: 1012, reason: 'draining', retryable: true },
    retryAtMost: 10_000,
  },
  {
    title: 'authenticate failed',
    options: {
      authenticate: () => {
        throw new Error('the directory is away');
      },
    },
    http: 500,
    close: { code: 1011, reason: 'internal', retryable: true },
  },
  {
    title: 'limit function failed',
    options: {
      limits: {
        managersPerUser: () => {
          throw new Error('no such tier');
        },
      },
    },
    http: 500,
    close: { code: 1011, reason: 'internal', retryable: true },
  },
];

describe.each(CASES)('refused: $title', ({ options, gateway, before, http, close, retryAtMost }) => {
  const start = async (rejectWith: 'auto' | 'http' | 'close') => {
    const running = await startApp({
      options: { ...options, admission: { rejectWith } },
      gateways: [gateway ?? EchoGateway],
    });
    await before?.(running);
    return { running, url: `${running.url}/ws?userId=alice` };
  };
  const expectRetry = (retryAfterMs: number) => {
    if (retryAtMost === undefined) expect(retryAfterMs).toBeNaN();
    else expect(retryAfterMs).toBeGreaterThan(0);
    if (retryAtMost !== undefined) expect(retryAfterMs).toBeLessThanOrEqual(retryAtMost);
  };

  it(`by ${http} without an Origin, and by close ${close.code} with one`, async () => {
    const { running, url } = await start('auto');
    const managersBefore = running.service.managersOf('alice').length;
    expectRetry(expectRefusal(await refusal(url), http, close.reason));
    expectRetry(await expectClose(url, close));
    expect(running.of('rejected').map(({ reason }) => reason)).toEqual([close.reason, close.reason]);
    expect(running.service.managersOf('alice')).toHaveLength(managersBefore);
  });

  it('by HTTP for everybody where rejectWith is http', async () => {
    const { url } = await start('http');
    expectRetry(expectRefusal(await refusal(url, fromBrowser(url)), http, close.reason));
  });

  it('by close for everybody where rejectWith is close', async () => {
    const { url } = await start('close');
    expectRetry(await expectClose(url, close, {} as never));
  });
});

describe('refused by HTTP, whatever rejectWith says', () => {
  it('403 for an origin that is not allowed', async () => {
    const { url, service } = await startApp({ options: { admission: { rejectWith: 'close' } } });
    const answer = await refusal(`${url}/ws?userId=alice`, { origin: 'https://elsewhere.example' });
    expectRefusal(answer, 403, 'forbidden_origin');
    expect(service.managersOf('alice')).toEqual([]);
  });

  it.each([
    ['empty user id', 'userId='],
    ['user id of 257 characters', `userId=${'a'.repeat(257)}`],
    ['user id with a control character', 'userId=a%00b'],
    ['user id with a line break', 'userId=a%0Ab'],
    ['empty session key', 'userId=alice&sessionKey='],
    ['session key of 257 characters', `userId=alice&sessionKey=${'k'.repeat(257)}`],
    ['session key with a control character', 'userId=alice&sessionKey=%1b'],
  ])('400 for: %s', async (_title, query) => {
    const { url, events } = await startApp({ options: { admission: { rejectWith: 'close' } } });
    expectRefusal(await refusal(`${url}/ws?${query}`, fromBrowser(url)), 400, 'bad_request');
    expect(events.map(({ type }) => type)).toEqual(['rejected']);
  });
});

describe('names at the edge of what is allowed are users like any other', () => {
  it.each(['__proto__', 'constructor', 'a'.repeat(256), '%F0%9F%90%88', '..%2F..%2Fetc'])(
    '%s',
    async (id) => {
      const { url, service } = await startApp({ options: { limits: { managersPerUser: 1 } } });
      const client = await connect(`${url}/ws?userId=${id}&sessionKey=${id}`);
      expect(await client.echo('hello')).toBe('hello');
      expect(service.managersOf(decodeURIComponent(id))).toHaveLength(1);
      expectRefusal(await refusal(`${url}/ws?userId=${id}`), 429, 'over_limit');
      await connect(`${url}/ws?userId=alice`);
      expect(service.managersOf('alice')).toHaveLength(1);
    },
  );
});

describe('browsers that are refused and held for a moment', () => {
  it('are at most twenty of one address; the rest is told by HTTP, and later there is room again', async () => {
    const { url } = await startApp();
    const nobody = `${url}/ws`;
    const crowd = await Promise.all(Array.from({ length: 25 }, () => attempt(nobody, fromBrowser(url))));
    const held = crowd.filter((outcome) => outcome instanceof Client);
    const told = crowd.filter((outcome) => !(outcome instanceof Client));
    expect([held.length, told.length]).toEqual([20, 5]);
    for (const answer of told) expectRefusal(answer as HttpRefusal, 401, 'unauthenticated');
    for (const client of held) expect((await client.closed()).code).toBe(4501);
    await vi.waitFor(async () => {
      await connect(nobody, fromBrowser(url));
    });
  });

  it('take no slot and reach no gateway', async () => {
    const connected = vi.fn();
    @WebSocketGateway({ path: '/ws' })
    class Gateway {
      handleConnection = connected;
      handleDisconnect = connected;
    }
    const { url, of } = await startApp({
      gateways: [Gateway],
      options: { authenticate: (request) => (request.headers.origin ? null : byQuery(request)) },
    });
    await expectClose(`${url}/ws?userId=alice`, {
      code: 4501,
      reason: 'unauthenticated',
      retryable: false,
    });
    expect(of('attached')).toEqual([]);
    expect(connected).not.toHaveBeenCalled();
  });
});

it('a browser that is refused hears nothing of what the gateway sends to all clients', async () => {
  const { app, url } = await startApp({ gateways: [NewsGateway] });
  const admitted = await connect(`${url}/ws?userId=ada`);
  const refused = await connect(`${url}/ws`, fromBrowser(url));

  app.get(NewsGateway).tellAll('news');

  expect((await admitted.next()).event).toBe('news');
  expect(await refused.closed()).toEqual({ code: 4501, reason: 'unauthenticated' });
  expect(refused.received.map(({ event }) => event)).toEqual(['ws:closing']);
});

it('a browser that is held to be told does not hold the end of the application', async () => {
  const { close, url } = await startApp({ options: { drain: { timeoutMs: 0, spreadMs: 0 } } });
  const refused = await connect(`${url}/ws`, fromBrowser(url));

  await close();

  expect((await refused.closed()).code).toBe(1006);
  expect(refused.received).toEqual([]);
});
