import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { type AddressInfo, Socket } from 'node:net';
import type { Writable } from 'node:stream';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { WebSocket, WebSocketServer } from 'ws';
import { managerOf } from '../../src/admission/current-manager.decorator.js';
import {
  CONNECTION,
  connectionOf,
  type ManagedWebSocket,
  managedWebSocketClass,
  sendAlone,
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
  if (isManaged) {
    server[CONNECTION] = connection;
    server.writeTo(stream);
  }
  await once(client, 'open');
  return { server, stream, client, connection, transport, received, closed };
}

/** Sends from the client, and waits until the server's socket has had it. */
async function say({ client, server }: Pair, ...texts: string[]): Promise<void> {
  for (const text of texts) client.send(text);
  client.ping();
  await once(server, 'ping');
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

  it('goes out in one piece a turn', async () => {
    const { server, stream } = await connect();
    server.send('one');
    server.send('two');
    expect(stream.writableCorked).toBe(1);
    await new Promise<void>((resolve) => process.nextTick(resolve));
    expect(stream.writableCorked).toBe(0);
    server.send('three');
    expect(stream.writableCorked).toBe(1);
  });

  it('goes out at once, and in order, where nothing is to come that it could go with', async () => {
    const pair = await connect();
    const { server, stream } = pair;
    const before = stream.bytesWritten;
    sendAlone(server, 'alone');
    expect(stream.writableCorked).toBe(0);
    expect(stream.bytesWritten - before).toBe('alone'.length + 2);
    server.send('one');
    sendAlone(server, 'two');
    server.send('three');
    expect(stream.writableCorked).toBe(1);
    expect(await heardBy(pair)).toEqual(['alone', 'one', 'two', 'three']);
  });

  it('goes out at once when it answers the only message, and with the others when it answers several', async () => {
    const pair = await connect();
    const { server, stream } = pair;
    const dispatcher = new MessageDispatcher(
      (data) => ({ event: 'ask', data }),
      () => {},
    );
    const corked: number[] = [];
    const { send } = server;
    server.send = function (this: typeof server, ...args: Parameters<typeof send>) {
      send.apply(this, args);
      corked.push(stream.writableCorked);
    } as typeof send;
    const ask = async (text: string) => text;
    dispatcher.bind(server, {}, [{ message: 'ask', callback: ask }] as never);
    await say(pair, 'alone');
    expect(corked).toEqual([0]);
    corked.length = 0;
    stream.pause();
    const all = say(pair, 'one', 'two', 'three');
    await new Promise((resolve) => setTimeout(resolve, 20));
    stream.resume();
    await all;
    expect(corked).toEqual([1, 1, 1]);
    expect(await heardBy(pair)).toEqual(['alone', 'one', 'two', 'three'].map((text) => JSON.stringify(text)));
  });

  it('is expected alone no longer than it is sent, although that fails', async () => {
    const { server, stream } = await connect();
    const { send } = server;
    server.send = () => {
      throw new Error('full');
    };
    expect(() => sendAlone(server, 'alone')).toThrow('full');
    server.send = send;
    server.send('one');
    expect(stream.writableCorked).toBe(1);
  });

  it.each([
    ['a string with options', ['text', { binary: false }] as const],
    ['a Blob', [new Blob(['blob'])] as const],
  ])('is left to ws for good after %s', async (_, args) => {
    const pair = await connect();
    pair.server.send(...(args as unknown as [string]));
    pair.server.send('last');
    expect(pair.stream.writableCorked).toBe(0);
    expect((await heardBy(pair)).at(-1)).toBe('last');
  });

  it.each([
    ['bytes', Buffer.from('x')],
    ['an ArrayBuffer', new Uint8Array([1]).buffer],
  ])('is ours again after %s', async (_, data) => {
    const { server, stream } = await connect();
    server.send(data);
    await new Promise<void>((resolve) => setImmediate(resolve));
    server.send('ours');
    expect(stream.writableCorked).toBe(1);
  });

  it('is left to ws where messages are compressed', async () => {
    const pair = await connect({ perMessageDeflate: true });
    pair.server.send('text');
    expect(pair.stream.writableCorked).toBe(0);
    expect(await heardBy(pair)).toEqual(['text']);
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
    server.sendUncounted('notice');
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
    server.sendUncounted('too late');
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

  it('waits, in order, while it is held, and is not read beyond sixteen', async () => {
    const { server, client } = await connect();
    const heard: string[] = [];
    server.on('message', (data) => heard.push(String(data)));
    server.holdMessages();
    const texts = Array.from({ length: 40 }, (_, i) => `${i}`);
    for (const text of texts.slice(0, 15)) client.send(text);
    await expect.poll(() => core.counters.messagesIn).toBe(15);
    expect(server.isPaused).toBe(false);
    for (const text of texts.slice(15)) client.send(text);
    await expect.poll(() => server.isPaused).toBe(true);
    // A second order to hold keeps what is held.
    server.holdMessages();
    expect(heard).toEqual([]);
    server.releaseMessages();
    await expect.poll(() => heard).toEqual(texts);
    expect(server.isPaused).toBe(false);
    client.send('later');
    await expect.poll(() => heard.at(-1)).toBe('later');
  });

  it('is dropped with the connection that it was held for', async () => {
    const pair = await connect();
    const heard: string[] = [];
    pair.server.on('message', (data) => heard.push(String(data)));
    pair.server.holdMessages();
    await say(pair, 'one');
    pair.connection.end({ reason: 'evicted' });
    pair.server.releaseMessages();
    expect(heard).toEqual([]);
  });

  it.each([
    ['wanted', true, ['one', 'two', 'closed 4001']],
    ['not wanted', false, ['closed 4001']],
  ])(
    'and was held until its sender had left is %s: the close comes after it',
    async (_, isWanted, expected) => {
      const pair = await connect();
      const { server, connection, closed } = pair;
      const told: string[] = [];
      server.on('message', (data) => told.push(String(data)));
      new MessageDispatcher(
        () => undefined,
        () => {},
      ).bind(server, {}, []);
      onDisconnect(server, (code) => told.push(`closed ${code}`));
      server.holdMessages();
      await say(pair, 'one', 'two');
      pair.client.close(4001, 'said it');
      await closed;
      await expect.poll(() => connection.closed).toEqual({ code: 4001, reason: 'said it' });
      expect([connection.detached, told]).toEqual([true, []]);
      server.releaseMessages(isWanted);
      await expect.poll(() => told).toEqual(expected);
    },
  );

  it('is nothing to release where nothing was held', async () => {
    const { server } = await connect();
    server.releaseMessages();
    expect(server.isPaused).toBe(false);
  });

  it('stays unread where the application has stopped to read', async () => {
    const pair = await connect();
    pair.server.holdMessages();
    await say(pair, 'one');
    pair.server.pause();
    pair.server.releaseMessages();
    expect(pair.server.isPaused).toBe(true);
    pair.server.resume();
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
    const { connection, receiver, ping, stream, transport, server } = await pinged();
    const read = vi.spyOn(receiver, 'write');
    const emitted = vi.spyOn(server, 'emit');
    connection.missedPongs = 1;
    await ping();
    expect(connection.missedPongs).toBe(0);
    expect(emitted).not.toHaveBeenCalled();
    expect(read).not.toHaveBeenCalled();
    expect(transport.bytesRead).toBe(stream.bytesRead);
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
    new MessageDispatcher(
      () => undefined,
      () => {},
    ).bind(server, {}, []);
    onDisconnect(server, (...told) => {
      heard.push(told.map(String));
      throw FAILURE;
    });
    server.on('close', () => {
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
    server.holdMessages();
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
    const { server, client, closed } = await connect();
    server.holdMessages();
    for (let i = 0; i < 40; i++) client.send('wait');
    await expect.poll(() => server.isPaused).toBe(true);
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
});
