import { Injectable, Logger } from '@nestjs/common';
import { Clock } from '../clock/clock.js';
import { EventStream } from '../events/event-stream.js';
import type { WebSocketManagerEvent } from '../events/websocket-manager-event.js';
import { printable, shortened } from './printable.js';

/** So many lines of one kind are written in so long; the rest is counted. */
const LINES_PER_WINDOW = 10;
const WINDOW_MS = 10_000;

interface Line {
  readonly level: 'log' | 'warn' | 'error';
  /** Lines of one kind are limited together. */
  readonly kind: string;
  readonly text: string;
  readonly stack?: string | undefined;
}

/**
 * Writes what an operator should read: one line for each refusal and eviction, for what failed, and for the
 * shutdown. Repeated ones are limited, user ids shortened, and nothing of a request is ever written.
 */
@Injectable()
export class EventLog {
  private readonly logger = new Logger('WebSocketManager');
  private readonly windows = new Map<string, { since: number; lines: number }>();

  constructor(
    private readonly clock: Clock,
    events: EventStream,
  ) {
    events.events$.subscribe((event) => {
      const line = lineFor(event);
      if (line) this.write(line);
    });
  }

  private write({ level, kind, text, stack }: Line): void {
    const now = this.clock.now();
    let window = this.windows.get(kind);
    if (!window || now - window.since >= WINDOW_MS) {
      const left = (window?.lines ?? 0) - LINES_PER_WINDOW;
      if (left > 0) this.logger[level](`... and ${left} more lines of this kind: ${kind}`);
      window = { since: now, lines: 0 };
      this.windows.set(kind, window);
    }
    if (++window.lines > LINES_PER_WINDOW) return;
    if (stack) this.logger.error(text, stack);
    else this.logger[level](text);
  }
}

function lineFor(event: WebSocketManagerEvent): Line | undefined {
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
        ...failure(`${printable(event.hook)} failed`, event.error),
      };
    case 'store_failed':
      return {
        level: 'warn',
        kind: `store ${event.operation}`,
        text: failure(`Store: ${event.operation} failed, this node decides alone`, event.error).text,
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
    default:
      return undefined;
  }
}

/** A message may hold what a client sent: it is made printable, and of the stack only the places are kept. */
function failure(what: string, error: unknown): { text: string; stack: string | undefined } {
  if (!(error instanceof Error)) return { text: `${what}: ${printable(String(error))}`, stack: undefined };
  const places = error.stack?.split('\n').filter((line) => /^\s+at .*[)\d]$/.test(line));
  return {
    text: `${what}: ${printable(`${error.name}: ${error.message}`)}`,
    stack: places?.map((l) => printable(l)).join('\n'),
  };
}
