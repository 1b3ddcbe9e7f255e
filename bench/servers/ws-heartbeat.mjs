// `ws` with the heartbeat of its README ("How to detect and close broken connections?").
import { ready, setting } from './control.mjs';
import { answerEcho, WebSocketServer } from './ws.mjs';

function heartbeat() {
  this.isAlive = true;
}

const server = new WebSocketServer({ host: '127.0.0.1', port: 0, path: '/ws' });
server.on('connection', (socket) => {
  socket.isAlive = true;
  socket.on('error', console.error);
  socket.on('pong', heartbeat);
  socket.on('message', (data) => answerEcho(socket, data));
});
setInterval(
  () => {
    for (const socket of server.clients) {
      if (socket.isAlive === false) {
        socket.terminate();
      } else {
        socket.isAlive = false;
        socket.ping();
      }
    }
  },
  setting('BEAT_MS', 30_000),
);
server.on('listening', () => ready(server.address().port));
