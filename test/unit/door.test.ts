import type { IncomingMessage } from 'node:http';
import { Duplex } from 'node:stream';
import { Logger } from '@nestjs/common';
import { describe, expect, it, vi } from 'vitest';
import { WebSocketServer } from 'ws';
import { Door, type WebSocketServerLike } from '../../src/admission/door.js';
import { Refusals } from '../../src/admission/refusal.js';
import type { Manager } from '../../src/manager/manager.js';
import { Core, type CoreOptions } from '../support/core.js';

const HANDSHAKE = {
  host: 'localhost:3000',
  upgrade: 'websocket',
  'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
  'sec-websocket-version': '13',
};

const PING = 0x89;
const CLOSE = 0x88;
const TEXT = 0x81;
/** Masked with zeros, as a client's frames are masked. */
const PONG = Buffer.from([0x8a, 0x80, 0, 0, 0, 0]);

/** The client's end of a socket: keeps what it is sent, and answers pings. */
class WireSocket extends Duplex {
  text = '';
  readonly frames: string[] = [];
  closeAsked: { code: number; reason: string } | undefined;

  override _write(chunk: Buffer, _: string, done: () => void): void {
    if (!this.isUpgraded) this.text += chunk.toString();
    else this.takeFrames(chunk);
    done();
  }
  override _read(): void {}

  get isUpgraded(): boolean {
    return this.text.startsWith('HTTP/1.1 101');
  }

  get answer(): { status: number; reason?: string; retryAfterMs?: number } | undefined {
    if (!this.text || this.isUpgraded) return undefined;
    const [head = '', body = ''] = this.text.split('\r\n\r\n');
    return { status: Number(head.split(' ')[1]), ...(body.startsWith('{') ? JSON.parse(body) : {}) };
  }

  private unread = Buffer.alloc(0);

  /** Frames of a server are not masked; those of these tests are short. */
  private takeFrames(chunk: Buffer): void {
    this.unread = Buffer.concat([this.unread, chunk]);
    for (;;) {
      const isLong = this.unread[1] === 126;
      const start = isLong ? 4 : 2;
      const length = isLong ? this.unread.readUInt16BE(2) : (this.unread[1] ?? Number.POSITIVE_INFINITY);
      if (this.unread.length < start + length) return;
      const payload = this.unread.subarray(start, start + length);
      if (this.unread[0] === PING) setImmediate(() => this.push(PONG));
      if (this.unread[0] === TEXT) this.frames.push(payload.toString());
      if (this.unread[0] === CLOSE)
        this.closeAsked = { code: payload.readUInt16BE(0), reason: payload.subarray(2).toString() };
      this.unread = this.unread.subarray(start + length);
    }
  }
}

interface Knock {
  readonly method?: string;
  readonly url?: string;
  readonly headers?: Record<string, string | undefined>;
  /** What the platform does with the socket. */
  readonly onUpgraded?: () => void;
}

type VerifyClient = (info: unknown, verdict: (accepted: boolean, code?: number) => void) => unknown;

async function withDoor(
  options: CoreOptions = {},
  verifyClient?: VerifyClient,
  prepare?: (server: WebSocketServer) => void,
) {
  const core = await Core.start({ authenticate: () => ({ userId: 'alice' }), ...options });
  const refusals = new Refusals(core.clock, core.events);
  const door = new Door(core.clock, core.factory, refusals, core.drain, core.events, core.options);
  const server = new WebSocketServer({ noServer: true, ...(verifyClient && { verifyClient }) });
  prepare?.(server);
  door.guard(server as unknown as WebSocketServerLike);
  let upgraded = 0;
  const sockets: WireSocket[] = [];
  const arrive = ({ method = 'GET', url = '/ws', headers = {}, onUpgraded }: Knock = {}) => {
    const socket = new WireSocket();
    sockets.push(socket);
    const all = Object.entries({ ...HANDSHAKE, ...headers }).filter(([, value]) => value !== undefined);
    const request = {
      method,
      headers: Object.fromEntries(all),
      socket: { remoteAddress: '10.0.0.7' },
      url,
    };
    server.handleUpgrade(request as unknown as IncomingMessage, socket, Buffer.alloc(0), () => {
      upgraded++;
      onUpgraded?.();
    });
    return socket;
  };
  const knock = async (how?: Knock) => {
    const socket = arrive(how);
    await core.clock.settle();
    return socket;
  };
  const managers = (): Manager[] => [...(core.registry.user('alice')?.managers ?? [])];
  return { core, door, server, refusals, arrive, knock, sockets, managers, upgraded: () => upgraded };
}

const rejections = (core: Core) =>
  core.reportedOf('rejected').map(({ reason, userId, detail }) => [reason, userId, detail]);

