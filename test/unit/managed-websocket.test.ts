import { randomBytes } from 'node:crypto';
import { EventEmitter, once } from 'node:events';
import { type AddressInfo, Socket } from 'node:net';
import type { Writable } from 'node:stream';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { WebSocket, WebSocketServer } from 'ws';
import { BufferBudget } from '../../src/admission/buffered-messages.js';
import { managerOf } from '../../src/admission/current-manager.decorator.js';
import {
  connectionOf,
  type ManagedWebSocket,
  managedWebSocketClass,
  STATE,
} from '../../src/admission/managed-websocket.js';
import { MessageDispatcher, onDisconnect } from '../../src/admission/message-dispatcher.js';
import { WebSocketTransport } from '../../src/admission/websocket-transport.js';
import type { Connection } from '../../src/manager/connection.js';
import { Core } from '../support/core.js';

/** An upgraded pair of sockets, as the door makes one. */
interface Pair {
  readonly server: ManagedWebSocket & WebSocket;
  readonly stream: Socket;
  readonly client: WebSocket;
  readonly connection: Connection;
  readonly transport: WebSocketTransport;
  /** What the client got, in order; binary messages in angle brackets. */
  readonly received: string[];
  /** How the client was closed. */
  readonly closed: Promise<readonly [number, string]>;
}

const listenerFailures: [string, unknown][] = [];
const peerFailures: unknown[] = [];
const sink = {
  listenerFailed: (event: string, error: unknown) => void listenerFailures.push([event, error]),
  peerFailed: (error: unknown) => void peerFailures.push(error),
};
let core: Core;
let cleanUps: (() => unknown)[] = [];

beforeEach(async () => {
  core = await Core.start();
  listenerFailures.length = peerFailures.length = 0;
});
afterEach(async () => {
  for (const cleanUp of cleanUps.reverse()) await cleanUp();
  cleanUps = [];
});

async function connect({
  base = WebSocket,
  isManaged = true,
  perMessageDeflate = false,
} = {}): Promise<Pair> {
  const Managed = managedWebSocketClass(base as never, sink) as unknown as typeof WebSocket;
  const listening = new WebSocketServer({
    port: 0,
    host: '127.0.0.1',
    WebSocket: Managed,
    perMessageDeflate,
  });
  cleanUps.push(() => new Promise((resolve) => listening.close(resolve)));
  await once(listening, 'listening');
  const { port } = listening.address() as AddressInfo;
  const client = new WebSocket(`ws://127.0.0.1:${port}`, { perMessageDeflate });
  cleanUps.push(() => client.terminate());
  const received: string[] = [];
  client.on('message', (data, isBinary) => received.push(isBinary ? `<${data}>` : String(data)));
  client.on('error', () => {});
  const closed = new Promise<readonly [number, string]>((resolve) => {
    client.on('close', (code, reason) => resolve([code, String(reason)]));
  });
  const [server, request] = (await once(listening, 'connection')) as [Pair['server'], { socket: Socket }];
  cleanUps.push(() => server.terminate());
  const stream = request.socket;
  const transport = new WebSocketTransport(server, stream);
  const manager = await core.factory.create({ userId: 'ada' });
  const connection = manager.attach(transport);
  if (isManaged) server[STATE].attach(connection, stream);
  await once(client, 'open');
  return { server, stream, client, connection, transport, received, closed };
}

/** Sends from the client, and waits until the server's socket has had it. */
async function say({ client, server }: Pair, ...texts: string[]): Promise<void> {
  for (const text of texts) client.send(text);
  client.ping();
  await once(server, 'ping');
}

/** Takes every message for one of the event `ask`. */
function dispatcherOf(heard: (text: string) => unknown = () => {}): MessageDispatcher {
  return new MessageDispatcher(
    (data) => {
      heard(String(data));
      return { event: 'ask', data: String(data) };
    },
    () => {},
    () => true,
  );
}

/** Binds a gateway to the socket, and buffers its messages: what it has heard, and how to release them. */
function buffering({ server }: Pair, bytes = 1_048_576, budget = new BufferBudget(bytes)) {
  const heard: string[] = [];
  dispatcherOf((text) => heard.push(text)).bind(server, {}, []);
  const buffered = server[STATE].bufferMessages(budget);
  return { heard, buffered, budget };
}

/** What the client has got by the time that a ping, sent after it, has come back. */
async function heardBy({ client, server, received }: Pair): Promise<readonly string[]> {
  server.ping();
  await once(client, 'ping');
  return received;
}

