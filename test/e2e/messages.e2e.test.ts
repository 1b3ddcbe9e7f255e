import 'reflect-metadata';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  type ArgumentsHost,
  type CallHandler,
  type CanActivate,
  Catch,
  type ExceptionFilter,
  type ExecutionContext,
  type INestApplication,
  Inject,
  Injectable,
  Logger,
  type NestInterceptor,
  type PipeTransform,
  Scope,
  type Type,
  UseFilters,
  UseGuards,
  UseInterceptors,
  UsePipes,
} from '@nestjs/common';
import { WsAdapter } from '@nestjs/platform-ws';
import { Test } from '@nestjs/testing';
import {
  Ack,
  ConnectedSocket,
  MessageBody,
  SubscribeMessage,
  WebSocketGateway,
  WsException,
} from '@nestjs/websockets';
import { concat, concatMap, delay, EMPTY, finalize, from, interval, map, of, throwError, timer } from 'rxjs';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { type RawData, WebSocket } from 'ws';
import { EchoGateway, startApp } from '../support/app.js';
import { connect } from '../support/client.js';

/** What a message goes through: the platform alone, ours, and the platform's way behind our door. */
const WAYS = ['platform', 'ours', 'stock behind our door'] as const;
type Way = (typeof WAYS)[number];

interface Setup {
  readonly configure?: (app: INestApplication) => unknown;
  readonly providers?: readonly Type[];
}

async function start(way: Way, gateways: readonly Type[], { configure, providers = [] }: Setup = {}) {
  if (way !== 'platform') {
    const options = { useStockMessageHandling: way !== 'ours' };
    const { url } = await startApp({ gateways, providers, options, ...(configure ? { configure } : {}) });
    return url;
  }
  Logger.overrideLogger(false);
  const testing = await Test.createTestingModule({ providers: [...gateways, ...providers] }).compile();
  const app = testing.createNestApplication({ logger: false });
  app.useWebSocketAdapter(new WsAdapter(app));
  await configure?.(app);
  onTestFinished(() => app.close());
  await app.listen(0, '127.0.0.1');
  return `ws://127.0.0.1:${(app.getHttpServer().address() as AddressInfo).port}`;
}

const QUIET_MS = 300;

/** Sends the messages one by one, and returns what came back until nothing more does. */
async function converse(url: string, messages: readonly (object | string | Buffer)[], path = '/m') {
  const client = new WebSocket(`${url}${path}?userId=alice`);
  onTestFinished(() => client.terminate());
  const received: string[] = [];
  let lastAt = 0;
  client.on('message', (data: RawData, isBinary: boolean) => {
    received.push(`${isBinary ? 'binary ' : ''}${String(data)}`);
    lastAt = performance.now();
  });
  await new Promise((resolve, reject) => client.once('open', resolve).once('error', reject));
  for (const message of messages) {
    client.send(typeof message === 'string' || Buffer.isBuffer(message) ? message : JSON.stringify(message));
  }
  lastAt = performance.now();
  while (performance.now() - lastAt < QUIET_MS) await sleep(10);
  client.close();
  return received;
}

/** The platform's own answers, and that the other ways give the very same. */
async function expectSame(
  makeGateways: () => readonly Type[],
  messages: readonly (object | string | Buffer)[],
  setup?: Setup,
): Promise<string[]> {
  const urls: string[] = [];
  for (const way of WAYS) urls.push(await start(way, makeGateways(), setup));
  const answers = await Promise.all(urls.map((url) => converse(url, messages)));
  const [platform, ours, stock] = answers as [string[], string[], string[]];
  expect(ours).toEqual(platform);
  expect(stock).toEqual(platform);
  return platform;
}

const event = (name: string, data?: unknown) => ({ event: name, data });

@Injectable()
class Refuse implements CanActivate {
  canActivate(context: ExecutionContext): boolean {
    return context.switchToWs().getData() !== 'no';
  }
}

@Injectable()
class RefuseLater implements CanActivate {
  async canActivate(context: ExecutionContext): Promise<boolean> {
    await sleep(5);
    return context.switchToWs().getPattern() !== 'guardedLater';
  }
}

