import { setTimeout as sleep } from 'node:timers/promises';
import type { ClientScript } from '../client.js';
import { later } from '../generated.js';
import { type GatewayParts, type Program, program, type ServerSocket, type Trace } from '../program.js';

const PLACES = ['handleConnection', 'a handler'] as const;
const TIMES = ['the call', 'tick', 'microtask', 'promise', 'immediate', 'turns'] as const;

type Send = (client: ServerSocket, data: unknown, ...rest: unknown[]) => void;
const send: Send = (client, data, ...rest) => {
  (client.send as (...args: unknown[]) => void)(data, ...rest);
};

/** What an application may send, by what it is. */
const PAYLOADS: Readonly<Record<string, (client: ServerSocket, name: string, trace: Trace) => void>> = {
  text: (client, name) => send(client, name),
  'text with a callback': (client, name, trace) => send(client, name, trace.callback(name)),
  'text with options': (client, name, trace) => send(client, name, { compress: false }, trace.callback(name)),
  'text as binary': (client, name) => send(client, name, { binary: true }),
  'a Buffer': (client, name) => send(client, Buffer.from(name)),
  'a Buffer with a callback': (client, name, trace) => send(client, Buffer.from(name), trace.callback(name)),
  'a Buffer as text': (client, name) => send(client, Buffer.from(name), { binary: false }),
  'an ArrayBuffer': (client, name) => send(client, new Uint8Array(Buffer.from(name)).buffer),
  'a typed array': (client, name) => send(client, new Uint8Array(Buffer.from(name))),
  'a Blob': (client, name, trace) => send(client, new Blob([name]), trace.callback(name)),
  'a number': (client, name) => send(client, Number(name.replaceAll(/\D/g, '') || 7)),
  fragments: (client, name) => {
    send(client, `${name} begins `, { fin: false });
    send(client, 'and ends', { fin: true });
  },
  'two of 40 kB': (client, name) => {
    send(client, `${name} ${'x'.repeat(40_000)}`);
    send(client, Buffer.alloc(40_000, name));
  },
};

function at(time: (typeof TIMES)[number], work: () => void): void {
  if (time === 'the call') work();
  else later(time, work);
}

/** Each payload, sent from each place at each time: in which order things happen, and how much is buffered. */
function* sendsFromEverywhere(): Generator<Program> {
  for (const place of PLACES) {
    for (const time of TIMES) {
      for (const [payload, write] of Object.entries(PAYLOADS)) {
        const work = (client: ServerSocket, trace: Trace) => {
          at(time, () => {
            for (const name of ['one', 'two']) {
              write(client, name, trace);
              trace.note(`after ${name}`, client.bufferedAmount);
            }
            queueMicrotask(() => trace.note('microtask', client.bufferedAmount));
            process.nextTick(() => trace.note('tick', client.bufferedAmount));
            setImmediate(() => {
              trace.note('immediate', client.bufferedAmount);
              client.send('last');
            });
          });
        };
        yield program(
          `${payload} from ${place}, in ${time}`,
          {
            connection: (client, trace) => (place === 'handleConnection' ? work(client, trace) : undefined),
            on: {
              go: (client, _data, trace) => {
                work(client, trace);
                return { event: 'answer', data: 'of go' };
              },
            },
          },
          async (clients) => {
            const client = await clients.connect();
            if (place === 'a handler') client.send('go');
            await client.until('last');
            await client.close(1000);
          },
        );
      }
    }
  }
}

const untilLast: ClientScript = async (clients) => {
  const client = await clients.connect();
  client.send('go');
  await client.until('last');
  await client.close(1000);
};

/** A program whose client calls `go` and waits for `last`. */
function going(name: string, go: (client: ServerSocket, trace: Trace) => unknown, parts: GatewayParts = {}) {
  return program(
    name,
    { ...parts, on: { ...parts.on, go: (client, _data, trace) => go(client, trace) } },
    untilLast,
  );
}

function busyFor(ms: number): void {
  for (const end = performance.now() + ms; performance.now() < end; );
}

const SIZES = [0, 1, 125, 126, 1_000, 16_384, 65_535, 65_536, 262_144];

