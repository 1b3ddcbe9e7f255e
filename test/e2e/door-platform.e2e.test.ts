import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { Inject, Injectable, Scope, type Type } from '@nestjs/common';
import { WsAdapter } from '@nestjs/platform-ws';
import { AbstractWsAdapter, MessageBody, SubscribeMessage, WebSocketGateway } from '@nestjs/websockets';
import { describe, expect, it, vi } from 'vitest';
import { WebSocketServer } from 'ws';
import { EchoGateway, startApp } from '../support/app.js';
import { connect, refusal } from '../support/client.js';
import { handshake, RawSocket } from '../support/raw-socket.js';

/** A port that was free a moment ago: a gateway's own port is in its decorator, where 0 means the application's. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0);
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

function echoOn(options: object, port = 0): Type {
  class Gateway extends EchoGateway {}
  WebSocketGateway(port, options)(Gateway);
  return Gateway;
}

const ONE_EACH = { options: { limits: { managersPerUser: 1 } } };

describe('another upgrade listener on the same HTTP server', () => {
  it.each(['before', 'after'])('keeps its path, and we ours, set up %s the gateways', async (when) => {
    const others = new WebSocketServer({ noServer: true });
    others.on('connection', (socket) => socket.send('{"event":"other"}'));
    const listen = (server: import('node:http').Server) =>
      server.on('upgrade', (request, socket, head) => {
        if (!request.url?.startsWith('/other')) return;
        others.handleUpgrade(request, socket, head, (webSocket) => others.emit('connection', webSocket));
      });
    const running = await startApp({
      ...ONE_EACH,
      options: { ...ONE_EACH.options, admission: { authenticateTimeoutMs: 200 } },
      configure: (app) => when === 'before' && listen(app.getHttpServer()),
    });
    if (when === 'after') listen(running.app.getHttpServer());
    const other = await connect(`${running.url}/other`);
    expect(await other.next()).toEqual({ event: 'other' });
    const ours = await connect(`${running.url}/ws?userId=alice`);
    expect(await ours.echo('ours')).toBe('ours');
    expect((await refusal(`${running.url}/ws?userId=alice`)).status).toBe(429);
    // What neither of us wants does not stay open.
    const nobodys = await RawSocket.open(running.port);
    nobodys.write(handshake('/nowhere'));
    await nobodys.end();
    await sleep(250);
    expect(other.isOpen).toBe(true);
    for (const socket of others.clients) socket.terminate();
  });
});

describe('gateways wherever they are', () => {
  it.each([
    ['a path', { path: '/own' }, '/own'],
    ['no path', {}, '/whatever'],
  ])('on a port of their own with %s are guarded', async (_title, options, path) => {
    const port = await freePort();
    const gateway = echoOn(options, port);
    const running = await startApp({ ...ONE_EACH, gateways: [gateway] });
    const url = `ws://127.0.0.1:${port}${path}`;
    const client = await connect(`${url}?userId=alice`);
    expect(await client.echo(1)).toBe(1);
    expect((await refusal(`${url}?userId=alice`)).status).toBe(429);
    expect((await refusal(url)).status).toBe(401);
    if (path === '/own') expect((await refusal(`ws://127.0.0.1:${port}/else`)).status).toBe(404);
    expect(running.service.managersOf('alice')).toHaveLength(1);
    await running.close();
    expect((await client.closed()).code).toBe(1012);
  });

  it('on several paths share one count of a user', async () => {
    const running = await startApp({ ...ONE_EACH, gateways: [EchoGateway, echoOn({ path: '/b' })] });
    const client = await connect(`${running.url}/b?userId=alice`);
    expect(await client.echo('b')).toBe('b');
    expect((await refusal(`${running.url}/ws?userId=alice`)).status).toBe(429);
  });

  it('that share a path count a socket once, and have each of their hooks called once', async () => {
    const called: string[] = [];
    const gateway = (name: string) => {
      @WebSocketGateway({ path: '/ws' })
      class Gateway {
        handleConnection(): void {
          called.push(`${name} connected`);
        }
        handleDisconnect(): void {
          called.push(`${name} disconnected`);
        }
        answer(data: unknown): unknown {
          called.push(`${name} heard`);
          return { event: name, data };
        }
      }
      const { prototype } = Gateway;
      const method = Object.getOwnPropertyDescriptor(prototype, 'answer') as PropertyDescriptor;
      SubscribeMessage(name)(prototype, 'answer', method);
      MessageBody()(prototype, 'answer', 0);
      return Gateway;
    };
    const running = await startApp({ gateways: [gateway('a'), gateway('b')] });
    const clients = [
      await connect(`${running.url}/ws?userId=alice`),
      await connect(`${running.url}/ws?userId=alice`),
    ];
    for (const client of clients) {
      client.send('a', 1);
      client.send('b', 2);
      expect([await client.next(), await client.next()]).toEqual([
        { event: 'a', data: 1 },
        { event: 'b', data: 2 },
      ]);
    }
    expect(running.service.managersOf('alice')).toHaveLength(2);
    expect(running.of('attached')).toHaveLength(2);
    for (const client of clients) await client.leave();
    await vi.waitFor(() => expect(called).toHaveLength(12));
    const twice = ['connected', 'disconnected', 'heard'].flatMap((what) => [`a ${what}`, `b ${what}`]);
    expect(called.toSorted()).toEqual([...twice, ...twice].toSorted());
  });

  it('made anew for each client are guarded too, and hear nothing before their connection hook is done', async () => {
    const { gateway, providers, told } = perClient();
    const running = await startApp({ ...ONE_EACH, gateways: [gateway], providers });
    const client = await connect(`${running.url}/ws?userId=alice`);
    expect(await client.echo('x')).toBe('x');
    expect(told).toEqual(['connected number', 'heard']);
  });

  it('made anew for each client are counted, and told how it ended', async () => {
    const { gateway, providers, told } = perClient();
    const running = await startApp({ ...ONE_EACH, gateways: [gateway], providers });
    const client = await connect(`${running.url}/ws?userId=alice`);
    await vi.waitFor(() => expect(told).toEqual(['connected number']));
    expect((await refusal(`${running.url}/ws?userId=alice`)).status).toBe(429);
    await client.leave(4000);
    await vi.waitFor(() => expect(told).toEqual(['connected number', 'disconnected 4000']));
    expect(running.service.managersOf('alice')).toEqual([]);
  });
});

/** A request-scoped gateway, and what its clients made it say. */
function perClient() {
  const told: string[] = [];
  @Injectable({ scope: Scope.REQUEST })
  class PerClient {
    readonly id = Math.random();
  }
  @WebSocketGateway({ path: '/ws' })
  class Gateway {
    constructor(@Inject(PerClient) private readonly mine: PerClient) {}
    async handleConnection(): Promise<void> {
      await sleep(50);
      told.push(`connected ${typeof this.mine.id}`);
    }
    handleDisconnect(_client: unknown, code: number): void {
      told.push(`disconnected ${code}`);
    }
    @SubscribeMessage('echo')
    echo(@MessageBody() data: unknown): unknown {
      told.push('heard');
      return { event: 'echo', data };
    }
  }
  return { gateway: Gateway, providers: [PerClient], told };
}

