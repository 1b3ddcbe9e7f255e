import { inspect } from 'node:util';
import { useSides } from './support/frame-case.js';
import { type Program, testPrograms } from './support/program.js';
import { turn } from './support/raw-client.js';
import { platformWs, type ServerSocket } from './support/sides.js';
import { BINARY, CLOSE, closePayload, frame, PING, PONG, TEXT } from './support/wire.js';

const sides = useSides();

type Send = (data: unknown, ...rest: unknown[]) => void;

/** `send` takes what TypeScript would not let it take. */
function sendOf(socket: ServerSocket): Send {
  return (...args) => (socket.send as Send).apply(socket, args as [unknown]);
}

const view = new Uint8Array([9, 8, 7, 6, 5, 4, 3, 2]);

const DATA: readonly (readonly [string, () => unknown])[] = [
  ['an empty string', () => ''],
  ['a string', () => 'text'],
  ['a string of all lengths of UTF-8', () => 'κa€😀ßz'],
  ['a lone surrogate', () => 'a\ud800b'],
  ['a string of 125 bytes', () => 'x'.repeat(125)],
  ['a string of 126 bytes', () => 'x'.repeat(126)],
  ['a string of 65535 bytes', () => 'x'.repeat(65_535)],
  ['a string of 65536 bytes', () => 'x'.repeat(65_536)],
  ['a string of 300000 bytes', () => '€'.repeat(100_000)],
  ['an empty Buffer', () => Buffer.alloc(0)],
  ['a Buffer', () => Buffer.from([0, 1, 254, 255])],
  ['a Buffer of 126 bytes', () => Buffer.alloc(126, 3)],
  ['a Buffer of 70000 bytes', () => Buffer.alloc(70_000, 4)],
  ['an ArrayBuffer', () => new Uint8Array([1, 2, 3]).buffer],
  ['a SharedArrayBuffer', () => new SharedArrayBuffer(3)],
  ['a Uint8Array that is a part of another', () => view.subarray(2, 5)],
  ['a Uint16Array', () => new Uint16Array([1, 258])],
  ['a Float64Array', () => new Float64Array([1.5])],
  ['a DataView', () => new DataView(view.buffer, 1, 3)],
  ['a Blob', () => new Blob(['blob ', 'data'])],
  ['an empty Blob', () => new Blob([])],
  ['0', () => 0],
  ['42', () => 42],
  ['NaN', () => Number.NaN],
  ['a bigint', () => 10n],
  ['true', () => true],
  ['false', () => false],
  ['null', () => null],
  ['undefined', () => undefined],
  ['an object', () => ({ a: 1 })],
  ['an array', () => [1, 2, 300]],
  ['a String object', () => new String('boxed')],
  ['a symbol', () => Symbol('x')],
];

const OPTIONS: readonly (readonly [string, readonly unknown[]])[] = [
  ['no options', []],
  ['undefined options', [undefined]],
  ['null options', [null]],
  ['empty options', [{}]],
  ['binary', [{ binary: true }]],
  ['text', [{ binary: false }]],
  ['a mask', [{ mask: true }]],
  ['compress', [{ compress: true }]],
  ['no compress', [{ compress: false }]],
];

const PATHS: readonly (readonly [string, string | undefined])[] = [
  ['/plain', undefined],
  ['/deflate', 'permessage-deflate'],
];

