import 'reflect-metadata';
import type { IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type DynamicModule, type INestApplication, Logger, type Provider, type Type } from '@nestjs/common';
import { Test } from '@nestjs/testing';
import { MessageBody, SubscribeMessage, WebSocketGateway } from '@nestjs/websockets';
import { onTestFinished } from 'vitest';
import {
  type UserContext,
  type WebSocketManagerEvent,
  WebSocketManagerModule,
  type WebSocketManagerModuleExtras,
  type WebSocketManagerOptions,
  WebSocketManagerService,
} from '../../src/index.js';

/** The gateway of tests that do not need one of their own. */
@WebSocketGateway({ path: '/ws' })
export class EchoGateway {
  @SubscribeMessage('echo')
  echo(@MessageBody() data: unknown): unknown {
    return { event: 'echo', data };
  }
}

/** Believes `?userId=` and `?sessionKey=`. */
export function byQuery({ url = '/' }: IncomingMessage): UserContext | null {
  const { searchParams } = new URL(url, 'ws://localhost');
  const userId = searchParams.get('userId');
  return userId === null ? null : { userId, sessionKey: searchParams.get('sessionKey') ?? undefined };
}

export interface AppSetup {
  /** Over the defaults: {@link byQuery}, no canary, a shutdown without delays. */
  readonly options?: Partial<WebSocketManagerOptions>;
  readonly extras?: WebSocketManagerModuleExtras;
  /** Instead of `forRoot(options)`. */
  readonly module?: DynamicModule;
  /** Default: {@link EchoGateway}. */
  readonly gateways?: readonly Type[];
  readonly providers?: readonly Provider[];
  readonly imports?: readonly (Type | DynamicModule)[];
  /** What `main.ts` would do before it listens. */
  readonly configure?: (app: INestApplication) => unknown;
}

export interface RunningApp {
  readonly app: INestApplication;
  readonly port: number;
  /** `ws://127.0.0.1:PORT` */
  readonly url: string;
  readonly service: WebSocketManagerService;
  /** Everything that `events$` has told, oldest first. */
  readonly events: WebSocketManagerEvent[];
  /** Those of one type. */
  of<T extends WebSocketManagerEvent['type']>(type: T): Extract<WebSocketManagerEvent, { type: T }>[];
  close(): Promise<void>;
}

/** Quick to stop, and nothing in it but what the test is about. */
export function testOptions(options: Partial<WebSocketManagerOptions> = {}): WebSocketManagerOptions {
  return {
    authenticate: byQuery,
    canary: { intervalMs: 0 },
    drain: { spreadMs: 0, timeoutMs: 1_000 },
    ...options,
  };
}

/** Starts an application on a free port of the loopback; it is closed when the test is finished. */
export async function startApp(setup: AppSetup = {}): Promise<RunningApp> {
  const { gateways = [EchoGateway], providers = [], imports = [], configure } = setup;
  Logger.overrideLogger(false);
  const module =
    setup.module ?? WebSocketManagerModule.forRoot({ ...testOptions(setup.options), ...setup.extras });
  const testing = await Test.createTestingModule({
    imports: [module, ...imports],
    providers: [...gateways, ...providers],
  }).compile();
  const app = testing.createNestApplication({ logger: false });
  let closing: Promise<void> | undefined;
  const close = () => {
    closing ??= app.close();
    return closing;
  };
  onTestFinished(close);
  await configure?.(app);
  const service = app.get(WebSocketManagerService);
  const events: WebSocketManagerEvent[] = [];
  service.events$.subscribe((event) => events.push(event));
  await app.listen(0, '127.0.0.1');
  const { port } = app.getHttpServer().address() as AddressInfo;
  return {
    app,
    port,
    url: `ws://127.0.0.1:${port}`,
    service,
    events,
    of: <T extends WebSocketManagerEvent['type']>(type: T) =>
      events.filter((event): event is Extract<WebSocketManagerEvent, { type: T }> => event.type === type),
    close,
  };
}
