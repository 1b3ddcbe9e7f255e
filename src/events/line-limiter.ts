import { Logger } from '@nestjs/common';
import type { Clock, TimerHandle } from '../clock/clock.js';
import { printable } from '../options/printable.js';

/** Repeated lines of one kind about one user, in one window. */
const LINES_OF_USER = 10;
/**
 * Lines of one kind about all users, in one window, so that a client with any number of user ids cannot fill the log.
 * Half of them are reserved for the first line about a user: users with many lines leave room for the others.
 */
const LINES_OF_KIND = 100;
const REPEATED_LINES_OF_KIND = LINES_OF_KIND / 2;
/** Kinds that are limited separately. There are about forty; a name that the application makes up can add more. */
const MOST_KINDS = 100;
const FURTHER_KINDS = 'of further kinds';
/** Windows begin with a line and are shared by all kinds: one timer reports what was suppressed and empties them. */
const WINDOW_MS = 10_000;

export interface Line {
  readonly level: 'log' | 'warn' | 'error';
  /** Lines of one kind are limited together. */
  readonly kind: string;
  /** ... and within the kind, lines about one user; undefined: about no user, or an unknown one. */
  readonly userId?: string | undefined;
  /** Builds the line; called only if it is written. */
  readonly text: () => string | { readonly text: string; readonly stack: string | undefined };
}

interface KindWindow {
  readonly level: Line['level'];
  /** Lines written about each user; at most {@link LINES_OF_KIND} entries. */
  readonly written: Map<string | undefined, number>;
  lines: number;
  suppressed: number;
}

/**
 * Writes lines to Nest's logger, a bounded number for each kind and user. The number of suppressed lines is written at
 * the end of the window, or by {@link flush}.
 */
export class LineLimiter {
  private readonly logger = new Logger('WebSocketManager');
  private readonly windows = new Map<string, KindWindow>();
  /** Runs while there are windows. */
  private timer: TimerHandle | undefined;

  constructor(private readonly clock: Clock) {}

  write({ level, kind, userId, text }: Line): void {
    const window = this.windowOf(kind, level);
    const written = window.written.get(userId) ?? 0;
    const mostOfKind = written === 0 ? LINES_OF_KIND : REPEATED_LINES_OF_KIND;
    if (written >= LINES_OF_USER || window.lines >= mostOfKind) {
      window.suppressed++;
      return;
    }
    window.lines++;
    window.written.set(userId, written + 1);
    const line = text();
    if (typeof line === 'string') this.logger[level](line);
    else if (line.stack) this.logger.error(line.text, line.stack);
    else this.logger[level](line.text);
  }

  /** Writes how many lines were suppressed, and empties all windows. To be called at shutdown. */
  flush(): void {
    this.clock.clearTimeout(this.timer);
    this.timer = undefined;
    for (const [kind, { level, suppressed }] of this.windows) {
      if (suppressed > 0) this.logger[level](`... and ${suppressed} more lines of this kind: ${kind}`);
    }
    this.windows.clear();
  }

  private windowOf(kind: string, level: Line['level']): KindWindow {
    this.timer ??= this.clock.setTimeout(() => this.flush(), WINDOW_MS);
    const key = this.windows.has(kind) || this.windows.size < MOST_KINDS ? kind : FURTHER_KINDS;
    let window = this.windows.get(key);
    if (!window) {
      window = { level, written: new Map(), lines: 0, suppressed: 0 };
      this.windows.set(key, window);
    }
    return window;
  }
}

/**
 * What went wrong, as it may stand in a log. A message may hold what a client sent: it is made printable, and of
 * the stack only the places are kept.
 */
export function failureLine(what: string, error: unknown): { text: string; stack: string | undefined } {
  if (!(error instanceof Error)) return { text: `${what}: ${printable(textOf(error))}`, stack: undefined };
  const places = error.stack?.split('\n').filter((line) => /^\s+at .*[)\d]$/.test(line));
  const stack = places?.map((line) => printable(line)).join('\n');
  return { text: `${what}: ${printable(`${error.name}: ${error.message}`)}`, stack };
}

/** What was thrown, in words; anything can be, even what has no way to become a string. */
export function textOf(thrown: unknown): string {
  if (thrown instanceof Error) return thrown.message;
  try {
    return String(thrown);
  } catch {
    return `a thrown ${typeof thrown}`;
  }
}
