import { setTimeout as sleep } from 'node:timers/promises';
import { WebSocketGateway } from '@nestjs/websockets';
import { describe, expect, it, vi } from 'vitest';
import { byQuery, EchoGateway, type RunningApp, startApp } from '../support/app.js';
import { connect, refusal } from '../support/client.js';
import { handshake, RawSocket } from '../support/raw-socket.js';

const HANGING_UP: [string, (raw: RawSocket) => unknown][] = [
  ['FIN', (raw) => raw.socket.end()],
  ['RST', (raw) => raw.socket.resetAndDestroy()],
];

/** Whoever says `x-slow` is authenticated only when the test says so. */
async function startWithGate(options: Parameters<typeof startApp>[0] = {}) {
  let open = () => {};
  const asked = new Promise<void>((resolve) => {
    open = resolve;
  });
  const waiting = vi.fn();
  const running = await startApp({
    ...options,
    options: {
      ...options.options,
      authenticate: async (request) => {
        if (request.headers['x-slow']) {
          waiting();
          await asked;
        }
        return byQuery(request);
      },
    },
  });
  return { ...running, open, waiting };
}

const nothingLeft = ({ service, of }: RunningApp) =>
  vi.waitFor(() => {
    expect(of('attached').length).toBe(of('detached').length);
    expect(service.managersOf('alice')).toEqual([]);
  });

describe.each(HANGING_UP)('a client that hangs up with a %s', (_title, hangUp) => {
  it('during authentication leaves no slot taken', async () => {
    const running = await startWithGate();
    const raw = await RawSocket.open(running.port);
    raw.write(handshake('/ws?userId=alice', { 'x-slow': '1' }));
    await vi.waitFor(() => expect(running.waiting).toHaveBeenCalled());
    hangUp(raw);
    await sleep(50);
    running.open();
    await sleep(50);
    await nothingLeft(running);
  });

  it('during authentication, at the limit, evicts nobody', async () => {
    const running = await startWithGate({
      options: { limits: { managersPerUser: 2 }, cleanup: { graceMs: 50 } },
    });
    const clients = [
      await connect(`${running.url}/ws?userId=alice`),
      await connect(`${running.url}/ws?userId=alice`),
    ];
    const raw = await RawSocket.open(running.port);
    raw.write(handshake('/ws?userId=alice', { 'x-slow': '1' }));
    await vi.waitFor(() => expect(running.waiting).toHaveBeenCalled());
    hangUp(raw);
    await sleep(100);
    running.open();
    await sleep(100);
    for (const client of clients) expect(await client.echo('here')).toBe('here');
    expect(running.of('evicted')).toEqual([]);
    expect(running.service.managersOf('alice')).toHaveLength(2);
  });

  it('while it waits for a slot leaves the next place to others', async () => {
    const { url, port, service, of } = await startApp({
      options: { limits: { managersPerUser: 1 }, admission: { queueTimeoutMs: 5_000 } },
    });
    const first = await connect(`${url}/ws?userId=alice`);
    const raw = await RawSocket.open(port);
    raw.write(handshake('/ws?userId=alice'));
    await sleep(100);
    hangUp(raw);
    await sleep(50);
    const next = connect(`${url}/ws?userId=alice`);
    await first.leave();
    expect(await (await next).echo('in')).toBe('in');
    expect(service.managersOf('alice')).toHaveLength(1);
    expect(of('evicted')).toEqual([]);
    expect(of('attached')).toHaveLength(2);
  });
});

describe("a handshake that the gateway's own check fails takes no slot", () => {
  const startWith = (verifyClient: (...args: never[]) => unknown) => {
    @WebSocketGateway({ path: '/checked', verifyClient } as never)
    class CheckedGateway {}
    return startApp({
      gateways: [EchoGateway, CheckedGateway],
      options: { limits: { managersPerUser: 1 } },
    });
  };

  it('where verifyClient refuses', async () => {
    const running = await startWith((_info: never, done: (ok: boolean, status: number) => void) =>
      setTimeout(() => done(false, 418), 20),
    );
    for (let i = 0; i < 3; i++) {
      expect((await refusal(`${running.url}/checked?userId=alice`)).status).toBe(418);
    }
    await nothingLeft(running);
    await connect(`${running.url}/ws?userId=alice`);
  });

  it('where afterInit sets a verifyClient that refuses', async () => {
    let isOpen = false;
    @WebSocketGateway({ path: '/checked' })
    class CheckedGateway {
      afterInit(server: { options: { verifyClient?: () => boolean } }) {
        server.options.verifyClient = () => isOpen;
      }
    }
    const running = await startApp({
      gateways: [CheckedGateway],
      options: { limits: { managersPerUser: 1 } },
    });
    const url = `${running.url}/checked?userId=alice`;
    expect((await refusal(url)).status).toBe(401);
    await nothingLeft(running);
    isOpen = true;
    await connect(url);
    expect(running.service.managersOf('alice')).toHaveLength(1);
  });

  it('where verifyClient throws', async () => {
    const running = await startWith((_info: never) => {
      throw new Error('verifyClient');
    });
    await expect(refusal(`${running.url}/checked?userId=alice`)).rejects.toThrow();
    await nothingLeft(running);
    expect(running.of('hook_failed')).toHaveLength(1);
    await connect(`${running.url}/ws?userId=alice`);
  });

  it('where verifyClient takes its time, or never answers', async () => {
    const late: ((ok: boolean) => void)[] = [];
    @WebSocketGateway({
      path: '/checked',
      verifyClient: (_info: never, done: never) => late.push(done),
    } as never)
    class CheckedGateway {}
    const running = await startApp({
      gateways: [CheckedGateway],
      options: { cleanup: { graceMs: 200 }, heartbeat: { intervalMs: 1_000 } },
    });
    const gone = await RawSocket.open(running.port);
    gone.write(handshake('/checked?userId=alice'));
    await vi.waitFor(() => expect(late).toHaveLength(1));
    expect(running.service.managersOf('alice')).toEqual([]);
    gone.socket.resetAndDestroy();
    await nothingLeft(running);

    const patient = await RawSocket.open(running.port);
    patient.write(handshake('/checked?userId=alice'));
    await vi.waitFor(() => expect(late).toHaveLength(2));
    expect(running.service.managersOf('alice')).toEqual([]);
    late[1]?.(true);
    // An answer counts once.
    late[1]?.(true);
    expect((await patient.answer()).status).toBe(101);
    expect(running.of('admitted')).toHaveLength(1);
    expect(running.service.managersOf('alice')).toHaveLength(1);
  });
});
