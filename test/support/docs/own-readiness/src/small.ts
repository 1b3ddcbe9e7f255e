import { Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { WebSocketGateway } from '@nestjs/websockets';
import { WebSocketManagerModule } from 'nestjs-websocket-manager';

/** The page's own. */
const { ReadinessController } = await import('./readiness.controller.js' as string);

@WebSocketGateway({ path: '/ws' })
class Gateway {}

/** A node that is full with one session. */
@Module({
  imports: [
    WebSocketManagerModule.forRoot({
      authenticate: ({ url = '' }) => ({ userId: url }),
      limits: { managersPerNode: 1 },
      drain: { spreadMs: 1_000, timeoutMs: 2_000 },
      health: true,
    }),
  ],
  controllers: [ReadinessController],
  providers: [Gateway],
})
class SmallModule {}

const app = await NestFactory.create(SmallModule, { forceCloseConnections: true });
app.enableShutdownHooks();
await app.listen(process.env.PORT ?? 0, '127.0.0.1');
