import { readdirSync } from 'node:fs';
import { type Metrics, readMetrics } from '../support/metrics.js';
import { Operator } from '../support/operator.js';
import { type Server, startServer } from '../support/server.js';
import { sleep } from '../support/stranger.js';
import type { Stall } from './stalls.js';

/** What the server says of itself, after a collection. */
export interface Sample {
  readonly heapUsed: number;
  readonly rss: number;
  readonly external: number;
  /** What keeps its event loop alive, by kind. */
  readonly resources: Readonly<Record<string, number>>;
  /** Events, counted. */
  readonly told: Readonly<Record<string, number>>;
  readonly detachedFor: Readonly<Record<string, number>>;
  /** Open files, as the system counts them. */
  readonly files: number;
}

const MOST_ATTEMPTS = 5;

/** The server under soak, and the levers that it has for it. */
export class SoakedServer {
  readonly operator: Operator;
  /** Requests that had to be made again. */
  unheard = 0;

  private constructor(readonly server: Server) {
    this.operator = new Operator(server);
  }

  static async start(): Promise<SoakedServer> {
    const options = { script: 'test/soak/soak-server.mjs', nodeArgs: ['--expose-gc'] };
    return new SoakedServer(await startServer({}, options));
  }

  get url(): string {
    return this.server.url.replace(/^http/, 'ws');
  }

  socketUrl(userId: string, sessionKey?: string): string {
    return this.server.socketUrl({ userId, ...(sessionKey && { sessionKey }) });
  }

  async sample(): Promise<Sample> {
    const sample = (await this.get('soak/sample')) as Omit<Sample, 'files'>;
    return { ...sample, files: readdirSync(`/proc/${this.server.pid}/fd`).length };
  }

  /** When it stood still, since this was last asked. */
  async readStalls(): Promise<Stall[]> {
    return (await this.get('soak/lags')) as Stall[];
  }

  async stall(ms: number): Promise<void> {
    await this.get(`soak/stall?ms=${ms}`);
  }

  async setLimit(userId: string, limit: number | undefined): Promise<void> {
    await this.get(`soak/limit?userId=${userId}${limit === undefined ? '' : `&limit=${limit}`}`);
  }

  async admittedAt(userId: string): Promise<number> {
    return ((await this.get(`soak/admitted-at?userId=${userId}`)) as { at: number }).at;
  }

  metrics(): Promise<Metrics> {
    return this.patiently(() => readMetrics(this.server));
  }

  async managersOf(userId: string): Promise<number> {
    return (await this.patiently(() => this.operator.managersOf(userId))).length;
  }

  private get(path: string): Promise<unknown> {
    return this.patiently(async () => {
      const response = await fetch(`${this.server.url}/${path}`);
      if (!response.ok) throw new Error(`${path}: ${response.status}`);
      return response.json();
    });
  }

  /** On a machine that is overloaded the kernel drops connections before anybody hears of them. */
  private async patiently<T>(ask: () => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await ask();
      } catch (error) {
        this.unheard++;
        if (attempt === MOST_ATTEMPTS) throw error;
        await sleep(500);
      }
    }
  }
}
