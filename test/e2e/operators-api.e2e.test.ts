import request from 'supertest';
import { afterEach, describe, expect, it } from 'vitest';
import { FreezableClient } from '../support/freezable-client.js';
import { Operator } from '../support/operator.js';
import { ADMIN_TOKEN, type Server, startServer } from '../support/server.js';
import { enter, type Stranger, until } from '../support/stranger.js';

let server: Server;
let operator: Operator;

async function start(env: NodeJS.ProcessEnv = {}): Promise<void> {
  server = await startServer(env);
  operator = new Operator(server);
}

afterEach(() => server.stop());

const urlOf = (userId: string, sessionKey?: string) =>
  server.socketUrl({ userId, ...(sessionKey === undefined ? {} : { sessionKey }) });

async function enterMany(userId: string, count: number): Promise<Stranger[]> {
  const clients: Stranger[] = [];
  while (clients.length < count) clients.push(await enter(urlOf(userId)));
  return clients;
}

const ISO = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;

interface UserPage {
  readonly users: readonly { readonly userId: string }[];
  readonly total: number;
  readonly next: string | null;
  readonly unanswered: readonly string[];
}

const ODD_IDS = [
  'zoë ☕ 日本語',
  '100%',
  'a/b/../c',
  '?x=1#y',
  '__proto__',
  'constructor',
  ' leading and trailing ',
  'plus+and&equals=',
  '\u{1f600}'.repeat(128),
  "'; DROP TABLE users; --",
];

describe('without the token', () => {
  const routes: ['get' | 'post' | 'delete', string][] = [
    ['get', 'overview'],
    ['get', 'users'],
    ['get', 'users/alice'],
    ['post', 'users/alice/cleanup'],
    ['post', 'users/alice/disconnect'],
    ['delete', 'managers/some-id'],
    ['get', 'evictions'],
    ['get', 'events'],
  ];
  const wrong = {
    'no header': undefined,
    'a wrong token': 'Bearer wrong',
    'the token with more behind it': `Bearer ${ADMIN_TOKEN}x`,
    'half of the token': `Bearer ${ADMIN_TOKEN.slice(0, 5)}`,
    'another scheme': `Basic ${Buffer.from(`admin:${ADMIN_TOKEN}`).toString('base64')}`,
    'no scheme': ADMIN_TOKEN,
    'no token': 'Bearer ',
  };

  it('nothing is told and nothing is done, on any route', async () => {
    await start();
    const [alice] = await enterMany('alice', 1);
    for (const [method, path] of routes) {
      for (const [what, authorization] of Object.entries(wrong)) {
        const asked = request(server.url)[method](`/websocket-managers/api/${path}`);
        const { status, text } = await (authorization ? asked.set('Authorization', authorization) : asked);
        expect([method, path, what, status]).toEqual([method, path, what, 401]);
        expect(text).not.toContain('managers');
      }
    }
    expect(alice?.closed).toBeUndefined();
  });
});

