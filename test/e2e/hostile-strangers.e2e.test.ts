import { type INestApplication, Injectable, Scope } from '@nestjs/common';
import { MessageBody, SubscribeMessage, WebSocketGateway } from '@nestjs/websockets';
import { describe, expect, it, vi } from 'vitest';
import { managerOf } from '../../src/index.js';
import { EchoGateway, startApp } from '../support/app.js';
import { connect } from '../support/client.js';
import { watchForFatalErrors } from '../support/fatal-errors.js';
import { handshake, RawSocket } from '../support/raw-socket.js';

const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

describe('an application', () => {
  it('may end everybody it hears of, from within the event', async () => {
    watchForFatalErrors();
    const { url, service, of } = await startApp();
    service.events$.subscribe((event) => {
      if (event.type === 'admitted') service.disconnectUser(event.userId);
    });
    const client = await connect(`${url}/ws?userId=alice`);
    expect((await client.closed()).code).toBe(4520);
    expect(of('admitted')).toHaveLength(1);
    expect(service.managersOf('alice')).toEqual([]);
  });

  it('is not ended by a reset on a path that nobody owns, beside another upgrade listener', async () => {
    watchForFatalErrors();
    const { port, url } = await startApp({
      configure: (app: INestApplication) => void app.getHttpServer().on('upgrade', () => {}),
    });
    for (let i = 0; i < 5; i++) {
      const raw = await RawSocket.open(port);
      raw.write(handshake('/nobody'));
      await sleep(20);
      raw.socket.resetAndDestroy();
    }
    await sleep(50);
    expect(await (await connect(`${url}/ws?userId=alice`)).echo('alive')).toBe('alive');
  });

  it('is waited for at a shutdown: hooks of sessions that are in use, and of those that were left', async () => {
    const finished: string[] = [];
    const { url, service, close } = await startApp({ options: { drain: { spreadMs: 0, timeoutMs: 3_000 } } });
    const left = await connect(`${url}/ws?userId=alice&sessionKey=left`);
    await connect(`${url}/ws?userId=alice&sessionKey=used`);
    for (const manager of service.managersOf('alice')) {
      manager.onClose(async () => {
        await sleep(300);
        finished.push(String(manager.sessionKey));
      });
    }
    await left.leave();
    await close();
    expect(finished.sort()).toEqual(['left', 'used']);
  });

  it('does not wait for clients that hang up while its connection hook is slow', async () => {
    @WebSocketGateway({ path: '/ws' })
    class SlowGateway {
      async handleConnection(): Promise<void> {
        await sleep(1_500);
      }
    }
    const { url, service } = await startApp({
      gateways: [SlowGateway],
      options: { limits: { managersPerUser: 3 } },
    });
    for (let i = 0; i < 3; i++) (await connect(`${url}/ws?userId=alice`)).webSocket.terminate();
    await vi.waitFor(() => expect(service.managersOf('alice')).toEqual([]), 1_000);
    await connect(`${url}/ws?userId=alice`);
  });

  it('gets more messages than can wait for a slow hook, all of them and in order', async () => {
    const seen: unknown[] = [];
    @WebSocketGateway({ path: '/ws' })
    class SlowGateway {
      async handleConnection(): Promise<void> {
        await sleep(200);
        seen.push('connected');
      }

      @SubscribeMessage('echo')
      echo(@MessageBody() data: unknown): unknown {
        seen.push(data);
        return { event: 'echo', data };
      }
    }
    const { url } = await startApp({ gateways: [SlowGateway] });
    const client = await connect(`${url}/ws?userId=alice`);
    for (let i = 0; i < 100; i++) client.send('echo', i);
    for (let i = 0; i < 100; i++) expect((await client.next()).data).toBe(i);
    expect(seen).toEqual(['connected', ...Array.from({ length: 100 }, (_, i) => i)]);
  });

  it('with a request-scoped gateway shares a process with another one, each with its own events', async () => {
    @Injectable({ scope: Scope.REQUEST })
    class Dependency {}
    @WebSocketGateway({ path: '/ws' })
    class ScopedGateway {
      constructor(readonly dependency: Dependency) {}

      async handleConnection(client: unknown): Promise<void> {
        if (managerOf(client)?.userId === 'mallory') throw new Error('not you');
      }

      @SubscribeMessage('echo')
      echo(@MessageBody() data: unknown): unknown {
        return { event: 'echo', data };
      }
    }
    const setup = { gateways: [ScopedGateway], providers: [Dependency] };
    const first = await startApp(setup);
    const second = await startApp(setup);
    const startedAt = performance.now();
    expect(await (await connect(`${second.url}/ws?userId=alice`)).echo('quick')).toBe('quick');
    expect(performance.now() - startedAt).toBeLessThan(2_000);
    expect((await (await connect(`${second.url}/ws?userId=mallory`)).closed()).code).toBe(1011);
    expect([first.of('hook_failed').length, second.of('hook_failed').length]).toEqual([0, 1]);
  });

  it('whose scoped gateway cannot be made for a client tells it nothing of the server', async () => {
    watchForFatalErrors();
    @Injectable({ scope: Scope.REQUEST })
    class Broken {
      constructor() {
        throw new Error('cannot be made');
      }
    }
    @WebSocketGateway({ path: '/scoped' })
    class ScopedGateway {
      constructor(readonly broken: Broken) {}

      @SubscribeMessage('echo')
      echo(): void {}
    }
    const { url, of } = await startApp({ gateways: [EchoGateway, ScopedGateway], providers: [Broken] });
    const client = await connect(`${url}/scoped?userId=alice`);
    expect((await client.closed()).code).toBe(1011);
    expect(client.received.map(({ event }) => event)).toEqual(['ws:closing']);
    expect(of('hook_failed').length).toBeGreaterThan(0);
  });

  it('that imports the module twice is told so', async () => {
    const { WebSocketManagerModule } = await import('../../src/index.js');
    const again = WebSocketManagerModule.forRoot({ authenticate: () => null });
    await expect(startApp({ imports: [again] })).rejects.toThrow(/forRoot: got a second call/);
  });
});
