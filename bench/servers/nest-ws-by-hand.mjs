// Nest's WsAdapter with what applications add to it: a Map of users with a limit, and the heartbeat of ws' README.
import { WsAdapter } from '@nestjs/platform-ws';
import { ready, setting } from './control.mjs';
import { EchoGateway, startNest, userOf } from './nest.mjs';

const LIMIT = 20;

class CountingGateway extends EchoGateway {
  users = new Map();

  afterInit(server) {
    setInterval(
      () => {
        for (const client of server.clients) {
          if (client.isAlive === false) {
            client.terminate();
          } else {
            client.isAlive = false;
            client.ping();
          }
        }
      },
      setting('BEAT_MS', 30_000),
    );
  }

  handleConnection(client, request) {
    const user = userOf(request);
    const clients = this.users.get(user) ?? new Set();
    if (clients.size >= LIMIT) {
      client.close(4129, 'over_limit');
      return;
    }
    clients.add(client);
    this.users.set(user, clients);
    client.user = user;
    client.isAlive = true;
    client.on('pong', () => {
      client.isAlive = true;
    });
  }

  handleDisconnect(client) {
    const clients = this.users.get(client.user);
    clients?.delete(client);
    if (clients?.size === 0) this.users.delete(client.user);
  }
}

const { app, port } = await startNest(CountingGateway, {
  prepare: (nest) => nest.useWebSocketAdapter(new WsAdapter(nest)),
});
const gateway = app.get(CountingGateway);
ready(port, {
  toUser: ({ user, count, data }) => {
    for (let i = 0; i < count; i++) {
      for (const client of gateway.users.get(user) ?? [])
        client.send(JSON.stringify({ event: 'news', data }));
    }
  },
});
