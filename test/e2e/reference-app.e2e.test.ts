import { createHmac } from 'node:crypto';
import { SignJWT, UnsecuredJWT } from 'jose';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Server, startServer } from '../support/server.js';
import { enter, knock, type Stranger, until } from '../support/stranger.js';

describe('the chat', () => {
  let server: Server;
  beforeAll(async () => {
    server = await startServer();
  });
  afterAll(() => server.stop());

  it('tells each client first which session it has, and that a second one of it has joined', async () => {
    const url = server.socketUrl({ userId: 'alice', sessionKey: 'tab-1' });
    const first = await enter(url);
    expect(first.frames).toEqual([
      {
        event: 'session',
        data: { managerId: expect.any(String), userId: 'alice', sessionKey: 'tab-1', joined: false },
      },
    ]);
    const second = await enter(url);
    expect(second.session).toEqual({ ...first.session, joined: true });
    const other = await enter(server.socketUrl({ userId: 'alice' }));
    expect(other.session).toMatchObject({ sessionKey: null, joined: false });
    expect(other.session.managerId).not.toBe(first.session.managerId);
  });

  it('echoes whatever it is sent, in order', async () => {
    const client = await enter(server.socketUrl({ userId: 'bob' }));
    const data = [
      'text',
      42,
      null,
      true,
      ['a', { b: [] }],
      { deep: { '\u{1f600}': 'x'.repeat(10_000) } },
      '',
    ];
    for (const one of data) client.send('echo', one);
    await until(() => client.of('echo').length === data.length, 2_000, 'the echoes');
    expect(client.of('echo')).toEqual(data);
  });

  it('streams an answer word by word, and says when it is done', async () => {
    const client = await enter(server.socketUrl({ userId: 'carol' }));
    client.send('ask', { prompt: 'What is a zombie?' });
    await until(() => client.frames.some(({ event }) => event === 'done'), 5_000, 'the answer');
    const tokens = client.of('token') as { text: string }[];
    expect(tokens.length).toBeGreaterThan(5);
    expect(tokens.map(({ text }) => text).join('')).toContain('What is a zombie?');
    const events = client.frames.map(({ event }) => event);
    expect(events).toEqual(['session', ...tokens.map(() => 'token'), 'done']);
  });

  it('survives what is not a message of it', async () => {
    const client = await enter(server.socketUrl({ userId: 'dave' }));
    for (const text of ['', 'nonsense', '[]', 'null', '{"event":"no such"}', '{"event":"__proto__"}', '{}']) {
      client.socket.send(text);
    }
    client.send('ask', { prompt: '' });
    client.send('ask', undefined);
    await client.echo('still there');
    expect(client.closed).toBeUndefined();
  });
});

describe('authentication by token', () => {
  const SECRET = 'a secret that is long enough for HS256';
  let server: Server;
  beforeAll(async () => {
    server = await startServer({ WSM_AUTH: 'jwt', WSM_JWT_SECRET: SECRET, WSM_HEARTBEAT_INTERVAL_MS: '200' });
  });
  afterAll(() => server.stop());

  const inSeconds = (seconds: number) => Math.floor(Date.now() / 1_000) + seconds;
  const token = (claims: Record<string, unknown>, secret = SECRET, alg = 'HS256') =>
    new SignJWT(claims).setProtectedHeader({ alg }).sign(new TextEncoder().encode(secret));
  const bearer = (jwt: string) => ({ headers: { authorization: `Bearer ${jwt}` } });

  it('takes the token from the header, the query or the subprotocol', async () => {
    const jwt = await token({ sub: 'alice', exp: inSeconds(60) });
    const byHeader = await enter(server.socketUrl({ sessionKey: 'a' }), bearer(jwt));
    expect(byHeader.session).toMatchObject({ userId: 'alice', sessionKey: 'a' });
    const byQuery = await enter(server.socketUrl({ access_token: jwt }));
    expect(byQuery.session.userId).toBe('alice');
    const byProtocol = await enter(server.socketUrl(), { protocols: [jwt] });
    expect(byProtocol.session.userId).toBe('alice');
  });

  it('believes the token and not the query', async () => {
    const jwt = await token({ sub: 'alice' });
    const client = await enter(server.socketUrl({ userId: 'mallory' }), bearer(jwt));
    expect(client.session.userId).toBe('alice');
    expect((await knock(server.socketUrl({ userId: 'mallory' }))).refusal?.status).toBe(401);
  });

  it('refuses every token that it did not sign, or that is no longer good', async () => {
    const good = await token({ sub: 'alice' });
    const [head, , signature] = good.split('.');
    const forged = Buffer.from(JSON.stringify({ sub: 'mallory' })).toString('base64url');
    const none = Buffer.from('{"alg":"none"}').toString('base64url');
    const hs512 = createHmac('sha512', SECRET).update(`x.${forged}`).digest('base64url');
    const bad: Record<string, string> = {
      'another secret': await token({ sub: 'alice' }, 'another secret, long enough for HS256'),
      'another algorithm': await token({ sub: 'alice' }, SECRET.repeat(2), 'HS512'),
      'a signature of another algorithm': `${head}.${forged}.${hs512}`,
      expired: await token({ sub: 'alice', exp: inSeconds(-1) }),
      'not yet valid': await token({ sub: 'alice', nbf: inSeconds(60) }),
      'no subject': await token({ name: 'alice' }),
      'algorithm none': new UnsecuredJWT({ sub: 'alice' }).encode(),
      'algorithm none with a signature': `${none}.${forged}.${signature}`,
      'other claims under a good signature': `${head}.${forged}.${signature}`,
      'no token at all': 'nonsense',
      'three dots': '...',
    };
    for (const [what, jwt] of Object.entries(bad)) {
      const { refusal } = await knock(server.socketUrl(), bearer(jwt));
      expect([what, refusal?.status, refusal?.body.reason]).toEqual([what, 401, 'unauthenticated']);
    }
    expect((await knock(server.socketUrl())).refusal?.status).toBe(401);
    expect(server.log).not.toContain(good);
  });

  it('refuses a subject that cannot be a user', async () => {
    for (const sub of ['', 'a\nb', 'x'.repeat(257)]) {
      const { refusal } = await knock(server.socketUrl(), bearer(await token({ sub })));
      expect(refusal?.status).toBe(400);
      expect(refusal?.body.reason).toBe('bad_request');
    }
  });

  it('ends the connection when the token does', async () => {
    const exp = inSeconds(2);
    const client: Stranger = await enter(server.socketUrl(), bearer(await token({ sub: 'alice', exp })));
    expect(await client.whenClosed(4_000)).toEqual({ code: 4106, reason: 'token_expired' });
    expect(Date.now()).toBeGreaterThanOrEqual(exp * 1_000 - 20);
    expect(Date.now()).toBeLessThan(exp * 1_000 + 500);
    expect(client.of('ws:closing')).toEqual([{ code: 4106, reason: 'token_expired', retryable: true }]);
  });
});
