import { Writable } from 'node:stream';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { EventStream } from '../../src/events/event-stream.js';
import { OperatorStreams, type PlatformResponse } from '../../src/observability/operator-streams.js';
import { FakeClock } from '../../src/testing/index.js';

const MOST_STREAMS = 16;
const MOST_UNSENT_BYTES = 64 * 1024;
const HIGH_WATER_MARK = 16 * 1024;

/** A response whose client reads when it is told to. */
class Response extends Writable {
  text = '';
  head: { status: number; headers: Record<string, unknown> } | undefined;
  isReading = true;
  private waiting: (() => void)[] = [];

  constructor() {
    super({ highWaterMark: HIGH_WATER_MARK, decodeStrings: false });
  }

  get headersSent(): boolean {
    return this.head !== undefined;
  }

  writeHead(status: number, headers: Record<string, unknown>): void {
    this.head = { status, headers };
  }

  flushHeaders(): void {}

  override _write(chunk: string, _: string, done: () => void): void {
    this.text += chunk;
    if (this.isReading) done();
    else this.waiting.push(done);
  }

  readOn(): void {
    this.isReading = true;
    for (const done of this.waiting.splice(0)) done();
  }

  of(type: string): Record<string, unknown>[] {
    const found = this.text.matchAll(new RegExp(`^event: ${type}\nid: \\d+\ndata: (.*)\n\n`, 'gm'));
    return [...found].map(([, data]) => JSON.parse(data ?? '') as Record<string, unknown>);
  }
}

let clock: FakeClock;
let events: EventStream;
let streams: OperatorStreams;
const responses: Response[] = [];
const settled = () => new Promise((resolve) => setImmediate(() => setImmediate(resolve)));

beforeEach(() => {
  clock = new FakeClock();
  events = new EventStream(clock);
  streams = new OperatorStreams(clock, events);
});
afterEach(() => {
  for (const response of responses.splice(0)) response.destroy();
});

interface Asked {
  readonly method?: string;
  readonly httpVersionMajor?: number;
  readonly writeHead?: () => void;
}

async function open({ method = 'GET', httpVersionMajor = 1, ...platform }: Asked = {}): Promise<Response> {
  const response = new Response();
  responses.push(response);
  const given = Object.assign(response, platform) as unknown as PlatformResponse;
  streams.start({ method, httpVersionMajor } as never, given);
  await settled();
  return response;
}

function report(times = 1, bytes = 1_000): void {
  for (let i = 0; i < times; i++) {
    events.report({ type: 'store_failed', operation: 'x'.repeat(bytes), error: new Error('away') });
  }
}

