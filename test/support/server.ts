import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const START_WITHIN_MS = 15_000;
const LISTENING = /Listening on (http:\S+)/;

/** The operator's token of every server that is started here. */
export const ADMIN_TOKEN = 'an-operators-token';

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface StartOptions {
  /** Arguments of node before the script. */
  readonly nodeArgs?: readonly string[];
  /** The script, from `cwd`. Default: the reference application. */
  readonly script?: string;
  /** Default: the root of the repository. */
  readonly cwd?: string;
  /** The `node` that runs it. Default: the one that runs this. */
  readonly node?: string;
}

const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/** A server in a process of its own. */
export class Server {
  private readonly output = { stdout: '', stderr: '' };
  readonly exited: Promise<Exit>;
  url = '';

  constructor(private readonly child: ChildProcess) {
    running.add(child);
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.output.stdout += text;
    });
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.output.stderr += text;
    });
    this.exited = once(child, 'close').then(([code, signal]) => {
      running.delete(child);
      return { code, signal, ...this.output };
    });
  }

  get pid(): number {
    return this.child.pid as number;
  }

  /** All that it has written so far. */
  get log(): string {
    return this.output.stdout + this.output.stderr;
  }

  get lines(): string[] {
    return this.log.split('\n').filter((line) => line !== '');
  }

  /** The address of a WebSocket, for `query`. */
  socketUrl(query: Record<string, string> = {}, path = '/ws'): string {
    return `${this.url.replace(/^http/, 'ws')}${path}?${new URLSearchParams(query)}`;
  }

  signal(signal: NodeJS.Signals): void {
    this.child.kill(signal);
  }

  /** Ends it, politely or not; not to end within `withinMs` is an error, and the process is gone all the same. */
  async stop(signal: NodeJS.Signals = 'SIGKILL', withinMs = 10_000): Promise<Exit> {
    this.signal(signal);
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        this.signal('SIGKILL');
        reject(new Error(`The server did not end within ${withinMs} ms of ${signal}\n${this.log}`));
      }, withinMs);
    });
    return Promise.race([this.exited, late]).finally(() => clearTimeout(timer));
  }

  /** Resolves when it has said where it listens. */
  async listening(): Promise<this> {
    const endsAt = Date.now() + START_WITHIN_MS;
    let exit: Exit | undefined;
    void this.exited.then((value) => {
      exit = value;
    });
    while (Date.now() < endsAt && !exit) {
      const [, url] = LISTENING.exec(this.output.stdout) ?? [];
      if (url !== undefined) {
        this.url = url;
        return this;
      }
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    this.signal('SIGKILL');
    throw new Error(`The server did not start\n${this.log}`);
  }
}

function launch(env: NodeJS.ProcessEnv, options: StartOptions): Server {
  const { nodeArgs = [], script = 'dist/main.js', cwd = ROOT, node = process.execPath } = options;
  // What the developer's own shell sets is none of the tests' business.
  const inherited = { PATH: process.env.PATH, NO_COLOR: '1' };
  return new Server(spawn(node, [...nodeArgs, script], { cwd, env: { ...inherited, ...env } }));
}

/** Starts the reference application on a free port, and waits until it listens. */
export function startServer(env: NodeJS.ProcessEnv = {}, options: StartOptions = {}): Promise<Server> {
  return launch({ PORT: '0', WSM_ADMIN_TOKEN: ADMIN_TOKEN, ...env }, options).listening();
}

/** Starts it where it is expected to give up by itself. */
export function runToExit(env: NodeJS.ProcessEnv, withinMs = START_WITHIN_MS): Promise<Exit> {
  const server = launch(env, {});
  const timer = setTimeout(() => server.signal('SIGKILL'), withinMs);
  return server.exited.finally(() => clearTimeout(timer));
}
