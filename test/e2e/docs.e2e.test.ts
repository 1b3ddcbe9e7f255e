import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { SignJWT } from 'jose';
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import { WebSocket } from 'ws';
import { attempt, Client, connect, refusal } from '../support/client.js';
import { projects, ROOT, WrittenProjects } from '../support/docs.js';

// What the pages in docs/ tell a newcomer to write is compiled, started as it stands there, and connected to.

const SECRET = 'a secret of at least thirty-two bytes';
const ENVIRONMENT = { JWT_SECRET: SECRET, SESSION_SECRET: 'the secret of the sessions' };
const START_WITHIN_MS = 15_000;

let written: WrittenProjects;

beforeAll(async () => {
  written = new WrittenProjects(projects());
  expect(await written.build()).toEqual([]);
}, 120_000);

afterAll(() => written.remove());

class Application {
  log = '';

  private constructor(
    private readonly child: ChildProcess,
    readonly port: number,
  ) {
    for (const output of [child.stdout, child.stderr]) {
      output?.setEncoding('utf8').on('data', (text: string) => {
        this.log += text;
      });
    }
  }

  /** Starts a project, and waits until it answers. */
  static async start(
    project: string,
    { port, script = 'src/main.js' }: { port?: number; script?: string } = {},
  ): Promise<Application> {
    const at = port ?? (await freePort());
    const child = spawn(process.execPath, [join(written.home(project), script)], {
      env: { PATH: process.env.PATH, NO_COLOR: '1', PORT: String(at), ...ENVIRONMENT },
    });
    onTestFinished(() => void child.kill('SIGKILL'));
    const application = new Application(child, at);
    const endsAt = Date.now() + START_WITHIN_MS;
    while (Date.now() < endsAt && child.exitCode === null) {
      if (await fetch(application.http('/')).catch(() => undefined)) return application;
      await sleep(50);
    }
    throw new Error(`${project} did not start\n${application.log}`);
  }

  http(path: string): string {
    return `http://127.0.0.1:${this.port}${path}`;
  }

  ws(query: Record<string, string> = {}): string {
    return `ws://127.0.0.1:${this.port}/ws?${new URLSearchParams(query)}`;
  }

