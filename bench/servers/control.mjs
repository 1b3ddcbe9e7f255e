// What the runner asks a server between its measurements. Nothing of it runs while it measures.
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setImmediate as turn } from 'node:timers/promises';

/** The beat, or another setting of a measure, in milliseconds. */
export function setting(name, otherwise) {
  const value = process.env[name];
  return value === undefined ? otherwise : Number(value);
}

let delay;

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
    delay = monitorEventLoopDelay({ resolution: 1 });
    delay.enable();
  },
  loopDelay() {
    delay.disable();
    return { maxMs: delay.max / 1e6, p99Ms: delay.percentile(99) / 1e6 };
  },
};

/** Tells the runner where the server listens, and answers it from then on. */
export function ready(port, ownCommands = {}) {
  const all = { ...commands, ...ownCommands };
  process.on('message', async ({ id, command, ...args }) => {
    process.send({ id, result: await all[command](args) });
  });
  // The runner is gone: so are its servers.
  process.on('disconnect', () => process.exit());
  process.send({ port });
}
