import { setTimeout as sleep } from 'node:timers/promises';
import {
  type ArgumentsHost,
  type CallHandler,
  type CanActivate,
  Catch,
  type ExceptionFilter,
  type ExecutionContext,
  type NestInterceptor,
  type PipeTransform,
  UseFilters,
  UseGuards,
  UseInterceptors,
  UsePipes,
} from '@nestjs/common';
import { BaseWsExceptionFilter, WsException } from '@nestjs/websockets';
import {
  concat,
  EMPTY,
  from,
  interval,
  map,
  NEVER,
  Observable,
  of,
  Subject,
  startWith,
  take,
  throwError,
  timer,
} from 'rxjs';
import type { ClientScript } from '../client.js';
import { message } from '../frames.js';
import { type GatewayParts, type Program, program, type ServerSocket, type Trace } from '../program.js';

const event = (name: string, data?: unknown) => ({ event: name, data });

class Answer {
  toJSON() {
    return event('to json');
  }
}

/** What handlers return, and the client after it. */
const ANSWERS: Readonly<Record<string, (trace: Trace, client: ServerSocket) => unknown>> = {
  'an object': () => event('answer', { of: ['it'] }),
  'a string': () => 'as it is',
  'a number': () => 0,
  'an empty string': () => '',
  false: () => false,
  null: () => null,
  undefined: () => undefined,
  'an array': () => [1, 2],
  'an object with toJSON': () => new Answer(),
  'a function': () => () => 'never',
  'a symbol': () => Symbol('never'),
  'a Buffer': () => Buffer.from('bytes'),
  'a Map': () => new Map([[1, 2]]),
  'a Date': () => new Date(0),
  'an object without an event': () => ({ data: 1 }),
  'a promise': async () => event('promise'),
  'a late promise': () => sleep(10).then(() => event('late')),
  'a promise of nothing': async () => undefined,
  'a promise of a promise': async () => Promise.resolve(Promise.resolve(event('nested'))),
  // biome-ignore lint/suspicious/noThenProperty: it is a thenable that is not a Promise
  'a thenable': () => ({ then: (resolve: (value: unknown) => void) => resolve(event('thenable')) }),
  'a rejected promise of a WsException': () => Promise.reject(new WsException('rejected')),
  'a rejected promise of an error': (trace) => Promise.reject(trace.fault('rejected')),
  'a rejected promise of undefined': () => Promise.reject(undefined),
  'an Observable': () => of(event('one'), event('two')),
  'an Observable of everything': () => from([event('one'), undefined, null, 0, '', false, 'text', [1]]),
  'an empty Observable': () => EMPTY,
  'an Observable that never ends': (trace) =>
    new Observable((subscriber) => {
      subscriber.next(event('first'));
      return () => trace.note('unsubscribed');
    }),
  'an Observable that never emits': () => NEVER,
  'an Observable of a hundred': () => from(Array.from({ length: 100 }, (_, i) => event('n', i))),
  'an Observable of a timer': () =>
    interval(5).pipe(
      take(4),
      map((n) => event('n', n)),
    ),
  'an Observable of promises': () => of(Promise.resolve(event('never unwrapped')), event('next')),
  'an Observable that fails with a WsException': () =>
    concat(
      of(event('before')),
      throwError(() => new WsException('in a stream')),
    ),
  'an Observable that fails': (trace) =>
    concat(
      of(event('before')),
      throwError(() => trace.fault('in-a-stream')),
    ),
  'an Observable that fails later': (trace) =>
    concat(
      of(event('before')),
      timer(10).pipe(
        map(() => {
          throw trace.fault('later-in-a-stream');
        }),
      ),
    ),
  'an Observable that throws as it is subscribed to': (trace) =>
    new Observable(() => {
      throw trace.fault('as-it-is-subscribed-to');
    }),
  'a promise of an Observable': async () => of(event('one'), event('two')),
  'an Observable of Observables': () => of(of(event('inner'))),
  'a Subject that is told by a timer': () => {
    const subject = new Subject();
    setTimeout(() => {
      subject.next(event('told'));
      subject.complete();
    }, 5);
    return subject.pipe(startWith(event('first')));
  },
  'a foreign Observable': () => ({
    subscribe: () => {},
    [Symbol.observable ?? '@@observable']() {
      return this;
    },
  }),
  'an iterable': () => new Set([event('never')]),
  'an async iterable': async function* () {
    yield event('never');
  },
};

const asks: ClientScript = async (clients) => {
  const client = await clients.connect();
  client.send('go', 1);
  // Answers are not noted on the server: longer than the timers of the slowest.
  await clients.quiet(50);
  client.send('echo', 2);
  await client.until('"echo"');
  await client.close(1000);
};

const echo = (_client: unknown, data: unknown) => event('echo', data);

