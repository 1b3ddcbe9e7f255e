import { setTimeout as sleep } from 'node:timers/promises';
import { withServer } from '../processes.mjs';

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
    full: { connections: 100, depth: 10, size: 32, warmUpMs: 2_000, forMs: 3_000 },
    short: { connections: 100, depth: 10, size: 32, warmUpMs: 1_200, forMs: 1_500 },
  },

  run: (name, { connections, depth, size, warmUpMs, forMs }) =>
    withServer(name, {}, async (server, load) => {
      await load.ask('open', { count: connections });
      await load.ask('startEcho', { depth, size });
      await sleep(warmUpMs);
      const before = await load.ask('count');
      const cpuBefore = server.cpuUs();
      await sleep(forMs);
      const after = await load.ask('count');
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
