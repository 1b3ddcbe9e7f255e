import { Controller, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { MessagePattern, Payload, Transport } from '@nestjs/microservices';
import { MessageBody, SubscribeMessage, WebSocketGateway } from '@nestjs/websockets';
import { EchoGateway, HelloController } from './echo.js';
import { manager, start } from './start.js';

/** On a port of its own; {@link EchoGateway} shares the application's. */
@WebSocketGateway(Number(process.env.GATEWAY_PORT), { path: '/feed' })
class FeedGateway {
  @SubscribeMessage('echo')
  echo(@MessageBody() data: unknown) {
    return { event: 'fed', data };
  }
}

@Controller()
class SumController {
  @MessagePattern('sum')
  sum(@Payload() numbers: number[]): number {
    return numbers.reduce((sum, number) => sum + number, 0);
  }
}

@Module({
  imports: manager(),
  controllers: [HelloController, SumController],
  providers: [EchoGateway, FeedGateway],
})
class AppModule {}

async function bootstrap(): Promise<void> {
  const app = await NestFactory.create(AppModule);
  const options = { host: '127.0.0.1', port: Number(process.env.MICROSERVICE_PORT) };
  app.connectMicroservice({ transport: Transport.TCP, options });
  await app.startAllMicroservices();
  await start(app);
}

void bootstrap();
