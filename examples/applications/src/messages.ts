import { setTimeout as sleep } from 'node:timers/promises';
import {
  type ArgumentsHost,
  type CallHandler,
  type CanActivate,
  Catch,
  type ExceptionFilter,
  type ExecutionContext,
  Injectable,
  Module,
  type NestInterceptor,
  type PipeTransform,
  UseFilters,
  UseGuards,
  UseInterceptors,
  UsePipes,
} from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import {
  Ack,
  BaseWsExceptionFilter,
  ConnectedSocket,
  MessageBody,
  SubscribeMessage,
  WebSocketGateway,
  WsException,
} from '@nestjs/websockets';
import { concat, concatMap, EMPTY, from, map, of, throwError, timer } from 'rxjs';
import { manager, start } from './start.js';

/** Whatever a message can go through, and a handler can do. The driver compares it with the platform alone. */

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
    return context.switchToWs().getPattern() !== 'guarded later';
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
    return next.handle().pipe(map((answer) => event('wrapped', { pattern, answer })));
  }
}

class Swallowing implements NestInterceptor {
  intercept() {
    return EMPTY;
  }
}

@Catch(RangeError)
class ToClient implements ExceptionFilter {
  catch(error: RangeError, host: ArgumentsHost): void {
    host
      .switchToWs()
      .getClient()
      .send(JSON.stringify(event('caught', error.message)));
  }
}

@WebSocketGateway({ path: '/answers' })
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
  @SubscribeMessage('state')
  state(@ConnectedSocket() client: { readyState: number }, @MessageBody() data: unknown) {
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
  @SubscribeMessage('sends by itself')
  sends(@ConnectedSocket() client: { send(data: unknown, options?: unknown): void }) {
    client.send('first');
    client.send(Buffer.from('bytes'));
    client.send('second', { binary: true });
    client.send('x'.repeat(70_000));
    return event('last');
  }
}

@UseFilters(new ToClient())
@WebSocketGateway({ path: '/failures' })
class FailuresGateway {
  @SubscribeMessage('ws exception')
  wsException() {
    throw new WsException('plain');
  }
  @SubscribeMessage('ws exception object')
  wsExceptionObject() {
    throw new WsException({ code: 7, why: 'because' });
  }
  @UseFilters(new BaseWsExceptionFilter({ includeCause: false }))
  @SubscribeMessage('ws exception, base filter')
  wsExceptionBaseFilter() {
    throw new WsException('by the base filter');
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
  @SubscribeMessage('guarded later')
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
  @SubscribeMessage('object')
  alive(@MessageBody() data: unknown) {
    return event('object', data);
  }
}

@WebSocketGateway({ path: '/both' })
class OneGateway {
  @SubscribeMessage('object')
  both(@MessageBody() data: { n: number }) {
    data.n++;
    return event('one', data);
  }
}

@WebSocketGateway({ path: '/both' })
class OtherGateway {
  @SubscribeMessage('object')
  both(@MessageBody() data: { n: number }) {
    data.n++;
    return event('other', data);
  }
}

@Module({
  imports: manager({ limits: { managersPerUser: 100 } }),
  providers: [AnswersGateway, FailuresGateway, OneGateway, OtherGateway],
})
class AppModule {}

async function bootstrap(): Promise<void> {
  const app = await NestFactory.create(AppModule);
  if (process.env.GLOBALS === 'on') {
    app.useGlobalGuards(new Refuse());
    app.useGlobalPipes(new Doubling());
    app.useGlobalInterceptors(new Wrapping());
    app.useGlobalFilters(new ToClient());
  }
  await start(app);
}

void bootstrap();
