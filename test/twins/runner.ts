import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { Clients } from './client.js';
import type { Script } from './generated.js';
import type { FromHost, ToHost, Way } from './host-protocol.js';
import { isAlone, type Outcome, type Program, shown } from './program.js';

/** What can be run: a program that the hosts know by name, or one that is sent to them. */
export interface Runnable extends Program {
  readonly script?: Script;
}

const START_WITHIN_MS = 20_000;
/** Longer than the slowest program with all of its waits in vain. */
const MOST_MS = 20_000;
/** So many run at a time in one shared process, and so many processes of their own. */
const MOST_AT_A_TIME = 12;
const MOST_ALONE = 2;

/** Where the hosts are, and the package that they load. */
export interface Build {
  /** The compiled host. */
  readonly host: string;
  /** URL of the module's entry point. */
  readonly entry: string;
}

class HostEnded extends Error {}

/** A process that runs the server's side of programs. */
class Host {
  private readonly child: ChildProcess;
  private readonly waiting = new Map<number | 'ready', (answer: FromHost | HostEnded) => void>();
  private readonly directory: string | undefined;
  private stderr = '';
  private lastId = 0;
  private exit: string | undefined;
  readonly exited: Promise<void>;
  readonly ready: Promise<void>;

  constructor(way: Way, { host, entry }: Build, isAlone: boolean) {
    this.directory = isAlone ? mkdtempSync(join(tmpdir(), 'twin-')) : undefined;
    const fd = this.directory === undefined ? undefined : openSync(join(this.directory, 'trace'), 'w');
    this.child = fork(host, fd === undefined ? [way] : [way, '4'], {
      stdio: ['ignore', 'pipe', 'pipe', 'ipc', ...(fd === undefined ? [] : [fd])],
      env: { PATH: process.env.PATH, NO_COLOR: '1', TWINS_PACKAGE: entry },
      execArgv: [],
    });
    if (fd !== undefined) closeSync(fd);
    const add = (text: string) => {
      this.stderr += text;
    };
    this.child.stdout?.setEncoding('utf8').on('data', add);
    this.child.stderr?.setEncoding('utf8').on('data', add);
    this.child.on('message', (message: FromHost) => {
      const key = 'id' in message ? message.id : message.type;
      this.waiting.get(key)?.(message);
      this.waiting.delete(key);
    });
    this.exited = once(this.child, 'close').then(([code, signal]) => {
      this.exit = exitOf(code, signal, this.stderr);
      for (const settle of this.waiting.values()) settle(new HostEnded(`The host ended: ${this.stderr}`));
      this.waiting.clear();
    });
    this.ready = this.answer('ready', START_WITHIN_MS).then(() => {});
    this.ready.catch(() => {});
  }

  /** @throws HostEnded if the process ends before the program does. */
  async run({ name, script, client }: Runnable): Promise<Outcome> {
    const id = ++this.lastId;
    await this.ready;
    this.tell({ type: 'start', id, name, script });
    const started = await this.answer(id, START_WITHIN_MS);
    if (started.type !== 'started') throw new Error(`${name}: could not be started: ${reasonOf(started)}`);
    const clients = new Clients(started.port, (ms) => this.quiet(id, ms));
    try {
      await client(clients);
    } finally {
      clients.end();
    }
    if (this.exit !== undefined && this.directory === undefined) throw new HostEnded(this.stderr);
    try {
      this.tell({ type: 'finish', id });
      const finished = await this.answer(id, MOST_MS);
      if (finished.type !== 'finished')
        throw new Error(`${name}: could not be finished: ${reasonOf(finished)}`);
      const { server, log } = finished;
      return { server, client: clients.traces, log, process: 'runs' };
    } catch (error) {
      if (!(error instanceof HostEnded) || this.directory === undefined) throw error;
      return { ...this.written(), client: clients.traces, process: this.exit as string };
    }
  }

  private async quiet(id: number, ms: number): Promise<void> {
    try {
      this.tell({ type: 'quiet', id, ms });
      await this.answer(id, MOST_MS);
    } catch (error) {
      // A process that has ended is as quiet as can be.
      if (!(error instanceof HostEnded)) throw error;
    }
  }

  async end(): Promise<void> {
    this.child.kill('SIGKILL');
    await this.exited;
    if (this.directory !== undefined) rmSync(this.directory, { recursive: true, force: true });
  }

  get hasEnded(): boolean {
    return this.exit !== undefined;
  }

  private written(): Pick<Outcome, 'server' | 'log'> {
    const lines = readFileSync(join(this.directory as string, 'trace'), 'utf8').split('\n');
    const entries = lines.filter((line) => line !== '').map((line) => JSON.parse(line) as [string, string]);
    const of = (part: string) => entries.filter(([of]) => of === part).map(([, line]) => line);
    return { server: of('server'), log: of('log') };
  }

  private tell(message: ToHost): void {
    if (this.exit !== undefined || !this.child.connected) return;
    // A process that is just ending answers by its end.
    this.child.send(message, () => {});
  }

  private answer(key: number | 'ready', withinMs: number): Promise<FromHost> {
    return new Promise((resolve, reject) => {
      if (this.exit !== undefined) {
        reject(new HostEnded(`The host ended: ${this.stderr}`));
        return;
      }
      const timer = setTimeout(() => {
        this.waiting.delete(key);
        reject(new Error(`The host gave no answer within ${withinMs} ms: ${this.stderr}`));
      }, withinMs);
      this.waiting.set(key, (answer) => {
        clearTimeout(timer);
        if (answer instanceof HostEnded) reject(answer);
        else resolve(answer);
      });
    });
  }
}

