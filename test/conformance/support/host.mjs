// One server in a process of its own, under the plain WsAdapter or under the module, for what ends a process.
import 'reflect-metadata';
import { Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { WsAdapter } from '@nestjs/platform-ws';
import { SubscribeMessage, WebSocketGateway } from '@nestjs/websockets';

const [, , side, ending] = process.argv;

function busy(ms) {
  const end = performance.now() + ms;
  while (performance.now() < end);
}

/** What the application does with a socket just before its process ends. */
const ACTIONS = {
  text: (socket) => socket.send('bye'),
  'text with a callback': (socket) => socket.send('bye', () => {}),
  'texts and a buffer': (socket) => {
    socket.send('one');
    socket.send(Buffer.from('buffer'));
    socket.send('two');
  },
  'text of 20 kB': (socket) => socket.send('x'.repeat(20_000)),
  'text, then close': (socket) => {
    socket.send('bye');
    socket.close(4000, 'x');
  },
  'text, then terminate': (socket) => {
    socket.send('bye');
    socket.terminate();
  },
  'text in a listener of exit': (socket) => {
    process.on('exit', () => socket.send('from the listener of exit'));
  },
  'answers of Nest': () => {},
  'progress before work': (socket) => {
    socket.send('begins');
    busy(300);
    socket.send('done');
  },
};

/** How it ends. */
const ENDINGS = {
  exit: () => process.exit(3),
  SIGKILL: () => process.kill(process.pid, 'SIGKILL'),
  crash: () => {
    throw new Error('crash');
  },
};

/** What ends a process on the platform, within `handleConnection`. */
const FAILURES = {
  'callback of send that throws': (socket) => {
    socket.send('bye', () => {
      throw new Error('failure');
    });
  },
  'listener of message that throws': (socket) => {
    socket.on('message', () => {
      throw new Error('failure');
    });
  },
  'handleConnection that rejects': async () => {
    throw new Error('failure');
  },
};

const sockets = new Map();

class HostGateway {
  handleConnection(socket, { url }) {
    const action = decodeURIComponent(new URL(url, 'ws://localhost').searchParams.get('action') ?? '');
    sockets.set(action, socket);
    return FAILURES[action]?.(socket);
  }

  echo(_client, data) {
    return { event: 'echo', data };
  }

  end() {
    setImmediate(() => {
      for (const [action, socket] of sockets) ACTIONS[action](socket);
      ENDINGS[ending]();
    });
    return { event: 'end' };
  }
}
WebSocketGateway({ path: '/host' })(HostGateway);
for (const method of ['echo', 'end']) {
  const descriptor = Object.getOwnPropertyDescriptor(HostGateway.prototype, method);
  SubscribeMessage(method)(HostGateway.prototype, method, descriptor);
}

const imports = [];
if (side === 'module') {
  const { WebSocketManagerModule } = await import('../../../dist/index.js');
  imports.push(
    WebSocketManagerModule.forRoot({ authenticate: () => ({ userId: 'user' }), canary: { intervalMs: 0 } }),
  );
}
class HostModule {}
Module({ imports, providers: [HostGateway] })(HostModule);

const app = await NestFactory.create(HostModule, { logger: false });
if (side === 'platform') app.useWebSocketAdapter(new WsAdapter(app));
await app.listen(0, '127.0.0.1');
process.send(app.getHttpServer().address().port);
process.on('disconnect', () => process.exit(0));
