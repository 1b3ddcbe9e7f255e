import { EventEmitter } from 'node:events';
import { PassThrough } from 'node:stream';
import type { MessageMappingProperties } from '@nestjs/websockets';
import { finalize, NEVER, Observable, of, Subject, throwError } from 'rxjs';
import { describe, expect, it } from 'vitest';
import {
  type ManagedWebSocket,
  type SocketKind,
  SocketState,
  STATE,
} from '../../src/admission/managed-websocket.js';
import { MessageDispatcher, onDisconnect } from '../../src/admission/message-dispatcher.js';
import type { Connection } from '../../src/manager/connection.js';
import { Core } from '../support/core.js';

class ClientSocket extends EventEmitter {
  readyState = 1;
  readonly extensions = '';
  readonly sent: unknown[] = [];
  readonly failures: [string, unknown][] = [];
  readonly [STATE] = new SocketState(
    this as unknown as ManagedWebSocket,
    {
      sink: { listenerFailed: (event: string, error: unknown) => this.failures.push([event, error]) },
    } as unknown as SocketKind,
  );

  send(text: string): void {
    this.sent.push(JSON.parse(text));
  }

  close(code: number, reason: string): void {
    this.readyState = 3;
    this.emit('close', code, reason);
    this[STATE].noteTold([code, reason], false);
  }

  tell(event: string, data?: unknown): void {
    this.emit('message', Buffer.from(JSON.stringify({ event, data })), false);
  }
}

type Handlers = Record<string, (data: never, event: string) => unknown>;

const settled = () => new Promise((resolve) => setImmediate(resolve));
const mapped = (handlers: Handlers) =>
  Object.entries(handlers).map(([message, callback]) => ({
    message,
    callback,
  })) as unknown as MessageMappingProperties[];

async function setup(
  parse: (data: unknown) => object | undefined = (data) => JSON.parse(String(data)),
  reportsSyntaxErrors = false,
) {
  const core = await Core.start();
  const reported: [string, string][] = [];
  const dispatcher = new MessageDispatcher(
    parse,
    (hook, error) => reported.push([hook, String(error)]),
    () => reportsSyntaxErrors,
  );
  const connect = (...gateways: Handlers[]) => {
    const client = new ClientSocket();
    const socket = client as unknown as ManagedWebSocket;
    const connection = core.place({ userId: 'alice' }).socket?.connection as Connection;
    client[STATE].attach(connection, new PassThrough());
    for (const handlers of gateways) dispatcher.bind(socket, {}, mapped(handlers));
    return { client, socket, manager: connection.manager };
  };
  return { core, connect, dispatcher, reported };
}

