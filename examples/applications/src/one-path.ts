import { Controller, Get, Injectable, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { MessageBody, SubscribeMessage, WebSocketGateway } from '@nestjs/websockets';
import { manager, start } from './start.js';

@Injectable()
class Log {
  readonly lines: string[] = [];
}

/** Two gateways on one path: they share its sockets. */
@WebSocketGateway({ path: '/ws' })
class FirstGateway {
  constructor(private readonly log: Log) {}
  handleConnection(): void {
    this.log.lines.push('first connected');
  }
  handleDisconnect(): void {
    this.log.lines.push('first disconnected');
  }
  @SubscribeMessage('first')
  first(@MessageBody() data: unknown) {
    return { event: 'first', data };
  }
  @SubscribeMessage('both')
  both() {
    return { event: 'both', data: 'first' };
  }
}

@WebSocketGateway({ path: '/ws' })
class SecondGateway {
  constructor(private readonly log: Log) {}
  handleConnection(): void {
    this.log.lines.push('second connected');
  }
  handleDisconnect(): void {
    this.log.lines.push('second disconnected');
  }
  @SubscribeMessage('second')
  second(@MessageBody() data: unknown) {
    return { event: 'second', data };
  }
  @SubscribeMessage('both')
  both() {
    return { event: 'both', data: 'second' };
  }
}

@Controller('log')
class LogController {
  constructor(private readonly log: Log) {}
  @Get()
  lines(): string[] {
    return this.log.lines;
  }
}

@Module({
  imports: manager(),
  controllers: [LogController],
  providers: [Log, FirstGateway, SecondGateway],
})
class AppModule {}

void NestFactory.create(AppModule).then(start);