  async stop(): Promise<unknown[]> {
    const exited = once(this.child, 'exit');
    this.child.kill('SIGTERM');
    return exited;
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  await new Promise((done) => server.close(done));
  return port;
}

const bearer = (token: string) => ({ headers: { authorization: `Bearer ${token}` } });
const AS_ALICE = bearer('token-of-alice');
const AS_BOB = bearer('token-of-bob');

function tokenFor(userId: string, { secret = SECRET, lifetimeS = 60 } = {}): Promise<string> {
  return new SignJWT()
    .setProtectedHeader({ alg: 'HS256' })
    .setSubject(userId)
    .setExpirationTime(Math.floor(Date.now() / 1_000) + lifetimeS)
    .sign(new TextEncoder().encode(secret));
}

/** What somebody hears who may not come in: an HTTP status, or a close code. */
async function told(url: string, options?: Parameters<typeof attempt>[1]): Promise<number> {
  const outcome = await attempt(url, options);
  return outcome instanceof Client ? (await outcome.closed()).code : outcome.status;
}

async function load(project: string, file: string): Promise<Record<string, (...args: never[]) => unknown>> {
  return import(/* @vite-ignore */ join(written.home(project), file));
}

describe('docs/start.md', () => {
  it('has an application that lets in who has a token, and tells everybody what somebody said', async () => {
    const app = await Application.start('start');
    const [alice, bob] = [await connect(app.ws(), AS_ALICE), await connect(app.ws(), AS_BOB)];
    alice.send('say', 'hello');
    const message = { event: 'message', data: { from: 'alice', text: 'hello' } };
    expect([await alice.next(), await alice.next()]).toEqual([message, { event: 'said', data: 2 }]);
    expect(await bob.next()).toEqual(message);
    expect(await (await fetch(app.http('/'))).text()).toBe('Hello World!');
  });

  it('shows what a client sees that is refused', async () => {
    const app = await Application.start('start');
    const { status, body } = await refusal(app.ws());
    expect(status).toBe(401);
    expect(body).toEqual({
      statusCode: 401,
      error: 'Unauthorized',
      reason: 'unauthenticated',
      message: 'Authentication failed',
    });
    expect(await told(app.ws(), bearer('guessed'))).toBe(401);
    expect(await told(app.ws(), { origin: `http://127.0.0.1:${app.port}` })).toBe(4501);
    expect(await told(app.ws(), { ...AS_ALICE, origin: 'https://elsewhere.example' })).toBe(403);
    expect(app.log).toContain('WARN [WebSocketManager] Rejected somebody: unauthenticated');
  });

  it('ends with a goodbye to every client', async () => {
    const app = await Application.start('start');
    const alice = await connect(app.ws(), AS_ALICE);
    // Nest ends the process by the signal that it was sent.
    expect([
      [0, null],
      [null, 'SIGTERM'],
    ]).toContainEqual(await app.stop());
    expect(await alice.closed()).toEqual({ code: 1012, reason: 'draining' });
    expect(alice.received).toEqual([
      {
        event: 'ws:closing',
        data: { code: 1012, reason: 'draining', retryable: true, retryAfterMs: expect.any(Number) },
      },
    ]);
  });

  it('has health and metrics', async () => {
    const app = await Application.start('observed');
    await connect(app.ws(), AS_ALICE);
    const ready = await fetch(app.http('/health/ready'));
    expect([ready.status, await ready.json()]).toMatchObject([
      200,
      { details: { websocket_managers: { connections: 1 } } },
    ]);
    const metrics = await (await fetch(app.http('/metrics'))).text();
    expect(metrics).toMatch(/^websocket_manager_connections 1$/m);
    expect(metrics).toMatch(/^websocket_manager_lockouts_total 0$/m);
    expect(metrics).toMatch(/^websocket_manager_canary_ok 1$/m);
  });

  it('has tests of a gateway that pass', { timeout: 60_000 }, async () => {
    const vitest = join(ROOT, 'node_modules/vitest/vitest.mjs');
    const { stdout } = await promisify(execFile)(
      process.execPath,
      [vitest, 'run', '--root', written.home('tested')],
      { env: { PATH: process.env.PATH, NO_COLOR: '1' } },
    ).catch((error: { stdout: string; stderr: string }) => ({ stdout: error.stdout + error.stderr }));
    expect(stdout).toMatch(/Tests +3 passed \(3\)/);
  });

  it('has a client that comes back when it was told to', { timeout: 60_000 }, async () => {
    const { connect: hold } = await load('start', 'client/connect.js');
    const app = await Application.start('start');
    const sockets: WebSocket[] = [];
    const open = () => {
      const socket = new WebSocket(app.ws(), AS_ALICE);
      socket.on('error', () => {});
      sockets.push(socket);
      return socket;
    };
    const ended = vi.fn();
    hold?.(open as never, vi.fn() as never, ended as never);
    await vi.waitFor(() => expect(sockets[0]?.readyState).toBe(WebSocket.OPEN));
    await app.stop();
    await Application.start('start', { port: app.port });
    await vi.waitFor(() => expect(sockets.at(-1)?.readyState).toBe(WebSocket.OPEN), 20_000);
    expect(sockets.length).toBeGreaterThan(1);
    expect(ended).not.toHaveBeenCalled();
    for (const socket of sockets) socket.removeAllListeners().terminate();
  });

  it('has a client that stays away when it was told to', async () => {
    const { connect: hold } = await load('start', 'client/connect.js');
    const app = await Application.start('sign-out');
    const as = bearer(await tokenFor('alice'));
    const sockets: WebSocket[] = [];
    const open = () => {
      const socket = new WebSocket(app.ws(), as);
      sockets.push(socket);
      return socket;
    };
    const ended = vi.fn();
    hold?.(open as never, vi.fn() as never, ended as never);
    await vi.waitFor(() => expect(sockets[0]?.readyState).toBe(WebSocket.OPEN));
    await fetch(app.http('/sign-out'), { method: 'POST', ...as });
    await vi.waitFor(() => expect(ended.mock.calls).toEqual([['terminated_by_admin']]), 3_000);
    await sleep(1_500);
    expect(sockets).toHaveLength(1);
  });
});

describe('docs/authentication.md', () => {
  it('reads a JWT from the Authorization header, and closes when it ends', async () => {
    const app = await Application.start('header');
    const alice = await connect(app.ws(), bearer(await tokenFor('alice')));
    alice.send('say', 'in');
    expect(await alice.next()).toEqual({ event: 'message', data: { from: 'alice', text: 'in' } });
    for (const wrong of [
      {},
      bearer('no-jwt'),
      bearer(await tokenFor('alice', { secret: 'another secret of thirty-two bytes' })),
      bearer(await tokenFor('alice', { lifetimeS: -1 })),
      bearer(await tokenFor('')),
    ]) {
      expect(await told(app.ws(), wrong)).toBe(401);
    }
    const brief = await connect(app.ws(), bearer(await tokenFor('alice', { lifetimeS: 2 })));
    expect(await brief.closed(5_000)).toEqual({ code: 4106, reason: 'token_expired' });
    expect(alice.isOpen).toBe(true);
  });

  it('reads a JWT from the subprotocol, and answers with the other one', async () => {
    const app = await Application.start('subprotocol');
    const { connectWithToken } = await load('subprotocol', 'client/connect-with-token.js');
    vi.stubGlobal('WebSocket', WebSocket);
    onTestFinished(() => void vi.unstubAllGlobals());
    const open = (token: string) => connectWithToken?.(app.ws() as never, token as never) as WebSocket;
    const socket = open(await tokenFor('alice'));
    onTestFinished(() => socket.terminate());
    await once(socket, 'open');
    expect(socket.protocol).toBe('chat.v1');
    await expect(once(open('no.jwt.at-all'), 'open')).rejects.toThrow('401');
    const tokenOnly = new WebSocket(app.ws(), [`bearer.${await tokenFor('alice')}`]);
    await expect(once(tokenOnly, 'open')).rejects.toThrow('Server sent no subprotocol');
  });

  it('reads a JWT from the query, and writes nothing of it to the log', async () => {
    const app = await Application.start('query');
    const token = await tokenFor('alice');
    await connect(app.ws({ access_token: token }));
    expect(await told(app.ws({ access_token: `${token}x` }))).toBe(401);
    expect(await told(app.ws())).toBe(401);
    await app.stop();
    expect(app.log).toContain('Rejected somebody');
    expect(app.log).not.toContain(token.slice(-20));
  });

  it('gives a ticket for a token, which is good once', async () => {
    const app = await Application.start('ticket');
    const ask = (init: RequestInit) => fetch(app.http('/tickets'), { method: 'POST', ...init });
    expect((await ask({})).status).toBe(401);
    const answer = await ask(bearer(await tokenFor('alice')));
    const { ticket } = (await answer.json()) as { ticket: string };
    const alice = await connect(app.ws({ ticket }));
    alice.send('say', 'in');
    expect(await alice.next()).toMatchObject({ data: { from: 'alice' } });
    for (const wrong of [ticket, 'guessed', '']) expect(await told(app.ws({ ticket: wrong }))).toBe(401);
  });

  it('finds the session of a cookie, for pages of the right origin', async () => {
    const app = await Application.start('cookie');
    const origin = 'https://app.example.org';
    const cookieOf = (id: string, secret = ENVIRONMENT.SESSION_SECRET) => {
      const signature = createHmac('sha256', secret).update(id).digest('base64').replace(/=+$/, '');
      return `theme=dark; connect.sid=${encodeURIComponent(`s:${id}.${signature}`)}; last=1`;
    };
    const withCookie = (cookie: string, from?: string) => ({
      headers: { cookie },
      ...(from === undefined ? {} : { origin: from }),
    });
    const alice = await connect(app.ws(), withCookie(cookieOf('session-of-alice'), origin));
    alice.send('say', 'in');
    expect(await alice.next()).toMatchObject({ data: { from: 'alice' } });
    await connect(app.ws(), withCookie(cookieOf('session-of-alice')));
    const elsewhere = withCookie(cookieOf('session-of-alice'), 'https://elsewhere.example');
    expect(await told(app.ws(), elsewhere)).toBe(403);
    expect(await told(app.ws(), withCookie(cookieOf('session-of-bob'), origin))).toBe(4501);
    for (const wrong of [
      cookieOf('session-of-alice', 'guessed'),
      cookieOf('session-of-nobody'),
      cookieOf('signed-out'),
      'connect.sid=s%3Asession-of-alice.',
      'connect.sid=%E0%A4%A',
      'xconnect.sid=1',
    ]) {
      expect(await told(app.ws(), withCookie(wrong))).toBe(401);
    }
    expect(await told(app.ws(), withCookie(cookieOf('broken')))).toBe(500);
  });

  it('has options made of injected services: limits by plan', async () => {
    const app = await Application.start('services');
    const [alice, bob] = [bearer(await tokenFor('alice')), bearer(await tokenFor('bob'))];
    for (let i = 0; i < 3; i++) await connect(app.ws(), alice);
    for (let i = 0; i < 2; i++) await connect(app.ws(), bob);
    expect(await told(app.ws(), bob)).toBe(429);
    expect(await told(app.ws())).toBe(401);
  });

  it('ends the connections of who signs out', async () => {
    const app = await Application.start('sign-out');
    const as = bearer(await tokenFor('alice'));
    const [alice, bob] = [
      await connect(app.ws(), as),
      await connect(app.ws(), bearer(await tokenFor('bob'))),
    ];
    const answer = await fetch(app.http('/sign-out'), { method: 'POST', ...as });
    expect(await answer.json()).toEqual({ ended: 1 });
    expect(await alice.closed()).toEqual({ code: 4520, reason: 'terminated_by_admin' });
    expect(bob.isOpen).toBe(true);
  });
});

describe('docs/proxies.md', () => {
  it.each([
    ['no proxy', undefined, 0, '10.0.0.9'],
    ['one proxy', '203.0.113.7', 1, '203.0.113.7'],
    ['one proxy, and a client that lies', '198.51.100.1, 203.0.113.7', 1, '203.0.113.7'],
    ['two proxies', '198.51.100.1, 203.0.113.7, 10.0.0.8', 2, '203.0.113.7'],
    ['a proxy that says nothing', undefined, 1, '10.0.0.9'],
  ])('finds the address of a client behind %s', async (_title, forwarded, count, address) => {
    const { clientAddress } = await load('docs/proxies', 'src/client-address.js');
    const request = {
      headers: forwarded === undefined ? {} : { 'x-forwarded-for': forwarded },
      socket: { remoteAddress: '10.0.0.9' },
    } as unknown as IncomingMessage;
    expect(clientAddress?.(request as never, count as never)).toBe(address);
  });
});

describe('docs/kubernetes.md', () => {
  it('has a readiness of its own: a full node is ready, one that drains is not', async () => {
    const app = await Application.start('own-readiness', { script: 'src/small.js' });
    const status = async (path: string) => (await fetch(app.http(path))).status;
    const alice = await connect(app.ws({ user: 'alice' }));
    expect(await told(app.ws({ user: 'bob' }))).toBe(503);
    expect([await status('/ready'), await status('/health/ready')]).toEqual([200, 503]);
    // Somebody who does not answer the close keeps the drain going.
    alice.webSocket.pause();
    const stopped = app.stop();
    await vi.waitFor(async () => expect(await status('/ready')).toBe(503));
    await stopped;
  });
});

describe('docs/moving-in.md', () => {
  it.each(['watch', 'after'])('answers as before in the step "%s"', async (project) => {
    const app = await Application.start(project);
    const [alice, bob] = [
      await connect(app.ws(), bearer(await tokenFor('alice'))),
      await connect(app.ws(), bearer(await tokenFor('bob'))),
    ];
    // By hand, a handler may run before its token is checked.
    await sleep(200);
    alice.send('say', 'hello');
    const message = { event: 'message', data: { from: 'alice', text: 'hello' } };
    expect([await alice.next(), await alice.next()]).toEqual([message, { event: 'said', data: 2 }]);
    expect(await bob.next()).toEqual(message);
  });

  it('refuses at the gateway while it watches, and at the door after that', async () => {
    const [watch, after] = [await Application.start('watch'), await Application.start('after')];
    expect(await told(watch.ws())).toBe(4401);
    expect(await told(after.ws())).toBe(401);
  });

  it('says who would be over the limit while it watches', async () => {
    const app = await Application.start('watch');
    const as = bearer(await tokenFor('alice'));
    for (let i = 0; i < 20; i++) await connect(app.ws(), as);
    await sleep(200);
    expect(app.log).not.toContain('LimitWatcher');
    expect(await told(app.ws(), as)).toBe(4429);
    await vi.waitFor(() => expect(app.log).toContain('[LimitWatcher] 21 sessions of one user'));
  });
});
