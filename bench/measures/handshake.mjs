import { setTimeout as sleep } from 'node:timers/promises';
import { withServer } from '../processes.mjs';

/** By then the messages flow. */
const SETTLED_MS = 200;

/**
 * How long a newcomer waits at the door of a server that has something to do: messages with this event.
 * `nodeArgs`: of all servers.
 */
function newcomers({ id, title, event, nodeArgs = [] }) {
  return {
    id,
    title,
    servers: ['bare-ws', 'nest-ws', 'ours'],
    rounds: 2,
    turnsARound: 4,
    metrics: {
      handshakeP50Ms: { title: 'p50 of a handshake', unit: 'ms' },
      handshakeP99Ms: { title: 'p99 of a handshake', unit: 'ms', aims: { 'bare-ws': 1.1 } },
    },
    settings: { full: { warmUpMs: 5_000, forMs: 16_000 }, short: { warmUpMs: 1_000, forMs: 2_000 } },

    open: (name, settings, use) =>
      withServer(name, { nodeArgs }, async (_server, load) => {
        // One process for both: two would wait for each other's share of their core, and that would be in the p99.
        await load.ask('open', { count: 100 });
        const arrive = async (ms) => {
          await load.ask('startPaced', { perSecond: 3_000, size: 32, event });
          await sleep(SETTLED_MS);
          const seen = await load.ask('arrive', { perSecond: 300, forMs: ms });
          await load.ask('stopPaced');
          return seen;
        };
        await load.ask('cycle', { count: 6_000 });
        await arrive(settings.warmUpMs);
        return use(async () => {
          const { p50, p99, refused } = await arrive(settings.forMs);
          if (refused > 0) throw new Error(`${name} refused ${refused}`);
          return { handshakeP50Ms: p50, handshakeP99Ms: p99 };
        });
      }),
  };
}

/** What a handler of Nest's costs, with its guards, pipes and filters, is in every one of these handshakes. */
export const handshake = newcomers({
  id: 'handshake',
  title: 'Newcomers, 300 a second, beside 3,000 messages a second to a handler',
  event: 'echo',
});

/** The same without that: what is left is the door, and reading messages. */
export const handshakeAlone = newcomers({
  id: 'handshake-alone',
  title: 'Newcomers, 300 a second, beside 3,000 messages a second that no handler is for',
  event: 'nobody',
});

/**
 * On the one core that a server has here, V8's threads that collect take turns with the one that serves, the longer the
 * more heap there is. This is what is left where that one collects by itself.
 */
export const handshakeOneThread = newcomers({
  id: 'handshake-one-thread',
  title:
    'Newcomers beside messages that no handler is for, all servers collecting in their one thread (`node --single-threaded-gc`)',
  event: 'nobody',
  nodeArgs: ['--single-threaded-gc'],
});
