import { Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { FastifyAdapter } from '@nestjs/platform-fastify';
import { EchoGateway, HelloController } from './echo.js';
import { manager, OperatorGuard, start } from './start.js';

@Module({
  imports: manager(
    { limits: { managersPerUser: 2, managersPerNode: 8 } },
    { admin: { guards: [OperatorGuard] } },
  ),
  controllers: [HelloController],
  providers: [EchoGateway],
})
class AppModule {}

void NestFactory.create(AppModule, new FastifyAdapter()).then(start);
