import 'reflect-metadata';
import type { IncomingMessage } from 'node:http';
import { createRequire } from 'node:module';
import type { AddressInfo } from 'node:net';
import { type INestApplication, Logger, type Type } from '@nestjs/common';
import { WsAdapter } from '@nestjs/platform-ws';
import { Test } from '@nestjs/testing';
import { MessageBody, SubscribeMessage, WebSocketGateway, WebSocketServer } from '@nestjs/websockets';
import type { WebSocket } from 'ws';

const require = createRequire(import.meta.url);

/** The built package, loaded by Node itself as an application loads it. */
export const built = require('../../../dist/index.js') as typeof import('../../../src/index.js');

/** The copy of `ws` that platform-ws brings: both sides make their sockets with it. */
export const platformWs = createRequire(require.resolve('@nestjs/platform-ws'))(
  'ws',
) as typeof import('ws') & {
  readonly Receiver: new () => object;
};

/** Of all gateways here: large enough for each length of the length field, small enough to be exceeded. */
export const MAX_PAYLOAD = 70_000;

/** A socket as an application sees it. */
export type ServerSocket = WebSocket;

export type Arrival = (socket: ServerSocket, request: IncomingMessage) => unknown;

/** The gateways' options by path. Both sides have the same. */
const GATEWAYS: Readonly<Record<string, object>> = {
  '/plain': {},
  '/deflate': { perMessageDeflate: { threshold: 0 } },
  '/deflate-strict': {
    perMessageDeflate: {
      threshold: 0,
      serverNoContextTakeover: true,
      clientNoContextTakeover: true,
      serverMaxWindowBits: 10,
      clientMaxWindowBits: 10,
    },
  },
  '/defaults': { maxPayload: undefined, closeTimeout: undefined },
  '/protocols': {
    handleProtocols: (offered: Set<string>) => (offered.has('chat.v2') ? 'chat.v2' : false),
  },
};

export class Side {
  app!: INestApplication;
  port = 0;
  /** The `ws` servers of the gateways, by path. */
  readonly servers = new Map<string, InstanceType<typeof platformWs.WebSocketServer>>();
  private readonly arrivals = new Map<string, Arrival>();
  private readonly disconnects = new Map<string, (...args: unknown[]) => void>();

  constructor(readonly name: 'platform' | 'module') {}

  /** Calls back within `handleConnection` of the socket whose URL has `?id=` with this value. */
  expect(id: string, arrival: Arrival): void {
    this.arrivals.set(id, arrival);
  }

  /** Calls back within `handleDisconnect` of that socket. */
  onDisconnect(id: string, callback: (...args: unknown[]) => void): void {
    this.disconnects.set(id, callback);
  }

  async start(): Promise<this> {
    Logger.overrideLogger(false);
    const { WebSocketManagerModule } = built;
    const module = WebSocketManagerModule.forRoot({
      authenticate: (request) => ({ userId: idOf(request) ?? 'unnamed' }),
      // What this suite compares is the handshake of `ws`; the check of origins is a feature of the module.
      admission: { allowedOrigins: '*' },
      canary: { intervalMs: 0 },
      drain: { spreadMs: 0, timeoutMs: 1_000 },
      // No session here is silent for as long.
      heartbeat: { intervalMs: 600_000 },
      limits: { managersPerUser: 1_000, maxBufferedBytes: 64 * 1024 * 1024 },
    });
    const testing = await Test.createTestingModule({
      imports: this.name === 'module' ? [module] : [],
      providers: Object.entries(GATEWAYS).map(([path, options]) => this.gateway(path, options)),
    }).compile();
    this.app = testing.createNestApplication({ logger: false });
    if (this.name === 'platform') this.app.useWebSocketAdapter(new WsAdapter(this.app));
    await this.app.listen(0, '127.0.0.1');
    this.port = (this.app.getHttpServer().address() as AddressInfo).port;
    return this;
  }

  async stop(): Promise<void> {
    await this.app.close();
  }

  private gateway(path: string, options: object): Type {
    const side = this;
    class Gateway {
      @WebSocketServer()
      server!: InstanceType<typeof platformWs.WebSocketServer>;

      afterInit(server: InstanceType<typeof platformWs.WebSocketServer>): void {
        side.servers.set(path, server);
      }

      handleConnection(client: ServerSocket, request: IncomingMessage): unknown {
        const id = idOf(request) ?? '';
        const arrival = side.arrivals.get(id);
        side.arrivals.delete(id);
        ids.set(client, id);
        return arrival?.(client, request);
      }

      handleDisconnect(client: ServerSocket, ...args: unknown[]): void {
        const id = ids.get(client) ?? '';
        side.disconnects.get(id)?.(...args);
        side.disconnects.delete(id);
      }

      @SubscribeMessage('echo')
      echo(@MessageBody() data: unknown): unknown {
        return { event: 'echo', data };
      }
    }
    const given = Object.entries({ path, maxPayload: MAX_PAYLOAD, closeTimeout: 200, ...options });
    WebSocketGateway(Object.fromEntries(given.filter(([, value]) => value !== undefined)))(Gateway);
    return Gateway;
  }
}

const ids = new WeakMap<object, string>();

function idOf({ url = '/' }: IncomingMessage): string | undefined {
  return /[?&]id=([^&]+)/.exec(url)?.[1];
}

export interface Sides {
  readonly platform: Side;
  readonly module: Side;
}

/** Starts the same gateways under the plain WsAdapter and under the module. */
export async function startSides(): Promise<Sides> {
  const platform = await new Side('platform').start();
  const module = await new Side('module').start();
  return { platform, module };
}
