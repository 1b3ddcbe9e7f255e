import { UseFilters } from '@nestjs/common';
import {
  BaseWsExceptionFilter,
  ConnectedSocket,
  MessageBody,
  type OnGatewayConnection,
  SubscribeMessage,
  WebSocketGateway,
  WsException,
  type WsResponse,
} from '@nestjs/websockets';
import { concat, map, type Observable, of } from 'rxjs';
import { connectionOf } from '../admission/managed-websocket.js';
import { LanguageModel } from './language-model.js';

const PROMPT_MAX_LENGTH = 4_000;

/** A stock gateway: nothing in it knows of limits, heartbeats or cleanup. */
@WebSocketGateway({ path: '/ws' })
@UseFilters(new BaseWsExceptionFilter())
export class ChatGateway implements OnGatewayConnection {
  constructor(private readonly model: LanguageModel) {}

  handleConnection(client: unknown): void {
    const connection = connectionOf(client);
    if (!connection) return;
    const { id: managerId, userId, sessionKey = null } = connection.manager;
    const { joined } = connection;
    connection.send(JSON.stringify({ event: 'session', data: { managerId, userId, sessionKey, joined } }));
  }

  @SubscribeMessage('echo')
  echo(@MessageBody() data: unknown): WsResponse<unknown> {
    return { event: 'echo', data };
  }

  /** Streams an answer; the session is busy until it is complete. */
  @SubscribeMessage('ask')
  ask(
    @MessageBody() body: unknown,
    @ConnectedSocket() _client: unknown,
  ): Observable<Partial<WsResponse<unknown>>> {
    const tokens = this.model
      .answer(promptOf(body))
      .pipe(map((text) => ({ event: 'token', data: { text } })));
    return concat(tokens, of({ event: 'done' }));
  }
}

function promptOf(body: unknown): string {
  const { prompt } = (body ?? {}) as { prompt?: unknown };
  if (typeof prompt === 'string' && prompt.length > 0 && prompt.length <= PROMPT_MAX_LENGTH) return prompt;
  throw new WsException(`prompt: allowed: a string of 1 to ${PROMPT_MAX_LENGTH} characters`);
}