class Doubling implements PipeTransform {
  transform(value: unknown): unknown {
    if (typeof value !== 'number') throw new WsException(`not a number: ${String(value)}`);
    return 2 * value;
  }
}

class Wrapping implements NestInterceptor {
  intercept(context: ExecutionContext, next: CallHandler) {
    const pattern = context.switchToWs().getPattern();
    return next.handle().pipe(map((answer) => ({ event: 'wrapped', data: { pattern, answer } })));
  }
}

class Swallowing implements NestInterceptor {
  intercept() {
    return EMPTY;
  }
}

@Catch(RangeError)
class ToClient implements ExceptionFilter {
  catch(error: RangeError, host: ArgumentsHost) {
    host
      .switchToWs()
      .getClient()
      .send(JSON.stringify({ event: 'caught', data: error.message }));
  }
}

function answersGateway(): Type {
  @WebSocketGateway({ path: '/m' })
  class AnswersGateway {
    @SubscribeMessage('object')
    object(@MessageBody() data: unknown) {
      return event('object', data);
    }
    @SubscribeMessage('string')
    string() {
      return 'as it is';
    }
    @SubscribeMessage('number')
    number() {
      return 0;
    }
    @SubscribeMessage('false')
    no() {
      return false;
    }
    @SubscribeMessage('nothing')
    nothing() {}
    @SubscribeMessage('null')
    nil() {
      return null;
    }
    @SubscribeMessage('promise')
    async promise(@MessageBody('field') field: unknown) {
      await sleep(5);
      return event('promise', field);
    }
    @SubscribeMessage('observable')
    observable() {
      return from([event('a'), undefined, null, event('b'), 3]);
    }
    @SubscribeMessage('later')
    later() {
      return timer(10).pipe(map(() => event('later')));
    }
    @SubscribeMessage('promised observable')
    async promisedObservable() {
      return of(event('promised'), event('observable'));
    }
    @SubscribeMessage('observable of promises')
    observableOfPromises() {
      return from([1, 2]).pipe(concatMap(async (n) => event('n', n)));
    }
    @SubscribeMessage('pattern')
    pattern(@ConnectedSocket() client: { readyState: number }, @MessageBody() data: unknown) {
      return event('state', [client.readyState, data]);
    }
    @SubscribeMessage('ack')
    ack(@MessageBody() data: unknown, @Ack() ack: unknown) {
      return event('ack', [data, typeof ack]);
    }
    @SubscribeMessage('twice')
    first() {
      return event('first');
    }
    @SubscribeMessage('twice')
    second() {
      return event('second');
    }
  }
  return AnswersGateway;
}

function failuresGateway(): Type {
  @UseFilters(new ToClient())
  @WebSocketGateway({ path: '/m' })
  class FailuresGateway {
    @SubscribeMessage('ws exception')
    wsException() {
      throw new WsException('plain');
    }
    @SubscribeMessage('ws exception object')
    wsExceptionObject() {
      throw new WsException({ code: 7, why: 'because' });
    }
    @SubscribeMessage('error')
    error() {
      throw new Error('inner matters');
    }
    @SubscribeMessage('rejection')
    async rejection() {
      await sleep(2);
      throw new WsException('later');
    }
    @SubscribeMessage('filtered')
    filtered() {
      throw new RangeError('out of it');
    }
    @SubscribeMessage('observable error')
    observableError() {
      return concat(
        of(event('before')),
        throwError(() => new WsException('in the stream')),
      );
    }
    @UseGuards(Refuse)
    @SubscribeMessage('guarded')
    guarded(@MessageBody() data: unknown) {
      return event('let in', data);
    }
    @UseGuards(RefuseLater)
    @SubscribeMessage('guardedLater')
    guardedLater() {
      return event('let in');
    }
    @UsePipes(new Doubling())
    @SubscribeMessage('piped')
    piped(@MessageBody() data: unknown) {
      return event('piped', data);
    }
    @SubscribeMessage('piped parameter')
    pipedParameter(@MessageBody('n', new Doubling()) n: unknown) {
      return event('piped', n);
    }
    @UseInterceptors(new Wrapping())
    @SubscribeMessage('intercepted')
    intercepted(@MessageBody() data: unknown) {
      return data;
    }
    @UseInterceptors(new Wrapping())
    @SubscribeMessage('intercepted stream')
    interceptedStream() {
      return of(1, 2);
    }
    @UseInterceptors(new Swallowing())
    @SubscribeMessage('swallowed')
    swallowed() {
      return event('never');
    }
    @SubscribeMessage('alive')
    alive() {
      return event('alive');
    }
  }
  return FailuresGateway;
}

