// Nest's socket.io adapter as it comes; its beat is set where a measure has one.
import { IoAdapter } from '@nestjs/platform-socket.io';
import { ready, setting } from './control.mjs';
import { EchoGateway, startNest } from './nest.mjs';

const { port } = await startNest(EchoGateway, {
  options: { pingInterval: setting('BEAT_MS', 25_000), transports: ['websocket'] },
  prepare: (app) => app.useWebSocketAdapter(new IoAdapter(app)),
});
ready(port);
