import { Inject, Injectable } from '@nestjs/common';
import { RESOLVED_OPTIONS, type ResolvedOptions } from '../options/websocket-manager-options.interface.js';

/** A client told to come back waits at least so long, for the next node to be there. */
const LEAST_RETRY_MS = 500;

/** Whether this node is shutting down. Once it is, it stays so. */
@Injectable()
export class DrainState {
  private draining = false;

  constructor(@Inject(RESOLVED_OPTIONS) private readonly options: ResolvedOptions) {}

  get isDraining(): boolean {
    return this.draining;
  }

  begin(): void {
    this.draining = true;
  }

  /** Drawn for each client, so that they do not come back together: the spread of the closes once more. */
  drawRetryAfterMs(): number {
    return Math.round(LEAST_RETRY_MS + Math.random() * Math.max(1_000, 2 * this.options.drain.spreadMs));
  }
}
