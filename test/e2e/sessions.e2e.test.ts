import { setTimeout as sleep } from 'node:timers/promises';
import { MessageBody, SubscribeMessage, WebSocketGateway } from '@nestjs/websockets';
import { describe, expect, it, vi } from 'vitest';
import {
  CurrentManager,
  connectionOf,
  type Manager,
  ManagerLimitError,
  managerOf,
  NodeUnavailableError,
  WebSocketManagerFactory,
} from '../../src/index.js';
import { startApp } from '../support/app.js';
import { connect, refusal } from '../support/client.js';

/** Ticks of 25 ms, so that what is due is noticed soon. */
const heartbeat = { intervalMs: 1_000, probeTimeoutMs: 100 };

describe('a session key', () => {
  it('joins the manager that has it, and takes no second slot', async () => {
    const { url, service, of } = await startApp({ options: { limits: { managersPerUser: 1 } } });
    const first = await connect(`${url}/ws?userId=alice&sessionKey=tab`);
    const second = await connect(`${url}/ws?userId=alice&sessionKey=tab`);
    const [manager, ...others] = service.managersOf('alice');
    expect(others).toEqual([]);
    expect(manager?.connections.map(({ joined }) => joined)).toEqual([false, true]);
    expect(of('admitted').map(({ outcome }) => outcome)).toEqual(['admitted', 'joined']);
    expect(manager?.send('news', 1)).toBe(2);
    for (const client of [first, second]) expect(await client.next()).toEqual({ event: 'news', data: 1 });
    await connect(`${url}/ws?userId=bob&sessionKey=tab`);
    expect(service.managersOf('bob')[0]?.id).not.toBe(manager?.id);
  });

  it('has the priority and metadata of the newest token, after the first one has expired too', async () => {
    const { url, service } = await startApp({
      options: {
        heartbeat,
        authenticate: ({ url: path = '' }) => {
          const plan = path.slice('/ws?'.length);
          const expiresAt = plan === 'free' ? Date.now() + 400 : undefined;
          return { userId: 'alice', sessionKey: 'tab', priority: plan.length, metadata: { plan }, expiresAt };
        },
      },
    });
    const expiring = await connect(`${url}/ws?free`);
    const [manager] = service.managersOf('alice') as [Manager];
    const renewed = await connect(`${url}/ws?business`);
    expect((await expiring.closed()).code).toBe(4106);
    expect([manager.priority, manager.metadata]).toEqual([8, { plan: 'business' }]);
    expect(manager.connections.map(({ metadata }) => metadata)).toEqual([{ plan: 'business' }]);
    // Without a connection in between, too.
    await renewed.leave();
    await vi.waitFor(() => expect(manager.connections).toEqual([]));
    expect(manager.metadata).toEqual({ plan: 'business' });
    await connect(`${url}/ws?pro`);
    expect(service.managersOf('alice')).toEqual([manager]);
    expect([manager.priority, manager.metadata]).toEqual([3, { plan: 'pro' }]);
  });

  it('of ten that come at once makes one manager', async () => {
    const { url, service } = await startApp({
      options: {
        authenticate: async () => {
          await sleep(Math.random() * 20);
          return { userId: 'alice', sessionKey: 'tab' };
        },
        limits: { connectionsPerManager: 10 },
      },
    });
    await Promise.all(Array.from({ length: 10 }, () => connect(`${url}/ws`)));
    expect(service.managersOf('alice').map(({ connections }) => connections.length)).toEqual([10]);
  });

  it('with more connections than a manager may have sends the oldest away', async () => {
    const { url, service } = await startApp({ options: { limits: { connectionsPerManager: 2 } } });
    const clients = [];
    for (let i = 0; i < 4; i++) clients.push(await connect(`${url}/ws?userId=alice&sessionKey=tab`));
    const [oldest, older, ...newest] = clients;
    for (const client of [oldest, older]) {
      expect(await client?.closed()).toEqual({ code: 4509, reason: 'superseded' });
      expect(client?.received).toEqual([
        { event: 'ws:closing', data: { code: 4509, reason: 'superseded', retryable: false } },
      ]);
    }
    for (const client of newest) expect(await client.echo('still')).toBe('still');
    expect(service.managersOf('alice')).toHaveLength(1);
  });

  it('finds its session again within the resume window, and a new one after it', async () => {
    const { url, service, of } = await startApp({
      options: { session: { resumeWindowMs: 500 }, heartbeat },
    });
    const target = `${url}/ws?userId=alice&sessionKey=tab`;
    const first = await connect(target);
    const id = service.managersOf('alice')[0]?.id;
    first.webSocket.terminate();
    await vi.waitFor(() => expect(service.managersOf('alice')[0]?.connections).toEqual([]));
    await sleep(300);
    const second = await connect(target);
    expect(service.managersOf('alice').map((manager) => manager.id)).toEqual([id]);
    await sleep(400);
    expect(await second.echo('kept')).toBe('kept');
    await second.leave();
    await vi.waitFor(() => expect(service.managersOf('alice')).toEqual([]), { timeout: 1_000 });
    expect(of('evicted').map(({ reason }) => reason)).toEqual(['inactive']);
    await connect(target);
    expect(service.managersOf('alice')[0]?.id).not.toBe(id);
  });

  it('that is not there lets the manager end with its connection', async () => {
    const { url, service, of } = await startApp();
    const client = await connect(`${url}/ws?userId=alice`);
    expect(service.managersOf('alice')).toHaveLength(1);
    await client.leave();
    await vi.waitFor(() => expect(service.managersOf('alice')).toEqual([]));
    expect(of('detached')).toMatchObject([{ reason: 'left', code: 1000, managerEnded: true }]);
  });
});