describe('what the server sends', () => {
  it('arrives in order, whichever way it takes', async () => {
    const pair = await connect();
    const { server } = pair;
    server.send('text');
    server.send(Buffer.from('binary'));
    server.send('after binary');
    server.send(new Uint8Array([0x61]).buffer);
    server.send('with a callback', () => {});
    server.send('part', { fin: false });
    server.send('ial', { fin: true });
    server.send('after parts');
    expect(await heardBy(pair)).toEqual([
      'text',
      '<binary>',
      'after binary',
      '<a>',
      'with a callback',
      'partial',
      'after parts',
    ]);
  });

  it('is with the kernel when the call returns, and `bufferedAmount` is 0', async () => {
    const pair = await connect();
    const { server, stream } = pair;
    const before = stream.bytesWritten;
    server.send('one');
    expect(stream.bytesWritten - before).toBe('one'.length + 2);
    expect([stream.writableCorked, stream.writableLength, server.bufferedAmount]).toEqual([0, 0, 0]);
    server.send('two');
    expect(server.bufferedAmount).toBe(0);
    expect(await heardBy(pair)).toEqual(['one', 'two']);
  });

  describe('as answers to one read', () => {
    /** Handlers that answer with their message, and what was unwritten after each answer. */
    async function answering(handler: (text: string, server: Pair['server']) => unknown = (text) => text) {
      const pair = await connect();
      const { server, stream } = pair;
      const unwritten: number[] = [];
      const answers = vi.spyOn(server[STATE], 'answer');
      answers.mockImplementation((text) => {
        Object.getPrototypeOf(server[STATE]).answer.call(server[STATE], text);
        unwritten.push(stream.writableLength);
      });
      dispatcherOf().bind(server, {}, [
        { message: 'ask', callback: async (text: string) => handler(text, server) },
      ] as never);
      const ask = async (...texts: string[]) => {
        stream.pause();
        const all = say(pair, ...texts);
        await new Promise((resolve) => setTimeout(resolve, 20));
        stream.resume();
        await all;
        await new Promise((resolve) => setImmediate(resolve));
      };
      return { ...pair, ask, unwritten };
    }

    it('goes out at once when it answers the only message, and with the others when it answers several', async () => {
      const pair = await answering();
      await pair.ask('alone');
      expect(pair.unwritten).toEqual([0]);
      pair.unwritten.length = 0;
      await pair.ask('one', 'two', 'three');
      expect(pair.unwritten).toEqual([7, 14, 23]);
      expect([pair.stream.writableCorked, pair.stream.writableLength]).toEqual([0, 0]);
      expect(await heardBy(pair)).toEqual(
        ['alone', 'one', 'two', 'three'].map((text) => JSON.stringify(text)),
      );
    });

    it('is never more than 16 KiB', async () => {
      const pair = await answering((text) => 'x'.repeat(Number(text)));
      await pair.ask('10000', '6000', '10000', '20000', '100');
      expect(pair.unwritten).toEqual([10_006, 16_012, 10_006, 0, 104]);
      const lengths = (await heardBy(pair)).map((text) => text.length - 2);
      expect(lengths).toEqual([10_000, 6_000, 10_000, 20_000, 100]);
    });

    it.each<[string, (server: Pair['server']) => unknown, readonly string[]]>([
      ['sends a text', (server) => server.send('now'), ['"one"', 'now', '"two"']],
      ['sends bytes', (server) => server.send(Buffer.from('now')), ['"one"', '<now>', '"two"']],
      ['pings', (server) => server.ping(), ['"one"', '"two"']],
      ['asks for `bufferedAmount`', (server) => expect(server.bufferedAmount).toBe(0), ['"one"', '"two"']],
      ['terminates', (server) => server.terminate(), ['"one"']],
      ['closes', (server) => server.close(4000), ['"one"']],
    ])('is written, in order, when the application %s', async (_, happens, expected) => {
      const pair = await connect();
      const { server, stream } = pair;
      const unwritten: number[] = [];
      const callback = async (text: string) => {
        if (text === 'one') return text;
        // By then the answer before is given.
        for (let i = 0; i < 9; i++) await undefined;
        const before = stream.writableLength;
        happens(server);
        unwritten.push(before, stream.writableLength);
        return text;
      };
      dispatcherOf().bind(server, {}, [{ message: 'ask', callback }] as never);
      stream.pause();
      for (const text of ['one', 'two']) pair.client.send(text);
      await new Promise((resolve) => setTimeout(resolve, 20));
      stream.resume();
      await expect.poll(() => unwritten).toEqual([7, 0]);
      await expect.poll(() => pair.received).toEqual(expected);
    });

    it('is at once again after the turn, although the next message is long under way', async () => {
      const pair = await answering((text) => new Promise((resolve) => setTimeout(resolve, 30, text)));
      await pair.ask('one', 'two');
      await expect.poll(() => pair.unwritten).toEqual([0, 0]);
    });
  });

  it('goes through what the application has put in place of `send`, answers and notices too', async () => {
    const pair = await connect();
    const { server } = pair;
    const traced: unknown[] = [];
    const { send } = server;
    server.send = function (this: typeof server, ...args: unknown[]) {
      traced.push(args[0]);
      return send.apply(this, args as never);
    } as typeof send;
    server[STATE].answer('answer');
    server[STATE].sendUncounted('notice');
    server.send('text');
    expect(traced).toEqual(['answer', 'notice', 'text']);
    expect(core.counters.messagesOut).toBe(2);
    expect(await heardBy(pair)).toEqual(['answer', 'notice', 'text']);
    server.send = 'no function' as never;
    server[STATE].sendUncounted('all the same');
    expect((await heardBy(pair)).at(-1)).toBe('all the same');
  });

  it('is sent as the application’s own after an answer that could not be sent', async () => {
    const { server } = await connect();
    const { send } = server;
    server.send = () => {
      throw new Error('full');
    };
    expect(() => server[STATE].sendUncounted('notice')).toThrow('full');
    server.send = send;
    server.send('one');
    expect(core.counters.messagesOut).toBe(1);
  });

  describe('where a tracer has replaced a method', () => {
    const senderOf = (server: object) =>
      (server as { _sender: Record<string, unknown> & { constructor: Record<string, unknown> } })._sender;

    /** Wraps the method for as long as the test runs. */
    function trace(object: Record<string, unknown>, name: string): unknown[][] {
      const calls: unknown[][] = [];
      const original = object[name] as (...args: unknown[]) => unknown;
      const isOwn = Object.hasOwn(object, name);
      object[name] = function (this: unknown, ...args: unknown[]) {
        calls.push(args);
        return original.apply(this, args);
      };
      cleanUps.push(() => {
        if (isOwn) object[name] = original;
        else delete object[name];
      });
      return calls;
    }

    const everything = async (pair: Pair) => {
      pair.server.send('text');
      pair.server[STATE].answer('answer');
      pair.server[STATE].sendUncounted('notice');
      expect(await heardBy(pair)).toEqual(['text', 'answer', 'notice']);
    };

    it.each([
      ['before', true],
      ['after', false],
    ])('WebSocket.prototype.send, %s the server began: it sees all texts', async (_, isBefore) => {
      const prototype = WebSocket.prototype as unknown as Record<string, unknown>;
      const early = isBefore ? trace(prototype, 'send') : [];
      const pair = await connect();
      await everything(pair);
      const late = isBefore ? early : trace(prototype, 'send');
      if (!isBefore) {
        pair.received.length = 0;
        await everything(pair);
      }
      expect(late.map(([text]) => text)).toEqual(['text', 'answer', 'notice']);
    });

    it.each(['send', 'dispatch', 'sendFrame'])('Sender.prototype.%s: it sees all texts', async (name) => {
      const first = await connect();
      const calls = trace(Object.getPrototypeOf(senderOf(first.server)), name);
      await everything(first);
      // The pings of `heardBy` pass through `sendFrame` too.
      expect(calls.length).toBeGreaterThanOrEqual(3);
      calls.length = 0;
      const second = await connect();
      await everything(second);
      expect(calls.length).toBeGreaterThanOrEqual(3);
    });

    it('Sender.frame: it sees all texts', async () => {
      const pair = await connect();
      const calls = trace(senderOf(pair.server).constructor, 'frame');
      await everything(pair);
      expect(calls.length).toBeGreaterThanOrEqual(3);
    });

    it('of the sender of one socket: it sees all texts of it', async () => {
      const pair = await connect();
      const calls = trace(senderOf(pair.server), 'send');
      await everything(pair);
      expect(calls.map(([text]) => text)).toEqual(['text', 'answer', 'notice']);
    });

    it.each([
      ['WebSocket.prototype.ping', () => WebSocket.prototype],
      ['Sender.prototype.ping', (server: object) => Object.getPrototypeOf(senderOf(server))],
    ])('%s: it sees our pings', async (_, objectOf) => {
      const pair = await connect();
      const calls = trace(objectOf(pair.server) as never, 'ping');
      const answered = once(pair.server, 'pong');
      pair.transport.ping();
      await answered;
      expect(calls).toHaveLength(1);
    });

    it('WebSocket.prototype.emit: it sees the pongs to our pings', async () => {
      const pair = await connect();
      const calls = trace(WebSocket.prototype as unknown as Record<string, unknown>, 'emit');
      for (let i = 1; i < 3; i++) {
        pair.transport.ping();
        await expect.poll(() => calls.filter(([event]) => event === 'pong')).toHaveLength(i);
      }
    });
  });

  /** Whether the next text is framed by `ws`. */
  function isLeftToWs(server: Pair['server']): boolean {
    const socket = transportOf(server);
    const writes = vi.spyOn(socket, 'write');
    server.send('next');
    const { length } = writes.mock.calls;
    writes.mockRestore();
    // `ws` writes a header and then the text, or nothing yet.
    return length !== 1;
  }

  it.each([
    ['a Blob, until that is read', new Blob(['blob']), {}, '<blob>'],
    ['a part, until the last one', 'part', { fin: false }, undefined],
  ])('is left to ws after %s', async (_, data, options, received) => {
    const pair = await connect();
    pair.server.send(data as never, options);
    expect(isLeftToWs(pair.server)).toBe(true);
    if (received === undefined) pair.server.send('end', { fin: true });
    await expect.poll(() => pair.received.length).toBeGreaterThan(0);
    expect(isLeftToWs(pair.server)).toBe(false);
  });

  it.each([
    ['bytes', Buffer.from('x')],
    ['an ArrayBuffer', new Uint8Array([1]).buffer],
  ])('is ours again after %s', async (_, data) => {
    const { server } = await connect();
    server.send(data);
    expect(isLeftToWs(server)).toBe(false);
  });

  it('is left to ws where messages are compressed', async () => {
    const pair = await connect({ perMessageDeflate: true });
    expect(isLeftToWs(pair.server)).toBe(true);
    expect(await heardBy(pair)).toEqual(['next']);
  });

  it("is left to a class of the application's own", async () => {
    class Shouting extends WebSocket {
      override send(data: unknown): void {
        super.send(String(data).toUpperCase());
      }
    }
    const pair = await connect({ base: Shouting });
    pair.server.send('text');
    expect(await heardBy(pair)).toEqual(['TEXT']);
  });

  it('is the application’s traffic, but for what says otherwise', async () => {
    const pair = await connect();
    const { server, connection } = pair;
    await core.clock.advance(1_000);
    server.send('text');
    server.send(Buffer.from('binary'));
    expect(core.counters.messagesOut).toBe(2);
    expect(connection.manager.lastActivityAt).toBe(core.clock.now());
    server[STATE].sendUncounted('notice');
    expect(core.counters.messagesOut).toBe(2);
    expect(await heardBy(pair)).toEqual(['text', '<binary>', 'notice']);
  });

  it('is left to ws where no connection is there, or none any more', async () => {
    const stranger = await connect({ isManaged: false });
    stranger.server.send('to a stranger');
    expect(await heardBy(stranger)).toEqual(['to a stranger']);
    const ended = await connect();
    ended.connection.end({ reason: 'evicted' });
    ended.server.send('too late');
    expect(core.counters.messagesOut).toBe(0);
    expect(await ended.closed).toEqual([4510, 'evicted']);
    expect(ended.received.map((text) => JSON.parse(text).event)).toEqual(['ws:closing']);
  });

  it('is on its way when the socket is terminated in the same turn', async () => {
    const { server, received, closed } = await connect();
    server.send('last words');
    server.terminate();
    expect(await closed).toEqual([1006, '']);
    expect(received).toEqual(['last words']);
  });

  it('throws nothing, and goes nowhere, once the socket is closing', async () => {
    const { server, received, closed } = await connect();
    server.close(4000, 'enough');
    server[STATE].sendUncounted('too late');
    expect(await closed).toEqual([4000, 'enough']);
    expect(received).toEqual([]);
  });

  it('ends who takes too little of it', async () => {
    core = await Core.start({ limits: { maxBufferedBytes: 1_000 } });
    const { server, client, connection } = await connect();
    client.pause();
    for (let i = 0; i < 100; i++) server.send('x'.repeat(100_000));
    expect(connection.detached).toBe(false);
    await core.clock.settle();
    expect(connection.detached).toBe(true);
    expect(core.reported.find(({ type }) => type === 'detached')).toMatchObject({ reason: 'slow_consumer' });
  });
});