describe('OperatorStreams', () => {
  it('writes every event with its type, a number and its data; of an error, its message', async () => {
    const response = await open();
    report(2, 3);
    expect(response.text).toBe(
      [1, 2]
        .map((id) => {
          const data = JSON.stringify({
            type: 'store_failed',
            operation: 'xxx',
            error: 'away',
            at: clock.wallNow(),
          });
          return `event: store_failed\nid: ${id}\ndata: ${data}\n\n`;
        })
        .reduce((text, event) => text + event, '\n'),
    );
  });

  it('drops events above 64 KiB that wait, and tells how many once the client reads', async () => {
    const response = await open();
    response.isReading = false;
    report(1_000);
    expect(response.writableLength).toBeGreaterThan(MOST_UNSENT_BYTES);
    expect(response.writableLength).toBeLessThan(MOST_UNSENT_BYTES + HIGH_WATER_MARK + 2_000);
    response.readOn();
    await settled();
    const told = response.of('store_failed').length;
    expect(response.of('dropped')).toEqual([{ type: 'dropped', count: 1_000 - told, at: clock.wallNow() }]);
    report();
    expect(response.of('store_failed')).toHaveLength(told + 1);
    expect(response.of('dropped')).toHaveLength(1);
  });

  it('drops nothing for a client that reads, whatever the number', async () => {
    const response = await open();
    report(1_000);
    expect([response.of('store_failed').length, response.of('dropped')]).toEqual([1_000, []]);
  });

  it('keeps the streams of other clients apart from one that does not read', async () => {
    const [stalled, reading] = [await open(), await open()];
    stalled.isReading = false;
    report(500);
    expect(reading.of('store_failed')).toHaveLength(500);
  });

  it('disconnects a client after 30 s above the bound, and not one that reads on before', async () => {
    const [stalled, slow] = [await open(), await open()];
    stalled.isReading = false;
    slow.isReading = false;
    report(1_000);
    await clock.advance(29_999);
    slow.readOn();
    await settled();
    expect(stalled.destroyed).toBe(false);
    await clock.advance(1);
    expect([stalled.destroyed, slow.destroyed]).toEqual([true, false]);
    await clock.advance(60_000);
    expect(slow.destroyed).toBe(false);
  });

  it('does not disconnect a client that reads slowly and stays below the bound', async () => {
    const response = await open();
    response.isReading = false;
    report(30);
    await clock.advance(60_000);
    expect(response.destroyed).toBe(false);
    response.readOn();
    await settled();
    expect([response.of('store_failed').length, response.of('dropped')]).toEqual([30, []]);
  });

  it('ends a stream after 15 minutes, so that the guards run again', async () => {
    const response = await open();
    await clock.advance(15 * 60_000 - 1);
    expect(response.writableEnded).toBe(false);
    await clock.advance(1);
    expect(response.writableEnded).toBe(true);
    await settled();
    expect(clock.timerCount).toBe(0);
  });

  it('ends when the events do, within a second also for a client that does not read', async () => {
    const [reading, stalled] = [await open(), await open()];
    stalled.isReading = false;
    report(1_000);
    events.complete();
    await settled();
    expect([reading.writableFinished, stalled.destroyed]).toEqual([true, false]);
    await clock.advance(1_000);
    expect(stalled.destroyed).toBe(true);
  });

  it('is full with sixteen, until one closes', async () => {
    while (responses.length < MOST_STREAMS) {
      expect(streams.isFull).toBe(false);
      await open();
    }
    expect(streams.isFull).toBe(true);
    responses[0]?.destroy();
    await settled();
    expect(streams.isFull).toBe(false);
  });

  it('counts a stream from the request on, not only from its first byte', () => {
    for (let i = 0; i < MOST_STREAMS; i++) void open();
    expect(streams.isFull).toBe(true);
  });

  it('leaves no timer and no listener when a client goes', async () => {
    const response = await open();
    response.isReading = false;
    report(1_000);
    expect(clock.timerCount).toBe(2);
    response.destroy();
    report();
    await settled();
    expect([clock.timerCount, events.hears('store_failed')]).toEqual([0, false]);
  });

  it('writes the raw response of Fastify, which is told that it does not have to', async () => {
    const raw = new Response();
    responses.push(raw);
    let hijacked = 0;
    const reply = {
      raw,
      getHeaders: () => ({ 'x-frame-options': 'DENY', 'cache-control': 'public' }),
      hijack: () => hijacked++,
    };
    streams.start(
      { raw: { method: 'GET', httpVersionMajor: 1 } } as never,
      reply as unknown as PlatformResponse,
    );
    expect(hijacked).toBe(1);
    await settled();
    expect(raw.head).toEqual({
      status: 200,
      headers: {
        'x-frame-options': 'DENY',
        'content-type': 'text/event-stream',
        connection: 'keep-alive',
        'cache-control': 'private, no-cache, no-store, must-revalidate, max-age=0, no-transform',
        pragma: 'no-cache',
        expires: '0',
        'x-accel-buffering': 'no',
      },
    });
  });

  it('has no hop-by-hop header in HTTP/2', async () => {
    expect((await open({ httpVersionMajor: 2 })).head?.headers).not.toHaveProperty('connection');
  });

  it('ends the answer to HEAD after its head', async () => {
    const response = await open({ method: 'HEAD' });
    expect([response.head?.status, response.writableEnded, response.text]).toEqual([200, true, '']);
    await settled();
    expect([clock.timerCount, events.hears('store_failed')]).toEqual([0, false]);
  });

  it('leaves an answer alone that something else has given meanwhile', async () => {
    const response = new Response();
    responses.push(response);
    streams.start({ method: 'GET' } as never, response as unknown as PlatformResponse);
    response.writeHead(500, {});
    await settled();
    report();
    expect([response.head?.status, response.text]).toEqual([500, '']);
    for (let i = 0; i < MOST_STREAMS - 1; i++) await open();
    expect(streams.isFull).toBe(false);
  });

  it('reports a header that cannot be written, and closes the socket', async () => {
    const failures: unknown[] = [];
    events.listen(['hook_failed'], ({ hook, error }) => failures.push([hook, error]));
    const error = new TypeError('Invalid character in header content');
    const response = await open({
      writeHead: () => {
        throw error;
      },
    });
    expect([response.destroyed, failures]).toEqual([true, [['GET api/events', error]]]);
  });
});