describe('an upgrade', () => {
  it.each<[string, Knock]>([
    ['of version 13', {}],
    ['of version 8', { headers: { 'sec-websocket-version': '8' } }],
    ['in other letters', { headers: { upgrade: 'WebSocket' } }],
    ['with a protocol', { headers: { 'sec-websocket-protocol': 'chat.v1' } }],
    ['with several protocols', { headers: { 'sec-websocket-protocol': 'chat, \t super-chat ,x' } }],
  ])('%s is let in', async (_, knock) => {
    const door = await withDoor();
    const socket = await door.knock(knock);
    expect(door.upgraded()).toBe(1);
    expect(door.managers()[0]?.connections).toHaveLength(1);
    expect(socket.isUpgraded).toBe(true);
    expect(socket.destroyed).toBe(false);
  });

  it.each<[string, Knock]>([
    ['of another method', { method: 'POST' }],
    ['to another protocol', { headers: { upgrade: 'h2c' } }],
    ['to no protocol', { headers: { upgrade: undefined } }],
    ['without a key', { headers: { 'sec-websocket-key': undefined } }],
    ['with a key that is too long', { headers: { 'sec-websocket-key': 'xdGhlIHNhbXBsZSBub25jZQ==' } }],
    ['with a key and more', { headers: { 'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==x' } }],
    ['without a version', { headers: { 'sec-websocket-version': undefined } }],
    ['of another version', { headers: { 'sec-websocket-version': '7' } }],
    ['with a protocol that is none', { headers: { 'sec-websocket-protocol': 'chat room' } }],
    ['with one protocol that is none', { headers: { 'sec-websocket-protocol': 'chat, ' } }],
    ['with a protocol in brackets', { headers: { 'sec-websocket-protocol': '(chat' } }],
    ['with a protocol twice', { headers: { 'sec-websocket-protocol': 'chat, chat' } }],
  ])('%s is left to the server to refuse, and comes in by no means', async (_, knock) => {
    let asked = 0;
    const door = await withDoor({
      authenticate: () => {
        asked++;
        return null;
      },
    });
    await door.knock(knock);
    expect([asked, door.upgraded(), door.core.registry.managerCount]).toEqual([0, 0, 0]);
    expect(door.sockets[0]?.answer?.status).toBeGreaterThanOrEqual(400);
    expect(door.core.reported).toEqual([]);
  });

  it('whose socket fails while it waits ends nothing but the socket', async () => {
    const door = await withDoor({ authenticate: () => new Promise(() => {}) });
    const socket = await door.knock();
    socket.emit('error', new Error('ECONNRESET'));
    expect(socket.destroyed).toBe(true);
  });
});

describe('who is not let in', () => {
  const status = (code: number) => Object.assign(new Error('no'), { getStatus: () => code });
  it.each<[string, CoreOptions['authenticate'], number, string, string | undefined]>([
    ['nobody', () => null, 401, 'unauthenticated', undefined],
    ['undefined', () => undefined, 401, 'unauthenticated', undefined],
    ['a 401', () => Promise.reject(status(401)), 401, 'unauthenticated', undefined],
    ['a 403', () => Promise.reject(status(403)), 401, 'unauthenticated', undefined],
    ['a 404', () => Promise.reject(status(404)), 500, 'internal', undefined],
    ['an error', () => Promise.reject(new Error('away')), 500, 'internal', undefined],
    ['a rejection of nothing', () => Promise.reject(), 500, 'internal', undefined],
    ['no name', () => ({ userId: '' }), 400, 'bad_request', expect.any(String) as never],
    ['no context', () => 'alice' as never, 500, 'internal', undefined],
  ])('because authenticate gave %s', async (_, authenticate, code, reason, detail) => {
    const door = await withDoor({ authenticate });
    const socket = await door.knock();
    expect(socket.answer).toMatchObject({ status: code, reason });
    expect(rejections(door.core)).toEqual([[reason, undefined, detail]]);
    const failures = door.core.reportedOf('hook_failed').map(({ hook }) => hook);
    expect(failures).toEqual(code === 500 ? ['authenticate'] : []);
    expect(door.core.registry.managerCount).toBe(0);
  });

  it('because authenticate takes too long', async () => {
    const door = await withDoor({
      authenticate: () => new Promise(() => {}),
      admission: { authenticateTimeoutMs: 700 },
    });
    const socket = await door.knock();
    await door.core.clock.advance(699);
    expect(socket.answer).toBeUndefined();
    await door.core.clock.advance(1);
    expect(socket.answer).toMatchObject({ status: 500, reason: 'internal' });
    expect(door.core.reportedOf('hook_failed')).toMatchObject([
      { hook: 'authenticate', error: { message: 'no answer within 700 ms' } },
    ]);
    expect(door.core.reportedOf('rejected')).toMatchObject([{ durationMs: 700, lockout: false }]);
  });

  it('because of a time in seconds, and the log says so', async () => {
    const inAnHour = Date.UTC(2024, 0, 1, 1) / 1_000;
    const door = await withDoor({ authenticate: () => ({ userId: 'alice', expiresAt: inAnHour }) });
    expect((await door.knock()).answer).toMatchObject({ status: 401, reason: 'unauthenticated' });
    const detail = 'credentials expired in 1970: expiresAt is in milliseconds';
    expect(rejections(door.core)).toEqual([['unauthenticated', undefined, detail]]);
  });

  it.each([
    [0, false],
    [1, true],
  ])('because the credentials end in %d ms: %s', async (inMs, isLetIn) => {
    const clockOf: { core?: Core } = {};
    const door = await withDoor({
      authenticate: () => ({
        userId: 'alice',
        expiresAt: new Date((clockOf.core as Core).clock.wallNow() + inMs),
      }),
    });
    clockOf.core = door.core;
    const socket = await door.knock();
    expect(door.upgraded()).toBe(isLetIn ? 1 : 0);
    if (isLetIn) return;
    expect(socket.answer).toMatchObject({ status: 401, reason: 'unauthenticated' });
    expect(rejections(door.core)).toEqual([['unauthenticated', undefined, 'credentials expired']]);
  });

  it.each<[string, CoreOptions['admission'], number, string]>([
    ['of another host', {}, 403, 'forbidden_origin'],
    ['by a function', { allowedOrigins: () => false }, 403, 'forbidden_origin'],
    [
      'by a function that throws',
      {
        rejectWith: 'http',
        allowedOrigins: () => {
          throw new Error('broken');
        },
      },
      500,
      'internal',
    ],
  ])('because of the origin %s', async (_, admission, code, reason) => {
    const door = await withDoor({ admission });
    const socket = await door.knock({ headers: { origin: 'https://elsewhere.example' } });
    expect(socket.answer).toMatchObject({ status: code, reason });
    const failures = door.core.reportedOf('hook_failed').map(({ hook }) => hook);
    expect(failures).toEqual(code === 500 ? ['admission.allowedOrigins'] : []);
  });

  it('because the node drains, whoever it is', async () => {
    const door = await withDoor({ authenticate: () => expect.unreachable() });
    door.core.drain.begin();
    const socket = await door.knock();
    expect(socket.answer).toMatchObject({
      status: 503,
      reason: 'draining',
      retryAfterMs: expect.any(Number),
    });
    expect(rejections(door.core)).toEqual([['draining', undefined, undefined]]);
  });

  it('because there are too many is reported once', async () => {
    const door = await withDoor({ limits: { managersPerUser: 1 } });
    await door.knock();
    const socket = await door.knock();
    await door.core.clock.advance(50);
    expect(socket.answer).toMatchObject({
      status: 429,
      reason: 'over_limit',
      retryAfterMs: expect.any(Number),
    });
    expect(rejections(door.core)).toEqual([['over_limit', 'alice', undefined]]);
  });
});