describe('an adapter of the application', () => {
  it('that comes when the gateways have their servers leaves them what they have, as on the platform', async () => {
    const running = await startApp({
      ...ONE_EACH,
      configure: async (app) => {
        await app.init();
        app.useWebSocketAdapter(new WsAdapter(app));
      },
    });
    const client = await connect(`${running.url}/ws?userId=alice`);
    expect(await client.echo(1)).toBe(1);
    expect((await refusal(`${running.url}/ws?userId=alice`)).status).toBe(429);
    await running.close();
    expect((await client.closed()).code).toBe(1012);
  });

  it('may be the stock one', async () => {
    const running = await startApp({
      ...ONE_EACH,
      configure: (app) => app.useWebSocketAdapter(new WsAdapter(app)),
    });
    const client = await connect(`${running.url}/ws?userId=alice`);
    expect(await client.echo(1)).toBe(1);
    expect((await refusal(`${running.url}/ws?userId=alice`)).status).toBe(429);
    await running.close();
    expect((await client.closed()).code).toBe(1012);
  });

  it.each(['option', 'setter', 'override'])('may bring a message parser of its own, by %s', async (how) => {
    const parser = (data: unknown) => {
      const [event, body] = String(data).split(' ');
      return { event: event as string, data: body };
    };
    const created: unknown[] = [];
    class SpaceAdapter extends WsAdapter {
      override create(port: number, options?: Record<string, unknown>): unknown {
        created.push(options?.path);
        if (how === 'override') this.setMessageParser(parser as never);
        return super.create(port, options as never);
      }
    }
    const running = await startApp({
      ...ONE_EACH,
      configure: (app) => {
        const options = how === 'option' ? { messageParser: parser as never } : undefined;
        const adapter = new SpaceAdapter(app, options);
        if (how === 'setter') adapter.setMessageParser(parser as never);
        app.useWebSocketAdapter(adapter);
      },
    });
    const client = await connect(`${running.url}/ws?userId=alice`);
    client.webSocket.send('echo hello');
    expect(await client.next()).toEqual({ event: 'echo', data: 'hello' });
    expect(created).toEqual(['/ws']);
    expect((await refusal(`${running.url}/ws?userId=alice`)).status).toBe(429);
  });

  it('of another kind is refused in words, before anything listens', async () => {
    class IoAdapter extends AbstractWsAdapter {
      create(): unknown {
        return {};
      }
      bindMessageHandlers(): void {}
    }
    const starting = startApp({ configure: (app) => app.useWebSocketAdapter(new IoAdapter(app) as never) });
    await expect(starting).rejects.toThrow(/useWebSocketAdapter: got IoAdapter; allowed: WsAdapter/);
  });
});

