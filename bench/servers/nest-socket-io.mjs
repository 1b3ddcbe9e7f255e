// Nest's socket.io adapter as it comes; its beat is set where a measure has one.
import { IoAdapter } from '@nestjs/platform-socket.io';
import { ready, setting } from './control.mjs';
import { EchoGateway, startNest } from './nest.mjs';

const pingInterval = setting('BEAT_MS', 25_000);
// By default 20 s beside 25 s; beside a beat of 30 s it is 20 s as well.
const pingTimeout = Math.min(20_000, (2 / 3) * pingInterval);

const { port } = await startNest(EchoGateway, {
  options: { pingInterval, pingTimeout, transports: ['websocket'] },
  prepare: (app) => app.useWebSocketAdapter(new IoAdapter(app)),
});
ready(port);
