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
  },
  settings: {
    full: { warmUp: 15_000, count: 1_000 },
    short: { warmUp: 6_000, count: 500 },
  },

  open: (name, { warmUp, count }, use) =>
    withServer(name, {}, async (server, load) => {
      const costOf = async (command) => {
        const before = server.cpuUs();
        await load.ask(command, { count });
        return (server.cpuUs() - before) / count;
      };
      await load.ask('cycle', { count: warmUp });
      await load.ask('open', { count: warmUp / 3 });
      await load.ask('closeAll');
      return use(async () => {
        const cycleUs = await costOf('cycle');
        const connectUs = await costOf('open');
        await load.ask('closeAll');
        return { connectUs, cycleUs };
      });
    }),
};