describe('what the client sends', () => {
  it('is traffic of its session', async () => {
    const pair = await connect();
    const heard: string[] = [];
    pair.server.on('message', (data) => heard.push(String(data)));
    await core.clock.advance(1_000);
    await say(pair, 'one', 'two');
    expect(heard).toEqual(['one', 'two']);
    expect(core.counters.messagesIn).toBe(2);
    expect(pair.connection.manager.lastActivityAt).toBe(core.clock.now());
  });

  it.each([
    ['nobody in whose name it came', { isManaged: false }, () => {}],
    ['a connection that has ended', {}, ({ connection }: Pair) => connection.end({ reason: 'evicted' })],
  ])('is not heard from %s', async (_, setup, prepare) => {
    const pair = await connect(setup);
    const heard: unknown[] = [];
    pair.server.on('message', (data) => heard.push(data));
    prepare(pair);
    expect(pair.server.emit('message', Buffer.from('one'), false)).toBe(false);
    expect(heard).toEqual([]);
    expect(core.counters.messagesIn).toBe(0);
  });

  describe('while handleConnection runs', () => {
    const texts = (many: number, length = 4) =>
      Array.from({ length: many }, (_, i) => `${i}`.padStart(length, '0'));
    const settled = () => new Promise((resolve) => setTimeout(resolve, 100));

    it('waits for gateways, in order, and is heard by other listeners at once', async () => {
      const pair = await connect();
      const { heard, buffered } = buffering(pair);
      const raw: string[] = [];
      pair.server.on('message', (data) => raw.push(String(data)));
      await say(pair, 'one', 'two');
      expect([raw, heard]).toEqual([['one', 'two'], []]);
      buffered.release();
      expect(heard).toEqual(['one', 'two']);
      await say(pair, 'three');
      expect(heard).toEqual(['one', 'two', 'three']);
    });

    it('waits until the hooks of all gateways have settled', async () => {
      const pair = await connect();
      const { heard, buffered, budget } = buffering(pair);
      expect(pair.server[STATE].bufferMessages(budget)).toBe(buffered);
      await say(pair, 'one');
      buffered.release();
      expect(heard).toEqual([]);
      buffered.release();
      expect(heard).toEqual(['one']);
    });

    it('waits once for each gateway of the socket, and goes to each of them', async () => {
      const pair = await connect();
      const first = buffering(pair);
      const second: string[] = [];
      dispatcherOf((text) => second.push(text)).bind(pair.server, {}, []);
      await say(pair, 'one', 'two');
      expect([first.heard, second]).toEqual([[], []]);
      const used = first.budget.usedBy('ada');
      first.buffered.release();
      expect([first.heard, second, used]).toEqual([['one', 'two'], ['one', 'two'], 2 * (3 + 4)]);
    });

    it('is of its kind and size afterwards, whatever lies between', async () => {
      const pair = await connect();
      const messages = [
        'short',
        Buffer.from('binary'),
        '',
        'x'.repeat(1_024),
        'y'.repeat(1_025),
        Buffer.alloc(20_000, 1),
        'ü€😀',
      ];
      const kinds: [boolean, string][] = [];
      const dispatcher = new MessageDispatcher(
        (data) => void kinds.push([Buffer.isBuffer(data), String(data)]),
        () => {},
        () => true,
      );
      dispatcher.bind(pair.server, {}, []);
      const buffered = pair.server[STATE].bufferMessages(new BufferBudget(1_000_000));
      for (let i = 0; i < 20; i++) for (const message of messages) pair.client.send(message);
      pair.client.ping();
      await once(pair.server, 'ping');
      buffered.release();
      await expect.poll(() => kinds.length).toBe(140);
      const expected = messages.map((message) => [Buffer.isBuffer(message), String(message)]);
      expect(kinds).toEqual(Array.from({ length: 20 }, () => expected).flat());
    });

    it('is read no further than its bytes allow, and nothing is lost', async () => {
      const pair = await connect();
      const { server, client, transport, connection } = pair;
      const { heard, buffered, budget } = buffering(pair, 200_000);
      let raw = 0;
      server.on('message', () => raw++);
      const all = texts(1_000, 4_000);
      connection.isCalm = true;
      for (const text of all) client.send(text);
      await expect.poll(() => buffered.isStopped).toBe(true);
      await settled();
      expect([server.isPaused, transport.paused, connection.isCalm]).toEqual([false, true, false]);
      expect(raw * 4_000).toBeLessThan(200_000 + 65_536);
      expect(budget.usedBy('ada')).toBeLessThan(200_000 + 65_536);
      expect(heard).toEqual([]);
      // The application's own way to read on does not go round the bound.
      server.resume();
      await settled();
      expect(raw * 4_000).toBeLessThan(200_000 + 65_536);
      buffered.release();
      await expect.poll(() => heard.length).toBe(1_000);
      expect(heard).toEqual(all);
      expect([budget.size, transport.paused]).toEqual([0, false]);
    });

    it('costs no more than its bytes, however many messages they are', async () => {
      const pair = await connect();
      const { client } = pair;
      const { heard, buffered, budget } = buffering(pair, 100_000);
      const all = texts(50_000, 1);
      for (const text of all) client.send(text);
      await expect.poll(() => buffered.isStopped).toBe(true);
      await settled();
      expect(budget.usedBy('ada')).toBeLessThan(100_000 + 65_536);
      buffered.release();
      await expect.poll(() => heard.length, { timeout: 5_000 }).toBe(50_000);
      expect(heard).toEqual(all);
    });

    it('is handed on in turns, with what comes meanwhile behind it', async () => {
      const pair = await connect();
      const { heard, buffered } = buffering(pair);
      const all = texts(300);
      await say(pair, ...all.slice(0, 200));
      buffered.release();
      expect(heard.length).toBe(64);
      for (const text of all.slice(200)) pair.server.emit('message', Buffer.from(text), false);
      expect(heard.length).toBe(64);
      await expect.poll(() => heard).toEqual(all);
      expect(pair.server[STATE].buffered).toBeUndefined();
    });

    it('is not inflated further than its bytes allow, and nothing is lost', async () => {
      const pair = await connect({ perMessageDeflate: true });
      const { server, client, transport } = pair;
      const { heard, buffered, budget } = buffering(pair, 1_000_000);
      let raw = 0;
      server.on('message', (data: Buffer) => {
        raw += data.length;
      });
      const all = texts(100, 300_000);
      for (const text of all) client.send(text);
      await expect.poll(() => buffered.isStopped).toBe(true);
      await settled();
      expect(transport.paused).toBe(true);
      expect(raw).toBeGreaterThan(0);
      expect(raw).toBeLessThan(1_200_000);
      expect(budget.usedBy('ada')).toBeLessThan(1_200_000);
      buffered.release();
      await expect.poll(() => heard.length, { timeout: 5_000 }).toBe(100);
      expect(heard).toEqual(all);
      expect([budget.size, transport.paused]).toEqual([0, false]);
    });

    it.each([false, true])('shares the bytes of its user (compressed: %s)', async (perMessageDeflate) => {
      const budget = new BufferBudget(100_000);
      const pairs = [];
      for (let i = 0; i < 8; i++) pairs.push(await connect({ perMessageDeflate }));
      const all = pairs.map((pair) => ({ ...pair, ...buffering(pair, 0, budget) }));
      const messages = texts(3, 90_000);
      for (const { client } of all) for (const text of messages) client.send(text);
      await expect.poll(() => all.every(({ buffered }) => buffered.isStopped)).toBe(true);
      await settled();
      // Each read that began below the bound may end above it.
      expect(budget.usedBy('ada')).toBeLessThan(400_000 + 8 * 65_536);
      for (const { buffered } of all) buffered.release();
      for (const { heard } of all) await expect.poll(() => heard.length).toBe(3);
      expect(all.map(({ heard }) => heard)).toEqual(all.map(() => messages));
      expect(budget.size).toBe(0);
    });

    it('goes on to be inflated as soon as another connection of the user needs less', async () => {
      const budget = new BufferBudget(100_000);
      const held = await connect({ perMessageDeflate: true });
      const { buffered, heard } = buffering(held, 0, budget);
      budget.add('ada', 390_000);
      held.client.send('x'.repeat(50_000));
      await expect.poll(() => buffered.isStopped).toBe(true);
      budget.add('ada', -300_000);
      await expect.poll(() => buffered.isPending).toBe(true);
      expect(buffered.isStopped).toBe(false);
      buffered.release();
      expect(heard).toEqual(['x'.repeat(50_000)]);
      budget.add('ada', -90_000);
      expect(budget.size).toBe(0);
    });

    it('ends its connection where nothing of ws can be stopped, and there is too much of it', async () => {
      const pair = await connect();
      const { _receiver: receiver } = pair.server as unknown as { _receiver: { cork: unknown } };
      receiver.cork = undefined;
      const { heard, budget, buffered } = buffering(pair, 10_000);
      for (const text of texts(100, 4_000)) pair.client.send(text);
      expect(await pair.closed).toEqual([1011, 'internal']);
      expect(listenerFailures).toEqual([
        ['message', new Error('more than 10000 bytes of messages before handleConnection has settled')],
      ]);
      buffered.release();
      expect([heard, budget.size]).toEqual([[], 0]);
    });

    it('is dropped with the connection that it was held for', async () => {
      const pair = await connect();
      const { heard, buffered, budget } = buffering(pair);
      await say(pair, 'one');
      pair.connection.end({ reason: 'evicted' });
      buffered.release();
      expect([heard, budget.size]).toEqual([[], 0]);
    });

    it.each([
      ['wanted', true, ['one', 'two', 'closed 4001']],
      ['not wanted', false, ['closed 4001']],
    ])(
      'and was held until its sender had left is %s: the gateway hears of the close after it, others at once',
      async (_, isWanted, expected) => {
        const pair = await connect();
        const { server, connection, closed } = pair;
        const told: string[] = [];
        const raw: string[] = [];
        server.on('close', () => raw.push('closed'));
        dispatcherOf((text) => told.push(text)).bind(server, {}, []);
        onDisconnect(server, (code) => told.push(`closed ${code}`));
        const buffered = server[STATE].bufferMessages(new BufferBudget(1_000));
        await say(pair, 'one', 'two');
        pair.client.close(4001, 'said it');
        await closed;
        await expect.poll(() => connection.closed).toEqual({ code: 4001, reason: 'said it' });
        await expect.poll(() => raw).toEqual(['closed']);
        let isGone = false;
        void connection.whenGone().then(() => {
          isGone = true;
        });
        await settled();
        expect([connection.detached, told]).toEqual([true, []]);
        buffered.release(isWanted);
        await expect.poll(() => told).toEqual(expected);
        await expect.poll(() => isGone).toBe(true);
      },
    );

    it('is dropped where its sender has left, and its user has as much waiting as it may', async () => {
      const pair = await connect();
      const { heard, buffered, budget } = buffering(pair, 10_000);
      budget.add('ada', 39_000);
      for (const text of texts(5, 500)) pair.client.send(text);
      await expect.poll(() => buffered.isStopped).toBe(true);
      pair.client.terminate();
      await expect.poll(() => pair.connection.closed?.code).toBe(1006);
      expect(budget.usedBy('ada')).toBeLessThanOrEqual(40_000);
      buffered.release();
      expect(heard).toEqual(texts(1, 500));
      budget.add('ada', -39_000);
      expect([budget.size, listenerFailures]).toEqual([0, []]);
    });

    it('is nothing to release where nothing was held', async () => {
      const pair = await connect();
      const { buffered, heard } = buffering(pair);
      buffered.release();
      expect([pair.server.isPaused, pair.server[STATE].buffered, heard]).toEqual([false, undefined, []]);
      await say(pair, 'later');
      expect(heard).toEqual(['later']);
    });

    it('leaves no method of ours on what belongs to ws', async () => {
      const pair = await connect({ perMessageDeflate: true });
      const { _receiver, _extensions } = pair.server as unknown as Record<string, Record<string, object>>;
      const own = () => [
        Object.hasOwn(_receiver as object, 'write'),
        Object.hasOwn(_extensions?.['permessage-deflate'] as object, 'decompress'),
      ];
      const { buffered } = buffering(pair);
      expect(own()).toEqual([true, true]);
      buffered.release();
      expect(own()).toEqual([false, false]);
    });

    it('stays unread where the application has stopped to read', async () => {
      const pair = await connect();
      const { buffered } = buffering(pair, 20_000);
      for (const text of texts(100, 4_000)) pair.client.send(text);
      await expect.poll(() => buffered.isStopped).toBe(true);
      pair.server.pause();
      buffered.release();
      await settled();
      expect([pair.server.isPaused, transportOf(pair.server).isPaused()]).toEqual([true, true]);
      pair.server.resume();
      expect(transportOf(pair.server).isPaused()).toBe(false);
    });
  });

  it.each(['ping', 'pong'] as const)('is life, if it is a %s', async (kind) => {
    const { server, client, connection } = await connect();
    await core.clock.advance(1_000);
    client[kind]();
    await once(server, kind);
    expect(connection.lastHeardAt).toBe(core.clock.now());
  });

  it.each([
    ['and we', true],
    ['and the application', false],
  ])(
    'is whole, wherever the network cuts it and whatever pong comes within (%s hear of it)',
    async (_, isOurs) => {
      const { server, client, connection } = await connect();
      if (isOurs) {
        connection.ping();
        await expect.poll(() => connection.pingedAt, { interval: 1 }).toBeUndefined();
      }
      const bytes = Buffer.concat([
        frame(0x8a),
        frame(0x81, 'one'),
        frame(0x8a, 'still here'),
        frame(0x01, 'two, in '),
        frame(0x8a),
        frame(0x80, 'parts'),
        frame(0x8a),
      ]);
      const { _socket: stream } = client as unknown as { _socket: Socket };
      const heard: string[] = [];
      let pongs = 0;
      server.on('message', (data) => heard.push(String(data)));
      if (isOurs) vi.spyOn(connection, 'notePong').mockImplementation(() => void pongs++);
      else server.on('pong', () => pongs++);
      for (let cut = 1; cut <= bytes.length; cut++) {
        heard.length = pongs = 0;
        const before = transportOf(server).bytesRead;
        stream.write(bytes.subarray(0, cut));
        // Only then is it two reads.
        await expect.poll(() => transportOf(server).bytesRead, { interval: 1 }).toBe(before + cut);
        stream.write(bytes.subarray(cut));
        await expect.poll(() => pongs, { interval: 1 }).toBe(4);
        expect(heard).toEqual(['one', 'two, in parts']);
      }
    },
  );

  it('leaves nothing in memory when it was a pong', async () => {
    const { server, client } = await connect();
    // Private to ws: when this fails with a newer one, see whether there is still something to spare.
    const { _receiver: receiver } = server as unknown as {
      _receiver: { _buffers: unknown[]; _mask: unknown };
    };
    const lengths: unknown[] = [];
    receiver._buffers = new Proxy([] as unknown[], {
      set: (target, key, value) => {
        if (key === 'length') lengths.push(value);
        return Reflect.set(target, key, value);
      },
    });
    client.pong();
    await once(server, 'pong');
    expect(receiver._mask).toBeUndefined();
    // Pushed, shifted, and the room for more given back.
    expect(lengths).toEqual([1, 0, 0]);
  });
});

