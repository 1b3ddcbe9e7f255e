import { EventEmitter } from 'node:events';
import { Duplex } from 'node:stream';
import { describe, expect, it } from 'vitest';
import type { ManagedWebSocket } from '../../src/admission/managed-websocket.js';
import { Refusals } from '../../src/admission/refusal.js';
import { EventStream } from '../../src/events/event-stream.js';
import { FakeClock } from '../../src/testing/index.js';

/** What a refused client may take to close its side. */
const LINGER_MS = 2_000;

class HeldSocket extends EventEmitter {
  readonly sent: unknown[] = [];
  closeAsked: { code: number; reason: string; at: number } | undefined;
  terminatedAt: number | undefined;

  constructor(private readonly clock: FakeClock) {
    super();
  }

  send(data: string): void {
    this.sent.push(JSON.parse(data));
  }

  close(code: number, reason: string): void {
    this.closeAsked = { code, reason, at: this.clock.now() };
  }

  terminate(): void {
    this.terminatedAt = this.clock.now();
    this.emit('close');
  }
}

function setup() {
  const clock = new FakeClock();
  const events = new EventStream(clock);
  const refusals = new Refusals(clock, events);
  const hold = (owner = 'alice') => {
    const socket = new HeldSocket(clock);
    refusals.hold(owner, socket as unknown as ManagedWebSocket, 'over_limit', 1_500);
    return socket;
  };
  return { clock, events, refusals, hold, startedAt: clock.now() };
}

describe('a client that is held', () => {
  it('goes all the same where its WebSocket class throws, and the process goes on', async () => {
    const { clock, events, refusals, hold } = setup();
    const failed: unknown[] = [];
    events.listen(['hook_failed'], ({ hook, error }) => failed.push([hook, error]));
    const failure = new Error('broken');
    const socket = hold();
    socket.send = () => {
      throw failure;
    };
    await clock.advance(1_000);
    expect(failed).toEqual([['WebSocket', failure]]);
    await clock.advance(2_000);
    expect([socket.terminatedAt === undefined, refusals.held]).toEqual([false, 0]);
  });

  it('is told why, and closed with the code, after a short while that is drawn', async () => {
    const { clock, hold, startedAt } = setup();
    const sockets = Array.from({ length: 200 }, (_, i) => hold(`user-${i}`));
    await clock.advance(1_000);
    const delays = sockets.map(({ closeAsked }) => (closeAsked?.at ?? Number.NaN) - startedAt);
    expect(Math.min(...delays)).toBeGreaterThanOrEqual(200);
    expect(Math.min(...delays)).toBeLessThan(400);
    expect(Math.max(...delays)).toBeGreaterThan(800);
    expect(sockets[0]?.closeAsked).toMatchObject({ code: 4129, reason: 'over_limit' });
    expect(sockets[0]?.sent).toEqual([
      {
        event: 'ws:closing',
        data: { code: 4129, reason: 'over_limit', retryable: true, retryAfterMs: 1_500 },
      },
    ]);
  });

  it('and does not close its side is cut off', async () => {
    const { clock, refusals, hold } = setup();
    const socket = hold();
    await clock.advance(1_000 + LINGER_MS);
    expect((socket.terminatedAt ?? 0) - (socket.closeAsked?.at ?? 0)).toBe(LINGER_MS);
    expect(refusals.held).toBe(0);
  });

  it.each([100, 1_100])('and goes after %d ms leaves nothing behind', async (ms) => {
    const { clock, refusals, hold } = setup();
    const socket = hold();
    let areGone = false;
    void refusals.whenHeldAreGone().then(() => {
      areGone = true;
    });
    await clock.advance(ms);
    expect(refusals.held).toBe(1);
    expect(areGone).toBe(false);
    socket.emit('close');
    await clock.settle();
    expect(areGone).toBe(true);
    expect(refusals.held).toBe(0);
    expect(clock.timerCount).toBe(0);
    await clock.advance(5_000);
    expect(socket.terminatedAt).toBeUndefined();
    for (const [name, value] of Object.entries(refusals)) {
      if (value instanceof Map || value instanceof Set) expect(value.size, name).toBe(0);
    }
  });
});

