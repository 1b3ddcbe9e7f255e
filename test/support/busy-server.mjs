// An application that works for half of each turn of the event loop. Started by busy-application.test.ts.
//   in (environment): WORK_MS, STORE (`memory` or `asynchronous`), LIMIT, SWEEP_MS
import 'reflect-metadata';
import { Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { WebSocketGateway } from '@nestjs/websockets';
import { WebSocketManagerModule } from '../../dist/index.js';

const { STORE, WORK_MS, LIMIT, SWEEP_MS } = process.env;

/** Counts in this process, and answers in a turn of its own, as a client of a server would. */
class AsynchronousStore {
  name = 'asynchronous';
  slots = new Map();

  attach() {}

  reserve({ userId, managerId, limit }) {
    return this.later(() => {
      const held = this.slots.get(userId) ?? new Set();
      this.slots.set(userId, held);
      if (!held.has(managerId) && held.size >= limit)
        return { granted: false, count: held.size, elsewhere: [] };
      held.add(managerId);
      return { granted: true, count: held.size };
    });
  }

  release(userId, managerId) {
    return this.later(() => void this.slots.get(userId)?.delete(managerId));
  }

  leave() {}

  later(decide) {
    return new Promise((resolve) => setTimeout(() => resolve(decide()), 1));
  }
}

class BusyGateway {}
WebSocketGateway({ path: '/ws' })(BusyGateway);

class BusyModule {}
Module({
  imports: [
    WebSocketManagerModule.forRoot({
      authenticate: ({ url }) => ({ userId: new URL(url, 'ws://localhost').searchParams.get('userId') }),
      ...(STORE === 'asynchronous' ? { store: new AsynchronousStore() } : {}),
      limits: { managersPerUser: Number(LIMIT) },
      cleanup: { graceMs: 0, intervalMs: Number(SWEEP_MS), forcedEvictionBurst: 50 },
      canary: { intervalMs: 0 },
    }),
  ],
  providers: [BusyGateway],
})(BusyModule);

const app = await NestFactory.create(BusyModule, { logger: false });
await app.init();
// Connections are opened before they ask for their upgrade.
app.getHttpServer().keepAliveTimeout = 300_000;
// A full accept queue would have the kernel drop connections, which retry after seconds.
const server = app.getHttpServer().listen({ port: 0, host: '127.0.0.1', backlog: 4_096 }, () => {
  console.log(`Listening on http://127.0.0.1:${server.address().port}`);
});

const work = () => {
  const until = performance.now() + Number(WORK_MS);
  while (performance.now() < until);
  setImmediate(work);
};
process.once('SIGUSR2', work);