describe('the answer to a ping of ours', () => {
  /** Pinged once already, from when on its pongs are looked out for. */
  async function pinged() {
    const pair = await connect();
    const { connection, server } = pair;
    const ping = async () => {
      connection.ping();
      await expect.poll(() => connection.pingedAt, { interval: 1 }).toBeUndefined();
    };
    await ping();
    const { _receiver: receiver } = server as unknown as { _receiver: Writable };
    return { ...pair, receiver, ping };
  }

  it('is life, and is nothing for ws to read', async () => {
    const { connection, receiver, ping, stream, transport } = await pinged();
    const read = vi.spyOn(receiver, 'write');
    connection.missedPongs = 1;
    await ping();
    expect(connection.missedPongs).toBe(0);
    expect(read).not.toHaveBeenCalled();
    expect(transport.bytesRead).toBe(stream.bytesRead);
  });

  it.each(['on the socket', 'on every emitter'])('is seen by an emit that was patched %s', async (where) => {
    const { connection, ping, server } = await pinged();
    const seen: unknown[] = [];
    const { emit } = EventEmitter.prototype;
    const target = where === 'on the socket' ? server : EventEmitter.prototype;
    const before = target.emit as (event: string, ...args: unknown[]) => boolean;
    const patched = function (this: unknown, event: string, ...args: unknown[]) {
      if (this === server) seen.push(event);
      return before.call(this as never, event, ...args);
    };
    Object.assign(target, { emit: patched });
    connection.missedPongs = 1;
    await ping();
    EventEmitter.prototype.emit = emit;
    expect(connection.missedPongs).toBe(0);
    expect(seen).toContain('pong');
  });

  it.each([
    ['the pong to a marked ping', undefined, 0],
    ['an unsolicited pong', Buffer.alloc(0), 900_000],
    ['a pong with another mark', Buffer.of(77), 900_000],
    ['a pong to a ping of the application', Buffer.from('mine'), 900_000],
  ])('says what has been read only as %s: %o', async (_, payload, left) => {
    const { connection, server } = await pinged();
    connection.unreadBytes = 900_000;
    const sent: unknown[] = [];
    vi.spyOn(connection.transport, 'ping').mockImplementation((mark) => void sent.push(mark));
    connection.ping();
    expect(sent).toEqual([expect.any(Number)]);
    server.emit('pong', payload ?? Buffer.of(sent[0] as number));
    expect(connection.unreadBytes).toBe(left);
  });

  const LIKE_A_PONG = Buffer.from([0x8a, 0x80, 0, 0, 0, 0]);

  it.each([
    ['a message without text', [frame(0x81)], ''],
    ['the payload of a message', [Buffer.from([0x82, 0x86, 0, 0, 0, 0]), LIKE_A_PONG], 'ioAAAAAA'],
    [
      'the second byte of a frame, and on',
      [Buffer.from([0x82]), LIKE_A_PONG, Buffer.from([...Buffer.from('abcdefgh'), 0])],
      'gGFiY+RlZmfoAA==',
    ],
  ])('is not taken for %s', async (_, reads, expected) => {
    const { client, connection, server, stream } = await pinged();
    const pong = vi.spyOn(connection, 'notePong');
    const heard: string[] = [];
    server.on('message', (data: Buffer) => heard.push(data.toString('base64')));
    const { _socket: network } = client as unknown as { _socket: Socket };
    for (const read of reads) {
      const before = stream.bytesRead;
      network.write(read);
      await expect.poll(() => stream.bytesRead, { interval: 1 }).toBe(before + read.length);
    }
    await expect.poll(() => heard, { interval: 1 }).toEqual([expected]);
    expect(pong).not.toHaveBeenCalled();
  });

  it('is heard by the application, if it listens', async () => {
    const { ping, server } = await pinged();
    const heard: string[] = [];
    server.on('pong', (data) => heard.push(String(data)));
    await ping();
    expect(heard).toEqual(['']);
  });

  it('is left to ws once the socket is closing', async () => {
    const { connection, server, client, receiver } = await pinged();
    const read = vi.spyOn(receiver, 'write');
    const noted = vi.spyOn(connection, 'notePong');
    server.close(4000);
    client.pong();
    await once(server, 'close');
    expect(read).toHaveBeenCalled();
    expect(noted).toHaveBeenCalledTimes(1);
  });

  it('leaves ws its way of no longer listening to a peer that breaks the protocol', async () => {
    const { client, stream, closed } = await pinged();
    const ours = stream.listeners('data');
    expect(stream.rawListeners('data')).toHaveLength(1);
    expect(ours).toHaveLength(1);
    (client as unknown as { _socket: Socket })._socket.write(Buffer.from([0xff, 0xff]));
    expect(await closed).toEqual([1002, '']);
    expect(stream.listenerCount('data')).toBe(0);
    expect(listenerFailures).toEqual([]);
  });

  it('is no reason to keep a session in memory with a socket that has closed', async () => {
    const { client, server, stream } = await pinged();
    const leadsToUs = () =>
      Object.getOwnPropertySymbols(stream).filter(
        (symbol) => (stream as unknown as Record<symbol, unknown>)[symbol] instanceof WebSocketTransport,
      );
    expect(leadsToUs()).toHaveLength(1);
    client.close();
    await once(server, 'close');
    expect(leadsToUs()).toEqual([]);
  });

  it('is heard whatever the application assigns to what leads to us', async () => {
    const { stream, transport, ping } = await pinged();
    const ours = Object.getOwnPropertySymbols(stream).filter((symbol) =>
      String(symbol).includes('nestjs-websocket-manager'),
    );
    expect(ours).toHaveLength(1);
    for (const symbol of ours) expect(Reflect.set(stream, symbol, 'theirs')).toBe(false);
    await ping();
    expect(transport.bytesRead).toBe(stream.bytesRead);
  });

  it('is left to ws where somebody else reads the socket too', async () => {
    const { transport, stream, server } = await connect();
    const bytes: number[] = [];
    stream.on('data', (chunk: Buffer) => bytes.push(chunk.length));
    const [theirs] = stream.listeners('data');
    transport.ping();
    await once(server, 'pong');
    expect(stream.listeners('data')[0]).toBe(theirs);
    expect(bytes).toEqual([6]);
    expect(transport.bytesRead).toBe(stream.bytesRead);
  });
});