function sends(): Program[] {
  const programs: Program[] = [];
  for (const [path, offer] of PATHS) {
    const connection = offer === undefined ? { path } : { path, offer };
    for (const [name, data] of DATA) {
      for (const [how, options] of OPTIONS) {
        if (options.length > 0 && !['a string', 'a Buffer', 'a Blob', '42', 'a Uint16Array'].includes(name))
          continue;
        for (const hasCallback of [false, true]) {
          programs.push({
            rule: 'ws.md websocket.send',
            title: `send ${name} with ${how}${hasCallback ? ' and a callback' : ''} at ${path}`,
            ...connection,
            run: async ({ socket, attempt, note, until }) => {
              const send = sendOf(socket);
              let isCalled = !hasCallback;
              const callback = (...args: unknown[]) => {
                isCalled = true;
                note('callback', ...args, 'bufferedAmount', socket.bufferedAmount);
              };
              send('before');
              const rest =
                options.length === 0 && hasCallback
                  ? [callback]
                  : [...options, ...(hasCallback ? [callback] : [])];
              let isRefused = false;
              attempt('send', () => {
                try {
                  return send(data(), ...rest);
                } catch (error) {
                  isRefused = true;
                  throw error;
                }
              });
              note('bufferedAmount', socket.bufferedAmount, 'readyState', socket.readyState);
              send('after');
              await until(() => isCalled || isRefused);
              await until(() => socket.bufferedAmount === 0);
            },
          });
        }
      }
    }
  }
  return programs;
}

const order: Program[] = PATHS.flatMap(([path, offer]) => {
  const connection = offer === undefined ? { path } : { path, offer };
  const make = (title: string, run: Program['run'], more: Partial<Program> = {}): Program => ({
    rule: 'ws.md websocket.send',
    title: `${title} at ${path}`,
    ...connection,
    ...more,
    run,
  });
  return [
    make('the order of callbacks of sends, pings and pongs', async ({ socket, note, until }) => {
      let count = 0;
      const done = (name: string) => (error?: Error | null) => {
        count++;
        note(name, error);
      };
      socket.send('1', done('text'));
      socket.send(Buffer.from('2'), done('binary'));
      socket.ping('3', undefined, done('ping'));
      socket.send('4', { binary: true }, done('text as binary'));
      socket.pong('5', undefined, done('pong'));
      socket.send('6');
      socket.send('7', done('last'));
      process.nextTick(() => note('next tick'));
      void Promise.resolve().then(() => note('microtask'));
      setImmediate(() => note('immediate'));
      note('synchronous');
      await until(() => count === 6);
      await turn();
    }),
    make('a callback that sends', async ({ socket, note, until }) => {
      let last = 0;
      const next = () => {
        note('sent', last);
        if (++last < 5) socket.send(`${last}`, next);
      };
      socket.send('0', next);
      await until(() => last === 5);
    }),
    make('fragments with fin: false, and a ping between', async ({ socket, until, note }) => {
      let isSent = false;
      socket.send('a', { fin: false });
      socket.ping('between');
      socket.send('b', { fin: false });
      socket.send('', { fin: false });
      socket.send('c', { fin: true }, () => {
        isSent = true;
        note('sent');
      });
      socket.send('whole');
      await until(() => isSent);
    }),
    make('a binary message in fragments, texts before and after', async ({ socket, until, note }) => {
      let isSent = false;
      socket.send('before');
      socket.send(Buffer.from([1]), { fin: false, binary: true });
      socket.send('2', { fin: true });
      socket.send('after', () => {
        isSent = true;
        note('sent');
      });
      await until(() => isSent);
    }),
    make('a Blob between texts', async ({ socket, until, note }) => {
      let isSent = false;
      socket.send('before');
      socket.send(new Blob(['blob']) as never);
      socket.send('after', () => {
        isSent = true;
        note('sent', socket.bufferedAmount);
      });
      note('bufferedAmount', socket.bufferedAmount);
      await until(() => isSent);
    }),
    make('messages of all kinds in one turn keep their order', async ({ socket, client, note }) => {
      for (let i = 0; i < 30; i++) {
        if (i % 3 === 0) socket.send(`text ${i}`);
        else if (i % 3 === 1) socket.send(Buffer.from(`buffer ${i}`));
        else socket.ping(`ping ${i}`);
      }
      await client.count(30);
      note('all there', client.frames.length);
    }),
    make('sends in microtasks, ticks and immediates', async ({ socket, client, note }) => {
      socket.send('synchronous');
      process.nextTick(() => socket.send('next tick'));
      void Promise.resolve().then(() => socket.send('microtask'));
      setImmediate(() => socket.send('immediate'));
      setTimeout(() => socket.send('timer'), 1);
      socket.send(Buffer.from('synchronous'));
      await client.count(6);
      note('all there');
    }),
    make('a send in a listener of close', ({ socket, note }) => {
      socket.on('close', () => {
        socket.send('late', (error) => note('callback', error));
        note('bufferedAmount', socket.bufferedAmount);
        socket.send('late');
        note('readyState', socket.readyState);
      });
    }),
    make('a send before the end, and its callback', async ({ socket, client, note }) => {
      socket.send('last', (error) => note('callback', error));
      client.socket.end();
      await client.end();
    }),
    make('a text, a Buffer as binary, then terminate', async ({ socket, client, note }) => {
      socket.send('kicked');
      socket.send(Buffer.from('binary'), { binary: true });
      socket.terminate();
      note('readyState', socket.readyState);
      await client.end();
    }),
    make('a text, then terminate', async ({ socket, client, note }) => {
      socket.send('kicked');
      socket.terminate();
      note('readyState', socket.readyState);
      await client.end();
    }),
    make('a text with a callback, then terminate', async ({ socket, client, note }) => {
      socket.send('kicked', (error) => note('callback', error));
      socket.terminate();
      await client.end();
    }),
    make('texts, then close', async ({ socket, client, note }) => {
      socket.send('one');
      socket.send('two', (error) => note('callback', error));
      socket.close(1000, 'done');
      note('readyState', socket.readyState, 'bufferedAmount', socket.bufferedAmount);
      await client.count(3);
      client.write(frame(CLOSE, closePayload(1000)));
      await client.end();
    }),
    make('the echo of Nest with sends of the application around it', async ({ socket, client, note }) => {
      socket.on('message', (data) => socket.send(`seen ${data}`));
      client.write(frame(TEXT, '{"event":"echo","data":1}'));
      client.write(frame(TEXT, '{"event":"echo","data":2}'));
      await client.count(4);
      note('all there');
    }),
    make('an answer of Nest, then close in the next listener', async ({ socket, client, note }) => {
      socket.on('message', () => setImmediate(() => socket.close(4000)));
      client.write(frame(TEXT, '{"event":"echo","data":1}'));
      await client.count(2);
      client.write(frame(CLOSE, closePayload(4000)));
      await client.end();
      note('closed');
    }),
  ];
});

