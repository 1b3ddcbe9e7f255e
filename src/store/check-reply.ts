import { inspect } from 'node:util';
import { printable } from '../options/printable.js';
import type { SlotHolder, SlotReply } from '../options/slot-store.interface.js';

/**
 * Checks a store's answer to `reserve`: a store is the application's own code, and an answer without a count would
 * become a decision about live sessions. So would a refusal of a slot below the limit.
 * @throws Error that names what was got and what is allowed
 */
export function checkReply(reply: unknown, limit: number): asserts reply is SlotReply {
  const { granted, count, elsewhere } = (reply ?? {}) as Record<string, unknown>;
  if (typeof granted !== 'boolean' || !isCount(count)) {
    throw invalid(reply, '{ granted: boolean, count: an integer >= 0 }');
  }
  if (granted) return;
  if ((count as number) < limit) {
    throw invalid(reply, `granted: true, or a count >= ${limit}, the limit that was asked for`);
  }
  if (elsewhere === undefined) return;
  if (!Array.isArray(elsewhere) || !elsewhere.every(isHolder)) {
    throw invalid(
      reply,
      'elsewhere: an array of { managerId: string, suspect, idle, busy: boolean, ' +
        'priority: number, ageMs, inactiveForMs: number >= 0 }, or absent',
    );
  }
}

function invalid(reply: unknown, allowed: string): Error {
  const got = printable(inspect(reply, { breakLength: Number.POSITIVE_INFINITY, depth: 2 }));
  return new Error(`store.reserve: got ${got}, expected ${allowed}`);
}

function isCount(count: unknown): boolean {
  return Number.isSafeInteger(count) && (count as number) >= 0;
}

function isHolder(value: unknown): value is SlotHolder {
  if (typeof value !== 'object' || value === null) return false;
  const { managerId, suspect, idle, busy, priority, ageMs, inactiveForMs } = value as Partial<SlotHolder>;
  return (
    typeof managerId === 'string' &&
    managerId !== '' &&
    [suspect, idle, busy].every((flag) => typeof flag === 'boolean') &&
    Number.isFinite(priority) &&
    [ageMs, inactiveForMs].every((ms) => Number.isFinite(ms) && (ms as number) >= 0)
  );
}