describe('a refusal by close', () => {
  const origin = { origin: 'http://localhost:3000' };
  it.each<['auto' | 'http' | 'close', Record<string, string>, boolean]>([
    ['auto', origin, true],
    ['auto', {}, false],
    ['close', {}, true],
    ['http', origin, false],
  ])('is for who cannot see a status (%s, %j): %s', async (rejectWith, headers, byClose) => {
    const door = await withDoor({ authenticate: () => null, admission: { rejectWith } });
    const socket = await door.knock({ headers });
    expect(socket.answer === undefined).toBe(byClose);
    expect(door.refusals.held).toBe(byClose ? 1 : 0);
    await door.core.clock.advance(1_000);
    expect(door.sockets[0]?.closeAsked).toEqual(
      byClose ? { code: 4501, reason: 'unauthenticated' } : undefined,
    );
    expect(door.upgraded()).toBe(0);
  });

  it.each<[string, CoreOptions, Record<string, string>, number]>([
    ['an origin', {}, { origin: 'https://elsewhere.example' }, 403],
    ['a bad name', { authenticate: () => ({ userId: '' }) }, {}, 400],
  ])('is none for %s', async (_, options, headers, code) => {
    const door = await withDoor({ ...options, admission: { rejectWith: 'close' } });
    expect((await door.knock({ headers })).answer?.status).toBe(code);
    expect(door.refusals.held).toBe(0);
  });

  it('is for twenty of one address', async () => {
    const door = await withDoor({ authenticate: () => null, admission: { rejectWith: 'close' } });
    for (let i = 0; i < 20; i++) expect((await door.knock()).answer).toBeUndefined();
    expect((await door.knock()).answer?.status).toBe(401);
    expect(door.refusals.mayHold('address 10.0.0.7')).toBe(false);
    expect(door.refusals.mayHold('address 10.0.0.8')).toBe(true);
  });

  it('keeps the quota of a user apart from that of the address that the user is named like', async () => {
    const userId = 'address 10.0.0.7';
    const door = await withDoor({
      authenticate: ({ url }) => (url === '/stranger' ? null : { userId }),
      limits: { managersPerUser: 1 },
      admission: { rejectWith: 'close' },
    });
    door.core.place({ userId, openedAgoMs: 1_000 });
    const arrive = async (url: string) => {
      const socket = await door.knock({ url });
      await door.core.clock.advance(5);
      return socket;
    };
    for (let i = 0; i < 20; i++) expect((await arrive('/stranger')).answer).toBeUndefined();
    expect((await arrive('/stranger')).answer?.status).toBe(401);
    expect((await arrive('/user')).answer).toBeUndefined();
    expect(door.refusals.held).toBe(21);
  });

  it('says when to come back', async () => {
    const door = await withDoor({ limits: { managersPerUser: 1 }, admission: { rejectWith: 'close' } });
    await door.knock();
    await door.knock();
    await door.core.clock.advance(1_100);
    expect(JSON.parse(door.sockets[1]?.frames[0] ?? '')).toMatchObject({
      data: { code: 4129, reason: 'over_limit', retryable: true, retryAfterMs: expect.any(Number) },
    });
  });
});

