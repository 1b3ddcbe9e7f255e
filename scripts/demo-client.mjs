// One client process of the demo: opens as many sessions as it is told, and keeps them in use.
// usage: node demo-client.mjs URL USER PREFIX COUNT
import WebSocket from 'ws';

const [url, userId, prefix, count] = process.argv.slice(2);
const sockets = [];

for (let i = 1; i <= Number(count); i++) {
  const query = new URLSearchParams({ userId });
  const socket = new WebSocket(`${url}/ws?${query}`);
  socket.on('error', () => socket.terminate());
  socket.on('close', (code, reason) =>
    process.send?.({ type: 'closed', session: `${prefix}-${i}`, code, reason: String(reason) }),
  );
  const frame = await new Promise((resolve) => socket.once('message', resolve));
  process.send?.({ type: 'session', session: `${prefix}-${i}`, managerId: JSON.parse(frame).data.managerId });
  sockets.push(socket);
}
process.send?.({ type: 'ready' });

process.on('message', ({ event, data, session }) => {
  const chosen = session === undefined ? sockets : [sockets[session]];
  for (const socket of chosen) socket.send(JSON.stringify({ event, data }));
});
process.on('disconnect', () => process.exit(0));
