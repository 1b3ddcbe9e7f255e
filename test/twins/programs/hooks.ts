import { setTimeout as sleep } from 'node:timers/promises';
import { Catch, type ExceptionFilter, UseFilters } from '@nestjs/common';
import { WsException } from '@nestjs/websockets';
import { closeFrame, message } from '../frames.js';
import { later } from '../generated.js';
import { type Outcome, type Program, program, programOf, type ServerSocket, type Trace } from '../program.js';

const answer = (_client: unknown, data: unknown) => ({ event: 'answer', data });

/** Every step is one that the server may not live to see. */
const comesAndLeaves: Program['client'] = async (clients) => {
  const client = await clients.connect();
  await clients.quiet(25);
  client.send('go', 1);
  await clients.quiet();
  await client.close(1000);
  await clients.quiet(25);
};

const CLOSING = 'text {"event":"ws:closing","data":{"code":1011,"reason":"internal","retryable":true}}';

/** On the platform it ends the process. */
function hookFailing(
  hook: 'handleConnection' | 'handleDisconnect',
  how: string,
  module: Partial<Outcome>,
): Program {
  const fail = (_client: unknown, trace: Trace) => FAILURES[how]?.(trace);
  const [connection, disconnect] = hook === 'handleConnection' ? [fail, () => {}] : [() => {}, fail];
  return program(`${hook} ${how}`, { connection, disconnect, on: { go: answer } }, comesAndLeaves, {
    isAlone: 'on the platform',
    differs: { because: 'hooks do not end the process', module },
  });
}

const FAILURES: Readonly<Record<string, (trace: Trace) => unknown>> = {
  throws: (trace) => {
    throw trace.fault('thrown');
  },
  rejects: (trace) => Promise.reject(trace.fault('rejected')),
  'rejects later': async (trace) => {
    await sleep(10);
    throw trace.fault('rejected-later');
  },
  'throws a WsException': () => {
    throw new WsException('an exception of it');
  },
  'rejects with a WsException': () => Promise.reject(new WsException('an exception of it')),
  'throws what is no Error': (trace) => {
    throw trace.fault('a-string').message;
  },
};

@Catch()
class ToClient implements ExceptionFilter {
  catch(error: Error, host: Parameters<ExceptionFilter['catch']>[1]): void {
    const client = host.switchToWs().getClient<ServerSocket>();
    client.send(JSON.stringify({ event: 'filtered', data: String(error) }));
  }
}

