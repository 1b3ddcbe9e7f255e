import { setTimeout as sleep } from 'node:timers/promises';
import { Controller, Get, Injectable, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { WebSocketGateway } from '@nestjs/websockets';
import {
  type DetectorView,
  managerOf,
  WebSocketDetector,
  WebSocketManagerService,
} from 'nestjs-websocket-manager';
import { EchoGateway } from './echo.js';
import { byQuery, manager, start } from './start.js';

/** How each client left, as the gateway's hook was told. */
const told: Record<string, unknown[]> = {};

async function failLater(): Promise<never> {
  await sleep(20);
  throw new Error('rejected');
}

function fail(): never {
  throw new Error('thrown');
}

/** The user's name says which of the hooks fails, and how. */
@WebSocketGateway({ path: '/ws' })
class FailingGateway extends EchoGateway {
  handleConnection(client: unknown): unknown {
    const userId = managerOf(client)?.userId;
    if (userId === 'connects-and-throws') fail();
    return userId === 'connects-and-rejects' ? failLater() : undefined;
  }

  handleDisconnect(client: unknown, ...how: unknown[]): unknown {
    const userId = String(managerOf(client)?.userId);
    told[userId] = how;
    if (userId === 'leaves-and-throws') fail();
    return userId === 'leaves-and-rejects' ? failLater() : undefined;
  }
}

@Injectable()
@WebSocketDetector()
export class FailingDetector {
  readonly name = 'failing';
  examine({ userId }: DetectorView): undefined {
    if (userId === 'examined') fail();
  }
}

@Controller()
class HookController {
  constructor(webSockets: WebSocketManagerService) {
    webSockets.events$.subscribe(() => fail());
  }
  @Get('told')
  told() {
    return told;
  }
}

@Module({
  imports: manager({
    heartbeat: { intervalMs: 200 },
    authenticate: async (request) => {
      const context = byQuery(request);
      return context?.userId === 'authenticates-and-throws' ? failLater() : context;
    },
  }),
  controllers: [HookController],
  providers: [FailingGateway, FailingDetector],
})
class AppModule {}

void NestFactory.create(AppModule).then(start);