const buffered: Program[] = [
  {
    rule: 'ws.md websocket.bufferedAmount',
    title: 'bufferedAmount after 1 kB to a client that reads',
    run: ({ socket, note }) => {
      note(socket.bufferedAmount);
      socket.send('x'.repeat(1_000));
      note(socket.bufferedAmount);
      socket.send('x'.repeat(1_000));
      note(socket.bufferedAmount);
      socket.send(Buffer.alloc(1_000));
      note(socket.bufferedAmount);
    },
  },
  {
    rule: 'ws.md websocket.bufferedAmount',
    title: 'a loop that drops messages above 16 kB',
    run: async ({ socket, client, note }) => {
      let dropped = 0;
      for (let i = 0; i < 200; i++) {
        if (socket.bufferedAmount > 16_384) dropped++;
        else socket.send('x'.repeat(1_000));
      }
      note('dropped', dropped);
      await client.count(200 - dropped);
    },
  },
  {
    rule: 'ws.md websocket.bufferedAmount',
    title: 'bufferedAmount with compression',
    path: '/deflate',
    offer: 'permessage-deflate',
    run: async ({ socket, note, until }) => {
      socket.send('x'.repeat(1_000));
      note(socket.bufferedAmount);
      socket.send('y'.repeat(500));
      note(socket.bufferedAmount);
      await until(() => socket.bufferedAmount === 0);
      note('empty');
    },
  },
  {
    rule: 'ws.md websocket.bufferedAmount',
    title: 'bufferedAmount grows while the client does not read, and is 0 when it has read',
    run: async ({ socket, client, note, until }) => {
      client.socket.pause();
      const chunk = 'x'.repeat(1_000_000);
      let sent = 0;
      const errors: unknown[] = [];
      while (socket.bufferedAmount === 0 && sent < 30) {
        socket.send(chunk, (error) => error && errors.push(error));
        sent++;
        await turn();
      }
      const before = socket.bufferedAmount;
      note('grows', before > 0, 'below what was sent', before < sent * 1_000_010);
      socket.send('1234567890');
      note('by a text', socket.bufferedAmount - before);
      socket.send(Buffer.alloc(300));
      note('by a Buffer', socket.bufferedAmount - before);
      socket.ping('abc');
      note('by a ping', socket.bufferedAmount - before);
      client.socket.resume();
      await until(() => socket.bufferedAmount === 0);
      // How many it takes to fill the kernel is not compared.
      client.frames.splice(0, sent);
      note('errors', errors);
    },
  },
];

