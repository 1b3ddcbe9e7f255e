import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { delay, from, map, of, throwError } from 'rxjs';
import { clientFrame, closeFrame, message } from '../frames.js';
import { later } from '../generated.js';
import { type Program, program, type ServerSocket, type Trace } from '../program.js';

type Action = (client: ServerSocket, trace: Trace) => void;

/** Ways in which an application ends a connection. */
const ENDS: Readonly<Record<string, Action>> = {
  'close()': (client) => client.close(),
  'close(1000, bye)': (client) => client.close(1000, 'bye'),
  'close(4000)': (client) => client.close(4000),
  'close() twice': (client) => {
    client.close(4001, 'first');
    client.close(4002, 'second');
  },
  'close(), then terminate()': (client) => {
    client.close(4000);
    client.terminate();
  },
  'terminate()': (client) => client.terminate(),
  'send(), close()': (client) => {
    client.send('bye');
    client.close(4000, 'gone');
  },
  'send(), terminate()': (client) => {
    client.send('bye');
    client.terminate();
  },
  'send() of text and bytes, terminate()': (client) => {
    client.send('kicked');
    client.send(Buffer.from('bytes'), { binary: true });
    client.terminate();
  },
  'send() of bytes and text, terminate()': (client) => {
    client.send(Buffer.from('bytes'));
    client.send('kicked');
    client.terminate();
  },
  'send() with callbacks, terminate()': (client, trace) => {
    client.send('one', trace.callback('one'));
    client.send('two', trace.callback('two'));
    client.terminate();
    trace.note('state', client.readyState);
  },
  'send() with callbacks, close()': (client, trace) => {
    client.send('one', trace.callback('one'));
    client.close(4000);
    client.send('two', trace.callback('two'));
    trace.note('state', client.readyState, client.bufferedAmount);
  },
  'close(), send()': (client, trace) => {
    client.close(4000);
    client.send('too late');
    trace.note('buffered', client.bufferedAmount);
  },
  'terminate(), send() with and without a callback': (client, trace) => {
    client.terminate();
    client.send('too late');
    client.send('too late', trace.callback('too late'));
    client.ping('too late', undefined, trace.callback('ping'));
    trace.note('state', client.readyState, client.bufferedAmount);
  },
  'pause(), close()': (client, trace) => {
    client.pause();
    client.close(4000);
    trace.note('paused', client.isPaused);
    setTimeout(() => {
      trace.note('paused', client.isPaused, client.readyState);
      client.resume();
    }, 40);
  },
  'pause(), terminate()': (client, trace) => {
    client.pause();
    client.terminate();
    trace.note('paused', client.isPaused);
  },
  'ping(), close()': (client) => {
    client.ping('ping');
    client.close(4000);
  },
  'close() of a wrong code': (client, trace) => {
    try {
      client.close(1);
    } catch (error) {
      trace.note('threw', error);
    }
    trace.note('state', client.readyState);
    client.close();
  },
  'close() of a long reason': (client, trace) => {
    try {
      client.close(4000, 'x'.repeat(200));
    } catch (error) {
      trace.note('threw', error);
    }
    trace.note('state', client.readyState);
    client.close();
  },
  'close() of a reason in bytes': (client) => client.close(4000, Buffer.from('bytes')),
  '60 kB, terminate()': (client) => {
    client.send('x'.repeat(60_000));
    client.terminate();
  },
  'the end of the socket': (client) => {
    (client._socket as { end(): void }).end();
  },
};

const PLACES: Readonly<Record<string, (client: ServerSocket, trace: Trace, end: Action) => unknown>> = {
  'a handler': (client, trace, end) => {
    end(client, trace);
    return { event: 'answer', data: 'after it' };
  },
  'a promise': async (client, trace, end) => {
    await null;
    end(client, trace);
    return { event: 'answer', data: 'after it' };
  },
  'an Observable': (client, trace, end) =>
    of(1, 2).pipe(
      map((n) => {
        if (n === 2) end(client, trace);
        return { event: 'answer', data: n };
      }),
    ),
  'a tick': (client, trace, end) => {
    later('tick', () => end(client, trace));
    return { event: 'answer', data: 'before it' };
  },
  'an immediate': (client, trace, end) => {
    later('immediate', () => end(client, trace));
    return { event: 'answer', data: 'before it' };
  },
};

function* endsFromEverywhere(): Generator<Program> {
  const disconnect = (client: ServerSocket, trace: Trace) => trace.note('state', client.readyState);
  for (const [name, end] of Object.entries(ENDS)) {
    yield program(
      `${name} in handleConnection`,
      {
        connection: (client, trace) => {
          trace.watch(client, 'close', 'error');
          end(client, trace);
        },
        disconnect,
        on: { go: () => ({ event: 'answer' }) },
      },
      async (clients) => {
        const client = await clients.connect();
        await client.closed();
      },
    );
    for (const [place, work] of Object.entries(PLACES)) {
      yield program(
        `${name} in ${place}`,
        {
          connection: (client, trace) => trace.watch(client, 'close', 'error'),
          disconnect,
          on: { go: (client, _data, trace) => work(client, trace, end) },
        },
        async (clients) => {
          const client = await clients.connect();
          client.send('go');
          await client.closed();
        },
      );
    }
  }
}

/** What the other side does; `go` is answered, and whatever the connection does is noted. */
function met(name: string, client: Program['client'], more: Pick<Program, 'differs'> = {}): Program {
  return program(
    name,
    {
      connection: (socket, trace) => trace.watch(socket, 'message', 'ping', 'pong', 'close', 'error'),
      disconnect: (socket, trace) => trace.note('state', socket.readyState),
      on: {
        go: (_client, data) => ({ event: 'answer', data }),
        sum: (_client, data: unknown[]) => ({ event: 'answer', data: data.length }),
      },
    },
    client,
    more,
  );
}

