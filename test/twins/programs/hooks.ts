import { setTimeout as sleep } from 'node:timers/promises';
import { Catch, type ExceptionFilter, UseFilters } from '@nestjs/common';
import { WsException } from '@nestjs/websockets';
import { closeFrame, message } from '../frames.js';
import { later } from '../generated.js';
import { type Program, program, programOf, type ServerSocket, type Trace } from '../program.js';

const answer = (_client: unknown, data: unknown) => ({ event: 'answer', data });

const asksOnce: Program['client'] = async (clients) => {
  const client = await clients.connect();
  client.send('go', 1);
  await client.next();
  await client.close(4000, 'reason');
};

/** The client is closed by the server, or its process ends. */
const isEnded: Program['client'] = async (clients) => {
  const client = await clients.connect();
  client.send('go', 1);
  await client.closed();
};

/** It leaves, and another comes to see whether the process is there. */
const leavesAndComesAgain: Program['client'] = async (clients) => {
  const client = await clients.connect();
  await client.close(4000);
  await clients.quiet(60);
};

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
  'throws what is no Error': () => {
    throw 'fault a-string';
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
        for (const when of ['tick', 'microtask', 'promise', 'immediate', 'timer'] as const)
          later(when, () => trace.note(`connection ${when}`));
      },
      disconnect: (_client, trace) => {
        for (const when of ['tick', 'microtask', 'promise', 'immediate', 'timer'] as const)
          later(when, () => trace.note(`disconnect ${when}`));
      },
      on: {
        go: (client, data, trace) => {
          for (const when of ['tick', 'microtask', 'promise', 'immediate', 'timer'] as const)
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
      await raw.closed();
      await clients.quiet(80);
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
      `handleConnection ${how}`,
      { connection: (_client, trace) => fail(trace), disconnect: () => {}, on: { go: answer } },
      isEnded,
      { isAlone: true },
    ),
    program(
      `handleDisconnect ${how}`,
      { disconnect: (_client, trace) => fail(trace), on: { go: answer } },
      leavesAndComesAgain,
      { isAlone: true },
    ),
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
  program(
    'handleConnection throws, and its process knows what to do',
    {
      beforeBoot: () => process.on('uncaughtException', () => {}),
      connection: (_client, trace) => FAILURES.throws?.(trace),
      disconnect: () => {},
      on: { go: answer },
    },
    asksOnce,
    { isAlone: true },
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
    isEnded,
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
