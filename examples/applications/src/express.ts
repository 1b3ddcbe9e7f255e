import { Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { EchoGateway, HelloController } from './echo.js';
import { manager, start } from './start.js';

@Module({ imports: manager(), controllers: [HelloController], providers: [EchoGateway] })
class AppModule {}

void NestFactory.create(AppModule).then(start);
