// The server of the soak: a stock gateway, hooks that fail for users whose names ask for it, and a way in for the
// one who runs it: what it holds, when it stood still, to make it stand still, to change a user's limit.
import 'reflect-metadata';
import { Controller, Get, Module, Query, UnauthorizedException } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { SubscribeMessage, WebSocketGateway } from '@nestjs/websockets';
import prometheus from 'prom-client';
import {
  connectionOf,
  managerOf,
  WebSocketManagerModule,
  WebSocketManagerService,
} from '../../dist/index.js';
import { now, watchLags } from './clock.mjs';

const LIMIT = 20;
const limits = new Map();
const lags = watchLags();
const never = () => new Promise(() => {});
const fail = () => {
  throw new Error('a hook of the soak that fails');
};
const does = (userId, what) => userId.startsWith(`${what}-`);

function authenticate({ url }) {
  const { searchParams } = new URL(url, 'ws://localhost');
  const userId = searchParams.get('userId');
  if (userId === null) return null;
  if (does(userId, 'throws-at-authenticate')) fail();
  if (does(userId, 'is-unknown')) throw new UnauthorizedException();
  return { userId, sessionKey: searchParams.get('sessionKey') ?? undefined };
}

class SoakGateway {
  handleConnection(client) {
    const manager = managerOf(client);
    if (!manager) return undefined;
    const { id: managerId, userId } = manager;
    if (does(userId, 'throws-at-connect')) fail();
    if (does(userId, 'rejects-at-connect')) return Promise.resolve().then(fail);
    if (does(userId, 'throws-at-close')) manager.onClose(fail);
    if (does(userId, 'hangs-at-close')) manager.onClose(never);
    if (does(userId, 'throws-at-alive')) manager.isAlive(fail);
    if (does(userId, 'hangs-at-alive')) manager.isAlive(never);
    const { joined } = connectionOf(client);
    client.send(JSON.stringify({ event: 'session', data: { managerId, userId, joined } }));
    return undefined;
  }

  handleDisconnect(client) {
    const userId = managerOf(client)?.userId ?? '';
    if (does(userId, 'throws-at-disconnect')) fail();
    return does(userId, 'hangs-at-disconnect') ? never() : undefined;
  }

  echo(_client, data) {
    return { event: 'echo', data };
  }
}
SubscribeMessage('echo')(
  SoakGateway.prototype,
  'echo',
  Object.getOwnPropertyDescriptor(SoakGateway.prototype, 'echo'),
);
WebSocketGateway({ path: '/ws' })(SoakGateway);

/** Everything that was told of connections, counted; and when each user was last let in. */
const told = {
  attached: 0,
  detached: 0,
  admitted: 0,
  joined: 0,
  rejected: 0,
  zombies: 0,
  evicted: 0,
  hookFailures: 0,
};
const detachedFor = {};
const admittedAt = new Map();

function count(event) {
  switch (event.type) {
    case 'attached':
      told.attached++;
      break;
    case 'detached':
      told.detached++;
      detachedFor[event.reason] = (detachedFor[event.reason] ?? 0) + 1;
      break;
    case 'admitted':
      told[event.outcome === 'joined' ? 'joined' : 'admitted']++;
      if (event.outcome !== 'joined') admittedAt.set(event.userId, now());
      break;
    case 'rejected':
      told.rejected++;
      break;
    case 'zombie_detected':
      told.zombies++;
      break;
    case 'evicted':
      told.evicted++;
      break;
    case 'hook_failed':
      told.hookFailures++;
      break;
  }
}

class SoakController {
  /** After a collection: what is held, and what keeps the event loop alive. */
  sample() {
    globalThis.gc();
    const resources = {};
    for (const kind of process.getActiveResourcesInfo()) resources[kind] = (resources[kind] ?? 0) + 1;
    const { heapUsed, rss, external } = process.memoryUsage();
    return { heapUsed, rss, external, resources, told, detachedFor };
  }

  lags() {
    return lags();
  }

  stall(ms) {
    setTimeout(() => {
      const endsAt = now() + Number(ms);
      while (now() < endsAt);
    }, 5);
    return {};
  }

  limit(userId, limit) {
    if (limit === undefined) limits.delete(userId);
    else limits.set(userId, Number(limit));
    return {};
  }

  admittedAt(userId) {
    return { at: admittedAt.get(userId) ?? 0 };
  }

  async metrics() {
    return prometheus.register.metrics();
  }
}
for (const [method, path, query = []] of [
  ['sample', 'soak/sample'],
  ['lags', 'soak/lags'],
  ['stall', 'soak/stall', ['ms']],
  ['limit', 'soak/limit', ['userId', 'limit']],
  ['admittedAt', 'soak/admitted-at', ['userId']],
  ['metrics', 'metrics'],
]) {
  const descriptor = Object.getOwnPropertyDescriptor(SoakController.prototype, method);
  Get(path)(SoakController.prototype, method, descriptor);
  query.forEach((name, i) => {
    Query(name)(SoakController.prototype, method, i);
  });
}
Controller()(SoakController);

class SoakModule {}
Module({
  imports: [
    WebSocketManagerModule.forRoot({
      authenticate,
      limits: {
        managersPerUser: ({ userId }) => limits.get(userId) ?? LIMIT,
        maxBufferedBytes: 256 * 1024,
      },
      cleanup: { intervalMs: 5_000, idleAfterMs: 30_000 },
      heartbeat: { intervalMs: 4_000 },
      session: { resumeWindowMs: 20_000 },
      canary: { intervalMs: 10_000 },
      health: true,
      // It listens on the loopback, for as long as the soak takes.
      admin: { guards: [{ canActivate: () => true }] },
    }),
  ],
  controllers: [SoakController],
  providers: [SoakGateway],
})(SoakModule);

const app = await NestFactory.create(SoakModule, { logger: ['warn', 'error'], forceCloseConnections: true });
app.get(WebSocketManagerService).events$.subscribe(count);
await app.listen(0, '127.0.0.1');
console.log(`Listening on ${await app.getUrl()}`);