describe('a message is answered as on the platform', () => {
  it('whatever its handler returns', async () => {
    const answers = await expectSame(
      () => [answersGateway()],
      [
        ...['object', 'string', 'number', 'false', 'nothing', 'null', 'pattern', 'ack', 'twice'].map((name) =>
          event(name, { some: ['data', 1] }),
        ),
        event('observable'),
        event('object', 'in between'),
      ],
    );
    expect(answers.length).toBeGreaterThan(9);
  });

  it.each([
    ['a promise', event('promise', { field: 'value', other: 1 })],
    ['an observable', event('observable')],
    ['an observable that comes later', event('later')],
    ['a promise of an observable', event('promised observable')],
    ['an observable of promises', event('observable of promises')],
  ])('with %s', async (_title, message) => {
    expect((await expectSame(() => [answersGateway()], [message])).length).toBeGreaterThan(0);
  });

  it('slow answers after quick ones, each when it is ready', async () => {
    const answers = await expectSame(
      () => [answersGateway()],
      [event('later'), event('promise', { field: 1 }), event('object', 2)],
    );
    expect(answers).toHaveLength(3);
  });

  it.each([
    ['no JSON', 'no json {'],
    ['an empty message', ''],
    ['a number', '5'],
    ['null', 'null'],
    ['a string', '"object"'],
    ['a list', '["object"]'],
    ['no event', '{}'],
    ['an event that is no string', '{"event":5}'],
    ['an event that nobody handles', '{"event":"nobody"}'],
    ['the name of a method', '{"event":"constructor"}'],
    ['a prototype', '{"event":"__proto__","data":{"__proto__":{"polluted":1}}}'],
  ])('not at all: %s', async (_title, message) => {
    const answers = await expectSame(() => [answersGateway()], [message, event('object', 'next')]);
    expect(answers).toEqual([JSON.stringify(event('object', 'next'))]);
  });

  it('as a binary frame', async () => {
    const message = Buffer.from(JSON.stringify(event('object', 'ü')));
    expect(await expectSame(() => [answersGateway()], [message])).toEqual([
      JSON.stringify(event('object', 'ü')),
    ]);
  });

  it.each([
    ['throws a WsException', event('ws exception', 'data')],
    ['throws a WsException with an object', event('ws exception object')],
    ['throws', event('error')],
    ['rejects', event('rejection')],
    ['throws what a filter catches', event('filtered')],
    ['answers with an observable that fails', event('observable error')],
    ['is refused by a guard', event('guarded', 'no')],
    ['is let in by a guard', event('guarded', 'yes')],
    ['is refused by an asynchronous guard', event('guardedLater')],
    ['is refused by a pipe', event('piped', 'x')],
    ['has a pipe', event('piped', 21)],
    ['has a pipe on a parameter', event('piped parameter', { n: 4 })],
    ['has an interceptor', event('intercepted', 'x')],
    ['has an interceptor and a stream', event('intercepted stream')],
    ['has an interceptor that swallows', event('swallowed')],
  ])('where its handler %s', async (_title, message) => {
    const answers = await expectSame(() => [failuresGateway()], [message]);
    if (message.event !== 'swallowed') expect(answers.length).toBeGreaterThan(0);
    // And the connection goes on.
    expect(await expectSame(() => [failuresGateway()], [message, event('alive')])).toContain(
      JSON.stringify(event('alive')),
    );
  });

  it('by every gateway of its path, none of which sees what another does to it', async () => {
    const makeGateways = () => {
      @WebSocketGateway({ path: '/m' })
      class First {
        @SubscribeMessage('both')
        both(@MessageBody() data: { n: number }) {
          data.n++;
          return event('first', data);
        }
        @SubscribeMessage('mine')
        mine() {
          return event('mine');
        }
      }
      @WebSocketGateway({ path: '/m' })
      class Second {
        @SubscribeMessage('yours')
        yours() {
          return event('yours');
        }
        @SubscribeMessage('both')
        both(@MessageBody() data: { n: number }) {
          data.n++;
          return event('second', data);
        }
      }
      return [First, Second];
    };
    const answers = await expectSame(makeGateways, [event('both', { n: 1 }), event('mine'), event('yours')]);
    expect(answers.filter((answer) => answer.includes('"n":2'))).toHaveLength(2);
  });

  it('by a gateway that is made anew for each client', async () => {
    const makeGateways = () => {
      @Injectable({ scope: Scope.REQUEST })
      class Counter {
        count = 0;
      }
      @WebSocketGateway({ path: '/m' })
      class ScopedGateway {
        constructor(@Inject(Counter) private readonly counter: Counter) {}
        @SubscribeMessage('count')
        count() {
          return event('count', ++this.counter.count);
        }
        @SubscribeMessage('throw')
        throw() {
          throw new WsException('scoped');
        }
      }
      return [ScopedGateway, Counter];
    };
    const answers = await expectSame(makeGateways, [event('count'), event('count'), event('throw')]);
    expect(answers).toHaveLength(3);
  });

  it('by what the application has set for all of its handlers', async () => {
    await expectSame(() => [failuresGateway(), answersGateway()], [event('object', 1), event('error')], {
      configure: (app) => {
        app.useGlobalGuards(new Refuse());
        app.useGlobalPipes(new Doubling());
        app.useGlobalInterceptors(new Wrapping());
        app.useGlobalFilters(new ToClient());
      },
    });
  });

  it('with a parser of the application, set before or after the adapter is in use', async () => {
    const parser = (data: unknown) => {
      const [name, payload] = JSON.parse(String(data)) as [string, unknown];
      return event(name, payload);
    };
    const makeGateways = () => [answersGateway()];
    const messages = ['["object",1]', '{"event":"object"}', '["nobody"]', '["object",2]'];
    const before = (app: INestApplication) =>
      app.useWebSocketAdapter(new WsAdapter(app, { messageParser: parser }));
    expect(await expectSame(makeGateways, messages, { configure: before })).toHaveLength(2);
    const after = (app: INestApplication) => {
      const adapter = new WsAdapter(app);
      app.useWebSocketAdapter(adapter);
      adapter.setMessageParser(parser);
    };
    expect(await expectSame(makeGateways, messages, { configure: after })).toHaveLength(2);
  });
});

