import 'reflect-metadata';
import type { IncomingMessage } from 'node:http';
import type { CanActivate, DynamicModule, ExecutionContext, INestApplication } from '@nestjs/common';
import { WsAdapter } from '@nestjs/platform-ws';
import {
  type UserContext,
  WebSocketManagerModule,
  type WebSocketManagerModuleExtras,
  type WebSocketManagerOptions,
} from 'nestjs-websocket-manager';

/** `platform`: without the module, to see what it has to leave as it is. `stock`: with `useStockMessageHandling`. */
const WAY = process.env.WAY ?? 'ours';

/** Believes `?userId=` and `?sessionKey=`, which is for trying things out and for nothing else. */
export function byQuery({ url = '/' }: IncomingMessage): UserContext | null {
  const { searchParams } = new URL(url, 'ws://localhost');
  const userId = searchParams.get('userId');
  return userId === null ? null : { userId, sessionKey: searchParams.get('sessionKey') ?? undefined };
}

/** For the operator's API of an application that is tried out. */
export class OperatorGuard implements CanActivate {
  canActivate(context: ExecutionContext): boolean {
    const { headers } = context.switchToHttp().getRequest<{ headers: Record<string, string> }>();
    return headers.authorization === 'Bearer operator';
  }
}

/** The module, with room for two sessions of a user. */
export function manager(
  options: Partial<WebSocketManagerOptions> = {},
  extras: WebSocketManagerModuleExtras = {},
): DynamicModule[] {
  if (WAY === 'platform') return [];
  const module = WebSocketManagerModule.forRoot({
    authenticate: byQuery,
    limits: { managersPerUser: 2 },
    drain: { timeoutMs: 5_000, spreadMs: 100 },
    useStockMessageHandling: WAY === 'stock',
    ...options,
    ...extras,
  });
  return [module];
}

/** Listens where the environment says, tells where that is, and ends politely on SIGTERM. */
export async function start(app: INestApplication): Promise<void> {
  if (WAY === 'platform') app.useWebSocketAdapter(new WsAdapter(app));
  app.enableShutdownHooks();
  await app.listen(Number(process.env.PORT ?? 3000), '127.0.0.1');
  console.log(`Listening on ${await app.getUrl()}`);
}
