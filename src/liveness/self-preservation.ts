import { LOOKS_PER_INTERVAL } from './assessment.js';

/** Below this many connections a majority proves nothing. */
const LEAST_CONNECTIONS = 100;
const MOST_BEATS = 3;

/**
 * Blames ourselves first: when more than half of many connections fall silent within one beat, the likelier
 * cause is this node or its network. (Netflix Eureka's self-preservation and Envoy's panic threshold, for sockets.)
 */
export class SelfPreservation {
  /** Connections that fell silent, by tick, over the last beat. */
  private readonly window: number[];
  private cursor = 0;
  private silent = 0;
  private until = Number.NEGATIVE_INFINITY;

  constructor(
    private readonly intervalMs: number,
    slotsPerTurn: number,
    private readonly onChange: (active: boolean, silent: number, connections: number) => void,
  ) {
    this.window = new Array<number>(slotsPerTurn * LOOKS_PER_INTERVAL).fill(0);
  }

  /** Silence is not believed in the background at the moment. */
  get isActive(): boolean {
    return this.until > Number.NEGATIVE_INFINITY;
  }

  /** A connection has left its first ping unanswered. */
  noteSilence(): void {
    this.window[this.cursor] = (this.window[this.cursor] as number) + 1;
    this.silent++;
  }

  /** One tick has been worked through. */
  tick(now: number, connections: number): void {
    if (this.isActive && now >= this.until) {
      this.until = Number.NEGATIVE_INFINITY;
      this.window.fill(0);
      this.silent = 0;
      this.onChange(false, 0, connections);
    } else if (!this.isActive && connections > LEAST_CONNECTIONS && this.silent > connections / 2) {
      this.until = now + MOST_BEATS * this.intervalMs;
      this.onChange(true, this.silent, connections);
    }
    this.cursor = (this.cursor + 1) % this.window.length;
    this.silent -= this.window[this.cursor] as number;
    this.window[this.cursor] = 0;
  }
}
