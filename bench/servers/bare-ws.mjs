// `ws` alone: nobody is asked who they are, nobody is counted, nobody is missed.
import { ready } from './control.mjs';
import { answerEcho, WebSocketServer } from './ws.mjs';

const server = new WebSocketServer({ host: '127.0.0.1', port: 0, path: '/ws' });
server.on('connection', (socket) => {
  socket.on('error', console.error);
  socket.on('message', (data) => answerEcho(socket, data));
});
server.on('listening', () =>
  ready(server.address().port, {
    toUser: ({ count, data }) => {
      for (let i = 0; i < count; i++) {
        const text = JSON.stringify({ event: 'news', data });
        for (const socket of server.clients) socket.send(text);
      }
    },
  }),
);
