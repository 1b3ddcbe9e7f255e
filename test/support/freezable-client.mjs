// A client in a process of its own, so that it can be frozen with SIGSTOP: from outside, its sockets look like
// those of a machine that fell asleep. Started by freezable-client.ts.
//   in:  { open: url[] }   opens one socket after the other
//        { send: text, to?: index }   { close: true }
//   out: { type: 'ready' } once each has had its first message or is refused, and
//        { type: 'message' | 'closed' | 'refused', socket, ... } for whatever happens
import WebSocket from 'ws';

const sockets = [];

function open(url) {
  const socket = sockets.length;
  const webSocket = new WebSocket(url);
  sockets.push(webSocket);
  return new Promise((resolve) => {
    webSocket.on('message', (data) => {
      process.send({ type: 'message', socket, ...JSON.parse(data) });
      resolve();
    });
    webSocket.on('unexpected-response', (request, response) => {
      process.send({ type: 'refused', socket, status: response.statusCode });
      request.destroy();
      resolve();
    });
    webSocket.on('close', (code, reason) => {
      process.send({ type: 'closed', socket, code, reason: String(reason) });
      resolve();
    });
    webSocket.on('error', () => {});
  });
}

process.on('message', async ({ open: urls, send, to, close }) => {
  if (urls) {
    for (const url of urls) await open(url);
    process.send({ type: 'ready' });
  }
  const chosen = to === undefined ? sockets : [sockets[to]];
  if (send !== undefined) for (const socket of chosen) socket.send(send);
  if (close) for (const socket of chosen) socket.close(1000);
});
process.on('disconnect', () => process.exit(0));
