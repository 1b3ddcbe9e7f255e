import { setTimeout as sleep } from 'node:timers/promises';
import { withServer } from '../processes.mjs';

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
