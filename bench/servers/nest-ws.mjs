// Nest's WsAdapter as it comes.
import { WsAdapter } from '@nestjs/platform-ws';
import { ready } from './control.mjs';
import { EchoGateway, startNest } from './nest.mjs';

const { port } = await startNest(EchoGateway, {
  prepare: (app) => app.useWebSocketAdapter(new WsAdapter(app)),
});
ready(port);