describe('places to be held in', () => {
  it('are twenty for one user or address', async () => {
    const { clock, refusals, hold } = setup();
    for (let i = 0; i < 19; i++) hold();
    expect(refusals.mayHold('alice')).toBe(true);
    const last = hold();
    expect(refusals.mayHold('alice')).toBe(false);
    expect(refusals.mayHold('bob')).toBe(true);
    last.emit('close');
    await clock.settle();
    expect(refusals.mayHold('alice')).toBe(true);
  });

  it('are a thousand in all', async () => {
    const { clock, refusals, hold } = setup();
    for (let i = 0; i < 999; i++) hold(`user-${i}`);
    expect(refusals.mayHold('alice')).toBe(true);
    const last = hold('bob');
    expect(refusals.mayHold('alice')).toBe(false);
    last.emit('close');
    await clock.settle();
    expect(refusals.mayHold('alice')).toBe(true);
  });
});

/** A socket that takes what is written, or nothing any more. */
class HttpSocket extends Duplex {
  text = '';
  constructor(private readonly isStuck = false) {
    super();
  }

  override _write(chunk: Buffer, _: string, done: () => void): void {
    this.text += chunk.toString();
    if (!this.isStuck) done();
  }

  override _read(): void {}
}

describe('an answer in HTTP', () => {
  it('has the status, the body, and when to come back in whole seconds', async () => {
    const { clock, refusals } = setup();
    const socket = new HttpSocket();
    refusals.answer(socket, 'over_limit', 1_500);
    await clock.settle();
    const [head = '', body = ''] = socket.text.split('\r\n\r\n');
    expect(head.split('\r\n')).toEqual([
      'HTTP/1.1 429 Too Many Requests',
      'Connection: close',
      'Content-Type: application/json; charset=utf-8',
      `Content-Length: ${Buffer.byteLength(body)}`,
      'Retry-After: 2',
    ]);
    expect(JSON.parse(body)).toEqual({
      statusCode: 429,
      error: 'Too Many Requests',
      reason: 'over_limit',
      message: expect.any(String),
      retryAfterMs: 1_500,
    });
    expect(socket.destroyed).toBe(true);
    expect(clock.timerCount).toBe(0);
  });

  it('says nothing of coming back where there is nothing to say', async () => {
    const { clock, refusals } = setup();
    const socket = new HttpSocket();
    refusals.answerNotFound(socket);
    await clock.settle();
    const [head = '', body = ''] = socket.text.split('\r\n\r\n');
    expect(head.split('\r\n').map((line) => line.split(':')[0])).toEqual([
      'HTTP/1.1 404 Not Found',
      'Connection',
      'Content-Type',
      'Content-Length',
    ]);
    expect(Object.keys(JSON.parse(body))).toEqual(['statusCode', 'error', 'reason', 'message']);
    expect(JSON.parse(body)).toMatchObject({ statusCode: 404, error: 'Not Found', reason: 'not_found' });
  });

  it('is not waited for without end by a socket that takes nothing', async () => {
    const { clock, refusals } = setup();
    const socket = new HttpSocket(true);
    refusals.answer(socket, 'draining');
    await clock.advance(LINGER_MS - 1);
    expect(socket.destroyed).toBe(false);
    await clock.advance(1);
    expect(socket.destroyed).toBe(true);
  });

  it('to who cannot be written to any more is the end of the socket', async () => {
    const { clock, refusals } = setup();
    const socket = new HttpSocket();
    socket.end();
    refusals.answer(socket, 'draining');
    expect(socket.destroyed).toBe(true);
    await clock.settle();
    expect(socket.text).toBe('');
    expect(clock.timerCount).toBe(0);
  });
});