const control: Program[] = (['ping', 'pong'] as const).flatMap((method) => {
  const args: readonly (readonly [string, readonly unknown[]])[] = [
    ['nothing', []],
    ['undefined', [undefined]],
    ['null', [null]],
    ['an empty string', ['']],
    ['a string', ['payload']],
    ['a string of 125 bytes', ['x'.repeat(125)]],
    ['a string of 126 bytes', ['x'.repeat(126)]],
    ['42 characters of three bytes', ['€'.repeat(42)]],
    ['a Buffer', [Buffer.from([1, 2])]],
    ['a Buffer of 126 bytes', [Buffer.alloc(126)]],
    ['a Uint16Array', [new Uint16Array([513])]],
    ['an ArrayBuffer', [new Uint8Array([1]).buffer]],
    ['a Blob', [new Blob(['blob'])]],
    ['a number', [7]],
    ['0', [0]],
    ['an object', [{}]],
    ['a mask', ['masked', true]],
    ['no mask', ['plain', false]],
  ];
  return args.flatMap(([name, list]) =>
    [false, true].map(
      (hasCallback): Program => ({
        rule: `ws.md websocket.${method}`,
        title: `${method} with ${name}${hasCallback ? ' and a callback' : ''}`,
        run: async ({ socket, attempt, note }) => {
          // An empty ping on the wire is not told from the heartbeat's: it has a text before and after it.
          socket.send('before');
          const callback = (...got: unknown[]) => note('callback', ...got);
          attempt(method, () =>
            (socket[method] as (...all: unknown[]) => unknown)(...list, ...(hasCallback ? [callback] : [])),
          );
          note('bufferedAmount', socket.bufferedAmount);
          socket.send('after');
          await turn();
          await turn();
        },
      }),
    ),
  );
});

const closes: Program[] = [];
for (const code of [
  undefined,
  ...[1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 4000, 4999],
  ...[0, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65_536, -1, 1000.5, Number.NaN],
  ...['1000', null, {}, true],
]) {
  for (const reason of [undefined, '', 'bye']) {
    closes.push({
      rule: 'ws.md websocket.close',
      title: `close with ${code === undefined ? 'no code' : inspect(code)} and ${JSON.stringify(reason) ?? 'no reason'}`,
      run: closing([code, reason].slice(0, reason !== undefined ? 2 : code !== undefined ? 1 : 0)),
    });
  }
}
const REASONS: readonly (readonly [string, unknown])[] = [
  ['of 123 bytes', 'x'.repeat(123)],
  ['of 124 bytes', 'x'.repeat(124)],
  ['of 41 characters of three bytes', '€'.repeat(41)],
  ['of 42 characters of three bytes', '€'.repeat(42)],
  ['that is a Buffer', Buffer.from('buffer')],
  ['that is a Buffer of invalid UTF-8', Buffer.from([0xc0, 0xaf])],
  ['that is a Uint8Array', new Uint8Array([97])],
  ['that is an array', [97, 98]],
  ['that is a number', 5],
  ['that is null', null],
];
for (const [name, reason] of REASONS) {
  closes.push({
    rule: 'ws.md websocket.close',
    title: `close with a reason ${name}`,
    run: closing([1000, reason]),
  });
}