/** A masked frame, as a client sends it. */
function frame(first: number, text = ''): Buffer {
  const mask = [0x13, 0x57, 0x9b, 0xdf];
  const payload = Buffer.from(text).map((byte, i) => byte ^ (mask[i % 4] as number));
  return Buffer.from([first, 0x80 | payload.length, ...mask, ...payload]);
}

function transportOf(server: WebSocket): Socket {
  return (server as unknown as { _socket: Socket })._socket;
}

describe('listeners of the application', () => {
  const FAILURE = new Error('a listener failed');

  it.each([
    ['throw', () => Promise.resolve().then(() => {}), true],
    ['reject', async () => Promise.reject(FAILURE), false],
  ])('that %s end their connection, and nothing else', async (_, reject, throws) => {
    const pair = await connect();
    pair.server.on('message', () => {
      if (throws) throw FAILURE;
      return reject();
    });
    pair.client.send('one');
    expect(await pair.closed).toEqual([1011, 'internal']);
    expect(listenerFailures).toEqual([['message', FAILURE]]);
    expect(pair.server.emit('unheard')).toBe(false);
  });

  it('hear of the close after the connection knows how, and before it is told', async () => {
    const { server, client, connection } = await connect();
    const order: unknown[] = [];
    server.on('close', (code, reason) => order.push([code, String(reason), connection.closed]));
    void connection.whenGone().then(() => order.push('gone'));
    client.close(4001, 'bye');
    await expect.poll(() => order).toEqual([[4001, 'bye', { code: 4001, reason: 'bye' }], 'gone']);
    expect(core.reported.at(-1)).toMatchObject({ type: 'detached', reason: 'left', code: 4001 });
  });

  it('keep no gateway from hearing of the close', async () => {
    const { server, client, connection } = await connect();
    const heard: unknown[] = [];
    server.on('close', () => {
      throw FAILURE;
    });
    dispatcherOf().bind(server, {}, []);
    onDisconnect(server, (...told) => {
      heard.push(told.map(String));
      throw FAILURE;
    });
    client.close(4001, 'bye');
    await connection.whenGone();
    expect(heard).toEqual([['4001', 'bye']]);
    expect(listenerFailures).toEqual([
      ['close', FAILURE],
      ['close', FAILURE],
    ]);
  });

  it('hear of an error of the peer if they want to, and the process does not end if they do not', async () => {
    const broken = Buffer.from([0xff, 0xff]);
    const unheard = await connect();
    (unheard.client as unknown as { _socket: Socket })._socket.write(broken);
    expect((await unheard.closed)[0]).toBe(1002);
    expect(peerFailures).toHaveLength(1);
    expect(unheard.server.emit('error', FAILURE)).toBe(false);

    const heard = await connect();
    const errors: unknown[] = [];
    heard.server.on('error', (error) => errors.push(error));
    (heard.client as unknown as { _socket: Socket })._socket.write(broken);
    await heard.closed;
    expect(errors).toHaveLength(1);
    expect(listenerFailures).toEqual([]);
  });
});

