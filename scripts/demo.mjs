// Starts the reference application and shows, with real processes that are really stopped, how a user whose
// sessions have died gets the next one. Ends by itself, and leaves nothing running.
import { fork, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import WebSocket from 'ws';

const USER = 'alice';
const LIMIT = 20;
/** 15 s by default: in the demo the proof comes within 6 s instead of 45. */
const HEARTBEAT_MS = 2_000;
const ADMIN_TOKEN = randomBytes(16).toString('hex');
const here = (name) => new URL(name, import.meta.url);
const children = new Set();
/** What the demo calls a session, by its manager's id. */
const names = new Map();
process.on('exit', () => {
  for (const child of children) child.kill('SIGKILL');
});
process.on('SIGINT', () => process.exit(130));

const say = (text = '') => console.log(text);
const title = (text) => say(`\n\x1b[1m${text}\x1b[0m`);

/** What the client processes saw. */
const closed = [];
const { http, ws, server } = await startServer();
say(`The reference application listens on ${http}; a user may hold ${LIMIT} sessions.`);
say(`Its heartbeat has an interval of ${HEARTBEAT_MS} ms here, of 15,000 by default.`);
const evictions = await followEvictions();

title('1. Fifteen sessions in use, five whose process has been stopped (SIGSTOP): 20/20');
const living = await startClients('laptop', 15);
const frozen = await startClients('phone', 5);
await freeze(frozen);
await showUser();
await bringNewcomer('desk');
await showUser();
await settle('the heartbeat proves the other four dead: a missed probe alone proves nothing');
await showUser();

title('2. All of them stop, and the user fills up with sessions that stop too: 20/20, none is live');
const tablets = await startClients('tablet', 4);
await Promise.all([freeze(living), freeze(tablets)]);
await showUser();
await bringNewcomer('desk-2');
await showUser();
await settle('the heartbeat proves the other suspects dead');
await showUser();

title('3. Eighteen more, all alive, one of them streaming an answer: 20/20');
const full = await startClients('browser', 18);
await sleep(1_200); // out of their grace, which the demo sets to 1 s
for (let i = 2; i < 18; i++) full.send({ event: 'echo', data: 'in use', session: i });
full.send({ event: 'ask', data: { prompt: 'Tell me something long. '.repeat(40) }, session: 0 });
await sleep(200);
await showUser();
await bringNewcomer('desk-3');
await showUser();

title('4. The server is told to go (SIGTERM): every client hears it, and is closed with 1012');
closed.length = 0;
server.kill('SIGTERM');
await new Promise((resolve) => server.once('exit', resolve));
await sleep(100);
say(
  `   ${closed.length} clients saw: ${[...new Set(closed.map((line) => line.replace(/^\S+ /, '')))].join(', ')}`,
);
process.exit(0);

async function startServer() {
  const child = spawn(process.execPath, [here('../dist/main.js').pathname], {
    env: {
      ...process.env,
      PORT: '0',
      WSM_ADMIN_TOKEN: ADMIN_TOKEN,
      WSM_GRACE_MS: '1000',
      WSM_DRAIN_SPREAD_MS: '500',
      WSM_HEARTBEAT_INTERVAL_MS: `${HEARTBEAT_MS}`,
    },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  children.add(child);
  const url = await new Promise((resolve, reject) => {
    child.once('exit', (code) => reject(new Error(`the server ended with ${code}`)));
    child.stdout.on('data', (text) => {
      const [, found] = /Listening on (http:[\w./:]+)/.exec(text) ?? [];
      if (found) resolve(found);
    });
  });
  return { http: url, ws: url.replace('http', 'ws'), server: child };
}

async function startClients(prefix, count) {
  const child = fork(here('demo-client.mjs'), [ws, USER, prefix, String(count)]);
  children.add(child);
  await new Promise((resolve) => {
    child.on('message', ({ type, session, managerId, code, reason }) => {
      if (type === 'session') names.set(managerId, session);
      if (type === 'closed') closed.push(`${session} ${code} ${reason}`);
      if (type === 'ready') resolve();
    });
  });
  tellEvictions();
  return child;
}

/** Really stops the process: its sockets stay open, and nobody answers on them. */
async function freeze(child) {
  child.kill('SIGSTOP');
  await sleep(100);
}

async function bringNewcomer(session) {
  const startedAt = performance.now();
  const socket = new WebSocket(`${ws}/ws?${new URLSearchParams({ userId: USER })}`);
  socket.once('message', (frame) => names.set(JSON.parse(frame).data.managerId, session));
  const outcome = await new Promise((resolve) => {
    socket.once('open', () => resolve('is in'));
    socket.once('unexpected-response', (_request, response) =>
      resolve(`was refused with ${response.statusCode}`),
    );
    socket.once('error', (error) => resolve(`failed: ${error.message}`));
  });
  say(` > a newcomer, ${session}, ${outcome} after ${(performance.now() - startedAt).toFixed(0)} ms`);
  await sleep(50);
  tellEvictions();
}

async function settle(what) {
  say(` > meanwhile ${what}`);
  await sleep(3 * HEARTBEAT_MS);
  tellEvictions();
}

function tellEvictions() {
  for (const { managerId, reason, level, trigger, evidence } of evictions.splice(0)) {
    const { signal, silentForMs, inactiveForMs } = evidence;
    say(
      `   evicted ${names.get(managerId)}: ${reason}, level ${level}, trigger ${trigger}` +
        ` (${signal}, silent for ${silentForMs} ms, inactive for ${inactiveForMs} ms)`,
    );
  }
}

async function showUser() {
  const response = await fetch(`${http}/websocket-managers/api/users/${USER}`, { headers: admin() });
  const { managers } = await response.json();
  const counts = countBy(managers);
  const suspects = managers.filter(({ connections }) => connections.some(({ suspectSince }) => suspectSince));
  if (suspects.length > 0) counts.push(['of them suspects', suspects.length]);
  const detail = counts.map(([status, count]) => `${count} ${status}`).join(', ');
  say(`   ${USER}: ${managers.length}/${LIMIT} (as the server sees it: ${detail || 'nobody'})`);
}

/** Reads the operator's event stream, and keeps the evictions. */
async function followEvictions() {
  const found = [];
  const response = await fetch(`${http}/websocket-managers/api/events`, { headers: admin() });
  const read = async () => {
    let text = '';
    for await (const chunk of response.body.pipeThrough(new TextDecoderStream())) {
      text += chunk;
      const messages = text.split('\n\n');
      text = messages.pop();
      for (const message of messages) {
        if (!/^event: evicted$/m.test(message)) continue;
        found.push(JSON.parse(/^data: (.*)$/m.exec(message)[1]));
      }
    }
  };
  read().catch((error) => {
    // The stream ends with the server.
    if (error.cause?.code !== 'UND_ERR_SOCKET' && error.message !== 'terminated') throw error;
  });
  return found;
}

function admin() {
  return { authorization: `Bearer ${ADMIN_TOKEN}` };
}

function countBy(managers) {
  const counts = new Map();
  for (const { status } of managers) counts.set(status, (counts.get(status) ?? 0) + 1);
  return [...counts];
}
