import { of } from 'rxjs';
import { type Program, program, type ServerSocket, type Trace } from '../program.js';

/** Names under which an application keeps something on its client. */
const NAMES = [
  ...[
    'id',
    'user',
    'userId',
    'session',
    'sessionKey',
    'data',
    'room',
    'rooms',
    'token',
    'auth',
    'isAlive',
    'alive',
  ],
  ...[
    'gateway',
    'held',
    'stream',
    'streams',
    'tell',
    'tellClose',
    'connection',
    'manager',
    'managerId',
    'state',
  ],
  ...[
    'handlers',
    'socket',
    'transport',
    'server',
    'request',
    'headers',
    'queue',
    'buffer',
    'buffered',
    'pending',
  ],
  ...[
    'messages',
    'subscriptions',
    'subscription',
    'dispatcher',
    'binding',
    'routes',
    'callbacks',
    'next',
    'context',
  ],
  ...['stir', 'writeTo', 'sendUncounted', 'askWhoIsThere', 'takePong', 'holdMessages', 'releaseMessages'],
  ...[
    'emitter',
    'events',
    'timer',
    'interval',
    'heartbeat',
    'lastSeen',
    'closed',
    'detached',
    'ready',
    'metadata',
  ],
  ...[
    'write',
    'cork',
    'uncork',
    'end',
    'destroy',
    'sender',
    'receiver',
    'options',
    'path',
    'namespace',
    'handshake',
  ],
];

const VALUES: Readonly<Record<string, unknown>> = {
  true: true,
  'an object': { of: 'the application' },
  'a function': function ofTheApplication() {},
  undefined: undefined,
};

/** Uses all ways in which something goes to and from a client. */
const parts = (assign: (client: ServerSocket, trace: Trace) => void) => ({
  connection: (client: ServerSocket, trace: Trace) => {
    trace.watch(client, 'close');
    assign(client, trace);
    client.send('welcome');
  },
  disconnect: () => {},
  on: {
    go: (client: ServerSocket, data: never, trace: Trace) => {
      client.send('text', trace.callback('text'));
      client.send(Buffer.from('bytes'));
      return { event: 'answer', data };
    },
    stream: () => of({ event: 'one' }, { event: 'two' }),
    reject: async (_client: ServerSocket, _data: never, trace: Trace) => {
      throw trace.fault('rejected');
    },
  },
});

const uses: Program['client'] = async (clients) => {
  const client = await clients.connect();
  await client.next();
  client.send('go', 1);
  await client.next(3);
  client.send('stream');
  await client.next(2);
  client.send('reject');
  await client.next();
  client.socket.ping('ping');
  await clients.quiet(10);
  await client.close(1000);
};

/** Puts something of the application's around a method. */
function wrapped(method: 'send' | 'close' | 'terminate' | 'ping' | 'pause' | 'emit' | 'on' | 'once' | 'off') {
  return program(
    `a wrapper around ${method}()`,
    {
      connection: (client, trace) => {
        const isOfListeners = ['on', 'once', 'off'].includes(method);
        const original = client[method] as (...args: unknown[]) => unknown;
        Object.assign(client, {
          [method]: function ofTheApplication(this: unknown, ...args: unknown[]) {
            // How many listeners there are is a difference of its own.
            if (!isOfListeners) trace.note(`${method}()`, ...args.slice(0, 1));
            return original.apply(this, args);
          },
        });
        trace.watch(client, 'message', 'close');
        client.send('welcome');
      },
      disconnect: () => {},
      on: {
        go: (client, data) => {
          client.send('text');
          client.send(Buffer.from('bytes'));
          client.ping('ping');
          return { event: 'answer', data };
        },
        stream: () => of({ event: 'one' }, { event: 'two' }),
        pause: (client) => {
          client.pause();
          client.resume();
        },
        end: (client, data) => (data === 'close' ? client.close(4000, 'end') : client.terminate()),
      },
    },
    async (clients) => {
      const client = await clients.connect();
      await client.next();
      client.send('go', 1);
      await client.next(3);
      client.send('stream');
      await client.next(2);
      client.send('pause');
      await clients.quiet();
      client.send('end', method === 'terminate' ? 'terminate' : 'close');
      await client.closed();
    },
  );
}

