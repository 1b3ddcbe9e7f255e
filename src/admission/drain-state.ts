import { Inject, Injectable } from '@nestjs/common';
import { RESOLVED_OPTIONS, type ResolvedOptions } from '../options/websocket-manager-options.interface.js';

/** A client told to come back waits at least so long, for the next node to be there. */
const LEAST_RETRY_MS = 500;

/** Whether this node is shutting down. Once it is, it stays so. */
@Injectable()
export class DrainState {
  private draining = false;
  private readonly beginListeners: (() => void)[] = [];

  constructor(@Inject(RESOLVED_OPTIONS) private readonly options: ResolvedOptions) {}

  get isDraining(): boolean {
    return this.draining;
  }

  /** Calls back when the drain begins, once it is to be seen in {@link isDraining}. */
  onBegin(listener: () => void): void {
    this.beginListeners.push(listener);
  }

  begin(): void {
    if (this.draining) return;
    this.draining = true;
    for (const listener of this.beginListeners) listener();
  }

  /** Drawn for each client, so that they do not come back together: the spread of the closes once more. */
  drawRetryAfterMs(): number {
    return Math.round(LEAST_RETRY_MS + Math.random() * Math.max(1_000, 2 * this.options.drain.spreadMs));
  }
}
