import { setTimeout as sleep } from 'node:timers/promises';
import { SERVERS, withServer } from '../processes.mjs';

/** What a connection costs to open, to open and close, and to have. */
export const door = {
  id: 'door',
  title: 'Connecting, and being connected',
  servers: ['bare-ws', 'ws-heartbeat', 'nest-ws', 'nest-ws-by-hand', 'nest-socket-io', 'ours', 'ours-async'],
  metrics: {
    connectUs: {
      title: 'server CPU of a connect',
      unit: 'us',
      aims: { 'bare-ws': 1.25, 'nest-ws': 0.85 },
    },
    cycleUs: {
      title: 'server CPU of a connect and its close',
      unit: 'us',
      aims: { 'bare-ws': 1.25, 'nest-ws': 0.85 },
    },
    heapBytes: { title: 'heap of an idle connection', unit: 'bytes', aims: { 'nest-ws': 0.35 } },
  },
  settings: {
    full: { warmUp: 12_000, count: 8_000, idle: 2_000 },
    short: { warmUp: 1_500, count: 1_500, idle: 1_000 },
  },

  run: (name, { warmUp, count, idle }) =>
    withServer(name, {}, async (server, load) => {
      await load.ask('cycle', { count: warmUp });
      await load.ask('open', { count: warmUp });
      await load.ask('closeAll');

      const beforeOpen = server.cpuUs();
      const { opened } = await load.ask('open', { count });
      const connectUs = (server.cpuUs() - beforeOpen) / opened;
      await load.ask('closeAll');

      const beforeCycles = server.cpuUs();
      const { done } = await load.ask('cycle', { count });
      const cycleUs = (server.cpuUs() - beforeCycles) / done;

      // Last, since collections age the code that they find unused.
      await sleep(SERVERS[name].forgetsWithinMs ?? 0);
      const empty = await server.ask('heap');
      await load.ask('open', { count: idle });
      const full = await server.ask('heap');
      return { connectUs, cycleUs, heapBytes: (full.heapUsed - empty.heapUsed) / idle };
    }),
};