describe('the facade', () => {
  it('sends to a user, to everybody, and says to how many', async () => {
    const { url, service } = await startApp();
    const alice = [
      await connect(`${url}/ws?userId=alice`),
      await connect(`${url}/ws?userId=alice&sessionKey=tab`),
      await connect(`${url}/ws?userId=alice&sessionKey=tab`),
    ];
    const bob = await connect(`${url}/ws?userId=bob`);
    expect(service.sendToUser('alice', 'news', { n: 1 })).toBe(3);
    expect(service.sendToUser('nobody', 'news', {})).toBe(0);
    for (const client of alice) expect(await client.next()).toEqual({ event: 'news', data: { n: 1 } });
    expect(service.broadcast('all', 2)).toBe(4);
    for (const client of [...alice, bob]) expect(await client.next()).toEqual({ event: 'all', data: 2 });
  });

  it('disconnects one user, or one session, and nobody else', async () => {
    const { url, service } = await startApp();
    const alice = [
      await connect(`${url}/ws?userId=alice`),
      await connect(`${url}/ws?userId=alice&sessionKey=tab`),
      await connect(`${url}/ws?userId=alice&sessionKey=other`),
    ] as const;
    const bob = await connect(`${url}/ws?userId=bob`);
    const [one] = service.managersOf('alice');
    expect([service.disconnectManager(one?.id ?? ''), service.disconnectManager('no such')]).toEqual([
      true,
      false,
    ]);
    expect(await alice[0].closed()).toEqual({ code: 4520, reason: 'terminated_by_admin' });
    expect(await alice[1].echo('here')).toBe('here');
    expect([service.disconnectUser('alice'), service.disconnectUser('nobody')]).toEqual([2, 0]);
    expect(service.managersOf('alice')).toEqual([]);
    for (const client of alice.slice(1)) {
      expect((await client.closed()).code).toBe(4520);
      expect(client.received.at(-1)?.data).toMatchObject({ reason: 'terminated_by_admin', retryable: false });
    }
    expect(await bob.echo('here')).toBe('here');
  });
});

