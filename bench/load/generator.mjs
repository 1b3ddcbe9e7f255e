// The load, in a process of its own: does what the runner asks for, and says what it saw.
import { setTimeout as sleep } from 'node:timers/promises';
import { DIALECTS } from './frames.mjs';
import { Peer } from './peer.mjs';

/** How often what is due by a pace is sent. */
const PACE_MS = 2;

const peers = [];
/** Peers that took part in `cycle` are not kept. */
let cycles = 0;
let target;
let echoing = false;
let users = 0;
let pacer;

const commands = {
  target({ port, dialect }) {
    target = { port, dialect: DIALECTS[dialect] };
  },

  /** Opens `count` connections, `concurrency` at a time, and keeps them; `eachUser`: connections of one user. */
  async open({ count, concurrency = 50, eachUser = 1, prefix = 'u' }) {
    const first = users;
    users += Math.ceil(count / eachUser);
    const opened = [];
    let next = 0;
    await Promise.all(
      Array.from({ length: concurrency }, async () => {
        for (let i = next++; i < count; i = next++) {
          const peer = new Peer({ ...target, user: `${prefix}${first + Math.floor(i / eachUser)}` });
          opened.push(peer);
          await peer.opening;
        }
      }),
    );
    peers.push(...opened);
    return { opened: opened.filter(({ isOpen }) => isOpen).length, firstUser: first };
  },

  /** Opens and closes `count` connections, `concurrency` at a time: how long each handshake took. */
  async cycle({ count, concurrency = 16 }) {
    let next = 0;
    const times = [];
    await Promise.all(
      Array.from({ length: concurrency }, async () => {
        for (; next < count; ) {
          next++;
          const peer = new Peer({ ...target, user: `u${users + (cycles++ % 20_000)}` });
          if (await peer.opening) times.push(peer.openedAfterMs);
          await peer.close();
        }
      }),
    );
    return distribution(times);
  },

  /** `bursts` times `count` connections, all of which stay until the burst is over: how long each handshake took. */
  async crowd({ bursts, count, concurrency }) {
    const times = [];
    for (let burst = 0; burst < bursts; burst++) {
      await commands.open({ count, concurrency });
      for (const peer of peers) if (peer.isOpen) times.push(peer.openedAfterMs);
      await commands.closeAll();
    }
    return distribution(times);
  },

  async closeAll() {
    const closing = peers.splice(0);
    await Promise.all(closing.map((peer) => peer.close()));
    return { closed: closing.length };
  },

  /** Every open connection sends `depth` messages at a time, and again when all of them are answered. */
  startEcho({ depth, size, connections = peers.length }) {
    echoing = true;
    const message = target.dialect.message('echo', 'x'.repeat(size));
    const batch = Buffer.concat(Array.from({ length: depth }, () => message));
    for (const peer of peers.slice(0, connections)) {
      let due = depth;
      peer.onReply = () => {
        if (--due > 0) return;
        due = depth;
        if (echoing) peer.send(batch);
      };
      peer.send(batch);
    }
  },

  async stopEcho() {
    echoing = false;
    await sleep(100);
    for (const peer of peers) peer.onReply = undefined;
  },

  /**
   * So many messages a second, from one connection after the other, whether they are answered or not; `depth`: so many
   * at a time, in one write.
   */
  startPaced({ perSecond, size, depth = 1 }) {
    const message = target.dialect.message('echo', 'x'.repeat(size));
    const batch = Buffer.concat(Array.from({ length: depth }, () => message));
    const startedAt = performance.now();
    let sent = 0;
    pacer = setInterval(() => {
      const due = (((performance.now() - startedAt) / 1_000) * perSecond) / depth;
      for (; sent < due; sent++) peers[sent % peers.length].send(batch);
    }, PACE_MS);
  },
  stopPaced() {
    clearInterval(pacer);
  },

  /** On the first connection, one message after the other, with a pause between: how long each answer took. */
  async probe({ forMs, pauseMs, size }) {
    const [peer] = peers;
    const message = target.dialect.message('echo', 'x'.repeat(size));
    const times = [];
    for (const endsAt = performance.now() + forMs; performance.now() < endsAt; await sleep(pauseMs)) {
      const sentAt = performance.now();
      await new Promise((resolve) => {
        peer.onReply = resolve;
        peer.send(message);
      });
      times.push(performance.now() - sentAt);
    }
    return distribution(times);
  },

  /** Newcomers at a steady rate, each of whom leaves at once: how long each handshake took. */
  async arrive({ perSecond, forMs }) {
    // Of who has left, only the time is kept: the collector would copy thousands of clients again and again, and stop for
    // tens of milliseconds to do it, which would be taken for the server's.
    const times = [];
    let refused = 0;
    const come = async (user) => {
      const peer = new Peer({ ...target, user });
      if (await peer.opening) times.push(peer.openedAfterMs);
      else refused++;
      void peer.close();
    };
    globalThis.gc({ type: 'minor' });
    const startedAt = performance.now();
    const comings = [];
    while (performance.now() - startedAt < forMs) {
      const due = ((performance.now() - startedAt) / 1_000) * perSecond;
      while (comings.length < due) comings.push(come(`n${comings.length}`));
      await sleep(PACE_MS);
    }
    await Promise.all(comings);
    return { ...distribution(times), opened: times.length, refused };
  },

  /**
   * From now on no connection answers anything; with `afterPongWithinMs`, from the next ping on, which each still answers.
   * With `untilEndedMs`, waits for the server to give all of them up, with a close frame or without: how long
   * after it froze the last one was.
   */
  async freeze({ afterPongWithinMs = 0, untilEndedMs = 0 } = {}) {
    for (const peer of peers) peer.freeze(afterPongWithinMs > 0);
    if (afterPongWithinMs > 0) {
      await Promise.race([Promise.all(peers.map(({ freezing }) => freezing)), sleep(afterPongWithinMs)]);
    }
    if (untilEndedMs === 0) return {};
    await Promise.race([Promise.all(peers.map(({ ending }) => ending)), sleep(untilEndedMs)]);
    const isOver = peers.every(({ endedAt }) => endedAt !== undefined);
    if (!isOver) return {};
    return { lastEndedAfterMs: Math.max(...peers.map(({ endedAt, frozenAt }) => endedAt - frozenAt)) };
  },

  /** One newcomer for each of these users, all at this instant. */
  async newcomers({ prefix, firstUser, count }) {
    const arriving = Array.from(
      { length: count },
      (_, i) => new Peer({ ...target, user: `${prefix}${firstUser + i}` }),
    );
    const isIn = await Promise.all(arriving.map((peer) => peer.opening));
    const times = arriving.filter((_, i) => isIn[i]).map((peer) => peer.openedAfterMs);
    peers.push(...arriving);
    return { admitted: times.length, ...distribution(times) };
  },

  /** Tries to get in, and to stay, again and again: when that was. */
  async knock({ user, everyMs, forMs }) {
    const startedAt = performance.now();
    while (performance.now() - startedAt < forMs) {
      const triedAt = performance.now();
      const peer = new Peer({ ...target, user });
      if (await peer.opening) {
        // Who closes after the 101 has let nobody in.
        await Promise.race([peer.closing, sleep(50)]);
        if (!peer.isClosing) {
          peers.push(peer);
          return { afterMs: triedAt - startedAt + peer.openedAfterMs };
        }
      }
      await sleep(everyMs);
    }
    return {};
  },

  /** What was seen so far; `cpuUs`: what seeing it cost. */
  count() {
    const { user, system } = process.cpuUsage();
    let replies = 0;
    let pings = 0;
    let open = 0;
    for (const peer of peers) {
      replies += peer.replies;
      pings += peer.pings;
      if (peer.isOpen && !peer.isClosed) open++;
    }
    return { replies, pings, open, cpuUs: user + system, at: performance.now() };
  },
};

function distribution(times) {
  const sorted = times.sort((a, b) => a - b);
  const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
  return { p50: at(0.5), p99: at(0.99), max: sorted.at(-1), count: sorted.length };
}

process.on('message', async ({ id, command, ...args }) => {
  try {
    process.send({ id, result: await commands[command](args) });
  } catch (error) {
    process.send({ id, error: error.stack });
  }
});
process.on('disconnect', () => process.exit());
