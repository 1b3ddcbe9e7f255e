import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type INestApplication, Logger, type Type } from '@nestjs/common';
import { WsAdapter } from '@nestjs/platform-ws';
import { MessageBody, SubscribeMessage, WebSocketGateway } from '@nestjs/websockets';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { WebSocketServer } from 'ws';
import { EchoGateway, startApp } from '../support/app.js';
import { connect, refusal } from '../support/client.js';

const ONE_EACH = { limits: { managersPerUser: 1 } };

/** A gateway that answers `event` alone. */
function gatewayFor(event: string, port: number, options: object): Type {
  class Gateway {
    answer(data: unknown): unknown {
      return { event, data };
    }
  }
  const method = Object.getOwnPropertyDescriptor(Gateway.prototype, 'answer') as PropertyDescriptor;
  SubscribeMessage(event)(Gateway.prototype, 'answer', method);
  MessageBody()(Gateway.prototype, 'answer', 0);
  WebSocketGateway(port, options)(Gateway);
  return Gateway;
}

/** A server of the application's own, listening on a free port of the loopback. */
async function ownServer(): Promise<{ http: Server; server: WebSocketServer; url: string }> {
  const http = createServer();
  const server = new WebSocketServer({ server: http });
  await new Promise<void>((resolve) => void http.listen(0, '127.0.0.1', resolve));
  onTestFinished(async () => {
    for (const client of server.clients) client.terminate();
    await new Promise((resolve) => void http.close(resolve));
  });
  return { http, server, url: `ws://127.0.0.1:${(http.address() as AddressInfo).port}` };
}

/** An adapter that has every gateway served by the application's own server. */
const setServer = (server: WebSocketServer) => (app: INestApplication) => {
  class OwnServerAdapter extends WsAdapter {
    override create(port: number, options?: Record<string, unknown>): unknown {
      return super.create(port, { ...options, server } as never);
    }
    /** It is the application's, which closes it. */
    override async close(): Promise<void> {}
  }
  app.useWebSocketAdapter(new OwnServerAdapter(app));
};

describe('one ws server for two gateways', () => {
  it('is guarded once where an adapter returns it twice', async () => {
    const created: unknown[] = [];
    class SharingAdapter extends WsAdapter {
      private shared: unknown;
      override create(port: number, options?: Record<string, unknown>): unknown {
        created.push(options?.path);
        this.shared ??= super.create(port, options as never);
        return this.shared;
      }
    }
    const running = await startApp({
      options: ONE_EACH,
      gateways: [EchoGateway, gatewayFor('other', 0, { path: '/other' })],
      configure: (app) => app.useWebSocketAdapter(new SharingAdapter(app)),
    });
    expect(created.toSorted()).toEqual(['/other', '/ws']);
    const url = `${running.url}${created[0]}?userId=alice`;
    const client = await connect(url);
    for (const data of ['first', 'second']) expect(await client.echo(data)).toBe(data);
    client.send('other', 1);
    expect(await client.next()).toEqual({ event: 'other', data: 1 });
    expect(running.service.managersOf('alice').map(({ connections }) => connections.length)).toEqual([1]);
    expect(running.of('attached')).toHaveLength(1);
    expect((await refusal(url)).status).toBe(429);
    await running.close();
    expect((await client.closed()).code).toBe(1012);
    expect(running.of('hook_failed')).toEqual([]);
  });

  it('is guarded once where two ports have it, and keeps the listeners of the application', async () => {
    const { server, url } = await ownServer();
    let seen = 0;
    server.on('connection', () => seen++);
    const gateways = ['a', 'b'].map((event, index) => gatewayFor(event, 40_001 + index, {}));
    const running = await startApp({ options: ONE_EACH, gateways, configure: setServer(server) });
    const client = await connect(`${url}/?userId=alice`);
    for (const event of ['a', 'b']) {
      client.send(event, 1);
      expect(await client.next()).toEqual({ event, data: 1 });
    }
    expect(seen).toBe(1);
    expect(running.service.managersOf('alice')).toHaveLength(1);
    expect((await refusal(`${url}/?userId=alice`)).status).toBe(429);
    await running.close();
    expect((await client.closed()).code).toBe(1012);
  });

  it('made with the options of a guarded one is guarded too, and sends each message once', async () => {
    class CopyingAdapter extends WsAdapter {
      private first: { options: object } | undefined;
      override create(port: number, options?: Record<string, unknown>): unknown {
        const server = super.create(port, { ...this.first?.options, ...options } as never);
        this.first ??= server as { options: object };
        return server;
      }
    }
    const running = await startApp({
      options: ONE_EACH,
      gateways: ['a', 'b'].map((event) => gatewayFor(event, 0, { path: `/${event}` })),
      configure: (app) => app.useWebSocketAdapter(new CopyingAdapter(app)),
    });
    const urlOf = (event: string) => `${running.url}/${event}?userId=${event}`;
    for (const event of ['a', 'b']) {
      const client = await connect(urlOf(event));
      for (const data of [1, 2]) {
        client.send(event, data);
        expect(await client.next()).toEqual({ event, data });
      }
      expect(client.received).toHaveLength(2);
      expect((await refusal(urlOf(event))).status).toBe(429);
    }
    expect(running.of('hook_failed')).toEqual([]);
  });
});

describe('one ws server for two applications of a process', () => {
  it('is guarded by the first; the second says so, and its gateways have the same sockets', async () => {
    const { server, url } = await ownServer();
    const configure = setServer(server);
    const first = await startApp({ options: ONE_EACH, gateways: [gatewayFor('a', 40_003, {})], configure });
    const warn = vi.spyOn(Logger.prototype, 'warn').mockImplementation(() => {});
    const second = await startApp({ gateways: [gatewayFor('b', 40_004, {})], configure });
    expect(warn.mock.calls).toEqual([[expect.stringMatching(/shared with another application/)]]);
    warn.mockRestore();
    const client = await connect(`${url}/?userId=alice`);
    for (const event of ['a', 'b']) {
      client.send(event, 1);
      expect(await client.next()).toEqual({ event, data: 1 });
    }
    expect(client.received).toHaveLength(2);
    expect([first, second].map(({ service }) => service.managersOf('alice').length)).toEqual([1, 0]);
    expect((await refusal(`${url}/?userId=alice`)).status).toBe(429);
    await first.close();
    expect((await client.closed()).code).toBe(1012);
    // The first keeps guarding it.
    expect(await refusal(`${url}/?userId=alice`)).toMatchObject({
      status: 503,
      body: { reason: 'draining' },
    });
    await second.close();
  });
});
