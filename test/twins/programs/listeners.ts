import { once } from 'node:events';
import { message } from '../frames.js';
import { type Difference, type Program, program, type ServerSocket, type Trace } from '../program.js';

const EVENTS = ['message', 'close', 'ping', 'pong', 'error', 'open', 'upgrade', 'exception'] as const;
/** What the application emits itself. */
const EMITTED: Readonly<Record<string, unknown[]>> = {
  message: [Buffer.from('{"event":"go","data":"emitted"}'), false],
  close: [4444, Buffer.from('emitted')],
  error: [new Error('emitted')],
};

const answer = (_client: unknown, data: unknown) => ({ event: 'answer', data });

/** Calls a handler, pings, pongs and closes. */
const uses: Program['client'] = async (clients) => {
  const client = await clients.connect();
  await clients.quiet();
  client.send('go', 1);
  await clients.quiet();
  client.socket.ping('ping');
  client.socket.pong('pong');
  await clients.quiet();
  client.send('go', 2);
  await clients.quiet();
  await client.close(4000, 'reason');
};

function listening(
  name: string,
  connection: (client: ServerSocket, trace: Trace) => unknown,
  more: Pick<Program, 'differs'> = {},
): Program {
  return program(name, { connection, disconnect: () => {}, on: { go: answer } }, uses, more);
}

const EMITTED_CLOSE: Difference = {
  because: 'a close that the application emits',
  module: {
    server: [
      'handleConnection',
      'event close 4444 bytes 656d6974746564',
      'handleDisconnect 4444',
      'emitted true',
      'on go 1',
      'on go 2',
      'event close 4000 bytes 726561736f6e',
    ],
    client: [
      'open',
      'text {"event":"answer","data":1}',
      'pong ping',
      'text {"event":"answer","data":2}',
      'close 4000 reason',
    ],
  },
};