describe('what an application sends by itself arrives as on the platform', () => {
  const gatewayThat = (say: (client: WebSocket) => void, options: object = {}) => {
    @WebSocketGateway({ path: '/m', ...options })
    class TalkingGateway {
      @SubscribeMessage('talk')
      talk(@ConnectedSocket() client: WebSocket) {
        say(client);
        return event('end');
      }
    }
    return () => [TalkingGateway];
  };
  const SIZES = [0, 1, 124, 125, 126, 127, 65_534, 65_535, 65_536, 200_000];

  it.each([
    ['whole', {}],
    ['compressed', { perMessageDeflate: true }],
  ])('texts of every length, %s', async (_title, options) => {
    const say = (client: WebSocket) => {
      for (const size of SIZES) client.send('x'.repeat(size));
      for (const size of SIZES) client.send('ü€😀\ud800'.repeat(Math.ceil(size / 4)).slice(0, size));
    };
    expect(await expectSame(gatewayThat(say, options), [event('talk')])).toHaveLength(2 * SIZES.length + 1);
  });

  it('texts between bytes, parts, blobs and callbacks, in their order', async () => {
    const say = (client: WebSocket) => {
      client.send('first');
      client.send(Buffer.from('bytes'));
      client.send('second', () => client.send('told'));
      client.send(new Uint8Array([104, 105]).buffer);
      client.send('third', { binary: true });
      client.send('fourth');
      client.send('in ', { fin: false });
      client.send('parts', { fin: true });
      client.send('fifth');
      client.send(new Blob(['a blob']));
      client.send('sixth');
      client.ping();
      client.send('seventh');
    };
    expect((await expectSame(gatewayThat(say), [event('talk')])).length).toBe(13);
  });

  it('the same text to many, each time whole', async () => {
    const say = (client: WebSocket) => {
      for (let i = 0; i < 3; i++) for (const text of ['one', 'one', 'two', 'one']) client.send(text);
    };
    expect(await expectSame(gatewayThat(say), [event('talk')])).toHaveLength(13);
  });

  it.each([
    ['closes', (client: WebSocket) => client.close(4000, 'enough')],
    ['terminates', (client: WebSocket) => client.terminate()],
  ])('before it %s the socket in the same moment', async (_title, end) => {
    const say = (client: WebSocket) => {
      for (const text of ['this', 'still', 'arrives']) client.send(text);
      end(client);
    };
    expect(await expectSame(gatewayThat(say), [event('talk')])).toEqual(['this', 'still', 'arrives']);
  });
});