function asked(
  name: string,
  go: NonNullable<GatewayParts['on']>[string],
  parts: Partial<GatewayParts> = {},
  more: Pick<Program, 'isAlone' | 'differs'> = {},
): Program {
  return program(name, { ...parts, on: { go, echo } }, asks, more);
}

/** On the platform it ends the process. */
function unsendable(sent: readonly string[]): Pick<Program, 'isAlone' | 'differs'> {
  return {
    isAlone: 'on the platform',
    differs: {
      because: 'answers do not end the process',
      module: {
        server: ['on go 1', 'on echo 2'],
        client: ['open', ...sent, 'text {"event":"echo","data":2}', 'close 1000 '],
        process: 'runs',
      },
    },
  };
}

class Refuse implements CanActivate {
  constructor(private readonly how: 'false' | 'later' | 'throws') {}

  canActivate(context: ExecutionContext): boolean | Promise<boolean> {
    if (context.switchToWs().getPattern() === 'echo') return true;
    if (this.how === 'throws') throw new WsException('refused by a guard');
    return this.how === 'later' ? sleep(5).then(() => false) : false;
  }
}

class Doubling implements PipeTransform {
  transform(value: unknown): unknown {
    if (typeof value !== 'number') throw new WsException('not a number');
    return 2 * value;
  }
}

class Wrapping implements NestInterceptor {
  intercept(context: ExecutionContext, next: CallHandler) {
    const pattern = context.switchToWs().getPattern();
    return next.handle().pipe(map((answer) => event('wrapped', { pattern, answer })));
  }
}

class Swallowing implements NestInterceptor {
  intercept() {
    return EMPTY;
  }
}

class Streaming implements NestInterceptor {
  intercept(_context: ExecutionContext, next: CallHandler) {
    return next.handle().pipe(startWith(event('begins')));
  }
}

@Catch()
class Answering implements ExceptionFilter {
  catch(_error: unknown, host: ArgumentsHost): void {
    host.switchToWs().getClient<ServerSocket>().send('filtered');
  }
}

@Catch()
class Throwing implements ExceptionFilter {
  catch(error: unknown): never {
    throw error;
  }
}

@Catch()
class Closing implements ExceptionFilter {
  catch(_error: unknown, host: ArgumentsHost): void {
    host.switchToWs().getClient<ServerSocket>().close(4400, 'filtered');
  }
}

const throws = (_client: unknown, _data: unknown, trace: Trace) => {
  throw trace.fault('of-a-handler');
};

/** Parsers of an application: what they do with a frame. */
const PARSERS: Readonly<Record<string, (data: unknown, trace: Trace) => unknown>> = {
  'that reads lists': (data) => {
    const [event, payload] = JSON.parse(String(data));
    return { event, data: payload };
  },
  'that returns nothing': () => undefined,
  'that returns an event of no handler': () => ({ event: 'unknown', data: 1 }),
  'that throws a SyntaxError': (_data, trace) => {
    throw Object.assign(new SyntaxError(trace.fault('of-the-parser').message));
  },
  'that throws an error': (_data, trace) => {
    throw trace.fault('of-the-parser');
  },
  'that throws a string': (_data, trace) => {
    throw trace.fault('of-the-parser').message;
  },
  'that is told text and bytes': (data, trace) => {
    trace.note('parses', typeof data, Buffer.isBuffer(data));
    return { event: 'echo', data: String(data) };
  },
};

function parsing(how: string, isSetLater: boolean): Program {
  return {
    name: `a parser ${how}${isSetLater ? ', set with setMessageParser' : ''}`,
    server: (trace) => {
      const parse = (data: unknown) => PARSERS[how]?.(data, trace) as { event: string; data: unknown };
      const { gateways } = program('', { connection: () => {}, on: { echo } }, asks).server(trace);
      return {
        gateways,
        adapter: (app, Adapter) => {
          if (!isSetLater) return new Adapter(app, { messageParser: parse });
          const adapter = new Adapter(app);
          adapter.setMessageParser(parse);
          return adapter;
        },
      };
    },
    client: async (clients) => {
      const client = await clients.connect();
      client.raw('["echo","a list"]');
      client.raw(Buffer.from('["echo","bytes"]'));
      client.raw('no JSON');
      client.send('echo', 1);
      await clients.quiet(40);
      await client.close(1000);
    },
  };
}