export const closing: readonly Program[] = [
  ...endsFromEverywhere(),
  ...[1000, 1001, 1003, 1011, 3000, 4999].map((code) =>
    met(`the client closes with ${code}`, async (clients) => {
      const client = await clients.connect();
      client.send('go', 1);
      await client.next();
      await client.close(code, 'its reason');
    }),
  ),
  met('the client closes without a code', async (clients) => {
    const client = await clients.connect();
    await client.close();
  }),
  met('the client asks and closes at once', async (clients) => {
    const raw = await clients.connectRaw();
    raw.write(message('go', 1), message('go', 2), closeFrame(1000, 'bye'));
    await raw.closed();
  }),
  met('the client asks with its handshake', async (clients) => {
    const raw = await clients.connectRaw('/', [message('go', 1), message('go', 2)]);
    await raw.frame(2);
    raw.write(closeFrame(1000));
    await raw.closed();
  }),
  met('the client asks and closes with its handshake', async (clients) => {
    const raw = await clients.connectRaw('/', [message('go', 1), closeFrame(1000)]);
    await raw.closed();
  }),
  met('the client ends its half of the connection', async (clients) => {
    const client = await clients.connect();
    client.send('go', 1);
    await client.next();
    client.halfClose();
    await client.closed();
  }),
  met('the client asks and ends its half at once', async (clients) => {
    const raw = await clients.connectRaw();
    raw.write(message('go', 1));
    raw.socket.end();
    await raw.closed();
  }),
  met('the client vanishes', async (clients) => {
    const client = await clients.connect();
    client.send('go', 1);
    await client.next();
    client.socket.terminate();
    await client.closed();
  }),
  met('the client asks a hundred times in one write', async (clients) => {
    const raw = await clients.connectRaw();
    raw.write(...Array.from({ length: 100 }, (_, i) => message('go', i)));
    await raw.next(100);
  }),
  met('a message in many pieces', async (clients) => {
    const raw = await clients.connectRaw();
    const bytes = message('go', 'in pieces');
    for (const byte of bytes) {
      raw.write(Buffer.from([byte]));
      await new Promise((resolve) => setImmediate(resolve));
    }
    await raw.frame(1);
  }),
  met('fragments with a ping between them', async (clients) => {
    const raw = await clients.connectRaw();
    const text = JSON.stringify({ event: 'go', data: 1 });
    raw.write(clientFrame(1, text.slice(0, 5), false), clientFrame(9, 'ping'), clientFrame(0, text.slice(5)));
    await raw.next(2);
  }),
  met('pings and pongs of the client', async (clients) => {
    const raw = await clients.connectRaw();
    raw.write(clientFrame(9, 'one'), clientFrame(9), clientFrame(10, 'two'), clientFrame(10), message('go'));
    await raw.next(3);
  }),
  met('a message of 500 kB', async (clients) => {
    const client = await clients.connect();
    client.send('sum', 'x'.repeat(500_000));
    await client.next();
    await client.close(1000);
  }),
  met('messages that are no messages', async (clients) => {
    const client = await clients.connect();
    for (const text of ['', '{', 'null', '7', '[]', '{}', '"go"', '{"event":"unknown"}', '{"event":7}'])
      client.raw(text);
    client.raw(Buffer.from([0, 1, 2]));
    client.raw(Buffer.from('{"event":"go","data":"binary"}'));
    await client.next();
    client.send('go', 'still there');
    await client.next();
    await client.close(1000);
  }),
  program(
    'a send to a client that has gone',
    {
      connection: (client, trace) => trace.watch(client, 'close', 'error'),
      disconnect: (client, trace) => {
        client.send('too late');
        client.send('too late', trace.callback('too late'));
        client.send(Buffer.from('too late'), trace.callback('too late'));
        client.close(4000);
        client.terminate();
        client.pause();
        client.resume();
        trace.note('state', client.readyState, client.isPaused, client.bufferedAmount);
      },
    },
    async (clients) => {
      const client = await clients.connect();
      await client.close(1000);
    },
  ),
  program(
    'answers that come after the client has gone',
    {
      connection: (client, trace) => trace.watch(client, 'close', 'error'),
      disconnect: () => {},
      on: {
        promise: async (client, _data, trace) => {
          await once(client, 'close');
          await sleep(5);
          trace.note('answers');
          return { event: 'late' };
        },
        observable: (client, _data, trace) =>
          from(once(client, 'close')).pipe(
            delay(5),
            map(() => {
              trace.note('emits');
              return { event: 'late' };
            }),
          ),
        failure: (_client, _data, trace) => throwError(() => trace.fault('of-a-stream')),
      },
    },
    async (clients) => {
      const client = await clients.connect();
      client.send('promise');
      client.send('observable');
      client.send('failure');
      await client.next();
      await client.close(1000);
      await clients.quiet(30);
    },
  ),
  program(
    'sends to a connection that the other side has just reset',
    {
      connection: (client, trace) => {
        trace.watch(client, 'close');
        client.on('error', () => trace.note('event error'));
      },
      on: {
        go: async (client, _data, trace) => {
          await once(client, 'close');
          trace.note('state', client.readyState);
          client.send('too late', (error) => trace.note('callback', Boolean(error)));
        },
      },
    },
    async (clients) => {
      const client = await clients.connect();
      client.send('go');
      await clients.quiet();
      client.reset();
      await clients.quiet();
    },
  ),
];
