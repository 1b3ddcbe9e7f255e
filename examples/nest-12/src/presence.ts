import { Controller, Get, Injectable, Param } from '@nestjs/common';
import { WebSocketManagerService } from 'nestjs-websocket-manager';

/** Who is here, and how who is not went. */
@Injectable()
export class Presence {
  private readonly lastLeft = new Map<string, string>();

  constructor(private readonly webSockets: WebSocketManagerService) {}

  left(userId: string, how: string): void {
    this.lastLeft.set(userId, how);
  }

  of(userId: string) {
    return {
      sessions: this.webSockets.managersOf(userId).length,
      lastLeft: this.lastLeft.get(userId) ?? null,
    };
  }
}

@Controller('presence')
export class PresenceController {
  constructor(private readonly presence: Presence) {}

  @Get(':userId')
  of(@Param('userId') userId: string) {
    return this.presence.of(userId);
  }
}
