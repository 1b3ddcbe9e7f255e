import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { until } from '../support/stranger.js';
import { type Stall, Stalls } from './stalls.js';

const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

function start(script: string): ChildProcess {
  const path = fileURLToPath(new URL(script, import.meta.url));
  const child = fork(path, [], { execArgv: [], stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
  running.add(child);
  child.on('close', () => running.delete(child));
  return child;
}

export interface Seat {
  readonly userId: string;
  readonly sessionKey?: string | undefined;
  /** Its user is at the limit: it may be asked to leave. */
  readonly isFull: boolean;
  /** Its user is under no pressure: whoever comes back in time finds the session. */
  readonly resumes: boolean;
}

interface CrowdReport {
  readonly open: number;
  /** A few of those that are not. */
  readonly away: readonly object[];
  readonly seats: number;
  readonly opened: number;
  readonly ended: Readonly<Record<string, number>>;
  readonly wrong: readonly { readonly at: number; readonly what: string }[];
  readonly resumed: number;
  readonly lags: readonly Stall[];
}

/** A client that did not run for so long may have been taken for dead, rightly. */
const EXCUSING_STALL_MS = 800;
const EXCUSED_FOR_MS = 6_000;

/** Thousands of living clients in a few processes. */
export class Crowd {
  private readonly children: ChildProcess[];
  private readonly reports: (CrowdReport | undefined)[];
  /** What should not have happened to a living client. */
  readonly wrong: string[] = [];
  /** The same, while its own process did not run. */
  excused = 0;

  constructor(processes: number) {
    this.reports = Array.from({ length: processes }, () => undefined);
    this.children = this.reports.map((_, i) => {
      const child = start('./crowd.mjs');
      const stalls = new Stalls();
      child.on('message', (report: CrowdReport) => {
        stalls.note(report.lags);
        for (const { at, what } of report.wrong) {
          if (stalls.hasOneOf(EXCUSING_STALL_MS, at - EXCUSED_FOR_MS, at)) this.excused++;
          else this.wrong.push(what);
        }
        stalls.forget(Number(process.hrtime.bigint()) / 1e6 - 60_000);
        this.reports[i] = report;
      });
      return child;
    });
  }

  start(url: string, seats: readonly Seat[], perSecond: number): void {
    const { length } = this.children;
    this.children.forEach((child, mine) => {
      // All seats of a user in one process.
      const users = [...new Set(seats.map(({ userId }) => userId))];
      const own = new Set(users.filter((_, i) => i % length === mine));
      const plan = {
        url,
        seats: seats.filter(({ userId }) => own.has(userId)),
        perSecond: perSecond / length,
      };
      child.send({ start: plan });
    });
  }

  get open(): number {
    return this.sum(({ open }) => open);
  }

  get opened(): number {
    return this.sum(({ opened }) => opened);
  }

  get resumed(): number {
    return this.sum(({ resumed }) => resumed);
  }

  /** Why connections ended, as their own clients know it. */
  get ended(): Record<string, number> {
    const all: Record<string, number> = {};
    for (const report of this.reports)
      for (const [why, count] of Object.entries(report?.ended ?? {})) all[why] = (all[why] ?? 0) + count;
    return all;
  }

  /** So many connections are dropped at once, and come back together. */
  reload(count: number): void {
    for (const child of this.children) child.send({ reload: Math.ceil(count / this.children.length) });
  }

  /** Nobody leaves any more; resolves when all are there. */
  async settle(seats: number, withinMs: number): Promise<void> {
    for (const child of this.children) child.send({ settle: true });
    await until(() => this.open === seats, withinMs, `${seats} clients to be in`, 100).catch((error) => {
      const away = this.reports.flatMap((report) => report?.away ?? []);
      throw new Error(`${error.message}; ${this.open} are; away ${JSON.stringify(away)}`);
    });
  }

  goOn(): void {
    for (const child of this.children) child.send({ continue: true });
  }

  /** All say goodbye; resolves when all are gone. */
  async leave(withinMs: number): Promise<void> {
    for (const child of this.children) child.send({ leave: true });
    await until(() => this.open === 0, withinMs, 'all clients to be gone', 100);
  }

  kill(): void {
    for (const child of this.children) child.kill('SIGKILL');
  }

  private sum(of: (report: CrowdReport) => number): number {
    return this.reports.reduce((sum, report) => sum + (report ? of(report) : 0), 0);
  }
}

export interface Attempt {
  readonly userId: string;
  readonly from: number;
  readonly to: number;
  readonly status: number;
  readonly reason?: string;
  readonly retryAfterMs?: number;
  /** 1, and one more each time it came back as it was told. */
  readonly round: number;
  /** When it was told to come back at this time. */
  readonly toldAt?: number;
  /** It was let in, and then ended by the server. */
  readonly closed?: number;
}

/** A steady trickle of newcomers. */
export class Newcomers {
  private readonly child = start('./newcomers.mjs');
  private attempts: Attempt[] = [];
  readonly stalls: Stall[] = [];
  waiting = 0;

  constructor() {
    this.child.on('message', (report: { attempts: Attempt[]; lags: Stall[]; waiting: number }) => {
      this.attempts.push(...report.attempts);
      this.stalls.push(...report.lags);
      this.waiting = report.waiting;
    });
  }

  start(url: string, userIds: readonly string[], perSecond: number): void {
    this.child.send({ start: { url, userIds, perSecond } });
  }

  rush(userId: string, count: number): void {
    this.child.send({ rush: { userId, count } });
  }

  async stop(withinMs: number): Promise<void> {
    this.child.send({ stop: true });
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    await until(() => this.waiting === 0, withinMs, 'the newcomers to have their answers', 100);
  }

  /** Those that were answered before `before`. */
  take(before: number): Attempt[] {
    const taken = this.attempts.filter(({ to }) => to < before);
    this.attempts = this.attempts.filter(({ to }) => to >= before);
    return taken;
  }

  kill(): void {
    this.child.kill('SIGKILL');
  }
}