export const messages: readonly Program[] = [
  ...Object.entries(ANSWERS).map(([what, answer]) =>
    asked(`a handler returns ${what}`, (client, _data, trace) => answer(trace, client)),
  ),
  asked(
    'a handler returns a circle',
    () => {
      const circle: Record<string, unknown> = {};
      circle.of = circle;
      return circle;
    },
    {},
    unsendable([]),
  ),
  asked(
    'an Observable emits a BigInt',
    () => of(event('before'), 1n, event('after')),
    {},
    unsendable(['text {"event":"before"}', 'text {"event":"after"}']),
  ),
  ...(['false', 'later', 'throws'] as const).map((how) =>
    asked(`a guard refuses: ${how}`, () => event('never'), {
      decorate: { go: [UseGuards(new Refuse(how))] },
    }),
  ),
  asked('a pipe for the message', (_client, data) => event('piped', data), {
    decorate: { go: [UsePipes(new Doubling())] },
  }),
  asked('a pipe for all messages of the class', (_client, data) => event('piped', data), {
    decorate: { '': [UsePipes(new Doubling())] },
  }),
  asked('an interceptor that wraps', () => event('inner'), {
    decorate: { go: [UseInterceptors(new Wrapping())] },
  }),
  asked('an interceptor that swallows', () => event('never'), {
    decorate: { go: [UseInterceptors(new Swallowing())] },
  }),
  asked('an interceptor that begins a stream', () => event('inner'), {
    decorate: { go: [UseInterceptors(new Streaming())] },
  }),
  asked('a filter that answers', throws, { decorate: { go: [UseFilters(new Answering())] } }),
  asked('a filter of the class', throws, { decorate: { '': [UseFilters(new Answering())] } }),
  asked('a filter that closes', throws, { decorate: { go: [UseFilters(new Closing())] } }),
  asked('a filter that throws', throws, { decorate: { go: [UseFilters(new Throwing())] } }),
  asked(
    'a filter of the platform, without the cause',
    () => {
      throw new WsException('plain');
    },
    { decorate: { go: [UseFilters(new BaseWsExceptionFilter({ includeCause: false }))] } },
  ),
  asked('a WsException of an object', () => {
    throw new WsException({ code: 7, why: 'because' });
  }),
  program(
    'globals: a pipe, a guard, an interceptor and a filter',
    {
      configure: (app) => {
        app.useGlobalPipes(new Doubling());
        app.useGlobalGuards(new Refuse('throws'));
        app.useGlobalInterceptors(new Wrapping());
        app.useGlobalFilters(new Answering());
      },
      on: { go: () => event('never'), echo },
    },
    asks,
  ),
  ...Object.keys(PARSERS).flatMap((how) => [parsing(how, false), parsing(how, true)]),
  program(
    'the order of answers: values, promises and streams of one read',
    {
      on: {
        value: (_client, data) => event('value', data),
        promise: async (_client, data) => event('promise', data),
        late: async (_client, data) => {
          await sleep(10);
          return event('late', data);
        },
        stream: (_client, data) => of(event('stream', data), event('stream', `${data} again`)),
        nothing: () => undefined,
      },
    },
    async (clients) => {
      const raw = await clients.connectRaw();
      const events = ['late', 'stream', 'promise', 'value', 'nothing', 'value', 'stream', 'late', 'promise'];
      raw.write(...events.map((name, i) => message(name, i)));
      await raw.next(10);
    },
  ),
  program(
    'a rejection, and the answer to the next message of the same read',
    {
      on: {
        reject: (_client, _data, trace) => Promise.reject(trace.fault('rejected')),
        value: (_client, data) => event('value', data),
      },
    },
    async (clients) => {
      const raw = await clients.connectRaw();
      raw.write(message('reject', 1), message('value', 2));
      await raw.frame(2);
    },
    {
      differs: {
        because: 'an answer overtakes a rejection',
        module: {
          client: [
            'HTTP/1.1 101 Switching Protocols',
            'frame 1 {"event":"value","data":2}',
            'frame 1 {"event":"exception"... of 119',
          ],
        },
      },
    },
  ),
  program(
    'the order of answers, texts and callbacks of one read',
    {
      on: {
        go: (client, data, trace) => {
          client.send(`text ${data}`, trace.callback(`text ${data}`));
          queueMicrotask(() => {
            trace.note('microtask', data);
            client.send(`microtask ${data}`);
          });
          process.nextTick(() => {
            trace.note('tick', data);
            client.send(`tick ${data}`);
          });
          return event('answer', data);
        },
      },
    },
    async (clients) => {
      const raw = await clients.connectRaw();
      raw.write(...[1, 2, 3, 4].map((n) => message('go', n)));
      await raw.next(16);
    },
  ),
  program(
    'an unsubscribed stream, when the client leaves',
    {
      disconnect: () => {},
      on: {
        go: (_client, _data, trace) =>
          new Observable((subscriber) => {
            subscriber.next(event('first'));
            return () => trace.note('unsubscribed');
          }),
      },
    },
    async (clients) => {
      const client = await clients.connect();
      client.send('go');
      await client.next(1);
      await client.close(1000);
    },
  ),
  program(
    'two streams at once',
    {
      on: {
        go: (_client, data) =>
          interval(8).pipe(
            take(3),
            map((n) => event(`stream ${data}`, n)),
          ),
      },
    },
    async (clients) => {
      const raw = await clients.connectRaw();
      raw.write(message('go', 1), message('go', 2));
      await raw.next(6);
    },
  ),
];