describe('in a handler', () => {
  it('the manager is that of the connection that sent the message, and is busy while it works', async () => {
    let finish = () => {};
    @WebSocketGateway({ path: '/ws' })
    class Gateway {
      @SubscribeMessage('who')
      who(@CurrentManager() manager: Manager): unknown {
        return { event: 'who', data: { id: manager.id, user: manager.userId, busy: manager.isBusy } };
      }
      @SubscribeMessage('work')
      async work(@CurrentManager() manager: Manager, @MessageBody() how: string): Promise<void> {
        const work = () =>
          new Promise<void>((resolve) => {
            finish = resolve;
          });
        if (how === 'in the background') void manager.busy(work);
        else await work();
      }
      handleConnection(client: unknown): void {
        connectionOf(client)?.send(JSON.stringify({ event: 'hello', data: managerOf(client)?.id }));
      }
    }
    const { url, service } = await startApp({ gateways: [Gateway] });
    const alice = await connect(`${url}/ws?userId=alice`);
    await connect(`${url}/ws?userId=bob`);
    const manager = service.managersOf('alice')[0] as Manager;
    expect(await alice.next()).toEqual({ event: 'hello', data: manager.id });
    alice.send('who');
    expect((await alice.next()).data).toEqual({ id: manager.id, user: 'alice', busy: true });
    await vi.waitFor(() => expect(manager.isBusy).toBe(false));
    for (const how of ['in the background', 'in the handler']) {
      alice.send('work', how);
      await vi.waitFor(() => expect(manager.isBusy).toBe(true));
      expect(service.managersOf('bob')[0]?.isBusy).toBe(false);
      finish();
      await vi.waitFor(() => expect(manager.isBusy).toBe(false));
    }
    await expect(manager.busy(() => Promise.reject(new Error('no')))).rejects.toThrow('no');
    expect(manager.isBusy).toBe(false);
  });
});

describe('connections that are closed for how they are used', () => {
  const options = { limits: { maxBufferedBytes: 64 * 1024 }, cleanup: { hookTimeoutMs: 400 } };

  it('4108 for who does not read, who is told so when it reads again; others are served meanwhile', async () => {
    const { url, service, of } = await startApp({
      options: { ...options, cleanup: { hookTimeoutMs: 2_000 } },
    });
    const slow = await connect(`${url}/ws?userId=alice`);
    const quick = await connect(`${url}/ws?userId=alice`);
    slow.webSocket.pause();
    const chunk = 'x'.repeat(50_000);
    let sent = 0;
    while (of('detached').length === 0 && sent++ < 1_000) {
      service.sendToUser('alice', 'chunk', chunk);
      await sleep(1);
    }
    expect(of('detached')).toMatchObject([{ reason: 'slow_consumer' }]);
    expect(await quick.closed(1).catch(() => 'open')).toBe('open');
    slow.webSocket.resume();
    expect(await slow.closed()).toEqual({ code: 4108, reason: 'slow_consumer' });
    expect(slow.received.at(-1)).toEqual({
      event: 'ws:closing',
      data: { code: 4108, reason: 'slow_consumer', retryable: true },
    });
    expect(service.managersOf('alice')).toHaveLength(1);
  });

  it('4108 for a backlog that stays, and none for one that is read in time', async () => {
    const { url, service, of } = await startApp({ options });
    const client = await connect(`${url}/ws?userId=alice`);
    const [connection] = service.managersOf('alice')[0]?.connections ?? [];
    const fill = () => {
      const { maxBufferedBytes } = options.limits;
      const buffered = () => connection?.transport.bufferedAmount ?? 0;
      while (connection?.detached === false && buffered() < maxBufferedBytes * 2)
        service.sendToUser('alice', 'chunk', 'x'.repeat(50_000));
    };
    client.webSocket.pause();
    fill();
    client.webSocket.resume();
    await sleep(1_200);
    expect(client.isOpen).toBe(true);
    client.webSocket.pause();
    // The kernels on the way take a few megabytes, and not all of it at once.
    const filling = setInterval(fill, 10);
    await vi.waitFor(() => expect(of('detached')).toMatchObject([{ reason: 'slow_consumer' }]), {
      timeout: 3_000,
    });
    clearInterval(filling);
    // It never reads again: its socket is gone all the same.
    await vi.waitFor(() => expect(connection?.closed).toBeDefined(), { timeout: 1_500 });
  });

  it('4202 for who is idle for idleTimeoutMs, pongs notwithstanding', async () => {
    const { url, service, of } = await startApp({
      options: { cleanup: { idleTimeoutMs: 600, idleAfterMs: 300 }, heartbeat: { intervalMs: 400 } },
    });
    const idle = await connect(`${url}/ws?userId=alice`);
    const busy = await connect(`${url}/ws?userId=alice&sessionKey=tab`);
    const startedAt = performance.now();
    const chatting = setInterval(() => busy.send('echo', 1), 100);
    expect(await idle.closed()).toEqual({ code: 4202, reason: 'idle' });
    expect(performance.now() - startedAt).toBeGreaterThan(500);
    expect(idle.received.at(-1)?.data).toEqual({ code: 4202, reason: 'idle', retryable: true });
    expect(busy.isOpen).toBe(true);
    clearInterval(chatting);
    expect((await busy.closed()).code).toBe(4202);
    await vi.waitFor(() => expect(service.managersOf('alice')).toEqual([]));
    expect(of('evicted').map(({ reason }) => reason)).toEqual(['idle', 'idle']);
  });
});