export const sends: readonly Program[] = [
  ...sendsFromEverywhere(),
  ...SIZES.map((size) =>
    going(`bufferedAmount after ${size} bytes`, (client, trace) => {
      trace.note('before', client.bufferedAmount);
      client.send('x'.repeat(size));
      trace.note('after text', client.bufferedAmount);
      client.send(Buffer.alloc(size));
      trace.note('after binary', client.bufferedAmount);
      setTimeout(() => {
        trace.note('later', client.bufferedAmount);
        client.send('last');
      }, 20);
    }),
  ),
  going('drops above 16 kB buffered', (client, trace) => {
    let dropped = 0;
    for (let i = 0; i < 200; i++) {
      if (client.bufferedAmount > 16_384) dropped++;
      else client.send(`${i} ${'x'.repeat(200)}`);
    }
    trace.note('dropped', dropped);
    client.send('last');
  }),
  going('drops above 16 kB buffered, for several turns', async (client, trace) => {
    let dropped = 0;
    for (let turn = 0; turn < 5; turn++) {
      for (let i = 0; i < 30; i++) {
        if (client.bufferedAmount > 16_384) dropped++;
        else client.send(`${turn}.${i} ${'x'.repeat(1_000)}`);
      }
      await sleep(2);
    }
    trace.note('dropped', dropped);
    return 'last';
  }),
  program(
    'a progress text before CPU work',
    {
      on: {
        go: (client) => {
          client.send('progress');
          busyFor(300);
          client.send('done');
        },
      },
    },
    async (clients) => {
      const client = await clients.connect();
      client.send('go');
      await client.next(2);
      client.noteGap('progress', 'done', 150);
      await client.close(1000);
    },
  ),
  program(
    'a progress text before CPU work, in handleConnection',
    {
      connection: (client) => {
        client.send('progress');
        busyFor(300);
        client.send('done');
      },
    },
    async (clients) => {
      const client = await clients.connect();
      await client.next(2);
      client.noteGap('progress', 'done', 150);
      await client.close(1000);
    },
  ),
  going('texts from every time in one handler, and its answer', (client, trace) => {
    client.send('call');
    for (const time of TIMES) {
      at(time, () => {
        trace.note(time);
        client.send(time);
      });
    }
    setTimeout(() => client.send('last'), 25);
    return { event: 'answer', data: 'of go' };
  }),
  going('texts and bytes by turns', (client) => {
    for (let i = 0; i < 20; i++) client.send(i % 2 === 0 ? `text ${i}` : Buffer.from(`bytes ${i}`));
    client.send('last');
  }),
  going('texts, bytes and pings by turns', (client) => {
    for (let i = 0; i < 10; i++) {
      client.send(`text ${i}`);
      client.ping(`ping ${i}`);
      client.send(Buffer.from(`bytes ${i}`));
      client.pong(`pong ${i}`);
    }
    client.send('last');
  }),
  going('callbacks of texts, bytes and pings among each other', (client, trace) => {
    client.send('one', trace.callback('one'));
    client.send(Buffer.from('two'), trace.callback('two'));
    client.ping('three', undefined, trace.callback('three'));
    client.pong('four', undefined, trace.callback('four'));
    client.send('five', {}, trace.callback('five'));
    process.nextTick(() => trace.note('tick'));
    queueMicrotask(() => trace.note('microtask'));
    setImmediate(() => {
      trace.note('immediate');
      client.send('last');
    });
    trace.note('call');
  }),
  going('a callback that sends', (client, trace) => {
    client.send('one', () => {
      trace.note('callback one');
      client.send('two', () => {
        trace.note('callback two');
        client.send('last');
      });
    });
    client.send('after');
  }),
  going('a text without and a text with a callback', (client, trace) => {
    client.send('first');
    client.send('second', trace.callback('second'));
    client.send('third');
    setImmediate(() => client.send('last'));
  }),
  going('awaits the callback of each send', async (client, trace) => {
    for (const name of ['one', 'two', 'three']) {
      await new Promise((resolve) => client.send(name, resolve));
      trace.note(`sent ${name}`);
    }
    return 'last';
  }),
  going('one text many times', (client) => {
    for (let i = 0; i < 50; i++) client.send('again and again');
    client.send('last');
  }),
  going('100 kB, then little', (client, trace) => {
    client.send('x'.repeat(100_000), trace.callback('large'));
    client.send('little', trace.callback('little'));
    setTimeout(() => client.send('last'), 20);
  }),
  going('texts of other alphabets', (client) => {
    client.send('äöü 日本語 \u{1f600}');
    client.send('\ud800 alone');
    client.send('\0 and \u2028');
    client.send('last');
  }),
  ...[null, undefined, true, Symbol.iterator, {}, [], 7n].map((value) =>
    going(
      `sends ${Array.isArray(value) ? '[]' : typeof value === 'object' && value ? '{}' : String(value)}`,
      (client, trace) => {
        try {
          send(client, value);
          trace.note('sent');
        } catch (error) {
          trace.note('threw', error);
        }
        client.send('last');
      },
    ),
  ),
  going('changes a buffer after it was sent', (client) => {
    const bytes = Buffer.alloc(10, 'a');
    client.send(bytes);
    bytes.fill('b');
    setImmediate(() => client.send('last'));
  }),
  going('sends with mask, as clients do', (client) => {
    send(client, 'plain', { mask: false });
    client.send('last');
  }),
  program(
    'answers of many handlers in one read, with texts of their own between them',
    {
      on: {
        go: (client, data) => {
          client.send(`text ${data}`);
          return { event: 'answer', data };
        },
        late: async (client, data) => {
          await sleep(5);
          client.send(`late ${data}`);
          return { event: 'late answer', data };
        },
      },
    },
    async (clients) => {
      const client = await clients.connect();
      client.socket.pause();
      for (let i = 0; i < 8; i++) client.send(i % 3 === 0 ? 'late' : 'go', i);
      client.socket.resume();
      await client.next(16);
      await client.close(1000);
    },
  ),
  program(
    'answers, and texts of a timer between them',
    {
      connection: (client) => {
        client.send('tick');
        setTimeout(() => client.send('tock'), 10);
      },
      on: { go: (_client, data) => ({ event: 'answer', data }) },
    },
    async (clients) => {
      const client = await clients.connect();
      await client.next(2);
      client.send('go', 1);
      await client.next();
      await client.close(1000);
    },
  ),
];
