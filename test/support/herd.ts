import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { until } from './stranger.js';

const SCRIPT = fileURLToPath(new URL('./herd.mjs', import.meta.url));

export interface Arrival {
  readonly in: number;
  /** From the first attempt of a client to its 101, its further attempts included. */
  readonly slowestMs: number;
  readonly refusals: number;
  readonly errors: number;
}

/** Many clients in few processes. */
export class Herd {
  private readonly children: ChildProcess[];
  private readonly arrivals: Arrival[] = [];
  private lost = 0;

  constructor(processes = 2) {
    this.children = Array.from({ length: processes }, () => {
      const child = fork(SCRIPT, [], { execArgv: [] });
      child.on('message', (message: Arrival | { lost: true }) => {
        if ('lost' in message) this.lost++;
        else this.arrivals.push(message);
      });
      return child;
    });
  }

  /** All come at once; resolves when the last one is in. */
  async come(port: number, users: readonly string[], withinMs: number): Promise<Arrival> {
    this.arrivals.length = 0;
    this.lost = 0;
    const { length } = this.children;
    this.children.forEach((child, mine) => {
      child.send({ port, users: users.filter((_, i) => i % length === mine) });
    });
    await until(() => this.arrivals.length === length, withinMs, `all ${users.length} to be in`, 20);
    return {
      in: this.arrivals.reduce((sum, arrival) => sum + arrival.in, 0),
      refusals: this.arrivals.reduce((sum, arrival) => sum + arrival.refusals, 0),
      errors: this.arrivals.reduce((sum, arrival) => sum + arrival.errors, 0),
      slowestMs: Math.max(...this.arrivals.map(({ slowestMs }) => slowestMs)),
    };
  }

  async whenAllLost(withinMs = 10_000): Promise<void> {
    await until(() => this.lost === this.children.length, withinMs, 'all to be disconnected', 20);
  }

  kill(): void {
    for (const child of this.children) child.kill('SIGKILL');
  }
}
