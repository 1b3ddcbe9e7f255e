// npm run bench:micro [-- --dry]
// The core by itself, in one process and without sockets, each piece beside the plainest thing that could stand in its
// place (its floor). Everything runs from the built package.
import 'reflect-metadata';
import { setImmediate as turn } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { Bench } from 'tinybench';
import { candidatesOf, expendable, levelFor } from '../dist/cleanup/policy.js';
import { DueQueue, NOT_QUEUED } from '../dist/clock/due-queue.js';
import {
  CleanupService,
  MemorySlotStore,
  resolveOptions,
  WebSocketManagerFactory,
  WebSocketManagerModule,
} from '../dist/index.js';
import { assess, rulesOf } from '../dist/liveness/assessment.js';
import { HeartbeatWheel } from '../dist/liveness/heartbeat-wheel.js';
import { figure, writePart } from './report.mjs';

/** What one call is too short to be timed by is done so often, each time to somebody else. */
const BATCH = 1_000;
const LIMIT = 20;
const USERS = Array.from({ length: BATCH }, (_, i) => `user-${i}`);
/** Long enough that nothing falls due by itself while it is measured. */
const LONG_MS = 600_000;

/** A socket that is open, and to which nothing happens. */
const STAND_IN = {
  state: 'open',
  paused: false,
  bytesRead: 0,
  bytesWritten: 0,
  bytesQueued: 0,
  bufferedAmount: 0,
  ping() {},
  send() {},
  close() {},
  terminate() {},
};

const { values: args } = parseArgs({ options: { dry: { type: 'boolean', default: false } } });
const authenticate = () => null;
const { limits, cleanup: thresholds, ...rest } = resolveOptions({ authenticate });
const rules = rulesOf({ limits, cleanup: thresholds, ...rest });
const parts = [];
// The module's timers keep no process alive, and here is no server that would.
setInterval(() => {}, 1_000);

await admission();
await decisions();
await waiting();
await sweeps();
await million();
if (!args.dry) writePart('bench:micro', parts.join('\n\n'));
process.exit(0);

async function admission() {
  const users = new Map();
  const held = new Map(USERS.map((user) => [user, new Set([user])]));
  const store = new MemorySlotStore();
  store.attach({ countOf: (userId) => held.get(userId)?.size ?? 0, has: () => false, evict() {} });
  const requests = USERS.map((userId) => ({ userId, managerId: `${userId}-1`, limit: LIMIT, priority: 0 }));
  const { app, factory } = await startCore();
  const silent = await startCore({ metrics: false });
  const made = [];
  const closeAll = () => {
    for (const manager of made.splice(0)) void manager.close({ reason: 'left' });
  };
  await compare('Admission', 'ns', [
    [
      'floor: Map insert and delete with a limit check',
      () => {
        for (const user of USERS) {
          const sessions = users.get(user) ?? new Set();
          if (sessions.size >= LIMIT) continue;
          sessions.add(user);
          users.set(user, sessions);
        }
        for (const user of USERS) {
          const sessions = users.get(user);
          sessions.delete(user);
          if (sessions.size === 0) users.delete(user);
        }
      },
    ],
    [
      'MemorySlotStore: reserve and release',
      () => {
        for (const request of requests) {
          store.reserve(request);
          store.release(request.userId, request.managerId);
        }
      },
    ],
    [
      'factory.create: decided, and the manager made',
      async () => {
        for (const userId of USERS) made.push(await factory.create({ userId }));
      },
      { afterEach: closeAll },
    ],
    [
      '... without metrics',
      async () => {
        for (const userId of USERS) made.push(await silent.factory.create({ userId }));
      },
      { afterEach: closeAll },
    ],
    [
      'factory.create, and the end of the manager',
      async () => {
        for (const userId of USERS) made.push(await factory.create({ userId }));
        closeAll();
      },
    ],
  ]);
  await app.close();
  await silent.app.close();
}