export const properties: readonly Program[] = [
  ...NAMES.map((name) =>
    program(
      `client.${name} = an object`,
      parts((client) => {
        client[name] = VALUES['an object'];
      }),
      uses,
    ),
  ),
  ...Object.entries(VALUES).map(([what, value]) =>
    program(
      `all of these names are set to ${what}`,
      parts((client) => {
        for (const name of NAMES) client[name] = value;
      }),
      uses,
    ),
  ),
  program(
    'client.gateway = this, and the client leaves',
    {
      connection(client, trace) {
        trace.watch(client, 'close');
        Object.assign(client, { gateway: { of: 'the application' } });
      },
      disconnect: (client, trace) => trace.note('gateway', client.gateway),
      on: { go: (_client, data) => ({ event: 'answer', data }) },
    },
    async (clients) => {
      const client = await clients.connect();
      client.send('go', 1);
      await client.next();
      await client.close(1000);
    },
  ),
  program(
    'each own key is read, written and deleted',
    parts((client) => {
      for (const key of Object.keys(client)) {
        const value = client[key];
        client[key] = value;
      }
      Object.assign(client, { ofTheApplication: 1 });
      delete client.ofTheApplication;
    }),
    uses,
  ),
  program(
    'what it is made of',
    parts((client, trace) => {
      const own = Object.keys(client);
      trace.note('own', ...own.filter((key) => !key.startsWith('_')).sort());
      trace.note('own, private', ...own.filter((key) => key.startsWith('_')).sort());
      trace.note('class', client.constructor.name, Object.prototype.toString.call(client), typeof client);
      const prototypes: string[] = [];
      for (let at = Object.getPrototypeOf(client); at; at = Object.getPrototypeOf(at)) {
        if (!prototypes.includes(at.constructor.name)) prototypes.push(at.constructor.name);
      }
      trace.note('prototypes', ...prototypes);
      const madeBy = client.constructor as unknown as Record<string, unknown>;
      trace.note('constants', madeBy.OPEN, madeBy.CLOSED, client.OPEN, client.CLOSED);
      trace.note(
        'properties',
        client.protocol,
        client.extensions,
        client.url,
        client.binaryType,
        client.isPaused,
      );
    }),
    uses,
  ),
  program(
    'which names it inherits, and how many parameters its methods have',
    {
      connection: (client, trace) => {
        const inherited: string[] = [];
        for (const key in client) if (!Object.hasOwn(client, key)) inherited.push(key);
        trace.note('inherited', inherited.length, inherited.includes('emit'));
        trace.note(
          'arity',
          client.send.length,
          client.close.length,
          client.ping.length,
          client.terminate.length,
        );
      },
    },
    async (clients) => {
      await clients.connect();
    },
    {
      differs: {
        because: 'methods of a subclass',
        module: { server: ['handleConnection', 'inherited 32 true', 'arity 3 2 0 0'] },
      },
    },
  ),
  program(
    'all names that its prototypes have',
    parts((client, trace) => {
      const names = new Set<string>();
      for (
        let at = Object.getPrototypeOf(client);
        at && at !== Object.prototype;
        at = Object.getPrototypeOf(at)
      ) {
        for (const name of Object.getOwnPropertyNames(at)) names.add(name);
      }
      trace.note(
        'names',
        ...([...names]
          .sort()
          .join(' ')
          .match(/.{1,70}/g) ?? []),
      );
    }),
    uses,
  ),
  program(
    'instanceof the class of the platform',
    {
      beforeBoot: (ws) => {
        classes.set('platform', ws.WebSocket);
      },
      connection: (client, trace) => {
        trace.note('is a WebSocket', client instanceof (classes.get('platform') as typeof Object));
      },
    },
    async (clients) => {
      const client = await clients.connect();
      await client.close(1000);
    },
  ),
  program(
    'it is sealed',
    parts((client) => {
      Object.preventExtensions(client);
    }),
    uses,
  ),
  program(
    'it is kept in a Map, a WeakMap and a Set, by itself',
    {
      connection: (client) => {
        seen.set(client, 'its data');
      },
      on: {
        go: (client) => ({ event: 'answer', data: seen.get(client) ?? 'unknown' }),
      },
      disconnect: (client, trace) => trace.note('data', seen.get(client)),
    },
    async (clients) => {
      const client = await clients.connect();
      client.send('go');
      await client.next();
      await client.close(1000);
    },
  ),
  ...(['send', 'close', 'terminate', 'ping', 'pause', 'emit', 'on', 'once', 'off'] as const).map(wrapped),
  program(
    'send() is taken off the prototype and called for it',
    parts((client) => {
      const prototype = Object.getPrototypeOf(client) as typeof client;
      Reflect.apply(prototype.send, client, ['by the prototype']);
    }),
    async (clients) => {
      const client = await clients.connect();
      await client.next(2);
      await client.close(1000);
    },
  ),
  ...(['before', 'after'] as const).flatMap((when) => [
    program(
      `a tracer patches WebSocket.prototype.send ${when} the boot`,
      { ...traced(), [`${when}Boot`]: (ws: typeof import('ws')) => patch(ws.WebSocket.prototype, 'send') },
      patchedUse,
      { isAlone: true },
    ),
    program(
      `a tracer patches the Sender ${when} the boot`,
      {
        ...traced(),
        [`${when}Boot`]: (ws: typeof import('ws')) => {
          const { Sender } = ws as unknown as { Sender: { prototype: object } };
          patch(Sender.prototype, 'send');
        },
      },
      patchedUse,
      { isAlone: true },
    ),
  ]),
  program(
    'a tracer patches WebSocket.prototype.emit and close',
    {
      ...traced(),
      afterBoot: (ws) => {
        for (const method of ['emit', 'close']) patch(ws.WebSocket.prototype, method);
      },
    },
    patchedUse,
    { isAlone: true },
  ),
];

const classes = new Map<string, unknown>();
const seen = new WeakMap<object, string>();

async function patchedUse(clients: Parameters<Program['client']>[0]): Promise<void> {
  const client = await clients.connect();
  await client.next();
  client.send('go', 1);
  await client.next(3);
  client.send('stream');
  await client.next(2);
  client.send('patched');
  await client.next();
  await client.close(1000);
}

/** As {@link parts}, and tells what the tracer has seen. */
function traced() {
  const usual = parts(() => {});
  const patched = (_client: ServerSocket, _data: never, trace: Trace) => {
    for (const call of calls.splice(0)) trace.note(`traced ${call}`);
    return { event: 'patched' };
  };
  return { ...usual, on: { ...usual.on, patched } };
}

/** What was called, by its first argument. */
const calls: string[] = [];

function patch(prototype: object, method: string): void {
  const original = (prototype as Record<string, (...args: unknown[]) => unknown>)[method];
  Object.assign(prototype, {
    [method](this: unknown, ...args: unknown[]) {
      calls.push(`${method} ${String(args[0]).slice(0, 20)}`);
      return original?.apply(this, args);
    },
  });
}