describe('messages that are too large close their connection with 1009', () => {
  it('by the limit of the module, or of the gateway where it has one', async () => {
    const running = await startApp({
      gateways: [EchoGateway, echoOn({ path: '/larger', maxPayload: 5_000 })],
      options: { limits: { maxPayloadBytes: 1_000 } },
    });
    const client = await connect(`${running.url}/ws?userId=alice`);
    expect(await client.echo('x'.repeat(900))).toHaveLength(900);
    client.send('echo', 'x'.repeat(1_000));
    expect((await client.closed()).code).toBe(1009);
    const larger = await connect(`${running.url}/larger?userId=alice`);
    expect(await larger.echo('x'.repeat(4_000))).toHaveLength(4_000);
    larger.send('echo', 'x'.repeat(5_000));
    expect((await larger.closed()).code).toBe(1009);
    await vi.waitFor(() => expect(running.service.managersOf('alice')).toEqual([]));
  });

  it('measured after inflation, where messages are compressed', async () => {
    const running = await startApp({
      gateways: [echoOn({ path: '/deflate', perMessageDeflate: { threshold: 0 } })],
      options: { limits: { maxPayloadBytes: 100_000 } },
    });
    const options = { perMessageDeflate: { threshold: 0 } };
    const client = await connect(`${running.url}/deflate?userId=alice`, options);
    expect(client.webSocket.extensions).toContain('permessage-deflate');
    expect(await client.echo('x'.repeat(90_000))).toHaveLength(90_000);
    client.send('echo', 'x'.repeat(10_000_000));
    expect((await client.closed()).code).toBe(1009);
    const next = await connect(`${running.url}/deflate?userId=alice`, options);
    expect(await next.echo('still up')).toBe('still up');
  });
});
