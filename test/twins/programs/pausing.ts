import { setTimeout as sleep } from 'node:timers/promises';
import { closeFrame, message } from '../frames.js';
import { type Program, program } from '../program.js';

const answer = (_client: unknown, data: unknown) => ({ event: 'answer', data });

export const pausing: readonly Program[] = [
  program(
    'pause() in handleConnection, resume() later',
    {
      connection: (client, trace) => {
        client.pause();
        trace.note('paused', client.isPaused);
        setTimeout(() => {
          trace.note('resumes', client.isPaused);
          client.resume();
        }, 50);
      },
      on: { go: answer },
    },
    async (clients) => {
      const client = await clients.connect();
      client.send('go', 1);
      client.send('go', 2);
      await client.next(2);
      await client.close(1000);
    },
  ),
  program(
    'pause() in a handler, with more messages in the same read',
    {
      on: {
        pause: (client, _data, trace) => {
          client.pause();
          setTimeout(() => {
            trace.note('resumes', client.isPaused);
            client.resume();
          }, 50);
        },
        go: answer,
      },
    },
    async (clients) => {
      const raw = await clients.connectRaw();
      raw.write(message('pause'), message('go', 1), message('go', 2));
      await clients.quiet(20);
      raw.write(message('go', 3));
      await raw.next(3);
    },
  ),
  program(
    'pause() and resume() in one turn',
    {
      on: {
        go: (client, data, trace) => {
          client.pause();
          trace.note('paused', client.isPaused);
          client.resume();
          trace.note('paused', client.isPaused);
          return answer(client, data);
        },
      },
    },
    async (clients) => {
      const client = await clients.connect();
      client.send('go', 1);
      client.send('go', 2);
      await client.next(2);
      await client.close(1000);
    },
  ),
  program(
    'sends while it is paused',
    {
      connection: (client) => {
        client.pause();
        client.send('one');
        setImmediate(() => {
          client.send('two');
          client.resume();
        });
      },
    },
    async (clients) => {
      const client = await clients.connect();
      await client.next(2);
      await client.close(1000);
    },
  ),
  program(
    'close() while it is paused, and nothing is resumed',
    {
      connection: (client, trace) => {
        trace.watch(client, 'message', 'close');
        client.pause();
      },
      on: {},
      disconnect: () => {},
      init: (server, trace) => {
        server.on('connection', (client) =>
          setTimeout(() => {
            client.close(4000);
            trace.note('paused', client.isPaused, client.readyState);
          }, 30),
        );
      },
    },
    async (clients) => {
      const raw = await clients.connectRaw();
      raw.write(message('go', 1));
      await raw.next();
      raw.write(closeFrame(4000));
      await clients.quiet(100);
    },
  ),
  program(
    'close() while it is paused, with messages that wait, then resume()',
    {
      connection: (client, trace) => {
        trace.watch(client, 'message', 'close');
        client.pause();
        setTimeout(() => {
          client.close(4000);
          trace.note('paused', client.isPaused, client.readyState);
        }, 30);
        setTimeout(() => {
          trace.note('resumes', client.isPaused);
          client.resume();
        }, 60);
      },
      on: { go: answer },
      disconnect: () => {},
    },
    async (clients) => {
      const client = await clients.connect();
      client.send('go', 1);
      client.send('go', 2);
      await client.closed();
    },
  ),
  program(
    'the client closes while the server is paused',
    {
      connection: (client, trace) => {
        trace.watch(client, 'message', 'close');
        client.pause();
        setTimeout(() => {
          trace.note('state', client.readyState);
          client.resume();
        }, 60);
      },
      on: { go: answer },
      disconnect: () => {},
    },
    async (clients) => {
      const raw = await clients.connectRaw();
      raw.write(message('go', 1), closeFrame(1000));
      await raw.closed();
    },
  ),
  program(
    'the client vanishes while the server is paused',
    {
      connection: (client, trace) => {
        trace.watch(client, 'message', 'close', 'error');
        client.pause();
        setTimeout(() => {
          trace.note('state', client.readyState, client.isPaused);
          client.resume();
        }, 60);
      },
      on: { go: answer },
      disconnect: () => {},
    },
    async (clients) => {
      const client = await clients.connect();
      client.send('go', 1);
      await clients.quiet(20);
      client.socket.terminate();
      await clients.quiet(100);
    },
  ),
  program(
    'a handler that works message by message',
    {
      on: {
        go: async (client, data, trace) => {
          client.pause();
          await sleep(10);
          trace.note('done', data);
          client.resume();
          return answer(client, data);
        },
      },
    },
    async (clients) => {
      const client = await clients.connect();
      for (let i = 0; i < 4; i++) {
        client.send('go', i);
        await client.next();
      }
      await client.close(1000);
    },
  ),
];
