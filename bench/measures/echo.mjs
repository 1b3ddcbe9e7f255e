import { setTimeout as sleep } from 'node:timers/promises';
import { withServer } from '../processes.mjs';

/** By then the messages flow, or have been answered. */
const SETTLED_MS = 200;
const LOOK_EVERY_MS = 20;
const WITHIN_MS = 60_000;

/** What a message and its answer cost. The server has all that it can do; the load waits for it. */
export const echo = {
  id: 'echo',
  title: 'Messages: `{"event":"echo","data":"…"}`, answered by the handler’s return value',
  servers: ['bare-ws', 'ws-heartbeat', 'nest-ws', 'nest-ws-by-hand', 'nest-socket-io', 'ours'],
  metrics: {
    echoUs: {
      title: 'server CPU of a message and its answer',
      unit: 'us',
      aims: { 'bare-ws': 1.2, 'nest-ws': 0.6 },
    },
    echoesPerSecond: {
      title: 'answers a second, 100 connections',
      unit: '/s',
      aims: { 'nest-ws': 1.6 },
    },
    loadShare: { title: 'CPU of the load, beside the server’s', unit: 'x', isCheck: true },
  },
  settings: {
    full: { connections: 100, depth: 10, size: 32, warmUp: 150_000, messages: 300_000 },
    short: { connections: 100, depth: 10, size: 32, warmUp: 60_000, messages: 100_000 },
  },

  run: (name, { connections, depth, size, warmUp, messages }) =>
    withServer(name, {}, async (server, load) => {
      await load.ask('open', { count: connections });
      await load.ask('startEcho', { depth, size });
      const before = await answers(load, warmUp);
      const cpuBefore = server.cpuUs();
      const after = await answers(load, before.replies + messages);
      const cpu = server.cpuUs() - cpuBefore;
      await load.ask('stopEcho');
      const replies = after.replies - before.replies;
      return {
        echoUs: cpu / replies,
        echoesPerSecond: (replies / (after.at - before.at)) * 1_000,
        loadShare: (after.cpuUs - before.cpuUs) / cpu,
      };
    }),
};

/** What a message costs that comes by itself, as most do: nothing that could be read or written along with it. */
export const single = {
  id: 'single',
  title: 'Messages that come one at a time, each on another connection',
  servers: ['bare-ws', 'nest-ws', 'ours'],
  rounds: 2,
  turnsARound: 6,
  metrics: {
    singleUs: {
      title: 'server CPU of a message and its answer',
      unit: 'us',
      aims: { 'bare-ws': 1.2, 'nest-ws': 0.6 },
    },
  },
  settings: {
    full: { connections: 1_000, perSecond: 10_000, size: 32, warmUpMs: 5_000, forMs: 3_000 },
    short: { connections: 300, perSecond: 10_000, size: 32, warmUpMs: 2_000, forMs: 1_500 },
  },

  open: (name, { connections, perSecond, size, warmUpMs, forMs }, use) =>
    withServer(name, {}, async (server, load) => {
      await load.ask('open', { count: connections });
      const cost = async (ms) => {
        await load.ask('startPaced', { perSecond, size });
        await sleep(SETTLED_MS);
        const before = await load.ask('count');
        const cpuBefore = server.cpuUs();
        await sleep(ms);
        const cpu = server.cpuUs() - cpuBefore;
        const after = await load.ask('count');
        await load.ask('stopPaced');
        await sleep(SETTLED_MS);
        const replies = after.replies - before.replies;
        // A server that does not keep up would be measured at another rate than the others.
        if (replies < 0.9 * perSecond * (ms / 1_000))
          throw new Error(`${name} answered ${replies} in ${ms} ms`);
        return cpu / replies;
      };
      await cost(warmUpMs);
      return use(async () => ({ singleUs: await cost(forMs) }));
    }),
};

/**
 * Waits for so many answers, and not for a time: a server that got little of the core in it would not be warm yet, and be
 * measured as it compiles.
 */
async function answers(load, many) {
  for (let waitedMs = 0; waitedMs < WITHIN_MS; waitedMs += LOOK_EVERY_MS) {
    await sleep(LOOK_EVERY_MS);
    const seen = await load.ask('count');
    if (seen.replies >= many) return seen;
  }
  throw new Error(`There were not ${many} answers within ${WITHIN_MS} ms`);
}
