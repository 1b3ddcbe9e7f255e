// Somebody on a host of their own: does what it is told over there, and says what came of it. Started by hosts.ts.
//   in:  { id, open: url[] }         opens one socket after the other, and keeps them
//        { id, knock: url }          asks to be let in once, and says how long it took
//        { id, get: url, headers }   over HTTP
//   out: { id, ... } for each
import WebSocket from 'ws';

const sockets = [];

function knock(url) {
  const startedAt = performance.now();
  const webSocket = new WebSocket(url);
  sockets.push(webSocket);
  return new Promise((resolve) => {
    const answer = (outcome) => resolve({ ...outcome, ms: performance.now() - startedAt });
    webSocket.on('message', () => answer({ status: 101 }));
    webSocket.on('unexpected-response', (request, { statusCode }) => {
      request.destroy();
      answer({ status: statusCode });
    });
    webSocket.on('close', (code) => answer({ status: code }));
    webSocket.on('error', () => {});
  });
}

async function openAll(urls) {
  const statuses = [];
  for (const url of urls) statuses.push((await knock(url)).status);
  return { statuses };
}

async function get(url, headers) {
  const response = await fetch(url, { headers });
  return { status: response.status, text: await response.text() };
}

process.on('message', async ({ id, open, knock: url, get: resource, headers }) => {
  const answer = open ? await openAll(open) : url ? await knock(url) : await get(resource, headers);
  process.send({ id, ...answer });
});
process.on('disconnect', () => process.exit(0));
process.send({ id: 0 });
