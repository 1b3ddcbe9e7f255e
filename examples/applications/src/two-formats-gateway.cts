import { SubscribeMessage, WebSocketGateway } from '@nestjs/websockets';
import { CurrentManager, type Manager, WebSocketManagerService } from 'nestjs-websocket-manager';

@WebSocketGateway({ path: '/ws' })
export class WhoGateway {
  constructor(private readonly webSockets: WebSocketManagerService) {}

  @SubscribeMessage('who')
  who(@CurrentManager() manager: Manager) {
    return { event: 'who', data: [manager.userId, this.webSockets.managersOf(manager.userId).length] };
  }
}
