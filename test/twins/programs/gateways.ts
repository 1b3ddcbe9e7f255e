import { Inject, Injectable, Scope, type Type } from '@nestjs/common';
import { REQUEST } from '@nestjs/core';
import { SubscribeMessage, WebSocketGateway } from '@nestjs/websockets';
import type { WebSocket } from 'ws';
import { type Program, program, programOf, type Trace, type WsServer } from '../program.js';

const answer = (_client: unknown, data: unknown) => ({ event: 'answer', data });

/** Gateways that are made anew for each client, or for each message. */
function scoped(trace: Trace): readonly Type[] {
  let made = 0;

  @Injectable({ scope: Scope.REQUEST })
  class OfRequest {
    readonly number = ++made;
  }

  @WebSocketGateway({ path: '/' })
  class ScopedGateway {
    constructor(
      @Inject(OfRequest) private readonly ofRequest: OfRequest,
      @Inject(REQUEST) private readonly request: { readyState: number },
    ) {}

    handleConnection() {
      trace.note('handleConnection', this.ofRequest.number, this.request.readyState);
    }

    handleDisconnect() {
      trace.note('handleDisconnect', this.ofRequest.number);
    }

    @SubscribeMessage('go')
    go(_client: unknown, data: unknown) {
      trace.note('on go', data, this.ofRequest.number);
      return { event: 'answer', data };
    }

    @SubscribeMessage('fail')
    fail() {
      throw trace.fault('scoped');
    }
  }
  return [ScopedGateway, OfRequest] as Type[];
}

/** Sends to all, as documentation and tutorials do. */
function sendToAll(server: WsServer, text: string): void {
  for (const client of server.clients) if (client.readyState === client.OPEN) client.send(text);
}

export const gateways: readonly Program[] = [
  {
    name: 'a request-scoped gateway',
    server: (trace) => {
      const [Gateway, OfRequest] = scoped(trace);
      return { gateways: [Gateway as Type], providers: [OfRequest as Type] };
    },
    client: async (clients) => {
      const client = await clients.connect();
      await clients.quiet();
      client.send('go', 1);
      await client.next();
      client.send('fail');
      await client.next();
      client.send('go', 2);
      await client.next();
      await client.close(1000);
    },
  },
  {
    name: 'a broadcast with server.clients',
    server: (trace) => {
      let server: WsServer | undefined;
      return program(
        '',
        {
          init: (made) => {
            server = made;
          },
          on: {
            all: () => {
              sendToAll(server as WsServer, 'to all');
              return { event: 'answer' };
            },
          },
        },
        async () => {},
      ).server(trace);
    },
    client: async (clients) => {
      const one = await clients.connect('/', { label: 'one: ' });
      const other = await clients.connect('/', { label: 'other: ' });
      one.send('all');
      await one.next(2);
      await other.next(1);
      await one.close(1000);
      other.send('all');
      await other.next(2);
      await other.close(1000);
    },
  },
  {
    name: 'a broadcast with bytes, callbacks, and one client that has just gone',
    server: (trace) => {
      let server: WsServer | undefined;
      return program(
        '',
        {
          init: (made) => {
            server = made;
          },
          on: {
            all: (client) => {
              trace.note('clients', server?.clients.size);
              for (const other of server?.clients ?? [])
                other.send(Buffer.from('bytes'), trace.callback('bytes'));
              client.terminate();
              for (const other of server?.clients ?? []) other.send('text', trace.callback('text'));
            },
          },
        },
        async () => {},
      ).server(trace);
    },
    client: async (clients) => {
      const one = await clients.connect('/', { label: 'one: ' });
      const other = await clients.connect('/', { label: 'other: ' });
      one.send('all');
      await one.closed();
      await other.next(2);
      await other.close(1000);
    },
  },
  program(
    'clients that are kept in a list, and sent to after they have left',
    {
      connection: (client) => {
        kept.push(client);
        client.send('welcome');
      },
      disconnect: (_client, trace) => {
        for (const client of kept) client.send('somebody left', trace.callback('left'));
        trace.note('open', kept.filter(({ readyState }) => readyState === 1).length);
      },
    },
    async (clients) => {
      const one = await clients.connect();
      await one.next();
      await one.close(1000);
    },
  ),
  programOf(
    'a handler of each gateway for the same message, which changes it',
    [
      {
        label: 'one: ',
        on: {
          go: (_client, data: { n: number }) => {
            data.n++;
            return { event: 'one', data };
          },
        },
      },
      {
        label: 'other: ',
        on: {
          go: (_client, data: { n: number }) => {
            data.n++;
            return { event: 'other', data };
          },
        },
      },
    ],
    async (clients) => {
      const client = await clients.connect();
      client.send('go', { n: 1 });
      await client.next(2);
      await client.close(1000);
    },
  ),
  programOf(
    'one of two gateways has a hook',
    [
      { label: 'one: ', connection: (client) => client.send('welcome'), on: { go: answer } },
      { label: 'other: ', disconnect: () => {}, on: { other: answer } },
    ],
    async (clients) => {
      const client = await clients.connect();
      await client.next();
      client.send('go', 1);
      client.send('other', 2);
      await client.next(2);
      await client.close(1000);
    },
  ),
  program(
    'the server of the gateway',
    {
      init: (server, trace) => {
        trace.note('server', server.constructor.name, server.clients.size, typeof server.handleUpgrade);
        trace.note('listeners', server.listenerCount('connection'), server.listenerCount('error'));
        const { maxPayload, perMessageDeflate, noServer } = server.options;
        trace.note('options', perMessageDeflate, noServer, maxPayload === undefined);
      },
      on: { go: answer },
    },
    async (clients) => {
      const client = await clients.connect();
      client.send('go', 1);
      await client.next();
      await client.close(1000);
    },
  ),
  program(
    'a gateway without handlers, and one without hooks',
    { connection: (client, trace) => trace.note('state', client.readyState) },
    async (clients) => {
      const client = await clients.connect();
      client.send('go', 1);
      await clients.quiet();
      await client.close(1000);
    },
  ),
  program('a client of a path that no gateway has', { on: { go: answer } }, async (clients) => {
    await clients.connect('/elsewhere');
  }),
  program(
    'a client that speaks no WebSocket',
    { connection: () => {}, on: { go: answer } },
    async (clients) => {
      const raw = await clients.connectRaw('/', [Buffer.from('no frame at all, but text')]);
      await raw.closed();
    },
  ),
];

const kept: WebSocket[] = [];
