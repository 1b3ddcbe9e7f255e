import { setTimeout as sleep } from 'node:timers/promises';
import { withServer } from '../processes.mjs';

const CONNECTIONS = 20;
const DATA = Array.from({ length: 12 }, (_, i) => ({
  id: i,
  name: `order ${i}`,
  state: 'shipped',
  total: i * 9.99,
}));

/** One message to all connections of a user. */
export const toUser = {
  id: 'to-user',
  title: 'One message of about 700 bytes to the 20 connections of a user',
  servers: ['bare-ws', 'nest-ws-by-hand', 'ours'],
  rounds: 5,
  metrics: {
    frameUs: { title: 'server CPU of each frame', unit: 'us' },
    serialisations: { title: 'times that the message was serialised', unit: '', isCheck: true },
  },
  settings: { full: { batches: 120 }, short: { batches: 40 } },

  run: (name, { batches }) =>
    withServer(name, {}, async (server, load) => {
      const { firstUser } = await load.ask('open', { count: CONNECTIONS, eachUser: CONNECTIONS });
      const user = `u${firstUser}`;
      const send = async (times) => {
        for (let i = 0; i < times; i++) await server.ask('toUser', { user, count: 50, data: DATA });
        await sleep(100);
      };
      await send(batches / 2);
      const before = await load.ask('count');
      const cpuBefore = server.cpuUs();
      await send(batches);
      const cpu = server.cpuUs() - cpuBefore;
      const after = await load.ask('count');
      const frames = after.replies - before.replies;
      if (frames !== batches * 50 * CONNECTIONS) throw new Error(`${name} sent ${frames} frames`);
      return {
        frameUs: cpu / frames,
        ...(name === 'ours' && (await server.ask('serialisations', { user }))),
      };
    }),
};