function closing(args: readonly unknown[]): Program['run'] {
  return async ({ socket, client, attempt, note }) => {
    socket.on('error', (error) => note('error', error));
    socket.on('close', (code, reason) => note('close', code, reason, socket.readyState));
    attempt('close', () => (socket.close as (...all: unknown[]) => unknown)(...args));
    note('readyState', socket.readyState);
    if (socket.readyState === 1) return;
    socket.send('late', (error) => note('send', error));
    attempt('send without a callback', () => socket.send('late'));
    attempt('ping', () => socket.ping('late', undefined, (error) => note('ping', error)));
    attempt('close again', () => socket.close(1001, 'again'));
    note('bufferedAmount', socket.bufferedAmount, 'isPaused', socket.isPaused);
    await client.count(1);
    const [answer] = client.frames;
    client.write(frame(CLOSE, answer?.payload));
    await client.end();
  };
}

const endings: Program[] = [
  {
    rule: 'ws.md websocket.close',
    title: 'the client does not answer a close: the close timeout',
    endsItself: true,
    run: async ({ socket, client, note, until }) => {
      socket.on('close', (code, reason) => note('close', code, reason));
      socket.close(4000, 'x');
      await client.end();
      await until(() => socket.readyState === 3);
      note(socket.readyState);
    },
  },
  {
    rule: 'ws.md websocket.close',
    title: 'the client sends messages, a ping and a pong before it answers a close',
    run: async ({ socket, client, note }) => {
      socket.on('message', (data) => note('message', data, socket.readyState));
      socket.on('ping', (data) => note('ping', data));
      socket.on('pong', (data) => note('pong', data));
      socket.on('close', (code, reason) => note('close', code, reason));
      socket.close(4000);
      await client.count(1);
      client.write(
        Buffer.concat([frame(TEXT, 'late'), frame(BINARY, 'b'), frame(PING, 'p'), frame(PONG, 'q')]),
      );
      await turn();
      client.write(frame(PONG));
      await turn();
      client.write(frame(CLOSE, closePayload(4001, 'mine')));
      await client.end();
    },
  },
  {
    rule: 'ws.md websocket.close',
    title: 'both close at once',
    run: async ({ socket, client, note }) => {
      socket.on('close', (code, reason) => note('close', code, reason));
      await client.settle();
      client.write(frame(CLOSE, closePayload(4001, 'mine')));
      socket.close(4002, 'ours');
      await client.end();
    },
  },
  {
    rule: 'ws.md websocket.terminate',
    title: 'terminate',
    run: async ({ socket, client, note, attempt }) => {
      socket.on('error', (error) => note('error', error));
      socket.on('close', (code, reason) => note('close', code, reason, socket.readyState));
      attempt('terminate', () => socket.terminate());
      note('readyState', socket.readyState);
      attempt('terminate', () => socket.terminate());
      attempt('close', () => socket.close());
      socket.send('late', (error) => note('send', error));
      socket.ping('late', undefined, (error) => note('ping', error));
      await client.end();
    },
  },
  {
    rule: 'ws.md websocket.terminate',
    title: 'terminate after close',
    run: async ({ socket, client, note }) => {
      socket.on('close', (code, reason) => note('close', code, reason));
      socket.close(1000);
      socket.terminate();
      note('readyState', socket.readyState);
      await client.end();
    },
  },
  {
    rule: 'ws.md websocket.terminate',
    title: 'terminate in a listener of message, messages behind it',
    run: async ({ socket, client, note }) => {
      socket.on('message', (data) => {
        note('message', data);
        socket.terminate();
      });
      socket.on('close', (code) => note('close', code));
      client.write(Buffer.concat([frame(TEXT, 'a'), frame(TEXT, 'b'), frame(TEXT, 'c')]));
      await client.end();
    },
  },
  {
    rule: 'ws.md websocket.close',
    title: 'close in a listener of message, messages behind it',
    run: async ({ socket, client, note }) => {
      socket.on('message', (data) => {
        note('message', data, socket.readyState);
        socket.close(4000);
      });
      socket.on('close', (code) => note('close', code));
      client.write(Buffer.concat([frame(TEXT, 'a'), frame(TEXT, 'b'), frame(TEXT, 'c')]));
      await client.count(1);
      client.write(frame(CLOSE, closePayload(4000)));
      await client.end();
    },
  },
  {
    rule: 'ws.md Event: close',
    title: 'methods in a listener of close',
    run: async ({ socket, client, attempt, note }) => {
      socket.on('close', () => {
        attempt('close', () => socket.close());
        attempt('terminate', () => socket.terminate());
        attempt('pause', () => socket.pause());
        attempt('resume', () => socket.resume());
        attempt('ping', () => socket.ping());
        note(socket.readyState, socket.bufferedAmount, socket.isPaused, socket.extensions, socket.protocol);
      });
      client.socket.end();
      await client.end();
    },
  },
  {
    rule: 'ws.md Event: close',
    title: 'the client resets the connection',
    endsItself: true,
    run: async ({ socket, client, note, until }) => {
      socket.on('error', (error) => note('error', error));
      socket.on('close', (code, reason) => note('close', code, reason));
      await client.settle();
      client.socket.resetAndDestroy();
      await until(() => socket.readyState === 3);
    },
  },
];