describe('what an application emits itself', () => {
  it('is answered as an emitter does: whether anybody heard', async () => {
    const { server } = await connect();
    expect(server.emit('message', Buffer.from('{}'), false)).toBe(false);
    server.on('message', () => {});
    expect(server.emit('message', Buffer.from('{}'), false)).toBe(true);
    server.on('news', () => {
      throw new Error('a listener failed');
    });
    expect(server.emit('news')).toBe(true);
    expect(listenerFailures).toHaveLength(1);
  });

  it("is sent to the client, if it is an 'exception' that nobody listens to", async () => {
    const pair = await connect();
    expect(pair.server.emit('exception', { status: 'error' })).toBe(true);
    expect(await heardBy(pair)).toEqual(['{"event":"exception","data":{"status":"error"}}']);
    const heard: unknown[] = [];
    pair.server.on('exception', (data) => heard.push(data));
    expect(pair.server.emit('exception', { status: 'mine' })).toBe(true);
    expect(heard).toEqual([{ status: 'mine' }]);
    expect(await heardBy(pair)).toHaveLength(1);
  });

  it('ends nothing where no connection is there', async () => {
    const { server } = await connect({ isManaged: false });
    const failure = new Error('a listener failed');
    server.on('news', () => {
      throw failure;
    });
    server.on('later', () => Promise.reject(failure));
    expect(server.emit('news')).toBe(true);
    server.emit('later');
    await expect
      .poll(() => listenerFailures)
      .toEqual([
        ['news', failure],
        ['later', failure],
      ]);
    expect(server.readyState).toBe(WebSocket.OPEN);
  });
});

