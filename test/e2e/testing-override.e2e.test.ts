import { Module } from '@nestjs/common';
import { Test } from '@nestjs/testing';
import { expect, onTestFinished, test } from 'vitest';
import { WebSocketManagerModule, WebSocketManagerOptionsError } from '../../src/index.js';
import {
  FakeClock,
  overrideWebSocketManager,
  type WebSocketManagerOverrides,
  waitForClose,
} from '../../src/testing/index.js';
import { byQuery, EchoGateway } from '../support/app.js';
import { connect } from '../support/client.js';

@Module({
  imports: [
    WebSocketManagerModule.forRoot({
      authenticate: byQuery,
      limits: { managersPerUser: 1, connectionsPerManager: 3 },
      cleanup: { idleTimeoutMs: 600_000 },
    }),
  ],
  providers: [EchoGateway],
})
class AppModule {}

async function start(overrides?: WebSocketManagerOverrides) {
  const builder = Test.createTestingModule({ imports: [AppModule] });
  const testing = await overrideWebSocketManager(builder, overrides).compile();
  const app = testing.createNestApplication({ logger: false });
  await app.listen(0, '127.0.0.1');
  onTestFinished(() => app.close());
  const url = (await app.getUrl()).replace('http', 'ws');
  return { app, join: (userId: string) => connect(`${url}/ws?userId=${userId}`) };
}

test('what the test gives goes over what the application has, and the rest of it stays', async () => {
  const { join } = await start({ options: { limits: { managersPerUser: 2 } } });
  const [first, second] = [await join('ada'), await join('ada')];

  expect([await first.echo(1), await second.echo(2)]).toEqual([1, 2]);
});

test('ten minutes of silence take no time on a clock of its own, and end nobody who is not idle', async () => {
  const clock = new FakeClock();
  const { join } = await start({ clock });
  const [idle, speaking] = [await join('ada'), await join('bob')];
  const ended = waitForClose(idle.webSocket);

  await clock.advance(599_000);
  await speaking.echo('still here');
  await clock.advance(62_000);

  expect(await ended).toEqual({ code: 4202, reason: 'idle' });
  expect(await speaking.echo('and here')).toBe('and here');
});

test('an application on a fake clock closes by itself, with a client that answers nothing any more', async () => {
  const clock = new FakeClock();
  const { app, join } = await start({ clock });
  const [polite, deaf] = [await join('ada'), await join('bob')];
  deaf.webSocket.pause();
  const told = waitForClose(polite.webSocket);

  const before = performance.now();
  await app.close();

  expect(performance.now() - before).toBeLessThan(2_000);
  expect(await told).toEqual({ code: 1012, reason: 'draining' });
  deaf.webSocket.resume();
});

test('no handle is left when the application is closed', async () => {
  await expect.poll(sockets).toEqual([]);
  const { app, join } = await start({ clock: new FakeClock() });
  const client = await join('ada');
  expect(sockets()).not.toEqual([]);
  const ended = waitForClose(client.webSocket);
  await app.close();
  await ended;
  await expect.poll(sockets).toEqual([]);
});

test('an option that cannot be used stops the test by its name', async () => {
  const refused = start({ options: { drain: { timeoutMs: -1 } } });

  await expect(refused).rejects.toThrow(WebSocketManagerOptionsError);
  await expect(refused).rejects.toThrow(/drain\.timeoutMs/);
});

/** What would keep a test runner waiting. */
function sockets(): string[] {
  return process.getActiveResourcesInfo().filter((name) => name.startsWith('TCP'));
}
