// The server of the link tests: a stock gateway with the module's defaults, a limit that the user id names, and
// handlers that download, upload and push. Each event of the module is written to stdout as one line `EVENT {json}`.
// A timer that was late is written as `LAG {json}`: all that the process does is late by then.
// LINKS_OPTIONS (JSON) is merged into the module's options, LINKS_WS_OPTIONS into the gateway's.
import 'reflect-metadata';
import { Controller, Get, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { SubscribeMessage, WebSocketGateway } from '@nestjs/websockets';
import prometheus from 'prom-client';
import { managerOf, WebSocketManagerModule, WebSocketManagerService } from '../../dist/index.js';

const options = JSON.parse(process.env.LINKS_OPTIONS ?? '{}');
const gatewayOptions = JSON.parse(process.env.LINKS_WS_OPTIONS ?? '{}');
/** Written on every line, so that the times of all processes can be compared. */
const now = () => Date.now();
const fillers = new Map();
const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';

/** Made once for each length: the server's own work is to be small beside the module's. */
function fillerOf(length, random) {
  const key = `${length}/${random}`;
  let text = fillers.get(key);
  if (text === undefined) {
    const bytes = Buffer.alloc(length, 'x');
    if (random)
      for (let i = 0; i < length; i++) bytes[i] = ALPHABET.charCodeAt(Math.floor(Math.random() * 64));
    text = bytes.toString('latin1');
    fillers.set(key, text);
  }
  return text;
}

/** One message of exactly so many bytes. With `random`, it does not compress. */
function message(bytes, data, random = false) {
  const head = `{"event":"data","data":${JSON.stringify(data).slice(0, -1)},"fill":"`;
  return `${head}${fillerOf(Math.max(0, bytes - head.length - 3), random)}"}}`;
}

function authenticate({ url }) {
  const { searchParams } = new URL(url, 'ws://localhost');
  const userId = searchParams.get('userId');
  return userId ? { userId, sessionKey: searchParams.get('sessionKey') ?? undefined } : null;
}

const LAG_TICK_MS = 20;
const LATE_MS = 8;
let lagDueAt = now() + LAG_TICK_MS;
setInterval(() => {
  const at = now();
  if (at - lagDueAt > LATE_MS) process.stdout.write(`LAG ${JSON.stringify({ from: lagDueAt, to: at })}\n`);
  lagDueAt = at + LAG_TICK_MS;
}, LAG_TICK_MS).unref();

class LinksGateway {
  pushes = new Map();

  handleConnection(client, request) {
    const { searchParams } = new URL(request.url, 'ws://localhost');
    client.send(JSON.stringify({ event: 'session', data: { managerId: managerOf(client)?.id } }));
    const atConnect = Number(searchParams.get('atConnect') ?? 0);
    if (atConnect > 0) client.send(message(atConnect, { id: 'at-connect', piece: 0, of: 1 }));
  }

  handleDisconnect(client) {
    clearInterval(this.pushes.get(client)?.timer);
    this.pushes.delete(client);
  }

  echo(_client, data) {
    return { event: 'echo', data };
  }

  /** `pieces` messages of `bytes` in all, in one turn. */
  download(client, { id, bytes, pieces = 1, random }) {
    for (let piece = 0; piece < pieces; piece++) {
      client.send(message(Math.floor(bytes / pieces), { id, piece, of: pieces }, random));
    }
  }

  upload(_client, { id, fill }) {
    return { event: 'uploaded', data: { id, bytes: fill.length } };
  }

  /** From now on a message of `bytes` every `everyMs`, numbered; without `everyMs` no more, and how many there were. */
  push(client, { bytes, everyMs }) {
    const { sent = 0 } = this.pushes.get(client) ?? {};
    this.handleDisconnect(client);
    if (!everyMs) return { event: 'push-stopped', data: { sent } };
    const push = { sent: 0, timer: undefined };
    push.timer = setInterval(() => client.send(message(bytes, { sequence: push.sent++ })), everyMs);
    this.pushes.set(client, push);
    return undefined;
  }
}
for (const name of ['echo', 'download', 'upload', 'push']) {
  SubscribeMessage(name)(
    LinksGateway.prototype,
    name,
    Object.getOwnPropertyDescriptor(LinksGateway.prototype, name),
  );
}
WebSocketGateway({ path: '/ws', ...gatewayOptions })(LinksGateway);

class MetricsController {
  metrics() {
    return prometheus.register.metrics();
  }
}
Get('metrics')(
  MetricsController.prototype,
  'metrics',
  Object.getOwnPropertyDescriptor(MetricsController.prototype, 'metrics'),
);
Controller()(MetricsController);

const limitOf = ({ userId }) => Number(/limit-(\d+)/.exec(userId)?.[1] ?? 20);

class LinksModule {}
Module({
  imports: [
    WebSocketManagerModule.forRoot({
      authenticate,
      health: true,
      admin: { guards: [{ canActivate: () => true }] },
      ...options,
      limits: { managersPerUser: limitOf, ...options.limits },
    }),
  ],
  controllers: [MetricsController],
  providers: [LinksGateway],
})(LinksModule);

const app = await NestFactory.create(LinksModule, { logger: ['error'], forceCloseConnections: true });
app.get(WebSocketManagerService).events$.subscribe((event) => {
  process.stdout.write(`EVENT ${JSON.stringify({ ...event, at: now() })}\n`);
});
await app.listen(0, process.env.HOST ?? '127.0.0.1');
console.log(`Listening on ${await app.getUrl()}`);