describe('the connection of a client', () => {
  it.each([undefined, null, 7, 'alice', {}])('%s is none', (client) => {
    expect(connectionOf(client)).toBeUndefined();
    expect(managerOf(client)).toBeUndefined();
  });

  it('is found by whoever asks, in another copy of this package too', async () => {
    const { server, connection } = await connect();
    expect(connectionOf(server)).toBe(connection);
    expect(managerOf(server)).toBe(connection.manager);
    const ofAnotherCopy = Symbol.for('nestjs-websocket-manager:connection');
    expect(Reflect.get(server, ofAnotherCopy)).toBe(connection);
  });
});

describe('a close', () => {
  it('is answered although messages wait before the answer', async () => {
    const pair = await connect();
    const { server, client, closed } = pair;
    const { buffered } = buffering(pair, 10_000);
    for (let i = 0; i < 40; i++) client.send('wait'.repeat(1_000));
    await expect.poll(() => buffered.isStopped).toBe(true);
    server.close(4000, 'enough');
    expect(await closed).toEqual([4000, 'enough']);
    await expect.poll(() => server.readyState).toBe(WebSocket.CLOSED);
  });

  it('ends no stream that has ended, for which Node would make an error that nobody gets', async () => {
    for (const begin of [
      ({ client }: Pair) => client.close(4000),
      ({ server }: Pair) => server.close(4000),
      ({ client }: Pair) => client.close(),
    ]) {
      const pair = await connect();
      const vain: string[] = [];
      const { _receiver: receiver } = pair.server as unknown as { _receiver: Writable };
      for (const [name, stream] of [['socket', pair.stream] as const, ['receiver', receiver] as const]) {
        const prototype = Object.create(Object.getPrototypeOf(stream) as object) as Writable;
        prototype.end = function (this: Writable, ...args: unknown[]) {
          if (this.writableFinished) vain.push(name);
          return (Object.getPrototypeOf(prototype) as Writable).end.apply(this, args as never);
        };
        Object.setPrototypeOf(stream, prototype);
      }
      const gone = once(pair.stream, 'close');
      begin(pair);
      await Promise.all([gone, pair.closed]);
      expect(vain).toEqual([]);
    }
  });

  it('ends a stream in the way that the application has given it', async () => {
    const pair = await connect();
    let ended = 0;
    pair.stream.end = function (this: Socket, ...args: unknown[]) {
      ended++;
      return Socket.prototype.end.apply(this, args as never);
    } as Socket['end'];
    pair.client.close();
    await pair.closed;
    expect(ended).toBeGreaterThan(0);
  });

  it('leaves a stream that still has something to say its end', async () => {
    const pair = await connect();
    pair.server.close(4000);
    pair.stream.end('last words');
    expect(await pair.closed).toEqual([4000, '']);
    expect(pair.stream.writableFinished).toBe(true);
    // As Node has it: what comes after the end is an error of whoever says it.
    const tooLate: Writable = pair.stream;
    const error = await new Promise<unknown>((resolve) => tooLate.end(resolve as () => void));
    expect(error).toMatchObject({ code: 'ERR_STREAM_ALREADY_FINISHED' });
  });
});