function reasonOf(message: FromHost): string {
  return message.type === 'failed' ? message.error : message.type;
}

/** `exit 1: Error: fault x`: the status, and the first line of what was thrown. */
function exitOf(code: number | null, signal: string | null, stderr: string): string {
  const line = stderr.split('\n').find((text) => /^(\w*(Error|Exception)\b|fault )/.test(text));
  return [signal ?? `exit ${code}`, ...(line === undefined ? [] : [shown(line)])].join(': ');
}

/** Lets so many in at a time. */
class Gate {
  private inside = 0;
  private readonly queue: (() => void)[] = [];

  constructor(private readonly most: number) {}

  async pass<T>(work: () => Promise<T>): Promise<T> {
    if (this.inside >= this.most) await new Promise<void>((resolve) => this.queue.push(resolve));
    else this.inside++;
    try {
      return await work();
    } finally {
      const next = this.queue.shift();
      if (next) next();
      else this.inside--;
    }
  }
}

/** Runs programs under both twins. */
export class Twins {
  private readonly shared = new Map<Way, Host>();
  private readonly together = new Gate(MOST_AT_A_TIME);
  private readonly alone = new Gate(MOST_ALONE);

  constructor(private readonly build: Build) {}

  /** The program's outcome in one way. A shared process that it ends is no loss: it is run again in its own. */
  async outcome(way: Way, program: Runnable): Promise<Outcome> {
    if (!isAlone(program, way)) {
      const outcome = await this.together.pass(() => this.runShared(way, program));
      if (outcome) return outcome;
    }
    return this.outcomeAlone(way, program);
  }

  /** The same in a process of its own. */
  outcomeAlone(way: Way, program: Runnable): Promise<Outcome> {
    return this.alone.pass(async () => {
      const host = new Host(way, this.build, true);
      try {
        return await host.run(program);
      } finally {
        await host.end();
      }
    });
  }

  /** Both outcomes. */
  async both(program: Runnable): Promise<Record<Way, Outcome>> {
    const [platform, module] = await Promise.all([
      this.outcome('platform', program),
      this.outcome('module', program),
    ]);
    return { platform, module };
  }

  /**
   * Compares the outcomes; where they are not as wanted, those of another run, of this program alone. On a busy machine
   * a timer can pass a message, in one twin and not in the other; a difference between the twins comes again.
   * @returns what is not as wanted: undefined, or text
   */
  async compare(program: Runnable): Promise<string | undefined> {
    let verdict = judged(program, await this.both(program));
    for (let again = 0; again < REPETITIONS && verdict !== undefined; again++) {
      const platform = await this.outcomeAlone('platform', program);
      verdict = judged(program, { platform, module: await this.outcomeAlone('module', program) });
    }
    return verdict;
  }

  async end(): Promise<void> {
    await Promise.all([...this.shared.values()].map((host) => host.end()));
  }

  private async runShared(way: Way, program: Runnable): Promise<Outcome | undefined> {
    let host = this.shared.get(way);
    if (!host || host.hasEnded) {
      host = new Host(way, this.build, false);
      this.shared.set(way, host);
    }
    try {
      return await host.run(program);
    } catch (error) {
      if (error instanceof HostEnded) return undefined;
      throw error;
    }
  }
}

const REPETITIONS = 2;

function judged({ differs }: Runnable, { platform, module }: Record<Way, Outcome>): string | undefined {
  const wanted = { ...platform, ...differs?.module };
  if (!isDeepStrictEqual(module, wanted)) return differencesOf(wanted, module);
  if (differs && isDeepStrictEqual(module, platform))
    return `no longer differs (${differs.because}): take 'differs' off the program`;
  return undefined;
}

/** The traces side by side where they differ: `-` wanted but not there, `+` there but not wanted. */
function differencesOf(wanted: Outcome, module: Outcome): string {
  return (['server', 'client', 'log', 'process'] as const)
    .filter((part) => !isDeepStrictEqual(wanted[part], module[part]))
    .map((part) => `${part}:\n${diff([wanted[part]].flat(), [module[part]].flat()).join('\n')}`)
    .join('\n');
}

/** The shortest way from one list to the other. */
function diff(from: readonly string[], to: readonly string[]): string[] {
  const common = Array.from({ length: from.length + 1 }, () => new Array<number>(to.length + 1).fill(0));
  const at = (i: number, j: number) => common[i]?.[j] ?? 0;
  for (let i = from.length - 1; i >= 0; i--) {
    for (let j = to.length - 1; j >= 0; j--) {
      (common[i] as number[])[j] =
        from[i] === to[j] ? at(i + 1, j + 1) + 1 : Math.max(at(i + 1, j), at(i, j + 1));
    }
  }
  const lines: string[] = [];
  let [i, j] = [0, 0];
  while (i < from.length || j < to.length) {
    if (i < from.length && j < to.length && from[i] === to[j]) {
      lines.push(`    ${from[i++]}`);
      j++;
    } else if (j >= to.length || (i < from.length && at(i + 1, j) >= at(i, j + 1))) {
      lines.push(`  - ${from[i++]}`);
    } else {
      lines.push(`  + ${to[j++]}`);
    }
  }
  return lines;
}
