import { EventEmitter, on, once } from 'node:events';
import { readFileSync, realpathSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { inspect } from 'node:util';
import { describe, expect, it } from 'vitest';
import { testTable } from './support/expected-differences.js';
import { useSides } from './support/frame-case.js';
import { type Program, type ProgramContext, runProgram, testPrograms } from './support/program.js';
import { RawClient, request, turn } from './support/raw-client.js';
import { built, platformWs, type ServerSocket, type Side } from './support/sides.js';
import { BINARY, CLOSE, CONTINUATION, closePayload, frame, PING, PONG, TEXT } from './support/wire.js';

const sides = useSides();

const ECHO = frame(TEXT, '{"event":"echo","data":1}');
const EVENTS = [
  'message',
  'close',
  'error',
  'ping',
  'pong',
  'open',
  'upgrade',
  'unexpected-response',
  'exception',
];

function program(rule: string, title: string, run: Program['run'], more: Partial<Program> = {}): Program {
  return { rule, title, run, ...more };
}

/** What `ws` does in its own listener of close, which the program has removed: without it no server can be closed. */
function forget(side: Side, socket: ServerSocket): void {
  side.servers.get('/plain')?.clients.delete(socket);
}

/** Waits so long for what should not come. */
async function turns(count = 5): Promise<void> {
  for (let i = 0; i < count; i++) await turn();
}

const look: Program[] = [
  program('ws.md Class: WebSocket', 'properties of a new socket', async ({ socket, note }) => {
    const show = () => {
      const { readyState, bufferedAmount, binaryType, extensions, protocol, isPaused } = socket;
      note({ readyState, bufferedAmount, binaryType, extensions, protocol, isPaused, url: socket.url });
      note(socket.onopen, socket.onmessage, socket.onclose, socket.onerror);
    };
    show();
    await turn();
    show();
  }),
  program('ws.md Ready state constants', 'constants', ({ socket, note }) => {
    note(socket.CONNECTING, socket.OPEN, socket.CLOSING, socket.CLOSED);
    const { CONNECTING, OPEN, CLOSING, CLOSED } = socket.constructor as unknown as Record<string, unknown>;
    note(CONNECTING, OPEN, CLOSING, CLOSED);
  }),
  program('ws.md Class: WebSocket', 'instanceof and the name of the class', ({ socket, note }) => {
    note('WebSocket', socket instanceof platformWs.WebSocket, 'EventEmitter', socket instanceof EventEmitter);
    note(socket.constructor.name, Object.prototype.toString.call(socket), String(socket), typeof socket);
  }),
  program('ws.md Class: WebSocket', 'own keys', async ({ socket, note }) => {
    const show = () => {
      note('enumerable', Object.keys(socket));
      note('names', Object.getOwnPropertyNames(socket).sort());
    };
    show();
    await turn();
    show();
  }),
  program('ws.md Class: WebSocket', 'keys of a loop with for..in', ({ socket, note }) => {
    note([...keysIn(socket)].sort().join(' '));
  }),
  program('ws.md Class: WebSocket', 'members of the prototypes', ({ socket, note }) => {
    const names = new Set<string>();
    for (let proto: object | null = socket; proto; proto = Object.getPrototypeOf(proto) as object | null) {
      for (const name of Object.getOwnPropertyNames(proto)) names.add(name);
    }
    note([...names].sort().join(' '));
  }),
  program(
    'Node util.inspect',
    'inspect does not throw, and begins with the name of the class',
    ({ socket, note }) => {
      note(inspect(socket, { depth: 0 }).split(/\s/)[0]);
      note(inspect(socket, { depth: 4, showHidden: true }).length > 100);
    },
  ),
  program('JSON.stringify', 'JSON.stringify, spread and structuredClone', ({ socket, attempt }) => {
    const kindOf = (call: () => unknown) => () => {
      try {
        return typeof call();
      } catch (error) {
        return (error as Error).name;
      }
    };
    attempt(
      'JSON.stringify',
      kindOf(() => JSON.stringify(socket)),
    );
    attempt('spread', () => Object.keys({ ...socket }));
    attempt(
      'structuredClone',
      kindOf(() => structuredClone(socket)),
    );
    attempt('Object.entries', () => Object.entries(socket).map(([key]) => key));
  }),
  program('ws.md websocket.binaryType', 'binaryType', async ({ socket, client, note }) => {
    const types = ['arraybuffer', 'fragments', 'blob', 'nodebuffer', 'nonsense'];
    socket.on('message', (data, isBinary) => note(socket.binaryType, data, isBinary));
    for (const type of types) {
      (socket as { binaryType: string }).binaryType = type;
      note('set', type, 'got', socket.binaryType);
      client.write(Buffer.concat([frame(BINARY, 'ab', { fin: false }), frame(CONTINUATION, 'c')]));
      await turns(2);
      client.write(frame(TEXT, 'text'));
      await turns(2);
      client.write(frame(BINARY));
      await turns(2);
    }
  }),
  program(
    'ws.md websocket.protocol',
    'protocol and extensions',
    ({ socket, note, request: { headers } }) => {
      note(socket.protocol, socket.extensions, headers['sec-websocket-protocol']);
    },
    { path: '/deflate', offer: 'permessage-deflate', protocols: 'a, b' },
  ),
  program('ws.md Server', 'the server: clients, options, counts', async ({ socket, side, note }) => {
    const server = side.servers.get('/plain') as InstanceType<typeof platformWs.WebSocketServer>;
    note('clients', server.clients.has(socket), server.clients instanceof Set);
    const { maxPayload, clientTracking, noServer, perMessageDeflate } = server.options;
    note({ maxPayload, clientTracking, noServer, perMessageDeflate });
    note(
      'a subclass of WebSocket',
      socket instanceof (server.options.WebSocket as never as typeof platformWs.WebSocket),
    );
    note(server instanceof platformWs.WebSocketServer, server.listenerCount('connection') > 0);
    for (const one of server.clients) if (one === socket) one.send('to all');
    socket.on('close', () => note('at close', server.clients.has(socket)));
  }),
  program('ws.md Server', 'options that the gateway does not set', ({ side, note }) => {
    const { WebSocket: _class, verifyClient: _check, ...rest } = side.servers.get('/defaults')?.options ?? {};
    note(rest);
  }),
  program('RFC 6455 5.5.2', 'a ping of the heartbeat', async ({ socket, client, note }) => {
    await client.response();
    built.connectionOf(socket)?.ping();
    await turns();
    note('pings', client.frames.length <= 1);
  }),
  program('ws.md Class: WebSocket', 'the request is the request of the upgrade', ({ request: got, note }) => {
    note(got.method, got.headers, got.constructor.name, got.socket.constructor.name, got.complete);
  }),
];

function* keysIn(object: object): Iterable<string> {
  for (const key in object) yield key;
}

const listening: Program[] = [
  program(
    'Node EventEmitter',
    'eventNames and listenerCount in handleConnection and later',
    async ({ socket, note }) => {
      const show = () => {
        note(socket.eventNames());
        for (const event of EVENTS) note(event, socket.listenerCount(event));
      };
      show();
      await turn();
      show();
    },
  ),
  program('Node EventEmitter', 'listenerCount of a listener', ({ socket, note }) => {
    const listener = () => {};
    const count = () => (socket.listenerCount as (...args: unknown[]) => number)('message', listener);
    socket.on('message', listener);
    socket.on('message', listener);
    note(count());
    socket.off('message', listener);
    note(count());
  }),
  program(
    'Node EventEmitter',
    'listeners and rawListeners of what the application added',
    async ({ socket, note }) => {
      const first = () => {};
      const second = () => {};
      socket.once('message', first);
      socket.on('message', second);
      await turn();
      const own = [first, second];
      note(
        socket
          .listeners('message')
          .map((one) => own.indexOf(one as never))
          .filter((index) => index >= 0),
      );
      note(
        socket
          .rawListeners('message')
          .map((one) => own.indexOf(((one as { listener?: unknown }).listener ?? one) as never))
          .filter((index) => index >= 0),
      );
      note(socket.rawListeners('pong'), socket.rawListeners('nothing'));
    },
  ),
  program(
    'Node EventEmitter',
    'on, once, prependListener, prependOnceListener: their order',
    async ({ socket, client, note }) => {
      socket.on('message', (data) => note('on', data));
      socket.once('message', (data) => note('once', data));
      socket.prependListener('message', (data) => note('prepend', data));
      socket.prependOnceListener('message', (data) => note('prepend once', data));
      socket.addListener('message', (data) => note('addListener', data));
      client.write(frame(TEXT, 'a'));
      client.write(frame(TEXT, 'b'));
      await client.settle();
      note(socket.listenerCount('message') > 0);
    },
  ),
  program(
    'Node EventEmitter',
    'removeListener and off within listeners',
    async ({ socket, client, note }) => {
      const second = () => note('second');
      socket.on('message', () => {
        note('first');
        socket.off('message', second);
      });
      socket.on('message', second);
      socket.on('message', () => socket.on('message', () => note('added')));
      for (const text of ['a', 'b']) {
        client.write(frame(TEXT, text));
        await client.settle();
        note('then');
      }
    },
  ),
  program('Node EventEmitter', 'the same listener twice', async ({ socket, client, note }) => {
    const listener = (data: unknown) => note('listener', data);
    socket.on('message', listener);
    socket.on('message', listener);
    client.write(frame(TEXT, 'a'));
    await client.settle();
    socket.off('message', listener);
    client.write(frame(TEXT, 'b'));
    await client.settle();
  }),
  program('Node EventEmitter', 'newListener and removeListener', async ({ socket, note }) => {
    socket.on('newListener', (event) => note('newListener', event));
    socket.on('removeListener', (event) => note('removeListener', event));
    const listener = () => {};
    socket.on('message', listener);
    socket.once('ping', listener);
    socket.off('message', listener);
    socket.off('ping', listener);
    await turns();
  }),
  program('Node EventEmitter', 'this and arguments of listeners', async ({ socket, client, note }) => {
    for (const event of ['message', 'ping', 'pong', 'close'] as const) {
      socket.on(event, function (this: unknown, ...args: unknown[]) {
        note(event, this === socket, args);
      });
    }
    client.write(
      Buffer.concat([frame(TEXT, 't'), frame(BINARY, 'b'), frame(PING, 'p'), frame(PONG, 'q'), frame(PONG)]),
    );
    await client.settle();
    client.write(frame(PONG));
    await client.settle();
    client.write(frame(CLOSE, closePayload(4000, 'bye')));
    await client.end();
  }),
  program(
    'Node EventEmitter',
    'a listener of pong that is added late and removed again',
    async ({ socket, client, note }) => {
      client.write(frame(PONG));
      await client.settle();
      const listener = (data: unknown) => note('pong', data);
      socket.on('pong', listener);
      client.write(frame(PONG));
      await client.settle();
      socket.off('pong', listener);
      client.write(frame(PONG));
      await client.settle();
      socket.once('pong', listener);
      client.write(Buffer.concat([frame(PONG), frame(PONG)]));
      await client.settle();
      note('end');
    },
  ),
  program('Node EventEmitter', 'emit by the application', async ({ socket, client, attempt, note }) => {
    await turn();
    socket.on('message', (...args) => note('message', ...args));
    socket.on('custom', (...args) => note('custom', ...args));
    socket.on('ping', (...args) => note('ping', ...args));
    attempt('emit custom', () => socket.emit('custom', 1, 2));
    attempt('emit nothing', () => socket.emit('nothing', 1));
    attempt('emit message', () =>
      socket.emit('message', Buffer.from('{"event":"echo","data":"emitted"}'), false),
    );
    attempt('emit ping', () => socket.emit('ping', Buffer.from('p')));
    attempt('emit pong', () => socket.emit('pong', Buffer.alloc(0)));
    attempt('emit open', () => socket.emit('open'));
    await client.count(1);
  }),
  program('Node EventEmitter', 'emit(error) by the application', async ({ socket, attempt, note }) => {
    socket.on('error', (error) => note('error', error));
    attempt('emit error', () => socket.emit('error', new Error('mine')));
    note(socket.readyState);
  }),
  program('Node EventEmitter', 'emit(exception) by the application', async ({ socket, attempt, note }) => {
    attempt('emit exception', () => socket.emit('exception', { status: 'error' }));
    await turn();
    note(socket.readyState);
  }),
  program('Node EventEmitter', 'emit is called for every event', async ({ socket, client, note }) => {
    const emit = socket.emit.bind(socket);
    (socket as EventEmitter).emit = (event: string | symbol, ...args: unknown[]) => {
      note('emit', event);
      return emit(event as string, ...args);
    };
    client.write(Buffer.concat([frame(TEXT, 'a'), frame(PING, 'p'), frame(PONG, 'q')]));
    await client.settle();
    client.write(frame(PONG));
    await turns(2);
    client.write(frame(CLOSE, closePayload(1000)));
    await client.end();
  }),
  program(
    'Node EventEmitter',
    'removeAllListeners(message) takes the handlers of Nest away',
    async ({ socket, client, note }) => {
      await turn();
      note(socket.listenerCount('message'));
      socket.removeAllListeners('message');
      note(socket.listenerCount('message'));
      client.write(ECHO);
      await client.settle();
      socket.on('message', (data) => note('message', data));
      client.write(ECHO);
      await client.settle();
    },
  ),
  program(
    'Node EventEmitter',
    'removeAllListeners(close) takes handleDisconnect away',
    async ({ socket, side, note }) => {
      await turn();
      socket.removeAllListeners('close');
      note(socket.listenerCount('close'));
      forget(side, socket);
    },
  ),
  program(
    'Node EventEmitter',
    'removeAllListeners() takes everything away',
    async ({ socket, client, side, note }) => {
      await turn();
      socket.removeAllListeners();
      forget(side, socket);
      note(socket.eventNames());
      client.write(ECHO);
      await client.settle();
    },
  ),
  program(
    'Node EventEmitter',
    'a listener of close that is added in handleConnection, and handleDisconnect',
    ({ socket, note }) => {
      socket.on('close', () => note('listener of handleConnection'));
    },
  ),
  program(
    'Node EventEmitter',
    'a listener of close that is added later, and handleDisconnect',
    async ({ socket, note }) => {
      await turn();
      socket.on('close', () => note('listener that came later'));
      socket.prependListener('close', () => note('listener in front'));
    },
  ),
  program(
    'Node EventEmitter',
    'a listener of close that a handler adds with once',
    async ({ socket, client, note }) => {
      socket.on('message', () => socket.once('close', () => note('listener of a handler')));
      client.write(ECHO);
      await client.count(1);
    },
  ),
  program(
    'Nest handleDisconnect',
    'the arguments of handleDisconnect',
    async ({ client, note }) => {
      client.write(frame(CLOSE, closePayload(4000, 'bye')));
      await client.end();
      note('ended');
    },
    { showsDisconnect: true },
  ),
  program('Node EventEmitter', 'maximum of listeners', ({ socket, note }) => {
    note(socket.getMaxListeners());
    note(socket.setMaxListeners(3) === socket, socket.getMaxListeners());
  }),
  program('Node events.once', 'events.once of message, ping and close', async ({ socket, client, note }) => {
    const message = once(socket, 'message');
    client.write(frame(TEXT, 'a'));
    note(await message);
    const ping = once(socket, 'ping');
    client.write(frame(PING, 'p'));
    note(await ping);
    const close = once(socket, 'close');
    client.write(frame(CLOSE, closePayload(4000, 'x')));
    note(await close);
    await client.end();
  }),
  program('Node events.on', 'an asynchronous iterator of messages', async ({ socket, client, note }) => {
    const stop = new AbortController();
    const messages = on(socket, 'message', { signal: stop.signal });
    client.write(Buffer.concat([frame(TEXT, 'a'), frame(BINARY, 'b'), frame(TEXT, 'c')]));
    let count = 0;
    try {
      for await (const args of messages) {
        note(args);
        if (++count === 3) stop.abort();
      }
    } catch (error) {
      note((error as Error).name);
    }
  }),
  program(
    'ws.md Event: error',
    'a protocol error: the events and their order',
    async ({ socket, client, note }) => {
      for (const event of ['message', 'ping', 'error', 'close'] as const) {
        socket.on(event, (...args: unknown[]) => note(event, socket.readyState, ...args));
      }
      client.write(Buffer.concat([frame(TEXT, 'a'), frame(PING, 'p'), frame(3), frame(TEXT, 'b')]));
      await client.end();
    },
  ),
  program(
    'ws.md Event: error',
    'a protocol error without a listener of error',
    async ({ socket, client, note }) => {
      socket.on('close', (...args) => note('close', ...args));
      client.write(frame(TEXT, Buffer.from([0xff])));
      await client.end();
    },
  ),
];

const eventTarget: Program[] = [
  program(
    'ws.md websocket.addEventListener',
    'the events that listeners get',
    async ({ socket, client, note }) => {
      for (const type of ['message', 'close', 'error', 'open'] as const) {
        socket.addEventListener(type, function (this: unknown, event: { type: string; target: unknown }) {
          const { data, code, reason, wasClean, message } = event as unknown as Record<string, unknown>;
          note(type, event.type, event.target === socket, this === socket, event.constructor.name);
          note({ data, code, reason, wasClean, message });
        } as never);
      }
      client.write(frame(TEXT, 'text'));
      client.write(frame(BINARY, 'binary'));
      await client.settle();
      client.write(frame(CLOSE, closePayload(4000, 'bye')));
      await client.end();
    },
  ),
  program(
    'ws.md websocket.addEventListener',
    'error and close events of a protocol error',
    async ({ socket, client, note }) => {
      socket.addEventListener('error', ({ type, message, error }) => note(type, message, error));
      socket.addEventListener('close', ({ code, reason, wasClean }) => note(code, reason, wasClean));
      client.write(frame(3));
      await client.end();
    },
  ),
  program(
    'ws.md websocket.addEventListener',
    'once, the same listener twice, removeEventListener',
    async ({ socket, client, note }) => {
      const listener = ({ data }: { data: unknown }) => note('listener', data);
      socket.addEventListener('message', listener as never);
      socket.addEventListener('message', listener as never);
      socket.addEventListener('message', (({ data }: { data: unknown }) => note('once', data)) as never, {
        once: true,
      });
      client.write(frame(TEXT, 'a'));
      await client.settle();
      socket.removeEventListener('message', listener as never);
      client.write(frame(TEXT, 'b'));
      await client.settle();
    },
  ),
  program(
    'ws.md websocket.addEventListener',
    'an object with handleEvent',
    async ({ socket, client, note }) => {
      const target = {
        name: 'target',
        handleEvent({ type }: { type: string }) {
          note(this.name, type);
        },
      };
      socket.addEventListener('message', target as never);
      client.write(frame(TEXT, 'a'));
      await client.settle();
      socket.removeEventListener('message', target as never);
      client.write(frame(TEXT, 'b'));
      await client.settle();
    },
  ),
  program(
    'ws.md websocket.addEventListener',
    'a type that does not exist, ping and pong',
    async ({ socket, client, note, attempt }) => {
      for (const type of ['ping', 'pong', 'nonsense']) {
        attempt(type, () => socket.addEventListener(type as never, (() => note('called')) as never));
        note(socket.listenerCount(type));
      }
      client.write(Buffer.concat([frame(PING, 'p'), frame(PONG, 'q')]));
      await client.settle();
    },
  ),
  program(
    'ws.md websocket.onmessage',
    'onmessage, onclose, onerror: set, replaced, removed',
    async ({ socket, client, note }) => {
      socket.onmessage = ({ data }) => note('first', data);
      client.write(frame(TEXT, 'a'));
      await client.settle();
      const second = ({ data }: { data: unknown }) => note('second', data);
      socket.onmessage = second;
      note(socket.onmessage === second, socket.listenerCount('message'));
      client.write(frame(TEXT, 'b'));
      await client.settle();
      socket.onmessage = null;
      note(socket.onmessage);
      client.write(frame(TEXT, 'c'));
      await client.settle();
      socket.onclose = ({ code }) => note('onclose', code);
      socket.onerror = ({ message }) => note('onerror', message);
      client.write(frame(4));
      await client.end();
    },
  ),
  program(
    'ws.md websocket.onmessage',
    'onmessage among other listeners: the order',
    async ({ socket, client, note }) => {
      socket.on('message', () => note('on'));
      socket.onmessage = () => note('onmessage');
      socket.addEventListener('message', () => note('addEventListener'));
      socket.prependListener('message', () => note('prepend'));
      client.write(frame(TEXT, 'a'));
      await client.settle();
    },
  ),
];

const pausing: Program[] = [
  program(
    'ws.md websocket.pause',
    'nothing is read while paused; resume',
    async ({ socket, client, note }) => {
      for (const event of ['message', 'ping', 'pong'] as const) socket.on(event, (data) => note(event, data));
      socket.pause();
      note(socket.isPaused, socket.readyState);
      client.write(frame(TEXT, 'a'));
      client.write(frame(PING, 'p'));
      client.write(frame(PONG));
      await turns();
      note('resume');
      socket.resume();
      note(socket.isPaused);
      await client.settle();
    },
  ),
  program(
    'ws.md websocket.pause',
    'pause in a listener, messages behind it in the segment',
    async ({ socket, client, note }) => {
      socket.on('message', (data) => {
        note('message', data, socket.isPaused);
        if (String(data) === 'a') socket.pause();
      });
      client.write(Buffer.concat([frame(TEXT, 'a'), frame(TEXT, 'b')]));
      await turns();
      client.write(frame(TEXT, 'c'));
      await turns();
      note('resume');
      socket.resume();
      await client.settle();
    },
  ),
  program(
    'ws.md websocket.pause',
    'pause twice, resume once; resume twice',
    async ({ socket, client, note }) => {
      socket.on('message', (data) => note('message', data));
      socket.pause();
      socket.pause();
      socket.resume();
      note(socket.isPaused);
      socket.resume();
      client.write(frame(TEXT, 'a'));
      await client.settle();
    },
  ),
  program('ws.md websocket.pause', 'a send while paused', async ({ socket, client, note }) => {
    socket.pause();
    socket.send('text', (error) => note('callback', error));
    socket.ping('p');
    await client.count(2);
    socket.resume();
    await client.settle();
  }),
  program(
    'ws.md websocket.pause',
    'close while paused',
    async ({ socket, client, note, until }) => {
      socket.on('message', (data) => note('message', data));
      socket.on('close', (code, reason) => note('close', code, reason));
      socket.pause();
      client.write(frame(TEXT, 'unread'));
      socket.close(4000, 'x');
      note(socket.isPaused, socket.readyState);
      await client.count(1);
      client.write(frame(CLOSE, closePayload(4000)));
      await turns();
      note(socket.isPaused, socket.readyState);
      await until(() => socket.readyState === 3);
    },
    { endsItself: true },
  ),
  program('ws.md websocket.pause', 'close while paused, then resume', async ({ socket, client, note }) => {
    socket.on('message', (data) => note('message', data));
    socket.on('close', (code, reason) => note('close', code, reason));
    socket.pause();
    client.write(frame(TEXT, 'unread'));
    socket.close(4000, 'x');
    await turns();
    note('resume');
    socket.resume();
    await client.count(1);
    client.write(frame(CLOSE, closePayload(4001)));
    await client.end();
  }),
  program(
    'ws.md websocket.pause',
    'terminate while paused',
    async ({ socket, client, note }) => {
      socket.on('message', (data) => note('message', data));
      socket.on('close', (code, reason) => note('close', code, reason));
      socket.pause();
      await turns();
      client.write(frame(TEXT, 'unread'));
      await turns();
      socket.terminate();
      await client.end();
    },
    { endsItself: true },
  ),
  program(
    'ws.md websocket.pause',
    'the client closes while the socket is paused, then resume',
    async ({ socket, client, note }) => {
      socket.on('message', (data) => note('message', data));
      socket.on('close', (code, reason) => note('close', code, reason));
      socket.pause();
      client.write(Buffer.concat([frame(TEXT, 'a'), frame(CLOSE, closePayload(4000))]));
      await turns();
      note(socket.readyState);
      socket.resume();
      await client.end();
    },
    { endsItself: true },
  ),
  program(
    'ws.md websocket.pause',
    'the client leaves while the socket is paused, then resume',
    async ({ socket, client, note }) => {
      socket.on('message', (data) => note('message', data));
      socket.on('close', (code, reason) => note('close', code, reason));
      socket.pause();
      client.write(frame(TEXT, 'a'));
      client.socket.end();
      await turns();
      note(socket.readyState);
      socket.resume();
      await client.end();
    },
    { endsItself: true },
  ),
  program(
    'ws.md websocket.pause',
    'pause and resume after the close',
    async ({ socket, client, note, attempt }) => {
      client.socket.end();
      await once(socket, 'close');
      attempt('pause', () => socket.pause());
      note(socket.isPaused);
      attempt('resume', () => socket.resume());
      note(socket.isPaused);
    },
  ),
  program(
    'ws.md websocket.pause',
    'pause while messages of 1 MB come',
    async ({ socket, client, note, until }) => {
      let count = 0;
      socket.on('message', () => {
        count++;
        socket.pause();
        setTimeout(() => socket.resume(), 1);
      });
      const message = frame(BINARY, Buffer.alloc(60_000, 1));
      for (let i = 0; i < 20; i++) client.write(message);
      await until(() => count === 20 && !socket.isPaused);
      note(count);
    },
  ),
];

const early: Program[] = [
  program(
    'Nest handleConnection',
    'an asynchronous handleConnection that waits for a first message',
    async ({ socket, note }) => {
      const waited = await Promise.race([
        once(socket, 'message').then(([data]) => `got ${data}`),
        new Promise<string>((resolve) => setTimeout(resolve, 500, 'nothing within 500 ms')),
      ]);
      note(waited);
    },
    { isAwaited: true, early: frame(TEXT, 'first') },
  ),
  program(
    'Nest handleConnection',
    'an asynchronous handleConnection: its own listener hears all messages at once',
    async ({ socket, client, note }) => {
      socket.on('message', (data) => note('message', data));
      await client.response();
      client.write(frame(TEXT, 'one'));
      await turns();
      client.write(Buffer.concat([frame(TEXT, 'two'), frame(PING, 'p')]));
      await turns();
      note('done');
    },
    { isAwaited: true },
  ),
  program(
    'Nest handleConnection',
    'a message in the segment of the request reaches a listener of handleConnection',
    async ({ socket, client, note }) => {
      socket.on('message', (data) => note('message', data));
      await client.response();
      await client.settle();
    },
    { early: Buffer.concat([frame(TEXT, 'early'), frame(TEXT, 'too')]) },
  ),
  program('Nest handleConnection', 'a text is sent in handleConnection', ({ socket, note }) => {
    socket.send('welcome');
    note(socket.bufferedAmount);
  }),
  program(
    'Nest handleConnection',
    'close in handleConnection',
    async ({ socket, client, note }) => {
      socket.on('close', (code, reason) => note('close', code, reason));
      socket.close(4000, 'no');
      await client.count(1);
      client.write(frame(CLOSE, closePayload(4000)));
      await client.end();
    },
    { early: ECHO },
  ),
  program(
    'Nest handleConnection',
    'terminate in handleConnection',
    async ({ socket, client, note }) => {
      socket.on('close', (code, reason) => note('close', code, reason));
      socket.terminate();
      note(socket.readyState);
      await client.end();
    },
    { early: ECHO },
  ),
];

const overriding: Program[] = [
  ...(['send', 'close', 'terminate', 'ping', 'pause', 'resume'] as const).map((method) =>
    program(
      'Node EventEmitter',
      `a ${method} of the application's own on the socket`,
      async ({ socket, client, note }) => {
        const own = socket as unknown as Record<string, (...args: unknown[]) => unknown>;
        const original = own[method]?.bind(socket) as (...args: unknown[]) => unknown;
        own[method] = (...args: unknown[]) => {
          note('called', method, ...args.filter((arg) => typeof arg !== 'function'));
          return original(...args);
        };
        await turn();
        client.write(ECHO);
        await client.count(1);
        client.write(frame(PING, 'p'));
        await client.settle();
        client.write(frame(CLOSE, closePayload(4000)));
        await client.end();
      },
    ),
  ),
  program(
    'Object.freeze',
    'properties of the application on the socket',
    async ({ socket, client, note }) => {
      Object.assign(socket, { userId: 'alice', session: { a: 1 }, [Symbol.for('mine')]: 2 });
      Object.defineProperty(socket, 'fixed', { value: 1, enumerable: true });
      client.write(ECHO);
      await client.count(1);
      const { userId, session, fixed } = socket as unknown as Record<string, unknown>;
      note(userId, session, fixed, Object.keys(socket).slice(-3));
    },
  ),
  program('Proxy', 'a Proxy around the socket', async ({ socket, client, note }) => {
    const proxy = new Proxy(socket, {
      get(target, key) {
        const value = Reflect.get(target, key, target) as unknown;
        return typeof value === 'function' ? value.bind(target) : value;
      },
    });
    proxy.on('message', (data) => note('message', data, proxy.readyState));
    proxy.send('through a proxy');
    note(proxy.bufferedAmount);
    client.write(frame(TEXT, 'x'));
    await client.settle();
  }),
];

const streams: Program[] = [
  program('ws.md createWebSocketStream', 'a stream of the socket: echo', async ({ socket, client, note }) => {
    const stream = platformWs.createWebSocketStream(socket, { encoding: 'utf8' });
    stream.on('data', (chunk) => {
      note('data', chunk);
      stream.write(`echo ${chunk}`);
    });
    stream.on('end', () => note('end'));
    stream.on('close', () => note('close'));
    stream.on('error', (error) => note('error', error));
    client.write(Buffer.concat([frame(TEXT, 'a'), frame(TEXT, 'b')]));
    await client.count(2);
    client.write(frame(CLOSE, closePayload(1000)));
    await client.end();
  }),
  program(
    'ws.md createWebSocketStream',
    'a stream of the socket: backpressure',
    async ({ socket, client, note, until }) => {
      const stream = platformWs.createWebSocketStream(socket);
      const message = frame(BINARY, Buffer.alloc(60_000, 1));
      for (let i = 0; i < 10; i++) client.write(message);
      await turns();
      note('paused', socket.isPaused);
      let bytes = 0;
      stream.on('data', (chunk: Buffer) => {
        bytes += chunk.length;
      });
      await until(() => bytes === 600_000);
      note(bytes, socket.isPaused);
      stream.on('error', (error) => note('error', error));
    },
  ),
  program(
    'ws.md createWebSocketStream',
    'a stream of the socket: end and destroy',
    async ({ socket, client, note }) => {
      const stream = platformWs.createWebSocketStream(socket);
      stream.on('error', (error) => note('error', error));
      stream.on('close', () => note('close', stream.destroyed));
      stream.write('last');
      stream.end();
      await client.count(2);
      client.write(frame(CLOSE, closePayload(1000)));
      await client.end();
    },
  ),
];

testPrograms('what the socket looks like', sides, look);
testPrograms('listeners', sides, listening);
testPrograms('the EventTarget interface', sides, eventTarget);
testPrograms('pause and resume', sides, pausing);
testPrograms('messages before handleConnection is done', sides, early);
testPrograms('members that the application replaces', sides, overriding);
testPrograms('createWebSocketStream', sides, streams);
testTable('socket');

/** A program that assigns a property of the application to the socket, and then uses the socket in every way. */
function assigning(name: string | symbol, value: unknown): Program {
  return program(
    `a property ${String(name)}`,
    `assigned ${typeof value}`,
    async ({ socket, client, note, until }: ProgramContext) => {
      const own = socket as unknown as Record<string | symbol, unknown>;
      own[name] = value;
      await turn();
      own[name] = value;
      socket.on('message', (data) => note('message', data));
      client.write(Buffer.concat([ECHO, frame(BINARY, 'b'), frame(PING, 'p'), frame(PONG)]));
      await client.count(2);
      client.write(frame(PONG));
      await client.settle();
      socket.send('text');
      socket.send(Buffer.from('buffer'));
      socket.pause();
      socket.resume();
      client.write(ECHO);
      await client.settle();
      note('kept', own[name] === value);
      socket.close(4000, 'x');
      client.write(frame(CLOSE, closePayload(4000)));
      await client.end();
      await until(() => socket.readyState === 3);
    },
  );
}

/** What applications put on a socket, and what a module could be tempted to put there. */
const PLAUSIBLE = (
  'alive active auth binding buffer bytesRead calm cleanup client clientId closed closing connection connectionId ' +
  'context counter data destroyed dispatcher evicted gateway handler handlers heartbeat held hooks id idle ip isAlive ' +
  'isAuthenticated isCalm isClosed isOpen lastPing lastPong lastSeen listeners_ locale manager managerId messages meta ' +
  'metadata missed missedPongs name namespace open options owner paused peer pending pings priority queue queued rate ' +
  'refused registry request res room rooms roles sequence server session sessionKey sink socket sock state status store ' +
  'stream streams subscriptions suspect tags tell tellClose tenant terminated timer timers token topics transport user ' +
  'userId username uuid writer writeTo sendUncounted askWhoIsThere takePong holdMessages releaseMessages stir'
).split(' ');

async function socketOf(side: Side): Promise<ServerSocket> {
  const client = await RawClient.open(side.port, false);
  const arrived = new Promise<ServerSocket>((resolve) => {
    side.expect(`keys-${side.name}`, resolve);
  });
  client.write(request(`/plain?id=keys-${side.name}`));
  const socket = await arrived;
  await turns();
  client.socket.destroy();
  return socket;
}

/** Names that the module's socket has, of its own or of its classes, and the platform's has not. */
function namesOf(object: object): Set<string | symbol> {
  const names = new Set<string | symbol>();
  for (let proto: object | null = object; proto; proto = Object.getPrototypeOf(proto) as object | null) {
    for (const name of Reflect.ownKeys(proto)) names.add(name);
  }
  return names;
}

describe('properties that the application assigns', () => {
  for (const name of PLAUSIBLE) {
    it(`a property ${name} changes nothing`, async () => {
      for (const value of [{ mine: true }, true]) await runProgram(sides(), assigning(name, value));
    });
  }

  it('the module adds no name that an application could use', async () => {
    const { platform, module } = sides();
    const theirs = namesOf(await socketOf(platform));
    const added = [...namesOf(await socketOf(module))].filter((name) => !theirs.has(name));
    expect(added.filter((name) => typeof name === 'string')).toEqual([]);
  });
});

describe('the copy of ws', () => {
  it('is the one that platform-ws brings, on both sides', async () => {
    const { platform, module } = sides();
    for (const side of [platform, module]) {
      expect(await socketOf(side), side.name).toBeInstanceOf(platformWs.WebSocket);
      for (const [path, server] of side.servers) {
        expect(server, `${side.name} ${path}`).toBeInstanceOf(platformWs.WebSocketServer);
      }
    }
  });

  it('has the version that platform-ws asks for, also where the tests have another one', async () => {
    const platform = dirname(require.resolve('@nestjs/platform-ws'));
    const { dependencies } = packageAt(join(platform, 'package.json'));
    const theirs = createRequire(join(platform, 'index.js')).resolve('ws/package.json');
    expect(packageAt(theirs).version).toBe(dependencies?.ws);
    const own = require.resolve('ws/package.json');
    const { WebSocket } = await import('ws');
    expect(platformWs.WebSocket === (WebSocket as unknown)).toBe(realpathSync(own) === realpathSync(theirs));
  });
});

const require = createRequire(import.meta.url);

function packageAt(path: string): { version: string; dependencies?: Record<string, string> } {
  return JSON.parse(readFileSync(path, 'utf8'));
}
