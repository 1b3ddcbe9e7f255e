import { Injectable } from '@nestjs/common';
import { EventStream } from '../events/event-stream.js';
import type { EvictedEvent } from '../events/websocket-manager-event.js';

const MOST_KEPT = 200;

/** The last evictions of this node, for an operator who asks why. */
@Injectable()
export class AuditService {
  private readonly kept: EvictedEvent[] = [];

  constructor(events: EventStream) {
    events.listen(['evicted'], (event) => {
      this.kept.push(event);
      if (this.kept.length > MOST_KEPT) this.kept.shift();
    });
  }

  /** Newest first; at most 200. */
  get evictions(): EvictedEvent[] {
    return this.kept.toReversed();
  }
}