export const hooks: readonly Program[] = [
  program(
    'the order of hooks, listeners, handlers and the turns between them',
    {
      init: (server, trace) => {
        server.on('connection', () => trace.note('event connection'));
      },
      connection: (client, trace) => {
        trace.watch(client, 'message', 'close');
        for (const when of ['tick', 'microtask', 'promise', 'immediate', 'turns'] as const)
          later(when, () => trace.note(`connection ${when}`));
      },
      disconnect: (_client, trace) => {
        for (const when of ['tick', 'microtask', 'promise', 'immediate', 'turns'] as const)
          later(when, () => trace.note(`disconnect ${when}`));
      },
      on: {
        go: (client, data, trace) => {
          for (const when of ['tick', 'microtask', 'promise', 'immediate', 'turns'] as const)
            later(when, () => trace.note(`go ${when}`));
          return answer(client, data);
        },
      },
    },
    async (clients) => {
      const client = await clients.connect();
      await clients.quiet(20);
      client.send('go', 1);
      await client.next();
      await clients.quiet(20);
      await client.close(4000, 'reason');
    },
  ),
  program(
    'what handleConnection gets',
    {
      connection: (client, trace, ...rest) => {
        const [request] = rest as [{ url: string; method: string; headers: Record<string, string> }];
        trace.note('arguments', rest.length, request.url, request.method, request.headers['x-header']);
        trace.note('state', client.readyState);
      },
      on: { go: answer },
    },
    async (clients) => {
      const client = await clients.connect('/?a=b', { headers: { 'x-header': 'value' } });
      client.send('go', 1);
      await client.next();
      await client.close(1000);
    },
  ),
  program(
    'what handleDisconnect gets',
    {
      disconnect: (client, trace, ...rest) => trace.note('arguments', ...rest, client.readyState),
    },
    async (clients) => {
      const client = await clients.connect();
      await client.close(4321, 'the reason');
    },
    {
      differs: {
        because: 'the reason of a close',
        module: { server: ['handleDisconnect 4321', 'arguments 4321 the reason 3'] },
      },
    },
  ),
  program(
    'an asynchronous handleConnection that ends before messages come',
    {
      connection: async (client, trace) => {
        await sleep(10);
        trace.note('connected');
        client.send('ready');
      },
      disconnect: () => {},
      on: { go: answer },
    },
    async (clients) => {
      const client = await clients.connect();
      await client.next();
      client.send('go', 1);
      await client.next();
      await client.close(4000, 'reason');
    },
  ),
  program(
    'messages while an asynchronous handleConnection runs',
    {
      connection: async (client, trace) => {
        await sleep(60);
        trace.note('connected');
        client.send('ready');
      },
      on: { go: answer },
    },
    async (clients) => {
      const client = await clients.connect();
      for (let i = 0; i < 3; i++) client.send('go', i);
      await client.next(4);
      await client.close(1000);
    },
    {
      differs: {
        because: 'messages wait for handleConnection',
        module: {
          server: ['handleConnection', 'connected', 'on go 0', 'on go 1', 'on go 2'],
          client: [
            'open',
            'text ready',
            ...[0, 1, 2].map((n) => `text {"event":"answer","data":${n}}`),
            'close 1000 ',
          ],
        },
      },
    },
  ),
  program(
    'messages with the handshake, while an asynchronous handleConnection runs',
    {
      connection: async (client, trace) => {
        await sleep(60);
        trace.note('connected');
        client.send('ready');
      },
      on: { go: answer },
    },
    async (clients) => {
      const raw = await clients.connectRaw('/', [message('go', 1), message('go', 2)]);
      await raw.frame(3);
      raw.write(message('go', 3));
      await raw.frame(4);
    },
    {
      differs: {
        because: 'messages wait for handleConnection',
        module: {
          server: ['handleConnection', 'connected', 'on go 1', 'on go 2', 'on go 3'],
          client: [
            'HTTP/1.1 101 Switching Protocols',
            'frame 1 ready',
            ...[1, 2, 3].map((n) => `frame 1 {"event":"answer","data":${n}}`),
          ],
        },
      },
    },
  ),
  program(
    'a message and a close while an asynchronous handleConnection runs',
    {
      connection: async (client, trace) => {
        trace.watch(client, 'close');
        await sleep(60);
        trace.note('connected', client.readyState);
      },
      disconnect: () => {},
      on: { go: answer },
    },
    async (clients) => {
      const raw = await clients.connectRaw();
      raw.write(message('go', 1), closeFrame(4000));
      await clients.quiet(80);
    },
    {
      differs: {
        because: 'messages wait for handleConnection',
        module: {
          server: [
            'handleConnection',
            'event close 4000 bytes ',
            'connected 3',
            'on go 1',
            'handleDisconnect 4000',
          ],
        },
      },
    },
  ),
  program(
    'a handleConnection that never ends',
    {
      connection: (_client, trace) => {
        trace.note('waits for ever');
        return new Promise(() => {});
      },
      disconnect: () => {},
    },
    async (clients) => {
      const client = await clients.connect();
      await client.close(1000);
    },
  ),
  program(
    'an asynchronous handleDisconnect',
    {
      disconnect: async (client, trace) => {
        await sleep(10);
        trace.note('disconnected', client.readyState);
      },
    },
    async (clients) => {
      const client = await clients.connect();
      await client.close(1000);
    },
  ),
  ...Object.entries(FAILURES).flatMap(([how, fail]) => [
    program(
      `a handler ${how}`,
      {
        connection: (client, trace) => trace.watch(client, 'close'),
        on: { go: (_client, _data, trace) => fail(trace), ok: answer },
      },
      async (clients) => {
        const client = await clients.connect();
        client.send('go', 1);
        await client.next();
        client.send('ok', 2);
        await client.next();
        await client.close(1000);
      },
    ),
    program(
      `a handler ${how}, with a filter`,
      {
        on: { go: (_client, _data, trace) => fail(trace), ok: answer },
        decorate: { go: [UseFilters(new ToClient())] },
      },
      async (clients) => {
        const client = await clients.connect();
        client.send('go', 1);
        await client.next();
        client.send('ok', 2);
        await client.next();
        await client.close(1000);
      },
    ),
  ]),
  hookFailing('handleConnection', 'throws', {
    server: ['handleConnection', 'handleDisconnect 1011'],
    client: ['open', CLOSING, 'close 1011 internal'],
    log: ['fault thrown'],
    process: 'runs',
  }),
  hookFailing('handleConnection', 'rejects later', {
    server: ['handleConnection', 'handleDisconnect 1011'],
    client: ['open', CLOSING, 'close 1011 internal'],
    log: ['fault rejected-later'],
    process: 'runs',
  }),
  hookFailing('handleConnection', 'throws a WsException', {
    server: ['handleConnection', 'on go 1', 'handleDisconnect 1000'],
    client: [
      'open',
      'text {"event":"exception"... of 117',
      'text {"event":"answer","data":1}',
      'close 1000 ',
    ],
    process: 'runs',
  }),
  hookFailing('handleDisconnect', 'throws', { log: ['fault thrown'], process: 'runs' }),
  hookFailing('handleDisconnect', 'rejects later', { log: ['fault rejected-later'], process: 'runs' }),
  hookFailing('handleDisconnect', 'throws a WsException', { process: 'runs' }),
  program(
    'handleConnection throws, and the process has a listener for it',
    {
      beforeBoot: () => process.on('uncaughtException', () => {}),
      connection: (_client, trace) => FAILURES.throws?.(trace),
      disconnect: () => {},
      on: { go: answer },
    },
    comesAndLeaves,
    {
      isAlone: true,
      differs: {
        because: 'hooks do not end the process',
        module: {
          server: ['handleConnection', 'handleDisconnect 1011'],
          client: ['open', CLOSING, 'close 1011 internal'],
          log: ['fault thrown'],
        },
      },
    },
  ),
  program(
    'handleConnection, of a client that has just gone',
    {
      connection: (client, trace) => {
        client.terminate();
        trace.note('state', client.readyState);
      },
      disconnect: (client, trace) => trace.note('state', client.readyState),
    },
    comesAndLeaves,
  ),
  programOf(
    'hooks of two gateways on one path',
    [
      {
        label: 'one: ',
        init: () => {},
        connection: (client, trace) => trace.watch(client, 'close'),
        disconnect: () => {},
        on: { go: answer, one: answer },
      },
      {
        label: 'other: ',
        init: () => {},
        connection: (client, trace) => trace.watch(client, 'close'),
        disconnect: () => {},
        on: { go: answer, other: answer },
      },
    ],
    async (clients) => {
      const client = await clients.connect();
      client.send('go', 1);
      await client.next(2);
      client.send('one', 2);
      client.send('other', 3);
      client.send('nobody', 4);
      await client.next(2);
      await client.close(4000, 'reason');
    },
  ),
  programOf(
    'gateways on two paths',
    [
      { path: '/one', label: 'one: ', connection: () => {}, disconnect: () => {}, on: { go: answer } },
      { path: '/other', label: 'other: ', connection: () => {}, disconnect: () => {}, on: { go: answer } },
    ],
    async (clients) => {
      const one = await clients.connect('/one', { label: 'one: ' });
      const other = await clients.connect('/other', { label: 'other: ' });
      one.send('go', 1);
      await one.next();
      other.send('go', 2);
      await other.next();
      await one.close(4000);
      await other.close(4001);
    },
  ),
];