describe('a handshake after admission', () => {
  it.each<[string, VerifyClient, number | undefined]>([
    ['refuses', (_info, verdict) => verdict(false, 418), 418],
    ['refuses at once', () => false, 401],
    ['never answers', (_info, _verdict) => {}, undefined],
  ])('that the own check of the application %s costs nobody a place', async (_, verifyClient, status) => {
    const door = await withDoor({}, verifyClient);
    const socket = await door.knock();
    expect(socket.answer?.status).toBe(status);
    socket.destroy();
    await door.core.clock.settle();
    expect([door.upgraded(), door.managers()]).toEqual([0, []]);
    expect(door.core.reportedOf('evicted')).toEqual([]);
  });

  it('whose own check in the application throws is reported, and its socket goes', async () => {
    const door = await withDoor({}, () => {
      throw new Error('verifyClient failed');
    });
    const socket = await door.knock();
    expect(door.core.reportedOf('hook_failed')).toMatchObject([
      { hook: 'upgrade', error: { message: 'verifyClient failed' } },
    ]);
    expect(socket.destroyed).toBe(true);
    expect(door.managers()).toEqual([]);
  });

  it.each<[string, VerifyClient]>([
    ['at once', () => true],
    ['later', (_info, verdict) => void Promise.resolve().then(() => verdict(true))],
    ['twice', (_info, verdict) => [verdict(true), verdict(true)]],
  ])('that passes the own check of the application %s comes in, once', async (_, verifyClient) => {
    const door = await withDoor({}, verifyClient);
    await door.knock();
    expect(door.upgraded()).toBe(1);
    expect(door.managers()[0]?.connections).toHaveLength(1);
  });

  it('that the application has a check for since the server was made has to pass it, and ours', async () => {
    const door = await withDoor();
    for (const isVerified of [false, true]) {
      door.server.options.verifyClient = () => isVerified;
      const socket = await door.knock();
      expect([socket.answer?.status, socket.isUpgraded]).toEqual(
        isVerified ? [undefined, true] : [401, false],
      );
    }
    door.server.options.verifyClient = undefined;
    await door.knock();
    expect(door.managers()).toHaveLength(2);
  });

  it.each<[string, (isVerified: boolean, next: () => void) => unknown]>([
    ['at once', (isVerified, next) => isVerified && next()],
    ['later', async (isVerified, next) => (await isVerified) && next()],
  ])('that the application has put a check around its own for has to pass both, %s', async (_, unless) => {
    const asked: string[] = [];
    const door = await withDoor({}, (_info, verdict) => {
      asked.push('own');
      verdict(true);
    });
    const { options } = door.server;
    const own = options.verifyClient as VerifyClient;
    for (const isVerified of [false, true]) {
      options.verifyClient = ((info: unknown, verdict: (accepted: boolean) => void) => {
        asked.push('around');
        void unless(isVerified, () => own(info, verdict));
      }) as never;
      await door.knock();
    }
    expect(asked).toEqual(['around', 'around', 'own']);
    expect(door.managers()).toHaveLength(1);
  });

  it('answers for nobody else, whoever asks', async () => {
    let ours: VerifyClient | undefined;
    const answers: unknown[] = [];
    const ask = () => ours?.({ req: {} }, (...answer) => answers.push(answer));
    const door = await withDoor({}, undefined, (server) => {
      // Within the handshake the server's own code sees what `ws` sees.
      server.shouldHandle = () => {
        ours ??= server.options.verifyClient as never;
        ask();
        return true;
      };
    });
    await door.knock();
    ask();
    expect(answers).toEqual([
      [false, 500],
      [false, 500],
    ]);
    expect(door.managers()).toHaveLength(1);
  });

  it('that `ws` refuses by itself leaves the check of the application to be seen, and no other', async () => {
    const own: VerifyClient = () => true;
    const door = await withDoor({}, own);
    await door.knock({ method: 'POST' });
    expect(door.server.options.verifyClient).toBe(own);
  });

  it('that a listener of the server completes within another is in its own name', async () => {
    const waiting: (() => void)[] = [];
    let isFirst = true;
    const door = await withDoor({ authenticate: ({ url }) => ({ userId: `${url}` }) }, (_info, verdict) => {
      if (isFirst) waiting.push(() => verdict(true));
      else verdict(true);
      isFirst = false;
    });
    const first = await door.knock({ url: 'alice' });
    door.server.once('headers', () => waiting.pop()?.());
    const second = await door.knock({ url: 'bob' });
    expect([first, second].map(({ isUpgraded, destroyed }) => [isUpgraded, destroyed])).toEqual([
      [true, false],
      [true, false],
    ]);
    for (const userId of ['alice', 'bob']) {
      expect([...(door.core.registry.user(userId)?.managers ?? [])][0]?.connections).toHaveLength(1);
    }
  });

  it('that is completed without asking us is the socket of nobody, and does not stay open', async () => {
    let asks = true;
    let leaves = true;
    const authenticate = () => {
      // Gone while it is decided: whoever comes after it does not come in on its account.
      if (leaves) door.sockets.at(-1)?.destroy();
      return { userId: 'alice' };
    };
    const door = await withDoor({ authenticate }, undefined, (server) => {
      const ask = server.handleUpgrade.bind(server);
      const { completeUpgrade } = server as unknown as { completeUpgrade: (...args: unknown[]) => void };
      server.handleUpgrade = (request, ...rest) => {
        const key = request.headers['sec-websocket-key'];
        if (asks) ask(request, ...rest);
        else completeUpgrade.call(server, {}, key, new Set(), request, ...rest);
      };
    });
    await door.knock();
    asks = false;
    const socket = await door.knock();
    expect([socket.isUpgraded, socket.destroyed]).toEqual([true, true]);
    expect([door.upgraded(), door.managers()]).toEqual([0, []]);
    expect(door.core.reportedOf('hook_failed')).toMatchObject([{ hook: 'upgrade' }]);
    // Nor where somebody else's handshake is being completed.
    door.server.once('headers', () => {
      asks = false;
      door.arrive();
    });
    asks = true;
    leaves = false;
    const asked = await door.knock();
    expect([asked, door.sockets.at(-1)].map((one) => one?.destroyed)).toEqual([false, true]);
    expect(door.managers()[0]?.connections).toHaveLength(1);
  });

  it('that is complete is no longer the socket of a newcomer', async () => {
    const door = await withDoor({ authenticate: () => ({ userId: 'alice', sessionKey: 'tab' }) });
    const socket = await door.knock();
    socket.destroy();
    await door.core.clock.settle();
    expect(door.managers()).toHaveLength(1);
  });

  it.each([
    ['evicted', 4510, 'evicted'],
    ['terminated_by_admin', 4520, 'terminated_by_admin'],
    ['inactive', 1011, 'internal'],
    ['left', 1011, 'internal'],
  ] as const)('of a session that was %s in the very moment is told %d', async (endedBy, code, reason) => {
    const door = await withDoor();
    door.core.events.events$.subscribe((event) => {
      if (event.type !== 'admitted') return;
      void door.core.registry.manager(event.managerId)?.close({ reason: endedBy });
    });
    const socket = await door.knock();
    await door.core.clock.advance(1_000);
    expect(socket.closeAsked).toEqual({ code, reason });
    expect(door.upgraded()).toBe(0);
    expect(door.core.reportedOf('admitted')).toHaveLength(1);
  });

  it('whose gateway throws at once closes that client, and says so', async () => {
    const door = await withDoor();
    const error = new Error('broken');
    await door.knock({
      onUpgraded: () => {
        throw error;
      },
    });
    expect(door.sockets[0]?.closeAsked).toEqual({ code: 1011, reason: 'internal' });
    expect(door.core.reportedOf('hook_failed')).toMatchObject([{ hook: "listener of 'connection'", error }]);
  });

  it('has credentials that end when they say, whatever the wall clock does', async () => {
    const clockOf: { core?: Core } = {};
    const door = await withDoor({
      authenticate: () => ({
        userId: 'alice',
        expiresAt: new Date((clockOf.core as Core).clock.wallNow() + 60_000),
      }),
    });
    clockOf.core = door.core;
    const { clock } = door.core;
    await door.knock();
    clock.setWall(clock.wallNow() + 86_400_000);
    await clock.advance(59_999);
    expect(door.sockets[0]?.closeAsked).toBeUndefined();
    await clock.advance(500);
    expect(door.sockets[0]?.closeAsked).toEqual({ code: 4106, reason: 'token_expired' });
  });
});

