// The module with all of it on: authentication, a manager for each session, heartbeat, metrics.
// AUTHENTICATE=async: authentication that has to wait, as for a database.
import { WebSocketManagerModule, WebSocketManagerService } from '../../dist/index.js';
import { ready, setting } from './control.mjs';
import { EchoGateway, startNest, userOf } from './nest.mjs';

const authenticate =
  process.env.AUTHENTICATE === 'async'
    ? async (request) => {
        await new Promise(setImmediate);
        return { userId: userOf(request) };
      }
    : (request) => ({ userId: userOf(request) });

const { app, port } = await startNest(EchoGateway, {
  imports: [
    WebSocketManagerModule.forRoot({
      authenticate,
      heartbeat: { intervalMs: setting('BEAT_MS', 15_000) },
    }),
  ],
});
const service = app.get(WebSocketManagerService);
ready(port, {
  toUser: ({ user, count, data }) => {
    for (let i = 0; i < count; i++) service.sendToUser(user, 'news', data);
  },
  /** How often one message to all connections of a user is serialised. */
  serialisations: ({ user }) => {
    let serialisations = 0;
    service.sendToUser(user, 'news', { toJSON: () => ++serialisations });
    return { serialisations };
  },
});
