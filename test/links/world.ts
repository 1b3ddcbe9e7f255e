import { fileURLToPath } from 'node:url';
import { Metrics, readMetrics } from '../support/metrics.js';
import { type Server, startServer } from '../support/server.js';
import { sleep } from '../support/stranger.js';
import { Clients, type IncomingPlan, type SessionPlan, type SessionReport } from './clients.js';
import { type Link, Relay, type RelayReport } from './relay.js';

const SCRIPT = fileURLToPath(new URL('./links-server.mjs', import.meta.url));

/** An event of the module, as the server wrote it. */
export interface ServerEvent {
  readonly type: string;
  readonly at: number;
  readonly userId?: string;
  readonly managerId?: string;
  readonly connectionId?: string;
  readonly reason?: string;
  readonly trigger?: string;
  readonly active?: boolean;
  readonly durationMs?: number;
  readonly outcome?: string;
  readonly lockout?: boolean;
  readonly evidence?: { readonly signal: string; readonly silentForMs: number };
}

export interface Lag {
  /** Milliseconds since 1970. */
  readonly from: number;
  readonly to: number;
}

/** All that is known when the simulated use is over, before any client is closed by the test. */
export interface Outcome {
  readonly sessions: readonly SessionReport[];
  readonly events: readonly ServerEvent[];
  readonly metrics: Metrics;
  /** When the server's own timers were late, by 8 ms or more. */
  readonly serverLags: readonly Lag[];
  readonly relay: RelayReport;
  /** How late the clients' own timers were. */
  readonly clientLags: readonly number[];
  readonly frozenAt: number;
}

export interface WorldOptions {
  readonly env?: NodeJS.ProcessEnv;
  /** Default: the gateway of the link tests; `dist/main.js` is the reference application. */
  readonly script?: string;
  readonly nodeArgs?: readonly string[];
  /** Default: in a process on this host. */
  readonly clients?: Clients;
}

/** A server, a relay and clients, each in a process of its own. */
export class World {
  private readonly sessions: SessionPlan[] = [];
  private readonly frozenSessions: SessionPlan[] = [];
  private readonly incoming: IncomingPlan[] = [];
  private readonly relay = new Relay();
  private readonly frozen = new Clients();

  private constructor(
    readonly server: Server,
    private readonly clients: Clients,
  ) {}

  static async start({ env, script = SCRIPT, nodeArgs, clients }: WorldOptions = {}): Promise<World> {
    const server = await startServer(env, { script, ...(nodeArgs ? { nodeArgs } : {}) });
    return new World(server, clients ?? new Clients());
  }

  /** @returns where a client finds the server over `link`; without one, directly. */
  async address(link?: Link, scheme: 'ws' | 'wss' = 'ws'): Promise<string> {
    const { port } = new URL(this.server.url);
    const linkPort = link ? await this.relay.open(link, Number(port)) : port;
    return `${scheme}://127.0.0.1:${linkPort}/ws`;
  }

  add(...sessions: SessionPlan[]): void {
    this.sessions.push(...sessions);
  }

  /** Sessions of a process that is frozen in {@link run}. */
  addFrozen(...sessions: SessionPlan[]): void {
    this.frozenSessions.push(...sessions);
  }

  addIncoming(...incoming: IncomingPlan[]): void {
    this.incoming.push(...incoming);
  }

  get size(): number {
    return this.sessions.length + this.frozenSessions.length;
  }

  /**
   * Opens all sessions, lets them live for `seconds`, and waits up to `finishWithinMs` for what is still outstanding;
   * what becomes of them is read after `leastSeconds` at the earliest.
   */
  async run(
    seconds: number,
    { finishWithinMs = 100_000, freezeAfterMs = 20_000, leastSeconds = 0 } = {},
  ): Promise<Outcome> {
    const startedAt = Date.now();
    const endsAt = startedAt + seconds * 1_000;
    // A handshake may be in a tunnel: nothing waits for it.
    const started = this.clients.start(this.sessions);
    await Promise.all([this.frozen.start(this.frozenSessions), this.clients.incoming(this.incoming)]);
    await sleep(freezeAfterMs);
    // A frozen process answers nothing.
    const { sessions: frozen } = await this.frozen.report();
    const frozenAt = Date.now();
    this.frozen.freeze();
    await sleep(Math.max(0, endsAt - Date.now()));
    await Promise.all([started, this.clients.finish(finishWithinMs)]);
    await sleep(Math.max(0, startedAt + leastSeconds * 1_000 - Date.now()));
    const [{ sessions: reported, lags }, relay, metrics] = await Promise.all([
      this.clients.report(),
      this.relay.report(),
      readMetrics(this.server),
    ]);
    const sessions = [...reported, ...frozen];
    return {
      sessions,
      events: this.events,
      serverLags: this.written('LAG'),
      metrics,
      relay,
      clientLags: lags,
      frozenAt,
    };
  }

  get events(): ServerEvent[] {
    return this.written('EVENT');
  }

  private written<T>(kind: string): T[] {
    return this.server.lines
      .filter((line) => line.startsWith(`${kind} `))
      .map((line) => JSON.parse(line.slice(kind.length)) as T);
  }

  async close(): Promise<void> {
    await Promise.all([this.clients.close(), this.frozen.close(), this.relay.close()]);
    await this.server.stop();
  }
}

/** The address of one session. */
export function sessionUrl(
  address: string,
  query: { readonly userId: string; readonly sessionKey?: string; readonly atConnect?: string },
): string {
  return `${address}?${new URLSearchParams(query)}`;
}
