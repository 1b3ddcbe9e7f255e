// Many closes while the store is unavailable, and what they cost. Started by store-outage.test.ts.
//   in (arguments): managers, how the store fails (`rejects`, `throws`, `hangs`, `slow`)
//   out: one line of JSON
import 'reflect-metadata';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises';
import { Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { WebSocketHealthService, WebSocketManagerFactory, WebSocketManagerModule } from '../../dist/index.js';

const [count, how] = [Number(process.argv[2]), process.argv[3]];
const OUTAGE_MS = 5_000;
/** Closes in one turn of the event loop. */
const AT_ONCE = 100;

class Store {
  name = 'unavailable';
  held = new Set();
  isAway = false;
  calls = 0;
  open = 0;
  mostOpen = 0;

  attach() {}

  reserve({ managerId }) {
    this.held.add(managerId);
    return { granted: true, count: 1 };
  }

  release(_, managerId) {
    this.calls++;
    if (!this.isAway) return Promise.resolve().then(() => void this.held.delete(managerId));
    if (how === 'throws') throw new Error('unavailable');
    this.mostOpen = Math.max(this.mostOpen, ++this.open);
    if (how === 'hangs') return new Promise(() => {});
    return new Promise((resolve, reject) =>
      setTimeout(
        () => {
          this.open--;
          if (how === 'slow') resolve(void this.held.delete(managerId));
          else reject(new Error('unavailable'));
        },
        how === 'slow' ? 150 : 1,
      ),
    );
  }

  leave() {}
}

const store = new Store();
class OutageModule {}
Module({
  imports: [
    WebSocketManagerModule.forRoot({
      authenticate: () => null,
      store,
      limits: { managersPerUser: 20 },
      cleanup: { proactiveThreshold: 1, moderateThreshold: 1, aggressiveThreshold: 1, graceMs: 600_000 },
      canary: { intervalMs: 0 },
    }),
  ],
})(OutageModule);

const app = await NestFactory.createApplicationContext(OutageModule, { logger: false });
const factory = app.get(WebSocketManagerFactory, { strict: false });
const health = app.get(WebSocketHealthService, { strict: false });
const managers = [];
for (let i = 0; i < count; i++) managers.push(await factory.create({ userId: `user-${i >> 4}` }));

store.isAway = true;
const lag = monitorEventLoopDelay({ resolution: 1 });
lag.enable();
const cpuBefore = process.cpuUsage();
for (let i = 0; i < managers.length; i++) {
  void managers[i].close({ reason: 'left' });
  managers[i] = undefined;
  if (i % AT_ONCE === 0) await turn();
}
const closedCpu = process.cpuUsage(cpuBefore);
const [callsAtFirst, outageBegan] = [store.calls, process.cpuUsage()];
await sleep(OUTAGE_MS);
const outageCpu = process.cpuUsage(outageBegan);
lag.disable();
const callsInOutage = store.calls - callsAtFirst;
globalThis.gc?.();
const heapOwed = process.memoryUsage().heapUsed;
const owed = store.held.size;

store.isAway = false;
const startedAt = performance.now();
const mostWaitMs = how === 'hangs' ? 60_000 : 20_000;
while (store.held.size > 0 && performance.now() - startedAt < mostWaitMs) await sleep(20);
const recoveredMs = Math.round(performance.now() - startedAt);
await sleep(1_000);
globalThis.gc?.();
const heapAfter = process.memoryUsage().heapUsed;
const percentOf = ({ user, system }, ms) => Math.round((user + system) / 10 / ms);
const line = {
  how,
  owed,
  lagP99Ms: Math.round(lag.percentile(99) / 1e5) / 10,
  lagMaxMs: Math.round(lag.max / 1e5) / 10,
  closeMicroseconds: Math.round(((closedCpu.user + closedCpu.system) / count) * 10) / 10,
  cpuPercent: percentOf(outageCpu, OUTAGE_MS),
  callsPerSecond: Math.round(callsInOutage / (OUTAGE_MS / 1_000)),
  mostOpen: store.mostOpen,
  bytesEach: Math.round((heapOwed - heapAfter) / Math.max(1, owed)),
  recoveredMs,
  left: store.held.size,
  status: health.detail().store.status,
};
console.log(JSON.stringify(line));
process.exit(0);
