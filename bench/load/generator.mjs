// The load, in a process of its own: does what the runner asks for, and says what it saw.
import { setTimeout as sleep } from 'node:timers/promises';
import { DIALECTS } from './frames.mjs';
import { Peer } from './peer.mjs';

const peers = [];
/** Peers that took part in `cycle` are not kept. */
let cycles = 0;
let target;
let echoing = false;
let users = 0;

const commands = {
  target({ port, dialect }) {
    target = { port, dialect: DIALECTS[dialect] };
  },

  /** Opens `count` connections and keeps them; `eachUser`: connections of one user. */
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

  /** Opens and closes `count` connections, `concurrency` at a time. */
  async cycle({ count, concurrency = 16 }) {
    let next = 0;
    let done = 0;
    await Promise.all(
      Array.from({ length: concurrency }, async () => {
        for (; next < count; ) {
          next++;
          const peer = new Peer({ ...target, user: `u${users + (cycles++ % 20_000)}` });
          if (await peer.opening) done++;
          await peer.close();
        }
      }),
    );
    return { done };
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

process.on('message', async ({ id, command, ...args }) => {
  try {
    process.send({ id, result: await commands[command](args) });
  } catch (error) {
    process.send({ id, error: error.stack });
  }
});
process.on('disconnect', () => process.exit());
