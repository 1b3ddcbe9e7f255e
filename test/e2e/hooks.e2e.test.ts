import { setTimeout as sleep } from 'node:timers/promises';
import { runInNewContext } from 'node:vm';
import { type ArgumentsHost, Catch, Inject, Injectable, Scope, UseFilters } from '@nestjs/common';
import { BaseWsExceptionFilter, MessageBody, SubscribeMessage, WebSocketGateway } from '@nestjs/websockets';
import { Registry } from 'prom-client';
import { throwError } from 'rxjs';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import type { WebSocket } from 'ws';
import { EchoGateway, type RunningApp, startApp } from '../support/app.js';
import { type Client, connect } from '../support/client.js';
import { watchForFatalErrors } from '../support/fatal-errors.js';
import { handshake, messageFrame, RawSocket } from '../support/raw-socket.js';

/** The ways in which an application's code fails. */
const FAILURES: [string, () => unknown][] = [
  [
    'throws',
    () => {
      throw new Error('thrown');
    },
  ],
  ['rejects', () => Promise.reject(new Error('rejected'))],
  ['rejects later', () => sleep(30).then(() => Promise.reject(new Error('rejected')))],
  ['rejects with nothing', () => Promise.reject()],
  ["rejects, with another realm's promise", () => runInNewContext("Promise.reject(new Error('rejected'))")],
];

const INTERNAL = { code: 1011, reason: 'internal' };

async function expectUnaffected(client: Client): Promise<void> {
  expect(await client.echo('unaffected')).toBe('unaffected');
}

beforeEach(() => {
  watchForFatalErrors();
});

/** An application in which bob's hooks fail, and alice's do not. */
async function startFailing(fail: (hook: string, client: WebSocket) => unknown) {
  const users = new WeakMap<object, string | null>();
  const heard: unknown[] = [];
  @WebSocketGateway({ path: '/ws' })
  class Gateway {
    handleConnection(client: WebSocket, request: { url: string }): unknown {
      users.set(client, new URL(request.url, 'ws://x').searchParams.get('userId'));
      return this.failFor('handleConnection', client);
    }
    handleDisconnect(client: WebSocket): unknown {
      return this.failFor('handleDisconnect', client);
    }
    @SubscribeMessage('echo')
    echo(@MessageBody() data: unknown): unknown {
      heard.push(data);
      return { event: 'echo', data };
    }
    private failFor(hook: string, client: WebSocket): unknown {
      return users.get(client) === 'bob' ? fail(hook, client) : undefined;
    }
  }
  const running = await startApp({ gateways: [Gateway] });
  const alice = await connect(`${running.url}/ws?userId=alice`);
  return { ...running, alice, heard };
}

const hooksOf = ({ of }: Pick<RunningApp, 'of'>) => of('hook_failed').map(({ hook }) => hook);

