// Many clients in one process, each a bare TCP socket that has asked for the upgrade and answers pings. Started by
// herd.ts.
//   in:  { port, users: string[] }   all come at once; who is not let in tries again, as clients do
//   out: { in, slowestMs, refusals, errors }   once all are in;   { lost }   when all are closed
import { connect } from 'node:net';

const KEY = 'dGhlIHNhbXBsZSBub25jZQ==';
const PONG = Buffer.from([0x8a, 0x80, 0, 0, 0, 0]);
const RETRY_MS = 250;
/** Beyond this the machine's own ports and queues are what is measured. */
const ADDRESSES = 10;

let open = 0;
let tally;

function come(port, user, i, startedAt = performance.now()) {
  const socket = connect({ port, host: '127.0.0.1', localAddress: `127.0.1.${1 + (i % ADDRESSES)}` });
  let isIn = false;
  let head = '';
  socket.setNoDelay(true);
  socket.on('error', () => tally.errors++);
  socket.on('data', (chunk) => {
    if (!isIn) {
      head += chunk.toString('latin1');
      if (!head.includes('\r\n\r\n')) return;
      if (!head.startsWith('HTTP/1.1 101')) {
        tally.refusals++;
        socket.destroy();
        return;
      }
      isIn = true;
      open++;
      tally.in++;
      tally.slowestMs = Math.max(tally.slowestMs, performance.now() - startedAt);
      if (tally.in === tally.expected) process.send({ ...tally });
    } else if (chunk.includes(0x89)) {
      socket.write(PONG);
    }
  });
  socket.on('close', () => {
    if (!isIn) setTimeout(() => come(port, user, i, startedAt), RETRY_MS * (0.5 + Math.random()));
    else if (--open === 0) process.send({ lost: true });
  });
  socket.write(
    `GET /ws?userId=${user} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
      `Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${KEY}\r\n\r\n`,
  );
}

process.on('message', ({ port, users }) => {
  tally = { expected: users.length, in: 0, slowestMs: 0, refusals: 0, errors: 0 };
  users.forEach((user, i) => {
    come(port, user, i);
  });
});
process.on('disconnect', () => process.exit(0));
