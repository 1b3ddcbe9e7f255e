import { withServer } from '../processes.mjs';

/** What a connection costs to open, and to open and close. */
export const door = {
  id: 'door',
  title: 'Connecting',
  servers: ['bare-ws', 'ws-heartbeat', 'nest-ws', 'nest-ws-by-hand', 'nest-socket-io', 'ours', 'ours-async'],
  turnsARound: 20,
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
    connectP99Ms: { title: 'p99 of a handshake, 50 at a time', unit: 'ms', aims: { 'bare-ws': 1.1 } },
  },
  settings: {
    full: { warmUp: 15_000, count: 1_000 },
    short: { warmUp: 6_000, count: 500 },
  },

  open: (name, { warmUp, count }, use) =>
    withServer(name, {}, async (server, load) => {
      const costOf = async (command) => {
        const before = server.cpuUs();
        const seen = await load.ask(command, { count });
        return { us: (server.cpuUs() - before) / count, seen };
      };
      await load.ask('cycle', { count: warmUp });
      await load.ask('open', { count: warmUp / 3 });
      await load.ask('closeAll');
      return use(async () => {
        const cycle = await costOf('cycle');
        const connect = await costOf('open');
        await load.ask('closeAll');
        return { connectUs: connect.us, cycleUs: cycle.us, connectP99Ms: connect.seen.p99 };
      });
    }),
};