describe.each(FAILURES)('a hook that %s', (_title, fail) => {
  it('handleConnection: closes its own client with 1011, whose messages nobody sees', async () => {
    const running = await startFailing((hook) => (hook === 'handleConnection' ? fail() : undefined));
    const raw = await RawSocket.open(running.port);
    raw.write(handshake('/ws?userId=bob'), messageFrame('echo', 'from bob'));
    expect((await raw.answer()).status).toBe(101);
    expect(JSON.parse(String(await raw.frame()))).toEqual({
      event: 'ws:closing',
      data: { ...INTERNAL, retryable: true },
    });
    expect(await raw.frame()).toBe(1011);
    expect(running.service.managersOf('bob')).toEqual([]);
    expect(hooksOf(running)).toEqual(['handleConnection']);
    await expectUnaffected(running.alice);
    expect(running.heard).toEqual(['unaffected']);
  });

  it('handleDisconnect: leaves no slot taken', async () => {
    const running = await startFailing((hook) => (hook === 'handleDisconnect' ? fail() : undefined));
    const bob = await connect(`${running.url}/ws?userId=bob`);
    expect(await bob.leave()).toEqual({ code: 1000, reason: '' });
    await vi.waitFor(() => expect(hooksOf(running)).toEqual(['handleDisconnect']));
    expect(running.service.managersOf('bob')).toEqual([]);
    await expectUnaffected(running.alice);
  });

  it('a listener of its own on the socket: closes its client with 1011', async () => {
    const running = await startFailing((hook, client) => {
      if (hook === 'handleConnection') client.on('message', fail);
    });
    const bob = await connect(`${running.url}/ws?userId=bob`);
    bob.webSocket.send('{"event":"unknown"}');
    expect(await bob.closed()).toEqual(INTERNAL);
    expect(hooksOf(running)).toEqual(["listener of 'message'"]);
    await expectUnaffected(running.alice);
  });

  it("a listener for the socket's close: is reported, and that is all", async () => {
    const running = await startFailing((hook, client) => {
      if (hook === 'handleConnection') client.on('close', fail);
    });
    const bob = await connect(`${running.url}/ws?userId=bob`);
    await bob.leave();
    await vi.waitFor(() => expect(hooksOf(running)).toEqual(["listener of 'close'"]));
    expect(running.service.managersOf('bob')).toEqual([]);
    await expectUnaffected(running.alice);
  });

  it('a message handler: keeps its client, whose next message is heard', async () => {
    @WebSocketGateway({ path: '/ws' })
    @UseFilters(new BaseWsExceptionFilter())
    class Gateway extends EchoGateway {
      @SubscribeMessage('fail')
      fail(): unknown {
        return fail();
      }
      @SubscribeMessage('stream')
      stream(): unknown {
        return throwError(() => new Error('in the stream'));
      }
    }
    const running = await startApp({ gateways: [Gateway] });
    const bob = await connect(`${running.url}/ws?userId=bob`);
    bob.send('fail');
    bob.send('stream');
    await sleep(60);
    bob.send('echo', 'again');
    await vi.waitFor(() => expect(bob.received.at(-1)).toEqual({ event: 'echo', data: 'again' }));
    const [manager] = running.service.managersOf('bob');
    expect(manager?.isBusy).toBe(false);
  });

  it('manager.onClose: costs nobody the slot, the goodbye or the other hooks', async () => {
    const running = await startApp({ options: { cleanup: { hookTimeoutMs: 200 } } });
    const bob = await connect(`${running.url}/ws?userId=bob`);
    const [manager] = running.service.managersOf('bob');
    const told: unknown[] = [];
    manager?.onClose(fail);
    manager?.onClose((reason) => told.push(reason));
    expect(running.service.disconnectUser('bob')).toBe(1);
    expect(running.service.managersOf('bob')).toEqual([]);
    expect(await bob.closed()).toEqual({ code: 4520, reason: 'terminated_by_admin' });
    expect(told).toEqual(['terminated_by_admin']);
    await vi.waitFor(() => expect(hooksOf(running)).toEqual(['manager.onClose']));
  });

  it('a listener of events$: hears what comes next, and so do the others', async () => {
    const { service, url } = await startApp();
    const other: string[] = [];
    let failed = 0;
    // No `vi.fn`: it would look after the promise itself.
    const failing = () => {
      failed++;
      return fail();
    };
    service.events$.subscribe(failing);
    service.events$.subscribe({ next: failing });
    service.events$.subscribe(({ type }) => other.push(type));
    await connect(`${url}/ws?userId=alice`);
    await connect(`${url}/ws?userId=bob`);
    const both = ['admitted', 'attached', 'admitted', 'attached'];
    await vi.waitFor(() => expect(other).toEqual(both));
    expect(failed).toBe(8);
    await sleep(50);
  });
});

describe('the metric of failed hooks', () => {
  it('counts each by its name; those on a socket have one, whatever the application calls its events', async () => {
    @WebSocketGateway({ path: '/ws' })
    class Gateway {
      handleConnection(client: WebSocket, { url = '' }: { url?: string }): void {
        const fail = () => {
          throw new Error('thrown');
        };
        if (url.includes('userId=connecting')) fail();
        client.on('message', (data) => client.emit(`event of ${data}`));
        for (const name of ['carol', 'dave']) client.on(`event of ${name}`, fail);
      }
      handleDisconnect(): Promise<void> {
        return Promise.reject(new Error('rejected'));
      }
    }
    const registry = new Registry();
    const { url, service } = await startApp({ gateways: [Gateway], extras: { metrics: { registry } } });
    const counted = async () => {
      const { values } = await (registry.getSingleMetric('websocket_manager_hook_failures_total')?.get() ??
        Promise.reject(new Error('no such metric')));
      return Object.fromEntries(values.map(({ labels, value }) => [labels.hook, value]));
    };
    expect(await counted()).toEqual({});

    await (await connect(`${url}/ws?userId=connecting`)).closed();
    for (const name of ['carol', 'dave']) {
      const client = await connect(`${url}/ws?userId=alice`);
      client.webSocket.send(name);
      expect(await client.closed()).toEqual(INTERNAL);
    }
    await (await connect(`${url}/ws?userId=alice`)).leave();
    service.events$.subscribe(({ type }) => {
      if (type === 'admitted') throw new Error('thrown');
    });
    await connect(`${url}/ws?userId=bob`);
    await vi.waitFor(async () =>
      expect(await counted()).toEqual({ handleConnection: 1, listener: 2, handleDisconnect: 4, events$: 1 }),
    );
  });
});