export const listeners: readonly Program[] = [
  ...EVENTS.flatMap((event) => [
    listening(`removeAllListeners('${event}') in handleConnection`, (client) => {
      client.removeAllListeners(event);
    }),
    program(
      `removeAllListeners('${event}') in a handler`,
      {
        connection: (client, trace) => trace.watch(client, 'message', 'close', 'ping', 'pong'),
        disconnect: () => {},
        on: {
          go: (client, data) => {
            client.removeAllListeners(event);
            return answer(client, data);
          },
        },
      },
      uses,
    ),
    listening(`on, once and prependListener of '${event}'`, (client, trace) => {
      for (const how of ['on', 'once', 'prependListener', 'prependOnceListener'] as const)
        client[how as 'on'](event, (...args: unknown[]) => trace.note(`${how} ${event}`, ...args));
    }),
    listening(`a listener of '${event}' that is taken off again`, (client, trace) => {
      const listener = () => trace.note(`event ${event}`);
      client.on(event, listener);
      client.once(event, () => {
        trace.note('once');
        client.off(event, listener);
      });
    }),
    listening(
      `emit('${event}') by the application`,
      (client, trace) => {
        trace.watch(client, event);
        const args = EMITTED[event] ?? ['emitted'];
        setImmediate(() => trace.note('emitted', client.emit(event, ...args)));
      },
      event === 'close' ? { differs: EMITTED_CLOSE } : {},
    ),
  ]),
  listening('removeAllListeners()', (client) => {
    client.removeAllListeners();
  }),
  program(
    'listeners of close, of hooks, handlers and the server, and handleDisconnect',
    {
      init: (server, trace) => {
        server.on('connection', (client) => client.on('close', () => trace.note('close of the server')));
        server.prependListener('connection', (client) =>
          client.on('close', () => trace.note('close of the server, before')),
        );
      },
      connection: (client, trace) => client.on('close', () => trace.note('close of handleConnection')),
      disconnect: (client, trace) => client.on('close', () => trace.note('never')),
      on: {
        go: (client, data, trace) => {
          client.on('close', () => trace.note('close of a handler'));
          client.prependListener('close', () => trace.note('close of a handler, before'));
          return answer(client, data);
        },
      },
    },
    uses,
  ),
  program(
    'listeners of message, of hooks, handlers and the server, and the handlers',
    {
      init: (server, trace) => {
        server.on('connection', (client) => client.on('message', () => trace.note('message of the server')));
        server.prependListener('connection', (client) =>
          client.on('message', () => trace.note('message of the server, before')),
        );
      },
      connection: (client, trace) => client.on('message', () => trace.note('message of handleConnection')),
      on: {
        go: (client, data, trace) => {
          client.on('message', () => trace.note('message of a handler'));
          client.prependListener('message', () => trace.note('message of a handler, before'));
          return answer(client, data);
        },
      },
    },
    uses,
  ),
  listening(
    'the number of its listeners, and their names',
    (client, trace) => {
      const count = () => {
        const counts = EVENTS.map((event) => `${event} ${client.listenerCount(event)}`);
        trace.note('listeners', ...counts.filter((text) => !text.endsWith(' 0')));
        trace.note('names', client.eventNames().map(String).sort());
      };
      count();
      queueMicrotask(count);
    },
    {
      differs: {
        because: 'fewer listeners',
        module: {
          server: [
            'handleConnection',
            'listeners close 1',
            'names ["close"]',
            'listeners message 1 close 2',
            'names ["close","message"]',
            'on go 1',
            'on go 2',
            'handleDisconnect 4000',
          ],
        },
      },
    },
  ),
  listening('handlers as properties', (client, trace) => {
    client.onmessage = ({ data, type }) => trace.note('onmessage', type, data);
    client.onclose = ({ code, reason, wasClean }) => trace.note('onclose', code, reason, wasClean);
    client.onerror = ({ message }) => trace.note('onerror', message);
    trace.note('is set', typeof client.onmessage, typeof client.onopen);
  }),
  listening('addEventListener, also once, and removeEventListener', (client, trace) => {
    const removed = () => trace.note('removed');
    client.addEventListener('message', ({ data }) => trace.note('message', data));
    client.addEventListener('message', ({ data }) => trace.note('message once', data), { once: true });
    client.addEventListener('close', ({ code, reason }) => trace.note('close', code, reason));
    client.addEventListener('message', removed);
    client.removeEventListener('message', removed);
  }),
  listening('binaryType', (client, trace) => {
    client.on('message', (data, isBinary) => trace.note('message', data, isBinary));
    client.binaryType = 'arraybuffer';
    trace.note('type', client.binaryType);
  }),
  program(
    'a first message, awaited with a listener of its own',
    {
      connection: (client, trace) => {
        client.once('message', (data) => {
          trace.note('first', data);
          client.send('welcome');
        });
      },
      on: { go: answer },
    },
    async (clients) => {
      const raw = await clients.connectRaw('/', [message('hello', 'token')]);
      await raw.next();
      raw.write(message('go', 1));
      await raw.next();
    },
  ),
  program(
    'a first message, awaited in an asynchronous handleConnection',
    {
      connection: async (client, trace) => {
        const data = await new Promise((resolve) => client.once('message', resolve));
        trace.note('first', data);
        client.send('welcome');
      },
      on: { go: answer },
    },
    async (clients) => {
      const client = await clients.connect();
      client.send('hello', 'token');
      await client.next();
      client.send('go', 1);
      await client.next();
      await client.close(1000);
    },
  ),
  program(
    'all raw messages during an asynchronous handleConnection',
    {
      connection: async (client, trace) => {
        trace.watch(client, 'message');
        for (let count = 0; count < 3; count++) await once(client, 'message');
        trace.note('connected');
        client.send('connected');
      },
    },
    async (clients) => {
      const raw = await clients.connectRaw('/', [message('one', 1)]);
      for (const name of ['two', 'three']) {
        await clients.quiet();
        raw.write(message(name));
      }
      await raw.frame(1);
    },
  ),
  program(
    'a listener that is told of more than one socket',
    {
      init: (server, trace) => {
        let count = 0;
        server.on('connection', (client, request) => {
          count++;
          trace.note('connection', count, server.clients.size, request.url);
          client.on('message', () => trace.note('clients', server.clients.size));
        });
        server.on('headers', (headers) => trace.note('headers', headers.length));
      },
      on: { go: answer },
    },
    async (clients) => {
      const one = await clients.connect('/?one');
      const two = await clients.connect('/?two');
      one.send('go', 1);
      await one.next();
      two.send('go', 2);
      await two.next();
      await one.close(1000);
      two.send('go', 3);
      await two.next();
      await two.close(1000);
    },
  ),
];