describe('what is shown', () => {
  it('of a user is who they are and every session that they have', async () => {
    await start({ WSM_MANAGERS_PER_USER: '4' });
    const { session } = await enter(urlOf('alice', 'tab-1'));
    await enter(urlOf('alice', 'tab-1'));
    await enter(urlOf('alice'));
    const { body } = await operator.get('users/alice').expect(200).expect('Content-Type', /json/);
    const connection = {
      id: expect.any(String),
      state: 'open',
      missedPongs: 0,
      bufferedBytes: 0,
      openedAt: expect.stringMatching(ISO),
    };
    const manager = {
      id: expect.any(String),
      sessionKey: null,
      status: expect.stringMatching(/^(healthy|unknown)$/),
      score: expect.any(Number),
      busy: false,
      priority: 0,
      createdAt: expect.stringMatching(ISO),
      lastActivityAt: expect.stringMatching(ISO),
      connections: [connection],
    };
    const first = {
      ...manager,
      id: session.managerId,
      sessionKey: 'tab-1',
      connections: [connection, connection],
    };
    expect(body).toStrictEqual({
      userId: 'alice',
      limit: 4,
      pressure: 0.5,
      breaker: 'closed',
      managers: [first, manager],
    });
    expect(Math.abs(Date.parse(body.managers[0].createdAt) - Date.now())).toBeLessThan(10_000);
  });

  it('of one who is not here is an empty list', async () => {
    await start();
    await operator.get('users/nobody').expect(200, {
      userId: 'nobody',
      limit: 20,
      pressure: 0,
      breaker: 'closed',
      managers: [],
    });
    await operator.post('users/nobody/disconnect').expect(200, { disconnected: 0 });
    const { body } = await operator.post('users/nobody/cleanup', { level: 'aggressive' }).expect(200);
    expect(body).toMatchObject({ examined: 0, evicted: [], freed: 0, outcome: 'nothing_to_do' });
    const overview = await operator.get('overview').expect(200);
    expect(overview.body).toMatchObject({ status: 'up', managers: 0, users: 0 });
  });

  it('of all users is those under the most pressure first, from a pressure on and up to a number', async () => {
    await start({ WSM_MANAGERS_PER_USER: '4' });
    for (const [userId, count] of [
      ['one', 1],
      ['three', 3],
      ['two', 2],
      ['four', 4],
    ] as const) {
      await enterMany(userId, count);
    }
    const idsAt = async (query: string) => {
      const { body } = await operator.get(`users${query}`).expect(200);
      return body.users.map(({ userId }: { userId: string }) => userId);
    };
    expect(await idsAt('')).toEqual(['four', 'three', 'two', 'one']);
    expect(await idsAt('?minPressure=0.5')).toEqual(['four', 'three', 'two']);
    expect(await idsAt('?minPressure=0.75')).toEqual(['four', 'three']);
    expect(await idsAt('?minPressure=1&limit=5')).toEqual(['four']);
    expect(await idsAt('?limit=2')).toEqual(['four', 'three']);
    for (const query of [
      'minPressure=x',
      'minPressure=-1',
      'minPressure=',
      'limit=0',
      'limit=1.5',
      'limit=x',
      'limit=1&limit=2',
      'after=x',
      'after=',
      'after=1&after=2',
      `after=${Buffer.from('["1","alice"]').toString('base64url')}`,
    ]) {
      const { body } = await operator.get(`users?${query}`).expect(400);
      expect(body.message).toMatch(/^(minPressure|limit|after): got .*; allowed: /);
    }
  });

  it('of all users comes in pages, each user once, while others come and go', async () => {
    await start({ WSM_MANAGERS_PER_USER: '4' });
    const ids = ['b', 'a', 'd', 'c', 'zoë ☕', '__proto__'];
    for (const userId of ids) await enterMany(userId, 1);
    await enterMany('first', 2);
    const { body: all } = await operator.get('users').expect(200);
    expect(all).toEqual({ users: expect.any(Array), total: 7, next: null, unanswered: [] });
    const seen: string[] = [];
    let next: string | null = '';
    for (let page = 0; next !== null; page++) {
      const { body }: { body: UserPage } = await operator
        .get(`users?limit=2${next && `&after=${next}`}`)
        .expect(200);
      expect(body.users.length).toBe(page < 3 ? 2 : 1);
      expect([body.total, body.unanswered]).toEqual([page === 0 ? 7 : 8, []]);
      seen.push(...body.users.map(({ userId }) => userId));
      next = body.next;
      // Sorts before what was listed, and is not listed: what was, is not listed again.
      if (page === 0) await enterMany('newcomer', 3);
    }
    expect(seen).toEqual(['first', ...ids.toSorted()]);
  });

  it('is refused where the query has a parameter that the route does not know, and names it', async () => {
    await start();
    const [client] = await enterMany('alice', 1);
    const secret = 'a-value-that-may-be-secret';
    const none = 'allowed: no parameters';
    const routes: ['get' | 'post' | 'delete', string, string][] = [
      ['get', 'overview', none],
      ['get', 'users', 'allowed: minPressure, limit, after'],
      ['get', 'users/alice', none],
      ['post', 'users/alice/cleanup', none],
      ['post', 'users/alice/disconnect', none],
      ['delete', `managers/${client?.session.managerId}`, none],
      ['get', 'evictions', none],
      ['get', 'events', none],
    ];
    for (const [method, path, allowed] of routes) {
      const query = `minPresure=${secret}&Limit=1`;
      const { body, text } = await operator[method](`${path}?${query}`).expect(400);
      expect([path, body.message]).toEqual([path, `query: got "minPresure", "Limit"; ${allowed}`]);
      expect(text).not.toContain(secret);
    }
    await operator.get('users?limit=1&__proto__=1&constructor=1').expect(400);
    expect(client?.closed).toBeUndefined();
  });

  it('of evictions is an object with the newest first, with times in ISO 8601', async () => {
    await start();
    await operator.get('evictions').expect(200, { evictions: [], total: 0, next: null, unanswered: [] });
    const [first, second] = (await enterMany('alice', 2)) as [Stranger, Stranger];
    for (const { session } of [first, second]) await operator.delete(`managers/${session.managerId}`);
    const { body } = await operator.get('evictions').expect(200);
    expect(body).toEqual({ evictions: expect.any(Array), total: 2, next: null, unanswered: [] });
    expect(body.evictions.map((one: { managerId: string }) => one.managerId)).toEqual([
      second.session.managerId,
      first.session.managerId,
    ]);
    for (const { at, createdAt } of body.evictions) {
      expect([at, createdAt]).toEqual([expect.stringMatching(ISO), expect.stringMatching(ISO)]);
      expect(Date.parse(at)).toBeGreaterThanOrEqual(Date.parse(createdAt));
      expect(Math.abs(Date.parse(at) - Date.now())).toBeLessThan(10_000);
    }
  });

  it('of a connection says since when it is a suspect, and only while it is one', async () => {
    await start({ WSM_HEARTBEAT_INTERVAL_MS: '60000' });
    const [live] = await enterMany('alice', 1);
    const slow = await FreezableClient.open([urlOf('alice')]);
    try {
      const since = async () => {
        const { managers } = await operator.user('alice');
        return managers.map(({ connections: [connection] }) => connection?.suspectSince);
      };
      expect(await since()).toEqual([undefined, undefined]);
      await slow.freeze();
      const frozenAt = Date.now();
      // It probes, and makes a suspect a second later.
      const cleaned = operator.post('users/alice/cleanup', { level: 'aggressive' }).expect(200);
      const isAnswered = cleaned.then(() => true);
      await until(async () => (await since()).some(Boolean), 2_000, 'the suspicion');
      const [ofLive, ofSlow] = await since();
      expect([ofLive, ofSlow]).toEqual([undefined, expect.stringMatching(ISO)]);
      const sinceFrozenMs = Date.parse(ofSlow ?? '') - frozenAt;
      expect(sinceFrozenMs).toBeGreaterThan(0);
      expect(sinceFrozenMs).toBeLessThan(2_000);
      slow.thaw();
      await isAnswered;
      await until(async () => !(await since()).some(Boolean), 2_000, 'the recovery');
      expect((await operator.user('alice')).managers[1]?.connections[0]).not.toHaveProperty('suspectSince');
      expect(live?.closed).toBeUndefined();
    } finally {
      await slow.kill();
    }
  });

  it('is of the user that is meant, whatever the user is called', async () => {
    await start();
    for (const userId of ODD_IDS) {
      const [client] = await enterMany(userId, 1);
      expect(client?.session.userId).toBe(userId);
      expect((await operator.user(userId)).userId).toBe(userId);
      expect(await operator.managersOf(userId)).toEqual([client?.session.managerId]);
      const { body } = await operator.get('users').expect(200);
      expect(body.users.map((user: { userId: string }) => user.userId)).toEqual([userId]);
      await operator.post(`users/${encodeURIComponent(userId)}/disconnect`).expect(200, { disconnected: 1 });
      expect(await client?.whenClosed()).toEqual({ code: 4520, reason: 'terminated_by_admin' });
    }
  });

  it('is nothing for a user id that could not be one', async () => {
    await start();
    const { body } = await operator.get(`users/${'x'.repeat(257)}`).expect(400);
    expect(body.message).toBe('userId: got 257 characters; allowed: at most 256');
    await operator.get('users/%E0%A4%A').expect(400);
  });
});

