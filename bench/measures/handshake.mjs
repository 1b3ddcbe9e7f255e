import { setTimeout as sleep } from 'node:timers/promises';
import { withServer } from '../processes.mjs';

/** How long a newcomer waits at the door of a server that has something to do. */
export const handshake = {
  id: 'handshake',
  title: 'Newcomers, 300 a second, beside 3,000 messages a second',
  servers: ['bare-ws', 'nest-ws', 'ours'],
  rounds: 3,
  metrics: {
    handshakeP50Ms: { title: 'p50 of a handshake', unit: 'ms' },
    handshakeP99Ms: { title: 'p99 of a handshake', unit: 'ms', aims: { 'bare-ws': 1.1 } },
  },
  settings: { full: { warmUpMs: 2_000, forMs: 5_000 }, short: { warmUpMs: 1_000, forMs: 2_000 } },

  run: (name, { warmUpMs, forMs }) =>
    withServer(name, {}, async (_server, load, startLoad) => {
      await load.ask('cycle', { count: 1_500 });
      await load.ask('open', { count: 100 });
      await load.ask('startPaced', { perSecond: 3_000, size: 32 });
      const newcomers = await startLoad();
      await newcomers.ask('arrive', { perSecond: 300, forMs: warmUpMs });
      await sleep(200);
      const { p50, p99, refused } = await newcomers.ask('arrive', { perSecond: 300, forMs });
      if (refused > 0) throw new Error(`${name} refused ${refused}`);
      return { handshakeP50Ms: p50, handshakeP99Ms: p99 };
    }),
};
