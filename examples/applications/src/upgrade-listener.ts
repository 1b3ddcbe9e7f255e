import type { Server } from 'node:http';
import { type BeforeApplicationShutdown, Injectable, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { WebSocketServer } from 'ws';
import { EchoGateway, HelloController } from './echo.js';
import { manager, start } from './start.js';

/** What libraries with sockets of their own do: GraphQL subscriptions, hot reloading, a proxy. */
@Injectable()
class Others implements BeforeApplicationShutdown {
  private readonly server = new WebSocketServer({ noServer: true });

  listenTo(http: Server): void {
    const { server } = this;
    server.on('connection', (socket) => {
      socket.on('message', (data) => socket.send(JSON.stringify({ event: 'other', data: String(data) })));
    });
    http.on('upgrade', (request, socket, head) => {
      if (!request.url?.startsWith('/other')) return;
      server.handleUpgrade(request, socket, head, (client) => server.emit('connection', client, request));
    });
  }

  beforeApplicationShutdown(): void {
    for (const client of this.server.clients) client.close(1001);
  }
}

@Module({
  imports: manager({ admission: { authenticateTimeoutMs: 500 } }),
  controllers: [HelloController],
  providers: [EchoGateway, Others],
})
class AppModule {}

async function bootstrap(): Promise<void> {
  const app = await NestFactory.create(AppModule);
  // Gateways are bound when the application is initialised.
  if (process.env.WHEN === 'after') await app.init();
  app.get(Others).listenTo(app.getHttpServer());
  await start(app);
}

void bootstrap();
