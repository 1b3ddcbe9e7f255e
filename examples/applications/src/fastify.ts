import { Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { FastifyAdapter } from '@nestjs/platform-fastify';
import { EchoGateway, HelloController } from './echo.js';
import { manager, start } from './start.js';

@Module({ imports: manager(), controllers: [HelloController], providers: [EchoGateway] })
class AppModule {}

void NestFactory.create(AppModule, new FastifyAdapter()).then(start);
