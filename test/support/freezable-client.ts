import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { until } from './stranger.js';

const SCRIPT = fileURLToPath(new URL('./freezable-client.mjs', import.meta.url));

export type ClientReport =
  | { readonly type: 'ready' }
  | { readonly type: 'message'; readonly socket: number; readonly event: string; readonly data: unknown }
  | { readonly type: 'closed'; readonly socket: number; readonly code: number; readonly reason: string }
  | { readonly type: 'refused'; readonly socket: number; readonly status: number };

const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/** Sockets in a process that can be frozen. What it reports while it is frozen arrives when it is thawed. */
export class FreezableClient {
  readonly reports: ClientReport[] = [];
  private readonly child = fork(SCRIPT, [], { execArgv: [], stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });

  private constructor() {
    running.add(this.child);
    this.child.on('message', (report: ClientReport) => this.reports.push(report));
    this.child.on('close', () => running.delete(this.child));
  }

  /** One socket for each address, all answered. */
  static async open(urls: readonly string[]): Promise<FreezableClient> {
    const client = new FreezableClient();
    await client.openMore(urls);
    return client;
  }

  async openMore(urls: readonly string[]): Promise<void> {
    const before = this.of('ready').length;
    this.child.send({ open: urls });
    await until(() => this.of('ready').length > before, 10_000, 'the client process to be ready');
  }

  of<T extends ClientReport['type']>(type: T): Extract<ClientReport, { type: T }>[] {
    return this.reports.filter(
      (report): report is Extract<ClientReport, { type: T }> => report.type === type,
    );
  }

  send(event: string, data: unknown, to?: number): void {
    this.child.send({ send: JSON.stringify({ event, data }), to });
  }

  /** Stops the process, sockets and all; resolves when the system says that it is stopped. */
  async freeze(): Promise<void> {
    this.child.kill('SIGSTOP');
    const stat = `/proc/${this.child.pid}/stat`;
    await until(() => / T /.test(readFileSync(stat, 'utf8').replace(/^.*\)/, '')), 2_000, 'the freeze');
  }

  thaw(): void {
    this.child.kill('SIGCONT');
  }

  /** Ends the process. The kernel closes its sockets. */
  async kill(): Promise<void> {
    if (!running.has(this.child)) return;
    const gone = once(this.child, 'close');
    this.child.kill('SIGKILL');
    await gone;
  }
}