describe('hooks of the connection', () => {
  it('while an asynchronous one runs, no handler does, and nothing is lost or overtaken', async () => {
    const told: unknown[] = [];
    @WebSocketGateway({ path: '/ws' })
    class Gateway {
      async handleConnection(): Promise<void> {
        await sleep(200);
        told.push('connected');
      }
      @SubscribeMessage('echo')
      echo(@MessageBody() data: unknown): unknown {
        told.push(data);
        return { event: 'echo', data };
      }
    }
    const { url } = await startApp({ gateways: [Gateway] });
    const client = await connect(`${url}/ws?userId=alice`);
    for (let i = 0; i < 3; i++) {
      client.send('echo', i);
      await sleep(20);
    }
    expect(told).toEqual([]);
    expect([(await client.next()).data, (await client.next()).data, (await client.next()).data]).toEqual([
      0, 1, 2,
    ]);
    expect(told).toEqual(['connected', 0, 1, 2]);
  });

  it.each([
    ['goes well', true, ['connected', 0, 1, 'disconnected']],
    ['fails', false, ['connected', 'disconnected']],
  ])(
    'what a client said before it left is heard, and then the close, if one %s',
    async (_, isWell, expected) => {
      const told: unknown[] = [];
      @WebSocketGateway({ path: '/ws' })
      class Gateway {
        async handleConnection(): Promise<void> {
          await sleep(200);
          told.push('connected');
          if (!isWell) throw new Error('thrown');
        }
        handleDisconnect(): void {
          told.push('disconnected');
        }
        @SubscribeMessage('echo')
        echo(@MessageBody() data: unknown): void {
          told.push(data);
        }
      }
      const { url, service } = await startApp({ gateways: [Gateway] });
      const client = await connect(`${url}/ws?userId=alice`);
      client.send('echo', 0);
      client.send('echo', 1);
      await client.leave();
      // The place is free at once.
      expect([service.managersOf('alice'), told]).toEqual([[], []]);
      await vi.waitFor(() => expect(told).toEqual(expected));
      await sleep(50);
      expect(told).toEqual(expected);
    },
  );

  it('get the close code and the reason, whoever closed', async () => {
    const told: unknown[] = [];
    @WebSocketGateway({ path: '/ws' })
    class Gateway {
      handleDisconnect(_client: unknown, code: number, reason: string): void {
        told.push([code, reason]);
      }
    }
    const { url, service } = await startApp({ gateways: [Gateway] });
    await (await connect(`${url}/ws?userId=alice`)).leave(4321, 'had enough');
    await vi.waitFor(() => expect(told).toEqual([[4321, 'had enough']]));
    const torn = await connect(`${url}/ws?userId=alice`);
    torn.webSocket.terminate();
    await vi.waitFor(() => expect(told.slice(1)).toEqual([[1006, '']]));
    const ended = await connect(`${url}/ws?userId=alice`);
    service.disconnectUser('alice');
    await ended.closed();
    await vi.waitFor(() => expect(told.slice(2)).toEqual([[4520, 'terminated_by_admin']]));
  });

  it('are still the methods that they were: named, and free to be spied on', async () => {
    @WebSocketGateway({ path: '/ws' })
    class Gateway {
      handleConnection(): void {}
      handleDisconnect(): void {}
    }
    await startApp({ gateways: [Gateway] });
    const guarded = Gateway.prototype.handleConnection;
    // A second application of the process finds the same prototype, and what is guarded already stays so.
    await startApp({ gateways: [Gateway] });
    expect(Gateway.prototype.handleConnection).toBe(guarded);
    expect(guarded.name).toBe('handleConnection');
    const hook = Object.getOwnPropertyDescriptor(Gateway.prototype, 'handleDisconnect');
    expect(hook).toMatchObject({ writable: true, configurable: true });
  });

  it('keep the filters that decorators put on them', async () => {
    const caught: unknown[] = [];
    @Injectable({ scope: Scope.REQUEST })
    class Tenant {
      constructor() {
        throw new Error('no such tenant');
      }
    }
    @Catch()
    class Filter {
      catch(error: Error, host: ArgumentsHost): void {
        caught.push(error.message);
        host.switchToWs().getClient<WebSocket>().close(4999);
      }
    }
    @WebSocketGateway({ path: '/ws' })
    class Gateway {
      constructor(@Inject(Tenant) readonly tenant: Tenant) {}
      @UseFilters(new Filter())
      handleConnection(): void {}
      @UseFilters(new Filter())
      handleDisconnect(): void {}
    }
    const { url } = await startApp({ gateways: [Gateway], providers: [Tenant] });
    const client = await connect(`${url}/ws?userId=alice`);
    expect((await client.closed()).code).toBe(4999);
    await vi.waitFor(() => expect(caught).toEqual(['no such tenant', 'no such tenant']));
  });

  it('that a gateway made anew for each client does not have, and whose parts fail, end nothing', async () => {
    @Injectable({ scope: Scope.REQUEST })
    class Tenant {
      constructor() {
        throw new Error('no such tenant');
      }
    }
    @WebSocketGateway({ path: '/ws' })
    class Gateway extends EchoGateway {
      constructor(@Inject(Tenant) readonly tenant: Tenant) {
        super();
      }
    }
    const { url, service } = await startApp({ gateways: [Gateway], providers: [Tenant] });
    const client = await connect(`${url}/ws?userId=alice`);
    await client.leave();
    await vi.waitFor(() => expect(service.managersOf('alice')).toEqual([]));
  });
});
