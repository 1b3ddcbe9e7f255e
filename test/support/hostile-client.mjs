// A user who means harm, in a process of its own: holds all of its places, floods upgrades that are refused, and floods
// frames on what it holds. Started as `node hostile-client.mjs WS_URL UPGRADES_AT_ONCE FRAMES_A_TICK`.
import { setPriority } from 'node:os';
import WebSocket from 'ws';

// It shares the machine with the server: what is measured is the server's time, not whose turn it is.
setPriority(10);

const [, , url, upgradesAtOnce, framesATick] = process.argv;
const held = [];

function hold() {
  const webSocket = new WebSocket(url);
  webSocket.on('error', () => {});
  webSocket.on('open', () => held.push(webSocket));
}

function flood() {
  const webSocket = new WebSocket(url);
  webSocket.on('error', () => {});
  webSocket.on('open', () => held.push(webSocket));
  webSocket.on('close', () => setImmediate(flood));
}

for (let i = 0; i < 20; i++) hold();
setTimeout(() => {
  for (let i = 0; i < Number(upgradesAtOnce); i++) flood();
}, 500);
setInterval(() => {
  for (const webSocket of held) {
    if (webSocket.readyState !== WebSocket.OPEN || webSocket.bufferedAmount > 65_536) continue;
    for (let i = 0; i < Number(framesATick); i++) webSocket.send('{"event":"echo","data":"noise"}');
  }
}, 5);
process.on('disconnect', () => process.exit(0));
