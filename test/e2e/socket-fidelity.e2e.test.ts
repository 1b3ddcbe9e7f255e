import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { type INestApplication, Logger, type Type } from '@nestjs/common';
import { WsAdapter } from '@nestjs/platform-ws';
import { Test } from '@nestjs/testing';
import {
  ConnectedSocket,
  MessageBody,
  SubscribeMessage,
  WebSocketGateway,
  WsException,
} from '@nestjs/websockets';
import { interval, map } from 'rxjs';
import { beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { type RawData, WebSocket } from 'ws';
import { connectionOf, managerOf } from '../../src/index.js';
import { startApp } from '../support/app.js';
import { connect } from '../support/client.js';
import { watchForFatalErrors } from '../support/fatal-errors.js';

/** The platform alone, ours, and the platform's message handling under our module. */
const WAYS = ['platform', 'ours', 'stock'] as const;
type Way = (typeof WAYS)[number];
type Socket = WebSocket & Record<PropertyKey, unknown>;

beforeEach(() => {
  watchForFatalErrors();
});

async function start(way: Way, gateways: readonly Type[], configure?: (app: INestApplication) => unknown) {
  if (way !== 'platform')
    return startApp({
      gateways,
      options: { useStockMessageHandling: way === 'stock' },
      ...(configure ? { configure } : {}),
    });
  Logger.overrideLogger(false);
  const testing = await Test.createTestingModule({ providers: [...gateways] }).compile();
  const app = testing.createNestApplication({ logger: false });
  app.useWebSocketAdapter(new WsAdapter(app));
  await configure?.(app);
  onTestFinished(() => app.close());
  await app.listen(0, '127.0.0.1');
  return { url: `ws://127.0.0.1:${(app.getHttpServer().address() as AddressInfo).port}`, service: undefined };
}

/** One client that sends `run`, and closes when the server has done what it does. What the server noted. */
async function trace(way: Way, program: Program): Promise<unknown[]> {
  const notes: unknown[] = [];
  const note = (...all: unknown[]) => void notes.push(all.length === 1 ? all[0] : all);
  @WebSocketGateway({ path: '/ws' })
  class Gateway {
    handleConnection(client: Socket): unknown {
      return program.handleConnection?.(client, note);
    }
    handleDisconnect(): void {
      note('handleDisconnect');
    }
    @SubscribeMessage('run')
    run(@MessageBody() data: unknown, @ConnectedSocket() client: Socket): unknown {
      return program.run?.(client, note, data);
    }
  }
  const { url } = await start(way, [Gateway]);
  const client = new WebSocket(`${url}/ws?userId=alice`);
  onTestFinished(() => client.terminate());
  client.on('message', (data: RawData) => note(`client: ${data}`));
  await once(client, 'open');
  for (const data of program.messages ?? [1]) client.send(JSON.stringify({ event: 'run', data }));
  await sleep(program.afterMs ?? 150);
  if (client.readyState === WebSocket.OPEN) client.close(4001, 'done');
  if (client.readyState !== WebSocket.CLOSED) await once(client, 'close');
  await sleep(100);
  return notes;
}

interface Program {
  readonly messages?: readonly unknown[];
  readonly afterMs?: number;
  handleConnection?(client: Socket, note: (...all: unknown[]) => void): unknown;
  run?(client: Socket, note: (...all: unknown[]) => void, data: unknown): unknown;
}

const failing = (why: unknown) => (why instanceof Error ? why.message : 'sent');

const PROGRAMS: Record<string, Program> = {
  'is of the class that the application knows': {
    handleConnection(client, note) {
      note(
        client.constructor.name,
        Object.keys(client).sort(),
        String(Object.prototype.toString.call(client)),
      );
      note(Object.keys(Object.getOwnPropertyDescriptors(client)).sort());
      const enumerable: string[] = [];
      for (const key in client) enumerable.push(key);
      note(enumerable.sort());
      const symbols = Object.getOwnPropertySymbols(client).map(String);
      note(symbols.sort(), client.send.length);
    },
  },
  'tells handleDisconnect before the listeners that handlers added, and after those of handleConnection': {
    handleConnection(client, note) {
      client.on('close', () => note('listener of handleConnection'));
      void Promise.resolve().then(() => client.on('close', () => note('listener added later')));
    },
    run(client, note) {
      client.on('close', (code, reason) => note('listener of a handler', code, String(reason)));
    },
  },
  'tells no gateway of the close once all listeners are removed': {
    run(client, note) {
      // The first is of the server, which closes only when all of its clients have.
      const [ofServer] = client.rawListeners('close');
      client.removeAllListeners('close');
      client.on('close', ofServer as () => void);
      note('removed');
    },
  },
  'gives a handler no more messages once all listeners are removed': {
    messages: [1, 2],
    run(client, note, data) {
      client.removeAllListeners('message');
      note(data);
    },
  },
  'calls back in the order of what was sent': {
    run(client, note) {
      for (const name of ['a', 'b']) client.send(name, (error) => note(name, failing(error)));
      client.send('c');
      client.send(Buffer.from('d'), (error) => note('d', failing(error)));
      client.send('e', { fin: true }, (error) => note('e', failing(error)));
      process.nextTick(() => note('tick'));
      note('after');
    },
  },
  'calls back with an error where it is closing': {
    run(client, note) {
      client.send('a', (error) => note('a', failing(error)));
      client.close(4000);
      client.send('b', (error) => note('b', failing(error)));
      client.send('c');
      note(client.readyState, client.bufferedAmount);
    },
  },
  'calls back with an error where it is terminated': {
    run(client, note) {
      client.on('error', (error) => note('error', error.message));
      client.send('a', (error) => note('a', failing(error)));
      client.terminate();
      client.send('b', (error) => note('b', failing(error)));
      note(client.readyState, client.bufferedAmount);
    },
  },
  'calls back with an error where the stream under it is gone': {
    run(client, note) {
      client.on('error', (error) => note('error', error.message));
      (client._socket as { destroy(): void }).destroy();
      client.send('a', (error) => note('a', failing(error) === 'sent'));
      client.send('b');
      note(client.readyState);
    },
  },
  'stays paused when it closes': {
    afterMs: 400,
    run(client, note) {
      client.pause();
      client.close(4000, 'enough');
      note(client.isPaused);
      setTimeout(() => {
        note('still', client.isPaused, client.readyState);
        client.resume();
      }, 200);
    },
  },
  'reads nothing while the application has paused it': {
    messages: [1, 2, 3],
    afterMs: 500,
    run(client, note, data) {
      note(data);
      if (data !== 1) return;
      client.pause();
      setTimeout(() => {
        note('resumed');
        client.resume();
      }, 200);
    },
  },
  'goes on to be used by a handler that has emitted its close itself': {
    run(client, note) {
      note(client.emit('close', 1000, Buffer.from('')));
      client.send('still here');
    },
  },
  'gets answers through the `send` that the application has put on it': {
    handleConnection(client, note) {
      const { send } = client;
      client.send = function (this: Socket, ...args: Parameters<typeof send>) {
        note('sending', String(args[0]), args.length);
        return send.apply(this, args);
      } as never;
    },
    run: (_client, _note, data) => ({ event: 'answer', data }),
  },
  'works through a Proxy': {
    handleConnection(client, note) {
      const proxy = new Proxy(client, {});
      proxy.on('message', (data: RawData) => proxy.send(`proxied ${String(data).length}`));
      proxy.send('hello', (error) => note(failing(error)));
      note(proxy.readyState, proxy.bufferedAmount);
    },
    run: (_client, _note, data) => ({ event: 'answer', data }),
  },
  'ends the answers of a handler with the socket': {
    afterMs: 200,
    run: (_client, note) => interval(40).pipe(map((n) => void note(n > 0))),
  },
};

describe.each(Object.entries(PROGRAMS))(
  'a socket of the module, as one of the platform,',
  (title, program) => {
    it(title, async () => {
      const [platform, ours, stock] = await Promise.all(WAYS.map((way) => trace(way, program)));
      // What is asked for is there at all.
      expect(platform?.length).toBeGreaterThan(0);
      if (title.startsWith('ends the answers')) {
        for (const notes of [platform, ours, stock]) expect(notes?.at(-1)).toBe('handleDisconnect');
        return;
      }
      expect(ours).toEqual(platform);
      expect(stock).toEqual(platform);
    });
  },
);

/** What an application could call a property of its own. */
const NAMES = [
  ...[
    'gateway',
    'gateways',
    'streams',
    'stream',
    'held',
    'buffered',
    'state',
    'connection',
    'manager',
    'user',
  ],
  ...[
    'userId',
    'session',
    'sessionKey',
    'id',
    'transport',
    'socket',
    'server',
    'kind',
    'sink',
    'batched',
    'queue',
  ],
  ...[
    'tell',
    'tellClose',
    'stir',
    'sendUncounted',
    'sendText',
    'sendAlone',
    'sendAs',
    'sending',
    'write',
    'writeTo',
  ],
  ...[
    'writeBatch',
    'openBatch',
    'closeBatch',
    'answer',
    'attach',
    'failed',
    'askWhoIsThere',
    'takePong',
    'hear',
  ],
  ...[
    'listen',
    'letGo',
    'holdMessages',
    'releaseMessages',
    'bufferMessages',
    'noteTold',
    'noteSent',
    'noteClosed',
  ],
  ...[
    'noteClosing',
    'received',
    'detached',
    'closed',
    'end',
    'goodbye',
    'isAlive',
    'alive',
    'lastPing',
    'metadata',
  ],
  ...[
    'data',
    'context',
    'room',
    'rooms',
    'name',
    'destroy',
    'onPong',
    'binding',
    'callbacks',
    'dispatcher',
    'busy',
  ],
];

describe.each(['a value', 'a function that throws', 'undefined'])('every name, assigned %s,', (what) => {
  const value = {
    'a value': true,
    'a function that throws': () => {
      throw new Error('the application’s own');
    },
    undefined: undefined,
  }[what];

  it.each(['ours', 'stock'] as const)('is the application’s: %s', async (way) => {
    const told: unknown[] = [];
    let extra: PropertyKey[] = [];
    const keys = new Set<PropertyKey>();
    @WebSocketGateway({ path: '/plain' })
    class Plain {
      handleConnection(client: Socket): void {
        for (const key of Reflect.ownKeys(client)) keys.add(String(key));
      }
    }
    const platform = await start('platform', [Plain]);
    const plain = new WebSocket(`${platform.url}/plain`);
    onTestFinished(() => plain.terminate());
    await once(plain, 'open');
    await vi.waitFor(() => expect(keys.size).toBeGreaterThan(0));

    @WebSocketGateway({ path: '/ws' })
    class Gateway {
      async handleConnection(client: Socket): Promise<void> {
        for (const name of NAMES) client[name] = value;
        extra = Reflect.ownKeys(client).filter(
          (key) => !keys.has(String(key)) && !NAMES.includes(key as string),
        );
        for (const key of extra) client[key] = value;
        const ours = Object.getOwnPropertySymbols(client._socket).filter((key) =>
          String(key).includes('nestjs-websocket-manager'),
        );
        for (const key of ours) Reflect.set(client._socket as object, key, value);
        await sleep(50);
      }
      handleDisconnect(_client: Socket, code: number): void {
        told.push(['disconnected', code]);
      }
      @SubscribeMessage('echo')
      echo(@MessageBody() data: unknown): unknown {
        return { event: 'echo', data };
      }
      @SubscribeMessage('stream')
      stream(): unknown {
        return interval(5).pipe(map((n) => ({ event: 'n', data: n })));
      }
      @SubscribeMessage('sends')
      sends(@ConnectedSocket() client: Socket): void {
        for (const data of ['text', Buffer.from('bytes')]) client.send(data);
        client.ping();
        client.send('{"event":"last"}');
      }
    }
    const running = await startApp({
      gateways: [Gateway],
      options: {
        useStockMessageHandling: way === 'stock',
        heartbeat: { intervalMs: 300, probeTimeoutMs: 100 },
      },
    });
    const client = await connect(`${running.url}/ws?userId=alice`);
    const texts: string[] = [];
    client.webSocket.removeAllListeners('message');
    client.webSocket.on('message', (data) => texts.push(String(data)));
    client.send('echo', 1);
    await vi.waitFor(() => expect(texts).toEqual(['{"event":"echo","data":1}']));
    client.send('sends');
    await vi.waitFor(() => expect(texts.slice(1)).toEqual(['text', 'bytes', '{"event":"last"}']));
    expect(extra).toEqual([]);
    expect(running.service.sendToUser('alice', 'news', 1)).toBe(1);
    await vi.waitFor(() => expect(texts.at(-1)).toBe('{"event":"news","data":1}'));
    client.send('stream');
    await vi.waitFor(() => expect(texts.at(-1)).toContain('"event":"n"'));
    // Several heartbeats.
    await sleep(1_000);
    expect(client.isOpen).toBe(true);
    expect(await client.leave(4321)).toEqual({ code: 4321, reason: '' });
    await vi.waitFor(() => expect(told).toEqual([['disconnected', 4321]]));
    expect(running.of('hook_failed')).toEqual([]);
    expect(running.service.managersOf('alice')).toEqual([]);
  });
});

it('leads to its connection through a Proxy', async () => {
  const found: unknown[] = [];
  @WebSocketGateway({ path: '/ws' })
  class Gateway {
    handleConnection(client: Socket): void {
      const proxy = new Proxy(client, {});
      found.push(connectionOf(proxy) === connectionOf(client), managerOf(proxy)?.userId);
    }
  }
  const { url } = await startApp({ gateways: [Gateway] });
  await connect(`${url}/ws?userId=alice`);
  expect(found).toEqual([true, 'alice']);
});

describe('a WsException in handleConnection', () => {
  const CAUSE = { cause: { pattern: 'handleConnection' } };

  it.each<[string, () => unknown, object]>([
    [
      'thrown',
      () => {
        throw new WsException('Unauthorized');
      },
      { status: 'error', message: 'Unauthorized', ...CAUSE },
    ],
    [
      'rejected, later',
      async () => {
        await sleep(30);
        throw new WsException('Unauthorized');
      },
      { status: 'error', message: 'Unauthorized', ...CAUSE },
    ],
    ['rejected, with an object', () => Promise.reject(new WsException({ code: 7 })), { code: 7 }],
  ])('%s reaches the client, which stays connected and is heard', async (_, fail, data) => {
    @WebSocketGateway({ path: '/ws' })
    class Gateway {
      handleConnection(): unknown {
        return fail();
      }
      @SubscribeMessage('echo')
      echo(@MessageBody() payload: unknown): unknown {
        return { event: 'echo', data: payload };
      }
    }
    const { url, of: eventsOf } = await startApp({ gateways: [Gateway] });
    const client = await connect(`${url}/ws?userId=alice`);
    expect(await client.next()).toEqual({ event: 'exception', data });
    expect(await client.echo('on')).toBe('on');
    expect(eventsOf('hook_failed')).toEqual([]);
  });

  it('is nothing to a client that has gone meanwhile', async () => {
    @WebSocketGateway({ path: '/ws' })
    class Gateway {
      async handleConnection(): Promise<void> {
        await sleep(100);
        throw new WsException('Unauthorized');
      }
    }
    const { url, of: eventsOf, service } = await startApp({ gateways: [Gateway] });
    const client = await connect(`${url}/ws?userId=alice`);
    await client.leave();
    await sleep(150);
    expect([eventsOf('hook_failed'), service.managersOf('alice')]).toEqual([[], []]);
  });

  it('in handleDisconnect is an error as any other', async () => {
    @WebSocketGateway({ path: '/ws' })
    class Gateway {
      handleDisconnect(): void {
        throw new WsException('too late');
      }
    }
    const { url, of: eventsOf } = await startApp({ gateways: [Gateway] });
    await (await connect(`${url}/ws?userId=alice`)).leave();
    await vi.waitFor(() => expect(eventsOf('hook_failed')).toMatchObject([{ hook: 'handleDisconnect' }]));
  });
});

describe('while handleConnection runs, with the platform’s message handling', () => {
  it('handlers wait, other listeners do not, and the close comes after the messages', async () => {
    const told: unknown[] = [];
    @WebSocketGateway({ path: '/ws' })
    class Gateway {
      async handleConnection(client: Socket): Promise<void> {
        client.on('message', (data: RawData) => told.push(`raw ${JSON.parse(String(data)).data}`));
        client.on('close', () => told.push('raw close'));
        await sleep(200);
        told.push('connected');
      }
      handleDisconnect(): void {
        told.push('disconnected');
      }
      @SubscribeMessage('echo')
      echo(@MessageBody() data: unknown): void {
        told.push(data);
      }
    }
    const { url } = await startApp({ gateways: [Gateway], options: { useStockMessageHandling: true } });
    const client = await connect(`${url}/ws?userId=alice`);
    client.send('echo', 0);
    client.send('echo', 1);
    await client.leave();
    await vi.waitFor(() =>
      expect(told).toEqual(['raw 0', 'raw 1', 'raw close', 'connected', 0, 1, 'disconnected']),
    );
  });
});
