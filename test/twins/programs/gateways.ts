import { type INestApplication, Inject, Injectable, Scope, type Type } from '@nestjs/common';
import { REQUEST } from '@nestjs/core';
import { SubscribeMessage, WebSocketGateway } from '@nestjs/websockets';
import type { WebSocket } from 'ws';
import { clientFrame } from '../frames.js';
import {
  type GatewayParts,
  type Program,
  program,
  programOf,
  type Trace,
  type WsServer,
} from '../program.js';

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

/** The application is closed by a handler, with clients that are connected. */
function shuttingDown(): Program {
  return {
    name: 'the application is closed while clients are connected',
    server: (trace) => {
      let app: INestApplication | undefined;
      const parts: GatewayParts = {
        disconnect: () => {},
        on: {
          stop: (client) => {
            trace.watch(client, 'close');
            void app?.close().then(() => trace.note('closed'));
          },
        },
      };
      const configure = (created: INestApplication) => {
        app = created;
      };
      return { ...program('', parts, async () => {}).server(trace), configure };
    },
    client: async (clients) => {
      const client = await clients.connect();
      client.send('stop');
      await client.closed();
      await clients.quiet(40);
    },
    differs: {
      because: 'an orderly shutdown',
      module: {
        server: [
          'on stop undefined',
          'handleDisconnect 1012',
          'event close 1012 bytes 647261696e696e67',
          'closed',
        ],
        client: ['open', 'text {"event":"ws:closing... of 97', 'close 1012 draining'],
      },
    },
  };
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
    'listeners of the server',
    {
      init: (server, trace) => {
        trace.note('listeners', server.listenerCount('connection'), server.listenerCount('error'));
      },
    },
    async () => {},
    { differs: { because: 'fewer listeners', module: { server: ['afterInit', 'listeners 0 1'] } } },
  ),
  program(
    'the server of the gateway',
    {
      init: (server, trace) => {
        trace.note('server', server.constructor.name, server.clients.size, typeof server.handleUpgrade);
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
  program(
    'a client of a path that no gateway has',
    { on: { go: answer } },
    async (clients) => {
      await clients.connect('/elsewhere');
    },
    {
      differs: { because: 'a path without a gateway', module: { client: ['HTTP 404', 'close 1006 '] } },
    },
  ),
  program(
    'a message of 1.5 MB',
    { on: { size: (_client, data: string) => ({ event: 'answer', data: data.length }) } },
    async (clients) => {
      const client = await clients.connect();
      client.send('size', 'x'.repeat(1_500_000));
      await client.next();
      await client.close(1000);
    },
    {
      differs: { because: 'the size of a message', module: { server: [], client: ['open', 'close 1009 '] } },
    },
  ),
  program(
    'a client that breaks the protocol, and the log',
    { disconnect: () => {}, on: { go: answer } },
    async (clients) => {
      const raw = await clients.connectRaw();
      // A frame of a reserved kind.
      raw.write(clientFrame(3, 'no such frame'));
      await raw.closed();
    },
    {
      isAlone: true,
      differs: { because: 'errors of clients are not logged', module: { log: [] } },
    },
  ),
  shuttingDown(),
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
