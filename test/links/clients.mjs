// The clients of the link tests, in a process of their own: real `ws` clients that chat, idle, download, upload or
// receive pushes, each over the link that its address names. Started by clients.ts.
//   in:  { id, start: sessions }     opens them, each at its time; answers once all are open or refused
//        { id, incoming: [...] }     connections that arrive at the limit, again and again
//        { id, finish: withinMs }    no new requests; answers when nothing is outstanding, or after `withinMs`
//        { id, report: true }        every session as it is now
//   out: { id, ... }
import WebSocket from 'ws';

const now = () => Date.now();
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const between = ([least, most]) => least + Math.random() * (most - least);
const HANDSHAKE_MS = 120_000;
/** Larger messages are not parsed: their head says which one they are, their length whether they are whole. */
const PARSED_BYTES = 2_000;
const HEAD_BYTES = 200;
const CHATS_MS = [2_000, 8_000];

const LAG_TICK_MS = 20;
const LATE_MS = 100;
let lags = [];
let lagDueAt = now() + LAG_TICK_MS;
setInterval(() => {
  if (now() - lagDueAt > LATE_MS) lags.push(now() - lagDueAt);
  lagDueAt = now() + LAG_TICK_MS;
}, LAG_TICK_MS);

let isFinishing = false;

class Session {
  openedAt = undefined;
  refusal = undefined;
  closed = undefined;
  notice = undefined;
  managerId = undefined;
  pings = 0;
  lastPingAt = 0;
  messages = 0;
  bytes = 0;
  downloads = 0;
  /** What was asked for and has not come, by id. */
  outstanding = new Map();
  /** Longest time that something was outstanding. */
  longestMs = 0;
  errors = [];
  nextId = 0;
  nextSequence = 0;

  constructor(plan) {
    this.plan = plan;
    const { url, answersPingsAfterMs = 0, deflate = false, rejectUnauthorized } = plan;
    this.requestedAt = now();
    const isSlow = answersPingsAfterMs > 0;
    this.socket = new WebSocket(url, {
      handshakeTimeout: HANDSHAKE_MS,
      perMessageDeflate: deflate,
      autoPong: !isSlow,
      rejectUnauthorized,
    });
    const { socket } = this;
    socket.on('ping', () => {
      this.pings++;
      this.lastPingAt = now();
      if (isSlow)
        setTimeout(() => socket.readyState === WebSocket.OPEN && socket.pong(), answersPingsAfterMs);
    });
    socket.on('message', (data) => this.take(data));
    socket.on('error', (error) => {
      if (this.openedAt === undefined && !this.refusal) this.errors.push(`handshake: ${error.message}`);
    });
    this.settled = new Promise((resolve) => {
      socket.on('open', () => {
        this.openedAt = now();
        resolve();
        this.live();
      });
      socket.on('unexpected-response', (request, response) => {
        let text = '';
        response.setEncoding('utf8').on('data', (chunk) => {
          text += chunk;
        });
        response.on('end', () => {
          this.refusal = { status: response.statusCode, body: parsed(text), at: now() };
          request.destroy();
          resolve();
        });
      });
      socket.on('close', (code, reason) => {
        this.closed = { code, reason: String(reason), at: now() };
        resolve();
      });
    });
  }

  get isOpen() {
    return this.socket.readyState === WebSocket.OPEN;
  }

  get isUnfinished() {
    if (this.plan.dies || this.refusal) return false;
    return this.socket.readyState === WebSocket.CONNECTING || (this.isOpen && this.outstanding.size > 0);
  }

  send(event, data) {
    if (this.isOpen) this.socket.send(JSON.stringify({ event, data }));
  }

  expect(id, what) {
    this.outstanding.set(id, { at: now(), ...what });
  }

  arrived(id) {
    const { at } = this.outstanding.get(id);
    this.longestMs = Math.max(this.longestMs, now() - at);
    this.outstanding.delete(id);
  }

  /** Waits while anything is outstanding. */
  async quiet() {
    while (this.isOpen && this.outstanding.size > 0) await sleep(50);
  }

  take(data) {
    this.messages++;
    this.bytes += data.length;
    if (data.length > PARSED_BYTES) return this.takeLarge(data);
    const { event, data: content } = JSON.parse(data);
    switch (event) {
      case 'session':
        this.managerId = content.managerId;
        break;
      case 'ws:closing':
        this.notice = content;
        break;
      case 'echo':
        if (!this.outstanding.has(content.n))
          this.errors.push(`an echo that was not asked for: ${content.n}`);
        else this.arrived(content.n);
        break;
      case 'uploaded': {
        const sent = this.outstanding.get(content.id);
        if (sent?.bytes !== content.bytes) this.errors.push(`uploaded ${content.bytes} of ${sent?.bytes}`);
        else this.arrived(content.id);
        break;
      }
      case 'push-stopped':
        if (this.nextSequence !== content.sent)
          this.errors.push(`${this.nextSequence} of ${content.sent} pushes`);
        this.arrived('push-stop');
        break;
      case 'data':
        this.takeData(content, data.length);
        break;
    }
  }

  takeLarge(data) {
    const head = data.subarray(0, HEAD_BYTES).toString();
    const [, id, piece, of] = /"id":"?([\w-]+)"?,"piece":(\d+),"of":(\d+)/.exec(head) ?? [];
    const [, sequence] = /"sequence":(\d+)/.exec(head) ?? [];
    if (sequence !== undefined) return this.takeData({ sequence: Number(sequence) }, data.length);
    return this.takeData({ id, piece: Number(piece), of: Number(of) }, data.length);
  }

