// A TCP relay that behaves like a network link: bandwidth, delay, jitter, stalls, loss. It runs in its own process, so
// that its timers do not depend on the event loop of a test. Started by relay.ts.
//   in:  { id, open: link }  listens on a new port for that link
//        { id, report: true }
//   out: { id, port } | { id, lags, openSockets, mostHeldBytes }
//
// A link: { targetPort, down, up, shared?, stalls?, deadAfterMs?, deadDirection?, tls? }
//   down (server to client), up: { bytesPerSecond, delayMs, jitterMs, queueBytes }
//   shared: all connections of the link share its bandwidth, one piece each in turn
//   stalls: [{ direction: 'both' | 'down' | 'up', everyMs, forMs, offsetMs }]: nothing passes for `forMs`, again and again
//   deadAfterMs: from then on nothing passes on a connection in `deadDirection`, for ever, and nothing is closed
//   tls: { key, cert }: the relay terminates TLS towards the client
//
// The relay holds no more than the link itself would: the bottleneck's queue, and what is under way in its delay. Above
// it the relay stops reading. Then the kernel's buffers towards the sender fill, and after them the sender's own.
import { connect, createServer } from 'node:net';
import { createServer as createTlsServer } from 'node:tls';

const now = () => performance.now();
/** A piece takes about this long to transmit: small enough that slow links trickle. */
const PIECE_MS = 40;
const LEAST_PIECE_BYTES = 256;
const MOST_PIECE_BYTES = 16 * 1024;
/** Backlog of the listening sockets. */
const BACKLOG = 1_024;

const LAG_TICK_MS = 20;
const LATE_MS = 50;
const lags = [];
let lagDueAt = now() + LAG_TICK_MS;
setInterval(() => {
  const at = now();
  if (at - lagDueAt > LATE_MS) lags.push(Math.round(at - lagDueAt));
  lagDueAt = at + LAG_TICK_MS;
}, LAG_TICK_MS);

let openSockets = 0;
let mostHeldBytes = 0;

/** One direction of a link: the transmitter, with the lanes that wait for it. */
class Wire {
  constructor(direction, shape, stalls, startedAt) {
    this.direction = direction;
    this.shape = shape;
    this.stalls = stalls.filter((stall) => stall.direction === 'both' || stall.direction === direction);
    /** Time of the link's first connection. */
    this.startedAt = startedAt;
    this.pieceBytes = Math.min(
      MOST_PIECE_BYTES,
      Math.max(LEAST_PIECE_BYTES, Math.round((shape.bytesPerSecond * PIECE_MS) / 1_000)),
    );
    this.lanes = [];
    this.busyUntil = 0;
    this.timer = undefined;
  }

  /** When the present stall ends; 0 if there is none. */
  stalledUntil(at) {
    let until = 0;
    for (const { everyMs, forMs, offsetMs = 0 } of this.stalls) {
      const since = at - this.startedAt - offsetMs;
      if (since < 0) continue;
      const into = since % everyMs;
      if (into < forMs) until = Math.max(until, at + forMs - into);
    }
    return until;
  }

  join(lane) {
    // Only an idle transmitter begins anew: one that is late catches up, so that the rate is right on a busy machine.
    if (this.lanes.length === 0) this.busyUntil = Math.max(this.busyUntil, now());
    if (!this.lanes.includes(lane)) this.lanes.push(lane);
    if (this.timer === undefined) this.pump();
  }

  pump() {
    this.timer = undefined;
    for (;;) {
      const lane = this.lanes.shift();
      if (!lane) return;
      const at = now();
      const stalledUntil = this.stalledUntil(at);
      this.busyUntil = Math.max(this.busyUntil, stalledUntil);
      const wakeAt = this.busyUntil;
      if (wakeAt > at) {
        this.lanes.unshift(lane);
        this.timer = setTimeout(() => this.pump(), Math.max(1, Math.ceil(wakeAt - at)));
        return;
      }
      const bytes = lane.transmit(this.pieceBytes, this.busyUntil);
      this.busyUntil += (bytes * 1_000) / this.shape.bytesPerSecond;
      if (lane.waitingBytes > 0) this.lanes.push(lane);
    }
  }
}

/** One direction of one connection. */
class Lane {
  waiting = [];
  waitingBytes = 0;
  flying = [];
  flyingBytes = 0;
  lastArrivalAt = 0;
  timer = undefined;
  isEnding = false;
  isDead = false;
  isBlocked = false;

  constructor(wire, source, sink) {
    this.wire = wire;
    this.source = source;
    this.sink = sink;
    const { bytesPerSecond, delayMs, queueBytes } = wire.shape;
    this.mostHeld = queueBytes + (bytesPerSecond * delayMs) / 1_000;
    sink.on('drain', () => {
      this.isBlocked = false;
      this.deliver();
    });
  }

  get heldBytes() {
    return this.waitingBytes + this.flyingBytes + (this.isBlocked ? this.sink.writableLength : 0);
  }

  /** @returns whether to read on. */
  take(chunk) {
    if (this.isDead) return false;
    this.waiting.push(chunk);
    this.waitingBytes += chunk.length;
    mostHeldBytes = Math.max(mostHeldBytes, this.heldBytes);
    this.wire.join(this);
    return this.heldBytes < this.mostHeld;
  }

