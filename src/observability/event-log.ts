import { Inject, Injectable } from '@nestjs/common';
import { EventStream } from '../events/event-stream.js';
import { failureLine, type Line } from '../events/line-limiter.js';
import type { WebSocketManagerEvent } from '../events/websocket-manager-event.js';
import { loggedUserId, printable } from '../options/printable.js';
import { RESOLVED_OPTIONS, type ResolvedOptions } from '../options/websocket-manager-options.interface.js';

/**
 * Writes what an operator should read: one line for each refusal and eviction, for failures, and for the shutdown.
 * Repeated lines are limited for each kind and user, user ids are shown as `logUserIds` says, and nothing of a request
 * is ever written.
 */
@Injectable()
export class EventLog {
  constructor(
    private readonly events: EventStream,
    @Inject(RESOLVED_OPTIONS) { logUserIds }: Pick<ResolvedOptions, 'logUserIds'>,
  ) {
    const user = (userId: string) => `user ${loggedUserId(userId, logUserIds)}`;
    events.listen(LOGGED, (event) => {
      // The line of the eviction has the same evidence.
      const isToldOtherwise = event.type === 'zombie_detected' && event.managerEnds;
      if (!isToldOtherwise) events.lines.write(lineFor(event, user));
      // After a drain the process may end by the signal: nothing is called later than this.
      if (event.type === 'draining' && event.phase === 'finished') this.stop();
    });
  }

  /** Writes how many lines were suppressed; nothing of the log is left waiting. */
  stop(): void {
    this.events.lines.flush();
  }
}

const LOGGED = [
  'rejected',
  'evicted',
  'zombie_detected',
  'breaker_changed',
  'self_preservation',
  'hook_failed',
  'store_failed',
  'draining',
] as const;

type LoggedEvent = Extract<WebSocketManagerEvent, { type: (typeof LOGGED)[number] }>;

function lineFor(event: LoggedEvent, user: (userId: string) => string): Line {
  switch (event.type) {
    case 'rejected': {
      const { detail, reason, retryAfterMs, userId } = event;
      return {
        level: 'warn',
        kind: `rejected ${reason}`,
        userId,
        text: () => {
          const who = userId === undefined ? 'somebody' : user(userId);
          const wait = retryAfterMs === undefined ? '' : `, retry after ${retryAfterMs} ms`;
          return `Rejected ${who}: ${reason}${wait}${detail === undefined ? '' : ` (${printable(detail)})`}`;
        },
      };
    }
    case 'evicted': {
      const { evidence, level = 'none', managerId, reason, userId } = event;
      return {
        level: 'log',
        kind: `evicted ${reason}`,
        userId,
        text: () => {
          const why = `${evidence.signal}, silent for ${evidence.silentForMs} ms, inactive for ${evidence.inactiveForMs} ms`;
          return `Evicted manager ${managerId} of ${user(userId)}: ${reason}, level ${level} (${printable(why)})`;
        },
      };
    }
    case 'zombie_detected': {
      const { evidence, connectionId, userId } = event;
      return {
        level: 'log',
        kind: 'dead connection',
        userId,
        text: () => {
          const why = `${evidence.signal}, silent for ${evidence.silentForMs} ms`;
          return `Connection ${connectionId} of ${user(userId)} is dead (${printable(why)}); its session stays`;
        },
      };
    }
    case 'breaker_changed': {
      const { from, to, userId } = event;
      return {
        level: to === 'open' ? 'warn' : 'log',
        kind: `breaker ${to}`,
        userId,
        text: () => `Circuit breaker of ${user(userId)}: ${from} -> ${to}`,
      };
    }
    case 'self_preservation':
      return {
        level: 'warn',
        kind: 'self-preservation',
        text: () =>
          event.active
            ? `Self-preservation: ${event.silent} of ${event.connections} connections fell silent within one beat; none is ended for that now`
            : 'Self-preservation is over',
      };
    case 'hook_failed':
      return {
        level: 'error',
        kind: `hook ${printable(event.hook)}`,
        text: () => failureLine(`${printable(event.hook)} failed`, event.error),
      };
    case 'store_failed':
      return {
        level: 'warn',
        kind: `store ${event.operation}`,
        text: () =>
          failureLine(`Store: ${event.operation} failed, this node decides alone`, event.error).text,
      };
    case 'draining':
      return {
        level: 'log',
        kind: `draining ${event.phase}`,
        text: () =>
          event.phase === 'started'
            ? `Draining ${event.connections} connections`
            : `Drained ${event.connections} connections, ${event.terminated} of them terminated`,
      };
  }
}