describe('a message', () => {
  it('goes to its handler, with its data and its name, and to no other', async () => {
    const { connect } = await setup();
    const seen: unknown[] = [];
    const { client } = connect({
      ask: (data, event) => void seen.push(['ask', data, event]),
      tell: (data, event) => void seen.push(['tell', data, event]),
    });
    client.tell('tell', { n: 1 });
    client.tell('unknown', { n: 2 });
    client.tell('ask', 3);
    await settled();
    expect(seen).toEqual([
      ['tell', { n: 1 }, 'tell'],
      ['ask', 3, 'ask'],
    ]);
    expect(client.sent).toEqual([]);
  });

  it.each<[string, () => unknown, unknown[]]>([
    ['at once', () => ({ event: 'a', data: 1 }), [{ event: 'a', data: 1 }]],
    ['later', async () => 'text', ['text']],
    ['with nothing', () => undefined, []],
    ['with null', () => null, []],
    ['with zero', () => 0, [0]],
    ['with several', () => of(1, 2, 3), [1, 2, 3]],
    ['later with several', async () => of(1, undefined, 2), [1, 2]],
  ])('is answered %s', async (_, handler, expected) => {
    const { connect, reported } = await setup();
    const { client } = connect({ ask: handler });
    client.tell('ask');
    await settled();
    expect(client.sent).toEqual(expected);
    expect(reported).toEqual([]);
  });

  it('is text for the parser, or bytes where it came as bytes', async () => {
    const parsed: unknown[] = [];
    const { connect } = await setup((data) => {
      parsed.push(data);
      return undefined;
    });
    const { client } = connect({ ask: () => 1 });
    client.emit('message', Buffer.from('text'), false);
    client.emit('message', Buffer.from('bytes'), true);
    expect(parsed).toEqual(['text', Buffer.from('bytes')]);
    await settled();
    expect(client.sent).toEqual([]);
  });

  it.each([
    ['is nothing, and worth no line', false, 0],
    ['is reported where the parser is the application’s own', true, 1],
  ])('that is no JSON %s', async (_, reportsSyntaxErrors, lines) => {
    const { connect, reported } = await setup(undefined, reportsSyntaxErrors);
    const { client } = connect({ ask: () => 1 });
    client.emit('message', Buffer.from('{'), false);
    await settled();
    expect([client.sent, reported.map(([hook]) => hook)]).toEqual([
      [],
      Array.from({ length: lines }, () => 'message parser'),
    ]);
  });

  it('that the parser of the application fails at is reported', async () => {
    const { connect, reported } = await setup(() => {
      throw new TypeError('broken');
    });
    const { client } = connect({ ask: () => 1 });
    client.tell('ask');
    expect(reported).toEqual([['message parser', 'TypeError: broken']]);
  });

  it.each<[string, () => unknown]>([
    [
      'throws',
      () => {
        throw new Error('broken');
      },
    ],
    ['rejects', () => Promise.reject(new Error('broken'))],
    ['answers with a failing stream', () => throwError(() => new Error('broken'))],
  ])('whose handler %s is reported, and the next one is heard', async (_, handler) => {
    const { connect, reported } = await setup();
    const { client, manager } = connect({ ask: handler, tell: () => 'heard' });
    client.tell('ask');
    client.tell('tell');
    await settled();
    expect(reported).toEqual([['message handler', 'Error: broken']]);
    expect(client.sent).toEqual(['heard']);
    expect(manager?.isBusy).toBe(false);
  });

  it('whose answer cannot be sent is reported, in a stream too, which goes on', async () => {
    const { connect, reported } = await setup();
    const loop: Record<string, unknown> = {};
    loop.self = loop;
    const { client } = connect({ ask: () => loop, stream: () => of(loop, 2) });
    client.tell('ask');
    await settled();
    client.tell('stream');
    await settled();
    expect(reported.map(([hook]) => hook)).toEqual(['message handler', 'message handler']);
    expect(client.sent).toEqual([2]);
  });

  it('is not answered on a socket that is closing', async () => {
    const { connect } = await setup();
    const { client } = connect({ ask: async () => 1 });
    client.tell('ask');
    client.readyState = 2;
    await settled();
    expect(client.sent).toEqual([]);
  });
});

describe('a manager', () => {
  it('is busy while a handler of it runs', async () => {
    const { connect } = await setup();
    let finish = () => {};
    const { client, manager } = connect({
      ask: () =>
        new Promise<void>((resolve) => {
          finish = resolve;
        }),
    });
    expect(manager?.isBusy).toBe(false);
    client.tell('ask');
    expect(manager?.isBusy).toBe(true);
    finish();
    await settled();
    expect(manager?.isBusy).toBe(false);
  });

  it('is busy while a stream of it is open, which ends with the socket', async () => {
    const { connect } = await setup();
    const answers = new Subject<number>();
    const { client, socket, manager } = connect({ ask: () => answers });
    client.tell('ask');
    await settled();
    answers.next(1);
    expect([client.sent, manager?.isBusy]).toEqual([[1], true]);
    onDisconnect(socket, () => {});
    // Not by a listener, which the application may remove.
    client.removeAllListeners('close');
    client.close(1001, '');
    expect([answers.observed, manager?.isBusy, client[STATE].streams?.size]).toEqual([false, false, 0]);
    expect(client.failures).toEqual([]);
  });

  it('is busy no longer than its streams', async () => {
    const { connect } = await setup();
    const answers = new Subject<number>();
    const { client, manager } = connect({ ask: () => answers });
    client.tell('ask');
    await settled();
    answers.complete();
    expect([manager?.isBusy, client[STATE].streams?.size]).toEqual([false, 0]);
  });

  it('is not busy with a stream for a socket that is gone: nobody subscribes', async () => {
    const { connect } = await setup();
    let subscribed = 0;
    const { client, manager } = connect({
      ask: async () =>
        new Observable(() => {
          subscribed++;
          return NEVER.subscribe();
        }),
    });
    client.tell('ask');
    client.readyState = 3;
    await settled();
    expect([subscribed, manager?.isBusy]).toEqual([0, false]);
  });
});