/** A tracer patches the classes of `ws`: all that an application sends has to pass through its patch. */
function traced(title: string, patch: (seen: (what: string) => void) => () => void): Program[] {
  return [
    {
      rule: 'an APM tracer',
      title: `${title} sees what the application sends`,
      run: async ({ socket, client, note }) => {
        const undo = patch((what) => note('seen', what));
        try {
          socket.send('text');
          socket.send(Buffer.from('buffer'));
          socket.send('with a callback', () => {});
          await client.count(3);
        } finally {
          undo();
        }
      },
    },
    {
      rule: 'an APM tracer',
      title: `${title} sees what Nest answers`,
      run: async ({ client, note }) => {
        const undo = patch((what) => note('seen', what));
        try {
          client.write(frame(TEXT, '{"event":"echo","data":"x"}'));
          await client.count(1);
        } finally {
          undo();
        }
      },
    },
  ];
}

function patched(target: object, name: string, seen: (what: string) => void): () => void {
  const methods = target as Record<string, (...args: unknown[]) => unknown>;
  const original = methods[name] as (...args: unknown[]) => unknown;
  methods[name] = function (this: unknown, ...args: unknown[]) {
    seen(`${name} ${String(args[0])}`);
    return original.apply(this, args);
  };
  return () => {
    methods[name] = original;
  };
}

const { Sender, WebSocket } = platformWs as unknown as {
  Sender: { prototype: object };
  WebSocket: { prototype: object };
};

const tracers = [
  ...traced('a patch of WebSocket.prototype.send', (seen) => patched(WebSocket.prototype, 'send', seen)),
  ...traced('a patch of Sender.prototype.send', (seen) => patched(Sender.prototype, 'send', seen)),
];

testPrograms('send', sides, sends());
testPrograms('the order of what is sent', sides, order);
testPrograms('bufferedAmount', sides, buffered);
testPrograms('ping and pong', sides, control);
testPrograms('close', sides, closes);
testPrograms('the end of a connection', sides, endings);
testPrograms('patched classes', sides, tracers);
