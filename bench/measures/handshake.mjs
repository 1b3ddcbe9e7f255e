import { setTimeout as sleep } from 'node:timers/promises';
import { withServer } from '../processes.mjs';

// Each turn has a server of its own: one that waits for its next turn collects what it has left, in that of somebody else.

/** By then the messages flow. */
const SETTLED_MS = 200;

const SERVERS = ['bare-ws', 'nest-ws', 'ours'];
const TURNS = { rounds: 2, turnsARound: 4 };
const P50 = { title: 'p50 of a handshake', unit: 'ms' };
const P99 = { title: 'p99 of a handshake', unit: 'ms', aims: { 'bare-ws': 1.1 } };

/** How long a newcomer waits at the door of a server that has nothing to do but newcomers, and as many as it can take. */
export const storm = {
  id: 'storm',
  title: 'Newcomers as fast as they are let in, 50 at a time',
  servers: SERVERS,
  ...TURNS,
  metrics: {
    leavingP50Ms: { ...P50, title: `${P50.title} where each leaves at once` },
    leavingP99Ms: { ...P99, title: `${P99.title} where each leaves at once` },
    stayingP50Ms: { ...P50, title: `${P50.title} where all of a burst stay` },
    stayingP99Ms: { ...P99, title: `${P99.title} where all of a burst stay` },
  },
  settings: {
    full: { warmUp: 8_000, leaving: 12_000, bursts: 8, count: 1_000 },
    short: { warmUp: 2_000, leaving: 2_000, bursts: 2, count: 500 },
  },

  run: (name, { warmUp, leaving, bursts, count }) =>
    withServer(name, {}, async (_server, load) => {
      const concurrency = 50;
      await load.ask('cycle', { count: warmUp, concurrency });
      await load.ask('crowd', { bursts: 1, count, concurrency });
      const whoLeave = await load.ask('cycle', { count: leaving, concurrency });
      const whoStay = await load.ask('crowd', { bursts, count, concurrency });
      return {
        leavingP50Ms: whoLeave.p50,
        leavingP99Ms: whoLeave.p99,
        stayingP50Ms: whoStay.p50,
        stayingP99Ms: whoStay.p99,
      };
    }),
};

/** How long a newcomer waits at the door of a server that has messages to handle: so many a second, so many at a time. */
function newcomers({ id, title, perSecond, depth }) {
  return {
    id,
    title,
    servers: SERVERS,
    ...TURNS,
    metrics: {
      handshakeP50Ms: P50,
      handshakeP99Ms: P99,
      busyPercent: { title: 'how busy the server was', unit: '%', isCheck: true },
    },
    settings: { full: { warmUpMs: 4_000, forMs: 16_000 }, short: { warmUpMs: 1_000, forMs: 2_000 } },

    run: (name, { warmUpMs, forMs }) =>
      withServer(name, {}, async (server, load) => {
        // One process for both: two would wait for each other's share of their core, and that would be in the p99.
        await load.ask('open', { count: 100 });
        const arrive = async (ms) => {
          await load.ask('startPaced', { perSecond, depth, size: 32 });
          await sleep(SETTLED_MS);
          const [cpuUs, startedAt] = [server.cpuUs(), performance.now()];
          const seen = await load.ask('arrive', { perSecond: 300, forMs: ms });
          const busyPercent = (server.cpuUs() - cpuUs) / (performance.now() - startedAt) / 10;
          await load.ask('stopPaced');
          return { ...seen, busyPercent };
        };
        await load.ask('cycle', { count: 6_000 });
        await arrive(warmUpMs);
        const { p50, p99, refused, busyPercent } = await arrive(forMs);
        if (refused > 0) throw new Error(`${name} refused ${refused}`);
        return { handshakeP50Ms: p50, handshakeP99Ms: p99, busyPercent };
      }),
  };
}

export const handshake = newcomers({
  id: 'handshake',
  title: 'Newcomers, 300 a second, beside 25,000 messages a second to a handler, eight at a time',
  perSecond: 25_000,
  depth: 8,
});

/** Of a server that rests for most of the time, the p99 is what its collector makes of it. */
export const handshakeCalm = newcomers({
  id: 'handshake-calm',
  title: 'Newcomers, 300 a second, beside 3,000 messages a second to a handler, one at a time',
  perSecond: 3_000,
  depth: 1,
});
