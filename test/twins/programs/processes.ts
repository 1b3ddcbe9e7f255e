import { Observable } from 'rxjs';
import { later } from '../generated.js';
import { type Outcome, type Program, program, type ServerSocket, type Trace } from '../program.js';

type Fatal = (client: ServerSocket, trace: Trace) => unknown;

/** A program whose client calls `go`, which ends the process. */
function fatal(name: string, go: Fatal, more: Pick<Program, 'differs'> = {}): Program {
  return program(
    name,
    {
      connection: (client) => client.send('welcome'),
      on: { go: (client, _data, trace) => go(client, trace) },
    },
    async (clients) => {
      const client = await clients.connect();
      await client.next();
      client.send('go');
      await client.closed();
    },
    { isAlone: true, ...more },
  );
}

const crash = (trace: Trace) => {
  throw trace.fault('crash');
};

const CLOSING = 'text {"event":"ws:closing","data":{"code":1011,"reason":"internal","retryable":true}}';

/** On the platform it ends the process. */
function listenerFailing(
  event: 'message' | 'close',
  how: 'throws' | 'rejects',
  module: Partial<Outcome>,
): Program {
  const fail = (trace: Trace) => {
    if (how === 'throws') throw trace.fault('of-a-listener');
    return Promise.reject(trace.fault('of-a-listener'));
  };
  return program(
    `a listener of ${event} ${how}`,
    {
      connection: (client, trace) => client.on(event, () => fail(trace)),
      disconnect: () => {},
      on: { go: (_client, data) => ({ event: 'answer', data }) },
    },
    async (clients) => {
      const client = await clients.connect();
      client.send('go', 1);
      await clients.quiet();
      await client.close(1000);
      await clients.quiet();
    },
    {
      isAlone: 'on the platform',
      differs: {
        because: 'listeners do not end the process',
        module: { log: ['fault of-a-listener'], process: 'runs', ...module },
      },
    },
  );
}

export const processes: readonly Program[] = [
  fatal('send(), process.exit()', (client) => {
    client.send('bye');
    process.exit(3);
  }),
  fatal('send() of text and bytes, process.exit()', (client) => {
    client.send('text');
    client.send(Buffer.from('bytes'));
    client.send('text again');
    process.exit(3);
  }),
  fatal('send(), process.exit() in a microtask', (client) => {
    client.send('bye');
    later('microtask', () => process.exit(3));
  }),
  fatal('send(), process.exit() in a tick', (client) => {
    later('tick', () => process.exit(3));
    client.send('bye');
  }),
  fatal('send() in an immediate, process.exit()', (client) =>
    later('immediate', () => {
      client.send('bye');
      process.exit(3);
    }),
  ),
  fatal('send(), close(), process.exit()', (client) => {
    client.send('bye');
    client.close(4000, 'exits');
    process.exit(3);
  }),
  fatal('send(), a crash in a timer', (client, trace) =>
    later('turns', () => {
      client.send('bye');
      crash(trace);
    }),
  ),
  fatal('send(), a crash in a tick', (client, trace) =>
    later('tick', () => {
      client.send('bye');
      crash(trace);
    }),
  ),
  fatal('send(), a rejection that is not handled', (client, trace) => {
    client.send('bye');
    void Promise.reject(trace.fault('not-handled'));
  }),
  fatal('send(), process.abort()', (client) => {
    client.send('bye');
    process.abort();
  }),
  fatal('a callback of send() that exits', (client) => {
    client.send('bye', () => process.exit(3));
  }),
  fatal(
    'an Observable that emits and exits in its next turn',
    () =>
      new Observable((subscriber) => {
        subscriber.next({ event: 'first' });
        subscriber.next({ event: 'second' });
        later('immediate', () => process.exit(3));
      }),
  ),
  program(
    'send() in handleConnection, process.exit()',
    {
      connection: (client) => {
        client.send('bye');
        process.exit(3);
      },
    },
    async (clients) => {
      const client = await clients.connect();
      await client.closed();
    },
    { isAlone: true },
  ),
  program(
    'answers of one read, and a handler that exits',
    {
      on: {
        go: (_client, data) => ({ event: 'answer', data }),
        exit: async () => {
          await null;
          later('immediate', () => process.exit(3));
        },
      },
    },
    async (clients) => {
      const client = await clients.connect();
      client.socket.pause();
      client.send('go', 1);
      client.send('go', 2);
      client.send('exit');
      client.send('go', 3);
      client.socket.resume();
      await client.closed();
    },
    { isAlone: true },
  ),
  listenerFailing('message', 'throws', {
    server: ['handleConnection', 'handleDisconnect 1011'],
    client: ['open', CLOSING, 'close 1011 internal'],
  }),
  listenerFailing('close', 'throws', { server: ['handleConnection', 'on go 1', 'handleDisconnect 1000'] }),
  listenerFailing('message', 'rejects', {
    server: ['handleConnection', 'on go 1', 'handleDisconnect 1011'],
    client: ['open', 'text {"event":"answer","data":1}', CLOSING, 'close 1011 internal'],
  }),
  listenerFailing('close', 'rejects', {}),
  program(
    'a callback of send() throws',
    {
      on: {
        go: (client, _data, trace) => {
          client.send('text', () => crash(trace));
          return { event: 'answer' };
        },
      },
    },
    async (clients) => {
      const client = await clients.connect();
      client.send('go');
      await client.closed();
    },
    { isAlone: true },
  ),
];