describe('an upgrade that had to wait', () => {
  it('and whose socket is gone by then gives its slot back', async () => {
    let answer = (_: { userId: string }) => {};
    const authenticate = () =>
      new Promise<{ userId: string }>((resolve) => {
        answer = resolve;
      });
    const door = await withDoor({ authenticate });
    const ended: unknown[] = [];
    door.core.registry.observe({ managerRemoved: ({ endedBy }) => ended.push(endedBy) });
    const socket = await door.knock();
    socket.destroy();
    await door.core.clock.settle();
    answer({ userId: 'alice' });
    await door.core.clock.settle();
    expect(door.managers()).toEqual([]);
    expect(ended).toEqual(['left']);
  });

  it('at the limit comes in, at the cost of one session', async () => {
    const door = await withDoor({ limits: { managersPerUser: 1 } });
    const { manager } = door.core.place({
      ...{ userId: 'alice', openedAgoMs: 60_000, connection: { answersAfterMs: 500 } },
    });
    await door.knock();
    await door.core.clock.advance(600);
    expect(door.upgraded()).toBe(1);
    expect(manager.endedBy).toBe('evicted');
  });
});

describe('a newcomer who has hung up', () => {
  it.each<[string, (socket: WireSocket) => void]>([
    ['by a reset', (socket) => socket.destroy()],
    ['by a FIN', (socket) => socket.push(null)],
  ])('%s costs nobody a session', async (_, hangUp) => {
    const door = await withDoor({ limits: { managersPerUser: 1 } });
    door.core.place({ userId: 'alice', openedAgoMs: 60_000, connection: { answersAfterMs: 500 } });
    const socket = await door.knock();
    hangUp(socket);
    await door.core.clock.advance(2_000);
    expect(door.core.reportedOf('evicted')).toEqual([]);
    expect(door.upgraded()).toBe(0);
  });
});

