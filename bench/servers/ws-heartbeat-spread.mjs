// The heartbeat of `ws`' README, its pings spread over the interval in as many parts as ours are.
import { ready, setting } from './control.mjs';
import { answerEcho, WebSocketServer } from './ws.mjs';

const PARTS = 20;

function heartbeat() {
  this.isAlive = true;
}

const parts = Array.from({ length: PARTS }, () => new Set());
let next = 0;
let turn = 0;
const server = new WebSocketServer({ host: '127.0.0.1', port: 0, path: '/ws' });
server.on('connection', (socket) => {
  socket.isAlive = true;
  socket.on('error', console.error);
  socket.on('pong', heartbeat);
  socket.on('message', (data) => answerEcho(socket, data));
  const part = parts[next++ % PARTS];
  part.add(socket);
  socket.on('close', () => part.delete(socket));
});
setInterval(() => {
  for (const socket of parts[turn++ % PARTS]) {
    if (socket.isAlive === false) {
      socket.terminate();
    } else {
      socket.isAlive = false;
      socket.ping();
    }
  }
}, setting('BEAT_MS', 30_000) / PARTS);
server.on('listening', () => ready(server.address().port));
