// The living, in a process of their own: clients that come, talk, leave and come back, and that know of each of their
// connections why it ended. Started by crowd.ts.
//   in:  { start: { url, seats: [{ userId, sessionKey?, isFull, resumes }], perSecond } }   all come, then some of them change
//        { settle: true }   nobody leaves any more, and who is away comes back
//        { reload: n }      so many drop their connections at once and come back together
//        { leave: true }    all say goodbye
//   out: { open, seats, opened, ended: { reason: n }, wrong: [{ at, what }], resumed, lags } every second
import WebSocket from 'ws';
import { now, watchLags } from './clock.mjs';

const TICK_MS = 100;
const RAMP_PER_TICK = 20;
const TALKERS_PER_TICK = 10;
/** Who was asked to leave stays away for a while. */
const EVICTED_AWAY_MS = [10_000, 30_000];
const AWAY_MS = [200, 12_000];
/** Long before the resume window is over: whoever is back by then finds the session. */
const RESUMES_WITHIN_MS = 15_000;

const lags = watchLags();
const between = ([least, most]) => least + Math.random() * (most - least);
const pick = (list) => list[Math.floor(Math.random() * list.length)];

let url;
let isChanging = false;
let isOver = false;
let seats = [];
let opened = 0;
let resumed = 0;
let wrong = [];
const ended = {};

const note = (reason) => {
  ended[reason] = (ended[reason] ?? 0) + 1;
};
const complain = (seat, what) => {
  if (wrong.length < 50) wrong.push({ at: now(), what: `${seat.userId} ${seat.sessionKey ?? ''}: ${what}` });
};

function come(seat) {
  clearTimeout(seat.timer);
  seat.isComing = true;
  const { userId, sessionKey } = seat;
  const query = new URLSearchParams({ userId, ...(sessionKey && { sessionKey }) });
  const webSocket = new WebSocket(`${url}/ws?${query}`);
  let closing;
  let wasOpen = false;
  seat.webSocket = webSocket;
  seat.goodbye = undefined;
  webSocket.on('open', () => {
    wasOpen = true;
    opened++;
  });
  webSocket.on('message', (data) => {
    const frame = JSON.parse(data);
    if (frame.event === 'ws:closing') closing = frame.data;
    if (frame.event === 'session') isIn(seat, frame.data);
  });
  webSocket.on('unexpected-response', (request, response) => {
    request.destroy();
    note(`refused ${response.statusCode}`);
    const retryAfterMs = 1_000 * Number(response.headers['retry-after'] ?? 1);
    if (!seat.isFull || response.statusCode !== 429) complain(seat, `refused with ${response.statusCode}`);
    comeLater(seat, retryAfterMs);
  });
  webSocket.on('error', (error) => {
    if (wasOpen || isOwnDoing(error)) return;
    // What the kernel's queue has no room for is not heard of by the server.
    if (isUnheard(error)) note('own: not heard');
    else complain(seat, `not let in: ${error.message}`);
  });
  webSocket.on('close', (code) => {
    if (seat.webSocket !== webSocket) return;
    seat.isComing = false;
    if (!wasOpen) {
      if (!seat.timer) comeLater(seat, 1_000);
      return;
    }
    hasEnded(seat, code, closing);
  });
}

/** `ws` reports the request that we gave up after its answer. */
const isOwnDoing = ({ message }) => /before the connection was established|socket hang up/.test(message);
const isUnheard = ({ code }) => code === 'ECONNRESET' || code === 'ETIMEDOUT' || code === 'ECONNREFUSED';

function comeLater(seat, ms) {
  clearTimeout(seat.timer);
  seat.timer = isOver
    ? undefined
    : setTimeout(() => {
        seat.timer = undefined;
        come(seat);
      }, ms);
}