describe('a pending upgrade, when a drain begins', () => {
  const origin = { origin: 'http://localhost:3000' };
  const never = () => new Promise<never>(() => {});
  /** An `authenticate` that answers when it is told to. */
  function later() {
    const answers: ((context: { userId: string } | null) => void)[] = [];
    const authenticate = () =>
      new Promise<{ userId: string } | null>((resolve) => void answers.push(resolve));
    return { authenticate, answers };
  }

  it('that waits for authenticate is refused with 503 at once, and admitted by no late answer', async () => {
    const { authenticate, answers } = later();
    const door = await withDoor({ authenticate });
    const socket = await door.knock();
    door.core.drain.begin();
    await door.core.clock.settle();
    expect(socket.answer).toMatchObject({
      status: 503,
      reason: 'draining',
      retryAfterMs: expect.any(Number),
    });
    expect(rejections(door.core)).toEqual([['draining', undefined, undefined]]);
    answers[0]?.({ userId: 'alice' });
    await door.core.clock.settle();
    expect([door.upgraded(), door.managers(), door.core.registry.user('alice')]).toEqual([0, [], undefined]);
    expect(rejections(door.core)).toHaveLength(1);
    expect([socket.destroyed, door.core.reportedOf('hook_failed')]).toEqual([true, []]);
  });

  it('of a browser is closed with 1012', async () => {
    const { authenticate, answers } = later();
    const door = await withDoor({ authenticate });
    const socket = await door.knock({ headers: origin });
    door.core.drain.begin();
    await door.core.clock.settle();
    expect([socket.isUpgraded, door.refusals.held]).toEqual([true, 1]);
    answers[0]?.({ userId: 'alice' });
    await door.core.clock.advance(1_000);
    expect(socket.closeAsked).toEqual({ code: 1012, reason: 'draining' });
    expect([door.upgraded(), door.managers()]).toEqual([0, []]);
  });

  it('is refused once, also where authenticate rejects or is late afterwards', async () => {
    const door = await withDoor({ authenticate: never, admission: { authenticateTimeoutMs: 3_000 } });
    const sockets = [await door.knock(), await door.knock()];
    door.core.drain.begin();
    await door.core.clock.advance(10_000);
    for (const { text } of sockets) expect(text.match(/HTTP\/1\.1/g)).toHaveLength(1);
    expect(rejections(door.core)).toHaveLength(2);
    expect(door.core.clock.timerCount).toBe(2);
  });

  it.each([
    ['by HTTP', {}],
    ['by a close code', origin],
  ])('that waits for a probe is refused at once %s, and costs no session', async (_, headers) => {
    const door = await withDoor({ limits: { managersPerUser: 1 } });
    const { manager } = door.core.place({
      ...{ userId: 'alice', openedAgoMs: 60_000, connection: { answersAfterMs: 500 } },
    });
    const socket = await door.knock({ headers });
    expect([socket.answer, socket.isUpgraded]).toEqual([undefined, false]);
    door.core.drain.begin();
    await door.core.clock.settle();
    expect([socket.answer?.status, socket.isUpgraded]).toEqual(
      headers === origin ? [undefined, true] : [503, false],
    );
    await door.core.clock.advance(3_000);
    expect(socket.closeAsked?.code).toBe(headers === origin ? 1012 : undefined);
    expect([manager.endedBy, door.core.reportedOf('evicted')]).toEqual([undefined, []]);
    expect(rejections(door.core)).toEqual([['draining', 'alice', undefined]]);
  });

  it('that waits in the admission queue is refused at once', async () => {
    const door = await withDoor({ limits: { managersPerUser: 1 }, admission: { queueTimeoutMs: 30_000 } });
    door.core.place({ userId: 'alice', openedAgoMs: 1_000 });
    const sockets = [await door.knock(), await door.knock()];
    await door.core.clock.advance(2_000);
    expect(sockets.map(({ answer }) => answer)).toEqual([undefined, undefined]);
    door.core.drain.begin();
    await door.core.clock.settle();
    for (const { answer } of sockets) expect(answer).toMatchObject({ status: 503, reason: 'draining' });
    await door.core.clock.advance(31_000);
    expect(door.managers()).toHaveLength(1);
    expect(rejections(door.core)).toEqual([
      ['draining', 'alice', undefined],
      ['draining', 'alice', undefined],
    ]);
  });

  it('that waits for the store takes no slot', async () => {
    const replies: ((reply: { granted: true; count: number }) => void)[] = [];
    const released: string[] = [];
    const store = {
      name: 'slow',
      attach() {},
      reserve: () => new Promise<{ granted: true; count: number }>((resolve) => void replies.push(resolve)),
      release: (_userId: string, managerId: string) => void released.push(managerId),
      leave() {},
    };
    const door = await withDoor({ store, storeTimeoutMs: 5_000 });
    const socket = await door.knock();
    door.core.drain.begin();
    await door.core.clock.settle();
    expect(socket.answer).toMatchObject({ status: 503, reason: 'draining' });
    replies[0]?.({ granted: true, count: 1 });
    await door.core.clock.advance(1_000);
    expect([door.managers(), released.length]).toEqual([[], 1]);
  });

  it('that has been admitted, and not completed, is refused, and its manager is closed', async () => {
    const store = {
      name: 'asynchronous',
      attach() {},
      reserve: async () => ({ granted: true, count: 1 }) as const,
      release() {},
      leave() {},
    };
    const door = await withDoor({ store });
    door.core.events.events$.subscribe(({ type }) => {
      if (type === 'admitted') door.core.drain.begin();
    });
    const socket = await door.knock({ headers: origin });
    expect(door.core.reportedOf('admitted')).toHaveLength(1);
    expect([door.upgraded(), door.managers(), socket.isUpgraded]).toEqual([0, [], true]);
    await door.core.clock.advance(1_000);
    expect(socket.closeAsked).toEqual({ code: 1012, reason: 'draining' });
    expect(door.core.reportedOf('hook_failed')).toEqual([]);
  });

  it('that waits for the own check of the application is refused at once, whatever it says later', async () => {
    const verdicts: ((accepted: boolean, code?: number) => void)[] = [];
    const door = await withDoor({}, (_info, verdict) => void verdicts.push(verdict));
    const sockets = [await door.knock(), await door.knock()];
    const browsers = [await door.knock({ headers: origin }), await door.knock({ headers: origin })];
    door.core.drain.begin();
    await door.core.clock.settle();
    for (const { answer } of sockets) expect(answer).toMatchObject({ status: 503, reason: 'draining' });
    for (const [index, verdict] of verdicts.entries()) verdict(index % 2 === 0, 418);
    await door.core.clock.settle();
    for (const { text } of sockets) expect(text.match(/HTTP\/1\.1/g)).toHaveLength(1);
    await door.core.clock.advance(1_000);
    for (const { closeAsked } of browsers) expect(closeAsked).toEqual({ code: 1012, reason: 'draining' });
    expect([door.upgraded(), door.managers(), rejections(door.core).length]).toEqual([0, [], 4]);
    expect(door.core.reportedOf('hook_failed')).toEqual([]);
  });

  it('leaves no entry behind, however it ends', async () => {
    const { authenticate, answers } = later();
    const door = await withDoor({ authenticate }, (_info, verdict) => setImmediate(() => verdict(true)));
    const pending = () => (door.door as unknown as { pending: Set<unknown> }).pending.size;
    const sockets = [await door.knock(), await door.knock(), await door.knock()];
    await new Promise((resolve) => setTimeout(resolve, 10));
    expect(pending()).toBe(3);
    answers[0]?.({ userId: 'alice' });
    answers[1]?.(null);
    sockets[2]?.destroy();
    answers[2]?.({ userId: 'alice' });
    await door.core.clock.settle();
    expect([pending(), door.upgraded()]).toEqual([0, 1]);
    const atOnce = await (await withDoor()).knock();
    expect(sockets[0]?.listenerCount('close')).toBe(atOnce.listenerCount('close'));
  });

  it('whose client hangs up while a check never answers leaves no entry', async () => {
    const door = await withDoor({}, (_info, _verdict) => {});
    const pending = () => (door.door as unknown as { pending: Set<unknown> }).pending.size;
    const socket = await door.knock();
    expect(pending()).toBe(1);
    socket.destroy();
    await door.core.clock.settle();
    expect(pending()).toBe(0);
  });
});

