import { setTimeout as sleep } from 'node:timers/promises';
import { withServer } from '../processes.mjs';

/** By then the messages flow. */
const SETTLED_MS = 200;

/** How long a newcomer waits at the door of a server that has something to do. */
export const handshake = {
  id: 'handshake',
  title: 'Newcomers, 300 a second, beside 3,000 messages a second',
  servers: ['bare-ws', 'nest-ws', 'ours'],
  rounds: 2,
  turnsARound: 8,
  metrics: {
    handshakeP50Ms: { title: 'p50 of a handshake', unit: 'ms' },
    handshakeP99Ms: { title: 'p99 of a handshake', unit: 'ms', aims: { 'bare-ws': 1.1 } },
  },
  settings: { full: { warmUpMs: 5_000, forMs: 8_000 }, short: { warmUpMs: 1_000, forMs: 2_000 } },

  open: (name, { warmUpMs, forMs }, use) =>
    withServer(name, {}, async (_server, load) => {
      // One process for both: two would wait for each other's share of their core, and that would be in the p99.
      await load.ask('open', { count: 100 });
      const arrive = async (ms) => {
        await load.ask('startPaced', { perSecond: 3_000, size: 32 });
        await sleep(SETTLED_MS);
        const seen = await load.ask('arrive', { perSecond: 300, forMs: ms });
        await load.ask('stopPaced');
        return seen;
      };
      await load.ask('cycle', { count: 6_000 });
      await arrive(warmUpMs);
      return use(async () => {
        const { p50, p99, refused } = await arrive(forMs);
        if (refused > 0) throw new Error(`${name} refused ${refused}`);
        return { handshakeP50Ms: p50, handshakeP99Ms: p99 };
      });
    }),
};