async function decisions() {
  const now = 1_000_000;
  const managers = Array.from({ length: LIMIT }, (_, i) => snapshot(now, i));
  const candidates = candidatesOf(managers, now, rules);
  const plain = managers.map(({ lastActivityAt }) => ({ lastActivityAt, isAlive: true }));
  const times = (work) => () => {
    for (let i = 0; i < BATCH; i++) work(i);
  };
  let sink = 0;
  await compare(`Decisions about a user with ${LIMIT} managers`, 'ns', [
    [
      'floor: a loop over 20 objects, for the least recently active',
      times(() => {
        let oldest = plain[0];
        for (const one of plain) if (one.isAlive && one.lastActivityAt < oldest.lastActivityAt) oldest = one;
        sink += oldest.lastActivityAt;
      }),
    ],
    [
      'the level of a pressure',
      times((i) => {
        sink += levelFor((i % LIMIT) / LIMIT, thresholds)?.length ?? 0;
      }),
    ],
    [
      'assessment of one manager',
      times((i) => {
        sink += assess(managers[i % LIMIT], now, rules).silentForMs;
      }),
    ],
    [
      'assessment of all 20',
      times(() => {
        sink += candidatesOf(managers, now, rules).length;
      }),
    ],
    [
      'policy: who goes first, at force',
      times(() => {
        sink += expendable(candidates, 'force', now, rules).length;
      }),
    ],
  ]);
  if (Number.isNaN(sink)) throw new Error('nothing was decided');
}

async function waiting() {
  const many = 10_000;
  const wheel = new HeartbeatWheel(15_000);
  const connections = Array.from({ length: many }, () => ({
    slot: -1,
    position: -1,
    quiet: 0,
  }));
  connections.forEach((connection, i) => {
    wheel.add(connection, i % wheel.slotCount);
  });
  const comers = Array.from({ length: BATCH }, () => ({ slot: -1, position: -1, quiet: 0 }));
  const set = new Set();
  const queue = new DueQueue(100, 0);
  const items = Array.from({ length: BATCH }, () => ({ dueTick: NOT_QUEUED }));
  const map = new Map();
  await compare('Waiting', 'ns', [
    [
      'floor: Set insert and delete',
      () => {
        for (const comer of comers) set.add(comer);
        for (const comer of comers) set.delete(comer);
      },
    ],
    [
      'heartbeat wheel with 10,000 connections: one comes and goes',
      () => {
        for (let i = 0; i < BATCH; i++) wheel.add(comers[i], i);
        for (const comer of comers) wheel.remove(comer);
      },
    ],
    [
      'floor: Map insert and delete',
      () => {
        for (let i = 0; i < BATCH; i++) map.set(i, items[i]);
        for (let i = 0; i < BATCH; i++) map.delete(i);
      },
    ],
    [
      'DueQueue: put down and taken out',
      () => {
        for (let i = 0; i < BATCH; i++) queue.schedule(items[i], i * 37);
        for (const item of items) queue.cancel(item);
      },
    ],
    [
      'DueQueue: put down, and moved',
      () => {
        for (let i = 0; i < BATCH; i++) queue.schedule(items[i], i * 37);
        for (let i = 0; i < BATCH; i++) queue.schedule(items[i], 100_000 + i * 37);
        for (const item of items) queue.cancel(item);
      },
    ],
  ]);
  await compare(
    'A turn of the heartbeat over 10,000 connections, without the pings',
    'us',
    [
      [
        'floor: a loop over 10,000 objects',
        () => {
          for (const connection of connections) connection.quiet++;
        },
      ],
      [
        'heartbeat wheel',
        () => {
          for (let i = 0; i < wheel.slotCount; i++) {
            for (const connection of wheel.advance()) connection.quiet++;
          }
        },
      ],
    ],
    1,
  );
}

/** What is calm costs nothing: a sweep over ten times as many takes as long. */
async function sweeps() {
  const objects = Array.from({ length: 100_000 }, (_, i) => ({ managers: i % 10, limit: LIMIT }));
  let sink = 0;
  const tasks = [
    [
      'floor: a loop over 100,000 users',
      () => {
        for (const { managers, limit } of objects) if (managers / limit >= 0.6) sink++;
      },
    ],
  ];
  const apps = [];
  const connections = [];
  for (const calm of [10_000, 100_000]) {
    const { app, factory, cleanup } = await startCore();
    apps.push(app);
    await make(factory, calm, 10, 'calm');
    const pressured = await make(factory, 100, 13, 'pressured');
    for (const manager of pressured) connections.push(manager.attach(STAND_IN));
    tasks.push([
      `sweep: ${figure(calm)} calm users of 10 managers, 100 users under pressure`,
      () => cleanup.sweep(),
    ]);
  }
  await compare('Sweep', 'us', tasks, 1);
  // A stand-in would never say that it is closed, and a shutdown would wait for it.
  for (const connection of connections) connection.noteClosed(1006, '');
  for (const app of apps) await app.close();
  if (Number.isNaN(sink)) throw new Error('nothing was looked at');
}

