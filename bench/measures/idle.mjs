import { withServer } from '../processes.mjs';

/** Whether a connection stays as small when there are many. */
export const idle = {
  id: 'idle',
  title: '15,000 idle connections',
  servers: ['bare-ws', 'nest-ws', 'ours'],
  rounds: 2,
  metrics: {
    manyHeapBytes: {
      title: 'heap of one of 15,000 idle connections',
      unit: 'bytes',
      aims: { 'nest-ws': 0.35 },
    },
    manyConnectUs: { title: 'server CPU of a connect, the 15,000 together', unit: 'us' },
  },
  settings: { full: { count: 15_000 }, short: { count: 5_000 } },

  run: (name, { count }) =>
    withServer(name, {}, async (server, load) => {
      await load.ask('cycle', { count: 1_000 });
      const empty = await server.ask('heap');
      const before = server.cpuUs();
      const { opened } = await load.ask('open', { count });
      const manyConnectUs = (server.cpuUs() - before) / opened;
      const full = await server.ask('heap');
      return { manyHeapBytes: (full.heapUsed - empty.heapUsed) / opened, manyConnectUs };
    }),
};