describe('a connection that joins a session', () => {
  const token = (url: string) => {
    const { searchParams } = new URL(url, 'ws://localhost');
    return {
      userId: 'alice',
      sessionKey: 'tab',
      priority: Number(searchParams.get('priority')),
      metadata: { plan: searchParams.get('plan') },
      expiresAt: Date.UTC(2024, 0, 1) + Number(searchParams.get('expires')),
    };
  };
  const authenticate: CoreOptions['authenticate'] = ({ url }) => token(url ?? '/');
  const OLD = '/?plan=free&priority=1&expires=20000';
  const NEW = '/?plan=team&priority=5&expires=60000';

  it('gives it the priority and metadata of its own token, and keeps its own metadata and expiry', async () => {
    const door = await withDoor({ authenticate });
    const old = await door.knock({ url: OLD });
    const [manager] = door.managers() as [Manager];
    expect([manager.priority, manager.metadata]).toEqual([1, { plan: 'free' }]);
    const recent = await door.knock({ url: NEW });
    expect(door.managers()).toEqual([manager]);
    expect([manager.priority, manager.metadata]).toEqual([5, { plan: 'team' }]);
    expect(manager.connections.map(({ metadata }) => metadata)).toEqual([{ plan: 'free' }, { plan: 'team' }]);
    await door.core.clock.advance(20_500);
    expect([old.closeAsked?.code, recent.closeAsked]).toEqual([4106, undefined]);
  });

  it('leaves it what it brought, when it detaches before an older one', async () => {
    const door = await withDoor({ authenticate });
    await door.knock({ url: OLD });
    const recent = await door.knock({ url: NEW });
    recent.destroy();
    await door.core.clock.settle();
    const [manager] = door.managers() as [Manager];
    expect(manager.connections.map(({ metadata }) => metadata)).toEqual([{ plan: 'free' }]);
    expect([manager.priority, manager.metadata]).toEqual([5, { plan: 'team' }]);
  });

  it('changes nothing while its handshake is not complete, nor when that fails', async () => {
    const answers: (() => void)[] = [];
    const door = await withDoor({
      authenticate: ({ url }) =>
        url === OLD ? token(OLD) : new Promise((resolve) => void answers.push(() => resolve(token(NEW)))),
    });
    await door.knock({ url: OLD });
    const [manager] = door.managers() as [Manager];
    const failing = await door.knock({ url: NEW });
    failing.destroy();
    answers[0]?.();
    await door.core.clock.settle();
    expect(door.core.reportedOf('admitted').at(-1)?.outcome).toBe('joined');
    expect([manager.priority, manager.metadata]).toEqual([1, { plan: 'free' }]);
    expect(manager.connections).toHaveLength(1);
  });
});

