import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';

const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

export interface SubprocessOptions {
  /** The program that runs it, and its arguments before the script. Default: this `node`. */
  readonly execPath?: string;
  readonly execArgv?: readonly string[];
}

/** A script that answers questions over IPC: `{ id, ... }` in, `{ id, ... }` out. */
export class Subprocess {
  private readonly waiting = new Map<
    number,
    { resolve(answer: unknown): void; reject(error: Error): void }
  >();
  private lastId = 0;
  private readonly child: ChildProcess;
  private readonly closed: Promise<unknown>;

  constructor(script: string, { execPath, execArgv = [] }: SubprocessOptions = {}) {
    const stdio = ['ignore', 'inherit', 'inherit', 'ipc'] as const;
    this.child = fork(script, [], {
      ...(execPath === undefined ? {} : { execPath }),
      execArgv: [...execArgv],
      stdio: [...stdio],
    });
    running.add(this.child);
    this.child.on('message', (answer: { id: number }) => {
      this.waiting.get(answer.id)?.resolve(answer);
      this.waiting.delete(answer.id);
    });
    this.closed = once(this.child, 'close').then(([code, signal]) => {
      running.delete(this.child);
      const error = new Error(`${script} has ended: code ${code}, signal ${signal}`);
      for (const { reject } of this.waiting.values()) reject(error);
    });
  }

  get pid(): number {
    return this.child.pid as number;
  }

  ask<T>(question: object): Promise<T> {
    const id = ++this.lastId;
    return new Promise<T>((resolve, reject) => {
      this.waiting.set(id, { resolve: resolve as (answer: unknown) => void, reject });
      this.child.send({ id, ...question });
    });
  }

  signal(signal: NodeJS.Signals): void {
    this.child.kill(signal);
  }

  async kill(): Promise<void> {
    if (running.has(this.child)) this.child.kill('SIGKILL');
    await this.closed;
  }
}
