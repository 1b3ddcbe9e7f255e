import { MessageBody, SubscribeMessage, WebSocketGateway } from '@nestjs/websockets';
import {
  CurrentManager,
  type Manager,
  managerOf,
  type OnWebSocketDisconnect,
  WebSocketManagerService,
} from 'nestjs-websocket-manager';
import { Presence } from './presence';

/** A stock gateway. That it may hold a connection at all was decided before any of it runs. */
@WebSocketGateway({ path: '/chat' })
export class ChatGateway implements OnWebSocketDisconnect {
  constructor(
    private readonly webSockets: WebSocketManagerService,
    private readonly presence: Presence,
  ) {}

  /** To everybody; the answer says how many connections that are. */
  @SubscribeMessage('say')
  say(@MessageBody() text: string, @CurrentManager() manager: Manager) {
    const heardBy = this.webSockets.broadcast('said', { by: manager.userId, text });
    return { event: 'heard', data: heardBy };
  }

  @SubscribeMessage('sign out everywhere')
  signOutEverywhere(@CurrentManager() manager: Manager): void {
    this.webSockets.disconnectUser(manager.userId);
  }

  handleDisconnect(client: unknown, code: number, reason: string): void {
    const manager = managerOf(client);
    if (manager) this.presence.left(manager.userId, `${code} ${reason}`.trim());
  }
}
