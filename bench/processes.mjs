// The processes of a measurement: a server on one core, the load on the other.
import { spawn, spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';

const ANSWER_WITHIN_MS = 120_000;
const children = new Set();
process.on('exit', () => {
  for (const child of children) child.kill('SIGKILL');
});
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(1));

const canPin = availableParallelism() > 1 && spawnSync('taskset', ['-V']).status === 0;
export const pinning = canPin ? 'server on core 0, load on core 1' : 'not pinned';

class Child {
  #process;
  #pending = new Map();
  #asked = 0;

  constructor(script, { core, env = {}, nodeArgs = [] }) {
    const command = [process.execPath, ...nodeArgs, fileURLToPath(new URL(script, import.meta.url))];
    const [file, ...args] = canPin ? ['taskset', '-c', core, ...command] : command;
    this.#process = spawn(file, args, {
      env: { PATH: process.env.PATH, NO_COLOR: '1', ...env },
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    });
    children.add(this.#process);
    this.exited = new Promise((resolve) => {
      this.#process.once('exit', (code, signal) => {
        children.delete(this.#process);
        const error = new Error(`${script} ended with ${code ?? signal}`);
        for (const { reject } of this.#pending.values()) reject(error);
        resolve(code);
      });
    });
    this.ready = new Promise((resolve, reject) => {
      this.#process.once('error', reject);
      void this.exited.then(() => reject(new Error(`${script} did not start`)));
      this.#process.on('message', ({ id, port, result, error }) => {
        if (id === undefined) return resolve(port);
        const { resolve: answer, reject: fail } = this.#pending.get(id);
        this.#pending.delete(id);
        if (error) fail(new Error(error));
        else answer(result);
      });
    });
    this.ready.catch(() => {});
  }

  ask(command, args = {}) {
    const id = ++this.#asked;
    const answer = new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve, reject });
    });
    this.#process.send({ id, command, ...args });
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error(`No answer to ${command}`)), ANSWER_WITHIN_MS);
    });
    return Promise.race([answer, late]).finally(() => clearTimeout(timer));
  }

  /**
   * Microseconds of CPU that the process has had, all of its threads, as the scheduler of the kernel accounts for it.
   * Reading it costs the process nothing.
   */
  cpuUs() {
    const tasks = `/proc/${this.#process.pid}/task`;
    let ns = 0;
    for (const task of readdirSync(tasks)) {
      ns += Number(readFileSync(`${tasks}/${task}/schedstat`, 'utf8').split(' ')[0]);
    }
    return ns / 1_000;
  }

  async stop(signal = 'SIGKILL') {
    this.#process.kill(signal);
    await this.exited;
  }
}

/**
 * For the load: threads that compile and collect would take turns with the one that measures on its core, and so be
 * in what it measures, for milliseconds at a time. With this much room it hardly ever has to collect.
 */
const STEADY = ['--expose-gc', '--single-threaded', '--min-semi-space-size=256', '--max-semi-space-size=256'];

/** A user who has left is remembered for the grace: that is not to be taken for a part of an empty server. */
const FORGETS_WITHIN_MS = 6_000;

export const SERVERS = {
  'bare-ws': { title: 'bare `ws`', script: 'servers/bare-ws.mjs', dialect: 'ws' },
  'ws-heartbeat': {
    title: "`ws` + its README's heartbeat",
    script: 'servers/ws-heartbeat.mjs',
    dialect: 'ws',
  },
  'ws-heartbeat-spread': {
    title: '... its pings spread over the interval, as ours are',
    script: 'servers/ws-heartbeat-spread.mjs',
    dialect: 'ws',
  },
  'nest-ws': { title: 'Nest `WsAdapter`', script: 'servers/nest-ws.mjs', dialect: 'ws' },
  'nest-ws-by-hand': {
    title: 'Nest `WsAdapter` + Map of users and heartbeat by hand',
    script: 'servers/nest-ws-by-hand.mjs',
    dialect: 'ws',
  },
  'nest-socket-io': { title: 'Nest socket.io', script: 'servers/nest-socket-io.mjs', dialect: 'socket.io' },
  ours: {
    title: '**this module**',
    script: 'servers/ours.mjs',
    dialect: 'ws',
    forgetsWithinMs: FORGETS_WITHIN_MS,
  },
  'ours-async': {
    title: '**this module**, asynchronous `authenticate`',
    script: 'servers/ours.mjs',
    dialect: 'ws',
    env: { AUTHENTICATE: 'async' },
    forgetsWithinMs: FORGETS_WITHIN_MS,
  },
};

/**
 * Starts a server and a load for it, hands them to `measure`, and ends both whatever happens. `sharesCores`: the server may
 * use the core of the load too, as for what is told in time and not in CPU.
 */
export async function withServer(name, { env, signal, sharesCores = false } = {}, measure) {
  const { script, dialect, env: own } = SERVERS[name];
  const server = new Child(script, {
    core: sharesCores ? '0,1' : '0',
    env: { ...own, ...env },
    nodeArgs: ['--expose-gc'],
  });
  const loads = [];
  try {
    const port = await server.ready;
    const startLoad = async () => {
      const load = new Child('load/generator.mjs', { core: '1', nodeArgs: STEADY });
      loads.push(load);
      await load.ask('target', { port, dialect });
      return load;
    };
    return await measure(server, await startLoad(), startLoad);
  } finally {
    await Promise.all([server.stop(signal), ...loads.map((load) => load.stop())]);
  }
}
