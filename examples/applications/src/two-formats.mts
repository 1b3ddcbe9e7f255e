import 'reflect-metadata';
import { createRequire } from 'node:module';
import { Controller, Get, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import * as imported from 'nestjs-websocket-manager';
import * as importedTesting from 'nestjs-websocket-manager/testing';
import { WhoGateway } from './two-formats-gateway.cjs';

/** An ES module that imports the package, with a gateway from a CommonJS file that requires it. */
const require = createRequire(import.meta.url);

function different(a: object, b: object): string[] {
  const names = new Set([...Object.keys(a), ...Object.keys(b)]);
  return [...names].filter(
    (name) => Reflect.get(a, name) !== Reflect.get(b, name) || name === 'module.exports',
  );
}

@Controller('different')
class DifferentController {
  @Get()
  different() {
    return {
      names: Object.keys(imported).length,
      different: different(imported, require('nestjs-websocket-manager')),
      differentTesting: different(importedTesting, require('nestjs-websocket-manager/testing')),
    };
  }
}

@Module({
  imports: [
    imported.WebSocketManagerModule.forRoot({
      authenticate: ({ url = '/' }) => ({ userId: new URL(url, 'ws://x').searchParams.get('userId') ?? '' }),
      drain: { spreadMs: 0 },
    }),
  ],
  controllers: [DifferentController],
  providers: [WhoGateway],
})
class AppModule {}

const app = await NestFactory.create(AppModule);
app.enableShutdownHooks();
await app.listen(Number(process.env.PORT ?? 3000), '127.0.0.1');
console.log(`Listening on ${await app.getUrl()}`);
