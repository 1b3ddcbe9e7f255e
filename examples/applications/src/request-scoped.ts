import { setTimeout as sleep } from 'node:timers/promises';
import { Controller, Get, Inject, Injectable, Module, Optional, Scope } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { MessageBody, SubscribeMessage, WebSocketGateway } from '@nestjs/websockets';
import { manager, start } from './start.js';

const told: string[] = [];

@Injectable({ scope: Scope.REQUEST })
class PerClient {
  messages = 0;
}

/** Nest 12 makes it anew for each client. Nest 11 makes one for all, with nothing injected into it. */
@WebSocketGateway({ path: '/ws' })
class ScopedGateway {
  constructor(@Optional() @Inject(PerClient) private readonly mine?: PerClient) {}

  async handleConnection(): Promise<void> {
    await sleep(50);
    told.push('connected');
  }

  handleDisconnect(_client: unknown, code: number, reason: string): void {
    told.push(`disconnected ${code} ${reason}`.trim());
  }

  @SubscribeMessage('echo')
  echo(@MessageBody() data: unknown) {
    if (this.mine) this.mine.messages++;
    return { event: 'echo', data, messages: this.mine?.messages ?? null };
  }
}

@Controller('told')
class ToldController {
  @Get()
  told(): string[] {
    return told;
  }
}

@Module({ imports: manager(), controllers: [ToldController], providers: [PerClient, ScopedGateway] })
class AppModule {}

void NestFactory.create(AppModule).then(start);