describe.each(['ours', 'stock behind our door'] as const)('a stream of answers, %s', (way) => {
  it('ends with its connection, and keeps the session busy until then', async () => {
    const ended = vi.fn();
    @WebSocketGateway({ path: '/ws' })
    class StreamGateway {
      @SubscribeMessage('stream')
      stream() {
        return interval(5).pipe(
          map((n) => event('n', n)),
          finalize(ended),
        );
      }
    }
    const options = { useStockMessageHandling: way !== 'ours', session: { resumeWindowMs: 5_000 } };
    const { url, service } = await startApp({ gateways: [StreamGateway], options });
    const client = await connect(`${url}/ws?userId=alice&sessionKey=tab`);
    const [manager] = service.managersOf('alice');
    client.send('stream');
    await client.next();
    expect(manager?.isBusy).toBe(true);
    expect(ended).not.toHaveBeenCalled();
    await client.leave();
    await vi.waitFor(() => expect(ended).toHaveBeenCalledOnce());
    expect(manager?.isBusy).toBe(false);
  });

  it('is not begun for a connection that is gone', async () => {
    const begun = vi.fn();
    const asked = vi.fn();
    @WebSocketGateway({ path: '/ws' })
    class LateGateway {
      @SubscribeMessage('late')
      async late() {
        asked();
        await sleep(100);
        return of(1).pipe(delay(1), finalize(begun));
      }
    }
    const { url } = await startApp({
      gateways: [LateGateway],
      options: { useStockMessageHandling: way !== 'ours' },
    });
    const client = await connect(`${url}/ws?userId=alice`);
    client.send('late');
    await vi.waitFor(() => expect(asked).toHaveBeenCalled());
    await client.leave();
    await sleep(200);
    expect(begun).not.toHaveBeenCalled();
  });
});

