import { readFileSync } from 'node:fs';
import { SignJWT } from 'jose';
import request from 'supertest';
import { afterEach, describe, expect, it } from 'vitest';
import { ADMIN_TOKEN, type Server, startServer } from '../support/server.js';
import { enter, knock } from '../support/stranger.js';

let server: Server | undefined;
async function start(env: NodeJS.ProcessEnv = {}): Promise<Server> {
  server = await startServer(env);
  return server;
}
afterEach(async () => {
  await server?.stop();
  server = undefined;
});

describe("the operator's token", () => {
  it('is the whole of it and nothing else', async () => {
    const { url } = await start();
    const flipped = (at: number) =>
      ADMIN_TOKEN.slice(0, at) +
      String.fromCharCode(ADMIN_TOKEN.charCodeAt(at) ^ 1) +
      ADMIN_TOKEN.slice(at + 1);
    const wrong = [
      ...Array.from({ length: ADMIN_TOKEN.length }, (_, i) => ADMIN_TOKEN.slice(0, i)),
      ...Array.from({ length: ADMIN_TOKEN.length }, (_, i) => flipped(i)),
      ADMIN_TOKEN.toUpperCase(),
      `${ADMIN_TOKEN}a`,
      `a${ADMIN_TOKEN}`,
      `${ADMIN_TOKEN},${ADMIN_TOKEN}`,
      `${ADMIN_TOKEN} ${ADMIN_TOKEN}`,
      'x'.repeat(10_000),
      '\u00e9\u00ff',
    ];
    for (const token of wrong) {
      const answer = await request(url)
        .get('/websocket-managers/api/overview')
        .set('Authorization', `Bearer ${token}`);
      expect([token, answer.status]).toEqual([token, 401]);
    }
    const { status } = await request(url)
      .get('/websocket-managers/api/overview')
      .set('Authorization', `Bearer ${ADMIN_TOKEN}`);
    expect(status).toBe(200);
  });
});

describe('secrets', () => {
  const SECRET = 'a secret of the tests, which is long enough for HS256';

  it('are in no log line and in no answer, whatever goes wrong', async () => {
    const { url, socketUrl } = bound(
      await start({ WSM_AUTH: 'jwt', WSM_JWT_SECRET: SECRET, WSM_MANAGERS_PER_USER: '1' }),
    );
    const sign = (claims: object, secret: string) =>
      new SignJWT({ ...claims }).setProtectedHeader({ alg: 'HS256' }).sign(new TextEncoder().encode(secret));
    const good = await sign({ sub: 'alice' }, SECRET);
    const tokens = [
      good,
      await sign({ sub: 'alice' }, `another ${SECRET}`),
      await sign({ sub: 'alice', exp: 1 }, SECRET),
      await sign({ sub: 'a\nb' }, SECRET),
      'not-a-token-but-still-mine',
    ];
    const marker = 'only-in-the-query';
    const answers: string[] = [];
    for (const token of tokens) {
      for (const path of ['/ws', '/nowhere']) {
        for (const origin of [undefined, 'https://evil.example']) {
          const headers = { authorization: `Bearer ${token}`, ...(origin && { origin }) };
          const byHeader = await knock(socketUrl({ note: marker }, path), { headers });
          const byQuery = await knock(socketUrl({ access_token: token, note: marker }, path), {
            headers: origin ? { origin } : {},
          });
          for (const { client, refusal } of [byHeader, byQuery]) {
            if (refusal) answers.push(JSON.stringify(refusal));
            else answers.push(JSON.stringify(client?.frames));
          }
        }
      }
      const admin = await request(url)
        .get(`/websocket-managers/api/users/alice?note=${marker}`)
        .set('Authorization', `Bearer ${token}`);
      answers.push(JSON.stringify([admin.headers, admin.text]));
    }
    const wrongBody = await request(url)
      .post(`/websocket-managers/api/users/alice/cleanup?note=${marker}`)
      .set('Authorization', `Bearer ${ADMIN_TOKEN}`)
      .set('Content-Type', 'application/json')
      .send('{"level":');
    expect(wrongBody.status).toBe(400);
    answers.push(JSON.stringify([wrongBody.headers, wrongBody.text]));
    const told = answers.join('\n');
    expect(answers.length).toBeGreaterThan(40);
    for (const secret of [SECRET, ADMIN_TOKEN, marker, ...tokens]) {
      expect([secret, server?.log.includes(secret)]).toEqual([secret, false]);
      expect([secret, told.includes(secret)]).toEqual([secret, false]);
    }
    expect(server?.log).not.toMatch(/eyJ[\w-]{10}/);
  });

  it('that are too short to keep anything secret are warned of at the start, and not shown', async () => {
    const secret = 'only-thirty-one-bytes-are-short';
    const weak = await start({ WSM_AUTH: 'jwt', WSM_JWT_SECRET: secret });
    expect(weak.log).toMatch(/WARN .*WSM_JWT_SECRET is shorter than 32 bytes/);
    expect(weak.log).not.toContain(secret);
  });
});

function bound(running: Server): { url: string; socketUrl: Server['socketUrl'] } {
  return { url: running.url, socketUrl: (query, path) => running.socketUrl(query, path) };
}

describe('a refused upgrade', () => {
  const MANY = 1_500;

  /** User and system time of the server, in clock ticks of 10 ms. */
  const cpuMs = (): number => {
    const fields = readFileSync(`/proc/${server?.pid}/stat`, 'utf8')
      .replace(/^.*\) /, '')
      .split(' ');
    return 10 * (Number(fields[11]) + Number(fields[12]));
  };

  async function costOf(ask: (i: number) => Promise<unknown>): Promise<number> {
    const before = cpuMs();
    let next = 0;
    const work = async () => {
      while (next < MANY) await ask(next++);
    };
    await Promise.all(Array.from({ length: 10 }, work));
    return (cpuMs() - before) / MANY;
  }

  it('costs the server less than one that is accepted, and at the limit not many times as much', {
    timeout: 120_000,
  }, async () => {
    const running = await start({ WSM_GRACE_MS: '60000' });
    const comeAndGo = async (query: Record<string, string>, headers = {}) => {
      const outcome = await knock(running.socketUrl(query), { headers });
      outcome.client?.socket.terminate();
      return outcome;
    };
    const accept = (i: number) => comeAndGo({ userId: `guest-${i}` });
    await costOf(accept);
    for (let i = 0; i < 20; i++) await enter(running.socketUrl({ userId: 'full' }));
    const accepted = await costOf(accept);
    const refused = {
      unauthenticated: await costOf(() => comeAndGo({})),
      forbidden_origin: await costOf(() => comeAndGo({ userId: 'x' }, { origin: 'https://evil.example' })),
      bad_request: await costOf(() => comeAndGo({ userId: '\n' })),
      over_limit: await costOf(() => comeAndGo({ userId: 'full' })),
    };
    console.log(`server CPU for each upgrade: accepted ${accepted.toFixed(3)} ms`);
    for (const [reason, ms] of Object.entries(refused)) {
      console.log(`  ${reason}: ${ms.toFixed(3)} ms, ratio ${(ms / accepted).toFixed(2)}`);
      // A tick of the system's clock is 10 ms, and the machine is shared. At the limit all who are there are asked.
      const most = reason === 'over_limit' ? 4 : 1.5;
      expect([reason, ms / accepted < most]).toEqual([reason, true]);
    }
  });
});