  takeData({ id, piece, of, sequence }, length) {
    if (sequence !== undefined) {
      if (sequence !== this.nextSequence) this.errors.push(`push ${sequence}, expected ${this.nextSequence}`);
      this.nextSequence = sequence + 1;
      return;
    }
    const asked = this.outstanding.get(String(id));
    if (!asked) {
      this.errors.push(`a download that was not asked for: ${id}`);
      return;
    }
    if (length !== asked.pieceBytes)
      this.errors.push(`piece of ${length} bytes, expected ${asked.pieceBytes}`);
    if (piece !== asked.pieces) this.errors.push(`piece ${piece}, expected ${asked.pieces}`);
    asked.pieces++;
    if (asked.pieces < of) return;
    this.downloads++;
    this.arrived(String(id));
  }

  live() {
    const { role, atConnectBytes, pausesReading, startAfterMs = 0 } = this.plan;
    if (atConnectBytes) this.expect('at-connect', { pieces: 0, pieceBytes: atConnectBytes });
    if (pausesReading) this.pauseNowAndThen(pausesReading);
    setTimeout(() => void this[role](this.plan), startAfterMs);
  }

  async pauseNowAndThen({ everyMs, forMs }) {
    while (this.isOpen && !isFinishing) {
      await sleep(everyMs - forMs);
      this.socket.pause();
      await sleep(forMs);
      this.socket.resume();
    }
  }

  idle() {}

  async chat({ everyMs = CHATS_MS }) {
    while (this.isOpen && !isFinishing) {
      this.say();
      await sleep(between(everyMs));
    }
    await this.pingOnly({ everyMs });
  }

  say() {
    const n = `${this.nextId++}`;
    this.expect(n, {});
    this.send('echo', { n, text: 'c'.repeat(50 + Math.floor(Math.random() * 400)) });
  }

  /** One message of `bytes`, or several; the next one a while after it has arrived. */
  async download({
    bytes,
    pieces = 1,
    random = false,
    everyMs = [500, 5_000],
    saysAfterMs,
    times = Infinity,
  }) {
    for (let i = 0; i < times && this.isOpen && !isFinishing; i++) {
      const id = `d${this.nextId++}`;
      this.expect(id, { pieces: 0, pieceBytes: Math.floor(bytes / pieces) });
      this.send('download', { id, bytes, pieces, random });
      if (saysAfterMs !== undefined) {
        await sleep(saysAfterMs);
        this.say();
      }
      await this.quiet();
      await sleep(between(everyMs));
    }
  }

  async upload({ bytes, everyMs = [500, 5_000] }) {
    const fill = 'u'.repeat(bytes);
    while (this.isOpen && !isFinishing) {
      const id = `u${this.nextId++}`;
      this.expect(id, { bytes });
      this.send('upload', { id, fill });
      await this.quiet();
      await sleep(between(everyMs));
    }
  }

  /** Receives a message of `bytes` every `everyMs`, and says nothing more. */
  async push({ bytes, pushEveryMs }) {
    this.send('push', { bytes, everyMs: pushEveryMs });
    while (this.isOpen && !isFinishing) await sleep(200);
    this.expect('push-stop', {});
    this.send('push', {});
  }

  /** Sends pings of its own and never an application message, to the very end: it may be all that proves it live. */
  async pingOnly({ everyMs }) {
    while (this.isOpen) {
      this.socket.ping();
      await sleep(between(everyMs));
    }
  }

  get report() {
    const { plan, requestedAt, openedAt, refusal, closed, notice, managerId, pings, lastPingAt } = this;
    const { messages, bytes, downloads, longestMs, errors } = this;
    const outstanding = [...this.outstanding].map(([id, { at }]) => ({ id, forMs: now() - at }));
    const { name, userId } = plan;
    return {
      ...{ name, userId, role: plan.role, requestedAt, openedAt, refusal, closed, notice, managerId },
      ...{
        pings,
        lastPingAt,
        messages,
        bytes,
        downloads,
        longestMs,
        errors: errors.slice(0, 5),
        outstanding,
      },
    };
  }
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return { message: text };
  }
}

const sessions = [];

async function begin(plan) {
  await sleep(plan.opensAfterMs ?? 0);
  const session = new Session(plan);
  sessions.push(session);
  await session.settled;
  return session;
}

/** One connection after the other; one that is told when to return returns then. */
async function arrive({ everyMs, firstAfterMs = 0, times = Infinity, plan }) {
  await sleep(firstAfterMs);
  for (let i = 0; i < times && !isFinishing; i++) {
    const opened = { ...plan, name: `${plan.name}/incoming-${i}`, isIncoming: true };
    if (opened.keyed) opened.url = `${plan.url}&sessionKey=incoming-${i}`;
    const first = await begin(opened);
    const { retryAfterMs } = first.refusal?.body ?? {};
    if (retryAfterMs !== undefined && !isFinishing) {
      await sleep(retryAfterMs);
      const second = await begin({ ...opened, name: `${opened.name}/return` });
      second.isReturn = true;
    }
    await sleep(between(everyMs));
  }
}

process.on('message', async ({ id, start, incoming, finish, report }) => {
  if (start) await Promise.all(start.map(begin));
  if (incoming) for (const one of incoming) void arrive(one);
  if (finish !== undefined) {
    isFinishing = true;
    const until = now() + finish;
    // The loops of the sessions notice it first, and a push says how many there were.
    await sleep(500);
    while (now() < until && sessions.some((each) => each.isOpen && each.outstanding.size > 0))
      await sleep(100);
  }
  if (!report) return process.send({ id });
  process.send({
    id,
    sessions: sessions.map((session) => ({
      ...session.report,
      isIncoming: session.plan.isIncoming === true,
      isReturn: session.isReturn === true,
    })),
    lags,
  });
  lags = [];
  return undefined;
});
process.on('disconnect', () => process.exit(0));
