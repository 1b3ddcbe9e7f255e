// A gateway whose hooks and handlers are chosen by name, under the module or under the platform's own adapter.
// SCENARIO: one of those below; ADAPTER=platform: without the module.
import 'reflect-metadata';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { WsAdapter } from '@nestjs/platform-ws';
import { ConnectedSocket, MessageBody, SubscribeMessage, WebSocketGateway } from '@nestjs/websockets';

const { SCENARIO = '', ADAPTER } = process.env;
const say = (name, value) => console.log(`${name} ${JSON.stringify(value)}`);

function burn(ms) {
  const endsAt = performance.now() + ms;
  while (performance.now() < endsAt);
}

const scenarios = {
  /** A text, and the end of the process. */
  exit: {
    run(client) {
      client.send('bye');
      process.exit(0);
    },
  },
  crash: {
    run(client) {
      client.send('bye');
      queueMicrotask(() => {
        throw new Error('crashed');
      });
    },
  },
  /** Two messages in one read: the second ends the process, by when the first has been answered. */
  'exit in a batch': {
    async run(_client, data) {
      if (data === 1) return { event: 'answer', data };
      for (let i = 0; i < 50; i++) await undefined;
      process.exit(0);
    },
  },
  'crash in a batch': {
    async run(_client, data) {
      if (data === 1) return { event: 'answer', data };
      for (let i = 0; i < 50; i++) await undefined;
      queueMicrotask(() => {
        throw new Error('crashed');
      });
      for (let i = 0; i < 50; i++) await undefined;
      return { event: 'answer', data };
    },
  },
  /** Progress before work that blocks the process. */
  progress: {
    run(client) {
      client.send('working');
      burn(600);
      client.send('done');
    },
  },
  /** Drops what it cannot send at once. */
  drop: {
    run(client) {
      const amounts = new Set();
      let dropped = 0;
      for (let i = 0; i < 200; i++) {
        if (client.bufferedAmount > 16_384) dropped++;
        else client.send('x'.repeat(1_000));
        amounts.add(client.bufferedAmount);
      }
      return { event: 'result', data: { dropped, amounts: [...amounts] } };
    },
  },
  kick: {
    run(client) {
      client.send('kicked');
      client.send(Buffer.from('bytes'), { binary: true });
      client.terminate();
    },
  },
  /** An asynchronous hook that takes the messages of others into account by itself. */
  'first message': {
    async handleConnection(client) {
      const startedAt = performance.now();
      const [data] = await once(client, 'message');
      client.send(`got ${data} after ${performance.now() - startedAt < 2_000 ? 'a moment' : 'long'}`);
    },
    run: (_client, data) => ({ event: 'answer', data }),
  },
  /** Slow to begin, as with a database behind it. */
  slow: {
    async handleConnection() {
      await sleep(3_000);
    },
    run(_client, data) {
      return { event: 'length', data: data.length };
    },
  },
};

const scenario = scenarios[SCENARIO];

class Gateway {
  handleConnection(client) {
    return scenario.handleConnection?.(client);
  }
  run(data, client) {
    return scenario.run(client, data);
  }
}
ConnectedSocket()(Gateway.prototype, 'run', 1);
MessageBody()(Gateway.prototype, 'run', 0);
SubscribeMessage('run')(Gateway.prototype, 'run', Object.getOwnPropertyDescriptor(Gateway.prototype, 'run'));
WebSocketGateway({ path: '/ws', perMessageDeflate: process.env.DEFLATE === 'true' })(Gateway);

const imports = [];
if (ADAPTER !== 'platform') {
  const { WebSocketManagerModule } = await import('../../dist/index.js');
  const userOf = ({ url }) => new URL(url, 'ws://localhost').searchParams.get('userId');
  imports.push(
    WebSocketManagerModule.forRoot({
      authenticate: (request) => ({ userId: userOf(request) }),
      canary: { intervalMs: 0 },
    }),
  );
}
class AppModule {}
Module({ imports, providers: [Gateway] })(AppModule);
const app = await NestFactory.create(AppModule, { logger: false });
if (ADAPTER === 'platform') app.useWebSocketAdapter(new WsAdapter(app));
await app.listen(0, '127.0.0.1');

let most = 0;
process.on('SIGUSR2', () => {
  globalThis.gc?.();
  most = 0;
  say('rss', process.memoryUsage.rss());
});
setInterval(() => {
  most = Math.max(most, process.memoryUsage.rss());
}, 5).unref();
process.on('SIGWINCH', () => say('most', Math.max(most, process.memoryUsage.rss())));
console.log(`Listening on http://127.0.0.1:${app.getHttpServer().address().port}`);
