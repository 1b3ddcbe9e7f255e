import { setTimeout as sleep } from 'node:timers/promises';
import { Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { WebSocketGateway } from '@nestjs/websockets';
import type { OnWebSocketDisconnect } from 'nestjs-websocket-manager';
import { EchoGateway } from './echo.js';
import { manager, start } from './start.js';

@WebSocketGateway({ path: '/ws' })
class SlowToLeaveGateway extends EchoGateway implements OnWebSocketDisconnect {
  /** A shutdown waits for it: here a database would be written to. */
  async handleDisconnect(_client: unknown, code: number, reason: string): Promise<void> {
    await sleep(300);
    console.log(`written down: ${code} ${reason}`);
  }
}

@Module({ imports: manager({}, { health: true }), providers: [SlowToLeaveGateway] })
class AppModule {}

async function bootstrap(): Promise<void> {
  const app = await NestFactory.create(AppModule);
  if (process.env.SHUTDOWN_HOOKS === 'off') app.enableShutdownHooks = () => app;
  await start(app);
}

void bootstrap();
