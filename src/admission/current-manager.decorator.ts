import { createParamDecorator, type ExecutionContext } from '@nestjs/common';
import type { Manager } from '../manager/manager.js';
import { connectionOf } from './managed-websocket.js';

/**
 * The manager of the connection that sent the message.
 *
 * @example
 * ```ts
 * @SubscribeMessage('ask')
 * ask(@MessageBody() body: Ask, @CurrentManager() manager: Manager) {
 *   return manager.busy(() => this.answer(body));
 * }
 * ```
 */
export const CurrentManager = createParamDecorator(
  (_data: unknown, context: ExecutionContext): Manager | undefined =>
    managerOf(context.switchToWs().getClient()),
);

/** The manager that holds a client, for hooks such as `handleConnection(client)`. */
export function managerOf(client: unknown): Manager | undefined {
  return connectionOf(client)?.manager;
}