function isIn(seat, { managerId, joined }) {
  seat.isComing = false;
  // Under pressure the place may have been needed; elsewhere a session is there to come back to.
  const isExpected =
    seat.sessionKey && seat.resumes && seat.leftAt && now() - seat.leftAt < RESUMES_WITHIN_MS;
  if (isExpected) {
    if (joined && managerId === seat.managerId) resumed++;
    else complain(seat, `session not found again after ${Math.round(now() - seat.leftAt)} ms`);
  }
  seat.managerId = managerId;
}

function hasEnded(seat, code, closing) {
  seat.leftAt = undefined;
  if (seat.goodbye) {
    note(`own: ${seat.goodbye}`);
    // Somebody may have needed the place in the very moment.
    const wasEvicted = code === 4510 && seat.isFull;
    if (seat.goodbye === 'leave' && code !== 1000 && !wasEvicted)
      complain(seat, `left, and was told ${code}`);
    seat.leftAt = now();
    comeLater(seat, seat.goodbye === 'reload' ? between([50, 500]) : between(AWAY_MS));
    return;
  }
  note(`${code} ${closing?.reason ?? 'without a word'}`);
  if (code === 4510 && closing?.reason === 'evicted' && seat.isFull) {
    comeLater(seat, between(EVICTED_AWAY_MS));
  } else {
    complain(seat, `ended with ${code} ${closing?.reason ?? 'without a word'}`);
    comeLater(seat, 1_000);
  }
}

const isOpen = (seat) => seat?.webSocket?.readyState === WebSocket.OPEN && !seat.isComing && !seat.goodbye;

function go(seat, how) {
  if (!isOpen(seat)) return;
  seat.goodbye = how;
  if (how === 'leave') seat.webSocket.close(1000);
  else seat.webSocket.terminate();
}

function start({ perSecond, ...plan }) {
  url = plan.url;
  seats = plan.seats;
  isChanging = true;
  let ramped = 0;
  let owed = 0;
  const timer = setInterval(() => {
    if (isOver) return clearInterval(timer);
    for (let i = 0; i < RAMP_PER_TICK && ramped < seats.length; i++) come(seats[ramped++]);
    for (let i = 0; i < TALKERS_PER_TICK; i++) {
      const seat = pick(seats);
      if (isOpen(seat)) seat.webSocket.send('{"event":"echo","data":"a word or two, as people say them"}');
    }
    if (!isChanging || ramped < seats.length) return undefined;
    for (owed += (perSecond * TICK_MS) / 1_000; owed >= 1; owed--) go(pick(seats), pick(['leave', 'vanish']));
    return undefined;
  }, TICK_MS);
}

function settle() {
  isChanging = false;
  for (const seat of seats) if (seat.timer) comeLater(seat, between([0, 1_000]));
}

function reload(count) {
  const chosen = new Set(Array.from({ length: count }, () => pick(seats)));
  for (const seat of chosen) go(seat, 'reload');
}

function leave() {
  isOver = true;
  for (const seat of seats) {
    clearTimeout(seat.timer);
    seat.timer = undefined;
    go(seat, 'leave');
  }
}

setInterval(() => {
  const open = seats.filter(({ webSocket }) => webSocket?.readyState === WebSocket.OPEN).length;
  const away = seats
    .filter(({ webSocket }) => webSocket?.readyState !== WebSocket.OPEN)
    .slice(0, 5)
    .map(({ userId, sessionKey, isComing, goodbye, timer, webSocket }) => {
      const isWaiting = timer !== undefined;
      return { userId, sessionKey, isComing, goodbye, isWaiting, state: webSocket?.readyState };
    });
  process.send({ open, away, seats: seats.length, opened, ended, wrong, resumed, lags: lags() });
  wrong = [];
}, 1_000);

process.on('message', (message) => {
  if (message.start) start(message.start);
  if (message.continue) isChanging = true;
  if (message.settle) settle();
  if (message.reload) reload(message.reload);
  if (message.leave) leave();
});
process.on('disconnect', () => process.exit(0));
