import { Logger } from '@nestjs/common';
import type { Clock } from '../clock/clock.js';
import { printable } from '../options/printable.js';

/** So many lines of one kind are written in so long; the rest is counted. */
const LINES_PER_WINDOW = 10;
const WINDOW_MS = 10_000;

export interface Line {
  readonly level: 'log' | 'warn' | 'error';
  /** Lines of one kind are limited together. */
  readonly kind: string;
  readonly text: string;
  readonly stack?: string | undefined;
}

/** Writes lines to Nest's logger, a bounded number of each kind: no client can fill the log. */
export class LineLimiter {
  private readonly logger = new Logger('WebSocketManager');
  private readonly windows = new Map<string, { since: number; lines: number }>();

  constructor(private readonly clock: Clock) {}

  write({ level, kind, text, stack }: Line): void {
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
