// Somebody who comes as a newcomer of an arbitrary user, again and again, and measures how long it takes to be in.
// Who is told to wait does so, to the millisecond, and comes back. Started by crowd.ts.
//   in:  { start: { url, userIds, perSecond } }   { rush: { userId, count } }   { stop: true }
//   out: { attempts: [{ userId, from, to, status, retryAfterMs?, round, toldAt?, closed? }], lags, waiting } every second
import { connect } from 'node:net';
import WebSocket from 'ws';
import { now, watchLags } from './clock.mjs';

/** Shorter than the grace: nobody may end them meanwhile. */
const STAY_MS = [300, 2_500];
/** Beyond so many refusals in a row somebody is locked out. */
const MOST_ROUNDS = 8;

const lags = watchLags();
let attempts = [];
let waiting = 0;
let url;
let timer;

/** `toldAt`: when it was told to wait, where it comes back. */
function come(userId, round = 1, toldAt = undefined) {
  // From when the kernel has a place for it in its queue: what comes before, the server has not heard of.
  let from = now();
  const createConnection = (options) => connect(options).once('connect', () => (from = now()));
  const webSocket = new WebSocket(`${url}/ws?${new URLSearchParams({ userId })}`, { createConnection });
  let isIn = false;
  let isLeaving = false;
  let isAnswered = false;
  waiting++;
  const answer = (outcome) => {
    if (isAnswered) return;
    isAnswered = true;
    waiting--;
    attempts.push({ userId, from, to: now(), round, toldAt, ...outcome });
  };
  webSocket.on('message', () => {
    if (isIn) return;
    isIn = true;
    answer({ status: 101 });
    const stayMs = STAY_MS[0] + Math.random() * (STAY_MS[1] - STAY_MS[0]);
    setTimeout(() => {
      isLeaving = true;
      if (Math.random() < 0.5) webSocket.close(1000);
      else webSocket.terminate();
    }, stayMs);
  });
  webSocket.on('unexpected-response', (request, response) => {
    let text = '';
    response.on('data', (chunk) => {
      text += chunk;
    });
    response.on('end', () => {
      request.destroy();
      const { reason, retryAfterMs } = JSON.parse(text);
      answer({ status: response.statusCode, reason, retryAfterMs });
      if (response.statusCode !== 429 || round === MOST_ROUNDS) return;
      waiting++;
      const told = now();
      setTimeout(() => {
        waiting--;
        come(userId, round + 1, told);
      }, retryAfterMs + 1);
    });
  });
  webSocket.on('error', (error) => answer({ status: 0, reason: error.code ?? error.message }));
  webSocket.on('close', (code) => {
    if (!isIn) return answer({ status: code });
    if (!isLeaving) attempts.push({ userId, from, to: now(), round, status: 101, closed: code });
  });
}

setInterval(() => {
  process.send({ attempts, waiting, lags: lags() });
  attempts = [];
}, 1_000);

process.on('message', ({ start, rush, stop }) => {
  if (start) {
    url = start.url;
    const { userIds, perSecond } = start;
    timer = setInterval(() => come(userIds[Math.floor(Math.random() * userIds.length)]), 1_000 / perSecond);
  }
  if (rush) for (let i = 0; i < rush.count; i++) come(rush.userId);
  if (stop) clearInterval(timer);
});
process.on('disconnect', () => process.exit(0));
