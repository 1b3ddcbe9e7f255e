import { setTimeout as sleep } from 'node:timers/promises';
import { SERVERS, withServer } from '../processes.mjs';

/** By then every connection has had its first ping, and whatever that leaves behind. */
const PINGED_AFTER_MS = 7_000;

/** What a connection costs to have. */
export const held = {
  id: 'held',
  title: 'Being connected',
  servers: ['bare-ws', 'ws-heartbeat', 'nest-ws', 'nest-ws-by-hand', 'nest-socket-io', 'ours', 'ours-async'],
  rounds: 2,
  metrics: {
    heapBytes: { title: 'heap of an idle connection', unit: 'bytes', aims: { 'nest-ws': 0.35 } },
  },
  settings: { full: { warmUp: 12_000, count: 2_000 }, short: { warmUp: 12_000, count: 1_000 } },

  run: (name, { warmUp, count }) =>
    withServer(name, {}, async (server, load) => {
      // What the compiler keeps of the code that runs is not a part of any connection.
      await load.ask('cycle', { count: warmUp });
      await sleep(SERVERS[name].forgetsWithinMs ?? 0);
      const empty = await server.ask('heap');
      await load.ask('open', { count });
      const full = await server.ask('heap');
      return { heapBytes: (full.heapUsed - empty.heapUsed) / count };
    }),
};

/** Whether a connection stays as small when there are many, and for how long. */
export const idle = {
  id: 'idle',
  title: 'Many idle connections',
  servers: ['bare-ws', 'nest-ws', 'ours'],
  rounds: 2,
  metrics: {
    manyHeapBytes: {
      title: 'heap of an idle connection among many',
      unit: 'bytes',
      aims: { 'nest-ws': 0.35 },
    },
    manyConnectUs: { title: 'server CPU of a connect, up to that many', unit: 'us' },
  },
  settings: { full: { count: 15_000 }, short: { count: 5_000 } },

  run: (name, { count }) =>
    withServer(name, {}, async (server, load) => {
      await load.ask('cycle', { count: 1_000 });
      await sleep(SERVERS[name].forgetsWithinMs ?? 0);
      const empty = await server.ask('heap');
      const before = server.cpuUs();
      const { opened } = await load.ask('open', { count });
      const manyConnectUs = (server.cpuUs() - before) / opened;
      await sleep(PINGED_AFTER_MS);
      const full = await server.ask('heap');
      return { manyHeapBytes: (full.heapUsed - empty.heapUsed) / opened, manyConnectUs };
    }),
};