describe('gateways that share a path', () => {
  it('each get the message, parsed for themselves', async () => {
    const { connect } = await setup();
    const spoil = (data: { n: number }) => ++data.n;
    const { client } = connect({ ask: spoil }, { other: spoil }, { ask: spoil });
    client.tell('ask', { n: 1 });
    await settled();
    expect(client.sent).toEqual([2, 2]);
    // One each, as on the platform.
    expect([client.listenerCount('message'), client.listenerCount('close')]).toEqual([3, 0]);
  });

  it('each hear of the close, once', async () => {
    const { dispatcher, connect } = await setup();
    const { client, socket } = connect({ ask: () => 1 });
    const heard: unknown[] = [];
    client.on('close', () => heard.push('before'));
    expect(onDisconnect(socket, (...args) => heard.push(['first', ...args]))).toBe(true);
    expect(onDisconnect(socket, () => heard.push('again'))).toBe(false);
    dispatcher.bind(socket, {}, mapped({ ask: () => 2 }));
    expect(onDisconnect(socket, (...args) => heard.push(['second', ...args]))).toBe(true);
    client.on('close', () => heard.push('after'));
    client.close(1000, 'bye');
    client.emit('close');
    const told = ['before', ['first', 1000, 'bye'], ['second', 1000, 'bye'], 'after'];
    expect([heard, client.failures]).toEqual([[...told, 'before', 'after'], []]);
  });

  it('hear nothing of the close once their listeners are removed', async () => {
    const { dispatcher, connect } = await setup();
    const { client, socket } = connect({ ask: () => 1 });
    const heard: string[] = [];
    onDisconnect(socket, () => heard.push('first'));
    client.removeAllListeners('close');
    dispatcher.bind(socket, {}, mapped({ ask: () => 2 }));
    onDisconnect(socket, () => heard.push('second'));
    client.close(1000, 'bye');
    expect(heard).toEqual(['second']);
  });

  it('each hear of the close, and every stream ends, whatever one of them throws', async () => {
    const { dispatcher, connect } = await setup();
    const failure = new Error('torn down');
    const fail = () => {
      throw failure;
    };
    const torn = new Subject<number>();
    const sound = new Subject<number>();
    const { client, socket, manager } = connect({
      torn: () => torn.pipe(finalize(fail)),
      sound: () => sound,
    });
    const heard: string[] = [];
    onDisconnect(socket, fail);
    dispatcher.bind(socket, {}, mapped({}));
    onDisconnect(socket, () => heard.push('second'));
    client.tell('torn');
    client.tell('sound');
    await settled();
    client.close(1000, 'bye');
    expect([sound.observed, manager?.isBusy, heard]).toEqual([false, false, ['second']]);
    expect(client.failures.map(([event]) => event)).toEqual(['close', 'close']);
  });

  it('and a socket that has none is for others to watch', () => {
    expect(onDisconnect(new ClientSocket() as unknown as ManagedWebSocket, () => {})).toBe(false);
  });
});

describe('the routes of a gateway', () => {
  it('are made once, and shared by its sockets, each with its own handlers', async () => {
    const { dispatcher } = await setup();
    const routes = {};
    const answers = ['first', 'second'].map((name) => {
      const client = new ClientSocket();
      dispatcher.bind(client as unknown as ManagedWebSocket, routes, mapped({ ask: () => name }));
      client.tell('ask');
      return client;
    });
    await settled();
    expect(answers.map(({ sent }) => sent)).toEqual([['first'], ['second']]);
  });
});
