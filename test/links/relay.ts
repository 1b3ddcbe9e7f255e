import { fileURLToPath } from 'node:url';
import { Subprocess } from './subprocess.js';

const SCRIPT = fileURLToPath(new URL('./relay.mjs', import.meta.url));

/** One direction of a link. */
export interface LinkShape {
  readonly bytesPerSecond: number;
  /** One way. */
  readonly delayMs: number;
  /** At most this much is added to the delay; the order is kept. */
  readonly jitterMs?: number;
  /** What the bottleneck holds, beside what is under way in the delay. */
  readonly queueBytes: number;
}

/** Nothing passes for `forMs`, again and again. */
export interface Stall {
  readonly direction: 'both' | 'down' | 'up';
  readonly everyMs: number;
  readonly forMs: number;
  /** From the link's first connection. */
  readonly offsetMs?: number;
}

export interface Link {
  /** From the server to the client. */
  readonly down: LinkShape;
  readonly up: LinkShape;
  /** All connections share the bandwidth. */
  readonly shared?: boolean;
  readonly stalls?: readonly Stall[];
  /** From then on nothing passes on a connection, and nothing is closed. */
  readonly deadAfterMs?: number;
  readonly deadDirection?: 'both' | 'down' | 'up';
  readonly tls?: { readonly key: string; readonly cert: string };
}

export interface RelayReport {
  /** How late the relay's own timers were, in milliseconds, where that was 50 ms or more. */
  readonly lags: readonly number[];
  readonly openSockets: number;
  /** The largest number of bytes that one direction of one connection held. */
  readonly mostHeldBytes: number;
}

/** Shaped links in a process of their own. */
export class Relay {
  private readonly process = new Subprocess(SCRIPT);

  /** @returns the port on which the link is to be used. */
  async open(link: Link, targetPort: number): Promise<number> {
    const { port } = await this.process.ask<{ port: number }>({ open: { ...link, targetPort } });
    return port;
  }

  report(): Promise<RelayReport> {
    return this.process.ask({ report: true });
  }

  close(): Promise<void> {
    return this.process.kill();
  }
}
