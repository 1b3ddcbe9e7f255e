// What the runner asks a server between its measurements. Nothing of it runs while it measures.
import { Session } from 'node:inspector/promises';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setImmediate as turn } from 'node:timers/promises';

/** The beat, or another setting of a measure, in milliseconds. */
export function setting(name, otherwise) {
  const value = process.env[name];
  return value === undefined ? otherwise : Number(value);
}

/** How often the event loop is asked whether it is late; what it is late by comes on top. */
const RESOLUTION_MS = 1;

let delay;
let session;

const commands = {
  async heap() {
    // Several times, with turns between: what a collection frees may free more at the next.
    for (let i = 0; i < 4; i++) {
      globalThis.gc();
      await turn();
    }
    const { heapUsed, external, arrayBuffers, rss } = process.memoryUsage();
    return { heapUsed, external, arrayBuffers, rss };
  },
  watchLoop() {
    delay = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
    delay.enable();
  },
  loopDelay() {
    delay.disable();
    return { maxMs: delay.max / 1e6 - RESOLUTION_MS };
  },
  async startProfile({ intervalUs }) {
    session = new Session();
    session.connect();
    await session.post('Profiler.enable');
    await session.post('Profiler.setSamplingInterval', { interval: intervalUs });
    await session.post('Profiler.start');
  },
  async stopProfile() {
    const { profile } = await session.post('Profiler.stop');
    session.disconnect();
    return profile;
  },
};

/** Tells the runner where the server listens, and answers it from then on. */
export function ready(port, ownCommands = {}) {
  const all = { ...commands, ...ownCommands };
  process.on('message', async ({ id, command, ...args }) => {
    try {
      process.send({ id, result: await all[command](args) });
    } catch (error) {
      process.send({ id, error: error.stack });
    }
  });
  // The runner is gone: so are its servers.
  process.on('disconnect', () => process.exit());
  process.send({ port });
}