describe('our way to a handler', () => {
  it('survives an answer that cannot be written as JSON, and says so', async () => {
    @WebSocketGateway({ path: '/ws' })
    class CircularGateway extends EchoGateway {
      @SubscribeMessage('circle')
      circle() {
        const circle: Record<string, unknown> = {};
        circle.itself = circle;
        return circle;
      }
      @SubscribeMessage('circles')
      circles() {
        return of(1n, event('fine'));
      }
    }
    const { url, of: eventsOf } = await startApp({ gateways: [CircularGateway] });
    const client = await connect(`${url}/ws?userId=alice`);
    client.send('circle');
    client.send('circles');
    expect((await client.next()).event).toBe('fine');
    expect(eventsOf('hook_failed').map(({ hook }) => hook)).toEqual(['message handler', 'message handler']);
    expect(await client.echo('on')).toBe('on');
  });

  it('says what a filter throws, and goes on', async () => {
    @Catch()
    class Rethrowing implements ExceptionFilter {
      catch(error: unknown): void {
        throw error;
      }
    }
    @WebSocketGateway({ path: '/ws' })
    class RethrowingGateway extends EchoGateway {
      @UseFilters(new Rethrowing())
      @SubscribeMessage('throw')
      throw() {
        throw new Error('through the filter');
      }
    }
    const { url, of: eventsOf } = await startApp({ gateways: [RethrowingGateway] });
    const client = await connect(`${url}/ws?userId=alice`);
    client.send('throw');
    expect(await client.echo('on')).toBe('on');
    expect(eventsOf('hook_failed')).toMatchObject([{ hook: 'message handler' }]);
  });

  it('says so when the application’s parser fails, at what is no JSON too, as Nest’s own way does', async () => {
    const { url, of: eventsOf } = await startApp({
      configure: (app) =>
        app.useWebSocketAdapter(
          new WsAdapter(app, {
            messageParser: (data) => {
              const message = JSON.parse(String(data));
              if (message.event === 'poison') throw new TypeError('poisoned');
              return message;
            },
          }),
        ),
    });
    const client = await connect(`${url}/ws?userId=alice`);
    client.webSocket.send('{');
    client.send('poison');
    expect(await client.echo('on')).toBe('on');
    expect(eventsOf('hook_failed')).toMatchObject([
      { hook: 'message parser', error: expect.any(SyntaxError) },
      { hook: 'message parser', error: new TypeError('poisoned') },
    ]);
  });

  it('says nothing when the platform’s own parser gets what is no JSON', async () => {
    const { url, of: eventsOf } = await startApp();
    const client = await connect(`${url}/ws?userId=alice`);
    client.webSocket.send('{');
    expect(await client.echo('on')).toBe('on');
    expect(eventsOf('hook_failed')).toEqual([]);
  });

  it('counts a session as busy while a handler runs, and no longer', async () => {
    let finish = () => {};
    @WebSocketGateway({ path: '/ws' })
    class SlowGateway {
      @SubscribeMessage('slow')
      async slow(): Promise<unknown> {
        await new Promise<void>((resolve) => {
          finish = resolve;
        });
        throw new WsException('after all');
      }
    }
    const { url, service } = await startApp({ gateways: [SlowGateway] });
    const client = await connect(`${url}/ws?userId=alice`);
    const [manager] = service.managersOf('alice');
    client.send('slow');
    await vi.waitFor(() => expect(manager?.isBusy).toBe(true));
    finish();
    expect((await client.next()).event).toBe('exception');
    await vi.waitFor(() => expect(manager?.isBusy).toBe(false));
  });

  it('sends what a filter emits to a client, as those of Nest 11 do, unless somebody else is listening', async () => {
    @Catch()
    class Emitting implements ExceptionFilter {
      catch(error: Error, host: ArgumentsHost): void {
        host.switchToWs().getClient().emit('exception', { message: error.message });
      }
    }
    const heard: unknown[] = [];
    @WebSocketGateway({ path: '/ws' })
    class EmittingGateway extends EchoGateway {
      @SubscribeMessage('listen')
      listen(@ConnectedSocket() client: WebSocket): void {
        client.on('exception' as 'message', (payload) => heard.push(payload));
      }
      @UseFilters(new Emitting())
      @SubscribeMessage('throw')
      throw(): void {
        throw new Error('for the client');
      }
    }
    const { url } = await startApp({ gateways: [EmittingGateway] });
    const client = await connect(`${url}/ws?userId=alice`);
    const payload = { message: 'for the client' };
    client.send('throw');
    expect(await client.next()).toEqual({ event: 'exception', data: payload });
    client.send('listen');
    client.send('throw');
    expect(await client.echo('on')).toBe('on');
    expect(heard).toEqual([payload]);
  });

  it('leaves the way of an adapter of the application alone', async () => {
    const seen: unknown[] = [];
    class OwnAdapter extends WsAdapter {
      override bindMessageHandler(...args: Parameters<WsAdapter['bindMessageHandler']>) {
        seen.push(String(args[0].data));
        return super.bindMessageHandler(...args);
      }
    }
    const { url } = await startApp({ configure: (app) => app.useWebSocketAdapter(new OwnAdapter(app)) });
    const client = await connect(`${url}/ws?userId=alice`);
    expect(await client.echo('mine')).toBe('mine');
    expect(seen).toEqual([JSON.stringify(event('echo', 'mine'))]);
  });
});