describe('the transport', () => {
  it('tells what the socket has read, written and still to write', async () => {
    const { transport, stream, server } = await connect();
    expect([transport.bytesRead, transport.bytesWritten]).toEqual([stream.bytesRead, stream.bytesWritten]);
    expect(transport.bytesRead).toBeGreaterThan(0);
    stream.cork();
    server.send('waiting');
    expect(transport.bytesQueued).toBe(stream.writableLength);
    expect(transport.bytesQueued).toBeGreaterThan(0);
    expect(transport.bufferedAmount).toBe(server.bufferedAmount);
    stream.uncork();
    expect(new WebSocketTransport(server, { writableLength: 3 } as never)).toMatchObject({
      bytesRead: 0,
      bytesWritten: 0,
      bytesQueued: 3,
      bytesTaken: undefined,
    });
  });

  it('tells that output moves, within one write too', async () => {
    const { transport, stream, server, client } = await connect();
    client.pause();
    server.send('x'.repeat(30_000_000));
    const taken = () => transport.bytesTaken ?? Number.NaN;
    let before = Number.NaN;
    await expect
      .poll(() => {
        const last = before;
        before = taken();
        return last === before;
      })
      .toBe(true);
    const queued = transport.bytesQueued;
    expect(queued).toBeGreaterThan(30_000_000);
    let chunks = 0;
    (client as unknown as { _socket: Socket })._socket.on('data', () => {
      if (++chunks === 100) client.pause();
    });
    client.resume();
    await expect.poll(taken).toBeGreaterThan(before);
    expect([transport.bytesQueued, stream.writableLength]).toEqual([queued, queued]);
    server.terminate();
  });

  it('tells of a ping that waits for ws to compress what was sent before it', async () => {
    const { transport, stream, server, connection, client } = await connect({ perMessageDeflate: true });
    await core.clock.advance(1);
    server.send(randomBytes(4_000_000));
    connection.ping();
    expect(stream.writableLength).toBe(0);
    expect(transport.bytesQueued).toBeGreaterThan(0);
    expect(transport.bytesWritten - transport.bytesQueued).toBeLessThan(connection.pingMark);
    await once(client, 'ping');
    await expect.poll(() => transport.bytesQueued).toBe(0);
    expect(transport.bytesWritten).toBeGreaterThanOrEqual(connection.pingMark);
  });

  it('is open, closing, closed', async () => {
    const { transport, client, server, closed } = await connect();
    expect(transport.state).toBe('open');
    transport.close(4000, 'enough');
    expect(transport.state).toBe('closing');
    expect(await closed).toEqual([4000, 'enough']);
    await expect.poll(() => transport.state).toBe('closed');
    expect([client.readyState, server.readyState]).toEqual([WebSocket.CLOSED, WebSocket.CLOSED]);
    expect(() => {
      transport.ping();
      transport.send('too late');
    }).not.toThrow();
  });

  it('is closed as soon as the socket under it is', async () => {
    const { transport, stream } = await connect();
    stream.destroy();
    expect(transport.state).toBe('closed');
  });

  it('is paused with its socket', async () => {
    const { transport, server } = await connect();
    expect(transport.paused).toBe(false);
    server.pause();
    expect(transport.paused).toBe(true);
    server.resume();
  });

  it('has only to be looked at where it tells nothing itself: from its first ping on, it does', async () => {
    const pair = await connect();
    const { transport, connection, client, server, stream } = pair;
    await say(pair, 'unheard');
    expect([transport.isAttentive, connection.bytesCame]).toEqual([false, false]);
    transport.ping();
    await once(server, 'pong');
    expect([transport.isAttentive, connection.bytesCame]).toEqual([true, true]);
    connection.lookForBytes();
    expect(connection.bytesCame).toBe(false);
    // Half a frame: nothing that `ws` would tell anybody of.
    const read = stream.bytesRead;
    (client as unknown as { _socket: Socket })._socket.write(Buffer.from([0x81]));
    await expect.poll(() => stream.bytesRead).toBe(read + 1);
    expect(connection.bytesCame).toBe(true);
  });

  it.each([
    ['is not read', (server: ManagedWebSocket) => server.pause()],
    ['closes', (server: ManagedWebSocket) => server.close(4000)],
    ['is terminated', (server: ManagedWebSocket) => server.terminate()],
    ['sends', (server: ManagedWebSocket) => server.send('text')],
  ])('is calm no longer when it %s', async (_, happens) => {
    const { server, connection } = await connect();
    connection.isCalm = true;
    happens(server);
    expect(connection.isCalm).toBe(false);
    server.resume();
  });

  it('pings, and sends what is no traffic of the application', async () => {
    const pair = await connect();
    pair.transport.send('notice');
    pair.transport.ping();
    await once(pair.server, 'pong');
    expect(pair.received).toEqual(['notice']);
    expect(core.counters.messagesOut).toBe(0);
  });

  it.each([
    ['in one write', {}],
    ['by `ws`, where frames may wait in it', { perMessageDeflate: true }],
  ])('asks who is there %s', async (_how, options) => {
    const { transport, client, server } = await connect(options);
    const asked = once(client, 'ping');
    const answered = once(server, 'pong');
    transport.ping();
    expect(String((await asked)[0])).toBe('');
    expect(String((await answered)[0])).toBe('');
  });

  it('terminates', async () => {
    const { transport, closed } = await connect();
    transport.terminate();
    expect(await closed).toEqual([1006, '']);
  });

  it('terminates a socket whose class of the application’s own throws at that', async () => {
    class Broken extends WebSocket {
      override terminate(): void {
        throw new Error('broken');
      }
    }
    const { transport, stream, connection } = await connect({ base: Broken });
    transport.terminate();
    expect(stream.destroyed).toBe(true);
    expect(listenerFailures).toEqual([['terminate', new Error('broken')]]);
    await expect.poll(() => connection.closed).toBeDefined();
    // Which would throw as well.
    cleanUps = cleanUps.filter((cleanUp) => !String(cleanUp).includes('server.terminate'));
  });

  it('does not call what the application has assigned to its socket', async () => {
    const { server, transport, closed } = await connect();
    const mine = server as unknown as Record<string, unknown>;
    // Not `close`, which `ws` itself calls there.
    for (const name of ['ping', 'terminate', 'pause', 'resume', 'send']) mine[name] = Date.now();
    const answered = once(server, 'pong');
    transport.ping();
    await answered;
    transport.send('notice');
    transport.close(4000, 'enough');
    expect(await closed).toEqual([4000, 'enough']);
    transport.terminate();
    for (const name of ['ping', 'terminate', 'pause', 'resume', 'send']) delete mine[name];
  });
});
