import { fileURLToPath } from 'node:url';
import { Subprocess, type SubprocessOptions } from './subprocess.js';

const SCRIPT = fileURLToPath(new URL('./clients.mjs', import.meta.url));

/** Milliseconds: at least, at most. */
export type Span = readonly [number, number];

/** What a session does while it is open. */
export type Use =
  | { readonly role: 'idle' }
  | { readonly role: 'chat'; readonly everyMs?: Span }
  | {
      readonly role: 'download';
      readonly bytes: number;
      /** In so many messages, all sent in one turn. Default: one. */
      readonly pieces?: number;
      /** Content that does not compress. */
      readonly random?: boolean;
      /** Pause after one has arrived. */
      readonly everyMs?: Span;
      /** Says something so long after each request, then nothing until it has arrived. */
      readonly saysAfterMs?: number;
      readonly times?: number;
    }
  | { readonly role: 'upload'; readonly bytes: number; readonly everyMs?: Span }
  | { readonly role: 'push'; readonly bytes: number; readonly pushEveryMs: number }
  | { readonly role: 'pingOnly'; readonly everyMs: Span };

export type SessionPlan = Use & {
  readonly name: string;
  readonly userId: string;
  readonly url: string;
  readonly opensAfterMs?: number;
  /** Its use begins so long after it is open. */
  readonly startAfterMs?: number;
  readonly answersPingsAfterMs?: number;
  readonly pausesReading?: { readonly everyMs: number; readonly forMs: number };
  /** Size of a message that the server sends at connect. */
  readonly atConnectBytes?: number;
  /** Its client is going to be dead: no answer is waited for. */
  readonly dies?: boolean;
  readonly deflate?: boolean;
  readonly rejectUnauthorized?: boolean;
};

/** Connections of a user at its limit, one after the other. */
export interface IncomingPlan {
  readonly everyMs: Span;
  readonly firstAfterMs?: number;
  readonly times?: number;
  readonly plan: SessionPlan & { readonly keyed?: boolean };
}

export interface SessionReport {
  readonly name: string;
  readonly userId: string;
  readonly role: Use['role'];
  readonly isIncoming: boolean;
  /** It was refused before, was told when to return, and returned then. */
  readonly isReturn: boolean;
  readonly requestedAt: number;
  readonly openedAt?: number;
  readonly refusal?: {
    readonly status: number;
    readonly at: number;
    readonly body: { readonly reason?: string; readonly retryAfterMs?: number };
  };
  readonly closed?: { readonly code: number; readonly reason: string; readonly at: number };
  readonly notice?: { readonly code: number; readonly reason: string };
  readonly managerId?: string;
  readonly pings: number;
  readonly lastPingAt: number;
  readonly messages: number;
  readonly bytes: number;
  readonly downloads: number;
  /** Longest time from a request to its complete answer. */
  readonly longestMs: number;
  /** Messages that were lost, cut or out of order, and failed handshakes. */
  readonly errors: readonly string[];
  readonly outstanding: readonly { readonly id: string; readonly forMs: number }[];
}

export interface ClientsReport {
  readonly sessions: readonly SessionReport[];
  /** How late the process's own timers were, where that was 100 ms or more. */
  readonly lags: readonly number[];
}

/** Real clients in a process of their own, that can be frozen. */
export class Clients {
  private readonly process: Subprocess;

  constructor(options?: SubprocessOptions) {
    this.process = new Subprocess(SCRIPT, options);
  }

  /** Resolves when all are open or refused. */
  async start(sessions: readonly SessionPlan[]): Promise<void> {
    await this.process.ask({ start: sessions });
  }

  async incoming(incoming: readonly IncomingPlan[]): Promise<void> {
    await this.process.ask({ incoming });
  }

  /** No new requests; resolves when all answers have arrived, or after `withinMs`. */
  async finish(withinMs: number): Promise<void> {
    await this.process.ask({ finish: withinMs });
  }

  report(): Promise<ClientsReport> {
    return this.process.ask({ report: true });
  }

  freeze(): void {
    this.process.signal('SIGSTOP');
  }

  close(): Promise<void> {
    return this.process.kill();
  }
}
