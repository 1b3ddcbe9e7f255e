import { setTimeout as sleep } from 'node:timers/promises';
import { withServer } from '../processes.mjs';

/** What is measured is a beat like any other: after the first, and after whatever the connecting left behind. */
const SETTLED_MS = 2_000;

const WITH_HEARTBEAT = ['ws-heartbeat', 'ws-heartbeat-spread', 'nest-ws-by-hand', 'nest-socket-io', 'ours'];

/** What it costs to know that they are all still there. */
export const heartbeat = {
  id: 'heartbeat',
  title: 'The heartbeat of idle connections',
  servers: WITH_HEARTBEAT,
  rounds: 2,
  turnsARound: 4,
  metrics: {
    beatMs: {
      title: 'server CPU of one whole beat',
      unit: 'ms',
      aims: { 'ws-heartbeat': 1 },
    },
    pingsEach: { title: 'pings that a connection got in it', unit: '', isCheck: true },
  },
  settings: { full: { count: 10_000, beatMs: 15_000 }, short: { count: 3_000, beatMs: 5_000 } },

  /** Beside each other: they only wait for the time to pass, and whatever the machine does in it, it does to all. */
  atOnce: true,

  open: (name, { count, beatMs }, use) =>
    withServer(name, { env: { BEAT_MS: String(beatMs) } }, async (server, load) => {
      await load.ask('open', { count });
      await sleep(beatMs + SETTLED_MS);
      return use(async () => {
        const before = await load.ask('count');
        const cpuBefore = server.cpuUs();
        await sleep(beatMs);
        const cpu = server.cpuUs() - cpuBefore;
        const after = await load.ask('count');
        return { beatMs: cpu / 1_000, pingsEach: (after.pings - before.pings) / count };
      });
    }),
};

/** Who has to wait while everybody is asked. */
export const beside = {
  id: 'beside',
  title: 'One who talks beside idle connections',
  servers: WITH_HEARTBEAT,
  rounds: 2,
  // The one longest stop in a turn is what is measured: two turns would say little.
  turnsARound: 2,
  metrics: {
    slowestEchoMs: { title: 'slowest answer', unit: 'ms', aims: { 'ws-heartbeat': 1 / 8 } },
    p99EchoMs: { title: 'p99 of the answers', unit: 'ms' },
    blockedMs: { title: 'the event loop stood still for at most', unit: 'ms' },
  },
  settings: {
    full: { count: 10_000, beatMs: 5_000, forMs: 12_000 },
    short: { count: 3_000, beatMs: 3_000, forMs: 7_000 },
  },

  run: (name, { count, beatMs, forMs }) =>
    withServer(name, { env: { BEAT_MS: String(beatMs) } }, async (server, load, startLoad) => {
      await load.ask('open', { count });
      // A process of its own: the load is busy with pongs when it matters.
      const talker = await startLoad();
      await talker.ask('open', { count: 1, prefix: 'talker' });
      await talker.ask('probe', { forMs: 1_000, pauseMs: 2, size: 32 });
      await server.ask('watchLoop');
      const { p99, max } = await talker.ask('probe', { forMs, pauseMs: 2, size: 32 });
      const { maxMs } = await server.ask('loopDelay');
      return { slowestEchoMs: max, p99EchoMs: p99, blockedMs: maxMs };
    }),
};

/** A connection that talks has said that it is there. */
export const talkers = {
  id: 'talkers',
  title: 'Connections with traffic',
  servers: WITH_HEARTBEAT,
  rounds: 1,
  metrics: {
    pingsToTalkers: {
      title: 'pings in three beats to each of 100 connections that talk four times a beat',
      unit: '',
    },
  },
  settings: { full: { beatMs: 2_000 }, short: { beatMs: 1_500 } },

  run: (name, { beatMs }) =>
    withServer(name, { env: { BEAT_MS: String(beatMs) } }, async (_server, load) => {
      await load.ask('open', { count: 100 });
      await load.ask('startPaced', { perSecond: (100 * 4_000) / beatMs, size: 32 });
      await sleep(beatMs);
      const before = await load.ask('count');
      await sleep(3 * beatMs);
      const after = await load.ask('count');
      return { pingsToTalkers: (after.pings - before.pings) / 100 };
    }),
};