describe('a manager made in code', () => {
  it('counts like any other, and goes when nobody attaches to it within the grace', async () => {
    const { app, url, service } = await startApp({
      options: { limits: { managersPerUser: 1 }, cleanup: { graceMs: 300 }, heartbeat },
    });
    const factory = app.get(WebSocketManagerFactory);
    const manager = await factory.create({ userId: 'alice', sessionKey: 'made' });
    expect(service.managersOf('alice')).toEqual([manager]);
    expect((await refusal(`${url}/ws?userId=alice`)).status).toBe(429);
    const error = await factory.create({ userId: 'alice' }).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(ManagerLimitError);
    expect((error as ManagerLimitError).retryAfterMs).toBeGreaterThan(0);
    expect((error as ManagerLimitError).retryAfterMs).toBeLessThanOrEqual(10_000);
    await sleep((error as ManagerLimitError).retryAfterMs);
    const next = await factory.create({ userId: 'alice' });
    expect(next.id).not.toBe(manager.id);
    await vi.waitFor(() => expect(service.managersOf('alice')).toEqual([]), { timeout: 2_000 });
  });

  it('is the one that a client with its session key joins', async () => {
    const { app, url, service } = await startApp({ options: { cleanup: { graceMs: 300 }, heartbeat } });
    const factory = app.get(WebSocketManagerFactory);
    const manager = await factory.create({ userId: 'alice', sessionKey: 'made', metadata: { from: 'code' } });
    const client = await connect(`${url}/ws?userId=alice&sessionKey=made`);
    await sleep(600);
    expect(await client.echo('kept')).toBe('kept');
    expect(service.managersOf('alice')).toEqual([manager]);
    expect(manager.metadata).toEqual({ from: 'code' });
    await expect(factory.create({ userId: '' })).rejects.toThrow('userId');
  });

  it('and one that waits for its handshake are told apart: a grace of nothing turns no newcomer away', async () => {
    const { url, service } = await startApp({
      options: { limits: { managersPerUser: 2 }, cleanup: { graceMs: 0 } },
    });
    for (const i of [1, 2, 3]) {
      const client = await connect(`${url}/ws?userId=alice`);
      expect(await client.echo(i)).toBe(i);
    }
    expect(service.managersOf('alice')).toHaveLength(2);
  });

  it('is refused by a full node', async () => {
    const { app } = await startApp({ options: { limits: { managersPerNode: 1 } } });
    const factory = app.get(WebSocketManagerFactory);
    await factory.create({ userId: 'alice' });
    await expect(factory.create({ userId: 'bob' })).rejects.toBeInstanceOf(NodeUnavailableError);
  });
});
