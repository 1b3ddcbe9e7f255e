import { Injectable } from '@nestjs/common';
import { Clock } from '../clock/clock.js';
import { EventStream } from '../events/event-stream.js';
import { failureLine, type Line, LineLimiter } from '../events/line-limiter.js';
import type { WebSocketManagerEvent } from '../events/websocket-manager-event.js';
import { printable, shortened } from '../options/printable.js';

/**
 * Writes what an operator should read: one line for each refusal and eviction, for what failed, and for the
 * shutdown. Repeated ones are limited, user ids shortened, and nothing of a request is ever written.
 */
@Injectable()
export class EventLog {
  constructor(clock: Clock, events: EventStream) {
    const lines = new LineLimiter(clock);
    events.listen(LOGGED, (event) => lines.write(lineFor(event)));
  }
}

const LOGGED = [
  'rejected',
  'evicted',
  'breaker_changed',
  'self_preservation',
  'hook_failed',
  'store_failed',
  'draining',
] as const;

function lineFor(event: Extract<WebSocketManagerEvent, { type: (typeof LOGGED)[number] }>): Line {
  switch (event.type) {
    case 'rejected': {
      const who = event.userId === undefined ? 'somebody' : `user ${shortened(event.userId)}`;
      const wait = event.retryAfterMs === undefined ? '' : `, retry after ${event.retryAfterMs} ms`;
      const detail = event.detail === undefined ? '' : ` (${printable(event.detail)})`;
      return {
        level: 'warn',
        kind: `rejected ${event.reason}`,
        text: `Rejected ${who}: ${event.reason}${wait}${detail}`,
      };
    }
    case 'evicted': {
      const { evidence, level = 'none', managerId, reason, userId } = event;
      const why = `${evidence.signal}, silent for ${evidence.silentForMs} ms, inactive for ${evidence.inactiveForMs} ms`;
      const text = `Evicted manager ${managerId} of user ${shortened(userId)}: ${reason}, level ${level} (${printable(why)})`;
      return { level: 'log', kind: `evicted ${reason}`, text };
    }
    case 'breaker_changed':
      return {
        level: event.to === 'open' ? 'warn' : 'log',
        kind: `breaker ${event.to}`,
        text: `Circuit breaker of user ${shortened(event.userId)}: ${event.from} -> ${event.to}`,
      };
    case 'self_preservation':
      return {
        level: 'warn',
        kind: 'self-preservation',
        text: event.active
          ? `Self-preservation: ${event.silent} of ${event.connections} connections fell silent within one beat; none is ended for that now`
          : 'Self-preservation is over',
      };
    case 'hook_failed':
      return {
        level: 'error',
        kind: `hook ${event.hook}`,
        ...failureLine(`${printable(event.hook)} failed`, event.error),
      };
    case 'store_failed':
      return {
        level: 'warn',
        kind: `store ${event.operation}`,
        text: failureLine(`Store: ${event.operation} failed, this node decides alone`, event.error).text,
      };
    case 'draining':
      return {
        level: 'log',
        kind: `draining ${event.phase}`,
        text:
          event.phase === 'started'
            ? `Draining ${event.connections} connections`
            : `Drained ${event.connections} connections, ${event.terminated} of them terminated`,
      };
  }
}