  /** The source has ended, or is destroyed: the sink learns it after all that is under way. */
  end(isAbrupt) {
    if (this.isDead || this.isEnding) return;
    this.isEnding = true;
    this.isAbrupt = isAbrupt;
    if (this.waitingBytes === 0) this.fly(undefined, now());
  }

  die() {
    this.isDead = true;
    this.waiting = [];
    this.waitingBytes = 0;
    this.flying = [];
    this.flyingBytes = 0;
    clearTimeout(this.timer);
    this.source.pause();
  }

  transmit(mostBytes, startAt) {
    if (this.waitingBytes === 0) return 0;
    const [chunk] = this.waiting;
    const piece = chunk.length > mostBytes ? chunk.subarray(0, mostBytes) : chunk;
    if (piece === chunk) this.waiting.shift();
    else this.waiting[0] = chunk.subarray(mostBytes);
    this.waitingBytes -= piece.length;
    const doneAt = startAt + (piece.length * 1_000) / this.wire.shape.bytesPerSecond;
    this.fly(piece, doneAt);
    if (this.isEnding && this.waitingBytes === 0) this.fly(undefined, doneAt);
    return piece.length;
  }

  fly(piece, doneAt) {
    const { delayMs, jitterMs = 0 } = this.wire.shape;
    this.lastArrivalAt = Math.max(this.lastArrivalAt, doneAt + delayMs + Math.random() * jitterMs);
    this.flying.push({ at: this.lastArrivalAt, piece });
    this.flyingBytes += piece?.length ?? 0;
    if (this.timer === undefined) this.arm();
  }

  arm() {
    const [next] = this.flying;
    if (!next || this.isBlocked || this.isDead) return;
    const at = now();
    const wakeAt = Math.max(next.at, this.wire.stalledUntil(at));
    this.timer = setTimeout(
      () => {
        this.timer = undefined;
        this.deliver();
      },
      Math.max(1, Math.ceil(wakeAt - at)),
    );
  }

  deliver() {
    if (this.timer !== undefined) return;
    const at = now();
    if (this.wire.stalledUntil(at) > at) return this.arm();
    while (!this.isBlocked && !this.isDead && this.flying.length > 0 && this.flying[0].at <= at) {
      const { piece } = this.flying.shift();
      if (piece === undefined) {
        if (this.isAbrupt) this.sink.destroy();
        else this.sink.end();
      } else {
        this.flyingBytes -= piece.length;
        // A receiver that does not read fills the link too.
        if (!this.sink.write(piece)) this.isBlocked = true;
      }
    }
    if (this.heldBytes < this.mostHeld && !this.isDead && !this.source.destroyed) this.source.resume();
    this.arm();
  }
}

function open(link) {
  let startedAt;
  const {
    down,
    up,
    stalls = [],
    shared = false,
    targetPort,
    deadAfterMs,
    deadDirection = 'both',
    tls,
  } = link;
  const wireOf = (direction, shape) => new Wire(direction, shape, stalls, startedAt);
  let wires;
  const accept = (client) => {
    startedAt ??= now();
    if (!wires || !shared) wires = [wireOf('down', down), wireOf('up', up)];
    const [downWire, upWire] = wires;
    // Reads in small steps, so that the kernel's buffers fill as they do before a slow router.
    const buffer = Buffer.allocUnsafe(Math.min(64 * 1_024, Math.max(1_024, 2 * downWire.pieceBytes)));
    const server = connect({
      port: targetPort,
      host: '127.0.0.1',
      allowHalfOpen: true,
      noDelay: true,
      onread: { buffer, callback: (count, bytes) => downLane.take(Buffer.from(bytes.subarray(0, count))) },
    });
    client.setNoDelay?.(true);
    const downLane = new Lane(downWire, server, client);
    const upLane = new Lane(upWire, client, server);
    client.on('data', (chunk) => {
      if (!upLane.take(chunk)) client.pause();
    });
    for (const [socket, lane] of [
      [server, downLane],
      [client, upLane],
    ]) {
      openSockets++;
      socket.on('end', () => lane.end(false));
      socket.on('error', () => {});
      socket.on('close', (hadError) => {
        openSockets--;
        lane.end(hadError || !socket.readableEnded);
      });
    }
    if (deadAfterMs !== undefined) {
      setTimeout(() => {
        if (deadDirection !== 'up') downLane.die();
        if (deadDirection !== 'down') upLane.die();
      }, deadAfterMs);
    }
  };
  const listener = tls
    ? createTlsServer({ ...tls, allowHalfOpen: true }, accept)
    : createServer({ allowHalfOpen: true }, accept);
  listener.on('tlsClientError', () => {});
  return new Promise((resolve, reject) => {
    listener.once('error', reject);
    listener.listen({ port: 0, host: '127.0.0.1', backlog: BACKLOG }, () => resolve(listener.address().port));
  });
}

process.on('message', async ({ id, open: link, report }) => {
  if (link) process.send({ id, port: await open(link) });
  if (report) process.send({ id, lags: lags.splice(0), openSockets, mostHeldBytes });
});
process.on('disconnect', () => process.exit(0));