/** What a million managers take, and how long they take to come and to go. */
async function million() {
  const lines = [];
  for (const isConnected of [false, true]) {
    const { app, factory } = await startCore();
    const before = await heapUsed();
    let startedAt = performance.now();
    const managers = await make(factory, 100_000, 10, 'one');
    const connections = isConnected ? managers.map((manager) => manager.attach(STAND_IN)) : [];
    const buildMs = performance.now() - startedAt;
    // The two lists are ours, not the module's.
    const listBytes = 8 * (managers.length + connections.length);
    const bytes = ((await heapUsed()) - before - listBytes) / managers.length;
    startedAt = performance.now();
    for (const connection of connections) connection.noteClosed(1006, '');
    for (const manager of managers) void manager.close({ reason: 'left' });
    await turn();
    const clearMs = performance.now() - startedAt;
    const what = isConnected ? 'a manager with a connection (without its socket)' : 'a manager';
    lines.push(`| ${what} | ${figure(bytes)} | ${figure(buildMs / 1_000)} | ${figure(clearMs / 1_000)} |`);
    managers.length = 0;
    connections.length = 0;
    await app.close();
  }
  say(
    [
      '**One million managers of 100,000 users, in one process**',
      '',
      '| | bytes each | s to build | s to clear |',
      '| --- | ---: | ---: | ---: |',
      ...lines,
    ].join('\n'),
  );
}

/** The module in an application, with all of it on but the canary, which would come round in between. */
async function startCore(extras = {}) {
  class AppModule {}
  Module({
    imports: [
      WebSocketManagerModule.forRoot({
        authenticate,
        cleanup: { intervalMs: LONG_MS, graceMs: LONG_MS },
        heartbeat: { intervalMs: LONG_MS },
        canary: { intervalMs: 0 },
        drain: { spreadMs: 0 },
        ...extras,
      }),
    ],
  })(AppModule);
  const app = await NestFactory.create(AppModule, { logger: false });
  await app.init();
  return { app, factory: app.get(WebSocketManagerFactory), cleanup: app.get(CleanupService) };
}

async function make(factory, users, each, prefix) {
  const managers = [];
  for (let user = 0; user < users; user++) {
    const userId = `${prefix}-${user}`;
    for (let i = 0; i < each; i++) managers.push(await factory.create({ userId }));
  }
  return managers;
}

function snapshot(now, i) {
  const openedAt = now - 60_000 - i * 1_000;
  const connection = {
    id: `manager-${i}:1`,
    state: 'open',
    openedAt,
    lastHeardAt: now - i * 10,
    confirmed: true,
    missedPongs: 0,
    stalledLooks: 0,
    suspectedAt: undefined,
    quietLooks: 0,
    hasUnacknowledgedOutput: false,
    unreadBytes: 0,
    detectedBy: undefined,
    bufferedBytes: 0,
  };
  return {
    id: `manager-${i}`,
    sessionKey: undefined,
    priority: i % 2,
    isBusy: i % 5 === 0,
    createdAt: openedAt,
    lastActivityAt: now - ((i * 7) % LIMIT) * 100,
    leftAt: undefined,
    lastHeardAt: undefined,
    neverAttached: false,
    connections: [connection],
  };
}

async function heapUsed() {
  for (let i = 0; i < 4; i++) {
    globalThis.gc();
    await turn();
  }
  return process.memoryUsage().heapUsed;
}

/** Times the tasks, and shows each beside the floor that stands above it. */
async function compare(title, unit, tasks, perCall = BATCH) {
  const bench = new Bench({ time: 500, warmupTime: 250 });
  for (const [name, work, options] of tasks) bench.add(name, work, options);
  await bench.run();
  const scale = unit === 'ns' ? 1e6 : 1e3;
  let floor;
  const lines = bench.tasks.map(({ name, result }) => {
    if (!('latency' in result)) throw result.error ?? new Error(`${name} did not run`);
    const { min, p50: middle, p99: late } = result.latency;
    const [least, p50, p99] = [min, middle, late].map((ms) => (ms * scale) / perCall);
    const isFloor = name.startsWith('floor');
    if (isFloor) floor = p50;
    const beside = isFloor || !floor ? '' : `x${figure(p50 / floor)}`;
    const perSecond = unit === 'ns' ? figure(1e9 / p50) : figure(1e6 / p50);
    return `| ${name} | ${figure(p50)} | ${figure(least)} | ${figure(p99)} | ${perSecond} | ${beside} |`;
  });
  say(
    [
      `**${title}**`,
      '',
      `| | ${unit}, median | least | p99 | a second | beside its floor |`,
      '| --- | ---: | ---: | ---: | ---: | ---: |',
      ...lines,
    ].join('\n'),
  );
}

function say(text) {
  console.log(`\n${text}`);
  parts.push(text);
}