describe('a server that the upgrade handler gets twice', () => {
  it('is guarded once', async () => {
    const door = await withDoor();
    const { WebSocket } = door.server.options as { WebSocket?: unknown };
    expect(door.door.guard(door.server as unknown as WebSocketServerLike)).toBe(false);
    expect((door.server.options as { WebSocket?: unknown }).WebSocket).toBe(WebSocket);
    await door.knock();
    expect([door.upgraded(), door.managers()[0]?.connections.length]).toEqual([1, 1]);
    door.managers()[0]?.send('hello', 1);
    await door.core.clock.settle();
    expect(door.sockets[0]?.frames).toEqual(['{"event":"hello","data":1}']);
  });

  it('is left to the first application, and the second says so', async () => {
    const warn = vi.spyOn(Logger.prototype, 'warn').mockImplementation(() => {});
    const first = await withDoor();
    const second = await withDoor({}, undefined, () => {});
    expect(second.door.guard(first.server as unknown as WebSocketServerLike)).toBe(false);
    expect(warn.mock.calls).toEqual([[expect.stringContaining('shared with another application')]]);
    warn.mockRestore();
    await first.knock();
    expect([first.managers().length, second.managers().length]).toEqual([1, 0]);
    first.managers()[0]?.send('hello', 1);
    await first.core.clock.settle();
    expect(first.sockets[0]?.frames).toEqual(['{"event":"hello","data":1}']);
  });

  it('does not wrap the WebSocket class of another guarded server again', async () => {
    const first = await withDoor();
    const { WebSocket } = first.server.options as { WebSocket?: unknown };
    class Extended extends (WebSocket as new (...args: unknown[]) => object) {}
    for (const managed of [WebSocket, Extended]) {
      const server = new WebSocketServer({ noServer: true, WebSocket: managed as never });
      expect(first.door.guard(server as unknown as WebSocketServerLike)).toBe(true);
      expect((server.options as { WebSocket?: unknown }).WebSocket).toBe(managed);
    }
  });
});

describe('a session that ends in the very moment that it is joined', () => {
  it('is made anew', async () => {
    const door = await withDoor({ authenticate: () => ({ userId: 'alice', sessionKey: 'tab' }) });
    const { manager } = door.core.place({ userId: 'alice', sessionKey: 'tab', openedAgoMs: 60_000 });
    door.core.events.events$.subscribe((event) => {
      if (event.type === 'admitted' && event.outcome === 'joined') void manager.close({ reason: 'left' });
    });
    await door.knock();
    expect(door.upgraded()).toBe(1);
    expect(door.managers().map(({ id }) => id)).not.toContain(manager.id);
    expect(door.managers()[0]?.connections).toHaveLength(1);
  });
});
