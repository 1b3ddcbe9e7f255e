// An application that calls neither enableShutdownHooks() nor close(): the module alone has to notice SIGTERM.
import 'reflect-metadata';
import { Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { WebSocketGateway } from '@nestjs/websockets';
import { WebSocketManagerModule } from '../../dist/index.js';

class BareGateway {
  handleConnection(client) {
    client.send('{"event":"hello"}');
  }

  async handleDisconnect() {
    await new Promise((resolve) => setTimeout(resolve, 200));
    console.log('The gateway has said goodbye');
  }
}
WebSocketGateway({ path: '/ws' })(BareGateway);

class BareModule {}
Module({
  imports: [
    WebSocketManagerModule.forRoot({
      authenticate: ({ url }) => {
        const userId = new URL(url, 'ws://localhost').searchParams.get('userId');
        return userId === null ? null : { userId };
      },
      drain: { timeoutMs: 2_000, spreadMs: 200 },
    }),
  ],
  providers: [BareGateway],
})(BareModule);

const app = await NestFactory.create(BareModule, process.env.LOGGER === 'on' ? {} : { logger: false });
await app.listen(0, '127.0.0.1');
console.log(`Listening on ${await app.getUrl()}`);
