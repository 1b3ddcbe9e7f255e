// What the Nest servers have in common: the platform, and the handler that each of their gateways has.
import 'reflect-metadata';
import { Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { MessageBody, SubscribeMessage, WebSocketGateway } from '@nestjs/websockets';

/** An ordinary gateway, decorated by hand so that Node can run it as it is written. */
export class EchoGateway {
  echo(data) {
    return { event: 'echo', data };
  }
}
MessageBody()(EchoGateway.prototype, 'echo', 0);
SubscribeMessage('echo')(
  EchoGateway.prototype,
  'echo',
  Object.getOwnPropertyDescriptor(EchoGateway.prototype, 'echo'),
);

/** Starts an application with this gateway; `prepare` sets its adapter. */
export async function startNest(Gateway, { imports = [], options = { path: '/ws' }, prepare } = {}) {
  WebSocketGateway(options)(Gateway);
  class AppModule {}
  Module({ imports, providers: [Gateway] })(AppModule);
  const app = await NestFactory.create(AppModule, { logger: ['fatal', 'error'] });
  prepare?.(app);
  await app.listen(0, '127.0.0.1');
  return { app, port: app.getHttpServer().address().port };
}

/** Who is connecting: all of `?user=`. As little work as an application could do for it. */
export function userOf({ url }) {
  return url.slice(url.indexOf('user=') + 5);
}
