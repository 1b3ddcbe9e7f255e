import 'reflect-metadata';
import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import { setTimeout } from 'node:timers/promises';
import type { INestApplication } from '@nestjs/common';
import { Test } from '@nestjs/testing';
import {
  FakeClock,
  overrideWebSocketManager,
  type WebSocketManagerOverrides,
  waitForClose,
} from 'nestjs-websocket-manager/testing';
import { WebSocket } from 'ws';
import { AppModule } from '../src/app.module';
import { Presence } from '../src/presence';

let app: INestApplication;
let url: string;

async function start(overrides: WebSocketManagerOverrides = {}): Promise<void> {
  const builder = Test.createTestingModule({ imports: [AppModule] });
  const testing = await overrideWebSocketManager(builder, overrides).compile();
  app = testing.createNestApplication({ logger: false });
  await app.listen(0, '127.0.0.1');
  url = (await app.getUrl()).replace('http', 'ws');
}

afterEach(() => app.close());

function knock(user: string): WebSocket {
  return new WebSocket(`${url}/chat`, { headers: { authorization: `Bearer token-of-${user}` } });
}

async function join(user: string): Promise<WebSocket> {
  const socket = knock(user);
  await once(socket, 'open');
  return socket;
}

async function statusOfRefusal(socket: WebSocket): Promise<number | undefined> {
  socket.on('error', () => {});
  const [, response] = (await once(socket, 'unexpected-response')) as [unknown, IncomingMessage];
  response.resume();
  return response.statusCode;
}

const send = (socket: WebSocket, event: string, data?: unknown) =>
  socket.send(JSON.stringify({ event, data }));

async function next(socket: WebSocket): Promise<unknown> {
  const [data] = await once(socket, 'message');
  return JSON.parse(String(data));
}

describe('the chat', () => {
  it('lets in whom it knows, and nobody else', async () => {
    await start();
    expect((await join('alice')).readyState).toBe(WebSocket.OPEN);
    expect(await statusOfRefusal(knock('mallory'))).toBe(401);
  });

  it('tells everybody what somebody says', async () => {
    await start();
    const [alice, bob] = [await join('alice'), await join('bob')];
    const heard = next(bob);
    send(alice, 'say', 'hello');
    expect(await heard).toEqual({ event: 'said', data: { by: 'alice', text: 'hello' } });
  });

  it('asks a user at the limit to wait', async () => {
    await start({ options: { limits: { managersPerUser: 1 } } });
    await join('alice');
    expect(await statusOfRefusal(knock('alice'))).toBe(429);
    await join('bob');
  });

  it('signs a user out everywhere, and knows how they left', async () => {
    await start();
    const sockets = [await join('alice'), await join('alice'), await join('bob')] as const;
    const closed = [waitForClose(sockets[0]), waitForClose(sockets[1])];
    send(sockets[0], 'sign out everywhere');
    const signedOut = { code: 4520, reason: 'terminated_by_admin' };
    expect(await Promise.all(closed)).toEqual([signedOut, signedOut]);
    const presence = app.get(Presence);
    expect([presence.of('alice').sessions, presence.of('bob').sessions]).toEqual([0, 1]);
    // The hook is called when the connection is gone on this side too.
    while (presence.of('alice').lastLeft === null) await setTimeout(5);
    expect(presence.of('alice').lastLeft).toBe('4520 terminated_by_admin');
  });

  it('ends a session after five minutes of silence, which take no time here', async () => {
    const clock = new FakeClock();
    await start({ clock });
    const closed = waitForClose(await join('alice'));
    await clock.advance(360_000);
    expect(await closed).toEqual({ code: 4202, reason: 'idle' });
  });

  it('says goodbye when it is shut down', async () => {
    await start();
    const closed = waitForClose(await join('alice'));
    await app.close();
    expect(await closed).toEqual({ code: 1012, reason: 'draining' });
  });
});