describe('an order', () => {
  it('to end one manager reaches its client, and is refused for one that is not there', async () => {
    await start();
    const [first, second] = (await enterMany('alice', 2)) as [Stranger, Stranger];
    await operator.delete(`managers/${first.session.managerId}`).expect(200);
    expect(await first.whenClosed()).toEqual({ code: 4520, reason: 'terminated_by_admin' });
    expect(first.of('ws:closing')).toEqual([{ code: 4520, reason: 'terminated_by_admin', retryable: false }]);
    expect(second.closed).toBeUndefined();
    await operator.delete(`managers/${first.session.managerId}`).expect(404);
  });

  it('to disconnect a user ends all sessions of theirs, and nobody else', async () => {
    await start();
    const clients = await enterMany('alice', 3);
    const [bob] = await enterMany('bob', 1);
    await operator.post('users/alice/disconnect').expect(200, { disconnected: 3 });
    for (const client of clients) expect((await client.whenClosed()).code).toBe(4520);
    expect(bob?.closed).toBeUndefined();
  });
});

describe('the stream of events', () => {
  it('tells what happens while it happens', async () => {
    await start();
    const response = await fetch(`${server.url}/websocket-managers/api/events`, {
      headers: { authorization: `Bearer ${ADMIN_TOKEN}` },
    });
    expect(response.headers.get('content-type')).toContain('text/event-stream');
    let text = '';
    const reading = (async () => {
      for await (const chunk of response.body ?? []) text += Buffer.from(chunk).toString();
    })().catch(() => {});
    const [client] = await enterMany('alice', 1);
    await operator.post('users/alice/disconnect').expect(200);
    await client?.whenClosed();
    await until(() => text.includes('event: detached'), 2_000, 'the events');
    const events = [...text.matchAll(/^event: (\w+)$/gm)].map(([, type]) => type);
    expect(events).toEqual(expect.arrayContaining(['admitted', 'attached', 'detached']));
    const admitted = /event: admitted\n(?:id: \d+\n)?data: (.*)/.exec(text)?.[1] ?? 'null';
    expect(JSON.parse(admitted)).toMatchObject({ type: 'admitted', userId: 'alice', outcome: 'admitted' });
    await server.stop();
    await reading;
  });
});
